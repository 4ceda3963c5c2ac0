"""The port to event stores: what the runtime asks of a store, on one page.

A store holds one log. Every event in it has a position; positions only grow, and a reader sees a prefix of
the log, never a hole that is filled later. An event with an aggregate id also has a place in that aggregate's
stream, where versions run 1, 2, 3... without a gap.

`EventStore.commit` is durable: when it returns, what it reports as appended survives a crash of the process
and of the machine, and no reader has seen it before. Each request is recorded whole or not at all, and one
that fails does not touch the others. Stores are used from one event loop at a time; every method may be
awaited by many tasks at once.
"""

import asyncio
import sys
from abc import ABC, abstractmethod
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import aclosing
from datetime import UTC, datetime
from enum import Enum
from functools import cache
from importlib import import_module
from importlib.metadata import EntryPoint, entry_points
from types import TracebackType
from typing import Any, Final, Generic, Literal, NamedTuple, Self, overload

from typing_extensions import TypeVar, override

from uno_actors.domain.aggregate import MAX_TYPE_BYTES, AggregateRoot, check_aggregate_id, unfit_name
from uno_actors.domain.events import DomainEvent, EventRegistry, event_registry
from uno_actors.domain.payloads import as_recorded
from uno_actors.errors import (
    AmbiguousStream,
    ConcurrencyConflict,
    InvalidExpectedVersion,
    InvalidStoreUrl,
    StoreUnavailable,
    UnoError,
    describe,
)
from uno_actors.store.causal_tree import CausalTree, causal_tree
from uno_actors.store.codec import Record, StreamId, to_event, to_record
from uno_actors.store.limits import check_record
from uno_actors.store.log_filter import EVERYTHING, EventTypes, LogFilter, recorded_names
from uno_actors.store_urls import check_path
from uno_actors.topics import TopicPattern


class AnyVersion(Enum):
    """The class of `ANY`: one value, which stays the same when it is copied or pickled."""

    ANY = "any version"

    @override
    def __repr__(self) -> str:
        return self.name


ANY: Final = AnyVersion.ANY
"""``expected_version=ANY``: append to whatever is there. ``None`` means the same."""

ExpectedVersion = int | Literal[AnyVersion.ANY] | None
"""The version of a stream that an append is for."""

PAGE = 512
"""Records read at once: few enough to leave the event loop within milliseconds."""
STRIDE = 128
"""Records handed on before others get the event loop: whoever takes them has work to do with each."""


class Append(NamedTuple):
    """A request to record events together.

    ``expected_version`` is the version of their one stream before them; ``None`` asks for no check. A record
    that brings its own ``aggregate_version`` is recorded in that place or the request fails.
    """

    records: tuple[Record, ...]
    expected_version: int | None = None


class Appended(NamedTuple):
    """What came of an `Append`: the place of each record in the log, and the records as stored."""

    positions: range
    records: tuple[Record, ...]


class StoredRecord(NamedTuple):
    """A record and its place in the log."""

    position: int
    record: Record


E_co = TypeVar("E_co", bound=DomainEvent, default=DomainEvent, covariant=True)
E = TypeVar("E", bound=DomainEvent)


class RecordedEvent(NamedTuple, Generic[E_co]):
    """An event and its place in the log."""

    position: int
    event: E_co


class DeadLetter(NamedTuple):
    """An event that a handler could not handle, and why.

    Attributes:
        handler: Name of the handler; with ``position`` it names the dead letter.
        position: Place of the event in the log.
        event_type: Type of the event.
        attempts: How often it was tried.
        error: Class name and text of the last exception.
        traceback: Of the last attempt.
        first_failed: When the first attempt failed.
        last_failed: When the last attempt failed.
    """

    handler: str
    position: int
    event_type: str
    attempts: int
    error: str
    traceback: str
    first_failed: datetime
    last_failed: datetime


class ViewChange(NamedTuple):
    """One entry of a view that a projection writes, or removes if ``value`` is ``None``.

    Attributes:
        view: Name of the view: 1 to 255 bytes and no NUL.
        key: 1 to 250 bytes; a view is read in their order.
        value: Any bytes.
    """

    view: str
    key: bytes
    value: bytes | None


class Snapshot(NamedTuple):
    """The state of an aggregate at one version of its stream.

    Attributes:
        stream: Of the aggregate; there is one snapshot of each.
        version: The number of events in the state.
        schema_version: Of the state, by the class that it was taken of.
        state: msgpack.
        taken_at: Aware, in UTC.
    """

    stream: StreamId
    version: int
    schema_version: int
    state: bytes
    taken_at: datetime


class Lease(ABC):
    """A name that its holder alone has, until it releases it, closes the store or ends, however it ends.

    A holder that hangs or is cut off may lose it to another: what it writes from then on under the name, or under
    one that comes of it (see `uno_actors.store.handler_names`), is refused with `LeaseLost`.
    """

    _lost = False
    _listener: Callable[[], None] | None = None

    @abstractmethod
    async def release(self) -> None:
        """Let others have it; idempotent."""

    @property
    def is_lost(self) -> bool:
        """Whether another has taken it over, as far as the store knows by now."""
        return self._lost

    def when_lost(self, listener: Callable[[], None]) -> None:
        """Have ``listener`` called on the event loop when the store learns that another has taken it over."""
        self._listener = listener

    def _lose(self) -> None:
        """For implementations: another has taken it over."""
        if not self._lost:
            self._lost = True
            if self._listener is not None:
                self._listener()


class EventStore(ABC):
    """The port. A store implements the abstract methods; `append` and the readers of events rest on them.

    Args:
        event_registry: Finds the classes of recorded events; default is the process-wide registry.
    """

    is_durable = True
    """Whether what is recorded outlives the process, as it does everywhere but in memory."""

    def __init__(self, event_registry: EventRegistry = event_registry) -> None:
        self.event_registry = event_registry
        self._commit_listeners: list[Callable[[], None]] = []
        self._followers: set[asyncio.Event] = set()
        self._ending = False

    # --- what a store implements ---

    @abstractmethod
    async def commit(self, requests: Sequence[Append]) -> list[Appended | UnoError]:
        """Record what can be recorded in one transaction and return the outcome of each request, in order.

        Outcomes that are errors: `ConcurrencyConflict`, `EventNotSerializable`, `StoreFull`,
        `StoreUnavailable`, `OutcomeUnknown`. What was begun is done even if the caller is cancelled. Calls
        `_committed` before it returns.
        """

    @abstractmethod
    async def read_stream(
        self, stream: StreamId, after_version: int = 0, limit: int = PAGE
    ) -> list[StoredRecord]:
        """At most ``limit`` records of one stream after ``after_version``, in order."""

    @abstractmethod
    async def read_log(self, after: int = 0, limit: int = PAGE) -> list[StoredRecord]:
        """At most ``limit`` records of the log after position ``after``, in order."""

    @abstractmethod
    async def last_version(self, stream: StreamId) -> int:
        """The version of one stream: that of its last record; 0 if there is none."""

    @abstractmethod
    async def aggregate_types(self, aggregate_id: str) -> list[str]:
        """The aggregate types that have a stream of this id, sorted."""

    @abstractmethod
    async def last_position(self) -> int:
        """The position of the last record of the log; 0 if there is none."""

    @abstractmethod
    async def checkpoints(self) -> dict[str, int]:
        """The checkpoint of each handler name: all up to this position it has done with."""

    @abstractmethod
    async def save_progress(
        self,
        checkpoints: Mapping[str, int],
        dead_letters: Sequence[DeadLetter] = (),
        views: Sequence[ViewChange] = (),
        dropped: Sequence[tuple[str, int]] = (),
    ) -> None:
        """Move checkpoints, add dead letters, change views in their order and remove those dead letters that
        ``dropped`` names by handler and position, if they are there: together or not at all.

        Durable when it returns, as `commit` is. Calls take effect in the order in which they were made.

        Raises:
            LeaseLost: Something of it is written under a name that this store had leased and that another has taken
                over; nothing was written.
        """

    @abstractmethod
    async def read_view(
        self, view: str, start: bytes = b"", end: bytes | None = None, limit: int | None = PAGE
    ) -> list[tuple[bytes, bytes]]:
        """Keys and values of one view from ``start`` to before ``end``, in the order of the keys, of one moment."""

    @abstractmethod
    async def drop_view(self, view: str) -> None:
        """Remove a view, and the checkpoint of the handler of its name with it.

        A large view may be removed in parts, the checkpoint with the first; nobody may write to it meanwhile.

        Raises:
            LeaseLost: As `save_progress`.
        """

    @abstractmethod
    async def dead_letters(self, handler: str | None = None) -> list[DeadLetter]:
        """Dead letters, of one handler or of all, ordered by handler and position."""

    @abstractmethod
    async def drop_dead_letter(self, handler: str, position: int) -> bool:
        """Remove one dead letter; whether there was one."""

    @abstractmethod
    async def save_snapshots(self, snapshots: Sequence[Snapshot]) -> None:
        """Keep ``snapshots``, each in place of the one of its stream; of several of one stream the last."""

    @abstractmethod
    async def read_snapshot(self, stream: StreamId) -> Snapshot | None:
        """The snapshot of one stream; ``None`` if there is none.

        Raises:
            CorruptRecord: What is there is no snapshot.
        """

    @abstractmethod
    async def drop_snapshots(self, aggregate_type: str | None = None) -> int:
        """Remove the snapshots of all aggregates or of one type; how many there were. Nothing but time is lost."""

    @abstractmethod
    async def lease(self, name: str) -> Lease | None:
        """Take ``name`` for this process, or nothing if it is taken, here or in another process.

        The system takes the name of each handler, so that it is active in one process at a time.
        """

    @abstractmethod
    async def close(self) -> None:
        """Finish what was begun and release everything. Later calls raise `StoreUnavailable`.

        Calls `_end_subscriptions` before it waits for anything.
        """

    # --- what rests on it ---

    async def is_leased(self, name: str) -> bool:
        """Whether somebody has ``name`` leased. It may be taken for a moment to find out."""
        lease = await self.lease(name)
        if lease is None:
            return True
        await lease.release()
        return False

    async def append(
        self, *events: DomainEvent, expected_version: ExpectedVersion = ANY
    ) -> list[RecordedEvent]:
        """Record ``events`` together or not at all, and return them as recorded when they are durable.

        Args:
            events: They may belong to several streams, unless ``expected_version`` is given.
            expected_version: Version of their stream before them; 0 if it must not exist yet, `ANY` for no check.

        Raises:
            ConcurrencyConflict: The stream is at another version.
            InvalidExpectedVersion: ``expected_version`` is no version.
            ValueError: ``expected_version`` was given for events of no or of several streams.
            EventNotSerializable, InvalidAggregateId: An event cannot be recorded.
            StoreFull, StoreUnavailable, OutcomeUnknown: See there.
        """
        return await self._append(events, expected_version, self.commit)

    async def _append(
        self,
        events: Sequence[DomainEvent],
        expected_version: ExpectedVersion,
        commit: Callable[[Sequence[Append]], Awaitable[Sequence[Appended | UnoError]]],
    ) -> list[RecordedEvent]:
        """For implementations: `append` by another way to commit."""
        expected = _checked_version(expected_version)
        if not events:
            return []
        for event in events:
            if event.aggregate_id is not None:
                check_aggregate_id(event.aggregate_id)
            if event.aggregate_type and (reason := unfit_name(event.aggregate_type, MAX_TYPE_BYTES)):
                raise ValueError(f"invalid aggregate type {event.aggregate_type!r}: {reason}")
        streams = {(event.aggregate_type, event.aggregate_id) for event in events}
        if expected is not None and (len(streams) > 1 or events[0].aggregate_id is None):
            raise ValueError(
                f"expected_version is for the events of one stream, found {len(streams)}: {streams}"
            )
        for event in events:
            self.event_registry.check_readable(event)
        recorded = [*map(as_recorded, events)]
        (outcome,) = await commit([Append(tuple(map(to_record, recorded)), expected)])
        if isinstance(outcome, UnoError):
            raise outcome
        return [
            RecordedEvent(position, event.stamped(aggregate_version=record.aggregate_version))
            for position, record, event in zip(*outcome, recorded, strict=True)
        ]

    async def get_events(
        self,
        aggregate_id: str,
        since_version: int | None = None,
        since_timestamp: datetime | None = None,
        limit: int | None = None,
        *,
        aggregate_type: str | None = None,
        backward: bool = False,
    ) -> list[DomainEvent]:
        """The events of one stream in order.

        Args:
            aggregate_id: The aggregate's id.
            since_version: "I have 5, what came since": only events after this version.
            since_timestamp: Only events of this time or later; a naive time is read as UTC.
            limit: At most so many.
            aggregate_type: Needed if aggregates of several types have this id.
            backward: The newest first; ``limit`` then takes the newest.

        Raises:
            AmbiguousStream: They have, and it was not given.
            InvalidAggregateId: No aggregate can have this id.
            ValueError: ``since_version`` or ``limit`` is negative, or beyond 63 bits.
        """
        check_aggregate_id(aggregate_id)
        _check_number("since_version", since_version)
        _check_number("limit", limit)
        if aggregate_type is None:
            types = await self.aggregate_types(aggregate_id)
            if len(types) > 1:
                raise AmbiguousStream(aggregate_id, types)
            if not types:
                return []
            aggregate_type = types[0]
        if since_timestamp is not None and since_timestamp.tzinfo is None:
            since_timestamp = since_timestamp.replace(tzinfo=UTC)
        if limit == 0:
            return []
        read = self._pages_backward if backward else self._pages
        size = PAGE if limit is None or since_timestamp is not None else min(limit, PAGE)
        events: list[DomainEvent] = []
        async with aclosing(read(StreamId(aggregate_type, aggregate_id), since_version or 0, size)) as pages:
            async for page in pages:
                for position, record in page:
                    if since_timestamp is None or record.timestamp >= since_timestamp:
                        events.append(to_event(record, self.event_registry, position))
                        if len(events) == limit:
                            return events
        return events

    async def stream_events(self, stream: StreamId, after_version: int = 0) -> AsyncIterator[DomainEvent]:
        """The events of one stream after ``after_version``, read page by page."""
        async with aclosing(self._pages(stream, after_version)) as pages:
            async for page in pages:
                for position, record in page:
                    yield to_event(record, self.event_registry, position)

    async def stream_records(
        self, stream: StreamId, after_version: int = 0, *, backward: bool = False
    ) -> AsyncGenerator[StoredRecord]:
        """The records of one stream after ``after_version``, in order or the newest first."""
        read = self._pages_backward if backward else self._pages
        async with aclosing(read(stream, after_version, PAGE)) as pages:
            async for page in pages:
                for stored in page:
                    yield stored

    async def _pages(
        self, stream: StreamId, after_version: int, size: int = PAGE
    ) -> AsyncGenerator[list[StoredRecord]]:
        """Pages of a stream after ``after_version``, to the end that it has when the first was read.

        Whoever reads to an end that moves never comes to it where others append faster.
        """
        end: int | None = None
        while page := await self.read_stream(stream, after_version, size):
            yield page
            after_version += len(page)
            if end is None:
                end = await self.last_version(stream)
            if after_version >= end:
                return
            await asyncio.sleep(0)  # a long stream must not keep the event loop from others

    async def _pages_backward(
        self, stream: StreamId, after_version: int, size: int
    ) -> AsyncGenerator[list[StoredRecord]]:
        """Pages of a stream from its end down to ``after_version``, each with its last record first."""
        end = await self.last_version(stream)
        while end > after_version:
            start = at = max(after_version, end - size)
            page: list[StoredRecord] = []
            while at < end and (part := await self.read_stream(stream, at, end - at)):
                page += part  # a store may return less than it was asked for, where records are large
                at += len(part)
            yield page[::-1]
            end = start
            await asyncio.sleep(0)

    @overload
    def read_all(
        self,
        after: int = 0,
        limit: int | None = None,
        *,
        topic_pattern: TopicPattern | str | None = None,
        event_type: type[E],
        aggregate_type: str | type[AggregateRoot] | None = None,
        correlation_id: str | None = None,
    ) -> AsyncGenerator[RecordedEvent[E]]: ...
    @overload
    def read_all(
        self,
        after: int = 0,
        limit: int | None = None,
        *,
        topic_pattern: TopicPattern | str | None = None,
        event_type: EventTypes | None = None,
        aggregate_type: str | type[AggregateRoot] | None = None,
        correlation_id: str | None = None,
    ) -> AsyncGenerator[RecordedEvent]: ...

    async def read_all(
        self,
        after: int = 0,
        limit: int | None = None,
        *,
        topic_pattern: TopicPattern | str | None = None,
        event_type: EventTypes | None = None,
        aggregate_type: str | type[AggregateRoot] | None = None,
        correlation_id: str | None = None,
    ) -> AsyncGenerator[RecordedEvent[Any]]:
        """The events of the log after position ``after``, in global order, read page by page.

        It ends where the log ends when the first page was read, or soon after; `subscribe` goes on with what comes.
        Only those are decoded that all of the given filters select.

        Args:
            after: Exclusive; 0 for all.
            limit: At most so many.
            topic_pattern: Only events with a topic that it matches.
            event_type: Only events of this class and its subclasses, or recorded under this name; or several.
            aggregate_type: Only events of aggregates of this type.
            correlation_id: Only events that follow from this one first message.

        Raises:
            InvalidTopic: ``topic_pattern`` is none.
            ValueError: ``after`` or ``limit`` is negative, or beyond 63 bits.
        """
        matching = self.log_filter(topic_pattern, event_type, aggregate_type, correlation_id)
        async with aclosing(self.read_records(after, limit, matching)) as records:
            async for position, record in records:
                yield RecordedEvent(position, to_event(record, self.event_registry, position))

    async def read_records(
        self, after: int = 0, limit: int | None = None, matching: LogFilter = EVERYTHING
    ) -> AsyncGenerator[StoredRecord]:
        """As `read_all`, the records themselves: no class of an event is needed."""
        _check_number("after", after)
        _check_number("limit", limit)
        left, end = limit, None
        while left is None or left > 0:
            page = await self.read_log(after, min(left, PAGE) if left and matching == EVERYTHING else PAGE)
            if not page:
                return
            async for stored in _selected(page, matching):
                yield stored
                left = None if left is None else left - 1
                if left == 0:
                    return
            after = page[-1].position
            if end is None:
                end = await self.last_position()
            if after >= end:
                return

    @overload
    def subscribe(
        self,
        after: int = 0,
        *,
        topic_pattern: TopicPattern | str | None = None,
        event_type: type[E],
        aggregate_type: str | type[AggregateRoot] | None = None,
        correlation_id: str | None = None,
    ) -> AsyncGenerator[RecordedEvent[E]]: ...
    @overload
    def subscribe(
        self,
        after: int = 0,
        *,
        topic_pattern: TopicPattern | str | None = None,
        event_type: EventTypes | None = None,
        aggregate_type: str | type[AggregateRoot] | None = None,
        correlation_id: str | None = None,
    ) -> AsyncGenerator[RecordedEvent]: ...

    async def subscribe(
        self,
        after: int = 0,
        *,
        topic_pattern: TopicPattern | str | None = None,
        event_type: EventTypes | None = None,
        aggregate_type: str | type[AggregateRoot] | None = None,
        correlation_id: str | None = None,
    ) -> AsyncGenerator[RecordedEvent[Any]]:
        """The events of the log after position ``after`` and then each that is recorded, without gap or double.

        It ends when the store is closed; until then it waits for more, and can be left or cancelled at any
        time. It reads the log at its own pace, so one that is slow costs no memory. It keeps no checkpoint: to
        go on later, keep the position of the last event that was taken. Subclasses that are defined after the
        call are not among ``event_type``.

        Args:
            after: Exclusive; 0 for all, `last_position` for only those to come.
            topic_pattern: As of `read_all`, like the others.
            event_type: See there.
            aggregate_type: See there.
            correlation_id: See there.

        Raises:
            InvalidTopic: ``topic_pattern`` is none.
            ValueError: ``after`` is negative, or beyond 63 bits.
        """
        matching = self.log_filter(topic_pattern, event_type, aggregate_type, correlation_id)
        async with aclosing(self.follow_records(after, matching)) as records:
            async for position, record in records:
                yield RecordedEvent(position, to_event(record, self.event_registry, position))

    async def follow_records(
        self, after: int = 0, matching: LogFilter = EVERYTHING
    ) -> AsyncGenerator[StoredRecord]:
        """As `subscribe`, the records themselves: no class of an event is needed."""
        _check_number("after", after)
        await self.last_position()  # a store that was closed refuses; one that is closed later ends
        grown = asyncio.Event()
        stop = self.on_commit(grown.set)
        self._followers.add(grown)
        try:
            while True:
                grown.clear()  # before reading: what is recorded meanwhile sets it again
                page = await self._page_until_the_end(after)
                if page is None:
                    return
                async for stored in _selected(page, matching):
                    yield stored
                if page:
                    after = page[-1].position
                else:
                    await grown.wait()
        finally:
            stop()
            self._followers.discard(grown)

    async def _page_until_the_end(self, after: int) -> list[StoredRecord] | None:
        """The page of the log after ``after``; ``None`` if the store is being closed."""
        try:
            return None if self._ending else await self.read_log(after)
        except StoreUnavailable:
            if self._ending:
                return None
            raise

    def log_filter(
        self,
        topic_pattern: TopicPattern | str | None = None,
        event_type: EventTypes | None = None,
        aggregate_type: str | type[AggregateRoot] | None = None,
        correlation_id: str | None = None,
    ) -> LogFilter:
        """What `read_all` takes, as a value; classes stand for the names that the registry has for them now."""
        if isinstance(topic_pattern, str):
            topic_pattern = TopicPattern(topic_pattern)
        if isinstance(aggregate_type, type):
            aggregate_type = aggregate_type.aggregate_type
        names = None if event_type is None else recorded_names(event_type, self.event_registry)
        return LogFilter(topic_pattern, names, aggregate_type, correlation_id)

    async def causal_tree(self, correlation_id: str, after: int = 0) -> CausalTree[DomainEvent]:
        """Everything recorded for one ``correlation_id``, as a tree by cause; ``print`` shows it.

        The log is read through after position ``after``, a page at a time: at some 200,000 events/s.
        """
        stored = await self._following_from(correlation_id, after)
        return causal_tree(correlation_id, stored, lambda record: to_event(record, self.event_registry))

    async def causal_records(self, correlation_id: str, after: int = 0) -> CausalTree[Record]:
        """As `causal_tree`, of the records themselves: no class of an event is needed."""
        return causal_tree(
            correlation_id, await self._following_from(correlation_id, after), lambda record: record
        )

    async def _following_from(self, correlation_id: str, after: int) -> list[StoredRecord]:
        matching = LogFilter(correlation_id=correlation_id)
        async with aclosing(self.read_records(after, matching=matching)) as records:
            return [each async for each in records]

    def on_commit(self, listener: Callable[[], None]) -> Callable[[], None]:
        """Have ``listener`` called on the event loop after each commit of this store; returns how to stop it."""
        self._commit_listeners.append(listener)
        return lambda: self._commit_listeners.remove(listener)

    def _committed(self) -> None:
        """For implementations: tell the listeners that the log has grown."""
        for listener in tuple(self._commit_listeners):
            listener()

    def _end_subscriptions(self) -> None:
        """For implementations: the store is being closed; whoever waits for more events shall end."""
        self._ending = True
        for follower in self._followers:
            follower.set()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self.close()


def _check_number(name: str, value: int | None) -> None:
    """Refuse what no store can count to: each would answer it in a way of its own."""
    if value is not None and not 0 <= value < 2**63:
        raise ValueError(f"{name} must be 0 or more, and below 2**63; found {value}")


def _checked_version(found: object) -> int | None:
    """The version that an append expects; ``None`` if any will do."""
    if found is ANY or found is None:
        return None
    if not isinstance(found, int) or isinstance(found, bool) or found < 0:
        raise InvalidExpectedVersion(found)
    return found


async def _selected(page: list[StoredRecord], matching: LogFilter) -> AsyncIterator[StoredRecord]:
    """The records of ``page`` that match, with pauses in which others get the event loop."""
    for start in range(0, len(page), STRIDE):
        for stored in page[start : start + STRIDE]:
            if matching.matches(stored.record):
                yield stored
        await asyncio.sleep(0)


def place(request: Append, version_of: Callable[[StreamId], int]) -> tuple[Record, ...]:
    """Give each record of ``request`` its place in its stream: the one rule that all stores share.

    Args:
        request: What is to be recorded.
        version_of: The version that a stream has now, earlier requests of the same commit included.

    Raises:
        EventNotSerializable, InvalidAggregateId: Some store would not accept a record; see `uno_actors.store.limits`.
        ConcurrencyConflict: A stream is not at the expected version, or the place that a record brings is
            not the next one.
    """
    for record in request.records:
        check_record(record)
    placed: list[Record] = []
    heads: dict[StreamId, int] = {}
    for record in request.records:
        stream = record.stream
        if stream is None:
            placed.append(record)
            continue
        head = heads.get(stream)
        if head is None:
            head = version_of(stream)
            if request.expected_version not in (None, head):
                raise ConcurrencyConflict(str(stream), request.expected_version, head)
        heads[stream] = version = head + 1
        if record.aggregate_version is None:
            placed.append(record._replace(aggregate_version=version))
        elif record.aggregate_version == version:
            placed.append(record)
        else:
            raise ConcurrencyConflict(str(stream), record.aggregate_version - 1, head)
    return tuple(placed)


def open_store(
    url: str, event_registry: EventRegistry = event_registry, *, create: bool = True
) -> EventStore:
    """Open the store that ``url`` names, through the entry-point group ``uno_actors.stores``.

    Args:
        url: ``memory:``, ``lmdb:PATH`` (relative to the working directory) or that of an installed store.
        event_registry: Finds the classes of recorded events.
        create: Whether to make a store where there is none. An opener that is to make none is called with
            ``create=False``.

    Raises:
        InvalidStoreUrl: No installed store has this scheme.
        StoreUnavailable: What the store is made of is not installed; or see there.
        StoreFormatError: See there.
    """
    options = {} if create else {"create": False}
    entry = _opener(url)
    try:
        opener = entry.load()
    except (ImportError, AttributeError) as missing:
        if reason := _hidden(entry, missing):
            raise StoreUnavailable(entry.name, reason) from missing
        if not isinstance(missing, ModuleNotFoundError):  # else of an extra that is not installed
            raise
        raise StoreUnavailable(entry.name, str(missing)) from missing
    store: EventStore = opener(url, event_registry, **options)
    return store


def check_store_url(url: str) -> None:
    """Whether the store of ``url`` understands it, as far as that can be told without opening it.

    The module of a store's opener may have a function ``check_url(url)`` for this.

    Raises:
        InvalidStoreUrl: It does not; or the package that the store needs is not installed.
    """
    opener = _opener(url)
    try:
        module = import_module(opener.module)
    except ImportError as error:
        if reason := _hidden(opener, error):
            raise InvalidStoreUrl(url, [], reason) from error
        raise InvalidStoreUrl(url, [], f"its package cannot be imported: {describe(error)}") from error
    check: Callable[[str], None] | None = getattr(module, "check_url", None)
    if check is not None:
        check(url)


@cache
def store_openers() -> dict[str, EntryPoint]:
    """What opens the stores that are installed, by the scheme of their URLs.

    Looked up once: it reads the metadata of every package that is installed, which takes some 30 ms.
    """
    return {entry.name: entry for entry in entry_points(group="uno_actors.stores")}


def _hidden(entry: EntryPoint, error: Exception) -> str:
    """Which module of a project hides that of an installed store, so that its opener is not found; empty if none."""
    package = entry.module.partition(".")[0]
    found, module = sys.modules.get(package), sys.modules.get(entry.module)
    is_missing = isinstance(error, ModuleNotFoundError) and f"{entry.module}.".startswith(f"{error.name}.")
    is_other = isinstance(error, AttributeError) and module is not None and not hasattr(module, entry.attr)
    if found is None or not (is_missing or is_other):
        return ""
    place = getattr(found, "__file__", None) or next(iter(getattr(found, "__path__", ())), "?")
    return f"{place} hides the installed package {package!r}, in which {entry.value} is: rename that module of yours"


def _opener(url: str) -> EntryPoint:
    openers = store_openers()
    scheme, colon, _ = url.partition(":")
    if not colon or scheme not in openers:
        raise InvalidStoreUrl(url, openers)
    try:
        check_path(url)
    except ValueError as error:
        raise InvalidStoreUrl(url, openers, str(error)) from error
    return openers[scheme]
