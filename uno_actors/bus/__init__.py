"""An event bus in memory, and publishers of events that belong to no aggregate.

May import: all below: leaves to handlers.

Read `bus`, then `publisher`. `subscription` says which events a handler selects; `concurrent_runs` runs
the handlers of one event side by side.
"""
