"""Rendezvous hashing: every node computes the same owner of a key from the same list of nodes.

Each key ranks all nodes by a hash of node and key. When a node joins or leaves, only the keys move that it wins or had.
Source of the rule: Thaler and Ravishankar, "A name-based mapping scheme for rendezvous", 1996.
"""

import math
from collections.abc import Iterable, Mapping
from hashlib import blake2b


def ranked(key: str, nodes: Iterable[str]) -> list[str]:
    """``nodes`` in the order in which they are to have ``key``; the same on every machine."""
    return sorted(nodes, key=lambda node: (_hash(key, node), node))


def ranked_by_capacity(key: str, capacities: Mapping[str, float]) -> list[str]:
    """The nodes in the order in which they are to have ``key``, each first for a share of keys like its capacity.

    Args:
        key: Any text.
        capacities: The nodes with their capacities, all above 0.
    """

    def distance(node: str) -> tuple[float, str]:
        uniform = (_hash(key, node) + 1) / (2**64 + 1)  # between 0 and 1, both exclusive
        return -math.log(uniform) / capacities[node], node

    return sorted(capacities, key=distance)


def _hash(key: str, node: str) -> int:
    return int.from_bytes(blake2b(f"{node}\0{key}".encode(), digest_size=8).digest())
