"""Each aggregate as an actor: load, decide, append, adopt the new state, reply.

May import: leaves, actors, domain, supervision, store.

Read the way of a command: `ref` sends it in an `envelope`, the `directory` of active aggregates delivers it, the
`actor` lets the aggregate decide, and the `journal` commits the events of all aggregates in groups. `loading` and
`snapshots` bring an aggregate back. `idempotency`, with `command_memory`, `fingerprint` and `recording`,
recognises a command that comes again; `external_writes` notices what other processes record. `repository` loads and
saves aggregates without actors.
"""
