"""The command ``uno-actors``.

May import: everything but testing.

Read `app`; each module beside it holds the commands of one subject: `check`, `run`, `store`, `handlers`,
`dead_letters`. `terminal` is the only place that prints. `service` is what ``uno-actors run`` runs, `control` the
socket over which other commands reach it. `store_copy` and `record_lines` move stores.
"""
