"""Supervision: which children are restarted, when, and what happens when restarts do not help. Rules of Erlang/OTP.

May import: leaves, actors.

Read `spec` for what users write, then `policy`, pure functions that decide, and `supervisor`, the actor that carries
decisions out. `child` starts and stops one child of each kind; `reload` changes a running tree.
"""
