"""Aggregates without actors: load one, let it decide, save it."""

import asyncio
from collections.abc import Callable
from datetime import datetime
from time import monotonic
from typing import Generic, TypeVar

from uno_actors.aggregates.history import as_it_was, check_moment
from uno_actors.aggregates.reruns import Contention, may_run_again
from uno_actors.aggregates.schedules_mark import any_scheduled, mark
from uno_actors.aggregates.snapshots import Snapshots
from uno_actors.annotations import is_subclass
from uno_actors.backoff import chance
from uno_actors.domain.aggregate import AggregateRoot, check_aggregate_id, new_aggregate
from uno_actors.errors import AggregateNotFound, ConcurrencyConflict, InvalidAggregate, InvalidMoment, shown
from uno_actors.quantities import check_duration
from uno_actors.store.codec import StreamId
from uno_actors.store.port import EventStore
from uno_actors.store.records import RecordedEvent

A = TypeVar("A", bound=AggregateRoot)
R = TypeVar("R")


class EventSourcedRepository(Generic[A]):
    """Loads and saves aggregates of one type in a store, without a running system.

    A new aggregate is made by its class: ``account = Account("alice")``. An `ActorSystem` on the same store sees what
    `save` records, and the other way round: the expected version is the fence between them.

    Args:
        aggregate_type: The class.
        event_store: Open; it stays open.
        snapshot_every: Events between two snapshots of an aggregate; 0 or ``None`` to take none. Existing
            snapshots are used in any case.

    Raises:
        InvalidAggregate: ``aggregate_type`` is not a class of aggregates.
        ValueError: ``snapshot_every`` is negative.
    """

    def __init__(
        self, aggregate_type: type[A], event_store: EventStore, snapshot_every: int | None = None
    ) -> None:
        if not is_subclass(aggregate_type, AggregateRoot):
            raise InvalidAggregate(
                repr(aggregate_type), "a repository needs a class derived from AggregateRoot"
            )
        self._type = aggregate_type
        self._store = event_store
        self._snapshots = Snapshots(event_store, snapshot_every)

    async def get_by_id(self, id: str, *, version: int | None = None, at: datetime | None = None) -> A:
        """The aggregate with all of its recorded events applied, or as it was.

        Args:
            id: Of the aggregate.
            version: The version to look at, from 1. An aggregate that is not at its last version cannot be saved.
            at: The time to look at: no event from the first one with a later timestamp on is applied. One without a
                zone is in UTC.

        Raises:
            AggregateNotFound: It has no events, or had none by then.
            NoSuchVersion: It has fewer events.
            InvalidMoment: Both a version and a time are given, or one that is none.
            InvalidAggregateId: No aggregate can have this id.
            MissingApply, EventNotReadable, UnknownEventType, CorruptRecord: An event cannot be replayed.
            StoreUnavailable: The store cannot be read.
        """
        stream = StreamId(self._type.aggregate_type, check_aggregate_id(id))
        if version is not None or at is not None:
            if version is not None and at is not None:
                raise InvalidMoment((version, at))
            given: object = at if version is None else version
            if isinstance(given, datetime) is (at is None):  # each is given by its name
                raise InvalidMoment(given)
            moment = check_moment(given)
            return await as_it_was(self._store, self._type, stream, moment)
        aggregate, replayed = await self._snapshots.load(self._type, stream)
        if not aggregate.version:
            raise AggregateNotFound(str(stream))
        await self._snapshot(aggregate, aggregate.version - replayed)
        return aggregate

    async def save(self, aggregate: A) -> list[RecordedEvent]:
        """Record the pending events of ``aggregate`` together or not at all, and return them when durable.

        If that fails, the aggregate is unchanged and its events are still pending.

        Raises:
            ConcurrencyConflict: Another writer was faster: load it again and decide again.
            TypeError: The aggregate is not of this repository's type.
            InvalidAggregateId, InvalidAggregate: It could not be loaded again; see `new_aggregate`.
            EventNotSerializable, StoreFull, StoreUnavailable, OutcomeUnknown: See each class.
        """
        if aggregate.aggregate_type != self._type.aggregate_type:
            raise TypeError(f"this repository saves {self._type.__name__}; found {aggregate!r}")
        new_aggregate(self._type, aggregate.id)  # loading will make it like this
        pending = aggregate.pending_events
        before = aggregate.version - len(pending)
        if any_scheduled(pending):
            await mark(self._store)
        recorded = await self._store.append(*pending, expected_version=before)
        aggregate.take_pending_events(len(pending))
        if aggregate.version == before + len(pending):  # otherwise it has decided more in the meantime
            await self._snapshot(aggregate, before)
        return recorded

    async def update(self, id: str, decide: Callable[[A], R], *, timeout: float = 30.0) -> R:
        """Load an aggregate, let ``decide`` change it, save it, and return what ``decide`` returned.

        If another writer was faster, ``decide`` is called again with a newly loaded aggregate until ``timeout`` is
        over, by the same rule as the commands of a system: see `uno_actors.aggregates.reruns`.

        Args:
            id: Of an aggregate that has events.
            decide: A plain function that only changes the aggregate; it may be called several times.
            timeout: Seconds.

        Raises:
            ConcurrencyConflict: The time is over; it says how often it was tried. Nothing was recorded.
            Exception: As `get_by_id` and `save`, and what ``decide`` raises.
        """
        check_duration("timeout", timeout, zero=True)
        contention, tries, begun = Contention(1), 0, monotonic()
        while True:
            aggregate = await self.get_by_id(id)
            result = decide(aggregate)
            try:
                await self.save(aggregate)
            except ConcurrencyConflict as conflict:
                tries += 1
                contention = contention.lost(1, chance())
                now = monotonic()
                if not may_run_again(now + contention.pause, begun + timeout):
                    raise conflict.until_late(
                        getattr(decide, "__name__", None) or shown(decide), tries, now - begun
                    ) from conflict
                await asyncio.sleep(contention.pause)
            else:
                return result

    async def _snapshot(self, aggregate: A, before: int) -> None:
        if snapshot := self._snapshots.take_if_due(aggregate, before):
            await self._snapshots.save([snapshot])

    def __repr__(self) -> str:
        return f"EventSourcedRepository({self._type.__name__}, {self._store!r})"
