"""Actors: pykka's programming model on one event loop and a few worker threads. No events are known here.

May import: leaves.

Read `actor` for what users write, then `cell`, an actor's life behind its reference: one message at a time, from start
to end. `mailbox` and `future` stand in front of it and behind it. `dispatcher` gives turns on the event loop and on
worker threads, with `carrier` for the tasks and `timers` for what comes later. `ask` passes deadlines on, `deadlock`
finds actors that wait for each other, `watchdog` names code that holds a thread. `pykka` is the only import of pykka.
"""
