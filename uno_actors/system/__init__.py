"""What a service starts: the actor system.

May import: all below: leaves to config.

Read `system`, then `runtime`, which starts and stops the parts of a running system, and its two hosts:
`actor_host` spawns actors, `handler_host` runs handlers, whose `leases` say which process runs them.
`settings` are the options, `statistics` the counters. `tree` resolves the children of each supervisor;
`bridges` carry events from one system to another. `supervisor_ref` is
a supervisor as a service sees it.
"""
