"""Supervision: which children are restarted, when, and what happens when restarts do not help. Rules of Erlang/OTP.

May import: leaves, actors.

Read `spec` for what users write, then `policy`, pure functions that decide, and `supervisor`, the actor that carries
out decisions, with `restarts` for the restarts under way. `child` starts and stops a child that is one actor, `nested`
one that is a supervisor. `reload` computes how to change a running tree.
"""
