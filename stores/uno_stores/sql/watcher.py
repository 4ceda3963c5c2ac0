"""The watcher: notices what other processes record, and renews the leases of the store."""

import asyncio
import contextlib
from collections.abc import Callable, Coroutine, Iterable
from typing import Any

from uno_actors.errors import UnoError
from uno_actors.store.logs import log_of_position, start_of_log
from uno_actors.tasks import begin
from uno_stores.sql.connections import Connections
from uno_stores.sql.log import LAST_POSITIONS_AT_ONCE
from uno_stores.sql.notifications import Wire
from uno_stores.sql.reader import Reader
from uno_stores.sql.tables import Tables

LOOK_EVERY = 0.05
"""Seconds between two checks for records of other processes, where the database does not notify."""
ASK_EVERY = 1.0
"""Seconds between two queries to a database that notifies: whether it answers, and what was missed."""


class Watcher:
    """Watches the database while the store has listeners or leases.

    Args:
        connections: The store's connections.
        tables: The store's tables.
        reader: The store's reader.
        has_listeners: Whether the store has listeners now.
        committed: Calls the listeners.

    Attributes:
        task: The task that watches; ``None`` or done while there is nothing to watch for.
        errands: Tasks whose results have no caller; cancelled when the store is closed.
    """

    def __init__(
        self,
        connections: Connections,
        tables: Tables,
        reader: Reader,
        has_listeners: Callable[[], bool],
        committed: Callable[[], None],
    ) -> None:
        self._connections = connections
        self._tables = tables
        self._reader = reader
        self._has_listeners = has_listeners
        self._committed = committed
        self._announced: dict[int, int] = {}  # listeners know of everything up to here, in each log
        self.move(had_loop=False)

    def move(self, *, had_loop: bool) -> None:
        """Start over on another event loop."""
        self.task: asyncio.Task[None] | None = None
        self.errands: set[asyncio.Task[None]] = set()
        if had_loop and self._has_listeners():
            self.watch()

    def watch(self) -> None:
        """Start to watch, unless the task runs already or no other process can write there."""
        connections = self._connections
        if connections.life.closed or connections.place.alone or not (self.task is None or self.task.done()):
            return
        work = self._look_often() if connections.wire is None else self._listen(connections.wire)
        self.task = begin(asyncio.get_running_loop(), work, name=f"watcher of {connections.url}")

    async def _look_often(self) -> None:
        while self._has_listeners():
            await self._look()
            await asyncio.sleep(LOOK_EVERY)

    async def _listen(self, wire: Wire) -> None:
        while self._has_listeners() or wire.leases.held:
            try:
                await self._tables.prepare()
                if wire.leases.due <= 0:
                    await wire.leases.renew()
                self.announce(await wire.ask(LAST_POSITIONS_AT_ONCE) or ())
            except Exception:  # noqa: BLE001 - readers and writers report it; here it is tried again
                await asyncio.sleep(LOOK_EVERY)
                continue
            pause = LOOK_EVERY if self._has_listeners() and not wire.listens else ASK_EVERY
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(max(0.0, min(pause, wire.leases.due))):
                    await wire.lost.wait()

    async def _look(self) -> None:
        with contextlib.suppress(UnoError):  # the next reader gets the error
            self.announce(await self._reader.ends())

    def look_soon(self) -> None:
        """Check once, after a caller's transaction has ended."""
        if self._has_listeners() and not self._connections.life.closed:
            self.run(self._look())

    def run(self, errand: Coroutine[Any, Any, None]) -> None:
        """Run ``errand``, whose result has no caller, unless the store is closed first."""
        self.errands.add(task := begin(asyncio.get_running_loop(), errand))
        task.add_done_callback(self.errands.discard)

    def announce(self, ends: Iterable[int]) -> None:
        """Call the listeners if a log has grown to one of the ``ends`` since the last time."""
        has_grown = False
        for end in ends:
            number = log_of_position(end)
            if end > self._announced.get(number, start_of_log(end)):
                self._announced[number] = end
                has_grown = True
        if has_grown:
            self._committed()
