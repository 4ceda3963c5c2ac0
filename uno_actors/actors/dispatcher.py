"""The dispatcher: one event loop for coroutines, and worker threads for plain functions that may block."""

import asyncio
import contextvars
import sys
import threading
from asyncio.tasks import _enter_task, _leave_task  # see "Extending asyncio" in Python's documentation
from collections import deque
from collections.abc import Callable, Coroutine
from dataclasses import dataclass
from functools import partial
from time import monotonic
from typing import Any, cast

from uno_actors.actors.carrier import Carrier, Waiting
from uno_actors.actors.loop_thread import LoopThread, T, run_on
from uno_actors.actors.worker_pool import MAX_WORKERS, WorkerPool, WorkerStatistics, blocking
from uno_actors.flight_recorder.ring import FlightRecorder
from uno_actors.forks import on_fork
from uno_actors.logs import Logger, get_logger

TURN_SECONDS = 0.005
"""How long actors may hold the loop before other callbacks run."""

INLINE_SECONDS = 0.002
"""Seconds after a turn of the loop during which an actor may run inside the task that awaits its reply."""

MAX_DEPTH = 8
"""Maximum number of actors that run inside one another."""


@dataclass(frozen=True, slots=True)
class DispatcherStatistics:
    """A dispatcher's current state and counters.

    Attributes:
        ready: Actors and callbacks that wait for their turn on the event loop.
        peak: The most that ever waited.
        oldest: Seconds for which the first of them has waited, that is, how late the loop is; ``None`` if none waits.
        turns: Turns that have run.
        failed: Callbacks that raised, which is a bug.
        workers: Its worker threads.
    """

    ready: int
    peak: int
    oldest: float | None
    turns: int
    failed: int
    workers: WorkerStatistics


class Dispatcher:
    """An event loop and its worker threads.

    Args:
        loop: The loop, running or about to run.
        max_workers: Maximum number of worker threads, which are started when first needed.
        log: Has the names of the system bound that runs here; default is one without any.
        recorder: The flight recorder of that system.

    Attributes:
        log: What runs here logs to it.
        recorder: What runs here notes its steps there; ``None`` for nowhere.
        workers: The worker threads.
        thread: Ident of the loop's thread, once a callback has been posted.
        depth: Actors running on the loop now, each inside the one that waits for it.
    """

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        max_workers: int = MAX_WORKERS,
        *,
        log: Logger | None = None,
        recorder: FlightRecorder | None = None,
    ) -> None:
        self.loop = loop
        self.recorder = recorder
        self.log = log or get_logger()
        # A loop may bring workers of its own, as that of a simulation does.
        own: WorkerPool | None = getattr(loop, "workers", None)
        self.workers = own or WorkerPool(max_workers, log=self.log)
        self.thread: int | None = None
        self.depth = 0
        self._posted: deque[Callable[[], object]] = deque()
        self._woken = False
        self._woken_at = 0.0
        self._peak = self._turns = self._failed = 0
        self._context = (
            contextvars.Context()
        )  # callbacks do not inherit the context of the code that posted them
        self._carriers: list[Carrier] = []
        self._inline_until = 0.0

    def is_current(self) -> bool:
        """Whether the caller runs on this dispatcher's loop."""
        return asyncio._get_running_loop() is self.loop

    def post(self, callback: Callable[[], object]) -> bool:
        """Call ``callback`` on the loop soon; from any thread, and in the order of the calls of one thread.

        Returns:
            Whether it will be called: not if the loop is closed.
        """
        self._posted.append(callback)
        if not self._woken:  # a race may cause an extra wake-up, never a missing one: see _run_posted
            self._woken = True
            self._woken_at = monotonic()
            return self._wake()
        return not self.loop.is_closed()

    def _wake(self) -> bool:
        if self.is_current():
            self.loop.call_soon(self._run_posted, context=self._context)
            return True
        try:
            self.loop.call_soon_threadsafe(self._run_posted, context=self._context)
        except RuntimeError:
            if not self.loop.is_closed():
                raise
        return not self.loop.is_closed()

    def call(self, callback: Callable[[], object]) -> bool:
        """Call ``callback`` on the loop: immediately if this is its thread, otherwise soon, as `post` does."""
        if self.is_current():
            callback()
            return True
        return self.post(callback)

    def call_later(self, seconds: float, callback: Callable[[], object]) -> "LaterCall":
        """Call ``callback`` on the loop in ``seconds``; from any thread."""
        later = LaterCall(self, callback)
        self.call(lambda: later.start(seconds))
        return later

    def _run_posted(self) -> None:
        self._woken = False  # first: a callback posted from now on wakes the loop again
        self.thread = threading.get_ident()
        came, now = self._woken_at, monotonic()
        self._inline_until = now + INLINE_SECONDS
        posted = self._posted
        ready = len(posted)
        self._peak = max(self._peak, ready)
        try:
            for _ in range(ready):
                self._turns += 1
                try:
                    posted.popleft()()
                except Exception as error:  # noqa: BLE001 - one callback must not take the others with it
                    self._failed += 1
                    context = {"message": "a posted callback failed", "exception": error}
                    self.loop.call_exception_handler(context)
                if monotonic() > now + TURN_SECONDS:
                    self._woken_at = came  # since when the remaining callbacks wait
                    break
        finally:  # also when a callback ends the loop: it may be run again
            if posted and not self._woken:
                self._woken = True
                self._wake()

    # --- the turns of actors on the loop ---

    def may_run_inline(self) -> bool:
        """Whether an actor may run now inside the task that is about to wait for it.

        It may for `INLINE_SECONDS` after a turn of the loop, so that a task that asks again and again does not starve
        other tasks.
        """
        return (
            self.depth < MAX_DEPTH
            and monotonic() < self._inline_until
            and asyncio._get_running_loop() is self.loop
            and sys.exc_info()[1] is None  # otherwise the actor's errors would get it as their context
        )

    def run_turn(
        self,
        turn: "Callable[[asyncio.Task[None]], Waiting | None]",
        done: Callable[[], object],
        context: contextvars.Context | None = None,
    ) -> None:
        """Run a turn of an actor immediately, in a task and a context that it has to itself.

        Args:
            turn: Takes the task, and returns a coroutine that must wait, if there is one; the task then runs it.
            done: Called when the turn is over.
            context: Default is an empty one.
        """  # every message takes this path, so it has as few steps as possible
        loop = self.loop
        carrier = self._carriers.pop() if self._carriers else Carrier(loop, self._carriers)
        if context is None:
            context = contextvars.Context()
        waiting_task = asyncio.current_task(loop)
        if waiting_task is not None:
            _leave_task(loop, waiting_task)
        _enter_task(loop, carrier.task)
        self.depth += 1
        try:
            waiting = context.run(turn, carrier.task)
        except BaseException:
            done()  # no turn raises; if one did, the actor must still get its next turn
            raise
        finally:
            self.depth -= 1
            _leave_task(loop, carrier.task)
            if waiting_task is not None:
                _enter_task(loop, waiting_task)
        if waiting is None:
            if not carrier.task.cancelling():
                self._carriers.append(carrier)
            done()
        else:
            carrier.carry(context, waiting, done)

    def statistics(self) -> DispatcherStatistics:
        """The current state and counters."""
        ready = len(self._posted)
        oldest = monotonic() - self._woken_at if ready else None
        workers = self.workers.statistics()
        return DispatcherStatistics(ready, max(self._peak, ready), oldest, self._turns, self._failed, workers)

    # --- worker threads ---

    async def on_worker(
        self, function: Callable[..., T], *args: object, stays: Callable[[], bool] | None = None
    ) -> T:
        """Run a plain function on a worker thread, in the caller's context, and return its result.

        A thread cannot be cancelled. If the caller is cancelled and ``stays()`` is true, it still waits until the
        function has ended, and takes its result, so that an actor never handles two messages at a time. Otherwise the
        caller leaves immediately and the function runs on alone.
        """
        call = _Call(self.loop.create_future())
        context = contextvars.copy_context()

        def work() -> None:
            outcome = outcome_of(partial(context.run, function, *args))
            self.post(partial(call.end, outcome))

        self.workers.submit(work)
        while True:
            try:
                return cast("T", await call.waiter)
            except asyncio.CancelledError:
                if not call.waiter.cancelled() or stays is None or not stays():
                    raise  # the function raised it, or its outcome no longer matters
                call.wait_again(self.loop.create_future())

    def run_coroutine(self, coroutine: Coroutine[Any, Any, T]) -> T:
        """Run a coroutine on the loop from another thread, and wait for its result.

        Raises:
            WorkCancelled: It was cancelled.
            InternalError: The loop was closed, so the result would never arrive.
        """
        with blocking():
            return run_on(self.loop, coroutine, lambda: not self.loop.is_closed())

    def close(self) -> None:
        """End idle worker threads; busy ones end when their work does."""
        self.workers.close()
        if not self.loop.is_closed():
            self.call(self._dismiss)

    def _dismiss(self) -> None:
        for carrier in self._carriers:
            carrier.task.cancel()


class LaterCall:
    """A pending call on a dispatcher's loop; it may be cancelled from any thread."""

    def __init__(self, dispatcher: Dispatcher, callback: Callable[[], object]) -> None:
        self._dispatcher = dispatcher
        self._callback: Callable[[], object] | None = callback
        self._timer: asyncio.TimerHandle | None = None

    def start(self, seconds: float) -> None:
        """On the loop: start the timer."""
        callback = self._callback
        if callback is not None:
            self._timer = self._dispatcher.loop.call_later(seconds, callback)

    def cancel(self) -> None:
        """Cancel the call; has no effect once it was made."""
        self._callback = None
        if self._timer is not None:
            self._dispatcher.call(self._timer.cancel)


def outcome_of(function: Callable[[], T]) -> tuple[T | None, BaseException | None]:
    """What ``function()`` returns or raises; a ``StopIteration``, which no coroutine can raise, as `RuntimeError`."""
    try:
        return function(), None
    except StopIteration as error:
        stopped = RuntimeError(f"{function!r} raised StopIteration")
        stopped.__cause__ = error
        return None, stopped
    except BaseException as error:  # noqa: BLE001 - SystemExit is an outcome too
        return None, error


class _Call:
    """A call on a worker thread, and the future that waits for its end. Used on the loop only."""

    __slots__ = ("outcome", "waiter")

    def __init__(self, waiter: "asyncio.Future[Any]") -> None:
        self.waiter = waiter
        self.outcome: tuple[object, BaseException | None] | None = None

    def wait_again(self, waiter: "asyncio.Future[Any]") -> None:
        """The waiting task was cancelled, but keeps waiting."""
        self.waiter = waiter
        if self.outcome is not None:
            self.end(self.outcome)

    def end(self, outcome: tuple[object, BaseException | None]) -> None:
        """The function has returned or raised."""
        self.outcome = outcome
        value, error = outcome
        if self.waiter.done():  # the waiting task was cancelled
            return
        if error is None:
            self.waiter.set_result(value)
        else:
            self.waiter.set_exception(error)


_default_lock = threading.Lock()

_default: Dispatcher | None = None


def default_dispatcher() -> Dispatcher:
    """The dispatcher of actors started by pykka's own ``start()``, outside any system."""
    global _default  # noqa: PLW0603 - one per process, made when first needed
    with _default_lock:
        if _default is None or _default.loop.is_closed():
            _default = Dispatcher(LoopThread("uno-default-loop").loop)
        return _default


def _forget_default() -> None:
    global _default, _default_lock  # a forked child has none of its parent's threads
    _default, _default_lock = None, threading.Lock()


on_fork(after_in_child=_forget_default)
