"""The port that event stores implement, and what all stores share.

May import: leaves, domain.

Read `port` first, one page with every outcome of every call, and `records`, its values. `queries` and `following` are
the reads that rest on it; `expected_version` is the check that all stores share; `opening` finds a store by its URL.
`codec` turns events into records; `limits` says which records every store accepts. `log_filter` narrows what is read,
`causal_tree` shows what followed from one message, `maintenance` is what operators ask of a store. `handler_names` and
`view_keys` are the names that handlers own in it.
"""
