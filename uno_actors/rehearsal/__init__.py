"""Rehearsal of an upgrade: old and new code read one log, each in processes of its own, and are compared.

`uno_actors.rehearsal.program` loads the code, `uno_actors.rehearsal.states` compares states of any classes,
`uno_actors.rehearsal.worker` is the process in which one version of the code runs, and
`uno_actors.rehearsal.comparison` makes findings of what two of them report. Nothing is written to the store.
"""
