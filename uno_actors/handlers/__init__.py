"""How recorded events reach their handlers: at least once, in order, each handler at its own speed.

May import: leaves, actors, domain, supervision, store, aggregates.

Start with `spec`, which users write, and `subscribe`, which turns it into specifications. `router` reads the log and
dispatches events by `routes`. `subscription` is a handler as the router sees it, with its `progress`, its `failures`
and the `requests` of operators. `actor` runs one handler: `calls` calls it, and `strategy`, `view_building` and
`concurrent` decide the order. `child` is a handler as its supervisor sees it. `projection` and `view` keep read
models. Operators use `control`; handlers use `services`. `keyed_queue` runs
items of different keys side by side. `moves` warns of handler names that change when code moves.
"""
