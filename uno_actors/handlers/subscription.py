"""A handler as the router sees it: its state, its queue, and everything that outlives a restart of its actor.

A handler is *live* while the router hands it events from memory. When it fails, is restarted, exceeds its turn or has
too many events waiting, it *catches up*: it reads the log by itself from its position, and is live again at the end of
the log. So a handler that cannot keep up costs no memory and delays no other. While another process has the lease of
its name, it is on *standby*: it handles nothing and moves no checkpoint. While it is *handing over*, it begins no event
and still has the lease, until the event that it is handling is done and its checkpoint is saved.
"""

import asyncio
from collections import deque
from collections.abc import Callable, Hashable, Iterable, Iterator, Sequence
from contextvars import Context
from dataclasses import dataclass
from typing import Any, Literal

from typing_extensions import override

from uno_actors.clock import Clock
from uno_actors.domain.events import DomainEvent, EventRegistry
from uno_actors.domain.exactness import is_exact
from uno_actors.handlers.failures import FailedEvent, Failures
from uno_actors.handlers.partitions import log_of_partition, processes_in, shards_of_event
from uno_actors.handlers.progress import Progress
from uno_actors.handlers.requests import PendingRequests, Requests
from uno_actors.handlers.resources import Resources
from uno_actors.handlers.spec import HandlerSpec
from uno_actors.handlers.view import aside_key
from uno_actors.logs import Logger, get_logger
from uno_actors.store.codec import Record, to_event
from uno_actors.store.logs import start_of
from uno_actors.store.port import Lease
from uno_actors.store.records import StoredRecord, ViewChange

CAPACITY = 2048
"""Deliveries that may wait for one handler before it must read the log by itself. More than an ordinary burst of
commands, which quick handlers would otherwise read and decode a second time; less than the router's window."""

HandlerState = Literal["live", "catching up", "restarting", "handing over", "standby", "stopped"]


class Delivery:
    """One recorded event on its way to handlers, decoded when the first of them wants it.

    A mutable event is decoded for each handler, so no handler sees changes that another made.

    Attributes:
        context: The context of the message that caused it; ``None`` if it is read by a handler that catches up.
    """

    __slots__ = ("_event", "context", "position", "record", "since", "tier", "tiers", "waiting")

    def __init__(self, stored: StoredRecord) -> None:
        self.position, self.record = stored
        self.context: Context | None = None
        self.tiers: Sequence[Sequence[Subscription]] = ()
        self.tier = 0
        self.since = 0.0  # when it came to the present tier
        self.waiting = 0  # handlers of the present tier that are not done with it
        self._event: DomainEvent | None = None

    def event(self, registry: EventRegistry) -> DomainEvent:
        """The event.

        Raises:
            UnknownEventType, EventNotReadable, CorruptRecord: It cannot be decoded.
        """
        if self._event is not None:
            return self._event
        event = to_event(self.record, registry, self.position)
        if is_exact(event):
            self._event = event
        return event


class _NoLease(Lease):
    @override
    async def release(self) -> None:
        pass


NO_LEASE = _NoLease()
"""In the place of a lease, where there is none to lose."""

DeliveryDone = Callable[[Delivery], None]
"""The router's side: one handler is done with a delivery, or gives up its turn."""


@dataclass(frozen=True, slots=True)
class HandlerStatistics:
    """The state and counters of one handler since the system started.

    Attributes:
        state: ``live``, ``catching up``, ``restarting``, ``paused``, ``stopped``, ``standby`` while another process
            has the handler's lease, or ``handing over`` before that.
        position: All events of the log up to here are done.
        waiting: Deliveries in its queue.
        handled: Events handled.
        failures: Attempts that failed.
        restarts: Restarts by its supervisor.
        dead_letters: Events set aside.
    """

    state: HandlerState | Literal["paused"]
    position: int
    waiting: int
    handled: int
    failures: int
    restarts: int
    dead_letters: int


class Subscription:
    """One handler: its state machine and its queue; `progress`, `failures` and `requests` keep the rest.

    Lives on the event loop; other threads do not touch it. Only its own methods change its state. The class is long
    because a state machine is read best in one place; its methods are a few lines each.

    Args:
        spec: What it subscribes to.
        position: All events up to here are done.
        registry: Finds the classes of events.
        clock: Measures how long an event is being handled.
        live: Whether it starts live; otherwise it catches up first.
        logs: The number of logs of the store.
        logger: Has the names of the system bound.

    Attributes:
        log: The log that it reads.
        is_filtered: Whether it is a partition, and others read the same log.
    """

    def __init__(
        self,
        spec: HandlerSpec,
        position: int,
        registry: EventRegistry,
        clock: Clock,
        *,
        live: bool = False,
        logs: int = 1,
        logger: Logger | None = None,
    ) -> None:
        self.spec = spec
        self.name = spec.name
        self.logger = (logger or get_logger()).bind(actor=spec.name, handler=spec.name)
        self.partition = spec.partition  # counted from 1; None if it gets all events
        self._partitions = spec.partitions
        self.logs = logs
        self.log = log_of_partition(spec.partition, logs)
        self.is_filtered = spec.partition is not None and spec.partitions != logs
        # The checkpoint of a projection is that of the view it builds, which its actor looks up.
        self.progress = Progress(position, "" if spec.keeps_a_view else spec.name)
        self.failures = Failures()
        self.requests = PendingRequests()
        self.lease: Lease = NO_LEASE
        self.resources: Resources | None = None  # of its own, while a system runs it
        self.leased = True  # if false, only another process may move the position, even after a stop
        self.queue: deque[Delivery] = deque()
        self.under_way: dict[int, Delivery] = {}  # taken from the queue, and the router waits for them
        self.overdue: set[asyncio.Future[Any]] = set()  # calls on threads that took too long
        self.threads: set[int] = set()  # worker threads that run a plain function of it
        self.handled = 0
        self.restarts = 0
        self.began: int | None = None  # the position after which it began, if it was new in this process
        self.dead_letters = 0
        self.aside: set[int] = set()  # positions of its dead letters, as far as `knows_aside`
        self.knows_aside = False  # those of earlier runs too
        self.is_shown = True  # readers get what it writes; not while it builds a view that is not published
        self.changed: Callable[[], None] = _ignore  # it may not handle events now, or may again
        self.turns = 0  # of its actor that are under way: it may write under the lease
        self.wake: Callable[[], None] = _ignore
        self.arrived: Callable[[], None] = _ignore  # there is more to take, while it is at work
        self.give_back: DeliveryDone = _not_counted
        self._state: HandlerState = "live" if live else "catching up"
        self._begun: dict[int, float] = {}  # when, of those begun and not done, the oldest first
        self._registry = registry
        self._clock = clock

    # --- its state ---

    @property
    def state(self) -> HandlerState:
        """See the module."""
        return self._state

    @property
    def live(self) -> bool:
        """Whether the router hands it events."""
        return self._state == "live"

    @property
    def at_work(self) -> bool:
        """Whether it handles events and requests now."""
        return not self.requests.paused and self._state in ("live", "catching up")

    @property
    def may_continue(self) -> bool:
        """Whether it handles the next event now."""
        return self.at_work and not self.requests

    @property
    def obstacle(self) -> Literal["paused", "stopped"] | None:
        """What keeps it from handling events here until someone acts; ``None`` if nothing does.

        A handler that is restarting, or that has a lease to wait for, comes back by itself.
        """
        if self._state == "stopped":
            return "stopped"
        return "paused" if self.requests.paused and self._state != "standby" else None

    @property
    def idle(self) -> bool:
        """Whether it is live with nothing under way: all events dispatched to it are done."""
        return self._state == "live" and not self.queue and not self.progress.pending

    @property
    def busy_at(self) -> int | None:
        """Position of the event that it has been handling longest."""
        return next(iter(self._begun), None)

    @property
    def busy_since(self) -> float | None:
        """When it started the event that it has been handling longest."""
        return next(iter(self._begun.values()), None)

    def go_live(self) -> None:
        """Go live: it has read the log to its end."""
        self._state = "live"

    def fall_behind(self, state: HandlerState = "catching up") -> None:
        """Give up its turn for all waiting events; it reads them from the log later.

        If it catches up, the call under way continues: it is `busy_at` that event until the call ends.
        """
        self._state = state
        waiting = [*self.under_way.values(), *self.queue]
        self.under_way.clear()
        if state != "catching up":
            self._begun.clear()
        self.queue = deque()
        self.arrived()
        self.changed()
        for delivery in waiting:
            self.give_back(delivery)

    def step_aside(self, dispatched: int, state: HandlerState = "catching up") -> None:
        """Give up its turn between two events; ``dispatched`` as for `checkpoint`."""
        self.progress.position = self.checkpoint(dispatched)
        self.fall_behind(state)

    def stop(self, dispatched: int) -> None:
        """Handle no more events, even waiting ones; ``dispatched`` as for `checkpoint`."""
        self.step_aside(dispatched, "stopped")

    def start_again(self) -> None:
        """Continue from its position after it was stopped."""
        self.release()
        self.progress.taken = self.progress.position
        self._state = "catching up" if self.leased else "standby"

    def has_started(self, dispatched: int) -> None:
        """Note that its actor runs: with nothing to read it is live at once; ``dispatched`` as for `checkpoint`.

        Not a projection: it publishes its view first. Not one with dependencies: what it depends on is opened first.
        """
        waits = self.spec.keeps_a_view or self.spec.keeps_progress
        waits = waits or (self.resources is not None and bool(self.resources.needs))
        if self.at_work and not waits and self.progress.position >= dispatched:
            self._state = "live"
        self.wake()

    def recover(self) -> None:
        """Note that its actor runs again after a failure."""
        if self._state == "restarting":
            self._state = "catching up"

    @property
    def may_hand_over(self) -> bool:
        """Whether it may be given to another process: no attempts at an event are counted that would be forgotten."""
        return self._state in ("live", "catching up", "handing over") and not self.failures.any_counted

    @property
    def is_at_rest(self) -> bool:
        """Whether nothing is under way that may write under the lease."""
        return not self.turns and not self.overdue

    def hand_over(self, dispatched: int) -> None:
        """Begin no event any more, to give the handler to another process; ``dispatched`` as for `checkpoint`."""
        self.step_aside(dispatched, "handing over")

    def stay(self) -> None:
        """Continue here after all."""
        if self._state == "handing over":
            self._state = "catching up"
            self.wake()

    def stand_by(self) -> None:
        """Stand by: another process runs the handler, and owns everything that is stored.

        A call that is under way is finished, since a plain function cannot be stopped; what it has done is not saved.
        """
        self.leased = False
        self.requests.clear()
        self.fall_behind("stopped" if self._state == "stopped" else "standby")
        if self._state == "standby" and self.resources is not None and self.resources.is_open:
            self.wake()  # to close them

    def take_over(self, position: int) -> None:
        """Take over with the lease: continue after ``position``, where the other process ended.

        A projection continues from its view.
        """
        self.leased = True
        self.progress.saved = None
        self.aside.clear()
        self.knows_aside = False
        if self.spec.keeps_a_view:
            position, self.progress.checkpoint = self.log_start, ""
        self.move_to(position)
        self._state = "catching up"
        self.wake()

    @property
    def log_start(self) -> int:
        """The position before the first event of its log."""
        return start_of(self.log, self.logs)

    # --- what it wants ---

    def wants(self, record: Record) -> bool:
        """Whether it subscribes to the event."""
        pattern = self.spec.topic_pattern
        if pattern is not None and (record.topic is None or not pattern.matches(record.topic)):
            return False
        return self.wants_type(record.event_type, record.aggregate_type)

    @property
    def keys(self) -> object:
        """What its events are partitioned by: the same object for all partitions of a handler."""
        return self.spec.target if self.logs == 1 else None

    def shards_of(self, stored: "StoredRecord | Delivery") -> tuple[int, ...]:
        """The shards of an event, by the key of this handler: one, or one for each process of a process manager."""
        record = stored.record
        return shards_of_event(self.keys, record, lambda: to_event(record, self._registry, stored.position))

    def has_shard(self, shards: Iterable[int]) -> bool:
        """Whether events with one of these shards belong to this partition."""
        if not self.is_filtered:
            return True
        partition = (self.partition or 0) - 1
        return any(shard % self._partitions == partition for shard in shards)

    def orders(self, delivery: Delivery) -> tuple[Hashable, ...]:
        """The keys of the orders that an event is in: those of its processes, or that of its aggregate."""
        processes = processes_in(self.spec.target, delivery.record, lambda: delivery.event(self._registry))
        return (delivery.record.stream,) if processes is None else processes

    def wanted(self, page: Iterable[StoredRecord]) -> Iterator[StoredRecord]:
        """The events of ``page`` that it subscribes to; each kind of event is looked up once."""
        known: dict[tuple[str, str | None, str | None], bool] = {}
        for stored in page:
            record = stored.record
            kind = record.event_type, record.aggregate_type, record.topic
            wants = known.get(kind)
            if wants is None:
                wants = known[kind] = self.wants(record)
            if wants and (not self.is_filtered or self.has_shard(self.shards_of(stored))):
                yield stored

    def wants_type(self, event_type: str, aggregate_type: str | None) -> bool:
        """Whether it subscribes to events recorded under this name, of aggregates of this type."""
        if self.spec.aggregate_type not in (None, aggregate_type):
            return False
        wanted = self.spec.event_type
        kinds = wanted if isinstance(wanted, tuple) else (wanted,)
        return wanted is None or any(
            self._registry.covers(kind, event_type, aggregate_type) for kind in kinds if kind
        )

    # --- its deliveries ---

    def offer(self, delivery: Delivery) -> bool:
        """Take ``delivery`` if it is live and has not had it; with a full queue it falls behind instead."""
        progress = self.progress
        if self._state != "live" or delivery.position <= progress.position:
            return False
        if len(self.queue) >= CAPACITY:
            self.fall_behind()
            return False
        if not self.queue and not progress.pending:
            progress.position = delivery.position - 1  # nothing before it was for this handler
            self.wake()
        self.queue.append(delivery)
        self.arrived()
        return True

    def holds(self, delivery: Delivery) -> bool:
        """Whether the router waits for it to handle ``delivery``."""
        return delivery.position in self.under_way or delivery in self.queue

    def begin(self, batch: Sequence[Delivery]) -> None:
        """Note that it is about to handle ``batch``, taken from its queue or from the log."""
        self.take(batch)
        self.start(batch[0])

    def take(self, batch: Sequence[Delivery]) -> None:
        """Note that it has taken ``batch`` from its queue or from the log."""
        pending = self.progress.pending
        for delivery in batch:
            pending[delivery.position] = None
            if self._state == "live":
                self.under_way[delivery.position] = delivery
        self.progress.taken = batch[-1].position

    def start(self, delivery: Delivery) -> None:
        """Note that it is about to handle an event that it took."""
        self._begun[delivery.position] = self._clock.monotonic()
        if self.failures.any_counted and delivery.context is None:
            delivery.context = self.failures.context(delivery.position)

    def finish(self, position: int) -> None:
        """Note that the call for the event at ``position`` has ended."""
        self._begun.pop(position, None)

    def done(self, delivery: Delivery) -> None:
        """Note that it has handled one of the events that it took."""
        position = delivery.position
        self.handled += 1
        self.finish(position)
        self.leave(position)
        if (
            given := self.under_way.pop(position, None)
        ) is not None:  # otherwise it fell behind in the meantime
            self.give_back(given)

    def done_alone(self, delivery: Delivery) -> None:
        """As `done`, for the only event that it took."""
        self.handled += 1
        self._begun.clear()
        self.failures.forget(delivery.position)
        progress = self.progress
        progress.pending.clear()
        progress.position = delivery.position
        if self.under_way:  # otherwise it fell behind in the meantime
            self.under_way.clear()
            self.give_back(delivery)

    def leave(self, position: int) -> None:
        """Note that the event at ``position`` was handled or set aside."""
        self.failures.forget(position)
        self.progress.finish(position)

    def release(self) -> None:
        """Note that it handles no event now; the caller puts back events that were taken and not handled."""
        self.under_way.clear()
        self.progress.pending.clear()
        self._begun.clear()

    def move_to(self, position: int) -> None:
        """Continue after ``position`` because of a reset, and forget everything about events."""
        self.release()
        self.progress.move_to(position)
        self.failures.clear()

    # --- failures and requests ---

    def failed(self, position: int, context: Context | None = None) -> FailedEvent:
        """Note that an attempt at the event at ``position`` has failed, and that its actor fails with it."""
        failed = self.failures.count(position, context)
        self.fail()
        return failed

    def fail(self) -> None:
        """Note that its actor is about to fail because of an event."""
        self.fall_behind(self._state if self._state in ("stopped", "standby") else "restarting")

    def changes_aside(self, position: int) -> list[ViewChange]:
        """Return the changes that mark the event at ``position`` as set aside in a view."""
        if not self.spec.keeps_a_view:
            return []
        return [ViewChange(self.progress.checkpoint, aside_key(position), b"")]

    def take_requests(self, requests: Requests, dispatched: int) -> None:
        """Carry out ``requests`` after the event that is being handled; ``dispatched`` as for `checkpoint`."""
        if self.requests.is_known(requests):
            return
        if requests.paused and self.live:
            self.step_aside(dispatched)
        self.requests.take(requests)
        self.arrived()
        self.changed()
        self.wake()

    def retried(self, position: int) -> None:
        """Note that the attempt at a dead letter is over."""
        self.failures.forget(position)
        self.requests.was_retried(position)

    # --- for others to read ---

    def checkpoint(self, dispatched: int) -> int:
        """Return the position up to which all events are done, if the router has dispatched up to ``dispatched``."""
        position = self.progress.position
        return max(position, dispatched) if self.idle else position

    def statistics(self, dispatched: int) -> HandlerStatistics:
        """See `HandlerStatistics`; ``dispatched`` as for `checkpoint`."""
        paused = self.requests.paused and self._state not in ("stopped", "standby")
        return HandlerStatistics(
            state="paused" if paused else self._state,
            position=self.checkpoint(dispatched),
            waiting=len(self.queue),
            handled=self.handled,
            failures=self.failures.total,
            restarts=self.restarts,
            dead_letters=self.dead_letters,
        )


def _ignore() -> None:
    """The wake-up of a subscription whose actor has not started."""


def _not_counted(_: Delivery) -> None:
    """The give-back of a subscription that no router serves."""
