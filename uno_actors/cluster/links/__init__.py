"""Links between nodes: how the bytes of a request reach another node, and its answer comes back.

`port` says what every link promises. `memory` is the reference, for the nodes of one process; the others are Unix
sockets, TCP and NATS.
A link knows nothing of aggregates and commands.
"""
