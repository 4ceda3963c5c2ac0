"""Process managers: they react to events by sending commands, and record the progress of each process.

May import: leaves, actors, domain, supervision, store, aggregates, handlers.

`manager` has the base class that users write subclasses of, and says how a process survives a crash. `routing` reads
which method reacts to which event, and to which processes an event belongs; `reactions` uses that. `messages` has what
a process records, and the commands that make it react. `steps` takes one process through one event: it lets the process
react and sends the commands. `feed` is the handler that does so for every event.
"""
