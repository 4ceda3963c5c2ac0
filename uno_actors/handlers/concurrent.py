"""How a handler with ``concurrency`` goes through its events: several at once, each of a different aggregate.

A process manager has several processes react at once; an event that belongs to several waits for each of them.

The handler takes events in log order and finishes them in any order. Events that are taken and not done are pending;
the handler's position stays before the first pending event. The subscription remembers finished events beyond that
position, so a restart of the handler does not repeat them. A crash of the process may repeat them.
"""

import asyncio
from collections import deque
from collections.abc import Hashable, Sequence
from typing import NoReturn

from typing_extensions import override

from uno_actors.errors import RetryLater
from uno_actors.handlers.calls import Called
from uno_actors.handlers.keyed_queue import Keyed, KeyedQueue
from uno_actors.handlers.strategy import InOrder, failure_at
from uno_actors.handlers.subscription import Delivery
from uno_actors.store.records import StoredRecord

LOOK_AHEAD = 256
"""Maximum number of events that a concurrent handler takes ahead to find events of different aggregates."""

Waiting = KeyedQueue[Hashable, Delivery]


class Concurrent(InOrder):
    """Handles events of different aggregates, or for different processes, at once, those of one in order."""

    @override
    async def work(self) -> bool:
        """Handle events until there are none; return whether requests of operators are left.

        After a failure no new call begins. When the calls under way have ended, the actor fails with that failure.
        """
        subscription = self._subscription
        subscription.progress.taken = subscription.progress.position
        run = _Run(self, subscription.spec.concurrency)
        subscription.arrived = run.something_new.set
        try:
            while True:
                run.something_new.clear()
                if not run.failures and subscription.may_continue:
                    try:
                        await self._take_more(run.waiting)
                    except Exception as unread:  # noqa: BLE001 - any store may raise anything
                        run.failures.append((None, unread))
                if not run.failures and await self._may_begin():
                    while subscription.may_continue and run.begin_next():
                        pass
                if not run.calls:
                    break
                await run.something_new.wait()
                run.finish_ended()
        finally:
            run.leave()
        if run.failures:
            self._fail_with(run.failures)
        return bool(subscription.requests)

    async def _take_more(self, waiting: Waiting) -> None:
        """Take events from the queue or the log, as many as there is room for; go live at the end of the log."""
        subscription = self._subscription
        progress = subscription.progress
        while len(waiting) < LOOK_AHEAD and subscription.may_continue:
            if subscription.live:
                if not subscription.queue:
                    return
                self._take(subscription.queue.popleft(), waiting)
                continue
            end = self._router.dispatched(subscription)
            if end <= progress.taken:
                subscription.go_live()
                continue
            room = min(LOOK_AHEAD - len(waiting), end - progress.taken)
            page = await self._store.read_log(progress.taken, room)
            self._take_page(page, end, waiting)
            await asyncio.sleep(0)  # reading events the handler skips must not block the event loop

    def _take_page(self, page: Sequence[StoredRecord], end: int, waiting: Waiting) -> None:
        subscription = self._subscription
        progress = subscription.progress
        wanted = [
            Delivery(stored)
            for stored in subscription.wanted(page)
            if stored.position <= end and stored.position not in progress.ahead
        ]
        for delivery in wanted:
            self._take(delivery, waiting)
        if not subscription.live:
            progress.pass_to(min(page[-1].position, end))
            self._router.progressed()

    def _take(self, delivery: Delivery, waiting: Waiting) -> None:
        self._subscription.take([delivery])
        waiting.add(self._subscription.orders(delivery), delivery)

    def _fail_with(self, failures: "Sequence[tuple[Delivery | None, BaseException]]") -> NoReturn:
        """Fail with the first failure, of an event or of the store (``None``). The others count as failed attempts.

        If another event has used up its attempts, its failure is reported after the restart, to set it aside.
        """
        subscription = self._subscription
        to_blame = [failed for failed in failures if not isinstance(failed[1], RetryLater)] or failures[:1]
        subscription.failures.total += len(failures) - len(to_blame)
        failures = to_blame
        for delivery, error in failures[1:]:
            if delivery is not None:
                failed = subscription.failures.count(delivery.position, delivery.context)
                if failed.attempts >= subscription.spec.max_attempts:
                    subscription.failures.postponed.append((failed, error))
        blamed, first_error = failures[0]
        if blamed is None:
            raise first_error
        raise failure_at(subscription, blamed, first_error)


class _Run:
    """The calls under way, the events that wait, and the failures."""

    def __init__(self, strategy: Concurrent, concurrency: int) -> None:
        self.waiting: Waiting = KeyedQueue(concurrency)
        self.calls: dict[asyncio.Task[Called], Keyed[Hashable, Delivery]] = {}
        self.failures: list[tuple[Delivery | None, BaseException]] = []
        self.something_new = asyncio.Event()
        self._ended: deque[asyncio.Task[Called]] = deque()
        self._strategy = strategy

    def begin_next(self) -> bool:
        """Begin the next event that may begin; return whether there was one."""
        started = self.waiting.start()
        if started is None:
            return False
        strategy = self._strategy
        strategy._subscription.start(started.item)
        call = strategy._calls.begin([started.item])
        self.calls[call] = started
        call.add_done_callback(self._end)
        return True

    def _end(self, call: "asyncio.Task[Called]") -> None:
        self._ended.append(call)
        self.something_new.set()

    def finish_ended(self) -> None:
        """Count the calls that have ended."""
        strategy = self._strategy
        while self._ended:
            call = self._ended.popleft()
            keyed = self.calls.pop(call)
            delivery = keyed.item
            self.waiting.end(keyed)
            _, error = call.result()
            if error is None:
                strategy._subscription.done(delivery)
                strategy._router.progressed()
            else:
                self.failures.append((delivery, error))

    def leave(self) -> None:
        """Cancel the calls under way. There are some only if the actor was cancelled."""
        for call in self.calls:
            call.cancel()
            self._strategy._calls.leave_alone(call)
