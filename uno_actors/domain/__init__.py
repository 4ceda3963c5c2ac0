"""Events, commands and aggregates, as users write them. No actors, no I/O.

May import: leaves.

Read `commands`, `events` with `registration` and `generic_models`, and `aggregate`. `payloads` holds the rule that a
recorded event reads back as it was decided, with `exactness`, `proof`, `payload_writer` and `payload_reader`. `values`
converts Python values to msgpack and back, type for type. `marked_methods` finds the methods that ``@handles`` and
``@reacts`` mark, `methods` those of an aggregate. `schedules` has the events by which commands are sent later.
"""
