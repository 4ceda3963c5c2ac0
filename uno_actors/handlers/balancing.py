"""Balance: which node is to run each handler. A pure function of the members, the same on every node.

It is only a preference: the lease of a handler decides which node runs it. Each handler first goes to the node that
rendezvous hashing ranks first. While a node then has at least two more than another that could have one of them, a
handler moves from the first to the second, if need be through nodes between them. At the end no node is more than
one off balance among nodes that can run the same handlers, and the loads differ as little as they can.

Source of the rule: Harvey, Ladner, Lovász and Tamir, "Semi-matchings for bipartite graphs and load balancing", 2006.
"""

from collections import deque
from collections.abc import Iterable, Mapping, Sequence

from uno_actors.rendezvous import ranked
from uno_actors.store.membership import Member

ROLE = "handlers"
"""The role of members that run handlers."""


def preferred_holders(members: Iterable[Member]) -> dict[str, str]:
    """The id of the node that is to run each handler, by the handler's name.

    Args:
        members: All members. Those that leave, or that are not for handlers, are not chosen.
    """
    able: dict[str, list[str]] = {}
    for member in sorted(members, key=lambda member: member.id):
        if ROLE in member.roles and not member.leaving:
            for handler in member.handlers:
                able.setdefault(handler, []).append(member.id)
    return balanced({handler: ranked(handler, able[handler]) for handler in sorted(able)})


def balanced(choices: Mapping[str, Sequence[str]]) -> dict[str, str]:
    """Give each handler one of its nodes, so that the numbers of the nodes differ as little as possible.

    Args:
        choices: The nodes that can run each handler, the best first; at least one.
    """
    holders = {handler: nodes[0] for handler, nodes in choices.items()}
    held: dict[str, set[str]] = {node: set() for nodes in choices.values() for node in nodes}
    for handler, node in holders.items():
        held[node].add(handler)
    while (moves := _improvement(choices, held)) is not None:
        for handler, node in moves:
            held[holders[handler]].remove(handler)
            held[node].add(handler)
            holders[handler] = node
    return holders


def _improvement(
    choices: Mapping[str, Sequence[str]], held: Mapping[str, set[str]]
) -> list[tuple[str, str]] | None:
    """The moves that take one handler off the fullest node that has two more than one it can reach; else ``None``."""
    for fullest in sorted(held, key=lambda node: (-len(held[node]), node)):
        before = _reachable(fullest, choices, held)
        emptiest = min(before, key=lambda node: (len(held[node]), node), default=fullest)
        if len(held[fullest]) - len(held[emptiest]) >= 2:
            moves = []
            while emptiest != fullest:
                node, handler = before[emptiest]
                moves.append((handler, emptiest))
                emptiest = node
            return moves[::-1]
    return None


def _reachable(
    start: str, choices: Mapping[str, Sequence[str]], held: Mapping[str, set[str]]
) -> dict[str, tuple[str, str]]:
    """The nodes that can take a handler of ``start``, directly or through others: with node and handler before each."""
    before: dict[str, tuple[str, str]] = {}
    waiting = deque([start])
    while waiting and len(before) < len(held) - 1:
        node = waiting.popleft()
        best: dict[str, tuple[int, str]] = {}  # for each next node, the handler that likes it best
        for handler in held[node]:
            for place, other in enumerate(choices[handler]):
                if other != start and other not in before:
                    best[other] = min(best.get(other, (place, handler)), (place, handler))
        for other, (_, handler) in sorted(best.items()):
            before[other] = node, handler
            waiting.append(other)
    return before
