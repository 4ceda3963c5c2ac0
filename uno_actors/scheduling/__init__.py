"""Commands that are sent later: kept by due time in the store, and sent by one scheduler.

May import: leaves, actors, domain, supervision, store, aggregates, handlers.

What is scheduled are events in the log: see `uno_actors.domain.schedules`. Read `entries`, then `due_list`: the handler
that keeps what is to be sent and records `Fired` for what is due; and `sender`: the handler that sends it. `scheduler`
starts the two in a system, `control` is for programs and operators.
"""
