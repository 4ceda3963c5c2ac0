"""The actor that runs one event handler, and what the router knows of it.

A handler is *live* while the router hands it events from memory. When it fails, is restarted, is slow beyond
its turn or has too much waiting, it *catches up*: it reads the log by itself from where it stands, and is
live again when it has reached the end. So a handler that cannot keep up costs no memory and delays nobody.
While another process has the lease of its name it is on *standby*: it takes nothing and moves nothing.

A handler with ``concurrency`` has several events under way, taken in log order and ended in any: *pending* are
those taken and not done, and its position is before the first of them. What was done beyond it is remembered,
so that a restart of the handler does not repeat it; a crash of the process may.

The position of a projection moves with what it has written, in one transaction: several events at a time. At
each start of its actor it goes on from what the store says.
"""

import asyncio
import time
from collections import deque
from collections.abc import Awaitable, Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from inspect import isawaitable
from typing import Any, Literal, NoReturn, Protocol

from typing_extensions import override

from uno_actors.actors.actor import Actor
from uno_actors.actors.dispatcher import Dispatcher
from uno_actors.causality import Cause, caused_by
from uno_actors.causality import _current as _current_cause
from uno_actors.clock import Clock
from uno_actors.domain.events import DomainEvent, EventRegistry
from uno_actors.domain.payloads import is_exact
from uno_actors.errors import HandlerTimeout, LeaseLost, describe
from uno_actors.handlers.control import NOTHING, RETRY, Orders, Reset, control_entry, without_reset
from uno_actors.handlers.keyed_queue import Lanes
from uno_actors.handlers.projection import PROJECTION_BATCH, Projection, publish
from uno_actors.handlers.services import SystemServices
from uno_actors.handlers.spec import BoundHandler, HandlerContext, HandlerSpec
from uno_actors.handlers.view import View, aside_key, view_to_write
from uno_actors.logs import get_logger, program_logger
from uno_actors.printable import traceback_text
from uno_actors.store.codec import Record, StreamId, to_event
from uno_actors.store.port import EventStore
from uno_actors.store.records import PAGE, DeadLetter, StoredRecord, ViewChange
from uno_actors.tasks import begin

CAPACITY = 2048
"""Deliveries that may wait for one handler before it must read the log by itself. More than an ordinary burst of
commands, which quick handlers would then read and decode a second time; less than the router's window."""
BATCH = 64
"""Events that a plain function handles in one visit to a worker thread, if it is quick."""
BATCH_SECONDS = 0.01
"""After this time a worker thread comes back, so that lower priorities do not wait for a whole batch."""

PROJECTION_SECONDS = 0.1
"""After this time a projection records what it has counted, and gives up its turn no sooner than that."""

LOOK_AHEAD = 256
"""Events that a handler with ``concurrency`` has taken at once: so far it looks for other aggregates."""

State = Literal["live", "catching up", "restarting", "standby", "stopped"]


class Delivery:
    """One recorded event on its way to handlers, decoded only if one wants it. An event in which something can
    change is decoded for each: no handler sees what another has made of it.
    """

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
        if self._event is not None:
            return self._event
        event = to_event(self.record, registry, self.position)
        if is_exact(event):
            self._event = event
        return event


DeliveryDone = Callable[[Delivery], None]
"""The router's side: one handler has done with a delivery or gives up its turn."""


@dataclass(frozen=True, slots=True)
class HandlerStatistics:
    """What one handler has done since the system started.

    Attributes:
        state: ``live``, ``catching up``, ``restarting``, ``paused``, ``stopped``, or ``standby`` while another process
            has the handler's lease.
        position: It has done with everything in the log up to here.
        waiting: Deliveries in its queue.
        handled: Events handled.
        failures: Attempts that failed.
        restarts: Restarts by its supervisor.
        dead_letters: Events set aside.
    """

    state: State | Literal["paused"]
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
        self, spec: HandlerSpec, position: int, registry: EventRegistry, clock: Clock, *, live: bool = False
    ) -> None:
        self.spec = spec
        self.name = spec.name
        self.position = position  # done with everything up to here, matching or not
        self.state: State = "live" if live else "catching up"
        self.paused = False
        self.reset: Reset | None = None
        self.retries: dict[int, None] = {}  # dead letters to be handled once more
        self._orders = NOTHING  # the last it was told
        self._carried_out = ""  # the last request to reset
        self.recorded_as = (
            "" if spec.keeps_a_view else spec.name
        )  # its checkpoint's name, if that may be moved
        self.saved: tuple[str, int] | None = None  # its checkpoint, as it was last written here
        self.writes = asyncio.Lock()  # of its checkpoint: one at a time, or the older could come last
        self.leased = True  # else its position is another process's to move, also when it was stopped
        self.queue: deque[Delivery] = deque()
        self.under_way: dict[int, Delivery] = {}  # taken from the queue, and the router waits for them
        self.pending: dict[int, None] = {}  # positions taken and not done, in log order
        self.taken = position  # nothing beyond it was taken
        self.ahead: set[int] = set()  # done, beyond a pending one
        self.alone_until = 0  # up to here no event is in a batch with others, for such a batch has failed
        self.untold: deque[tuple[int, BaseException]] = deque()  # last attempts that failed beside another
        self.out: set[asyncio.Future[Outcome]] = set()  # calls on threads that have taken too long
        self.failed_at = 0  # position of the event that is to blame for the last failure; 0 if none is
        self.failed_times = 0  # failures of the event there
        self.first_failed = datetime.min.replace(tzinfo=UTC)
        self.handled = 0
        self.failures = 0
        self.restarts = 0
        self.dead_letters = 0
        self.wake: Callable[[], None] = _nobody_waits
        self.arrived: Callable[[], None] = _nobody_waits  # there is more to take, while it is at work
        self.give_back: DeliveryDone = _not_counted
        self._failed: dict[int, tuple[int, datetime]] = {}  # how often since when, by position
        self._begun: dict[int, float] = {}  # when, of those begun and not done, the oldest first
        self._registry = registry
        self._clock = clock

    @property
    def live(self) -> bool:
        """Whether the router hands it events."""
        return self.state == "live"

    @property
    def at_work(self) -> bool:
        """Whether it is to handle what there is."""
        return not self.paused and self.state in ("live", "catching up")

    @property
    def has_orders(self) -> bool:
        """Whether there is something to carry out before it handles the next event."""
        return self.reset is not None or bool(self.retries)

    @property
    def may_go_on(self) -> bool:
        """Whether it is to handle the next event now."""
        return self.at_work and not self.has_orders

    @property
    def idle(self) -> bool:
        """Live, with nothing under way: everything dispatched to it is done."""
        return self.live and not self.queue and not self.pending

    @property
    def busy_since(self) -> float | None:
        """When it has begun the event that it has been handling for longest."""
        return next(iter(self._begun.values()), None)

    def wants(self, record: Record) -> bool:
        """Whether the event is one of those it subscribed to."""
        pattern = self.spec.topic_pattern
        if pattern is not None and (record.topic is None or not pattern.matches(record.topic)):
            return False
        return self.wants_type(record.event_type, record.aggregate_type)

    def wanted(self, page: Iterable[StoredRecord]) -> Iterator[StoredRecord]:
        """Those of ``page`` that it subscribed to; what events of one kind are is looked up once."""
        known: dict[tuple[str, str | None, str | None], bool] = {}
        for stored in page:
            record = stored.record
            kind = record.event_type, record.aggregate_type, record.topic
            wants = known.get(kind)
            if wants is None:
                wants = known[kind] = self.wants(record)
            if wants:
                yield stored

    def wants_type(self, event_type: str, aggregate_type: str | None) -> bool:
        """Whether events recorded under this name, of such an aggregate, are of those it subscribed to."""
        if self.spec.aggregate_type not in (None, aggregate_type):
            return False
        wanted = self.spec.event_type
        kinds = wanted if isinstance(wanted, tuple) else (wanted,)
        return wanted is None or any(
            self._registry.covers(kind, event_type, aggregate_type) for kind in kinds if kind
        )

    def stand_by(self) -> None:
        """Another process is active under its name: handle nothing more, and leave all that is kept to it."""
        self.leased = False
        self.paused, self.reset, self._orders = False, None, NOTHING
        self.retries = {}
        self.fall_behind("stopped" if self.state == "stopped" else "standby")

    def take_over(self, position: int) -> None:
        """The lease is ours: go on from ``position``, where the other has left off; a projection, from its view."""
        self.leased = True
        self.saved = None
        if self.spec.keeps_a_view:
            position, self.recorded_as = 0, ""
        self.go_on_from(position)
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
        self.arrived()
        return True

    def fall_behind(self, state: State = "catching up") -> None:
        """Give up its turn for all that waits; it will read it from the log."""
        self.state = state
        waiting = [*self.under_way.values(), *self.queue]
        self.under_way.clear()
        self._begun.clear()
        self.queue = deque()
        self.arrived()
        for delivery in waiting:
            self.give_back(delivery)

    def stop(self, dispatched: int) -> None:
        """Handle nothing more, whatever waits; ``dispatched`` as for `checkpoint`."""
        self.step_aside(dispatched, "stopped")

    def step_aside(self, dispatched: int, state: State = "catching up") -> None:
        """Give up its turn between two events; ``dispatched`` as for `checkpoint`."""
        self.position = self.checkpoint(dispatched)
        self.fall_behind(state)

    def take_orders(self, orders: Orders, dispatched: int) -> None:
        """Do as an operator wishes, after the event that is being handled; ``dispatched`` as for `checkpoint`."""
        if orders == self._orders:
            return
        self._orders = orders
        if orders.paused and self.live:
            self.step_aside(dispatched)
        self.paused = orders.paused
        if orders.reset is not None and orders.reset.request != self._carried_out:
            self.reset = orders.reset
        self.retries = dict.fromkeys(orders.retry)
        self.arrived()
        self.wake()

    def go_on_from(self, position: int) -> None:
        """It is reset: all that it knew of events is of no use any more."""
        self.end()
        self.position = self.taken = position
        self.alone_until = 0
        self.ahead.clear()
        self.untold.clear()
        self._failed.clear()

    def has_started(self, dispatched: int) -> None:
        """Its actor runs: with nothing to read it is live at once; ``dispatched`` as for `checkpoint`.

        Not a projection: it publishes its view first.
        """
        if self.may_go_on and not self.spec.keeps_a_view and self.position >= dispatched:
            self.state = "live"
        self.wake()

    def was_reset(self, request: Reset) -> None:
        """The request is carried out."""
        self._carried_out = request.request
        if self.reset == request:  # else another has come meanwhile
            self.reset = None
        if self._orders.reset == request:
            self._orders = replace(self._orders, reset=None)

    def retried_before(self, letter: DeadLetter) -> None:
        """Its next attempt at the event is one more than those of ``letter``."""
        self._failed[letter.position] = letter.attempts, letter.first_failed

    def retried(self, position: int) -> None:
        """The attempt is over."""
        self._failed.pop(position, None)
        self.retries.pop(position, None)
        self._orders = replace(self._orders, retry=tuple(self.retries))  # it may be asked for again

    def begin_again(self) -> None:
        """It was stopped and is to go on where it was."""
        self.end()
        self.taken = self.position
        self.state = "catching up" if self.leased else "standby"

    def holds(self, delivery: Delivery) -> bool:
        """Whether the router waits for it to handle ``delivery``."""
        return delivery.position in self.under_way or delivery in self.queue

    def begin(self, batch: Sequence[Delivery]) -> None:
        """It is about to handle ``batch``, which it took from its queue or from the log."""
        self.take(batch)
        self.start(batch[0])

    def take(self, batch: Sequence[Delivery]) -> None:
        """It has taken ``batch`` from its queue or from the log."""
        for delivery in batch:
            self.pending[delivery.position] = None
            if self.live:
                self.under_way[delivery.position] = delivery
        self.taken = batch[-1].position

    def start(self, delivery: Delivery) -> None:
        """It is about to handle what it took."""
        self._begun[delivery.position] = self._clock.monotonic()

    def finish(self, position: int) -> None:
        """The call for the event at ``position`` has ended."""
        self._begun.pop(position, None)

    def done(self, delivery: Delivery) -> None:
        """It has handled one of those it took."""
        position = delivery.position
        self.handled += 1
        self.finish(position)
        self.leave(position)
        if (given := self.under_way.pop(position, None)) is not None:  # else it fell behind meanwhile
            self.give_back(given)

    def done_alone(self, delivery: Delivery) -> None:
        """As `done`, of the only one that it took."""
        self.handled += 1
        self._begun.clear()
        self.pending.clear()
        if self._failed:
            self._failed.pop(delivery.position, None)
        self.position = delivery.position
        if self.under_way:  # else it fell behind meanwhile
            self.under_way.clear()
            self.give_back(delivery)

    def aside(self, position: int) -> list[ViewChange]:
        """What a view has to note when the event at ``position`` is set aside."""
        return [ViewChange(self.recorded_as, aside_key(position), b"")] if self.spec.keeps_a_view else []

    def leave(self, position: int) -> None:
        """The event at ``position`` is handled or set aside."""
        self.pending.pop(position, None)
        self._failed.pop(position, None)
        self.passed(self.taken)
        if position > self.position:
            self.ahead.add(position)

    def passed(self, position: int) -> None:
        """It has taken all that it wants up to ``position``."""
        self.taken = position
        self.position = self.position_without(0)
        if self.ahead:
            self.ahead = {done for done in self.ahead if done > self.position}

    def position_without(self, position: int) -> int:
        """Its position once the event at ``position``, which it took, is done."""
        for first in self.pending:
            if first != position:
                return first - 1
        return self.taken

    def end(self) -> None:
        """It is at no event now; what was taken and not handled is the caller's to put back."""
        self.under_way.clear()
        self.pending.clear()
        self._begun.clear()

    def attempt(self, position: int) -> int:
        """Which attempt at the event at ``position`` the next one is, from 1."""
        return self._failed[position][0] + 1 if position in self._failed else 1

    def failed(self, position: int) -> None:
        """The attempt at the event at ``position`` has failed."""
        self.count_failure(position)
        self.blame(position)

    def failed_together(self, batch: Sequence[Delivery]) -> None:
        """One of ``batch`` has made it fail, nobody knows which: next they come one by one."""
        self.failures += 1
        self.alone_until = batch[-1].position
        self.blame(0)

    def count_failure(self, position: int) -> int:
        """How often the event at ``position`` has failed now."""
        self.failures += 1
        times, first = self._failed.get(position, (0, datetime.now(UTC)))
        self._failed[position] = (times + 1, first)
        self.alone_until = max(self.alone_until, position)
        return times + 1

    def blame(self, position: int) -> None:
        """The handler is to be restarted, on account of the event at ``position`` if it is not 0."""
        self.failed_at = position
        if position:
            self.failed_times, self.first_failed = self._failed[position]
        self.fall_behind(self.state if self.state in ("stopped", "standby") else "restarting")

    def checkpoint(self, dispatched: int) -> int:
        """It has done with everything up to here, given that the router has handed out up to ``dispatched``."""
        return max(self.position, dispatched) if self.idle else self.position

    def statistics(self, dispatched: int) -> HandlerStatistics:
        """See `HandlerStatistics`; ``dispatched`` as for `checkpoint`."""
        return HandlerStatistics(
            state="paused" if self.paused and self.state not in ("stopped", "standby") else self.state,
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


Outcome = tuple[int, BaseException | None]
"""How many of a batch were handled, and the error of the next."""


class HandlesProgress(Protocol):
    """What a handler actor needs of the router."""

    def dispatched(self, subscription: Subscription) -> int:
        """The position up to which events have been handed out to handlers of its priority."""

    def progressed(self) -> None:
        """Checkpoints have moved."""


class Work:
    """The one message to a `HandlerActor`: there is something to do."""


class HandlerActor(Actor):
    """Runs one handler over its deliveries, in log order, one at a time or as its options say.

    A failure of the handler is a failure of this actor; its supervisor decides what comes next.
    """

    def __init__(
        self,
        subscription: Subscription,
        store: EventStore,
        dispatcher: Dispatcher,
        router: HandlesProgress,
        system: SystemServices,
    ) -> None:
        super().__init__()
        self._subscription = subscription
        self._store = store
        self._router = router
        self._dispatcher = dispatcher
        self._system = system
        self._log = get_logger(handler=subscription.name)
        self._program_log = program_logger(handler=subscription.name)
        self._handler: BoundHandler
        self._projection: Projection[Any] | None = None
        self._view_is = "unknown"

    @property
    def subscription(self) -> Subscription:
        """Of the handler that it runs."""
        return self._subscription

    @override
    async def on_start(self) -> None:
        self._make_handler()
        if self._subscription.leased:
            with self._standing_by_if_lost():
                await self._know_view()  # from here on operators know it too
        if self._subscription.state == "restarting":
            self._subscription.state = "catching up"

    def _make_handler(self) -> None:
        self._handler = self._subscription.spec.instantiate()
        handler = getattr(self._handler.function, "__self__", None)
        self._projection = handler if isinstance(handler, Projection) else None
        self._view_is = "unknown"

    @contextmanager
    def _standing_by_if_lost(self) -> Iterator[None]:
        """If another process has taken the handler over, that is no failure."""
        try:
            yield
        except LeaseLost as lost:
            if self._subscription.name not in lost.handlers:
                raise
            self._subscription.stand_by()

    @override
    async def on_receive(self, message: Work) -> None:
        try:
            with self._standing_by_if_lost():
                await self._work()
        finally:
            if not self._subscription.leased:
                self._subscription.end()

    async def _work(self) -> None:
        subscription = self._subscription
        if subscription.out:  # it must not run twice at once; the call that is out wakes it when it is back
            return
        if subscription.untold:
            position, error = subscription.untold.popleft()
            subscription.blame(position)
            raise error
        subscription.end()
        while subscription.at_work:
            await self._know_view()
            if subscription.has_orders:
                if not await self._carry_out_orders():
                    return
            elif subscription.spec.concurrency > 1:
                await self._work_abreast()
                if not subscription.has_orders:
                    return
            elif subscription.live:
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
            if self._view_is == "building":
                await publish(self._store, subscription.name, subscription.recorded_as)
                self._view_is = "published"
                return True  # more may have come meanwhile
            subscription.state = "live"
            return True
        page = await self._store.read_log(subscription.position, min(PAGE, end - subscription.position))
        wanted = deque(Delivery(stored) for stored in subscription.wanted(page) if stored.position <= end)
        while wanted and subscription.may_go_on:
            await self._handle(wanted)
        if wanted or not subscription.at_work:
            return subscription.at_work
        subscription.position = min(page[-1].position, end)
        router.progressed()
        await asyncio.sleep(0)  # a handler that never waits must not keep the loop from others
        return True

    async def _handle(self, source: deque[Delivery]) -> None:
        """Handle the first of ``source``, or a batch, or as many as one visit to a worker thread gets done."""
        subscription, spec = self._subscription, self._subscription.spec
        if (
            self._handler.is_async
            and self._projection is None
            and spec.batch is None
            and spec.timeout is None
        ):
            await self._handle_in_turn(source)
            return
        batch = [source.popleft() for _ in range(self._size(source))]
        subscription.begin(batch)
        if self._projection is None:
            count, error = await self._call(batch)
        else:
            count, error = await self._count(batch, self._projection.view)
        for delivery in batch[:count]:
            subscription.done(delivery)
        if error is not None:
            if self._takes_lists and len(batch) > 1:
                subscription.failed_together(batch)
            else:
                subscription.failed(batch[count].position)
            raise error
        subscription.end()
        source.extendleft(
            reversed(batch[count:])
        )  # if it fell behind meanwhile, nobody reads this queue any more
        self._router.progressed()

    async def _handle_in_turn(self, source: deque[Delivery]) -> None:
        """Handle ``source``, with a coroutine function and no option: the way of most events, and so a short one."""
        subscription, router = self._subscription, self._router
        while (
            source and subscription.may_go_on
        ):  # what it has at hand it handles, also when it has fallen behind
            delivery = source.popleft()
            subscription.begin((delivery,))
            _, error = await self._run_async((delivery,))
            if error is not None:
                subscription.failed(delivery.position)
                raise error
            subscription.done_alone(delivery)
            router.progressed()

    def _size(self, source: Sequence[Delivery]) -> int:
        """How many of ``source`` to handle at once."""
        spec = self._subscription.spec
        if self._projection is not None:
            return min(spec.batch or PROJECTION_BATCH, len(source))
        if spec.batch is not None:
            return min(spec.batch, len(source)) if source[0].position > self._subscription.alone_until else 1
        return 1 if self._handler.is_async or spec.timeout is not None else min(BATCH, len(source))

    @property
    def _takes_lists(self) -> bool:
        return self._subscription.spec.batch is not None and self._projection is None

    # --- what operators ask for ---

    async def _carry_out_orders(self) -> bool:
        """Reset it, or give it dead letters once more. Whether it may go on: a call may have taken too long."""
        subscription = self._subscription
        if subscription.live:
            subscription.step_aside(self._router.dispatched(subscription))
        subscription.end()
        letters: dict[int, DeadLetter] | None = None
        while subscription.at_work and subscription.has_orders and not subscription.out:
            await self._know_view()
            if subscription.reset is not None:
                await self._reset(subscription.reset)
                continue
            if letters is None:
                found = await self._store.dead_letters(subscription.name)
                letters = {letter.position: letter for letter in found}
            position = next(iter(subscription.retries))
            done = control_entry(None, subscription.name, RETRY, position)
            if (letter := letters.pop(position, None)) is not None:
                await self._retry(letter, done)
            else:  # it was dropped
                await self._store.save_progress({}, views=[done])
            subscription.retried(position)
        return not subscription.out

    async def _reset(self, request: Reset) -> None:
        subscription = self._subscription
        done = without_reset(subscription.name, request.request)
        if self._projection is not None:
            await self._find_view(self._projection, also=done)
        else:
            subscription.go_on_from(request.position)
            async with subscription.writes:
                await self._store.save_progress({subscription.name: request.position}, views=done)
            subscription.saved = subscription.name, request.position
        subscription.was_reset(request)
        self._log.info("handler reset", position=subscription.position)

    async def _retry(self, letter: DeadLetter, done: ViewChange) -> None:
        """Handle the event of a dead letter: if that succeeds the letter is removed, else it says so."""
        subscription, position = self._subscription, letter.position
        (stored,) = await self._store.read_log(position - 1, 1)
        delivery = Delivery(stored)
        if self._projection is not None and not await self._is_aside(position):
            error = None  # it was counted meanwhile, when the view was built anew
        else:
            subscription.retried_before(letter)
            subscription.start(delivery)
            _, error = await self._call([delivery])
            subscription.finish(position)
        if error is None:
            changes = (
                [] if self._projection is None else self._counted_after_all(self._projection.view, position)
            )
            await self._store.save_progress({}, (), [*changes, done], [(subscription.name, position)])
            subscription.handled += 1
            self._log.info("dead letter handled", event_type=letter.event_type, position=position)
            return
        subscription.failures += 1
        again = letter._replace(
            attempts=letter.attempts + 1,
            error=describe(error),
            traceback=traceback_text(error),
            last_failed=datetime.now(UTC),
        )
        await self._store.save_progress({}, [again], [done])
        self._log.warning(
            "dead letter failed again", position=position, attempts=again.attempts, error=again.error
        )
        self._make_handler()  # as after any other failure

    async def _is_aside(self, position: int) -> bool:
        key = aside_key(position)
        return bool(await self._store.read_view(self._subscription.recorded_as, key, key + b"\0", 1))

    def _counted_after_all(self, view: View, position: int) -> list[ViewChange]:
        view.keep()
        aside = ViewChange(self._subscription.recorded_as, aside_key(position), None)
        return [*view.take_changes(), aside]

    # --- projections ---

    async def _know_view(self) -> None:
        if self._projection is not None and (
            self._view_is == "unknown" or not self._subscription.recorded_as
        ):
            await self._find_view(self._projection)

    async def _find_view(self, projection: Projection[Any], *, also: Sequence[ViewChange] = ()) -> None:
        """Learn which view to write and how far it has come: a commit that was told as failed may be there.

        With ``also``, changes that are recorded with it, begin a new one, as was asked for.
        """
        subscription = self._subscription
        view, position = await view_to_write(
            self._store, subscription.name, projection.version, anew=bool(also), also=also
        )
        if also:
            subscription.go_on_from(position)
        if view != subscription.recorded_as or position > subscription.position:
            subscription.recorded_as, subscription.position = view, position
        projection.begin(self._store, view)
        self._view_is = "building"

    async def _count(self, batch: Sequence[Delivery], view: View) -> Outcome:
        """Handle events one after the other, and record what they have written in one transaction."""
        count, error = 0, None
        deadline = time.monotonic() + PROJECTION_SECONDS
        while error is None and count < len(batch) and not (count and time.monotonic() > deadline):
            handled, error = await self._call([batch[count]])
            if error is None:
                view.keep()
            else:
                view.forget()
            count += handled
        if changes := view.take_changes():
            await self._record(batch[count - 1].position, changes)
        return count, error

    async def _record(self, position: int, changes: Sequence[ViewChange]) -> None:
        """Record what a projection has written and its position, which nobody else may move meanwhile.

        If that fails it may have been recorded all the same: the view is looked up anew.
        """
        subscription = self._subscription
        name, subscription.recorded_as = subscription.recorded_as, ""
        try:
            async with subscription.writes:
                await self._store.save_progress({name: position}, views=changes)
        except Exception:
            self._view_is = "unknown"
            if subscription.live:  # others need not wait until the store is back
                subscription.fall_behind()
            raise
        subscription.recorded_as = name

    # --- several at once ---

    async def _work_abreast(self) -> None:
        """Handle events of different aggregates at once, those of one in order, until there are no more.

        After a failure nothing more begins; when those under way have ended, the actor fails with it.
        """
        subscription = self._subscription
        lanes: Lanes[Delivery] = Lanes(subscription.spec.concurrency)
        tasks: dict[asyncio.Task[Outcome], tuple[StreamId | None, Delivery]] = {}
        ended: deque[asyncio.Task[Outcome]] = deque()
        something_new = asyncio.Event()
        failures: list[tuple[int, BaseException]] = []
        subscription.taken = subscription.position

        def end(task: asyncio.Task[Outcome]) -> None:
            ended.append(task)
            something_new.set()

        subscription.arrived = something_new.set
        try:
            while True:
                something_new.clear()
                if not failures and subscription.may_go_on:
                    try:
                        await self._take_more(lanes)
                    except Exception as unread:  # noqa: BLE001 - a store of somebody else's may raise anything
                        failures.append((0, unread))
                while not failures and subscription.may_go_on and (started := lanes.start()):
                    subscription.start(started[1])
                    task = begin(self._dispatcher.loop, self._call([started[1]]))
                    tasks[task] = started
                    task.add_done_callback(end)
                if not tasks:
                    break
                await something_new.wait()
                while ended:
                    task = ended.popleft()
                    stream, delivery = tasks.pop(task)
                    lanes.end(stream)
                    _, error = task.result()
                    if error is None:
                        subscription.done(delivery)
                        self._router.progressed()
                    else:
                        failures.append((delivery.position, error))
        finally:
            subscription.arrived = _nobody_waits
            for task in tasks:  # only if this was cancelled: else all have ended
                task.cancel()
                self._goes_on(task)
        if failures:
            self._fail(failures)

    async def _take_more(self, lanes: Lanes[Delivery]) -> None:
        """Take what there is, from the queue or from the log, as far as there is room; at its end go live."""
        subscription = self._subscription
        while len(lanes) < LOOK_AHEAD and subscription.may_go_on:
            if subscription.live:
                if not subscription.queue:
                    return
                wanted = [subscription.queue.popleft()]
            elif subscription.state != "catching up":
                return
            else:
                end = self._router.dispatched(subscription)
                if end <= subscription.taken:
                    subscription.state = "live"
                    continue
                room = min(LOOK_AHEAD - len(lanes), end - subscription.taken)
                page = await self._store.read_log(subscription.taken, room)
                wanted = [
                    Delivery(stored)
                    for stored in subscription.wanted(page)
                    if stored.position <= end and stored.position not in subscription.ahead
                ]
            for delivery in wanted:
                subscription.take([delivery])
                lanes.add(delivery.record.stream, delivery)
            if not subscription.live:
                subscription.passed(min(page[-1].position, end))
                self._router.progressed()
                await asyncio.sleep(0)  # a handler that wants nothing must not keep the loop from others

    def _fail(self, failures: Sequence[tuple[int, BaseException]]) -> NoReturn:
        """Fail on account of the first, an event at a position or the store at 0; the others were attempts too.

        One that was the last is told to the supervisor after the restart, so that it sets that event aside.
        """
        subscription = self._subscription
        for position, error in failures[1:]:
            if subscription.count_failure(position) >= subscription.spec.max_attempts:
                subscription.untold.append((position, error))
        blamed, first_error = failures[0]
        if blamed:
            subscription.failed(blamed)
        raise first_error

    # --- one call ---

    async def _call(self, batch: Sequence[Delivery]) -> Outcome:
        """Call the handler, on the loop or on a worker thread, and for no longer than its ``timeout``."""
        seconds = self._subscription.spec.timeout
        if seconds is None:
            return await self._run(batch)
        if self._handler.is_async:
            async with asyncio.timeout(seconds) as limit:
                count, error = await self._run(batch)  # tells that it was cancelled as its error
            late = error is not None and limit.expired()
            return (0, self._too_late(batch, error)) if late else (count, error)
        call = begin(self._dispatcher.loop, self._run(batch))
        try:
            await asyncio.wait({call}, timeout=seconds)
        except asyncio.CancelledError:
            self._goes_on(call)
            raise
        if call.done():
            return call.result()
        self._goes_on(call)
        return 0, self._too_late(batch, None)

    async def _run(self, batch: Sequence[Delivery]) -> Outcome:
        if self._handler.is_async:
            return await self._run_async(batch)
        if self._subscription.spec.batch is not None:
            return await self._dispatcher.on_worker(self._run_plain, batch, len(batch), stays=self._lives)
        return await self._dispatcher.on_worker(self._run_plain, batch, 1, stays=self._lives)

    def _lives(self) -> bool:
        """Whether it was not abandoned: then what runs on a thread is waited for, for it must not run twice."""
        return not self.actor_stopped.up

    def _too_late(self, batch: Sequence[Delivery], cause: BaseException | None) -> HandlerTimeout:
        first, last = batch[0], batch[-1]
        event = f"{first.record.event_type} at position {first.position}"
        if last is not first:
            event = f"a batch of {len(batch)} events from {event} to {last.position}"
        late = HandlerTimeout(self._subscription.name, event, self._subscription.spec.timeout or 0)
        late.__cause__ = cause  # shows where it was
        return late

    def _goes_on(self, call: "asyncio.Future[Outcome]") -> None:
        """Nobody waits for the call any more, and it is not over: until then the handler is not called again."""
        self._subscription.out.add(call)
        call.add_done_callback(self._is_back)

    def _is_back(self, call: "asyncio.Future[Outcome]") -> None:
        """A call for which nobody waited any more has come back: the handler may be called again."""
        subscription = self._subscription
        subscription.out.discard(call)
        if not call.cancelled():
            self._log.info("handler came back after it was given up")
        if not subscription.out and subscription.state != "stopped":
            subscription.wake()

    async def _run_async(self, batch: Sequence[Delivery]) -> Outcome:
        """As `_run_plain`, of one call, on the loop."""
        try:
            given, last = self._given(batch), batch[-1]
            token = _current_cause.set(self._cause(batch))  # `caused_by`, in half the time
            try:
                await self._handler(given, self._context(last))
            finally:
                _current_cause.reset(token)
        except BaseException as error:  # noqa: BLE001 - SystemExit too is the handler's failure
            return 0, error
        return len(batch), None

    def _run_plain(self, batch: Sequence[Delivery], size: int) -> Outcome:
        """On a worker thread: handle what can be handled soon, ``size`` in a call."""
        deadline = time.monotonic() + BATCH_SECONDS
        for count in range(0, len(batch), size):
            if count and time.monotonic() > deadline:
                return count, None
            part = batch[count : count + size]
            try:
                given, last = self._given(part), part[-1]
                with caused_by(self._cause(part)):
                    result = self._handler(given, self._context(last))
                    if result is not None and isawaitable(result):  # a coroutine, or the future of an ask
                        self._dispatcher.run_coroutine(_end_of(result))
            except BaseException as error:  # noqa: BLE001 - SystemExit too is the handler's failure
                return count, error
        return len(batch), None

    def _cause(self, batch: Sequence[Delivery]) -> Cause:
        """What is sent while ``batch`` is handled follows from its last event, and from none before its first."""
        record = batch[-1].record
        correlation_id = record.correlation_id or record.event_id
        return Cause(correlation_id, record.event_id, batch[0].position, self._store)

    def _given(self, batch: Sequence[Delivery]) -> DomainEvent | list[DomainEvent]:
        """What the handler is called with."""
        events = [delivery.event(self._store.event_registry) for delivery in batch]
        return events if self._takes_lists else events[0]

    def _context(self, delivery: Delivery) -> HandlerContext | None:
        """The context, if the handler takes it: it costs more than a handler that does little."""
        if not self._handler.takes_context:
            return None
        subscription, position = self._subscription, delivery.position
        logger = self._program_log.bind(event_type=delivery.record.event_type, position=position)
        return HandlerContext(
            position, subscription.attempt(position), subscription.name, logger, self._system
        )


async def _end_of(result: Awaitable[object]) -> None:
    """Wait for what a plain function has returned."""
    await result
