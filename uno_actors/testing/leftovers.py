"""What a test leaves behind: running systems, open stores, tasks and threads, each with the line that started it."""

import asyncio
import threading
import time
import weakref
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from sys import _getframe
from types import FrameType
from typing import Any

from uno_actors import resources
from uno_actors.testing.own_code import is_ours, line_of, own_caller

PATIENCE = 1.0
"""Seconds for which threads that are about to end are waited for."""

_ENDS_POOL = "pool.shutdown(), or `with` around the use of the pool"

OF_LOOPS = ("asyncio_", "Trio thread")
"""Beginnings of the names of threads that event loops keep for plain functions; they end with them."""


@dataclass(frozen=True, slots=True)
class Leftover:
    """Something that a test has started and not ended.

    Attributes:
        what: A description.
        where: ``file:line in function`` of the project's own code that started it.
        remedy: What to call.
    """

    what: str
    where: str
    remedy: str

    def __str__(self) -> str:
        return f"{self.what}: started at {self.where}; to end it: {self.remedy}"


@dataclass(frozen=True, slots=True)
class _Start:
    where: str
    ours: bool  # by code of this package: then what the test uses of it is named instead


class Leftovers:
    """Notes what is started between `begin` and `end`, and tells what of it is still there.

    What the project's own code does not start, not even through a library, is left out: it belongs to the test runner.
    Systems, stores and threads of a simulation end with it.
    """

    def __init__(self) -> None:
        self._things: dict[int, tuple[object, str, str, str]] = {}
        self._tasks: weakref.WeakKeyDictionary[asyncio.Task[Any], _Start] = weakref.WeakKeyDictionary()
        self._threads: weakref.WeakKeyDictionary[threading.Thread, _Start] = weakref.WeakKeyDictionary()
        self._pools: weakref.WeakSet[ThreadPoolExecutor] = weakref.WeakSet()
        self._cancelled: list[Leftover] = []
        self._others = 0
        self._restore: Callable[[], None] | None = None

    # --- the watcher of resources ---

    def opened(self, thing: object, what: str, remedy: str) -> None:
        """See `uno_actors.resources.Watcher`."""
        start = self._start(_getframe(1))
        if start is not None and not _is_simulated():
            self._things[id(thing)] = (thing, what, start.where, remedy)

    def closed(self, thing: object) -> None:
        """See `uno_actors.resources.Watcher`."""
        self._things.pop(id(thing), None)

    # --- the time that is watched ---

    def begin(self) -> None:
        """Begin to note."""
        start_thread, make_task, close, make_pool = (
            threading.Thread.start,
            asyncio.BaseEventLoop.create_task,
            asyncio.Runner.close,
            ThreadPoolExecutor.__init__,
        )

        def started(thread: threading.Thread) -> None:
            start = self._start(_getframe(1))
            if start is not None and self._may_be_left(thread):
                self._threads[thread] = start
            start_thread(thread)

        def made(pool: ThreadPoolExecutor, *args: Any, **options: Any) -> None:
            make_pool(pool, *args, **options)
            if self._start(_getframe(1)) is not None:
                self._pools.add(pool)

        def created(loop: asyncio.BaseEventLoop, *args: Any, **options: Any) -> "asyncio.Task[Any]":
            task = make_task(loop, *args, **options)
            if (start := self._start(_getframe(1))) is not None and not _is_simulated():
                self._tasks[task] = start
            return task

        def closing(runner: asyncio.Runner) -> None:
            self._cancelled += self._left_tasks(getattr(runner, "_loop", None))
            close(runner)

        noting = (
            (threading.Thread, "start", started, start_thread),
            (asyncio.BaseEventLoop, "create_task", created, make_task),
            (asyncio.Runner, "close", closing, close),
            (ThreadPoolExecutor, "__init__", made, make_pool),
        )
        for owner, name, noted, _ in noting:
            setattr(owner, name, noted)
        resources.watchers.append(self)

        def restore() -> None:
            for owner, name, _, before in noting:
                setattr(owner, name, before)
            resources.watchers.remove(self)

        self._restore = restore

    def end(self) -> list[Leftover]:
        """Note no more.

        Returns:
            What is left over.
        """
        if self._restore is None:
            return []
        self._restore()
        self._restore = None
        deadline = time.monotonic() + PATIENCE
        while any(self._live_threads()) and time.monotonic() < deadline:
            time.sleep(0.005)
        found = [Leftover(what, where, remedy) for _, what, where, remedy in self._things.values()]
        found += self._cancelled
        found += self._left_tasks()
        for thread, start in self._live_threads():
            if not (start.ours and found):  # else it is that of a system or a store that is named already
                remedy = (
                    _ENDS_POOL if _pool_of(thread) else "have its function return, and call thread.join()"
                )
                found.append(Leftover(f"thread {thread.name!r}", start.where, remedy))
        return found

    def found(self) -> list[str]:
        """Note no more; the lines of a report, none if nothing is left over."""
        left = self.end()
        return ["the test leaves something behind:", *(f"  - {each}" for each in left)] if left else []

    @contextmanager
    def of_others(self) -> Iterator[None]:
        """What is started inside of the block may live on: a fixture of many tests starts it."""
        self._others += 1
        try:
            yield
        finally:
            self._others -= 1

    # --- what is there ---

    def _start(self, frame: FrameType | None) -> _Start | None:
        if self._others or (own := own_caller(frame)) is None:
            return None
        return _Start(line_of(own), is_ours(frame))

    def _left_tasks(self, loop: asyncio.AbstractEventLoop | None = None) -> list[Leftover]:
        """The tasks that run, and that nothing has cancelled; of one loop, or of all."""
        found = []
        for task, start in list(self._tasks.items()):
            if loop is not None and task.get_loop() is not loop:
                continue
            if not task.done() and not task.cancelling() and not start.ours:
                name = getattr(task.get_coro(), "__qualname__", "")
                what = f"task {task.get_name()!r} of {name}()" if name else f"task {task.get_name()!r}"
                found.append(Leftover(what, start.where, "await it, or task.cancel() and await it"))
            if loop is not None:
                self._tasks.pop(task)
        return found

    def _may_be_left(self, thread: threading.Thread) -> bool:
        """A pool starts its threads when it needs them: they belong to what has made the pool."""
        pool = _pool_of(thread)
        return pool is None or pool in self._pools

    def _live_threads(self) -> Iterator[tuple[threading.Thread, _Start]]:
        for thread, start in list(self._threads.items()):
            if thread.is_alive() and not thread.name.startswith(OF_LOOPS):
                yield thread, start


def _pool_of(thread: threading.Thread) -> ThreadPoolExecutor | None:
    """The pool that a thread works for."""
    for argument in getattr(thread, "_args", ()):
        pool = argument() if isinstance(argument, weakref.ref) else None
        if isinstance(pool, ThreadPoolExecutor):
            return pool
    return None


def _is_simulated() -> bool:
    """Whether this code runs in a simulation, whose event loop brings workers of its own."""
    return getattr(asyncio._get_running_loop(), "workers", None) is not None
