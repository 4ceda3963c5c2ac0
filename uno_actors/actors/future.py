"""Futures and replies: awaited on an event loop, or got with ``get`` on any other thread."""

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

from typing_extensions import override

from uno_actors.actors.ask import AskTarget, being_handled
from uno_actors.actors.deadlock import waiting_for
from uno_actors.actors.pykka import PykkaFuture, PykkaTimeout
from uno_actors.actors.unseen import Unseen
from uno_actors.actors.worker_pool import blocking
from uno_actors.errors import BlockingCallOnLoop, WorldError, as_error, bounded_traceback
from uno_actors.logs import get_logger
from uno_actors.quantities import check_duration

T = TypeVar("T")
J = TypeVar("J")
M = TypeVar("M")
ExcInfo = tuple[type[BaseException] | None, BaseException | None, TracebackType | None]

Settled = tuple[Any, BaseException | None, TracebackType | None]
"""A value, or an error and its traceback. An error may have an `Unseen`, in the place of the value."""


class GetTimeout(WorldError, PykkaTimeout, TimeoutError):
    """``get(timeout=...)`` got no result in time; the reply may still arrive."""

    def __init__(self, seconds: float) -> None:
        self.seconds = seconds
        super().__init__(f"no result within {seconds:g} seconds")


class Future(PykkaFuture[T]):
    """A `pykka.Future` that may be set from any thread, awaited on any event loop and got on any other thread.

    ``await future`` never blocks the loop. ``future.get(timeout=...)`` blocks its thread and is an error
    on the thread of a running event loop, where the value would never arrive. Both raise `DeadlockError` if
    actors would wait for each other in a cycle.

    It takes no lock: the first thread to enter the outcome in its ``__dict__`` has set it.

    Attributes:
        target: The actor or aggregate that was asked, if it is the reply to an ask.
        deadline: Until when callers wait, on ``time.monotonic``'s clock; ``None`` for no limit.
    """

    # Class attributes are the defaults, so making a future costs almost nothing.
    target: AskTarget | None = None
    deadline: float | None = None
    _outcome: Settled | None = None
    _callbacks: "list[Callable[[Future[T]], object]] | None" = None
    _get_hook: Callable[[float | None], T] | None = None
    _sources: Sequence[PykkaFuture[Any]] = ()

    def __init__(self) -> None:
        """Make it without pykka's ``__init__``, whose attributes would never be used."""

    def done(self) -> bool:
        """Whether there is a result."""
        return self._outcome is not None

    @property
    def waiters(self) -> int:
        """Number of callers and callbacks that wait for the result."""
        return len(self._callbacks or ())

    # --- setting ---

    def set(self, value: T | None = None) -> None:
        """Set the result.

        Raises:
            queue.Full: There is a result already.
        """
        if not self.offer(cast("T", value)):
            raise queue.Full

    def set_exception(self, exc_info: ExcInfo | BaseException | None = None) -> None:
        """Set an error as the result.

        Args:
            exc_info: The error, or what ``sys.exc_info()`` returned; default is the error being handled.

        Raises:
            queue.Full: There is a result already.
        """
        if not isinstance(exc_info, BaseException):
            kind, error, traceback = exc_info or sys.exc_info()
            if error is None:
                if kind is None:
                    raise TypeError("set_exception() needs an error, or to be called where one is handled")
                error = kind()
            exc_info = error.with_traceback(traceback)
        if not self.offer_exception(exc_info):
            raise queue.Full

    def offer(self, value: T) -> bool:
        """Set the result if there is none yet; return whether it was set."""
        return self._get_hook is None and self._decide((value, None, None))

    def offer_exception(self, error: BaseException) -> bool:
        """Set an error, in the form of `as_error`, as the result if there is none yet; return whether it was set."""
        if self._get_hook is not None:
            return False
        error = as_error(error, self._source())
        unseen = (
            self._unseen(error) if self._callbacks is None else None
        )  # else something waits for it, or did
        if self._decide((unseen, error, bounded_traceback(error.__traceback__))):
            return True
        if unseen is not None:
            unseen.is_seen = True
        return False

    def _unseen(self, error: BaseException) -> Unseen | None:
        """What logs the error if nothing looks at it; ``None`` if it need not be logged."""
        return None

    def _source(self) -> str:
        """The actor or aggregate that owes the result, for errors."""
        return "another task" if self.target is None else str(self.target)

    def set_get_hook(self, func: Callable[[float | None], T]) -> None:
        """Compute the result with ``func(timeout)`` when it is first needed.

        Raises:
            queue.Full: There is a result already.
        """
        if self._outcome is not None:
            raise queue.Full
        self._get_hook = func

    def _decide(self, outcome: Settled) -> bool:
        if self.__dict__.setdefault("_outcome", outcome) is not outcome:
            return False
        if self._callbacks is not None:
            self._call_back()
        return True

    def _call_back(self) -> None:
        """Make each call once: the thread that removes it from the list makes it. A failing call stops no other."""
        while self._callbacks:
            try:
                callback = self._callbacks.pop(0)
            except IndexError:  # another thread was faster
                return
            try:
                callback(self)
            except BaseException as error:  # noqa: BLE001 - not even SystemExit may end the actor that replies
                get_logger(actor="future").error("callback failed", exc_info=error)

    # --- getting ---

    def add_done_callback(self, callback: "Callable[[Future[T]], object]") -> None:
        """Call ``callback(self)`` when there is a result: on the thread that sets it, or immediately if there is one.

        A derived future computes its result when it is first got or awaited. Errors of a callback are logged.
        """
        self._when_done(callback)

    def _when_done(self, callback: "Callable[[Future[T]], object]") -> None:
        self.__dict__.setdefault("_callbacks", []).append(callback)
        if (outcome := self._outcome) is not None:  # it may have been set before the callback was added
            _see(outcome)
            self._call_back()

    def get(self, *, timeout: float | None = None) -> T:
        """Wait for the result on this thread; return it, or raise it if it is an error.

        Args:
            timeout: Seconds to wait at most; default is no limit.

        Raises:
            GetTimeout: There was no result in time.
            BlockingCallOnLoop: An event loop runs on this thread.
            InvalidNumber: ``timeout`` is not a number of seconds.
        """
        if timeout is not None:
            check_duration("timeout", timeout, zero=True)
        if not self.done():
            if not self._sources and asyncio._get_running_loop() is not None:
                raise BlockingCallOnLoop
            if self._get_hook is not None:
                self._keep(self._get_hook(timeout))
            else:
                with waiting_for(self), blocking():
                    self._wait(timeout)
        try:
            return self._result()
        finally:  # see `_result`
            del self

    def __await__(self) -> Generator[Any, None, T]:
        target = self.target
        if target is not None and self._outcome is None and being_handled.get() is None:
            target.run_inline()  # the caller would only wait now, so let it run the actor
        if self._outcome is None:
            if self._sources:
                yield from self._derive()
            elif self._get_hook is not None:
                loop = asyncio.get_running_loop()
                self._keep((yield from loop.run_in_executor(None, self._get_hook, None).__await__()))
            elif target is None and being_handled.get() is None:
                # As `_until_done`, but without the cost of a second generator: every command is awaited here.
                waiter = _Waiter(loop=asyncio.get_running_loop())
                self._when_done(wake := waiter.wake)
                try:
                    yield from waiter
                finally:
                    if self._outcome is None:
                        self._forget(wake)
            else:
                with waiting_for(self):
                    if target is not None:
                        target.run_inline()
                    if self._outcome is None:
                        yield from self._until_done()
        try:
            return self._result()
        finally:  # see `_result`
            del self, target

    __iter__ = __await__

    def _derive(self) -> Generator[Any, None, None]:
        """Await the futures that it is derived from, and compute the result."""
        for source in self._sources:
            if isinstance(source, Future):
                yield from source.__await__()
            else:  # pykka's own blocks where it is awaited
                wait = asyncio.get_running_loop().run_in_executor(None, _settle, source)
                yield from wait.__await__()
        self._keep(cast("Callable[[float | None], T]", self._get_hook)(0))

    def _result(self) -> T:
        value: Any
        value, error, traceback = self._outcome  # type: ignore[misc]  # there is a result
        if error is None:
            return value  # type: ignore[no-any-return]
        if value is not None:
            value.is_seen = True
        # The traceback will hold this frame, so the frame must not hold the traceback: otherwise only the cyclic
        # garbage collector would free the error and everything that its frames hold.
        try:
            raise error.with_traceback(traceback)  # its original traceback, however often it is raised
        finally:
            del self, value, error, traceback

    def _keep(self, value: T) -> None:
        """Set what the hook computed; the first thread to compute it wins."""
        self._decide((value, None, None))

    def _wait(self, timeout: float | None) -> None:
        arrived = threading.Lock()  # creating an Event takes twenty times as long
        arrived.acquire()

        def arrive(_: Future[T]) -> None:
            arrived.release()

        self._when_done(arrive)
        until = None if timeout is None else time.monotonic() + timeout
        ends = [moment for moment in (until, self.deadline) if moment is not None]
        while not self.done():
            now = time.monotonic()
            if until is not None and now >= until:
                self._forget(arrive)
                raise GetTimeout(timeout or 0)
            if ends:
                arrived.acquire(timeout=min(max(0.0, min(ends) - now), threading.TIMEOUT_MAX))
            else:
                arrived.acquire()

    def _until_done(self) -> Generator[Any, None, None]:
        waiter = _Waiter(loop=asyncio.get_running_loop())
        self._when_done(wake := waiter.wake)
        try:
            yield from waiter
        finally:
            if self._outcome is None:  # otherwise it was called
                self._forget(wake)

    def _forget(self, callback: "Callable[[Future[T]], object]") -> None:
        with contextlib.suppress(ValueError):  # it was called, or is being called now
            cast("list[Any]", self._callbacks).remove(callback)

    # --- deriving: lazy, as in pykka; awaiting a derived future awaits its sources ---

    def map(self, func: Callable[[T], M]) -> "Future[M]":
        """A future for ``func(result)``."""
        return _derived([self], lambda results: func(results[0]))

    def filter(self: "Future[Iterable[J]]", func: Callable[[J], bool]) -> "Future[Iterable[J]]":
        """A future for the items of the result for which ``func(item)`` is true."""
        return _derived([self], lambda results: [item for item in results[0] if func(item)])

    def reduce(self: "Future[Iterable[J]]", func: Callable[[M, J], M], *args: M) -> "Future[M]":
        """A future for ``functools.reduce(func, result, *args)``."""
        return _derived([self], lambda results: functools.reduce(func, results[0], *args))

    def join(self, *futures: PykkaFuture[Any]) -> "Future[Iterable[Any]]":
        """A future for the list of this result and the results of ``futures``."""
        return _derived([self, *futures], list)

    def __repr__(self) -> str:
        return f"<Future {'done' if self.done() else 'pending'}>"


class Reply(Future[T]):
    """The reply to an ask, with a deadline.

    `done`, ``get`` and ``await`` turn it into `AskTimeout` after its deadline. So an ask that is answered soon never
    needs a timer.

    Args:
        target: The actor or aggregate that is asked.
        seconds: How long callers wait for the reply.
        message: Class of the message.
    """

    target: AskTarget
    deadline: float

    def __init__(self, target: AskTarget, seconds: float, message: type) -> None:
        self.target = target
        self.deadline = time.monotonic() + seconds
        self._seconds = seconds
        self._message = message

    @override
    def done(self) -> bool:
        return self._outcome is not None or (time.monotonic() >= self.deadline and self._expire())

    @override
    def add_done_callback(self, callback: Callable[[Future[T]], object]) -> None:
        self._when_done(callback)
        if not self.done():
            timer = self.target.call_later(self.deadline - time.monotonic(), self._expire)
            self._when_done(lambda _: timer.cancel())

    @override
    def _until_done(self) -> Generator[Any, None, None]:
        left = self.deadline - time.monotonic()
        timer = asyncio.get_running_loop().call_later(left, self._expire)
        try:
            yield from super()._until_done()
        finally:
            timer.cancel()

    @override
    def _unseen(self, error: BaseException) -> Unseen | None:
        return Unseen(error, self.target, self._message.__name__)

    def _expire(self) -> bool:
        if self._outcome is None:
            self.offer_exception(self.target.late(self, self._message.__name__, self._seconds))
        return True


def _see(outcome: Settled) -> None:
    """Note that something looks at the outcome."""
    if isinstance(outcome[0], Unseen):
        outcome[0].is_seen = True


class _Waiter(asyncio.Future[None]):
    """What a task waits for until there is a result."""

    __slots__ = ()

    def wake(self, _: object) -> None:
        """Wake the task; from any thread."""
        loop = self.get_loop()
        if asyncio._get_running_loop() is loop:
            if not self.done():
                self.set_result(None)
        else:
            with contextlib.suppress(RuntimeError):  # the loop was closed, so no task waits any more
                loop.call_soon_threadsafe(self._arrive)

    def _arrive(self) -> None:
        if not self.done():
            self.set_result(None)


def get_all(futures: Iterable[PykkaFuture[T]], *, timeout: float | None = None) -> list[T]:
    """Wait on this thread for all of ``futures`` and return their results in order.

    Args:
        futures: Any number of futures, ours or pykka's.
        timeout: Seconds for all of them together; default is no limit.

    Raises:
        GetTimeout: A result was still missing after the timeout.
        BlockingCallOnLoop: An event loop runs on this thread; there, await ``first.join(*others)``.
    """
    check_duration("timeout", timeout, zero=True, none=True)
    deadline = None if timeout is None else time.monotonic() + timeout
    results = []
    for future in futures:
        left = None if deadline is None else max(0.0, deadline - time.monotonic())
        try:
            results.append(future.get(timeout=left))
        except PykkaTimeout:
            if left is None or (isinstance(future, Future) and future.done()):
                raise  # it is the result
            raise GetTimeout(timeout or 0) from None
    return results


def _settle(future: PykkaFuture[Any]) -> None:
    """Wait until there is a result; an error is raised where the result is used."""
    with contextlib.suppress(BaseException):
        future.get()


def _derived(sources: Sequence[PykkaFuture[Any]], combine: Callable[[list[Any]], M]) -> Future[M]:
    def compute(timeout: float | None) -> M:
        return combine(get_all(sources, timeout=timeout))

    future: Future[M] = Future()
    future._sources = sources
    future.set_get_hook(compute)
    return future
