"""Recorders of ``eventsourcing`` on the log of a store."""

from collections.abc import Callable, Sequence
from contextlib import aclosing, suppress
from typing import Any
from uuid import UUID

from eventsourcing.persistence import (
    AggregateRecorder,
    ApplicationRecorder,
    IntegrityError,
    ListenNotifySubscription,
    Notification,
    ProcessRecorder,
    StoredEvent,
    Tracking,
    TrackingRecorder,
)
from typing_extensions import override

from uno_actors.errors import ConcurrencyConflict, UnoError
from uno_actors.store.codec import Record, StreamId
from uno_actors.store.records import PAGE, Append, Checkpoint
from uno_stores.eventsourcing.sharing import SharedStore
from uno_stores.eventsourcing.stored import (
    EVENT_TYPE,
    content_of,
    events_of,
    notification_of,
    record_of,
    stored_event_of,
    stream_of,
)

MAX_OFFSETS = 100_000
"""Streams of which a recorder remembers where their versions begin."""


class UnoAggregateRecorder(AggregateRecorder):
    """Events of one application, by originator.

    The versions of an originator begin anywhere and have no gap.

    Args:
        shared: The store.
        application: The name of the application, which is the aggregate type of its streams.
    """

    def __init__(self, shared: SharedStore, application: str) -> None:
        self._shared = shared
        self._application = application
        self._offsets: dict[StreamId, int] = {}

    @override
    def insert_events(self, stored_events: Sequence[StoredEvent], **kwargs: Any) -> Sequence[int] | None:
        self._insert(stored_events)
        return None

    def _insert(
        self, stored_events: Sequence[StoredEvent], checkpoint: Checkpoint | None = None
    ) -> Sequence[int]:
        """Record events, and move a checkpoint with them; return their positions in the log."""
        if not stored_events and checkpoint is None:
            return []
        return self._shared.run(self._append(stored_events, checkpoint))

    async def _append(self, events: Sequence[StoredEvent], checkpoint: Checkpoint | None) -> Sequence[int]:
        offsets = await self._offsets_for(events)
        outcome = await self._commit(events, offsets, checkpoint)
        if isinstance(outcome, ConcurrencyConflict):
            known = {stream: found for stream in offsets if (found := await self._offset(stream)) is not None}
            if offsets | known == offsets:
                raise outcome
            offsets |= known  # a stream that begins elsewhere than was assumed
            outcome = await self._commit(events, offsets, checkpoint)
        if isinstance(outcome, UnoError):
            raise outcome
        if len(self._offsets) > MAX_OFFSETS:
            self._offsets.clear()
        self._offsets |= offsets
        return list(outcome.positions)

    async def _commit(
        self, events: Sequence[StoredEvent], offsets: dict[StreamId, int], checkpoint: Checkpoint | None
    ) -> Any:
        """The outcome of an append at the versions that the events have with these offsets."""
        records = tuple(self._record(event, offsets) for event in events)
        # PostgreSQL records in one statement what expects a version of one stream.
        first = records[0].aggregate_version if len(offsets) == 1 else None
        request = Append(records, None if first is None else first - 1, checkpoint)
        (outcome,) = await self._shared.store.commit([request])
        return outcome

    def _record(self, event: StoredEvent, offsets: dict[StreamId, int]) -> Record:
        stream = stream_of(event.originator_id, self._application)
        version = event.originator_version - offsets[stream]
        if version < 1:
            raise IntegrityError(
                f"{stream} begins at version {offsets[stream] + 1}; found version {event.originator_version}"
            )
        return record_of(event, self._application, version)

    async def _offsets_for(self, events: Sequence[StoredEvent]) -> dict[StreamId, int]:
        """What is to be taken from the versions of ``events`` for each stream; of a new one, by its first event.

        Versions 0 and 1 are assumed to begin a stream. If it has events, the append is refused.
        """
        offsets: dict[StreamId, int] = {}
        for event in events:
            stream = stream_of(event.originator_id, self._application)
            if stream in offsets:
                continue
            offset = self._offsets.get(stream)
            if offset is None and event.originator_version > 1:
                offset = await self._offset(stream)
            offsets[stream] = event.originator_version - 1 if offset is None else offset
        return offsets

    async def _offset(self, stream: StreamId) -> int | None:
        """What the versions of a stream's events are more than their places in it; ``None`` if it has no events."""
        page = await self._shared.store.read_stream(stream, 0, 1)
        return content_of(page[0].record).originator_version - 1 if page else None

    @override
    def select_events(
        self,
        originator_id: UUID | str,
        *,
        gt: int | None = None,
        lte: int | None = None,
        desc: bool = False,
        limit: int | None = None,
    ) -> Sequence[StoredEvent]:
        stream = stream_of(originator_id, self._application)
        return self._shared.run(self._select(stream, gt, lte, backward=desc, limit=limit))

    async def _select(
        self, stream: StreamId, gt: int | None, lte: int | None, *, backward: bool, limit: int | None
    ) -> Sequence[StoredEvent]:
        offset = 0
        if gt is not None or lte is not None:
            found = self._offsets.get(stream)
            if found is None and (found := await self._offset(stream)) is None:
                return []
            offset = found
        since = 0 if gt is None else max(0, gt - offset)
        until = None if lte is None else max(0, lte - offset)
        events: list[StoredEvent] = []
        records = self._shared.store.stream_records(
            stream, since, backward=backward, until_version=until, limit=limit
        )
        async with aclosing(records) as each:
            async for _, record in each:
                events.append(stored_event_of(record))
        return events


class UnoApplicationRecorder(UnoAggregateRecorder, ApplicationRecorder):
    """Events of one application, by originator and in the order of the log; a notification's id is a position.

    Ids have gaps where the store holds other events than those of the application.
    """

    _last = _looked = 0  # the last id known, and the position up to which the log was searched for it

    @override
    def insert_events(self, stored_events: Sequence[StoredEvent], **kwargs: Any) -> Sequence[int] | None:
        return self._insert(stored_events)

    @override
    def select_notifications(
        self,
        start: int | None,
        limit: int,
        stop: int | None = None,
        topics: Sequence[str] = (),
        *,
        inclusive_of_start: bool = True,
    ) -> Sequence[Notification]:
        after = max(0, (start or 0) - bool(start and inclusive_of_start))
        return self._shared.run(self._notifications(after, limit, stop, tuple(topics)))

    async def _notifications(
        self, after: int, limit: int, stop: int | None, topics: tuple[str, ...]
    ) -> Sequence[Notification]:
        found: list[Notification] = []
        matching = events_of(self._application, topics)
        records = self._shared.store.read_records(after, matching=matching, until=stop)
        async with aclosing(records) as each:
            async for stored in each:
                if len(found) >= limit:
                    break
                notification = notification_of(stored)
                if not topics or notification.topic in topics:
                    found.append(notification)
        return found

    @override
    def max_notification_id(self) -> int | None:
        return self._shared.run(self._max_id())

    async def _max_id(self) -> int | None:
        store = self._shared.store
        end = top = await store.last_position()
        while top > self._looked:  # backward, a page at a time
            after = max(self._looked, top - PAGE)
            records = [each for each in await store.read_log(after, top - after) if each.position <= top]
            ours = [each.position for each in records if self._is_ours(each.record)]
            if ours:
                self._last = ours[-1]
                break
            top = after
        self._looked = end
        return self._last or None

    def _is_ours(self, record: Record) -> bool:
        return record.event_type == EVENT_TYPE and record.aggregate_type == self._application

    @override
    def subscribe(self, gt: int | None = None, topics: Sequence[str] = ()) -> "UnoSubscription":
        return UnoSubscription(self, gt, topics)

    def listen(self, listener: Callable[[], None]) -> Callable[[], None]:
        """Call ``listener`` after each commit to the store, by any process; return a function that ends this."""

        async def begin() -> Callable[[], None]:
            return self._shared.store.on_commit(listener)

        end = self._shared.run(begin())

        def end_once() -> None:
            with suppress(ValueError):  # it was ended before
                end()

        return lambda: self._shared.call_soon(end_once)


class UnoSubscription(ListenNotifySubscription[UnoApplicationRecorder]):
    """Notifications of one application, those recorded and then those to come, by news of commits.

    Args:
        recorder: Reads them.
        gt: Only those after this id.
        topics: Only events of these topics; all if there are none.
    """

    _end: Callable[[], None] | None = None

    def __init__(
        self, recorder: UnoApplicationRecorder, gt: int | None = None, topics: Sequence[str] = ()
    ) -> None:
        super().__init__(recorder, gt, topics)
        self._end = recorder.listen(self._has_been_notified.set)
        self._has_been_notified.set()  # for what was recorded before it listened
        if self._has_been_stopped:
            self._end()

    @override
    def stop(self) -> None:
        super().stop()
        if self._end is not None:
            self._end()
            self._end = None


class UnoTrackingRecorder(TrackingRecorder):
    """How far one application has come in others: a checkpoint of the store for each of these.

    Args:
        shared: The store.
        application: The name of the application that follows others.
    """

    def __init__(self, shared: SharedStore, application: str) -> None:
        self._shared = shared
        self._application = application

    @override
    def insert_tracking(self, tracking: Tracking) -> None:
        self._shared.run(self._track(self._checkpoint(tracking)))

    async def _track(self, checkpoint: Checkpoint) -> None:
        await self._shared.store.append(checkpoint=checkpoint)

    def _checkpoint(self, tracking: Tracking) -> Checkpoint:
        return Checkpoint(self._name(tracking.application_name), tracking.notification_id)

    def _name(self, upstream: str) -> str:
        return f"{self._application} follows {upstream}"

    @override
    def max_tracking_id(self, application_name: str) -> int | None:
        return self._shared.run(self._shared.store.checkpoints()).get(self._name(application_name))


class UnoProcessRecorder(UnoTrackingRecorder, UnoApplicationRecorder, ProcessRecorder):
    """Events of one application, and how far it has come in others: both in one transaction.

    Args:
        shared: The store.
        application: The name of the application.
    """

    def __init__(self, shared: SharedStore, application: str) -> None:
        UnoApplicationRecorder.__init__(self, shared, application)

    @override
    def insert_events(self, stored_events: Sequence[StoredEvent], **kwargs: Any) -> Sequence[int] | None:
        tracking: Tracking | None = kwargs.get("tracking")
        return self._insert(stored_events, None if tracking is None else self._checkpoint(tracking))
