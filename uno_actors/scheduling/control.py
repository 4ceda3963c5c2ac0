"""What is scheduled in a store, for programs and operators, with or without a running system."""

from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Any

from uno_actors.aggregates.schedules_mark import mark
from uno_actors.causality import current_cause
from uno_actors.clock import Clock, SystemClock, now_by
from uno_actors.domain.aggregate import AggregateRoot, outgoing_to
from uno_actors.domain.commands import Command
from uno_actors.domain.events import DomainEvent
from uno_actors.domain.schedules import CatchUp, Scheduled, Unscheduled, check_key, scheduled
from uno_actors.errors import ConcurrencyConflict, UnknownSchedule
from uno_actors.handlers.projection import published_view
from uno_actors.handlers.spec import HandlerSpec
from uno_actors.handlers.view import PublishedView
from uno_actors.scheduling import due_list
from uno_actors.scheduling.due_list import BY_ID, DUE, DueList, DueLists
from uno_actors.scheduling.entries import ScheduleInfo, micros, owner_of, stream_of
from uno_actors.store.codec import StreamId, to_event
from uno_actors.store.port import EventStore
from uno_actors.store.view_keys import Key


class ScheduleControl:
    """Lists and changes what is scheduled in a store.

    The list is that of the scheduler, as of the events that it has seen: a running one is milliseconds behind.

    Args:
        store: The store.
        clock: Tells the time of day.
    """

    def __init__(self, store: EventStore, clock: Clock | None = None) -> None:
        self._store = store
        self._clock = clock or SystemClock()
        self._found: PublishedView[Any] | None = None

    async def _view(self) -> PublishedView[Any]:
        """The list, which has partitions if the store has several logs."""
        if self._found is None:
            logs = len(await self._store.last_positions())
            due = DueList(DueLists(self._clock))
            spec = HandlerSpec(due_list.NAME, due, event_type=Scheduled, partitioned=logs > 1)
            self._found = published_view(self._store, spec)
        return self._found

    async def schedules(
        self, *, limit: int | None = None, after: ScheduleInfo | None = None
    ) -> list[ScheduleInfo]:
        """What is to be sent, ordered by due time.

        Args:
            limit: Maximum number. Default is no limit.
            after: Only those after this one: the last of the previous page.
        """
        place: Key | None = None if after is None else (DUE, micros(after.due), after.id)
        found = await (await self._view()).range(DUE, after=place, limit=limit)
        return [ScheduleInfo.unpacked(packed) for _, packed in found]

    async def get(self, schedule: str) -> ScheduleInfo:
        """One of them.

        Raises:
            UnknownSchedule: Nothing that is to be sent has this id.
        """
        view = await self._view()
        due = await view.get((BY_ID, schedule))
        packed = None if due is None else await view.get((DUE, due, schedule))
        if packed is None:
            raise UnknownSchedule(schedule)
        return ScheduleInfo.unpacked(packed)

    async def cancel(self, schedule: str) -> ScheduleInfo:
        """Have a command not sent; of one that recurs, not any more. Return what it was.

        Raises:
            UnknownSchedule: Nothing that is to be sent has this id, or it has just been due.
        """
        entry = await self.get(schedule)
        await self._record_first(entry, entry.cancelled())
        return entry

    async def run_now(self, schedule: str) -> ScheduleInfo:
        """Have a command sent now; one that recurs is sent at its next time too. Return what it was.

        Raises:
            UnknownSchedule: Nothing that is to be sent has this id, or it has just been due.
        """
        entry = await self.get(schedule)
        now = now_by(self._clock)
        event = entry.fired(now, entry.due) if entry.every is not None else entry.fired(entry.due, None)
        await self._record_first(entry, event)
        return entry

    async def _record_first(self, entry: ScheduleInfo, event: DomainEvent) -> None:
        """Record what happens to ``entry``, unless something else has just happened to it."""
        stream = stream_of(entry.id, entry.owner, self._store.logs)
        try:
            await self._store.append(
                event.stamped(aggregate_id=stream.aggregate_id), expected_version=entry.version
            )
        except ConcurrencyConflict:
            raise UnknownSchedule(entry.id, "it has just been due or cancelled; look again") from None

    async def schedule(
        self,
        command: Command[Any],
        *,
        to: tuple[type[AggregateRoot], str],
        after: timedelta | float | None = None,
        at: datetime | None = None,
        every: str | None = None,
        tz: str = "UTC",
        catch_up: CatchUp = "last",
        key: str | None = None,
    ) -> str:
        """See `uno_actors.ActorSystem.schedule`."""
        event = scheduled(
            outgoing_to(to, command),
            None if key is None else check_key(key),
            now_by(self._clock),
            after=after,
            at=at,
            every=every,
            tz=tz,
            catch_up=catch_up,
        )
        await mark(self._store)
        while True:
            last, version = await self._last(event.key)
            if isinstance(last, Scheduled) and _is_same(last, event) and not await self._is_over(last):
                return event.key
            try:
                await self._store.append(self._stamped(event), expected_version=version)
            except ConcurrencyConflict:
                continue  # another program has scheduled something under this key
            return event.key

    async def unschedule(self, key: str) -> None:
        """See `uno_actors.ActorSystem.unschedule`."""
        last, version = await self._last(check_key(key))
        while isinstance(last, Scheduled):
            try:
                await self._store.append(self._stamped(Unscheduled(key=key)), expected_version=version)
            except ConcurrencyConflict:
                last, version = await self._last(key)
            else:
                return

    async def _last(self, key: str) -> tuple[DomainEvent | None, int]:
        """The last event of what programs have scheduled under ``key``, and the version of its stream."""
        return await self._last_of(StreamId(ScheduleInfo.FROM_OUTSIDE, key))

    async def _is_over(self, event: Scheduled) -> bool:
        """Whether what ``event`` has scheduled is not sent any more: an operator has cancelled it, or no time is left.

        That is beside the stream of the key; see `stream_of`, also for a store that was copied from one with one log.
        """
        for logs in dict.fromkeys((self._store.logs, 1)):
            last, _ = await self._last_of(stream_of(event.event_id, owner_of(event), logs))
            if last is not None:
                return getattr(last, "next_due", None) is None
        return False

    async def _last_of(self, stream: StreamId) -> tuple[DomainEvent | None, int]:
        """The last event of a stream, and its version."""
        version = await self._store.last_version(stream)
        if not version:
            return None, 0
        found: Sequence[Any] = await self._store.read_stream(stream, version - 1, 1)
        if not found:
            return None, 0
        position, record = found[0]
        return to_event(record, self._store.event_registry, position), version

    @staticmethod
    def _stamped(event: DomainEvent) -> DomainEvent:
        cause = current_cause()
        correlation_id, causation_id = event.correlation_id, event.causation_id
        if cause is not None:
            correlation_id, causation_id = cause.fill(correlation_id, causation_id)
        key = getattr(event, "key", "")
        return event.stamped(
            aggregate_type=ScheduleInfo.FROM_OUTSIDE,
            aggregate_id=key,
            correlation_id=correlation_id,
            causation_id=causation_id,
        )


def _is_same(last: Scheduled, event: Scheduled) -> bool:
    """Whether a recurring schedule is there already, as after another start of the program that makes it."""
    parts = [(each.command, each.every, each.tz, each.catch_up) for each in (last, event)]
    return event.every is not None and parts[0] == parts[1]
