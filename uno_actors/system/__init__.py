"""The actor system, which a service starts and stops.

May import: all below: leaves to config.

Read `system`, then `runtime`, which starts and stops the parts of a running system, and its two hosts:
`actor_host` spawns actors, and `handler_host` runs handlers. `leases` decide which process runs a handler.
`settings` holds the options, `statistics` the counters. `tree` resolves the children of each supervisor.
`bridges` copy events from one system to another. `supervisor_ref` is the public handle of a supervisor.
"""
