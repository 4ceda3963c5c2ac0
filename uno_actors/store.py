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
from abc import ABC, abstractmethod
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from datetime import UTC, datetime
from importlib.metadata import entry_points
from types import TracebackType
from typing import NamedTuple, Self

from uno_actors.aggregate import MAX_TYPE_BYTES, check_aggregate_id, unfit_name
from uno_actors.codec import Record, StreamId, to_event, to_record
from uno_actors.errors import AmbiguousStream, ConcurrencyConflict, InvalidStoreUrl, UnoError
from uno_actors.events import DomainEvent, EventRegistry, event_registry

ANY: None = None
"""``expected_version=ANY``: append to whatever is there."""

PAGE = 512
"""Records read at once: few enough to leave the event loop within milliseconds."""


class Append(NamedTuple):
    """A request to record events together.

    ``expected_version`` is the version of their one stream before them; `ANY` asks for no check. A record
    that brings its own ``aggregate_version`` is recorded in that place or the request fails.
    """

    records: tuple[Record, ...]
    expected_version: int | None = ANY


class Appended(NamedTuple):
    """What came of an `Append`: the place of each record in the log, and the records as stored."""

    positions: range
    records: tuple[Record, ...]


class StoredRecord(NamedTuple):
    """A record and its place in the log."""

    position: int
    record: Record


class RecordedEvent(NamedTuple):
    """An event and its place in the log."""

    position: int
    event: DomainEvent


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
    """A name that its holder alone has, until it releases it, closes the store or ends, however it ends."""

    @abstractmethod
    async def release(self) -> None:
        """Let others have it; idempotent."""


class EventStore(ABC):
    """The port. A store implements the abstract methods; `append` and the readers of events rest on them.

    Args:
        event_registry: Finds the classes of recorded events; default is the process-wide registry.
    """

    def __init__(self, event_registry: EventRegistry = event_registry) -> None:
        self.event_registry = event_registry
        self._commit_listeners: list[Callable[[], None]] = []

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
    ) -> None:
        """Move checkpoints, add dead letters and change views in this order, together or not at all.

        Durable when it returns, as `commit` is. Calls take effect in the order in which they were made.
        """

    @abstractmethod
    async def read_view(
        self, view: str, start: bytes = b"", end: bytes | None = None, limit: int | None = PAGE
    ) -> list[tuple[bytes, bytes]]:
        """Keys and values of one view from ``start`` to before ``end``, in the order of the keys, of one moment."""

    @abstractmethod
    async def drop_view(self, view: str) -> None:
        """Remove a view, and the checkpoint of the handler of its name with it."""

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
        """Finish what was begun and release everything. Later calls raise `StoreUnavailable`."""

    # --- what rests on it ---

    async def append(self, *events: DomainEvent, expected_version: int | None = ANY) -> list[RecordedEvent]:
        """Record ``events`` together or not at all, and return them as recorded when they are durable.

        Args:
            events: They may belong to several streams, unless ``expected_version`` is given.
            expected_version: Version of their stream before them; 0 if it must not exist yet.

        Raises:
            ConcurrencyConflict: The stream is at another version.
            ValueError: ``expected_version`` was given for events of no or of several streams.
            EventNotSerializable, InvalidAggregateId: An event cannot be recorded.
            StoreFull, StoreUnavailable, OutcomeUnknown: See there.
        """
        if not events:
            return []
        for event in events:
            if event.aggregate_id is not None:
                check_aggregate_id(event.aggregate_id)
            if event.aggregate_type and (reason := unfit_name(event.aggregate_type, MAX_TYPE_BYTES)):
                raise ValueError(f"invalid aggregate type {event.aggregate_type!r}: {reason}")
        streams = {(event.aggregate_type, event.aggregate_id) for event in events}
        if expected_version is not ANY and (len(streams) > 1 or events[0].aggregate_id is None):
            raise ValueError(
                f"expected_version is for the events of one stream, found {len(streams)}: {streams}"
            )
        (outcome,) = await self.commit([Append(tuple(map(to_record, events)), expected_version)])
        if isinstance(outcome, UnoError):
            raise outcome
        return [
            RecordedEvent(position, event.stamped(aggregate_version=record.aggregate_version))
            for position, record, event in zip(*outcome, events, strict=True)
        ]

    async def get_events(
        self,
        aggregate_id: str,
        since_version: int | None = None,
        since_timestamp: datetime | None = None,
        limit: int | None = None,
        *,
        aggregate_type: str | None = None,
    ) -> list[DomainEvent]:
        """The events of one stream in order.

        Args:
            aggregate_id: The aggregate's id.
            since_version: "I have 5, what came since": only events after this version.
            since_timestamp: Only events of this time or later; a naive time is read as UTC.
            limit: At most so many.
            aggregate_type: Needed if aggregates of several types have this id.

        Raises:
            AmbiguousStream: They have, and it was not given.
        """
        if aggregate_type is None:
            types = await self.aggregate_types(aggregate_id)
            if len(types) > 1:
                raise AmbiguousStream(aggregate_id, types)
            if not types:
                return []
            aggregate_type = types[0]
        if since_timestamp is not None and since_timestamp.tzinfo is None:
            since_timestamp = since_timestamp.replace(tzinfo=UTC)
        events: list[DomainEvent] = []
        async for event in self.stream_events(StreamId(aggregate_type, aggregate_id), since_version or 0):
            if limit is not None and len(events) >= limit:
                break
            if since_timestamp is None or event.timestamp >= since_timestamp:
                events.append(event)
        return events

    async def stream_events(self, stream: StreamId, after_version: int = 0) -> AsyncIterator[DomainEvent]:
        """The events of one stream after ``after_version``, read page by page."""
        while page := await self.read_stream(stream, after_version):
            for _, record in page:
                yield to_event(record, self.event_registry)
            after_version += len(page)
            await asyncio.sleep(0)  # a long stream must not keep the event loop from others

    async def read_all(self, after: int = 0, limit: int | None = None) -> AsyncIterator[RecordedEvent]:
        """The events of the whole log after position ``after``, in global order, read page by page.

        Args:
            after: Exclusive; 0 for all.
            limit: At most so many.
        """
        left = limit
        while left is None or left > 0:
            page = await self.read_log(after, PAGE if left is None else min(left, PAGE))
            if not page:
                return
            for position, record in page:
                yield RecordedEvent(position, to_event(record, self.event_registry))
            after = page[-1].position
            await asyncio.sleep(0)  # nor must a long log
            left = None if left is None else left - len(page)

    def on_commit(self, listener: Callable[[], None]) -> Callable[[], None]:
        """Have ``listener`` called on the event loop after each commit of this store; returns how to stop it."""
        self._commit_listeners.append(listener)
        return lambda: self._commit_listeners.remove(listener)

    def _committed(self) -> None:
        """For implementations: tell the listeners that the log has grown."""
        for listener in tuple(self._commit_listeners):
            listener()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self.close()


def place(request: Append, version_of: Callable[[StreamId], int]) -> tuple[Record, ...]:
    """Give each record of ``request`` its place in its stream: the one rule that all stores share.

    Args:
        request: What is to be recorded.
        version_of: The version that a stream has now, earlier requests of the same commit included.

    Raises:
        ConcurrencyConflict: A stream is not at the expected version, or the place that a record brings is
            not the next one.
    """
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
            if request.expected_version not in (ANY, head):
                raise ConcurrencyConflict(str(stream), request.expected_version, head)
        heads[stream] = version = head + 1
        if record.aggregate_version is None:
            placed.append(record._replace(aggregate_version=version))
        elif record.aggregate_version == version:
            placed.append(record)
        else:
            raise ConcurrencyConflict(str(stream), record.aggregate_version - 1, head)
    return tuple(placed)


def open_store(url: str, event_registry: EventRegistry = event_registry) -> EventStore:
    """Open the store that ``url`` names, through the entry-point group ``uno_actors.stores``.

    Args:
        url: ``memory:``, ``lmdb:PATH`` (relative to the working directory) or that of an installed store.
        event_registry: Finds the classes of recorded events.

    Raises:
        InvalidStoreUrl: No installed store has this scheme.
        StoreUnavailable, StoreFormatError: See there.
    """
    openers = {entry.name: entry for entry in entry_points(group="uno_actors.stores")}
    scheme = url.partition(":")[0]
    if ":" not in url or scheme not in openers:
        raise InvalidStoreUrl(url, openers)
    store: EventStore = openers[scheme].load()(url, event_registry)
    return store
