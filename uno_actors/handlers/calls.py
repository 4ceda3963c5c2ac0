"""Calls of one handler: on the event loop or on a worker thread, with a time limit, its cause and its context."""

import asyncio
import time
from collections.abc import Awaitable, Callable, Iterator, Sequence
from contextlib import contextmanager
from contextvars import Context
from inspect import isawaitable
from threading import get_ident
from typing import Any, TypeVar

from uno_actors.actors.ask import being_handled
from uno_actors.actors.carrier import run_in
from uno_actors.actors.dispatcher import Dispatcher
from uno_actors.causality import Cause, caused_by
from uno_actors.causality import _current as _current_cause
from uno_actors.domain.events import DomainEvent
from uno_actors.errors import HandlerTimeout
from uno_actors.handlers.services import SystemServices
from uno_actors.handlers.spec import BoundHandler, HandlerContext
from uno_actors.handlers.subscription import Delivery, Subscription
from uno_actors.observing import Observation
from uno_actors.store.port import EventStore
from uno_actors.tasks import begin

T = TypeVar("T")

BATCH_SECONDS = 0.01
"""After this time a worker thread comes back, so that lower priorities do not wait for a whole batch."""

Called = tuple[int, BaseException | None]
"""Number of events of a batch that were handled, and the error of the next event, if any."""


class HandlerCalls:
    """Calls one handler. A call returns the handler's error and never raises it.

    Args:
        subscription: The handler's subscription.
        handler: The callable.
        store: The store that the events come from.
        dispatcher: Runs plain functions on worker threads.
        system: The services for the handler's context.
        stays: Returns whether to keep waiting for a call on a thread; false once the actor is abandoned.
        observed: The observers of the system, if there are any.
    """

    def __init__(
        self,
        subscription: Subscription,
        handler: BoundHandler,
        store: EventStore,
        dispatcher: Dispatcher,
        system: SystemServices,
        *,
        stays: Callable[[], bool],
        observed: Observation | None = None,
    ) -> None:
        self.handler = handler
        self._observed = observed
        self._subscription = subscription
        self._timeout = subscription.spec.timeout
        self._takes_lists = subscription.spec.takes_lists
        self._store = store
        self._registry = store.event_registry
        self._dispatcher = dispatcher
        self._recorder = dispatcher.recorder
        self._system = system
        self._stays = stays
        self._log = subscription.logger
        self._program_log = subscription.logger.for_program() if handler.takes_context else None

    @property
    def takes_lists(self) -> bool:
        """Whether the handler receives lists of events."""
        return self._takes_lists

    async def on_worker(self, function: Callable[..., T], *args: Any) -> T:
        """The result of a plain function that runs on a worker thread, as plain handlers do."""
        return await self._dispatcher.on_worker(function, *args, stays=self._stays)

    def begin(self, batch: Sequence[Delivery]) -> "asyncio.Task[Called]":
        """Start `call` in its own task."""
        return begin(self._dispatcher.loop, self.call(batch))

    def leave_alone(self, call: "asyncio.Future[Called]") -> None:
        """Stop waiting for ``call``, which still runs: until it ends, the handler is not called again."""
        self._subscription.overdue.add(call)
        call.add_done_callback(self._came_back)

    async def call(self, batch: Sequence[Delivery]) -> Called:
        """Call the handler for ``batch``, on the loop or on a worker thread, for no longer than its ``timeout``."""
        if self._recorder is None:
            return await self._call_in_time(batch)
        began = time.monotonic()
        count, error = await self._call_in_time(batch)
        self.note(began, batch, count, error)
        return count, error

    def note(self, began: float, batch: Sequence[Delivery], count: int, error: BaseException | None) -> None:
        """Note that ``count`` events of ``batch`` were handled since ``began``, and the error of the next one."""
        recorder, name = self._recorder, self._subscription.name
        if recorder is not None:
            if count:
                recorder.handled(name, began, batch[0].position, batch[count - 1], count)
            if error is not None:
                blamed = batch[-1] if self._takes_lists else batch[count]
                recorder.handler_failed(name, began, blamed, len(batch) if self._takes_lists else 1, error)

    async def _call_in_time(self, batch: Sequence[Delivery]) -> Called:
        seconds = self._timeout
        if seconds is None:
            return await self._run(batch)
        if self.handler.is_async:
            async with asyncio.timeout(seconds) as limit:
                count, error = await self._run(batch)  # returns the cancellation as its error
            late = error is not None and limit.expired()
            return (0, self._too_late(batch, error)) if late else (count, error)
        call = begin(self._dispatcher.loop, self._run(batch))
        try:
            await asyncio.wait({call}, timeout=seconds)
        except asyncio.CancelledError:
            self.leave_alone(call)
            raise
        if call.done():
            return call.result()
        self.leave_alone(call)
        return 0, self._too_late(batch, None)

    async def _run(self, batch: Sequence[Delivery]) -> Called:
        if self.handler.is_async:
            return await self.run_async(batch)
        size = 1 if self._subscription.spec.batch is None else len(batch)
        # Wait for a call on a thread, because it must not run twice, unless the actor was abandoned.
        return await self._dispatcher.on_worker(self.run_plain, batch, size, stays=self._stays)

    async def run_async(self, batch: Sequence[Delivery], *, is_measured: bool = False) -> Called:
        """Call a coroutine function once, without a time limit."""
        observed = self._observed
        if observed is not None and not is_measured:
            return await self._measure(observed, batch)
        if batch[-1].context is not None or (observed is not None and observed.in_contexts):
            return await run_in(self._context_of(batch[-1]), self._in_context(batch))
        try:
            given, last = self._given(batch), batch[-1]
            token = _current_cause.set(self._cause(batch))  # like `caused_by`, but twice as fast
            try:
                await self.handler(given, self._context(last))
            finally:
                _current_cause.reset(token)
        except BaseException as error:  # noqa: BLE001 - SystemExit too is the handler's failure
            return 0, error
        return len(batch), None

    async def _measure(self, observed: Observation, batch: Sequence[Delivery]) -> Called:
        began = time.monotonic()
        called = await self.run_async(batch, is_measured=True)
        observed.handler_measured(self._subscription.name, len(batch), time.monotonic() - began, called[1])
        return called

    def call_here(self, delivery: Delivery) -> BaseException | None:
        """Call a plain function for one event on this worker thread, without a time limit; return its error."""
        began = time.monotonic()
        count, error = self.run_plain([delivery], 1)
        self.note(began, [delivery], count, error)
        return error

    def run_plain(self, batch: Sequence[Delivery], size: int) -> Called:
        """Handle events on a worker thread for `BATCH_SECONDS`, ``size`` events per call."""
        deadline = min(time.monotonic() + BATCH_SECONDS, self._subscription.lease.sure_until)
        threads, thread = self._subscription.threads, get_ident()
        threads.add(thread)
        try:
            return self._run_until(deadline, batch, size)
        finally:
            threads.discard(thread)

    def _run_until(self, deadline: float, batch: Sequence[Delivery], size: int) -> Called:
        for count in range(0, len(batch), size):
            if count and (time.monotonic() > deadline or not self._subscription.leased):
                return count, None
            part = batch[count : count + size]
            error = self._run_part(part)
            if error is not None:
                return count, error
        return len(batch), None

    def _run_part(self, part: Sequence[Delivery]) -> BaseException | None:
        """The error of one call on this worker thread."""
        observed = self._observed
        began, failed = time.monotonic(), None
        try:
            if part[-1].context is None and (observed is None or not observed.in_contexts):
                self._call_plain(part)
            else:
                self._context_of(part[-1]).run(self._call_plain_in_context, part)
        except BaseException as error:  # noqa: BLE001 - SystemExit too is the handler's failure
            failed = error
        if observed is not None:
            observed.handler_measured(self._subscription.name, len(part), time.monotonic() - began, failed)
        return failed

    def _call_plain(self, batch: Sequence[Delivery]) -> None:
        given, last = self._given(batch), batch[-1]
        with caused_by(self._cause(batch)):
            result = self.handler(given, self._context(last))
            if result is not None and isawaitable(result):  # a coroutine, or the future of an ask
                self._dispatcher.run_coroutine(_wait_for(result))

    # --- calls in the context of a message ---

    def _context_of(self, delivery: Delivery) -> Context:
        """The context for a call; a copy, so that handlers do not see what others bind."""
        context = Context() if delivery.context is None else delivery.context.copy()
        context.run(being_handled.set, being_handled.get())  # the message of this actor
        return context

    async def _in_context(self, batch: Sequence[Delivery]) -> Called:
        """As `run_async`, with the observers told, in the context of the call."""
        try:
            given, last = self._given(batch), batch[-1]
            _current_cause.set(self._cause(batch))
            if self._observed is None:
                await self.handler(given, self._context(last))
            else:
                with self._told(self._observed, batch):
                    await self.handler(given, self._context(last))
        except BaseException as error:  # noqa: BLE001 - SystemExit too is the handler's failure
            return 0, error
        return len(batch), None

    def _call_plain_in_context(self, batch: Sequence[Delivery]) -> None:
        if self._observed is None:
            self._call_plain(batch)
        else:
            with self._told(self._observed, batch):
                self._call_plain(batch)

    @contextmanager
    def _told(self, observed: Observation, batch: Sequence[Delivery]) -> Iterator[None]:
        """Tell the observers of the call that is made inside the block."""
        name = self._subscription.name
        observed.handler_called(name, batch, self._subscription.failures.attempt(batch[-1].position))
        began = time.monotonic()
        try:
            yield
        except BaseException as error:
            observed.handler_returned(name, batch, time.monotonic() - began, error)
            raise
        observed.handler_returned(name, batch, time.monotonic() - began, None)

    def _too_late(self, batch: Sequence[Delivery], cause: BaseException | None) -> HandlerTimeout:
        first, last = batch[0], batch[-1]
        event = f"{first.record.event_type} at position {first.position}"
        if last is not first:
            event = f"a batch of {len(batch)} events from {event} to {last.position}"
        late = HandlerTimeout(self._subscription.name, event, self._timeout or 0)
        late.__cause__ = cause  # shows where the call was cancelled
        return late

    def _came_back(self, call: "asyncio.Future[Called]") -> None:
        """Allow the next call of the handler, because an overdue call has ended."""
        subscription = self._subscription
        subscription.overdue.discard(call)
        if not call.cancelled():
            self._log.info("handler returned after its time was over")
        if not subscription.overdue and subscription.state != "stopped":
            subscription.wake()

    def _cause(self, batch: Sequence[Delivery]) -> Cause:
        """Return the last event of ``batch`` as the cause of its effects, which all come after its first event."""
        record = batch[-1].record
        correlation_id = record.correlation_id or record.event_id
        return Cause(correlation_id, record.event_id, batch[0].position, self._store)

    def _given(self, batch: Sequence[Delivery]) -> DomainEvent | list[DomainEvent]:
        """Return the event or the list of events to call the handler with."""
        events = [delivery.event(self._registry) for delivery in batch]
        return events if self._takes_lists else events[0]

    def _context(self, delivery: Delivery) -> HandlerContext | None:
        """Return the context if the handler takes one. Making it costs more than a call of a small handler."""
        if self._program_log is None:
            return None
        subscription, position = self._subscription, delivery.position
        record = delivery.record
        names = {"correlation_id": record.correlation_id} if record.correlation_id else {}
        logger = self._program_log.bind(event_type=record.event_type, position=position, **names)
        attempt = subscription.failures.attempt(position)
        return HandlerContext(position, attempt, subscription.name, logger, self._system)


async def _wait_for(result: Awaitable[object]) -> None:
    """Wait for the awaitable that a plain function returned."""
    await result
