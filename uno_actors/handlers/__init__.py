"""How recorded events reach their handlers: at least once, in order, each handler at its own speed.

May import: leaves, actors, domain, supervision, store, aggregates.

Read `spec` for what users write and `subscribe` for what becomes of it; then `router`, which reads the log
and hands events out by `routes`, and `subscription`, a handler as the router sees it, with its `progress`,
its `failures` and the `requests` of operators. `actor` runs one handler: `calls` calls it, and `strategy`,
`view_building` and `concurrent` say in which order. `child` is a handler as its supervisor sees it.
`projection` and `view` keep read models, `process_manager` sends commands. `control` is what operators use,
`services` what a handler may use of its system. `keyed_queue` runs items of different keys side by side;
`moves` warns of names that a move of the code changes.
"""
