"""How a store is closed: accepted jobs are written, reads get a moment, and no connection is left behind."""

import asyncio
import contextlib
from typing import Any

from uno_actors.tasks import begin
from uno_stores.sql.announcements import Announcements
from uno_stores.sql.connections import Connections
from uno_stores.sql.engine import CLOSE_PATIENCE
from uno_stores.sql.held_leases import HeldLeases
from uno_stores.sql.kept import KeptConnection
from uno_stores.sql.nodes import Nodes
from uno_stores.sql.reader import Reader
from uno_stores.sql.waiting import within
from uno_stores.sql.watcher import Watcher
from uno_stores.sql.writer import Writer


class Closing:
    """The end of one store, whose `Life` is closed already."""

    def __init__(
        self,
        connections: Connections,
        writer: Writer,
        reader: Reader,
        watcher: Watcher,
        leases: HeldLeases,
        *,
        nodes: Nodes,
        announcements: Announcements,
        kept: KeptConnection,
    ) -> None:
        self._connections = connections
        self._writer = writer
        self._reader = reader
        self._watcher = watcher
        self._leases = leases
        self._nodes = nodes
        self._announcements = announcements
        self._kept = kept
        self._end: asyncio.Task[None] | None = None

    async def wait(self) -> None:
        """Close everything; a second caller waits too, so that afterwards the database may be opened again."""
        if self._end is None:
            self._end = begin(asyncio.get_running_loop(), self._let_go())
        try:
            await asyncio.shield(self._end)
        except asyncio.CancelledError:  # there is no time to do it in good order
            self._connections.cut()
            self._end.cancel()
            raise

    async def _let_go(self) -> None:
        self._leases.stop()
        try:
            await self._finish()
        except asyncio.CancelledError:
            self._connections.cut()
        tasks = self._under_way()
        for task in tasks:
            task.cancel()
        self._connections.cut_sessions()
        try:
            await asyncio.gather(*tasks, return_exceptions=True)
            await self._end_connections()
        except asyncio.CancelledError:
            self._connections.cut()
        self._kept.drop()
        self._announcements.drop()
        self._nodes.leave()
        self._leases.leave()

    async def _finish(self) -> None:
        """Wait for accepted jobs, as long as the database may take for them, and for reads that have started."""
        if self._writer.task is not None:
            await asyncio.wait([self._writer.task], timeout=2 * self._connections.patience)
        if (announcing := self._announcements.task) is not None:
            await asyncio.wait([announcing], timeout=CLOSE_PATIENCE)
        if self._reader.under_way:
            await asyncio.wait(self._reader.under_way, timeout=CLOSE_PATIENCE)
        await self._kept.give_back()
        await self._announcements.give_back()

    def _under_way(self) -> list[asyncio.Task[Any]]:
        tasks = (
            self._writer.task,
            self._announcements.task,
            self._watcher.task,
            *self._watcher.errands,
            *self._reader.under_way,
        )
        return [task for task in tasks if task is not None and not task.done()]

    async def _end_connections(self) -> None:
        """In good order, if they answer soon."""
        connections = self._connections
        if connections.wire is None:
            await self._nodes.withdraw()
        else:
            with contextlib.suppress(Exception):  # an announcement ends by itself
                async with within(CLOSE_PATIENCE):
                    await self._nodes.withdraw()
            with contextlib.suppress(Exception):  # a lease that cannot be released ends by itself
                async with within(CLOSE_PATIENCE):
                    await self._leases.release_pooled()
            await connections.wire.close()
        if connections.own_engine is not None:
            await connections.own_engine.dispose()
        await connections.life.leave()
