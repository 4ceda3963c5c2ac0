"""The actor system, which a service starts and stops.

May import: all below: leaves to config.

Read `system`, then `runtime`, which starts and stops the parts of a running system, and its hosts: `actor_host` spawns
actors, `handler_host` runs handlers, and `supervision_tree` holds the supervisors, whose children `tree` resolves.
`announcement` makes the system known to others on its store and joins a cluster; `leases` decide which process runs a
handler. `statistics` holds the counters, `state` what other processes are shown. `bridges` copy events from one system
to another. `supervisor_ref` is the public handle of a supervisor.
"""
