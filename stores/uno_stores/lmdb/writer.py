"""The writer thread: it takes all waiting jobs and writes them in one transaction, with one fsync for all."""

import asyncio
import contextlib
import queue
import threading
import time
from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

import lmdb

from uno_actors.tasks import settle
from uno_stores.lmdb.environment import Environment
from uno_stores.lmdb.jobs import Commit, Heads, Work, Writing
from uno_stores.lmdb.reader import Reading

MAX_GROUP = 10_000
"""Maximum number of jobs in one transaction, so that the first of them does not wait for too many others."""
CHECK_READERS_EVERY = 30.0
"""Seconds between two searches for dead readers."""

T = TypeVar("T")


@dataclass(slots=True)
class _Job(Generic[T]):
    work: Work[T]
    loop: asyncio.AbstractEventLoop
    future: asyncio.Future[T]


class _CommitFailed(Exception):
    """LMDB's commit raised; the error is the argument."""


class Writer:
    """The one thread of a store that writes, and its queue.

    Args:
        environment: In which it writes.
        max_event_size: Bytes that one record may take.
        committed: Called on the event loop with the end of the log after each transaction with a commit.

    Attributes:
        thread: Ends after `stop`, when everything submitted before is written.
        commits: Transactions that were committed.
        commit_seconds: Seconds that their commits took.
    """

    def __init__(
        self, environment: Environment, max_event_size: int, committed: Callable[[int], None]
    ) -> None:
        self._environment = environment
        self._max_event_size = max_event_size
        self._committed = committed
        self.commits = 0
        self.commit_seconds = 0.0
        self._jobs: queue.SimpleQueue[_Job[Any] | None] = queue.SimpleQueue()
        self._heads = Heads()
        name = f"lmdb-writer {environment.path}"
        self.thread = threading.Thread(target=self._write_jobs, name=name, daemon=True)
        self.thread.start()

    async def submit(self, work: Work[T]) -> T:
        """The result of ``work`` once it is durable."""
        self._environment.check_open()
        loop = asyncio.get_running_loop()
        job = _Job(work, loop, loop.create_future())
        self._jobs.put(job)
        # No shield is needed: a caller that is cancelled abandons the future, and the work is done all the same.
        result: T = await job.future
        return result

    def stop(self) -> None:
        """Accept no more jobs; those that wait are still done."""
        self._jobs.put(None)

    def _write_jobs(self) -> None:
        closing = False
        checked = time.monotonic()
        while not closing:
            group: list[_Job[Any]] = []
            with contextlib.suppress(queue.Empty):
                job = self._jobs.get(timeout=CHECK_READERS_EVERY)
                while job is not None:
                    group.append(job)
                    if len(group) == MAX_GROUP or self._jobs.empty():
                        break
                    job = self._jobs.get()
                closing = job is None
            if group:
                self._answer(group, self._write(group))
            if time.monotonic() - checked >= CHECK_READERS_EVERY:
                checked = time.monotonic()
                self._environment.check_readers()

    def _write(self, group: list[_Job[Any]]) -> list[Any]:
        """Do the work of all jobs in one transaction, and return the result of each.

        If the map is used up, it grows. If a job cannot be done, each job is done in its own transaction, so only that
        one fails.
        """
        environment = self._environment
        while True:
            try:
                results, self._heads.end = self._transact(group)
            except Exception as error:  # noqa: BLE001 - the writer thread must survive any failure of one group
                self._heads.end = -1
                if isinstance(error, lmdb.MapFullError) and environment.grow():
                    continue
                if isinstance(error, _CommitFailed):
                    return [environment.undecided(error.args[0]) for _ in group]
                if len(group) == 1:
                    return [environment.refused(error)]
                return [result for job in group for result in self._write([job])]
            return results

    def _transact(self, group: list[_Job[Any]]) -> tuple[list[Any], int]:
        """The results of all jobs, done in one transaction, and the end of the log after it."""
        environment = self._environment
        with environment.writing() as txn:
            reading = Reading(txn, environment.databases, environment.path)
            writing = Writing(reading, self._heads, self._max_event_size)
            results = [job.work.write(writing) for job in group]
            writing.flush()
            begun = time.monotonic()
            try:
                txn.commit()
            except lmdb.MapFullError:  # met before anything is written
                raise
            except Exception as error:
                raise _CommitFailed(error) from error
            self.commit_seconds += time.monotonic() - begun
            self.commits += 1
        if lost := environment.files.lost():
            raise _CommitFailed(FileNotFoundError(f"{lost} during the commit"))
        return results, writing.end

    def _answer(self, group: list[_Job[Any]], results: list[Any]) -> None:
        """Hand each job its result, with one wake-up of each loop."""
        by_loop: dict[asyncio.AbstractEventLoop, list[tuple[_Job[Any], Any]]] = defaultdict(list)
        for job, result in zip(group, results, strict=True):
            by_loop[job.loop].append((job, result))
        for loop, answers in by_loop.items():
            with contextlib.suppress(RuntimeError):  # the loop was closed, and its tasks with it
                loop.call_soon_threadsafe(self._resolve, answers)

    def _resolve(self, answers: list[tuple[_Job[Any], Any]]) -> None:
        for job, result in answers:
            settle(job.future, result)
        # Here and not in `commit`: jobs of cancelled callers were recorded too.
        if any(isinstance(job.work, Commit) for job, _ in answers):
            self._committed(self._heads.end)
