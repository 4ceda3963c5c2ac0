"""The page Trace: everything that one message caused, with times, retries, and where it waits now."""

import asyncio
from collections import defaultdict
from collections.abc import Mapping, Sequence
from datetime import datetime

from pydantic import Field

from uno_actors.handlers.control import HandlerInfo
from uno_actors.ops.api.endpoint import Answered, Asked, Observed, Refused
from uno_actors.printable import bounded
from uno_actors.store.causal_tree import CausalNode
from uno_actors.store.codec import Record
from uno_actors.store.logs import log_of_position
from uno_actors.store.records import DeadLetter, StoredRecord

SEARCH_SECONDS = 30.0
"""Seconds that reading the log may take."""
MOST = 500
"""Events of a trace that are drawn."""


class Delivery(Answered):
    """An event at one handler.

    Attributes:
        handler: Its name.
        state: ``waiting``, ``failing`` or ``dead letter``.
        behind: Positions between the handler and the event.
        handler_state: What the handler is doing, such as ``paused``; see `uno_actors.handlers.control.HandlerInfo`.
        attempts: Attempts that have failed.
        error: Of the last attempt, if it is a dead letter.
    """

    handler: str
    state: str
    behind: int
    handler_state: str
    attempts: int
    error: str | None = None


class TraceNode(Answered):
    """An event of the trace.

    Attributes:
        position: Its place in the log.
        parent: Position of the event that caused it; ``None`` for one that none of the others caused.
        after: Seconds since the first event.
        by_command: Whether a command lies between it and its cause.
        deliveries: Handlers that have not handled it, or have failed.
    """

    position: int
    parent: int | None
    event_type: str
    aggregate_type: str | None
    aggregate_id: str | None
    aggregate_version: int | None
    topic: str | None
    timestamp: datetime
    after: float
    by_command: bool
    deliveries: list[Delivery]


class Trace(Answered):
    """Everything that one message caused.

    Attributes:
        correlation: The correlation id that the events share.
        events: Each after the one that caused it.
        total: Number of all events; at most `MOST` are shown.
        seconds: From the first event to the last.
        knows_handlers: Whether it is known which handlers subscribe to which events; if not, only dead letters are
            shown.
    """

    correlation: str
    events: list[TraceNode]
    total: int
    seconds: float
    knows_handlers: bool


class AskedTrace(Asked):
    """Which trace.

    Attributes:
        correlation: The correlation id.
    """

    correlation: str = Field(min_length=1, max_length=1_000)


async def trace(observed: Observed, asked: AskedTrace) -> Trace:
    """Everything that one message caused, each event after its cause."""
    store = observed.source.store
    try:
        async with asyncio.timeout(SEARCH_SECONDS):
            tree = await store.causal_records(asked.correlation)
    except TimeoutError:
        raise Refused(
            503,
            f"the log cannot be searched within {SEARCH_SECONDS:g} s: use `uno-actors store trace`",
        ) from None
    if not tree.roots:
        raise Refused(404, f"no event has the correlation id {asked.correlation!r}")
    nodes = _in_order(tree.roots)
    times = [node.event.timestamp for node, _ in nodes]
    infos = {info.name: info for info in await observed.source.handlers(partitions=True)}
    letters: defaultdict[int, list[DeadLetter]] = defaultdict(list)
    for letter in await store.dead_letters():
        letters[letter.position].append(letter)
    shown = nodes[:MOST]
    knows = observed.source.subscribed(_stored(nodes[0][0])) is not None
    return Trace(
        correlation=asked.correlation,
        events=[
            _node(observed, node, parent, min(times), infos, letters.get(node.position, ()))
            for node, parent in shown
        ],
        total=len(nodes),
        seconds=(max(times) - min(times)).total_seconds(),
        knows_handlers=knows,
    )


def _in_order(
    roots: Sequence[CausalNode[Record]],
) -> list[tuple[CausalNode[Record], CausalNode[Record] | None]]:
    """All nodes, each with the one above it and before those below it."""
    waiting: list[tuple[CausalNode[Record], CausalNode[Record] | None]] = [
        (root, None) for root in roots[::-1]
    ]
    found = []
    while waiting:
        node, parent = waiting.pop()
        found.append((node, parent))
        waiting += [(child, node) for child in reversed(node.children)]
    return found


def _node(  # noqa: PLR0917 - one value for each source
    observed: Observed,
    node: CausalNode[Record],
    parent: CausalNode[Record] | None,
    begun: datetime,
    infos: Mapping[str, HandlerInfo],
    letters: Sequence[DeadLetter],
) -> TraceNode:
    record = node.event
    return TraceNode(
        position=node.position,
        parent=None if parent is None else parent.position,
        event_type=record.event_type,
        aggregate_type=record.aggregate_type,
        aggregate_id=record.aggregate_id,
        aggregate_version=record.aggregate_version,
        topic=record.topic,
        timestamp=record.timestamp,
        after=(record.timestamp - begun).total_seconds(),
        by_command=parent is not None and record.causation_id != parent.event.event_id,
        deliveries=[*_failed(letters, infos), *_waiting(observed, node, infos, letters)],
    )


def _failed(letters: Sequence[DeadLetter], infos: Mapping[str, HandlerInfo]) -> list[Delivery]:
    return [
        Delivery(
            handler=letter.handler,
            state="dead letter",
            behind=0,
            handler_state=infos[letter.handler].state if letter.handler in infos else "",
            attempts=letter.attempts,
            error=bounded(letter.error, 300),
        )
        for letter in letters
    ]


def _waiting(
    observed: Observed,
    node: CausalNode[Record],
    infos: Mapping[str, HandlerInfo],
    letters: Sequence[DeadLetter],
) -> list[Delivery]:
    """Handlers that subscribe to an event and have not come to it yet."""
    failed = {letter.handler for letter in letters}
    found = []
    for name in sorted(observed.source.subscribed(_stored(node)) or ()):
        info = infos.get(name)
        if info is None or name in failed or info.position >= node.position:
            continue
        if log_of_position(info.position) != log_of_position(node.position):
            continue  # positions of several logs cannot be compared
        attempts = observed.source.attempts(name, node.position)
        found.append(
            Delivery(
                handler=name,
                state="failing" if attempts else "waiting",
                behind=node.position - info.position,
                handler_state=info.state,
                attempts=attempts,
            )
        )
    return found


def _stored(node: CausalNode[Record]) -> StoredRecord:
    return StoredRecord(node.position, node.event)
