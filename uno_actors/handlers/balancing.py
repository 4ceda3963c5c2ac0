"""Balance: which node is to run each handler. A pure function of the members, the same on every node.

It is only a preference: the lease of a handler decides which node runs it. Each handler first goes to the node that
rendezvous hashing ranks first. While a node then has at least two more than another that could have one of them, a
handler moves from the first to the second, if need be through nodes between them. At the end no node is more than
one off balance among nodes that can run the same handlers, and the loads differ as little as they can. The partitions
of each handler are spread in the same way, so that a heavy one is not left to a few nodes.

Source of the rule: Harvey, Ladner, Lovász and Tamir, "Semi-matchings for bipartite graphs and load balancing", 2006.
"""

from collections import deque
from collections.abc import Iterable, Mapping, Sequence

from uno_actors.handlers.partitions import whole_name
from uno_actors.rendezvous import ranked
from uno_actors.store.membership import Member

ROLE = "handlers"
"""The role of members that run handlers."""

Choices = Mapping[str, Sequence[str]]
"""The nodes that can run each handler, the best first; at least one."""


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
    choices = {handler: ranked(handler, able[handler]) for handler in sorted(able)}
    by_whole: dict[str, dict[str, Sequence[str]]] = {}
    for handler, nodes in choices.items():
        by_whole.setdefault(whole_name(handler), {})[handler] = nodes
    holding = _Holding(choices)
    for parts in by_whole.values():
        alone = _Holding(parts)
        alone.balance()
        for handler, node in alone.holders.items():
            holding.move(handler, node)
    holding.balance()
    for whole, parts in by_whole.items():
        if len(parts) > 1:
            holding.spread(whole)
    return holding.holders


class _Holding:
    """Which node has which handlers, while they move; at first each is on the best node."""

    def __init__(self, choices: Choices) -> None:
        self.holders = {handler: nodes[0] for handler, nodes in choices.items()}
        self._choices = choices
        self._wholes = {handler: whole_name(handler) for handler in choices}
        self._held: dict[str, dict[str, set[str]]] = {
            node: {} for nodes in choices.values() for node in nodes
        }
        self._loads = dict.fromkeys(self._held, 0)
        for handler, node in self.holders.items():
            self._held[node].setdefault(self._wholes[handler], set()).add(handler)
            self._loads[node] += 1

    def move(self, handler: str, node: str) -> None:
        """Move a handler to another node."""
        whole, before = self._wholes[handler], self.holders[handler]
        self._held[before][whole].remove(handler)
        self._held[node].setdefault(whole, set()).add(handler)
        self._loads[before] -= 1
        self._loads[node] += 1
        self.holders[handler] = node

    def balance(self) -> None:
        """Move handlers until the loads of the nodes differ as little as possible."""
        while moves := self._improvement():
            for handler, node in moves:
                self.move(handler, node)

    def spread(self, whole: str) -> None:
        """Swap handlers until no node has two more partitions of one than another. The loads stay the same."""
        while swap := self._swap(whole):
            for handler, node in swap:
                self.move(handler, node)

    def _count(self, node: str, whole: str) -> int:
        return len(self._held[node].get(whole, ()))

    def _improvement(self) -> list[tuple[str, str]]:
        """The moves that take a handler off the fullest node that has two more than one it can reach; else nothing."""
        loads = self._loads
        for fullest in sorted(loads, key=lambda node: (-loads[node], node)):
            before = self._reachable(fullest)
            emptiest = min(before, key=lambda node: (loads[node], node), default=fullest)
            if loads[fullest] - loads[emptiest] >= 2:
                moves = []
                while emptiest != fullest:
                    node, handler = before[emptiest]
                    moves.append((handler, emptiest))
                    emptiest = node
                return moves[::-1]
        return []

    def _reachable(self, start: str) -> dict[str, tuple[str, str]]:
        """The nodes that can take a handler of ``start``, also through others: with node and handler before each."""
        before: dict[str, tuple[str, str]] = {}
        waiting = deque([start])
        while waiting and len(before) < len(self._held) - 1:
            node = waiting.popleft()
            best: dict[str, tuple[bool, int, str]] = {}  # for each next node, the handler to give it
            for whole, handlers in self._held[node].items():
                for handler in handlers:
                    for place, other in enumerate(self._choices[handler]):
                        if other != start and other not in before:
                            uneven = self._count(node, whole) <= self._count(other, whole)
                            found = (uneven, place, handler)
                            best[other] = min(best.get(other, found), found)
            for other, (_, _, handler) in sorted(best.items()):
                before[other] = node, handler
                waiting.append(other)
        return before

    def _swap(self, whole: str) -> list[tuple[str, str]]:
        """A partition of ``whole`` and another handler, each with its new node; nothing if nothing is to be gained."""
        count, choices = self._count, self._choices
        by_count = sorted(self._held, key=lambda node: (-count(node, whole), node))
        for full in by_count:
            for bare in reversed(by_count):
                if count(full, whole) - count(bare, whole) < 2:
                    break
                given = [handler for handler in self._held[full].get(whole, ()) if bare in choices[handler]]
                taken = [
                    handler
                    for other, handlers in self._held[bare].items()
                    if other != whole and count(bare, other) > count(full, other)
                    for handler in handlers
                    if full in choices[handler]
                ]
                if given and taken:
                    return [
                        (min(given, key=lambda each: (choices[each].index(bare), each)), bare),
                        (min(taken, key=lambda each: (choices[each].index(full), each)), full),
                    ]
        return []
