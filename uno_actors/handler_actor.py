"""The actor that runs one event handler, and what the router knows of it.

A handler is *live* while the router hands it events from memory. When it fails, is restarted, is slow beyond
its turn or has too much waiting, it *catches up*: it reads the log by itself from where it stands, and is
live again when it has reached the end. So a handler that cannot keep up costs no memory and delays nobody.
While another process has the lease of its name it is on *standby*: it takes nothing and moves nothing.
"""

import asyncio
import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from types import CoroutineType
from typing import TYPE_CHECKING, Literal, Protocol

from typing_extensions import override

from uno_actors.actor import Actor
from uno_actors.causality import caused_by
from uno_actors.clock import Clock
from uno_actors.codec import Record, to_event
from uno_actors.dispatcher import Dispatcher
from uno_actors.events import DomainEvent, EventRegistry
from uno_actors.handlers import BoundHandler, HandlerContext, HandlerSpec
from uno_actors.log import get_logger
from uno_actors.store import PAGE, EventStore, StoredRecord

if TYPE_CHECKING:
    from uno_actors.system import ActorSystem

CAPACITY = 1000
"""Deliveries that may wait for one handler before it must read the log by itself."""
BATCH = 64
"""Events that a plain function handles in one visit to a worker thread, if it is quick."""
BATCH_SECONDS = 0.01
"""After this time a worker thread comes back, so that lower priorities do not wait for a whole batch."""

State = Literal["live", "catching up", "restarting", "standby", "stopped"]


class Delivery:
    """One recorded event on its way to handlers; decoded at most once, and only if one wants it."""

    __slots__ = ("_event", "position", "record", "since", "tier", "tiers", "waiting")

    def __init__(self, stored: StoredRecord) -> None:
        self.position, self.record = stored
        self.tiers: tuple[list[Subscription], ...] = ()
        self.tier = 0
        self.since = 0.0  # when it came to the present tier
        self.waiting = 0  # handlers of the present tier that have not done with it
        self._event: DomainEvent | None = None

    def event(self, registry: EventRegistry) -> DomainEvent:
        """The event.

        Raises:
            UnknownEventType, EventNotReadable, CorruptRecord: It cannot be decoded.
        """
        if self._event is None:
            self._event = to_event(self.record, registry)
        return self._event


DeliveryDone = Callable[[Delivery], None]
"""The router's side: one handler has done with a delivery or gives up its turn."""


@dataclass(frozen=True, slots=True)
class HandlerStatistics:
    """What one handler has done since the system started.

    Attributes:
        state: ``live``, ``catching up``, ``restarting``, ``stopped``, or ``standby`` while another process has the
            handler's lease.
        position: It has done with everything in the log up to here.
        waiting: Deliveries in its queue.
        handled: Events handled.
        failures: Attempts that failed.
        restarts: Restarts by its supervisor.
        dead_letters: Events set aside.
    """

    state: State
    position: int
    waiting: int
    handled: int
    failures: int
    restarts: int
    dead_letters: int


class Subscription:
    """A handler as the router sees it, and all that must outlive a restart of its actor.

    Lives on the event loop; nothing here is touched from another thread.
    """

    def __init__(
        self, spec: HandlerSpec, position: int, registry: EventRegistry, clock: Clock, *, live: bool
    ) -> None:
        self.spec = spec
        self.name = spec.name
        self.position = position  # done with everything up to here, matching or not
        self.state: State = "live" if live else "catching up"
        self.leased = True  # else its position is another process's to move, also when it was stopped
        self.queue: deque[Delivery] = deque()
        self.under_way: deque[Delivery] = deque()  # taken from the queue, and the router waits for them
        self.busy_since: float | None = None
        self.failed_at = 0  # position of the last failure
        self.failed_times = 0  # failures of the event there
        self.first_failed = datetime.min.replace(tzinfo=UTC)
        self.handled = 0
        self.failures = 0
        self.restarts = 0
        self.dead_letters = 0
        self.wake: Callable[[], None] = _nobody_waits
        self.give_back: DeliveryDone = _not_counted
        self._registry = registry
        self._clock = clock

    @property
    def live(self) -> bool:
        """Whether the router hands it events."""
        return self.state == "live"

    @property
    def idle(self) -> bool:
        """Live, with nothing under way: everything dispatched to it is done."""
        return self.live and not self.queue and not self.under_way

    def wants(self, record: Record) -> bool:
        """Whether the event is one of those it subscribed to."""
        pattern = self.spec.topic_pattern
        if pattern is not None and (record.topic is None or not pattern.matches(record.topic)):
            return False
        return self.wants_type(record.event_type)

    def wants_type(self, event_type: str) -> bool:
        """Whether events recorded under this name are of the class it subscribed to."""
        wanted = self.spec.event_type
        kinds = wanted if isinstance(wanted, tuple) else (wanted,)
        return wanted is None or any(event_type in self._registry.names_of(kind) for kind in kinds if kind)

    def stand_by(self) -> None:
        """Another process is active under its name."""
        self.leased = False
        self.state = "standby"

    def take_over(self, position: int) -> None:
        """The lease is ours: go on from ``position``, where the other has left off."""
        self.leased = True
        self.position = position
        self.state = "catching up"
        self.wake()

    def offer(self, delivery: Delivery) -> bool:
        """Take ``delivery`` if it is live and has not had it; a full queue makes it fall behind instead."""
        if not self.live or delivery.position <= self.position:
            return False
        if len(self.queue) >= CAPACITY:
            self.fall_behind()
            return False
        if self.idle:
            self.position = delivery.position - 1  # nothing before it was for this handler
            self.wake()
        self.queue.append(delivery)
        return True

    def fall_behind(self, state: State = "catching up") -> None:
        """Give up its turn for all that waits; it will read it from the log."""
        self.state = state
        self.busy_since = None
        waiting = [*self.under_way, *self.queue]
        self.under_way.clear()
        self.queue = deque()
        for delivery in waiting:
            self.give_back(delivery)

    def stop(self, dispatched: int) -> None:
        """Handle nothing more, whatever waits; ``dispatched`` as for `checkpoint`."""
        self.position = self.checkpoint(dispatched)
        self.fall_behind("stopped")

    def holds(self, delivery: Delivery) -> bool:
        """Whether the router waits for it to handle ``delivery``."""
        return delivery in self.under_way or delivery in self.queue

    def begin(self, batch: Sequence[Delivery]) -> None:
        """It is about to handle ``batch``, which it took from its queue or from the log."""
        self.busy_since = self._clock.monotonic()
        if self.live:
            self.under_way.extend(batch)

    def done(self, delivery: Delivery) -> None:
        """It has handled the next event of the batch."""
        self.handled += 1
        self.position = delivery.position
        if self.under_way:  # else it fell behind meanwhile and has given it back
            self.give_back(self.under_way.popleft())

    def end(self) -> None:
        """The batch is over; what was not handled is the caller's to put back."""
        self.busy_since = None
        self.under_way.clear()

    def attempt(self, position: int) -> int:
        """Which attempt at the event at ``position`` the next one is, from 1."""
        return self.failed_times + 1 if position == self.failed_at else 1

    def failed(self, position: int) -> None:
        """The attempt at the event at ``position`` has failed."""
        self.failures += 1
        if position != self.failed_at:
            self.failed_at, self.failed_times, self.first_failed = position, 0, datetime.now(UTC)
        self.failed_times += 1
        self.fall_behind("stopped" if self.state == "stopped" else "restarting")

    def checkpoint(self, dispatched: int) -> int:
        """It has done with everything up to here, given that the router has handed out up to ``dispatched``."""
        return max(self.position, dispatched) if self.idle else self.position

    def statistics(self, dispatched: int) -> HandlerStatistics:
        """See `HandlerStatistics`; ``dispatched`` as for `checkpoint`."""
        return HandlerStatistics(
            state=self.state,
            position=self.checkpoint(dispatched),
            waiting=len(self.queue),
            handled=self.handled,
            failures=self.failures,
            restarts=self.restarts,
            dead_letters=self.dead_letters,
        )


def _nobody_waits() -> None:
    """The wake-up of a subscription whose actor has not started."""


def _not_counted(_: Delivery) -> None:
    """The give-back of a subscription that no router serves."""


class HandlesProgress(Protocol):
    """What a handler actor needs of the router."""

    def dispatched(self, subscription: Subscription) -> int:
        """The position up to which events have been handed out to handlers of its priority."""

    def progressed(self) -> None:
        """Checkpoints have moved."""


class Work:
    """The one message to a `HandlerActor`: there is something to do."""


class HandlerActor(Actor):
    """Runs one handler over its deliveries, in log order, one at a time.

    A failure of the handler is a failure of this actor; its supervisor decides what comes next.
    """

    def __init__(
        self,
        subscription: Subscription,
        store: EventStore,
        dispatcher: Dispatcher,
        router: HandlesProgress,
        system: "ActorSystem",
    ) -> None:
        super().__init__()
        self._subscription = subscription
        self._store = store
        self._router = router
        self._dispatcher = dispatcher
        self._system = system
        self._log = get_logger(handler=subscription.name)
        self._handler: BoundHandler

    @override
    async def on_start(self) -> None:
        self._handler = self._subscription.spec.instantiate()
        if self._subscription.state == "restarting":
            self._subscription.state = "catching up"

    @override
    async def on_receive(self, message: Work) -> None:
        subscription = self._subscription
        while subscription.state not in ("stopped", "standby"):
            if subscription.live:
                if not subscription.queue:
                    return
                await self._handle(subscription.queue)
            elif not await self._catch_up():
                return

    async def _catch_up(self) -> bool:
        """Handle one page of the log; at its end go live. Whether there may be more to do.

        It reads no further than the router has handed out events to its priority, and so overtakes nobody.
        """
        subscription, router = self._subscription, self._router
        end = router.dispatched(subscription)
        if end <= subscription.position:
            subscription.state = "live"
            return True
        page = await self._store.read_log(subscription.position, min(PAGE, end - subscription.position))
        wanted = deque(
            Delivery(stored)
            for stored in page
            if stored.position <= end and subscription.wants(stored.record)
        )
        while wanted and subscription.state != "stopped":
            await self._handle(wanted)
        if subscription.state == "stopped":
            return False
        subscription.position = min(page[-1].position, end)
        router.progressed()
        await asyncio.sleep(0)  # a handler that never waits must not keep the loop from others
        return True

    async def _handle(self, source: deque[Delivery]) -> None:
        """Handle the first of ``source``, or as many as one visit to a worker thread gets done."""
        subscription = self._subscription
        size = 1 if self._handler.is_async else min(BATCH, len(source))
        batch = [source.popleft() for _ in range(size)]
        subscription.begin(batch)
        if self._handler.is_async:
            count, error = await self._run_async(batch)
        else:
            count, error = await self._dispatcher.on_worker(self._run, batch)
        for delivery in batch[:count]:
            subscription.done(delivery)
        if error is not None:
            subscription.failed(batch[count].position)
            raise error
        subscription.end()
        source.extendleft(
            reversed(batch[count:])
        )  # if it fell behind meanwhile, nobody reads this queue any more
        self._router.progressed()

    async def _run_async(self, batch: Sequence[Delivery]) -> tuple[int, BaseException | None]:
        """As `_run`, of one event, on the loop."""
        (delivery,) = batch
        try:
            event = delivery.event(self._store.event_registry)
            with caused_by(event.cause):
                await self._handler(event, self._context(delivery))
        except BaseException as error:  # noqa: BLE001 - SystemExit too is the handler's failure
            return 0, error
        return 1, None

    def _run(self, batch: Sequence[Delivery]) -> tuple[int, BaseException | None]:
        """On a worker thread: handle what can be handled soon; how many were, and the error of the next."""
        deadline = time.monotonic() + BATCH_SECONDS
        for count, delivery in enumerate(batch):
            if count and time.monotonic() > deadline:
                return count, None
            try:
                event = delivery.event(self._store.event_registry)
                with caused_by(event.cause):
                    result = self._handler(event, self._context(delivery))
                    if type(result) is CoroutineType:  # a plain function round a coroutine function
                        self._dispatcher.run_coroutine(result)
            except BaseException as error:  # noqa: BLE001 - SystemExit too is the handler's failure
                return count, error
        return len(batch), None

    def _context(self, delivery: Delivery) -> HandlerContext:
        subscription, position = self._subscription, delivery.position
        logger = self._log.bind(event_type=delivery.record.event_type, position=position)
        return HandlerContext(
            position, subscription.attempt(position), subscription.name, logger, self._system
        )
