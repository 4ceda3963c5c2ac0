"""Gathers the facts of an inquiry. Each has a deadline of its own, so that what hangs hides nothing else."""

import asyncio
import socket
from collections.abc import Callable, Collection, Coroutine, Iterable, Sequence
from contextlib import suppress
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any, Protocol, TypeVar

from uno_actors.clock import SystemClock
from uno_actors.cluster.placement import Placement
from uno_actors.cluster.report import NodeReport, observe
from uno_actors.cluster.settings import Cluster
from uno_actors.domain.aggregate import check_aggregate_id
from uno_actors.domain.events import DomainEvent
from uno_actors.domain.schedules import Fired, Scheduled
from uno_actors.errors import InvalidAggregateId, InvalidCluster, describe
from uno_actors.handlers.control import NOT_RUNNING, HandlerControl
from uno_actors.handlers.lag import lag_at
from uno_actors.handlers.partitions import whole_name
from uno_actors.handlers.view import entries
from uno_actors.inquiry.facts import (
    Facts,
    HandlerFacts,
    NodeFacts,
    ProcessFacts,
    Question,
    ScheduleFacts,
    Silent,
    StreamFacts,
)
from uno_actors.inquiry.log_search import Found, search
from uno_actors.printable import counted
from uno_actors.scheduling.control import ScheduleControl
from uno_actors.scheduling.entries import ScheduleInfo
from uno_actors.store.codec import StreamId, to_event
from uno_actors.store.port import EventStore
from uno_actors.store.records import DeadLetter, StoredRecord
from uno_actors.tasks import begin

T = TypeVar("T")

PATIENCE = 5.0
"""Seconds within which each fact is gathered."""
SEARCH = 10.0
"""Seconds for which the log is searched."""
ASKED = 20
"""Events of which processes are asked which handlers subscribe to them."""
SCHEDULES = 10_000
"""Scheduled commands among which those of an id are looked for."""
PAUSE = 0.5
"""Seconds between two looks at a handler that is catching up, to see how quick it is."""

CLUSTER = "uno"


class Place(Protocol):
    """Where facts are gathered."""

    @property
    def store(self) -> EventStore:
        """The open store."""

    @property
    def url(self) -> str | None:
        """Its URL without the password; ``None`` if no command reaches it."""

    @property
    def cluster(self) -> Cluster:
        """The settings of the nodes that work on it."""

    async def ask(self, question: Question) -> tuple[list[ProcessFacts], list[Silent]]:
        """What the processes know that run systems on it, and those that could not be asked."""


class _Gathering:
    """Gathers facts within deadlines, and notes what could not be gathered."""

    def __init__(self, patience: float) -> None:
        self.patience = patience
        self.missing: list[str] = []

    async def get(
        self, what: str, work: Coroutine[Any, Any, T], otherwise: T, seconds: float | None = None
    ) -> T:
        """The result of ``work``, or ``otherwise`` if it fails or takes too long."""
        limit = self.patience if seconds is None else seconds
        task = begin(asyncio.get_running_loop(), work)
        try:
            await asyncio.wait({task}, timeout=limit)
        finally:
            if not task.done():
                task.cancel()  # without waiting for it, since it may not heed that
        if not task.done() or task.cancelled():
            self.missing.append(f"{what}: no answer within {limit:g} s")
        elif (error := task.exception()) is not None:
            self.missing.append(f"{what}: {describe(error)}")
        else:
            return task.result()
        return otherwise


async def gather(
    place: Place, wanted: str, *, patience: float = PATIENCE, searching: float = SEARCH
) -> Facts:
    """All that can be found out about an id.

    Args:
        place: Where.
        wanted: The id.
        patience: Seconds within which each fact is gathered.
        searching: Seconds for which the log is searched.
    """
    store, gathering = place.store, _Gathering(patience)
    (schedules, scheduled), handlers, streams, (nodes, owners) = await _all(
        gathering.get("what is scheduled", _schedules(store, wanted), ((), ())),
        gathering.get("the handlers", _handlers(store), ()),
        gathering.get("the streams", _streams(store, wanted), ()),
        gathering.get("the nodes", _nodes(place, wanted), ((), {})),
    )
    ends = await gathering.get("the ends of the log", store.last_positions(), [])
    facts = Facts(
        wanted,
        datetime.now(UTC),
        handlers=handlers,
        streams=tuple(_with_schedules(each, schedules) for each in streams),
        schedules=tuple(scheduled),
        nodes=nodes,
        owners=owners,
        ends=tuple(ends),
    )
    found = Found(facts.log)
    is_known = bool(facts.streams or facts.schedules) or any(facts.handlers_named(wanted))
    if not is_known:
        searched = search(store, wanted, searching)
        found = await gathering.get("the log", searched, found, searching + patience)
    facts = replace(facts, log=found.log)
    if any(each.sent is not None for each in facts.schedules):
        sent = gathering.get("the log", _with_recorded(store, facts.schedules, searching), facts.schedules)
        facts = replace(facts, schedules=tuple(await sent))
    stream = found.log.of_command[-1].record.stream if found.log.of_command else None
    if stream is not None:
        newest = await gathering.get(f"the stream {stream}", store.last_version(stream), 0)
        facts = replace(facts, newest=newest)
    events = _of_interest(facts)
    asked = Question(
        wanted, tuple(each.stream for each in facts.streams), tuple(events), not events and not is_known
    )
    processes, silent = await gathering.get("the processes", place.ask(asked), ([], []))
    facts = replace(facts, processes=tuple(processes), silent=tuple(silent))
    if any(True for _ in _moving(facts)):
        await asyncio.sleep(PAUSE)
        later, _ = await gathering.get("the processes", place.ask(asked), ([], []))
        facts = replace(facts, processes=tuple(_with_rates(processes, later)))
    unasked = [*map(str, silent), *_unasked_nodes(facts)]
    names = [*found.names, *(name for process in processes for name in process.names)]
    return replace(facts, missing=(*gathering.missing, *unasked), names=tuple(dict.fromkeys(names)))


async def _all(*works: Coroutine[Any, Any, Any]) -> list[Any]:
    loop = asyncio.get_running_loop()
    return await asyncio.gather(*[begin(loop, work) for work in works])


def _of_interest(facts: Facts) -> list[StoredRecord]:
    """The events of which it matters who handles them."""
    log = facts.log
    first = [] if log.event is None else [log.event]
    found = [*log.of_command, *first] or [*log.correlated]
    last = [each.last for each in facts.streams if each.last is not None]
    return [*found, *last][:ASKED]


# --- the store ---


async def _schedules(
    store: EventStore, wanted: str
) -> tuple[Sequence[ScheduleInfo], Sequence[ScheduleFacts]]:
    """What is to be sent, and what was scheduled under an id or a key."""
    waiting = await ScheduleControl(store).schedules(limit=SCHEDULES)
    found = {
        each.id: ScheduleFacts(each.id, each.key, each) for each in waiting if wanted in (each.id, each.key)
    }
    event = await _last_event(store, StreamId(ScheduleInfo.FROM_OUTSIDE, wanted))
    if (
        isinstance(event, Scheduled) and event.event_id not in found
    ):  # the scheduler has not seen it, or has sent it
        entry = ScheduleInfo.of(event)
        found[entry.id] = ScheduleFacts(entry.id, entry.key, entry, is_listed=False)
    found.setdefault(wanted, ScheduleFacts(wanted, wanted))
    known = [await _with_times(store, each, {entry.id for entry in waiting}) for each in found.values()]
    return waiting, [each for each in known if each.entry is not None or each.last is not None]


async def _with_times(store: EventStore, found: ScheduleFacts, waiting: Collection[str]) -> ScheduleFacts:
    """With the last of its times that has come."""
    stream = StreamId(Fired.STREAM_TYPE, found.id)
    version = await store.last_version(stream)
    page = await store.read_stream(stream, version - 1, 1) if version else []
    if not page:
        return found
    event = to_event(page[0].record, store.event_registry, page[0].position)
    found = replace(found, last=page[0], entry=found.entry if found.id in waiting else None)
    if not isinstance(event, Fired):
        return found
    to = f"{event.command.command} to {event.command.aggregate_type}<{event.command.aggregate_id}>"
    return replace(found, key=event.key, sent=event.command_id, due=event.due, to=to)


async def _with_recorded(
    store: EventStore, schedules: Iterable[ScheduleFacts], seconds: float
) -> Sequence[ScheduleFacts]:
    """With what the commands have recorded that were sent."""
    found = []
    for each in schedules:
        events = (await search(store, each.sent, seconds)).log.of_command if each.sent is not None else ()
        found.append(replace(each, recorded=events[-1] if events else None))
    return found


async def _last_event(store: EventStore, stream: StreamId) -> DomainEvent | None:
    try:
        check_aggregate_id(stream.aggregate_id)
    except InvalidAggregateId:
        return None
    version = await store.last_version(stream)
    page = await store.read_stream(stream, version - 1, 1) if version else []
    return to_event(page[0].record, store.event_registry, page[0].position) if page else None


def _with_schedules(found: StreamFacts, schedules: Iterable[ScheduleInfo]) -> StreamFacts:
    its = [
        each
        for each in schedules
        if found.stream in ((each.command.aggregate_type, each.command.aggregate_id), each.owner)
    ]
    return replace(found, schedules=tuple(its))


HIDDEN = frozenset({Fired.STREAM_TYPE, ScheduleInfo.FROM_OUTSIDE})
"""Types of streams that stand for schedules."""


def streams_named(wanted: str, types: Iterable[str]) -> list[StreamId]:
    """The streams that an id may mean: ``Type/id``, ``Type<id>`` or the id of one of these ``types``."""
    found = [StreamId(each, wanted) for each in types]
    kind, slash, name = wanted.partition("/")
    if slash and kind and name:
        found.append(StreamId(kind, name))
    kind, bracket, name = wanted.partition("<")
    if bracket and kind and name.endswith(">"):
        found.append(StreamId(kind, name[:-1].partition("@")[0]))
    return found


async def _streams(store: EventStore, wanted: str) -> Sequence[StreamFacts]:
    try:
        types = await store.aggregate_types(check_aggregate_id(wanted))
    except InvalidAggregateId:
        types = []
    found = []
    for stream in streams_named(wanted, types):
        if stream.aggregate_type in HIDDEN:
            continue
        version = await store.last_version(stream)
        if version:
            found.append(await _stream(store, stream, version))
    return tuple(found)


async def _stream(store: EventStore, stream: StreamId, version: int) -> StreamFacts:
    page = await store.read_stream(stream, version - 1, 1)
    snapshot = await store.read_snapshot(stream)
    return StreamFacts(
        stream,
        version,
        page[0] if page else None,
        None if snapshot is None else (snapshot.version, snapshot.taken_at),
    )


async def _handlers(store: EventStore) -> Sequence[HandlerFacts]:
    control = HandlerControl(store)
    infos = await control.handlers(partitions=True)
    pauses, views = await control.pauses(), await entries(store)
    leased = await store.leased_among([info.name for info in infos])
    ends = await store.last_positions()
    letters: dict[str, list[DeadLetter]] = {}
    for letter in await store.dead_letters() if any(info.dead_letters for info in infos) else ():
        letters.setdefault(letter.handler, []).append(letter)
    found = []
    for info in infos:
        view = views.get(info.name)
        lag = None
        if info.lag:
            with suppress(Exception):  # whatever a store raises: the log is asked for by itself
                lag = await lag_at(store, info.position, ends)
        found.append(
            HandlerFacts(
                info,
                0.0 if lag is None else lag.seconds,
                pauses.get(info.name),
                info.name in leased and info.state != NOT_RUNNING,
                view is not None and view.current != view.writing,
                tuple(letters.get(info.name, ())),
            )
        )
    return tuple(found)


# --- nodes ---


async def _nodes(place: Place, wanted: str) -> tuple[tuple[NodeFacts, ...], dict[StreamId, str]]:
    try:
        reports = await observe(place.store, place.cluster, SystemClock(), CLUSTER)
    except InvalidCluster:  # the store keeps no members
        return (), {}
    types = {kind for report in reports for kind, _ in report.member.commands}
    placement = Placement(report.member for report in reports)
    owners: dict[StreamId, str] = {}
    for stream in streams_named(wanted, types):
        for report in reports:
            for kind, commands in report.member.commands:
                if kind == stream.aggregate_type and commands:
                    owner = placement.owner(stream, commands[0])
                    if owner is not None:
                        owners[stream] = owner.name
    return tuple(map(_node, reports)), owners


def _node(report: NodeReport) -> NodeFacts:
    member = report.member
    return NodeFacts(
        member.name,
        member.host,
        member.process,
        tuple(sorted(kind for kind, _ in member.commands)),
        report.unreachable,
        member.leaving,
    )


def _unasked_nodes(facts: Facts) -> Iterable[str]:
    """The nodes that were not asked what they know, each with the reason."""
    asked, silent = {each.node for each in facts.processes}, {each.process for each in facts.silent}
    for node in facts.nodes:
        if node.name in asked or (node.process in silent and node.host == socket.gethostname()):
            continue
        if node.unreachable is not None:
            yield f"node {node.name}: {node.unreachable}"
        elif node.host != socket.gethostname():
            yield f"node {node.name}: it runs on {node.host}; run the same command there"


# --- processes ---


def _moving(facts: Facts) -> Iterable[HandlerFacts]:
    """The handlers that an answer may say of that they catch up."""
    log = facts.log
    is_asked = log.event is not None or log.of_command or log.correlated
    for handler in facts.handlers:
        running = facts.running(handler.name)
        if running is None or not running.is_leased or not handler.info.lag:
            continue
        if running.state not in ("live", "catching up") or running.restart_in is not None:
            continue
        if is_asked or facts.id in (handler.name, whole_name(handler.name)):
            yield handler


def _with_rates(before: Sequence[ProcessFacts], after: Sequence[ProcessFacts]) -> Iterable[ProcessFacts]:
    """Processes with how quick their handlers are, by two looks at them."""
    positions: dict[tuple[int, str], int] = {
        (process.process, each.name): each.position for process in before for each in process.handlers
    }
    rated: Callable[[ProcessFacts], ProcessFacts] = lambda process: replace(  # noqa: E731
        process,
        handlers=tuple(
            replace(
                each,
                rate=(each.position - positions.get((process.process, each.name), each.position)) / PAUSE,
            )
            for each in process.handlers
        ),
    )
    return map(rated, after) if after else before


def searched_in(facts: Facts) -> str:
    """What was looked through, in words."""
    log = facts.log.searched
    events = counted(log.total, "event")
    if not log.is_whole:
        events = f"the newest {log.events:,} of {events}"
    running = len(facts.processes)
    processes = "1 running process" if running == 1 else f"{running or 'no'} running processes"
    return f"{events}, {counted(len(facts.handlers), 'handler')}, {processes}"
