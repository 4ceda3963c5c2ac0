"""An event bus in memory, and publishers of events that belong to no aggregate.

May import: all below: leaves to handlers.

Read `bus`, then `publisher`. `subscription` finds the handlers of an event; `concurrent_runs` runs them
concurrently.
"""
