"""Actors: pykka's programming model on one event loop and a few worker threads. No events are known here.

May import: leaves.

Read `actor` for what users write, then `cell`, an actor's life behind its reference. Its parts: `turns` (when and
where it runs), `steps` (what each step calls), `faults` (what happens when it fails), `relations` (children and death
watch), `stash`, `timers`, and `inspection` (what others see). Messages reach it through `mailbox`, with `message_queue`
for their order and `dead_messages` for those that no actor handles; replies leave through `future`. `dispatcher` is the
event loop on which turns run, with `carrier` for the tasks, `worker_pool` for plain functions and `loop_thread` for
programs without a loop. `ask` passes deadlines on, `deadlock` finds actors that wait for each other, `watchdog` reports
code that holds a thread. `signals` and `stop_flag` are small values. `pykka` is the only import of pykka.
"""
