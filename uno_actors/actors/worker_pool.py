"""Worker threads for plain functions that may block."""

import queue
import threading
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from time import monotonic

from uno_actors.logs import get_logger

MAX_WORKERS = 32
"""Worker threads that run at once. One that waits for a reply does not count, nor does one that is held by what
it runs for over a second: a spare one takes its place."""

MAX_SPARE = 512
"""Spare threads at the most."""


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


_worker = threading.local()


def blocking() -> AbstractContextManager[None]:
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
