"""A system as a file: read, validated, analysed, simulated and written.

May import: all below: leaves to handlers.

Read `reader`: the tables of a file and how they become a system. `text` and `toml` read lines, variables and included
files; `values` says what each value may be; `errors` reports all faults at once. `writer` is the way back. `analysis`
works out what the rules of supervision lead to, `simulation` runs them on a virtual clock.
"""
