"""The events and commands of a program as plain data, and what a change of them means.

May import: leaves, domain, handlers, processes.

Read `values` first: a `Catalog` is what a program says about itself, and can be kept as JSON. `reading` makes one from
classes and handlers; `shapes` turns annotations into data. `comparison` compares two catalogs, by the rules of
`fitting`: which values of an old type a new type reads. `async_api` describes the topics for other programs.
"""
