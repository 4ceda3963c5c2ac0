"""Events, commands and aggregates, as users write them. No actors, no I/O.

May import: leaves.

Read `commands`, `events` and `aggregate`. `payloads` holds the rule that a recorded event reads back as it was decided;
`values` turns Python values into msgpack and back, type for type. `marked_methods` finds what ``@handles`` and
``@reacts`` have marked.
"""
