"""The stores of this process, each on an event loop of its own thread: applications of ``eventsourcing`` have none.

All factories of a process that name the same URL share one store, since an LMDB store is opened once in a process. It
is closed with the last of them.
"""

import asyncio
import os
import threading
from collections.abc import Callable, Coroutine
from concurrent.futures import Future
from typing import Any, TypeVar

from eventsourcing.persistence import InterfaceError

from uno_actors.domain.events import EventRegistry
from uno_actors.forks import on_fork
from uno_actors.store.opening import open_store
from uno_actors.store.port import EventStore
from uno_actors.store_urls import without_password
from uno_actors.tasks import begin
from uno_stores.eventsourcing.failures import translated
from uno_stores.eventsourcing.stored import StoredEventRecorded

T = TypeVar("T")

_opened: dict[str, "SharedStore"] = {}
_lock = threading.Lock()


class SharedStore:
    """A store, and the thread of its event loop. `of` gives the one of a URL.

    Args:
        url: Of the store.

    Raises:
        PersistenceError: It cannot be opened.
    """

    store: EventStore

    def __init__(self, url: str) -> None:
        self._url = url
        self._users = 0
        self._pid = os.getpid()
        self._ended = False
        self._turn = threading.Lock()
        self._loop = asyncio.new_event_loop()
        name = f"event store {without_password(url)}"
        self._thread = threading.Thread(target=self._loop.run_forever, name=name, daemon=True)
        self._thread.start()
        try:
            self.run(self._open())
        except BaseException:
            self._end_loop()
            raise

    @classmethod
    def of(cls, url: str) -> "SharedStore":
        """The store of ``url``, opened if no factory has it; `leave` must follow. Each `memory:` is a new one."""
        with _lock:
            found = None if url == "memory:" else _opened.get(url)
            if found is None:
                found = cls(url)
                if url != "memory:":
                    _opened[url] = found
            found._users += 1
            return found

    async def _open(self) -> None:
        self.store = open_store(self._url, EventRegistry([StoredEventRecorded]))

    def run(self, work: Coroutine[Any, Any, T]) -> T:
        """The result of ``work`` on the store's event loop.

        Raises:
            InterfaceError: The store was closed, or opened by the parent of this process.
            PersistenceError: See `uno_stores.eventsourcing.failures.translated`.
        """
        answer: Future[T] = Future()
        if self._pid != os.getpid():  # a thread of the parent may have held the lock
            work.close()
            raise self._unusable("open it after the fork, in this process")
        with self._turn:
            if self._ended:
                work.close()
                raise self._unusable("it was closed")
            self._loop.call_soon_threadsafe(begin, self._loop, _answered(work, answer))
        with translated():
            return answer.result()

    def _unusable(self, reason: str) -> InterfaceError:
        return InterfaceError(f"the store {without_password(self._url)} cannot be used: {reason}")

    def call_soon(self, function: Callable[[], object]) -> None:
        """Call ``function`` on the event loop, unless the store is closed."""
        if self._pid == os.getpid():
            with self._turn:
                if not self._ended:
                    self._loop.call_soon_threadsafe(function)

    def leave(self) -> None:
        """Close the store if no other factory of this process uses it."""
        with _lock:
            self._users -= 1
            if self._users or self._pid != os.getpid():
                return
            if _opened.get(self._url) is self:
                del _opened[self._url]
            try:
                self.run(self.store.close())
            finally:
                self._end_loop()

    def _end_loop(self) -> None:
        """End the thread when all that was begun has an answer: calls of other threads, which the store refuses now."""
        with self._turn:
            self._ended = True
            self._loop.call_soon_threadsafe(begin, self._loop, self._end_rest())
        self._thread.join()
        self._loop.close()

    async def _end_rest(self) -> None:
        others = asyncio.all_tasks() - {asyncio.current_task()}
        if others:
            await asyncio.wait(others)
        await self._loop.shutdown_asyncgens()
        await self._loop.shutdown_default_executor()
        self._loop.stop()


async def _answered(work: Coroutine[Any, Any, T], answer: "Future[T]") -> None:
    """Give the thread that waits for ``answer`` the result of ``work``, or its error."""
    try:
        answer.set_result(await work)
    except BaseException as error:  # noqa: BLE001 - raised where it is awaited
        answer.set_exception(error)


def _after_fork_in_child() -> None:
    global _lock  # noqa: PLW0603 - another thread of the parent may have held it
    _lock = threading.Lock()
    _opened.clear()


on_fork(after_in_child=_after_fork_in_child)
