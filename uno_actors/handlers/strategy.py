"""How a handler goes through its events: one after the other, the events of a batch together.

`OneByOne` is the fast path that most handlers take. `uno_actors.handlers.view_building` and
`uno_actors.handlers.concurrent` hold the strategies of projections and of concurrent handlers.
"""

import asyncio
import time
from collections import deque
from collections.abc import Sequence
from contextlib import suppress
from typing import Generic, NoReturn, Protocol

from typing_extensions import override

from uno_actors.errors import RetryLater, StoreUnavailable
from uno_actors.handlers.calls import Called, HandlerCalls
from uno_actors.handlers.failures import FailedEvent
from uno_actors.handlers.requests import Reset, without_reset
from uno_actors.handlers.spec import E, EventHandler
from uno_actors.handlers.subscription import Delivery, Subscription
from uno_actors.store.port import EventStore
from uno_actors.store.records import PAGE, ViewChange

BATCH = 64
"""Maximum number of events that a plain function handles in one visit to a worker thread."""
NOTED_TOGETHER = 0.01
"""Seconds after which the events that a coroutine function has handled become one step of the flight recorder."""
CONFIRM_EVERY = 0.1
"""Seconds between attempts to confirm a lease, while the store cannot be asked."""


class HandlesProgress(Protocol):
    """The part of the router that a handler's actor needs."""

    def dispatched(self, subscription: Subscription) -> int:
        """Return the position up to which events were dispatched to handlers of this priority."""

    def progressed(self) -> None:
        """Note that a checkpoint has changed, to write it soon."""


class EventFailed(Exception):
    """Carries a handler's error to its actor, with the event that caused it.

    Attributes:
        error: What the handler raised.
        event: ``None`` if it is one of a batch, or if no event is to blame.
        in_batch: Whether an unknown event of a batch caused it.
    """

    def __init__(self, error: BaseException, event: FailedEvent | None, *, in_batch: bool = False) -> None:
        super().__init__(error)
        self.error = error
        self.event = event
        self.in_batch = in_batch


def failure_at(subscription: Subscription, delivery: Delivery, error: BaseException) -> EventFailed:
    """Note that a call has failed at an event; return what the handler's actor fails with.

    The one rule of what counts as an attempt: every error but `RetryLater`.
    """
    if isinstance(error, RetryLater):
        subscription.failures.total += 1
        subscription.fail()
        return EventFailed(error, None)
    return EventFailed(error, subscription.failed(delivery.position, delivery.context))


class OwnStrategy(EventHandler[E], Generic[E]):
    """A handler that goes through its events in a way of its own."""

    def _strategy(
        self,
        subscription: Subscription,
        store: EventStore,
        router: HandlesProgress,
        calls: HandlerCalls,
    ) -> "InOrder":
        """The way of one run of its actor; the arguments are those of `InOrder`."""
        raise NotImplementedError


class KeepsProgress(OwnStrategy[E], Generic[E]):
    """A handler that records its progress with what it writes."""

    keeps_progress = True


class InOrder:
    """Handles events in log order, as many at a time as its options say.

    Args:
        subscription: The handler's subscription.
        store: The store whose log the handler reads.
        router: Receives reports of progress.
        calls: Calls the handler.
    """

    def __init__(
        self, subscription: Subscription, store: EventStore, router: HandlesProgress, calls: HandlerCalls
    ) -> None:
        self._subscription = subscription
        self._store = store
        self._router = router
        self._calls = calls

    async def prepare(self) -> None:
        """Look up what the store knows, before any event is handled."""

    async def work(self) -> bool:
        """Handle events from the queue if live, otherwise a page of the log; return whether there may be more."""
        subscription = self._subscription
        if not subscription.live:
            return await self._catch_up()
        if not subscription.queue:
            return False
        await self._handle(subscription.queue)
        return True

    async def _catch_up(self) -> bool:
        """Handle one page of the log, or go live at its end; return whether there may be more to do.

        It reads only up to the position that the router has dispatched to its priority. So it never overtakes a
        handler of a higher priority.
        """
        subscription, router = self._subscription, self._router
        progress = subscription.progress
        end = router.dispatched(subscription)
        if end <= progress.position:
            if not await self._reached_end():
                subscription.go_live()
            router.progressed()
            return True
        page = await self._store.read_log(progress.position, min(PAGE, end - progress.position))
        wanted = deque(Delivery(stored) for stored in subscription.wanted(page) if stored.position <= end)
        while wanted and subscription.may_continue:
            await self._handle(wanted)
        if wanted or not subscription.at_work:
            return subscription.at_work
        progress.position = min(page[-1].position, end)
        router.progressed()
        await asyncio.sleep(0)  # a handler that never awaits must not block the event loop
        return True

    async def _reached_end(self) -> bool:
        """Act on having caught up; return whether that took time, so that more events may have come."""
        return False

    async def _handle(self, source: deque[Delivery]) -> None:
        """Handle the first event of ``source``, a batch, or as many as one visit to a worker thread completes."""
        subscription = self._subscription
        if not await self._may_begin():
            return
        batch = [source.popleft() for _ in range(self._size(source))]
        subscription.begin(batch)
        count, error = await self._call(batch)
        for delivery in batch[:count]:
            subscription.done(delivery)
        if error is not None:
            self._fail(batch, count, error)
        subscription.release()
        # If the handler fell behind in the meantime, it has a new queue, and nothing reads this one any more.
        source.extendleft(reversed(batch[count:]))
        self._router.progressed()

    async def _may_begin(self) -> bool:
        """Return whether the next event may begin, which another process may have begun while this one hung.

        A lease that may be over is confirmed first. While the store cannot be asked, nothing begins.
        """
        subscription = self._subscription
        while subscription.may_continue:
            if time.monotonic() < subscription.lease.sure_until:
                return True
            with suppress(StoreUnavailable):
                await subscription.lease.confirm()
            if time.monotonic() >= subscription.lease.sure_until:
                await asyncio.sleep(CONFIRM_EVERY)
        return False

    def _size(self, source: Sequence[Delivery]) -> int:
        """Return how many events of ``source`` to handle at once."""
        spec = self._subscription.spec
        if spec.batch is not None:
            alone = source[0].position <= self._subscription.failures.alone_until
            return 1 if alone else min(spec.batch, len(source))
        return 1 if self._calls.handler.is_async or spec.timeout is not None else min(BATCH, len(source))

    async def _call(self, batch: Sequence[Delivery]) -> Called:
        return await self._calls.call(batch)

    def _fail(self, batch: Sequence[Delivery], count: int, error: BaseException) -> NoReturn:
        subscription = self._subscription
        if self._calls.takes_lists and len(batch) > 1 and not isinstance(error, RetryLater):
            subscription.failures.count_batch(batch[-1].position)
            subscription.fail()
            raise EventFailed(error, None, in_batch=True)
        raise failure_at(subscription, batch[count], error)

    # --- requests of operators ---

    async def reset(self, request: Reset) -> None:
        """Continue from another position and record it."""
        subscription = self._subscription
        subscription.move_to(request.position)
        done = without_reset(subscription.name, request.request)
        progress = subscription.progress
        async with progress.writes:
            await self._store.save_progress({subscription.name: request.position}, views=done)
        progress.saved = subscription.name, request.position

    async def retry(self, delivery: Delivery) -> BaseException | None:
        """Handle the event of a dead letter once more; return the error."""
        _, error = await self._calls.call([delivery])
        return error

    async def needs_retry(self, position: int) -> bool:
        """Whether the event of the dead letter at ``position`` is still not handled."""
        return True

    def changes_of_retry(self, position: int) -> list[ViewChange]:
        """Return the changes of a successful retry, to record them when the dead letter is removed."""
        return []


class OneByOne(InOrder):
    """Calls a coroutine function without options for each event. Most events take this path, so it is short."""

    @override
    async def _handle(self, source: deque[Delivery]) -> None:
        subscription, router, calls = self._subscription, self._router, self._calls
        noted: list[Delivery] = []  # one step of the flight recorder for several quick calls
        began = 0.0
        # Handle the events at hand even if the handler has fallen behind in the meantime.
        while source and subscription.may_continue:
            now = time.monotonic()
            if now >= subscription.lease.sure_until and not await self._may_begin():
                break
            if not noted:
                began = now
            elif now - began > NOTED_TOGETHER:
                calls.note(began, noted, len(noted), None)
                noted, began = [], now
            delivery = source.popleft()
            noted.append(delivery)
            subscription.begin((delivery,))
            _, error = await calls.run_async((delivery,))
            if error is not None:
                calls.note(began, noted, len(noted) - 1, error)
                raise failure_at(subscription, delivery, error)
            subscription.done_alone(delivery)
            router.progressed()
        calls.note(began, noted, len(noted), None)
