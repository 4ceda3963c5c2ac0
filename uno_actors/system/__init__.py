"""What a service starts: the actor system.

May import: all below: leaves to config.

Read `system`, then `runtime`, the parts that run while a system is up. `tree` resolves what stands under which
supervisor; `bridges` carry events from one system to another.
"""
