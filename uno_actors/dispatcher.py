"""Where actors run: one event loop for coroutines, and worker threads for plain functions that may block."""

import asyncio
import contextvars
import queue
import threading
from collections import deque
from collections.abc import Callable, Coroutine, Iterator
from concurrent.futures import Future as ThreadFuture
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any, TypeVar, cast

from uno_actors.errors import InternalError

T = TypeVar("T")

MAX_WORKERS = 32
"""Worker threads that run at once. One that waits for a reply does not count: a spare one takes its place."""
MAX_SPARE = 512
"""Spare threads at the most."""
CANCEL_SECONDS = 1.0
"""How long the end of a loop's thread waits for tasks that were cancelled."""


LOOK_SECONDS = 1.0
"""Between two looks at whether a loop's thread, for which another waits, is still there."""


class Dispatcher:
    """An event loop and its worker threads.

    Args:
        loop: The loop, running or about to run.
        max_workers: Bound of the worker threads, which are started when first needed.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop, max_workers: int = MAX_WORKERS) -> None:
        self.loop = loop
        self._posted: deque[Callable[[], object]] = deque()
        self._woken = False
        self._context = contextvars.Context()  # what is posted does not inherit the cause of who posted it
        self._workers = WorkerPool(max_workers)

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

    def _run_posted(self) -> None:
        self._woken = False  # first: whoever posts from now on wakes the loop again
        posted = self._posted
        for _ in range(len(posted)):
            try:
                posted.popleft()()
            except Exception as error:  # noqa: BLE001 - one callback must not take the others with it
                context = {"message": "a posted callback failed", "exception": error}
                self.loop.call_exception_handler(context)

    async def on_worker(self, function: Callable[..., T], *args: object) -> T:
        """Run a plain function on a worker thread, in the caller's context, and return its result."""
        context = contextvars.copy_context()
        return await asyncio.wrap_future(self._workers.submit(context.run, function, *args), loop=self.loop)

    def submit(self, function: Callable[..., object], *args: object) -> None:
        """Run a plain function on a worker thread; it answers for its own errors."""
        self._workers.submit(function, *args)

    def run_coroutine(self, coroutine: Coroutine[Any, Any, T]) -> T:
        """Run a coroutine on the loop from another thread, and wait for its result."""
        return _run_on(self.loop, coroutine)

    def close(self) -> None:
        """Let idle worker threads end; those that are busy end with their work."""
        self._workers.close()


_worker = threading.local()


def standing_still() -> AbstractContextManager[None]:
    """To be entered where a thread waits for others; if it is a worker thread, a spare one takes its place."""
    pool: WorkerPool | None = getattr(_worker, "pool", None)
    return nullcontext() if pool is None else pool.blocked()


class WorkerPool:
    """Daemon threads that take work from one queue: a function that never returns does not keep the program."""

    def __init__(self, max_workers: int) -> None:
        self._max_workers = max_workers
        self._work: queue.SimpleQueue[
            tuple[ThreadFuture[Any], Callable[..., Any], tuple[object, ...]] | None
        ] = queue.SimpleQueue()
        self._idle = 0
        self._count = 0
        self._blocked = 0
        self._closed = False
        self._lock = threading.Lock()

    def submit(self, function: Callable[..., T], *args: object) -> "ThreadFuture[T]":
        """Have ``function(*args)`` run on a worker thread; after `close` on one of its own."""
        future: ThreadFuture[T] = ThreadFuture()
        with self._lock:
            self._work.put((future, function, args))
            if self._idle > 0:
                self._idle -= 1
            else:
                self._start_one()
            if self._closed:
                self._work.put(None)
        return future

    def _start_one(self) -> None:
        if self._closed or self._count < self._max_workers + min(self._blocked, MAX_SPARE):
            self._count += 1
            threading.Thread(target=self._run, name=f"uno-worker-{self._count}", daemon=True).start()

    @contextmanager
    def blocked(self) -> Iterator[None]:
        """One of the threads stands still inside the block; a spare one does what waits meanwhile."""
        with self._lock:
            self._blocked += 1
            if not self._work.empty() and not self._idle and not self._closed:
                self._start_one()
        try:
            yield
        finally:
            with self._lock:
                self._blocked -= 1

    def close(self) -> None:
        """End the threads once the queue is empty."""
        with self._lock:
            self._closed = True
            for _ in range(self._count):
                self._work.put(None)
            self._idle = self._count = 0  # whatever comes now gets a thread of its own, and an end behind it

    def _run(self) -> None:
        _worker.pool = self
        while (work := self._work.get()) is not None:
            future, function, args = work
            if future.set_running_or_notify_cancel():
                try:
                    result = function(*args)
                except StopIteration as error:
                    stopped = RuntimeError(
                        f"{function!r} raised StopIteration"
                    )  # which no coroutine can raise
                    stopped.__cause__ = error
                    future.set_exception(stopped)
                except BaseException as error:  # noqa: BLE001 - SystemExit too is the function's result
                    future.set_exception(error)
                else:
                    future.set_result(result)
            del work, future, function, args
            with self._lock:
                if not self._closed:
                    self._idle += 1


class LoopThread:
    """An event loop on a daemon thread of its own, for programs that have none."""

    def __init__(self, name: str) -> None:
        self.loop = _new_loop()
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)
        self._thread.start()

    def run(self, coroutine: Coroutine[Any, Any, T]) -> T:
        """Run a coroutine on the loop and wait for its result.

        Raises:
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
    loop: asyncio.AbstractEventLoop,
    coroutine: Coroutine[Any, Any, T],
    is_alive: Callable[[], bool] = lambda: True,
) -> T:
    """Run a coroutine on a loop of another thread; its SystemExit is its result and does not end the loop."""

    async def outcome() -> tuple[T | None, BaseException | None]:
        try:
            return await coroutine, None
        except BaseException as error:  # noqa: BLE001 - raised below, where somebody waits for it
            return None, error

    future = asyncio.run_coroutine_threadsafe(outcome(), loop)
    while True:
        try:
            result, error = future.result(LOOK_SECONDS)
            break
        except TimeoutError:  # never the coroutine's own, which is in the outcome
            if not is_alive():
                raise InternalError("the thread of an event loop has ended while it was needed") from None
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
