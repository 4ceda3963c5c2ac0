"""Worker threads for plain functions that may block."""

import queue
import threading
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from time import monotonic

from uno_actors.logs import Logger, get_logger

MAX_WORKERS = 32
"""Worker threads that run at once. A thread that waits for a reply does not count, nor does one that a function blocks
for over a second: a spare thread takes its place."""

MAX_SPARE = 512
"""Maximum number of spare threads."""


@dataclass(frozen=True, slots=True)
class WorkerStatistics:
    """The current state of the worker threads.

    Attributes:
        threads: Live threads.
        idle: Threads that are free for the next function.
        busy: Threads that run a function now.
        blocked: Threads that wait for a reply; spare threads take their place.
        waiting: Functions that wait for a thread.
    """

    threads: int
    idle: int
    busy: int
    blocked: int
    waiting: int


_worker = threading.local()


def blocking() -> AbstractContextManager[None]:
    """Enter this where a thread waits for another; if it is a worker thread, a spare one takes its place."""
    pool: WorkerPool | None = getattr(_worker, "pool", None)
    return nullcontext() if pool is None else pool.blocked()


class WorkerPool:
    """Daemon threads that take work from one queue; a function that never returns does not keep the program alive.

    Args:
        max_workers: Maximum number of threads, not counting blocked ones.
        max_spare: Maximum number of threads that replace blocked ones.
        name: Prefix of the threads' names.
        log: Has the names of the system bound.
    """

    def __init__(
        self,
        max_workers: int,
        max_spare: int = MAX_SPARE,
        name: str = "uno-worker",
        *,
        log: Logger | None = None,
    ) -> None:
        self._log = (log or get_logger()).bind(actor=name)
        self._max_workers = max_workers
        self._max_spare = max_spare
        self._name = name
        self._work: queue.SimpleQueue[Callable[[], object] | None] = queue.SimpleQueue()
        self._free = 0  # idle threads; if negative, functions that wait for a thread
        self._count = 0
        self._blocked = 0
        self._held = 0
        self._closed = False
        self._lock = threading.RLock()  # a signal handler may submit on the thread that it interrupts here
        self.busy: dict[int, float] = {}  # by thread: when it began its work, on time.monotonic's clock

    def submit(self, function: Callable[[], object]) -> None:
        """Run ``function()`` on a worker thread, after `close` on its own thread; it must handle its own errors."""
        with self._lock:
            self._work.put(function)
            self._free -= 1
            if self._free < 0:
                self._start_one()
            if self._closed:
                self._work.put(None)

    def statistics(self) -> WorkerStatistics:
        """The current state of the threads."""
        with self._lock:
            return WorkerStatistics(
                self._count, max(0, self._free), len(self.busy), self._blocked, self._work.qsize()
            )

    def _start_one(self) -> None:
        if self._closed or self._count < self._max_workers + min(self._blocked + self._held, self._max_spare):
            name = f"{self._name}-{self._count + 1}"
            try:
                threading.Thread(target=self._run, name=name, daemon=True).start()
            except RuntimeError:  # the operating system has no more threads
                if self._closed or not self._count:
                    raise  # otherwise the existing threads do the work one by one
                return
            self._count += 1
            self._free += 1

    @contextmanager
    def blocked(self) -> Iterator[None]:
        """Inside the block one of the threads is blocked; a spare one takes its place."""
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
        """Let spare threads replace the ``held`` threads whose functions do not return."""
        with self._lock:
            self._held = held
            for _ in range(min(held, -self._free)):
                self._start_one()

    def close(self) -> None:
        """End the threads when the queue is empty."""
        with self._lock:
            self._closed = True
            for _ in range(self._count):
                self._work.put(None)
            self._free = self._count = 0  # work submitted from now on gets a thread of its own

    def _run(self) -> None:
        _worker.pool = self
        thread = threading.get_ident()
        while (work := self._work.get()) is not None:
            self.busy[thread] = monotonic()
            try:
                work()
            except BaseException as error:  # noqa: BLE001 - one function must not end the thread
                self._log.error("a function on a worker thread failed", exc_info=error)
            self.busy.pop(thread, None)
            del work
            with self._lock:
                if not self._closed:
                    self._free += 1
