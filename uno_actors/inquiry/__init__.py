"""Why something is not done, or what became of it.

May import: leaves, flight_recorder, actors, domain, supervision, store, aggregates, handlers, cluster, scheduling.

An inquiry gathers `facts` from the store, from the processes that run systems on it, and from the nodes of the cluster,
each within a deadline. Pure functions make findings of the facts: `commands`, `events`, `aggregates`, `handlers`,
`children` and `schedules`. `inquiry` puts them together to an `Explanation`: findings, with the commands that mend.
"""
