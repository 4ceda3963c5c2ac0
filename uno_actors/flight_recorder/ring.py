"""The ring: the runtime adds a tuple for each step, and a reader makes steps of them.

A step costs one call and one tuple of what is at hand: ids, classes and numbers, no text and no copy. Names and times
of the day come with reading, and so do the steps of a command, which is one tuple when it has ended. No tuple
keeps a command, an event or an exception, which would keep all that they refer to.
"""

import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from time import monotonic
from typing import Any

from uno_actors.errors import AskTimeout, CommandRejected, describe
from uno_actors.flight_recorder.steps import Step, steps_about
from uno_actors.printable import bounded, counted, readable

LONGEST_REASON = 500
"""Characters of the text of an error."""


class Arrival(float):
    """The time when a command has come from another node, which has noted when it was sent."""

    __slots__ = ()


Stream = tuple[str, str]
"""Type and id of an aggregate: a `uno_actors.store.codec.StreamId`."""
Entry = tuple[Any, ...]
"""A `Shape`, a time on ``time.monotonic``'s clock, and values."""


class FlightRecorder:
    """The latest steps of a node. Every method may be called from any thread, and none does I/O.

    Args:
        steps: Maximum number of entries; 0 records nothing. A command that is answered is one entry and four steps.
        node: Name of the node.
        timed_out: Called when a command has timed out; must be quick.

    Attributes:
        node: Name of the node.
        note: Adds an entry. The runtime calls it for each command, with a `COMMAND`.
        under_way: Returns an `UNDER_WAY` for each command that has not ended.
    """

    def __init__(self, steps: int, node: str, timed_out: Callable[[], object] | None = None) -> None:
        self.node = node
        self._entries: deque[Entry] = deque(maxlen=steps)
        self.note: Callable[[Entry], None] = self._entries.append
        self.under_way: Callable[[], Iterable[Entry]] = tuple
        self._timed_out = timed_out

    @property
    def size(self) -> int:
        """Maximum number of entries."""
        return self._entries.maxlen or 0

    # --- commands ---

    def ended(self, stream: Stream, envelope: Any, error: BaseException) -> None:
        """A command has ended with an error here; see `uno_actors.aggregates.envelope.CommandEnvelope`.

        A command that has timed out while its events are being recorded is answered later, which makes another entry.
        """
        is_late = isinstance(error, AskTimeout)
        kind = "timed out" if is_late else "rejected" if isinstance(error, CommandRejected) else "failed"
        reason, command, reply = reason_of(error), envelope.command, envelope.future
        asked = envelope.asked if reply is None else reply.asked
        if is_late and envelope.started:
            self.note((_LATE, monotonic(), *_of(stream, command), asked, kind, reason))
        else:
            times = asked, getattr(envelope, "taken", None), getattr(envelope, "decided", None)
            self.note((_ENDED, monotonic(), *_of(stream, command), *times, 0, kind, reason))
        if is_late and self._timed_out is not None:
            self._timed_out()

    # --- commands of other nodes ---

    def sent(self, stream: Stream, command: Any, at: float) -> None:
        """A command of this node is to be handled by another one; it was sent at a time of ``time.monotonic``."""
        self.note((_SENT, at, *_of(stream, command)))

    def returned(
        self, stream: Stream, command: Any, asked: float, position: int | None, error: BaseException | None
    ) -> None:
        """The reply to such a command, or its error, is here.

        Args:
            stream: Of its aggregate.
            command: The command.
            asked: When it was sent.
            position: In the log of its last event, if that is known.
            error: Its error.
        """
        if error is None:
            self.note((_RETURNED, monotonic(), *_of(stream, command), asked, position))
            return
        is_late = isinstance(error, AskTimeout)
        kind = "timed out" if is_late else "rejected" if isinstance(error, CommandRejected) else "failed"
        self.note((_LATE, monotonic(), *_of(stream, command), asked, kind, reason_of(error)))
        if is_late and self._timed_out is not None:
            self._timed_out()

    # --- hops between nodes ---

    def hop(  # noqa: PLR0917 - told in three places
        self,
        kind: str,
        stream: Stream,
        command: Any,
        peer: str,
        seconds: float | None = None,
        why: Any = None,
    ) -> None:
        """A command travels to another node, or comes from one.

        Args:
            kind: ``hop sent``, ``hop served`` or ``hop returned``.
            stream: Of its aggregate.
            command: The command.
            peer: Name of the other node.
            seconds: Of ``hop returned``: since it was sent.
            why: An error, or a text, if the other node has not served it.
        """
        reason = reason_of(why) if isinstance(why, BaseException) else why
        self.note((_HOP, monotonic(), *_of(stream, command), kind, peer, seconds, reason))

    # --- events ---

    def committed(self, began: float, ended: float, events: int | None, first: int | None, last: int) -> None:
        """A group of appends is durable: ``events`` of one log, at positions from ``first`` to ``last``."""
        self.note((_COMMITTED, ended, "journal", began, events, first, last))

    def not_committed(self, began: float, record: Any, error: BaseException) -> None:
        """An append, of which ``record`` is the last one, was not recorded, perhaps because of another writer."""
        named = record.aggregate_type, record.aggregate_id, record.answered, record.correlation_id
        self.note((_NOT_COMMITTED, monotonic(), "journal", began, *named, reason_of(error)))

    def published(self, began: float, events: Sequence[Any]) -> None:
        """Events that come from no aggregate are recorded.

        Args:
            began: On ``time.monotonic``'s clock.
            events: `uno_actors.store.records.RecordedEvent` each.
        """
        if not events:
            return
        (first, *_), (last, event) = events[0], events[-1]
        ids = event.aggregate_type, event.aggregate_id, event.event_id, event.correlation_id
        self.note(
            (_PUBLISHED, monotonic(), "publisher", began, len(events), event.event_type, first, last, *ids)
        )

    def routed(self, first: int, last: int, events: int) -> None:
        """A page of the log was handed to the live handlers of this node."""
        self.note((_ROUTED, monotonic(), "router", events, first, last))

    # --- handlers ---

    def handled(self, handler: str, began: float, first: int, last: Any, events: int) -> None:
        """A handler has handled events, one after the other or in one call.

        Args:
            handler: Its name.
            began: On ``time.monotonic``'s clock.
            first: Position of the first event.
            last: The last event, with its ``position`` and ``record``.
            events: Number of them.
        """
        self.note(
            (_HANDLED, monotonic(), handler, handler, began, events, first, last.position, *_ids(last.record))
        )

    def handler_failed(
        self, handler: str, began: float, event: Any, events: int, error: BaseException
    ) -> None:
        """The call of a handler for ``event``, or for a list of which it is the last, has raised."""
        ids = _ids(event.record)
        self.note(
            (
                _HANDLER_FAILED, monotonic(), handler, handler, began, events, event.position, *ids,
                reason_of(error),
            )
        )  # fmt: skip

    def dead_letter(self, handler: str, letter: Any, record: Any) -> None:
        """An event was set aside: a `uno_actors.store.records.DeadLetter`, and the record of the event."""
        reason = bounded(f"after {counted(letter.attempts, 'attempt')}: {letter.error}", LONGEST_REASON)
        self.note(
            (_DEAD_LETTER, monotonic(), handler, handler, letter.position, *_ids(record), readable(reason))
        )

    # --- supervision ---

    def child(  # noqa: PLR0917 - told in one place
        self,
        kind: str,
        supervisor: str,
        child: str,
        of: str,
        error: BaseException | None = None,
        then: str = "",
    ) -> None:
        """Something has happened to a child of a supervisor.

        Args:
            kind: ``failed``, ``restarted``, ``stopped`` or ``gave up``.
            supervisor: Name of the supervisor.
            child: Name of the child.
            of: Its kind: ``handler``, ``actor`` or ``supervisor``.
            error: Why.
            then: What the supervisor has decided, or why it has given up.
        """
        parts = ["" if error is None else reason_of(error), f"{supervisor}: {then}" if then else ""]
        reason = "; ".join(filter(None, parts)) or None
        self.note((_CHILD, monotonic(), child, kind, of, child if of == "handler" else None, reason))

    # --- reading ---

    def steps(self) -> tuple[Step, ...]:
        """The steps, ordered by time, those of commands that are under way included; while others are added."""
        epoch = time.time() - monotonic()
        entries = [*self._copied(), *self.under_way()]
        found = [step for entry in entries for step in _steps_in(entry, self.node, epoch)]
        found.sort(key=lambda step: step.time)
        return tuple(_once(found))

    def steps_of(self, wanted: str) -> tuple[Step, ...]:
        """The steps that are about an id; see `uno_actors.flight_recorder.steps.steps_about`."""
        return tuple(steps_about(self.steps(), wanted))

    def _copied(self) -> list[Entry]:
        while True:
            try:
                return list(self._entries)
            except RuntimeError:  # another thread has added one meanwhile
                continue


def reason_of(error: BaseException) -> str:
    """Class and text of an error, as much as is kept."""
    return bounded(describe(error), LONGEST_REASON)


def _of(stream: Stream, command: Any) -> tuple[Any, ...]:
    return stream, command.__class__, command.command_id, command.correlation_id


def _ids(record: Any) -> tuple[Any, ...]:
    return (
        record.event_type, record.aggregate_type, record.aggregate_id, record.event_id, record.correlation_id,
    )  # fmt: skip


# --- entries as steps ---


class Shape:
    """What the values of an entry are.

    Args:
        kind: Of the step; empty if it is one of the values, or if there is none.
        names: Of the values after the time: fields of `Step`; or ``stream``, ``command`` (its class), ``asked``,
            ``taken``, ``decided`` and ``began`` (times of earlier steps), and ``positions``, of which that before
            ``end`` is the last one of the command.
    """

    __slots__ = ("kind", "names")

    def __init__(self, kind: str, names: str) -> None:
        self.kind = kind
        self.names = names.split()


_COMMAND = "stream command command_id correlation_id"
_EVENT = "what aggregate_type aggregate_id event_id correlation_id"
COMMAND = Shape("answered", f"{_COMMAND} asked taken decided events event_id positions end")
"""A command that was answered here, with the times of all its steps."""
UNDER_WAY = Shape("", f"{_COMMAND} asked taken decided events")
"""A command that has not ended. What has not happened is ``None``."""
_ENDED = Shape("", f"{_COMMAND} asked taken decided events kind reason")
_LATE = Shape("", f"{_COMMAND} began kind reason")
_SENT = Shape("sent", _COMMAND)
_RETURNED = Shape("answered", f"{_COMMAND} began position")
_HOP = Shape("", f"{_COMMAND} kind peer seconds reason")
_COMMITTED = Shape("committed", "who began events first position")
_NOT_COMMITTED = Shape("failed", "who began aggregate_type aggregate_id command_id correlation_id reason")
_PUBLISHED = Shape(
    "published",
    "who began events what first position aggregate_type aggregate_id event_id correlation_id",
)
_ROUTED = Shape("routed", "who events first position")
_HANDLED = Shape("handled", f"who handler began events first position {_EVENT}")
_HANDLER_FAILED = Shape("failed", f"who handler began events position {_EVENT} reason")
_DEAD_LETTER = Shape("dead letter", f"who handler position {_EVENT} reason")
_CHILD = Shape("", "who kind what handler reason")

_OF_ONE_EVENT = ("what", "aggregate_type", "aggregate_id", "correlation_id")
"""What several events need not have in common."""


def _steps_in(entry: Entry, node: str, epoch: float) -> Iterator[Step]:
    """The steps of an entry.

    Args:
        entry: The entry.
        node: Name of the node.
        epoch: Seconds between 1970 and the zero of ``time.monotonic``.
    """
    shape, at, *values = entry
    facts: dict[str, Any] = {"kind": shape.kind, **dict(zip(shape.names, values, strict=True))}
    if (stream := facts.pop("stream", None)) is not None:
        facts["aggregate_type"], facts["aggregate_id"] = stream
        facts |= {"who": "{}<{}>".format(*stream), "what": facts.pop("command").__name__}
        if "asked" in facts:
            yield from _before(facts, node, epoch)
    elif (facts.get("events") or 1) > 1:
        facts = {name: value for name, value in facts.items() if name not in _OF_ONE_EVENT}
    began = facts.pop("began", None)
    if began is not None:
        facts["seconds"] = at - began
    if facts.get("seconds") is not None:
        facts["seconds"] = round(facts["seconds"], 6)
    if facts["kind"]:
        yield Step(time=round(epoch + at, 6), node=node, **facts)


def _before(facts: dict[str, Any], node: str, epoch: float) -> Iterator[Step]:
    """The steps of a command before its last one; what is only theirs is taken out of ``facts``."""
    asked, taken, decided = (facts.pop(name) for name in ("asked", "taken", "decided"))
    events, positions, end = facts.pop("events"), facts.pop("positions", ()), facts.pop("end", 0)
    position = positions[end - 1] if positions else None
    shared = {
        name: facts[name]
        for name in ("who", "what", "aggregate_type", "aggregate_id", "command_id", "correlation_id")
    }
    if asked is not None and not isinstance(asked, Arrival):
        yield Step(kind="sent", time=round(epoch + asked, 6), node=node, **shared)
    if taken:
        repeated = None if decided or facts["kind"] != "answered" else "repeated: it has its earlier result"
        yield Step(kind="taken", time=round(epoch + taken, 6), node=node, **shared, reason=repeated)
    if taken and decided:
        seconds, at = round(decided - taken, 6), round(epoch + decided, 6)
        yield Step(kind="decided", time=at, node=node, **shared, seconds=seconds, events=events)
    if position is not None:
        facts["position"] = position
        if events:
            facts |= {"first": position - events + 1, "events": events}
    facts["began"] = asked


def _once(steps: Iterable[Step]) -> Iterator[Step]:
    """``steps`` without a second ``sent`` of a command that was sent on here and handled here after all."""
    sent: set[tuple[str | None, float]] = set()
    for step in steps:
        if step.kind == "sent":
            if (step.command_id, step.time) in sent:
                continue
            sent.add((step.command_id, step.time))
        yield step
