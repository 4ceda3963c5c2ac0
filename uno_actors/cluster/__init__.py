"""Several nodes on one store: a command goes to the node that has its aggregate in memory.

May import: leaves, actors, domain, supervision, store, aggregates, handlers. Only `uno_actors.system` and those
above it import this one. Ownership is only a matter of speed: the expected version of a stream stays the fence.

Read `settings`, which users write, `placement` (which node owns what, pure), `links.port` (how bytes reach a node),
`wire` (how a command and its reply are written), then `node` (joins, routes, leaves).
"""
