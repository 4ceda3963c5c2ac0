"""The connections of aiosqlite: each is closed, also when its caller is cancelled while it is made.

A thread connects to the file. When the event loop ends in the meantime, or a read is cancelled, aiosqlite stops that
thread and forgets what it may have made, which stays open until it is garbage.
"""

import asyncio
import sqlite3
from collections.abc import Callable
from typing import Any

import aiosqlite
from typing_extensions import override


class SqliteConnection(aiosqlite.Connection):
    """A connection that `stop` closes, even if the thread has still to make it."""

    def __init__(self, connector: Callable[[], sqlite3.Connection], iter_chunk_size: int) -> None:
        super().__init__(self._make, iter_chunk_size)
        self._thread.daemon = True  # as SQLAlchemy makes it for its own: it holds up no end of a process
        self._make_it = connector
        self._made: sqlite3.Connection | None = None

    def _make(self) -> sqlite3.Connection:
        self._made = self._make_it()
        return self._made

    @override
    async def rollback(self) -> None:
        """Roll back, to the end also if the caller is cancelled: the pool loses a connection that has not done so."""
        done: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._tx.put_nowait((done, self._conn.rollback))
        cancelled: asyncio.CancelledError | None = None
        while not done.done():
            try:
                await asyncio.shield(done)
            except asyncio.CancelledError as error:
                cancelled = error
        if cancelled is not None:
            raise cancelled
        done.result()

    @override
    def stop(self) -> Any:
        self._tx.put_nowait((None, self._close_made))  # behind what the thread does now, and before it ends
        return super().stop()

    def _close_made(self) -> None:
        if self._made is not None:
            self._made.close()


def connect_sqlite(database: str, **options: Any) -> SqliteConnection:
    """Connect, when awaited, to the file ``database``; the options are those of `sqlite3.connect`."""
    return SqliteConnection(lambda: sqlite3.connect(database, **options), iter_chunk_size=64)
