"""How recorded events reach their handlers: at least once, in order, each handler at its own speed.

May import: leaves, actors, domain, supervision, store, aggregates.

Read `spec` for what users write, then `router`, which reads the log and hands events out, and `actor`, which runs one
handler. `child` is a handler as its supervisor sees it. `projection` and `view` keep read models, `process_manager`
sends commands. `control` is what operators ask of handlers; `services` is what a handler may ask of its system;
`keyed_queue` runs events of different keys side by side; `moves` warns of names that a move of the code changes.
"""
