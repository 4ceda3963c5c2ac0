"""Where actors run: one event loop for coroutines, and worker threads for plain functions that may block."""

import asyncio
import concurrent.futures
import contextvars
import os
import queue
import sys
import threading
from asyncio.tasks import _enter_task, _leave_task  # see "Extending asyncio" in Python's documentation
from collections import deque
from collections.abc import Callable, Coroutine, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from functools import partial
from time import monotonic
from typing import Any, TypeVar, cast

from uno_actors.actors.carrier import Carrier, Waiting
from uno_actors.errors import BlockingCallOnLoop, InternalError, as_error
from uno_actors.logs import get_logger
from uno_actors.tasks import surely

T = TypeVar("T")

MAX_WORKERS = 32
"""Worker threads that run at once. One that waits for a reply does not count, nor does one that is held by what
it runs for over a second: a spare one takes its place."""
MAX_SPARE = 512
"""Spare threads at the most."""
CANCEL_SECONDS = 1.0
"""How long the end of a loop's thread waits for tasks that were cancelled."""


TURN_SECONDS = 0.005
"""How long actors keep the loop from whatever else runs on it."""
LENDING_SECONDS = 0.002
"""For so long after a turn of the loop an actor may run inside of whoever awaits its reply."""
MAX_DEPTH = 8
"""Actors that run inside of one another."""
LOOK_SECONDS = 1.0
"""Between two looks at whether a loop's thread, for which another waits, is still there."""


@dataclass(frozen=True, slots=True)
class WorkerStatistics:
    """What worker threads are at.

    Attributes:
        threads: Threads that live.
        busy: Those that run a function now.
        blocked: Those that stand still, waiting for a reply; spare ones take their place.
        waiting: Functions that wait for a thread.
    """

    threads: int
    busy: int
    blocked: int
    waiting: int


@dataclass(frozen=True, slots=True)
class DispatcherStatistics:
    """What a dispatcher is at.

    Attributes:
        ready: Actors and callbacks that wait for their turn on the event loop.
        peak: The most that ever waited.
        oldest: Seconds for which the first of them has waited: how late the loop is; ``None`` if none waits.
        turns: How many had their turn.
        failed: Callbacks that raised, which they should not.
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
        max_workers: Bound of the worker threads, which are started when first needed.

    Attributes:
        workers: The worker threads.
        thread: Ident of the loop's thread, once anything was posted.
        depth: Actors on the loop that run now, each inside of the one before that waits for it.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop, max_workers: int = MAX_WORKERS) -> None:
        self.loop = loop
        self.workers = WorkerPool(max_workers)
        self.thread: int | None = None
        self.depth = 0
        self._posted: deque[Callable[[], object]] = deque()
        self._woken = False
        self._woken_at = 0.0
        self._peak = self._turns = self._failed = 0
        self._context = contextvars.Context()  # what is posted does not inherit the cause of who posted it
        self._carriers: list[Carrier] = []
        self._lends_until = 0.0

    def is_current(self) -> bool:
        """Whether the caller runs on this dispatcher's loop."""
        return asyncio._get_running_loop() is self.loop

    def post(self, callback: Callable[[], object]) -> bool:
        """Call ``callback`` on the loop soon; from any thread, and in the order of the calls of one thread.

        Returns:
            Whether it will be called: not if the loop is closed.
        """
        self._posted.append(callback)
        if not self._woken:  # a race costs one wake-up too many, never one too few: see _run_posted
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
        """Call ``callback`` on the loop: at once if this is its thread, else soon, as `post` does."""
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
        self._woken = False  # first: whoever posts from now on wakes the loop again
        self.thread = threading.get_ident()
        came, now = self._woken_at, monotonic()
        self._lends_until = now + LENDING_SECONDS
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
                    self._woken_at = came  # that of those who are left
                    break
        finally:  # also when one ends the loop: it may be run again
            if posted and not self._woken:
                self._woken = True
                self._wake()

    # --- the turns of actors on the loop ---

    def lends(self) -> bool:
        """Whether an actor may run now inside of whoever is about to wait for it.

        It may on the loop, in a task, for `LENDING_SECONDS` from the last turn of the loop on, so that nobody
        who asks and asks keeps the loop from others.
        """
        return (
            self.depth < MAX_DEPTH
            and monotonic() < self._lends_until
            and asyncio._get_running_loop() is self.loop
            and sys.exc_info()[1] is None  # else errors of the actor would seem to follow from that one
        )

    def run_turn(
        self,
        turn: "Callable[[asyncio.Task[None]], Waiting | None]",
        done: Callable[[], object],
        context: contextvars.Context | None = None,
    ) -> None:
        """Run a turn of an actor here and now, in a task and a context that are nobody else's meanwhile.

        Args:
            turn: Is given the task, and returns a coroutine that has to wait, if there is one; the task then
                goes on with it.
            done: Called when the turn is over.
            context: Default is an empty one.
        """  # in as few steps as can be: it is the way of every message
        loop = self.loop
        carrier = self._carriers.pop() if self._carriers else Carrier(loop, self._carriers)
        if context is None:
            context = contextvars.Context()
        lender = asyncio.current_task(loop)
        if lender is not None:
            _leave_task(loop, lender)
        _enter_task(loop, carrier.task)
        self.depth += 1
        try:
            waiting = context.run(turn, carrier.task)
        except BaseException:
            done()  # no turn raises; one that did must not be the actor's last
            raise
        finally:
            self.depth -= 1
            _leave_task(loop, carrier.task)
            if lender is not None:
                _enter_task(loop, lender)
        if waiting is None:
            if not carrier.task.cancelling():
                self._carriers.append(carrier)
            done()
        else:
            carrier.carry(context, waiting, done)

    def statistics(self) -> DispatcherStatistics:
        """What it is at."""
        ready = len(self._posted)
        oldest = monotonic() - self._woken_at if ready else None
        workers = self.workers.statistics()
        return DispatcherStatistics(ready, max(self._peak, ready), oldest, self._turns, self._failed, workers)

    # --- worker threads ---

    async def on_worker(
        self, function: Callable[..., T], *args: object, stays: Callable[[], bool] | None = None
    ) -> T:
        """Run a plain function on a worker thread, in the caller's context, and return its result.

        A thread cannot be cancelled. If the caller is, and ``stays()``, it waits all the same until the function
        has ended, and has its result: so what handles one thing at a time never handles two. Else it is gone at
        once, and the function is left to itself.
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
                    raise  # it is the function's own, or nobody wants to know how the function ends
                call.wait_again(self.loop.create_future())

    def run_coroutine(self, coroutine: Coroutine[Any, Any, T]) -> T:
        """Run a coroutine on the loop from another thread, and wait for its result.

        Raises:
            WorkCancelled: It was cancelled.
            InternalError: The loop was closed, so that nothing would ever come.
        """
        with standing_still():
            return _run_on(self.loop, coroutine, lambda: not self.loop.is_closed())

    def close(self) -> None:
        """Let idle worker threads end; those that are busy end with their work."""
        self.workers.close()
        if not self.loop.is_closed():
            self.call(self._dismiss)

    def _dismiss(self) -> None:
        for carrier in self._carriers:
            carrier.task.cancel()


class LaterCall:
    """A call on a dispatcher's loop that is to come; it may be cancelled from any thread."""

    def __init__(self, dispatcher: Dispatcher, callback: Callable[[], object]) -> None:
        self._dispatcher = dispatcher
        self._callback: Callable[[], object] | None = callback
        self._timer: asyncio.TimerHandle | None = None

    def start(self, seconds: float) -> None:
        """On the loop: let the time begin."""
        callback = self._callback
        if callback is not None:
            self._timer = self._dispatcher.loop.call_later(seconds, callback)

    def cancel(self) -> None:
        """Forget the call; without effect once it was made."""
        self._callback = None
        if self._timer is not None:
            self._dispatcher.call(self._timer.cancel)


def outcome_of(function: Callable[[], T]) -> tuple[T | None, BaseException | None]:
    """What ``function()`` returns or raises; a ``StopIteration``, which no coroutine can raise, as an error."""
    try:
        return function(), None
    except StopIteration as error:
        stopped = RuntimeError(f"{function!r} raised StopIteration")
        stopped.__cause__ = error
        return None, stopped
    except BaseException as error:  # noqa: BLE001 - SystemExit too is the function's result
        return None, error


class _Call:
    """A call on a worker thread, and who waits for its end. Lives on the loop."""

    __slots__ = ("outcome", "waiter")

    def __init__(self, waiter: "asyncio.Future[Any]") -> None:
        self.waiter = waiter
        self.outcome: tuple[object, BaseException | None] | None = None

    def wait_again(self, waiter: "asyncio.Future[Any]") -> None:
        """Whoever waited was cancelled, and waits all the same."""
        self.waiter = waiter
        if self.outcome is not None:
            self.end(self.outcome)

    def end(self, outcome: tuple[object, BaseException | None]) -> None:
        """The function has returned or raised."""
        self.outcome = outcome
        value, error = outcome
        if self.waiter.done():  # whoever waited was cancelled
            return
        if error is None:
            self.waiter.set_result(value)
        else:
            self.waiter.set_exception(error)


_worker = threading.local()


def standing_still() -> AbstractContextManager[None]:
    """To be entered where a thread waits for others; if it is a worker thread, a spare one takes its place."""
    pool: WorkerPool | None = getattr(_worker, "pool", None)
    return nullcontext() if pool is None else pool.blocked()


class WorkerPool:
    """Daemon threads that take work from one queue: a function that never returns does not keep the program.

    Args:
        max_workers: Threads that run at once, those that stand still not counted.
        max_spare: Threads that take the place of those that stand still.
        name: Of the threads.
    """

    def __init__(self, max_workers: int, max_spare: int = MAX_SPARE, name: str = "uno-worker") -> None:
        self._max_workers = max_workers
        self._max_spare = max_spare
        self._name = name
        self._work: queue.SimpleQueue[Callable[[], object] | None] = queue.SimpleQueue()
        self._free = 0  # idle threads; below 0: functions that wait for a thread
        self._count = 0
        self._blocked = 0
        self._held = 0
        self._closed = False
        self._lock = threading.RLock()  # a signal handler may submit on the thread that it interrupts here
        self.busy: dict[int, float] = {}  # by thread: since when it is at its work, on time.monotonic's clock

    def submit(self, function: Callable[[], object]) -> None:
        """Have ``function()`` run on a worker thread; after `close` on one of its own. It answers for its errors."""
        with self._lock:
            self._work.put(function)
            self._free -= 1
            if self._free < 0:
                self._start_one()
            if self._closed:
                self._work.put(None)

    def statistics(self) -> WorkerStatistics:
        """What the threads are at."""
        with self._lock:
            return WorkerStatistics(self._count, len(self.busy), self._blocked, self._work.qsize())

    def _start_one(self) -> None:
        if self._closed or self._count < self._max_workers + min(self._blocked + self._held, self._max_spare):
            name = f"{self._name}-{self._count + 1}"
            try:
                threading.Thread(target=self._run, name=name, daemon=True).start()
            except RuntimeError:  # the system has no more threads
                if self._closed or not self._count:
                    raise  # else those that there are do the work, one after the other
                return
            self._count += 1
            self._free += 1

    @contextmanager
    def blocked(self) -> Iterator[None]:
        """One of the threads stands still inside the block; a spare one does what waits meanwhile."""
        thread = threading.get_ident()
        with self._lock:
            self._blocked += 1
            self.busy.pop(thread, None)
            if self._free < 0 and not self._closed:
                self._start_one()
        try:
            yield
        finally:
            with self._lock:
                self._blocked -= 1
                self.busy[thread] = monotonic()

    def relieve(self, held: int) -> None:
        """So many threads are held by what they run, who knows for how long: spare ones do what waits meanwhile."""
        with self._lock:
            self._held = held
            for _ in range(min(held, -self._free)):
                self._start_one()

    def close(self) -> None:
        """End the threads once the queue is empty."""
        with self._lock:
            self._closed = True
            for _ in range(self._count):
                self._work.put(None)
            self._free = self._count = 0  # whatever comes now gets a thread of its own, and an end behind it

    def _run(self) -> None:
        _worker.pool = self
        thread = threading.get_ident()
        while (work := self._work.get()) is not None:
            self.busy[thread] = monotonic()
            try:
                work()
            except BaseException as error:  # noqa: BLE001 - one function must not take the thread with it
                get_logger().error("a function on a worker thread failed", exc_info=error)
            self.busy.pop(thread, None)
            del work
            with self._lock:
                if not self._closed:
                    self._free += 1


class LoopThread:
    """An event loop on a daemon thread of its own, for programs that have none."""

    def __init__(self, name: str) -> None:
        self.loop = _new_loop()
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)
        self._thread.start()

    def run(self, coroutine: Coroutine[Any, Any, T]) -> T:
        """Run a coroutine on the loop and wait for its result.

        Raises:
            WorkCancelled: It was cancelled.
            BlockingCallOnLoop: This is the thread of that loop.
            InternalError: The thread has ended, so that nothing would ever come.
        """
        return _run_on(self.loop, coroutine, self._thread.is_alive)

    def close(self) -> None:
        """Cancel what still runs on the loop, stop it and wait for its thread.

        A task that does not let itself be cancelled is abandoned after `CANCEL_SECONDS`.
        """
        self.run(_cancel_others())
        self.loop.call_soon_threadsafe(self.loop.stop)
        self._thread.join()
        self.loop.close()

    def _run(self) -> None:
        asyncio.set_event_loop(self.loop)
        self.loop.run_forever()


async def _cancel_others() -> None:
    others = asyncio.all_tasks() - {asyncio.current_task()}
    for task in others:
        task.cancel()
    if others:
        await asyncio.wait(others, timeout=CANCEL_SECONDS)


def _run_on(
    loop: asyncio.AbstractEventLoop, coroutine: Coroutine[Any, Any, T], is_alive: Callable[[], bool]
) -> T:
    """Run a coroutine on a loop of another thread; its SystemExit is its result and does not end the loop."""
    if asyncio._get_running_loop() is loop:
        coroutine.close()
        raise BlockingCallOnLoop("run()", "await")
    future, running = _submit(loop, coroutine)
    while True:
        try:
            outcome = future.result(LOOK_SECONDS)
            break
        except TimeoutError:  # never the coroutine's own, which is in the outcome
            if not is_alive():
                running.close()
                coroutine.close()
                raise InternalError("the thread of an event loop has ended while it was needed") from None
    return _unpacked(outcome)


async def on_other_loop(loop: asyncio.AbstractEventLoop, coroutine: Coroutine[Any, Any, T]) -> T:
    """Await a coroutine that runs on the loop of another thread; to be cancelled cancels it.

    Raises:
        WorkCancelled: It was cancelled there, and the caller was not.
    """
    return _unpacked(await asyncio.wrap_future(_submit(loop, coroutine)[0]))


Ended = tuple[T | None, BaseException | None]


def _submit(
    loop: asyncio.AbstractEventLoop, coroutine: Coroutine[Any, Any, T]
) -> "tuple[concurrent.futures.Future[Ended[T]], Coroutine[Any, Any, Ended[T]]]":
    async def outcome() -> Ended[T]:
        try:
            return await coroutine, None
        except BaseException as error:  # noqa: BLE001 - raised where somebody waits for it
            return None, error

    running = surely(outcome())
    try:
        return asyncio.run_coroutine_threadsafe(running, loop), running
    except RuntimeError:  # the loop is closed
        running.close()
        coroutine.close()
        raise


def _unpacked(outcome: Ended[T]) -> T:
    result, error = outcome
    if isinstance(error, asyncio.CancelledError):
        raise as_error(error, "a coroutine on another event loop") from error
    if error is not None:
        raise error
    return cast("T", result)


def _new_loop() -> asyncio.AbstractEventLoop:
    """A loop of uvloop if it is installed, else of asyncio."""
    try:
        import uvloop  # type: ignore[import-not-found,unused-ignore]  # noqa: PLC0415 - optional
    except ImportError:
        return asyncio.new_event_loop()
    loop: asyncio.AbstractEventLoop = uvloop.new_event_loop()
    return loop


_default_lock = threading.Lock()
_default: Dispatcher | None = None


def default_dispatcher() -> Dispatcher:
    """The dispatcher of actors that are started by pykka's own ``start()``, outside of any system."""
    global _default  # noqa: PLW0603 - one per process, made when first needed
    with _default_lock:
        if _default is None or _default.loop.is_closed():
            _default = Dispatcher(LoopThread("uno-default-loop").loop)
        return _default


def _forget_default() -> None:
    global _default, _default_lock  # the threads of the process that forked are not here
    _default, _default_lock = None, threading.Lock()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget_default)
