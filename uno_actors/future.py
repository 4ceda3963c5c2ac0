"""The reply that is to come: awaited on an event loop, or got with ``get`` on any other thread."""

import asyncio
import contextlib
import functools
import queue
import sys
import threading
import time
from collections.abc import Callable, Generator, Iterable, Sequence
from types import TracebackType
from typing import Any, TypeVar, cast

from uno_actors._pykka import PykkaFuture, PykkaTimeout
from uno_actors.asks import Answers, waiting_for
from uno_actors.dispatcher import standing_still
from uno_actors.errors import BlockingCallOnLoop, WorldError
from uno_actors.log import get_logger

T = TypeVar("T")
J = TypeVar("J")
M = TypeVar("M")
ExcInfo = tuple[type[BaseException] | None, BaseException | None, TracebackType | None]

_UNSET: Any = object()
_lock = threading.RLock()
"""Guards the moment in which any future gets its result: shorter than making a lock for each would take.

Reentrant, for a signal handler or a finalizer may use other futures on the thread that it interrupts here.
"""


class GetTimeout(WorldError, PykkaTimeout, TimeoutError):
    """``get(timeout=...)`` waited in vain; the reply may still come."""

    def __init__(self, seconds: float) -> None:
        self.seconds = seconds
        super().__init__(f"no result within {seconds:g} seconds")


class Future(PykkaFuture[T]):
    """A `pykka.Future` that may be set from any thread, awaited on any event loop and got on any other thread.

    ``await future`` never blocks the loop. ``future.get(timeout=...)`` blocks its thread and is an error
    on the thread of a running event loop, where the value would never come. Both raise `DeadlockError` where
    actors would wait for each other in a circle.

    Attributes:
        target: Who was asked, if it is the reply to an ask.
        deadline: Until when it is waited for, on ``time.monotonic``'s clock, if there is a limit.
    """

    def __init__(self) -> None:  # pykka's own attributes included; it would allocate one more object
        self._get_hook: Callable[[float | None], T] | None = None
        self._sources: Sequence[PykkaFuture[Any]] = ()
        self._value: T = _UNSET
        self._error: BaseException | None = None
        self._traceback: TracebackType | None = None
        self._callbacks: list[Callable[[Future[T]], object]] | None = None
        self.target: Answers | None = None
        self.deadline: float | None = None

    def done(self) -> bool:
        """Whether there is a result."""
        return self._value is not _UNSET or self._error is not None

    # --- setting ---

    def set(self, value: T | None = None) -> None:
        """Set the result.

        Raises:
            queue.Full: It has one.
        """
        if not self._offer(cast("T", value), None):
            raise queue.Full

    def set_exception(self, exc_info: ExcInfo | BaseException | None = None) -> None:
        """Set an error as the result.

        Args:
            exc_info: The error, or what ``sys.exc_info()`` returned; default is the error being handled.

        Raises:
            queue.Full: There is a result.
        """
        if not isinstance(exc_info, BaseException):
            kind, error, traceback = exc_info or sys.exc_info()
            if error is None:
                if kind is None:
                    raise TypeError("set_exception() needs an error, or to be called where one is handled")
                error = kind()
            exc_info = error.with_traceback(traceback)
        if not self._offer(_UNSET, exc_info):
            raise queue.Full

    def offer(self, value: T) -> bool:
        """Set the result if there is none yet; whether it was set."""
        return self._offer(value, None)

    def offer_exception(self, error: BaseException) -> bool:
        """Set an error as the result if there is none yet; whether it was set."""
        return self._offer(_UNSET, error)

    def set_get_hook(self, func: Callable[[float | None], T]) -> None:
        """Have ``func(timeout)`` compute the result when it is first asked for.

        Raises:
            queue.Full: There is a result.
        """
        with _lock:
            if self.done():
                raise queue.Full
            self._get_hook = func

    def _offer(self, value: T, error: BaseException | None) -> bool:
        with _lock:
            if self.done() or self._get_hook is not None:
                return False
            self._value, self._error = value, error
            self._traceback = None if error is None else error.__traceback__
            callbacks, self._callbacks = self._callbacks, None
        self._call(callbacks)
        return True

    def _call(self, callbacks: "Iterable[Callable[[Future[T]], object]] | None") -> None:
        """One callback that fails takes neither the others with it nor whoever sets the result."""
        for callback in callbacks or ():
            try:
                callback(self)
            except Exception as error:  # noqa: BLE001 - whatever a callback raises
                get_logger(actor="future").error("callback failed", exc_info=error)

    # --- getting ---

    def add_done_callback(self, callback: "Callable[[Future[T]], object]") -> None:
        """Call ``callback(self)`` once there is a result: on the thread that sets it, or at once if it is there.

        A derived future gets its result when it is first got or awaited. What a callback raises is logged.
        """
        with _lock:
            if not self.done():
                if self._callbacks is None:
                    self._callbacks = []
                self._callbacks.append(callback)
                return
        self._call([callback])

    def get(self, *, timeout: float | None = None) -> T:
        """Wait for the result on this thread and return it, or raise it if it is an error.

        Args:
            timeout: Seconds to wait at the most; default is for ever.

        Raises:
            GetTimeout: There was none in time.
            BlockingCallOnLoop: An event loop runs on this thread.
        """
        if not self.done():
            if not self._sources and asyncio._get_running_loop() is not None:
                raise BlockingCallOnLoop
            if self._get_hook is not None:
                self._keep(self._get_hook(timeout))
            else:
                with waiting_for(self), standing_still():
                    self._wait(timeout)
        return self._result()

    def __await__(self) -> Generator[Any, None, T]:
        if not self.done():
            if self._sources:
                for source in self._sources:
                    if isinstance(source, Future):
                        yield from source.__await__()
                    else:  # pykka's own blocks where it is awaited
                        wait = asyncio.get_running_loop().run_in_executor(None, _settle, source)
                        yield from wait.__await__()
                self._keep(cast("Callable[[float | None], T]", self._get_hook)(0))
            elif self._get_hook is not None:
                loop = asyncio.get_running_loop()
                self._keep((yield from loop.run_in_executor(None, self._get_hook, None).__await__()))
            else:
                with waiting_for(self):
                    yield from self._waiter().__await__()
        return self._result()

    __iter__ = __await__

    def _result(self) -> T:
        if self._error is not None:
            raise self._error.with_traceback(
                self._traceback
            )  # that of where it arose, however often it is raised
        return self._value

    def _keep(self, value: T) -> None:
        """Keep what the hook computed; the first thread to compute it wins."""
        with _lock:
            if self._value is not _UNSET:
                return
            self._value = value
            callbacks, self._callbacks = self._callbacks, None
        self._call(callbacks)

    def _wait(self, timeout: float | None) -> None:
        arrived = threading.Event()

        def arrive(_: Future[T]) -> None:
            arrived.set()

        self.add_done_callback(arrive)
        if not arrived.wait(timeout):
            self._forget(arrive)
            if not self.done():
                raise GetTimeout(timeout or 0)

    def _waiter(self) -> "asyncio.Future[None]":
        loop = asyncio.get_running_loop()
        waiter: asyncio.Future[None] = loop.create_future()

        def wake(_: Future[T]) -> None:
            if asyncio._get_running_loop() is loop:
                if not waiter.done():
                    waiter.set_result(None)
            else:
                with contextlib.suppress(RuntimeError):  # the loop was closed, and nobody awaits any more
                    loop.call_soon_threadsafe(lambda: None if waiter.done() else waiter.set_result(None))

        def gone(waiter: "asyncio.Future[None]") -> None:
            if waiter.cancelled():
                self._forget(wake)

        waiter.add_done_callback(gone)
        self.add_done_callback(wake)
        return waiter

    def _forget(self, callback: "Callable[[Future[T]], object]") -> None:
        with _lock:
            if self._callbacks is not None and callback in self._callbacks:
                self._callbacks.remove(callback)

    # --- deriving: lazy, as in pykka; awaiting a derived future awaits what it rests on ---

    def map(self, func: Callable[[T], M]) -> "Future[M]":
        """A future for ``func(result)``."""
        return _derived([self], lambda results: func(results[0]))

    def filter(self: "Future[Iterable[J]]", func: Callable[[J], bool]) -> "Future[Iterable[J]]":
        """A future for the items of the result that ``func`` holds true."""
        return _derived([self], lambda results: [item for item in results[0] if func(item)])

    def reduce(self: "Future[Iterable[J]]", func: Callable[[M, J], M], *args: M) -> "Future[M]":
        """A future for ``functools.reduce(func, result, *args)``."""
        return _derived([self], lambda results: functools.reduce(func, results[0], *args))

    def join(self, *futures: PykkaFuture[Any]) -> "Future[Iterable[Any]]":
        """A future for the list of this result and those of ``futures``."""
        return _derived([self, *futures], list)

    def __repr__(self) -> str:
        return f"<Future {'done' if self.done() else 'pending'}>"


def _settle(future: PykkaFuture[Any]) -> None:
    """Wait until there is a result; an error comes out where the result is used."""
    with contextlib.suppress(BaseException):
        future.get()


def _derived(sources: Sequence[PykkaFuture[Any]], combine: Callable[[list[Any]], M]) -> Future[M]:
    def compute(timeout: float | None) -> M:
        deadline = None if timeout is None else time.monotonic() + timeout
        results = []
        for source in sources:
            left = None if deadline is None else max(0.0, deadline - time.monotonic())
            results.append(source.get(timeout=left))
        return combine(results)

    future: Future[M] = Future()
    future._sources = sources
    future.set_get_hook(compute)
    return future
