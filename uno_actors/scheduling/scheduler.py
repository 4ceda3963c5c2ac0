"""The scheduler of a system: its two handlers, started when the store has schedules."""

from collections.abc import Awaitable, Callable, Coroutine
from datetime import datetime
from functools import partial
from typing import Any, NamedTuple

from uno_actors.aggregates.journal import Journal
from uno_actors.aggregates.schedules_mark import has_schedules, mark
from uno_actors.backoff import Backoff, chance
from uno_actors.clock import Clock, Timer
from uno_actors.domain.aggregate import AggregateRoot
from uno_actors.domain.schedules import Fired, Passed, Scheduled, Unscheduled
from uno_actors.handlers.partitions import partitions_of
from uno_actors.handlers.spec import HandlerSpec
from uno_actors.logs import Logger
from uno_actors.scheduling import due_list, sender
from uno_actors.scheduling.due_list import DueList, DueLists
from uno_actors.scheduling.sender import Sender
from uno_actors.store.port import EventStore
from uno_actors.supervision.spec import ChildSpec, Supervisor
from uno_actors.units import rounded

SUPERVISOR = "uno_actors.scheduling"
"""Name of the supervisor of the two handlers."""
LOOK = 10.0
"""Seconds between looks whether another process has begun to schedule commands on the store."""
BACKOFF = Backoff()
"""Until the handlers are started again that could not be, such as while the store is full."""


class SchedulerStatistics(NamedTuple):
    """What the scheduler of a system has done since the system started.

    Attributes:
        runs: Whether this system keeps the list of what is to be sent, or a part; another one may do it instead.
        waiting: Commands in the list.
        late_seconds: By how much the first of them is late; 0 if none is.
        fired: Commands that were due and that this system has recorded as such.
        sent: Commands that this system has sent and that have taken effect.
        failed: Attempts to send one that failed.
        rejected: Commands that this system has sent and that their aggregates have rejected.
    """

    runs: bool = False
    waiting: int = 0
    late_seconds: float = 0.0
    fired: int = 0
    sent: int = 0
    failed: int = 0
    rejected: int = 0


class Scheduler:
    """The scheduler of a system. Lives on the event loop.

    Args:
        wanted: Whether to run it: always, never, or ``None`` for as soon as the store has schedules.
        store: The system's.
        clock: The system's.
        types: The aggregate classes that the system serves; the mapping may grow.
        start: Starts a supervisor.
        start_task: Runs a coroutine as a task.
        log: The system's.
    """

    def __init__(
        self,
        wanted: bool | None,
        store: EventStore,
        clock: Clock,
        types: dict[str, type[AggregateRoot]],
        *,
        start: Callable[[Supervisor], Awaitable[None]],
        start_task: Callable[[Coroutine[Any, Any, Any]], object],
        log: Logger,
    ) -> None:
        self._wanted = wanted
        self._store = store
        self._clock = clock
        self._start = start
        self._start_task = start_task
        self._log = log.bind(actor="scheduler")
        self._due = DueLists(clock)
        self._sender = Sender(lambda: types, self._due.done)
        self._has_begun = self._is_starting = False
        self._timer: Timer | None = None
        self._journal: Journal | None = None

    @property
    def supervisor(self) -> Supervisor:
        """The supervisor of its handlers."""
        logs = self._store.logs
        handlers = (
            HandlerSpec(
                due_list.NAME,
                DueList(self._due),
                event_type=(Scheduled, Unscheduled, Fired, Passed),
                partitioned=logs > 1,
            ),
            HandlerSpec(
                due_list.SENDER,
                self._sender,
                event_type=Fired,
                start="earliest",
                concurrency=max(1, sender.AT_ONCE // logs),
                partitioned=logs > 1,
            ),
        )
        children = [ChildSpec(part, part.name) for each in handlers for part in partitions_of(each, logs)]
        return Supervisor(SUPERVISOR, children, max_restarts=None)

    async def begin(self, journal: Journal) -> list[Supervisor]:
        """What to start with the system; from now on ``journal`` asks before it records the first schedule."""
        self._journal = journal
        if self._wanted is False:
            journal.before_schedules = self._mark
            return []
        if self._wanted or await has_schedules(self._store):
            self._has_begun = True
            journal.before_schedules = None if self._wanted is None else self._mark
            return [self.supervisor]
        journal.before_schedules = self.use
        self._look_later()
        return []

    async def use(self) -> None:
        """Mark the store before the first schedule is recorded, and have the handlers started if this system runs them.

        Raises:
            StoreUnavailable, StoreFull: The mark cannot be made.
        """
        await self._mark()
        self._begin_later()

    def stop(self) -> None:
        """Fire nothing more."""
        self._due.is_stopping = True
        self._is_starting = False
        self.close()

    def close(self) -> None:
        """Look at nothing any more."""
        if self._timer is not None:
            self._timer.cancel()

    @property
    def has_due(self) -> bool:
        """Whether this system is about to fire something, or may be."""
        return self._is_starting or (self._has_begun and self._due.has_due)

    @property
    def next_due(self) -> datetime | None:
        """When the next command is to be sent, as far as this system knows; ``None`` if nothing is scheduled."""
        return self._due.soonest if self._due.waiting else None

    def statistics(self) -> SchedulerStatistics:
        """See `SchedulerStatistics`."""
        return SchedulerStatistics(
            runs=bool(self._due.at_work),
            waiting=self._due.waiting,
            late_seconds=self._due.late_seconds,
            fired=self._due.fired,
            sent=self._sender.counts.sent,
            failed=self._sender.counts.failed,
            rejected=self._sender.counts.rejected,
        )

    async def _mark(self) -> None:
        await mark(self._store)
        if self._journal is not None:
            self._journal.before_schedules = None

    def _begin_later(self) -> None:
        if self._wanted is False or self._has_begun:
            return
        self._has_begun = self._is_starting = True
        self.close()
        self._start_task(self._begin())

    async def _begin(self, failures: int = 0) -> None:
        try:
            await self._start(self.supervisor)
        except Exception as error:  # noqa: BLE001 - the start of a handler may raise anything
            if self._due.is_stopping:
                return
            seconds = BACKOFF.delay(failures, chance())
            self._log.error(
                "scheduler cannot start, and tries again", seconds=rounded(seconds), exc_info=error
            )
            again = partial(self._begin, failures + 1)
            self._timer = self._clock.call_later(seconds, lambda: self._start_task(again()))
        else:
            self._is_starting = False

    def _look_later(self) -> None:
        if self._store.is_durable:
            self._timer = self._clock.call_later(LOOK, lambda: self._start_task(self._look()))

    async def _look(self) -> None:
        if self._has_begun:
            return
        try:
            found = await has_schedules(self._store)
        except Exception as error:  # noqa: BLE001 - whatever the store raises, it may work again
            self._log.warning("cannot look for schedules", exc_info=error)
            found = False
        if found:
            self._begin_later()
        else:
            self._look_later()
