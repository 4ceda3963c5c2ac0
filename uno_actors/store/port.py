"""The port to event stores, on one page: what a store implements.

A store holds one log, or several that grow side by side. Every event in a log has a position; positions only grow, and
a reader sees a prefix of the log, never a gap that is filled later. Events of different logs have no order: see
`uno_actors.store.logs`. An event with an aggregate id also has a place in that aggregate's
stream, where versions run 1, 2, 3... without a gap.

`EventStore.commit` is durable: when it returns, the appended records survive a crash of the process and of the
machine, and no reader has seen them before. Each request is recorded whole or not at all, and a request that fails
does not affect the others. A store is used from one event loop at a time; many tasks may await its methods at once.

The values are in `uno_actors.store.records`; the reads that rest on the port are in `uno_actors.store.queries` and
`uno_actors.store.following`.
"""

import math
from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from contextlib import aclosing
from operator import itemgetter
from pathlib import Path
from types import TracebackType
from typing import Self

from uno_actors.clock import Clock
from uno_actors.domain.aggregate import MAX_TYPE_BYTES, check_aggregate_id, unfit_name
from uno_actors.domain.events import DomainEvent, EventRegistry, event_registry
from uno_actors.domain.payloads import as_recorded
from uno_actors.errors import (
    ArgumentWithoutEffect,
    InvalidQuery,
    UnoError,
)
from uno_actors.store.codec import StreamId, to_event, to_record
from uno_actors.store.conditions import Condition, Queries, condition_of
from uno_actors.store.expected_version import ANY, ExpectedVersion, checked_version
from uno_actors.store.following import EventFollowing
from uno_actors.store.membership import Membership
from uno_actors.store.queries import check_number, check_position, pages_to_end
from uno_actors.store.records import (
    PAGE,
    Append,
    Appended,
    Checkpoint,
    DeadLetter,
    Heading,
    RecordedEvent,
    Selection,
    Snapshot,
    StoredRecord,
    ViewChange,
)


class Lease(ABC):
    """A name that one process has alone, until it releases it, closes the store or ends, even if it is killed.

    A holder that hangs or is cut off may lose it to another process. From then on the store refuses what the old
    holder writes under the name, or under one derived from it (see `uno_actors.store.handler_names`), with
    `LeaseLost`.
    """

    _lost = False
    _listener: Callable[[], None] | None = None
    sure_until: float = math.inf
    """Until when, by `time.monotonic`, no other process can have taken it over; then `confirm` it."""

    @abstractmethod
    async def release(self) -> None:
        """Release the name; idempotent."""

    @property
    def is_lost(self) -> bool:
        """Whether another process has taken it over, as far as the store knows."""
        return self._lost

    def when_lost(self, listener: Callable[[], None]) -> None:
        """Call ``listener`` on the event loop when the store learns that another process has taken it over."""
        self._listener = listener

    async def confirm(self) -> None:  # noqa: B027 - for a lease that is never lost
        """Ask the store whether another process has taken it over; `is_lost` is right afterwards.

        A holder does so before it begins something new when ``sure_until`` is over: it may have hung.

        Raises:
            StoreUnavailable: The store cannot be asked now.
        """

    def _lose(self) -> None:
        """For implementations: note that another process has taken it over."""
        if not self._lost:
            self._lost = True
            if self._listener is not None:
                self._listener()


class EventStore(EventFollowing):
    """The port. A store implements the abstract methods; `append` and the reads of events are built on them.

    Args:
        event_registry: Finds the classes of recorded events; default is the process-wide registry.
    """

    is_durable = True
    """Whether recorded events outlive the process, as they do everywhere but in memory."""
    checks_conditions = False
    """Whether `commit` heeds the conditions of its requests. If not, `append` refuses them."""

    def __init__(self, event_registry: EventRegistry = event_registry) -> None:
        super().__init__()
        self.event_registry = event_registry

    # --- what a store implements ---

    @abstractmethod
    async def commit(self, requests: Sequence[Append]) -> list[Appended | UnoError]:
        """Record all valid requests in one transaction and return the outcome of each request, in order.

        Outcomes that are errors: `ConcurrencyConflict`, `AppendConditionFailed`, `CheckpointConflict`, `LeaseLost`,
        `EventNotSerializable`, `StoreFull`, `StoreUnavailable`, `OutcomeUnknown`. A commit that has begun is finished
        even if the caller is cancelled.
        Calls `_committed` before it returns.
        """

    @abstractmethod
    async def read_stream(
        self, stream: StreamId, after_version: int = 0, limit: int = PAGE
    ) -> list[StoredRecord]:
        """At most ``limit`` records of one stream after ``after_version``, in order."""

    @abstractmethod
    async def read_log(self, after: int = 0, limit: int = PAGE) -> list[StoredRecord]:
        """At most ``limit`` records of the log after position ``after``, in order.

        In a store with several logs, of the log to which the position ``after`` belongs:
        `uno_actors.store.logs.starts_of_logs` has the position before its first record. Others are refused with
        `SeveralLogs`.
        """

    @abstractmethod
    async def last_version(self, stream: StreamId) -> int:
        """The version of one stream: that of its last record; 0 if there is none."""

    @abstractmethod
    async def aggregate_types(self, aggregate_id: str) -> list[str]:
        """The aggregate types that have a stream of this id, sorted."""

    @abstractmethod
    async def last_position(self) -> int:
        """The position of the last record of the log; 0 if there is none.

        Raises:
            SeveralLogs: The store has several logs; see `last_positions`.
        """

    @abstractmethod
    async def checkpoints(self) -> dict[str, int]:
        """The checkpoint of each handler name: the position up to which it has handled all events."""

    @abstractmethod
    async def save_progress(
        self,
        checkpoints: Mapping[str, int],
        dead_letters: Sequence[DeadLetter] = (),
        views: Sequence[ViewChange] = (),
        dropped: Sequence[tuple[str, int]] = (),
    ) -> None:
        """Move checkpoints, add dead letters, change views in order, and remove the dead letters that ``dropped``
        names by handler and position, if they exist: all or nothing.

        Durable when it returns, as `commit` is. Calls take effect in the order in which they were made.

        Raises:
            LeaseLost: A part is written under a name that this store had leased and that another process has taken
                over; nothing was written.
        """

    @abstractmethod
    async def read_view(
        self, view: str, start: bytes = b"", end: bytes | None = None, limit: int | None = PAGE
    ) -> list[tuple[bytes, bytes]]:
        """Keys and values of one view from ``start`` to before ``end``, in the order of the keys: a consistent read."""

    @abstractmethod
    async def drop_view(self, view: str) -> None:
        """Remove a view, and with it the checkpoint of the handler of the same name.

        A large view may be removed in parts, the checkpoint with the first; the caller ensures that no handler writes
        to it during the removal.

        Raises:
            LeaseLost: As `save_progress`.
        """

    @abstractmethod
    async def dead_letters(self, handler: str | None = None) -> list[DeadLetter]:
        """Dead letters, of one handler or of all, ordered by handler and position."""

    @abstractmethod
    async def drop_dead_letter(self, handler: str, position: int) -> bool:
        """Remove one dead letter; return whether there was one."""

    @abstractmethod
    async def save_snapshots(self, snapshots: Sequence[Snapshot]) -> None:
        """Keep ``snapshots``, each replacing that of its stream; of several for one stream, keep the last."""

    @abstractmethod
    async def read_snapshot(self, stream: StreamId) -> Snapshot | None:
        """The snapshot of one stream; ``None`` if there is none.

        Raises:
            CorruptRecord: It cannot be read back.
        """

    @abstractmethod
    async def drop_snapshots(self, aggregate_type: str | None = None) -> int:
        """Remove the snapshots of all aggregates or of one type; return their number.

        Nothing is lost but the time to replay.
        """

    @abstractmethod
    async def drop_snapshot(self, stream: StreamId) -> bool:
        """Remove the snapshot of one stream; return whether there was one."""

    @abstractmethod
    async def drop_progress(self, handler: str) -> bool:
        """Remove the checkpoint and the dead letters of exactly this name, in one transaction; views stay.

        For a consumer with a checkpoint of its own (`append`). `HandlerControl.forget` removes all that is kept of a
        handler, its partitions and views included, and sees that it does not run.

        Returns:
            Whether there was any of them.

        Raises:
            LeaseLost: As `save_progress`.
        """

    @abstractmethod
    async def lease(self, name: str) -> Lease | None:
        """Take ``name`` for this process; ``None`` if it is taken, here or in another process.

        The system leases the name of each handler, so that the handler is active in one process at a time.
        """

    @abstractmethod
    async def close(self) -> None:
        """Finish all calls that have started and release everything. Later calls raise `StoreUnavailable`.

        Calls `_end_subscriptions` before it waits for anything.
        """

    # --- what a store may implement ---

    @property
    def directory(self) -> Path | None:
        """A directory beside the store for the sockets of its nodes, made by the first one; ``None`` if it has none."""
        return None

    def membership(self, seconds: float, clock: Clock) -> Membership | None:
        """A new announcement among the nodes that work on this store; ``None`` if the store cannot keep any.

        Args:
            seconds: Until an announcement ends that is not renewed.
            clock: Of the node. Only a store in memory measures time by it; others use the engine's own clock.
        """
        return None

    # --- what rests on that ---

    async def dead_letter_counts(self) -> dict[str, int]:
        """The number of dead letters of each handler that has some; a store may count them without reading them."""
        return dict(Counter(letter.handler for letter in await self.dead_letters()))

    async def read_headings(self, after: int = 0, limit: int = PAGE) -> list[Heading]:
        """As `read_log`, without the records: a store that can reads and transfers no payload.

        It may skip what is damaged there: a reader of the records gets the error.
        """
        return [
            Heading(position, record.aggregate_type, record.aggregate_id, record.aggregate_version)
            for position, record in await self.read_log(after, limit)
        ]

    async def read_views(
        self, views: Sequence[str], start: bytes = b"", end: bytes | None = None, limit: int | None = PAGE
    ) -> list[tuple[bytes, bytes]]:
        """As `read_view`, of several views as one, each read for itself: a store that can reads them at once."""
        pages = [await self.read_view(view, start, end, limit) for view in views]
        return sorted(entry for page in pages for entry in page)[:limit]

    async def is_leased(self, name: str) -> bool:
        """Whether a process has ``name`` leased. The store may take it for a moment to find out."""
        lease = await self.lease(name)
        if lease is None:
            return True
        await lease.release()
        return False

    async def leased_among(self, names: Iterable[str]) -> set[str]:
        """Those of ``names`` that a process has leased; see `is_leased`. A store that can looks once for all."""
        return {name for name in names if await self.is_leased(name)}

    async def select(self, queries: Queries, *, after: int = 0) -> Selection:
        """The events that ``queries`` select, for a decision that `append` makes depend on them.

        A store that `checks_conditions` finds them by its index, so the cost is that of the selected events. The first
        use of a tag, of an event type or of topics in a query indexes the log once, at about 10,000 events/s. Other
        stores read the log.

        Args:
            queries: One `EventQuery`, or several, which select what one of them selects.
            after: Exclusive; 0 for all.

        Raises:
            InvalidQuery: A query cannot be answered; the error says why.
            SeveralLogs: The store has several logs.
            EventNotReadable, UnknownEventType, CorruptRecord: An event cannot be read.
        """
        check_number("after", after)
        condition = condition_of(queries, after, self.event_registry)
        found, position = await self.select_records(condition)
        return Selection([self._recorded(stored) for stored in found], position)

    async def select_records(self, condition: Condition) -> tuple[list[StoredRecord], int]:
        """As `select`: the records that a condition selects, and the position up to which the log was read."""
        found, position = await self._find(condition)
        pages = pages_to_end(self.read_log, self.last_position, itemgetter(0), position)
        async with aclosing(pages) as rest:  # what the index does not have yet
            async for page in rest:
                found += (stored for stored in page if condition.matches(stored.record))
                position = page[-1].position
        return found, position

    async def _find(self, condition: Condition) -> tuple[list[StoredRecord], int]:
        """For implementations: what the index has for `select_records`, and the position up to which it is complete."""
        return [], condition.after

    def _recorded(self, stored: StoredRecord) -> RecordedEvent:
        position, record = stored
        return RecordedEvent(position, to_event(record, self.event_registry, position))

    async def append(
        self,
        *events: DomainEvent,
        expected_version: ExpectedVersion = ANY,
        checkpoint: Checkpoint | None = None,
        unless: Queries | None = None,
        after: int = 0,
    ) -> list[RecordedEvent]:
        """Record ``events``, all or none, and return them as recorded when they are durable.

        Args:
            events: They may belong to several streams, unless ``expected_version`` is given.
            expected_version: Version of their stream before them; 0 if it must not exist yet, `EXISTS` for any version
                of a stream that has events, `ANY` for no check.
            checkpoint: Moves with the events, in one transaction; with no events it moves alone.
            unless: Do not record them if one of these queries selects an event after ``after``, in whatever stream.
            after: The position up to which the caller has read what the queries select: that of a `Selection`, or 0 if
                there must be no such event at all.

        Raises:
            ConcurrencyConflict: The stream is at another version.
            NoSuchStream: The stream has no events, and `EXISTS` was given.
            AppendConditionFailed: Events stand against ``unless``; it names them.
            CheckpointConflict: The checkpoint is not where it was expected, or would go back.
            LeaseLost: This store had leased the name of the checkpoint, and another process has taken it over.
            InvalidQuery: A query cannot be answered, or the store does not check conditions.
            SeveralLogs: ``unless`` is given, and the store has several logs.
            InvalidExpectedVersion: ``expected_version`` is not a version.
            InvalidHandler, InvalidNumber: The checkpoint has an impossible name or position.
            ValueError: ``expected_version`` was given for events of several streams, or of none.
            EventNotSerializable, InvalidAggregateId: An event cannot be recorded.
            StoreFull, StoreUnavailable, OutcomeUnknown: The store failed; see each class.
        """
        return await self._append(
            events, expected_version, self.commit, checkpoint, self._condition(unless, after)
        )

    def _condition(self, unless: Queries | None, after: int) -> Condition | None:
        """For implementations: the condition of an `append`.

        Raises:
            InvalidQuery: As for `append`.
        """
        check_position("after", after)
        if unless is None:
            if after:
                remedy = "say what must not be there after it"
                raise ArgumentWithoutEffect("after", after, "unless", remedy)
            return None
        condition = condition_of(unless, after, self.event_registry)
        self.check_conditional(condition)
        return condition

    def check_conditional(self, condition: Condition) -> None:
        """Refuse a condition if the store does not check any.

        Raises:
            InvalidQuery: It does not.
        """
        if not self.checks_conditions:
            reason = f"{type(self).__name__} does not check conditions of appends; use a store of uno_stores"
            raise InvalidQuery(condition.text, reason)

    async def _append(
        self,
        events: Sequence[DomainEvent],
        expected_version: ExpectedVersion,
        commit: Callable[[Sequence[Append]], Awaitable[Sequence[Appended | UnoError]]],
        checkpoint: Checkpoint | None = None,
        condition: Condition | None = None,
    ) -> list[RecordedEvent]:
        """For implementations: `append` by another way to commit."""
        expected = checked_version(expected_version)
        if not events and checkpoint is None:
            return []
        for event in events:
            if event.aggregate_id is not None:
                check_aggregate_id(event.aggregate_id)
            if event.aggregate_type and (reason := unfit_name(event.aggregate_type, MAX_TYPE_BYTES)):
                raise ValueError(f"invalid aggregate type {event.aggregate_type!r}: {reason}")
        streams = {(event.aggregate_type, event.aggregate_id) for event in events}
        if expected is not None and (len(streams) != 1 or events[0].aggregate_id is None):
            raise ValueError(
                f"expected_version is for the events of one stream, found {len(streams)}: {streams}"
            )
        for event in events:
            self.event_registry.check_readable(event)
        recorded = [*map(as_recorded, events)]
        (outcome,) = await commit([Append(tuple(map(to_record, recorded)), expected, checkpoint, condition)])
        if isinstance(outcome, UnoError):
            raise outcome
        return [
            RecordedEvent(position, event.stamped(aggregate_version=record.aggregate_version))
            for position, record, event in zip(*outcome, recorded, strict=True)
        ]

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self.close()
