"""The list of what is to be sent, by due time: a projection that also acts when the time has come.

It derives the list from the log, in the store, exactly once, like any projection. When the first entries are due, it
records `Fired` for them, a page at a time; the list changes when that event comes back from the log. A time is fired at
most once: the event's place in the stream of its schedule is the fence, whatever else is recorded there.

On a store with several logs it has partitions, as every handler. All that happens to a schedule is recorded in the
shard of its owner, so that each partition is a list of its own, which is kept and fired wherever its lease is.
"""

from collections.abc import Sequence
from contextlib import suppress
from datetime import datetime
from typing import Any

from typing_extensions import override

from uno_actors.clock import Clock, Timer, now_by
from uno_actors.domain.events import DomainEvent
from uno_actors.domain.schedules import Fired, Passed, Scheduled, Unscheduled
from uno_actors.errors import ConcurrencyConflict, InvalidSchedule, StoreUnavailable, UnoError
from uno_actors.handlers.calls import HandlerCalls
from uno_actors.handlers.projection import Projection
from uno_actors.handlers.strategy import HandlesProgress
from uno_actors.handlers.subscription import Subscription
from uno_actors.handlers.view_building import ViewBuilding
from uno_actors.scheduling.entries import (
    Owner,
    ScheduleInfo,
    digest,
    due_step,
    micros,
    owner_of,
    stream_of,
)
from uno_actors.shards import name_in
from uno_actors.store.codec import to_event, to_record
from uno_actors.store.handler_names import partition_name
from uno_actors.store.logs import log_of_position
from uno_actors.store.port import EventStore
from uno_actors.store.records import Append, Appended
from uno_actors.store.view_keys import Key

NAME = "uno_actors.schedules"
"""Name of the handler; on disk."""
SENDER = "uno_actors.scheduler"
"""Name of the handler that sends what this one fires; on disk."""
AT_ONCE = 256
"""Maximum number of commands that are fired in one transaction."""
AHEAD = 1024
"""Commands fired and not sent yet, above which nothing more is fired, so that it can still be unscheduled."""
LOOK = 30.0
"""Maximum seconds between two looks at the clock, whose time of day may have been set."""
AGAIN = 0.1
"""Seconds until another look after a store did not record what was due."""

DUE, BY_ID, BY_KEY, COUNT = "due", "id", "key", "count"
"""The parts of the view; on disk."""


class DueLists:
    """The partitions of the list in one system, or the whole list.

    Args:
        clock: Tells the time of day.

    Attributes:
        parts: By the names of their handlers.
        under_way: Positions of the events that this process has fired and of which it does not know that they are done.
        is_stopping: Whether nothing more is to be fired, since the system stops.
    """

    def __init__(self, clock: Clock) -> None:
        self.clock = clock
        self.parts: dict[str, DueList] = {}
        self.under_way: set[int] = set()
        self.is_stopping = False

    def now(self) -> datetime:
        """The time of day."""
        return now_by(self.clock)

    def done(self, position: int) -> None:
        """Note that this process has sent the command that was fired at ``position``."""
        waits = len(self.under_way) >= AHEAD
        self.under_way.discard(position)
        if waits and len(self.under_way) < AHEAD:
            for part in self.parts.values():
                if part.strategy is not None:
                    part.strategy.look()

    @property
    def at_work(self) -> list["DueList"]:
        """Those that this process keeps."""
        return [
            part for part in self.parts.values() if part.strategy is not None and part.strategy.is_at_work
        ]

    @property
    def has_due(self) -> bool:
        """Whether something is due, or may be, and this process has to fire it."""
        return any(part.has_due for part in self.at_work)

    @property
    def soonest(self) -> datetime | None:
        """When the first entry is due, as far as it is known."""
        return min((part.soonest for part in self.parts.values() if part.soonest is not None), default=None)

    @property
    def waiting(self) -> int:
        """Number of entries."""
        return sum(part.waiting for part in self.parts.values())

    @property
    def fired(self) -> int:
        """Commands fired by this system."""
        return sum(part.fired for part in self.parts.values())

    @property
    def late_seconds(self) -> float:
        """By how much the first entry is late; 0 if none is."""
        return max((part.late_seconds for part in self.parts.values()), default=0.0)


class DueList(Projection[Scheduled | Unscheduled | Fired | Passed]):
    """The handler that keeps what is to be sent, or one of its partitions; see the module.

    Args:
        lists: Has all partitions of a system. Each is a copy of the object that the system was given.

    Attributes:
        soonest: When the first entry is due, as far as it is known.
        waiting: Number of entries.
        fired: Commands fired by this system.
    """

    def __init__(self, lists: DueLists) -> None:
        super().__init__()
        self.lists = lists
        self.soonest: datetime | None = None
        self.knows_soonest = False
        self.waiting = 0
        self.fired = 0
        self.logs = 1
        self.strategy: _Firing | None = None

    def _strategy_of(self, *parts: Any) -> ViewBuilding:
        self.strategy = _Firing(self, *parts)
        return self.strategy

    @override
    def begin(self, store: EventStore, view: str) -> None:
        super().begin(store, view)
        self.logs = store.logs
        self.knows_soonest = False

    @override
    async def handle(self, event: DomainEvent) -> None:
        match event:
            case Scheduled():
                await self._unschedule(owner_of(event), event.key)
                await self._add(ScheduleInfo.of(event))
            case Unscheduled(owner_id=None):
                await self._unschedule(owner_of(event), event.key)
            case Unscheduled():  # an operator's, of this one: another may have taken its key meanwhile
                if (entry := await self.entry(name_in(event.aggregate_id or ""))) is not None:
                    await self._remove(entry)
            case Fired() | Passed():
                entry = await self.entry(event.schedule)
                if entry is not None:
                    await self._remove(entry)
                    if event.next_due is not None:
                        await self._add(entry.at(event.next_due, self._version_after(event, entry)))

    def _version_after(self, event: Fired | Passed, entry: ScheduleInfo) -> int:
        """The number of events in the stream of ``entry`` with ``event``, which another kind of store may have had."""
        is_there = event.aggregate_id == stream_of(entry.id, entry.owner, self.logs).aggregate_id
        return (event.aggregate_version or 0) if is_there else entry.version

    async def entry(self, schedule: str) -> ScheduleInfo | None:
        """The entry of this id."""
        due = await self.view.get((BY_ID, schedule))
        return None if due is None else ScheduleInfo.unpacked(await self.view.get((DUE, due, schedule)))

    async def _unschedule(self, owner: Owner, key: str) -> None:
        schedule = await self.view.get((BY_KEY, digest(owner, key)))
        if schedule is not None and (entry := await self.entry(schedule)) is not None:
            await self._remove(entry)

    async def _add(self, entry: ScheduleInfo) -> None:
        due = micros(entry.due)
        self.view.put((DUE, due, entry.id), entry.packed())
        self.view.put((BY_ID, entry.id), due)
        self.view.put((BY_KEY, digest(entry.owner, entry.key)), entry.id)
        await self._count(1)
        if self.knows_soonest and (self.soonest is None or entry.due < self.soonest):
            self.soonest = entry.due

    async def _remove(self, entry: ScheduleInfo) -> None:
        self.view.delete((DUE, micros(entry.due), entry.id))
        self.view.delete((BY_ID, entry.id))
        self.view.delete((BY_KEY, digest(entry.owner, entry.key)))
        await self._count(-1)
        if entry.due == self.soonest:
            self.knows_soonest = False

    async def _count(self, more: int) -> None:
        self.waiting = await self.view.get((COUNT,), 0) + more
        self.view.put((COUNT,), self.waiting)

    # --- what is due ---

    @property
    def has_due(self) -> bool:
        """Whether something is due, or may be."""
        return not self.knows_soonest or (self.soonest is not None and self.soonest <= self.lists.now())

    @property
    def late_seconds(self) -> float:
        """By how much the first entry is late; 0 if none is."""
        if not self.knows_soonest or self.soonest is None:
            return 0.0
        return max(0.0, (self.lists.now() - self.soonest).total_seconds())

    async def page(self, limit: int) -> list[ScheduleInfo]:
        """The first entries by due time."""
        found: list[tuple[Key, Any]] = await self.view.range(DUE, limit=limit)
        return [ScheduleInfo.unpacked(packed) for _, packed in found]


class _Firing(ViewBuilding):
    """Goes through the events as any projection, and records what is due when there are none."""

    def __init__(
        self,
        due: DueList,
        subscription: Subscription,
        store: EventStore,
        router: HandlesProgress,
        calls: HandlerCalls,
    ) -> None:
        super().__init__(due, subscription, store, router, calls)
        due.lists.parts[subscription.name] = due
        self._due = due
        self._lists = due.lists
        self._fired_until = 0  # position of the last event that this process has fired
        self._unreadable: set[str] = set()
        self._timer: Timer | None = None

    @property
    def is_at_work(self) -> bool:
        """Whether this process fires what is due."""
        return self._subscription.at_work and not self._lists.is_stopping

    @override
    async def work(self) -> bool:
        if await super().work():
            return True
        if not self._subscription.live or self._lists.is_stopping:
            return False
        if self._subscription.progress.position < self._fired_until:
            return False  # it comes back from the log, and with it the next look
        return await self._fire()

    async def _fire(self) -> bool:
        """Fire what is due; return whether something was."""
        due = self._due
        if not due.knows_soonest:
            first = await self._readable(1)
            due.soonest = first[0].due if first else None
            due.waiting = await due.view.get((COUNT,), 0)
            due.knows_soonest = True
        now = self._lists.now()
        if due.soonest is None or due.soonest > now:
            self._look_in(LOOK if due.soonest is None else (due.soonest - now).total_seconds())
            return False
        if await self._is_far_ahead():
            self._look_in(AGAIN)
            return False
        if not await self._may_begin():
            return False
        page = [entry for entry in await self._readable(AT_ONCE) if entry.due <= now]
        requests = [*filter(None, [await self._request(entry, now) for entry in page])]
        if not requests:  # none of them can be sent: look when the next one is due
            due.knows_soonest = False
            return True
        return self._has_fired(await self._commit(requests))

    async def _readable(self, limit: int) -> list[ScheduleInfo]:
        """The first entries by due time, without those that are known to be unreadable."""
        page = await self._due.page(limit + len(self._unreadable))
        return [entry for entry in page if entry.id not in self._unreadable]

    async def _commit(self, requests: Sequence[Append]) -> Sequence[Appended | UnoError]:
        with suppress(StoreUnavailable):
            return await self._store.commit(requests)
        return ()

    def _has_fired(self, outcomes: Sequence[Appended | UnoError]) -> bool:
        """Take the outcomes. After a conflict the list has not seen all of the log yet: it looks again soon."""
        for outcome in outcomes:
            if isinstance(outcome, Appended):
                self._due.fired += 1
                if outcome.records[0].event_type == Fired.type_name():
                    self._lists.under_way.update(outcome.positions)
                self._fired_until = max(self._fired_until, *outcome.positions)
            elif not isinstance(outcome, ConcurrencyConflict):
                self._subscription.logger.error("what is due cannot be recorded yet", exc_info=outcome)
        if not self._fired_until > self._subscription.progress.position:
            self._look_in(AGAIN)
        return False

    async def _is_far_ahead(self) -> bool:
        """Whether the sender, here or in another process, has to catch up first."""
        under_way, subscription = self._lists.under_way, self._subscription
        if len(under_way) >= AHEAD:
            name, log = SENDER, log_of_position(subscription.log_start)
            if subscription.partition is not None:
                name = partition_name(SENDER, subscription.partition, subscription.spec.partitions)
            done = (await self._store.checkpoints()).get(name, 0)
            under_way -= {at for at in under_way if at <= done and log_of_position(at) == log}
        return len(under_way) >= AHEAD

    async def _request(self, entry: ScheduleInfo, now: datetime) -> Append | None:
        try:
            event = await self._known(entry) or due_step(entry, now)
        except InvalidSchedule as error:
            self._unsendable(entry, error)
            return None
        stream = stream_of(entry.id, entry.owner, self._due.logs)
        place = event.stamped(aggregate_id=stream.aggregate_id, aggregate_version=entry.version + 1)
        return Append((to_record(place),), entry.version)

    async def _known(self, entry: ScheduleInfo) -> Passed | None:
        """What happened to ``entry`` in a store with one log from which this one was copied; it is in another log here.

        It is recorded again beside the schedule, where the list sees it.
        """
        if self._due.logs == 1 or entry.version:
            return None
        stream = stream_of(entry.id, entry.owner, 1)
        version = await self._store.last_version(stream)
        if not version:
            return None
        ((position, record),) = await self._store.read_stream(stream, version - 1, 1)
        last = to_event(record, self._store.event_registry, position)
        return entry.passed(entry.due, getattr(last, "next_due", None))

    def _unsendable(self, entry: ScheduleInfo, error: InvalidSchedule) -> None:
        self._unreadable.add(entry.id)
        self._subscription.logger.error("scheduled command cannot be sent", schedule=entry.id, exc_info=error)

    def _look_in(self, seconds: float) -> None:
        """Look again in ``seconds``, or earlier."""
        if self._timer is not None:
            self._timer.cancel()
        self._timer = self._lists.clock.call_later(min(max(seconds, 0.001), LOOK), self.look)

    def look(self) -> None:
        """Look now whether something is due."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if self.is_at_work:
            self._subscription.wake()
