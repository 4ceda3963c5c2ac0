"""The command ``uno-actors``.

May import: everything but testing.

Read `app` first; each module beside it holds the commands of one subject: `check`, `run`, `store`, `json_lines`,
`handlers`, `dead_letters`. `opening` gives a command its store, and `terminal` is the only place that prints. `service`
is what ``uno-actors run`` runs, `control` the socket over which other commands reach it. `store_copy`, `record_lines`
and `rows` copy and show what is recorded.
"""
