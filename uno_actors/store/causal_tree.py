"""The events caused by one first message, each below the one that caused it."""

from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Generic, TypeVar

from uno_actors.domain.events import DomainEvent
from uno_actors.printable import counted, printable
from uno_actors.store.codec import Record

E = TypeVar("E", DomainEvent, Record)


@dataclass(frozen=True, slots=True)
class CausalNode(Generic[E]):
    """An event and the events that it caused.

    Attributes:
        event: The event, or its record where the classes of events are not at hand.
        position: Its position in the log.
        children: The events that name it, or a command that it caused, as their cause; in log order.
    """

    event: E
    position: int
    children: "tuple[CausalNode[E], ...]" = ()

    def __str__(self) -> str:
        event = self.event
        of = f" {event.aggregate_type or ''}<{event.aggregate_id}@{event.aggregate_version}>"
        return printable(f"{self.position} {event.event_type}{of if event.aggregate_id is not None else ''}")


@dataclass(frozen=True, slots=True)
class CausalTree(Generic[E]):
    """All events of one correlation id; ``str`` draws it for a terminal.

    Attributes:
        correlation_id: The id that they share.
        roots: Events that none of the others caused, but, for example, a command from outside; in log order.
    """

    correlation_id: str
    roots: tuple[CausalNode[E], ...] = ()

    def __iter__(self) -> Iterator[CausalNode[E]]:
        """All nodes, each before those below it."""
        return (node for _, node in self._walk())

    def __len__(self) -> int:
        return sum(1 for _ in self)

    def __str__(self) -> str:
        title = f"{printable(self.correlation_id)}: {counted(len(self), 'event')}"
        return "\n".join([title, *(f"{branches}{node}" for branches, node in self._walk())])

    def _walk(self) -> Iterator[tuple[str, CausalNode[E]]]:
        """Each node with the branches that lead to it; without recursion, because chains may be long."""
        waiting = list(_below("", self.roots))
        while waiting:
            branches, indent, node = waiting.pop()
            yield branches, node
            waiting += _below(indent, node.children)


def _below(indent: str, nodes: Sequence[CausalNode[E]]) -> Iterator[tuple[str, str, CausalNode[E]]]:
    """The branches to each of ``nodes`` and the indent of the nodes below it, the last first."""
    for node in reversed(nodes):
        last = node is nodes[-1]
        yield indent + ("└─ " if last else "├─ "), indent + ("   " if last else "│  "), node


def causal_tree(
    correlation_id: str, stored: Sequence[tuple[int, Record]], shown: Callable[[Record], E]
) -> CausalTree[E]:
    """The tree of ``stored``, which are in log order.

    An event is below the earlier one that it names as its cause, or that caused the command that it names.

    Args:
        correlation_id: The id that they share.
        stored: Positions and records.
        shown: Makes the event of a node from a record.
    """
    place_of: dict[str, int] = {}
    for place, (_, record) in enumerate(stored):
        place_of.setdefault(record.event_id, place)
    children: defaultdict[int | None, list[CausalNode[E]]] = defaultdict(list)
    for place in reversed(range(len(stored))):  # what is below a node is complete when the node is made
        position, record = stored[place]
        node = CausalNode(shown(record), position, tuple(reversed(children.pop(place, []))))
        causes = (
            place_of.get(cause) for cause in (record.causation_id, record.command_causation_id) if cause
        )
        children[next((cause for cause in causes if cause is not None and cause < place), None)].append(node)
    return CausalTree(correlation_id, tuple(reversed(children[None])))
