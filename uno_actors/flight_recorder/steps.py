"""A step of a node as a value: what has happened to a command, an event, a handler or a child, and when."""

import sys
from bisect import bisect_right
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, fields
from types import UnionType
from typing import Any, Final, Self, get_args, get_type_hints

KINDS: Final = (
    "sent",
    "taken",
    "decided",
    "committed",
    "answered",
    "rejected",
    "timed out",
    "failed",
    "hop sent",
    "hop served",
    "hop returned",
    "published",
    "routed",
    "handled",
    "dead letter",
    "restarted",
    "stopped",
    "gave up",
)
"""The kinds of steps.

- Of a command: ``sent`` by its sender, ``taken`` from the mailbox, ``decided`` by its aggregate, and at last
  ``answered``, ``rejected``, ``timed out`` or ``failed``. In a cluster also ``hop sent`` to another node,
  ``hop served`` there, and ``hop returned``.
- Of events: ``committed`` by one commit, ``published`` without an aggregate, ``routed`` to the handlers of this node.
- Of a handler: ``handled``, ``failed`` at an event, ``dead letter``.
- Of a child of a supervisor: ``failed``, ``restarted``, ``stopped``; ``gave up`` is that of the supervisor.
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Step:
    """One step. It has ids and names of types only, no fields of commands or events.

    Attributes:
        kind: One of `KINDS`.
        time: When it ended, in seconds since 1970 by the clock of its node.
        node: Name of the node.
        who: The aggregate, as in ``Account<alice>``; the handler, the child; or ``journal``, ``publisher``, ``router``.
        what: Class of the command, or type of the event; empty for several events.
        seconds: How long it took; ``None`` for a step without a duration. Of a command that has ended: since it was
            sent.
        events: Number of events; ``None`` where there are none to count.
        first: Position in the log of the first event.
        position: Position in the log of the last event.
        aggregate_type: Of the aggregate.
        aggregate_id: Of the aggregate.
        command_id: Of the command.
        event_id: Of the last event.
        correlation_id: Of the command, or of the last event.
        handler: Name of the handler.
        peer: Name of the other node of a hop.
        reason: Why it was rejected, has failed or has timed out: class and text of the error.
    """

    kind: str
    time: float
    node: str
    who: str
    what: str = ""
    seconds: float | None = None
    events: int | None = None
    first: int | None = None
    position: int | None = None
    aggregate_type: str | None = None
    aggregate_id: str | None = None
    command_id: str | None = None
    event_id: str | None = None
    correlation_id: str | None = None
    handler: str | None = None
    peer: str | None = None
    reason: str | None = None

    def to_fields(self) -> dict[str, Any]:
        """As a table for JSON, without what is not known."""
        found = {name: getattr(self, name) for name in _FIELDS}
        return {name: value for name, value in found.items() if name in _REQUIRED or value not in (None, "")}

    @classmethod
    def of_fields(cls, found: Mapping[str, Any]) -> Self:
        """From a table that `to_fields` has made, perhaps in another version.

        Raises:
            ValueError: It is none.
        """
        known = {name: value for name, value in found.items() if name in _FIELDS}
        for name, value in known.items():
            if type(value) not in _FIELDS[name] and not (float in _FIELDS[name] and type(value) is int):
                raise ValueError(f"its {name} is {value!r}")
        try:
            return cls(**known)
        except TypeError:
            missing = [name for name in _REQUIRED if name not in known]
            raise ValueError(f"it has no {', '.join(missing)}") from None

    @property
    def places(self) -> tuple[int, int]:
        """Positions of the first and the last of its events; ``(0, 0)`` for none."""
        last = self.position or 0
        return (last if self.first is None else self.first), last


def _kinds_of(hint: Any) -> tuple[type, ...]:
    return get_args(hint) if isinstance(hint, UnionType) else (hint,)


_FIELDS = {each.name: _kinds_of(get_type_hints(Step)[each.name]) for each in fields(Step)}

_REQUIRED = ("kind", "time", "node", "who")
_OWN_IDS = ("command_id", "event_id", "correlation_id", "aggregate_id", "handler", "who")


def steps_about(steps: Sequence[Step], wanted: str) -> list[Step]:
    """The steps that are about an id, in their order.

    Those are the steps that have it; all steps of the commands among them, which got their correlation id only from
    their events; and the steps in which the events of these commands were committed, routed and handled.

    Args:
        steps: Of one or several nodes.
        wanted: Id of a command, an event, a correlation or an aggregate, ``Account<alice>``, or the name of a handler
            or a child.
    """
    about = [step for step in steps if any(getattr(step, name) == wanted for name in _OWN_IDS)]
    commands = {step.command_id for step in about if step.command_id is not None}
    own = [step.places for step in steps if step.command_id in commands and step.command_id is not None]
    own += [(step.position, step.position) for step in about if step.event_id == wanted and step.position]
    places = _joined(place for place in own if place[1])
    chosen = {id(step) for step in about}
    return [
        step
        for step in steps
        if id(step) in chosen
        or (step.command_id in commands if step.command_id is not None else _meets(step, places))
    ]


def _joined(places: Iterable[tuple[int, int]]) -> list[tuple[int, int]]:
    """Ranges of positions in order, without overlaps."""
    joined: list[tuple[int, int]] = []
    for first, last in sorted(places):
        if joined and first <= joined[-1][1] + 1:
            joined[-1] = joined[-1][0], max(last, joined[-1][1])
        else:
            joined.append((first, last))
    return joined


def _meets(step: Step, places: Sequence[tuple[int, int]]) -> bool:
    """Whether one of the ranges has an event of ``step``."""
    if step.position is None:
        return False
    first, last = step.places
    found = bisect_right(places, (last, sys.maxsize)) - 1
    return found >= 0 and places[found][1] >= first
