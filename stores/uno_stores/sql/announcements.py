"""Announcements: tells the processes that listen, after a commit, that the log has grown.

PostgreSQL takes one lock for the whole server while a transaction that notifies commits, and such a commit waits for
the disk. If appends notified, all appends on the server would wait for each other. So a store notifies after its
commits, in a transaction that writes nothing and does not wait for the disk, and at most once every `ANNOUNCE_EVERY`
seconds.

An announcement is only a hint. If it is lost, because the process is killed between its commit and the announcement,
listeners find the events when they next ask the database: see `uno_stores.sql.watcher.ASK_EVERY`.
"""

import asyncio
import contextlib
from collections.abc import Mapping

from uno_actors.tasks import begin
from uno_stores.sql.connections import Connections
from uno_stores.sql.kept import KeptConnection
from uno_stores.sql.log import NOTIFY
from uno_stores.sql.quick_statement import QuickStatement

_QUICK_NOTIFY = QuickStatement(NOTIFY)

ANNOUNCE_EVERY = 0.02
"""Minimum seconds between two announcements of one store."""


class Announcements:
    """Announces the growth of the log to other processes.

    It has a connection of its own: that of the writer is often busy, and to take one from the pool each time would cost
    more than an append. Where the store keeps a connection for ``LISTEN``, that one is used.

    Attributes:
        task: The task that announces; ``None`` or done while there is nothing to announce.
        sent: Number of announcements.
    """

    def __init__(self, connections: Connections) -> None:
        self._connections = connections
        self._kept = KeptConnection(connections)
        self.sent = 0
        self.move()

    def move(self) -> None:
        """Start over on another event loop."""
        self._kept.move()
        self._ends: dict[int, int] = {}  # of each log, not announced yet
        self.task: asyncio.Task[None] | None = None

    def grown(self, ends: Mapping[int, int]) -> None:
        """Announce soon that logs have grown, each to its new last position."""
        connections = self._connections
        if connections.wire is None or not ends:  # other processes look by themselves, or there are none
            return
        self._ends |= ends
        if self.task is None or self.task.done():
            name = f"announcements of {connections.url}"
            self.task = begin(asyncio.get_running_loop(), self._announce(), name=name)

    async def give_back(self) -> None:
        """Return its connection to the pool."""
        await self._kept.give_back()

    def drop(self) -> None:
        """End its connection at once if it was not given back."""
        self._kept.drop()

    async def _say(self, terms: dict[str, list[int]]) -> None:
        connections = self._connections
        wire = connections.wire
        if wire is not None and wire.is_connected and wire.listens:
            await wire.tell(_QUICK_NOTIFY, terms)
        elif connections.may_keep:
            await self._kept.value(_QUICK_NOTIFY, terms)
        else:
            await connections.say(NOTIFY, terms)

    async def _announce(self) -> None:
        while self._ends:
            ends, self._ends = self._ends, {}
            with contextlib.suppress(Exception):  # listeners ask the database too
                await self._say({"ends": sorted(ends.values())})
                self.sent += 1
            if not self._connections.life.closed:
                await asyncio.sleep(ANNOUNCE_EVERY)
