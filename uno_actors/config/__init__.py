"""A system as a file: read, validated, analysed, simulated and written.

May import: everything below it, from the leaves to handlers.

Read `tables` first: the format, a class for each table. `reader` makes a system's parts of a file: `text` and `toml`
read lines, variables and included files; `values` and `imports` say what each value may be; `validation` finds all
faults at once, and `errors` reports them. `writer` is the way back. `analysis` works out what the rules of supervision
lead to; `simulation` runs them in virtual time.
"""
