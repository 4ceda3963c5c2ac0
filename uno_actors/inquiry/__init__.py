"""Why something is not done, or what became of it.

May import: leaves, actors, domain, supervision, store, aggregates, handlers, cluster, scheduling.

An inquiry gathers `facts` from the store, from the processes that run systems on it, and from the nodes of the cluster,
each within a deadline. Pure functions make findings of the facts: `commands`, `events`, `aggregates`, `handlers` and
`schedules`. `inquiry` puts them together to an `Explanation` with a headline, the findings, and the commands that mend.
"""
