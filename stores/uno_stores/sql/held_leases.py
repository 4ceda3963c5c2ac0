"""The leases of one store: taken, released, and lost to other processes."""

import asyncio
import contextlib
from collections.abc import Iterable, Mapping
from typing import TypeVar

from uno_actors.errors import StoreUnavailable
from uno_actors.store.port import Lease
from uno_actors.tasks import begin
from uno_stores.file_leases import FileLeases, Row
from uno_stores.given_leases import GivenLease, GivenLeases, needing_lease_files
from uno_stores.node_files import NodeDirectory
from uno_stores.sql.connections import Connections
from uno_stores.sql.jobs import SwapRow, Work
from uno_stores.sql.leases import read_rows, row_from
from uno_stores.sql.reader import Reader
from uno_stores.sql.tables import Tables
from uno_stores.sql.watcher import Watcher
from uno_stores.sql.writer import Writer

T = TypeVar("T")


class HeldLeases:
    """The one owner of which names the store has leased.

    PostgreSQL keeps them in a table, see `uno_stores.sql.leases.ServerLeases`. So does an SQLite file, beside which
    files show how the holders are, see `uno_stores.file_leases`. Those of a database in memory are of this process.
    """

    def __init__(
        self,
        connections: Connections,
        tables: Tables,
        writer: Writer,
        reader: Reader,
        watcher: Watcher,
        *,
        nodes: NodeDirectory | None,
        lease_time: float,
    ) -> None:
        self._connections = connections
        self._tables = tables
        self._writer = writer
        self._reader = reader
        self._watcher = watcher
        self.given = GivenLeases(self._release, self._confirm)
        rows = SqliteRows(reader, writer)
        locks = connections.place.leases
        self.files = (
            None
            if nodes is None
            else FileLeases(
                rows, nodes, locks, lease_time=lease_time, lost=self.given.lose, renewed=self.given.renewed
            )
        )

    async def take(self, name: str) -> Lease | None:
        """See `EventStore.lease`."""
        await self._tables.prepare()
        taking = begin(asyncio.get_running_loop(), self._take(name))
        try:
            await asyncio.wait([taking])  # to cancel it would end the connection, with all locks of leases
        except asyncio.CancelledError:
            self._watcher.run(self._give_back(name, taking))
            raise
        if taking.cancelled():
            connections = self._connections
            reason = "it was closed" if connections.life.closed else "what was asked was cancelled"
            raise StoreUnavailable(connections.url, reason)
        if not taking.result():
            return None
        self._watcher.watch()
        return self.given.give(name)

    async def _take(self, name: str) -> bool:
        connections = self._connections
        if (wire := connections.wire) is not None:
            return await connections.again_if_lost(lambda: wire.leases.take(name))
        if self.files is None:
            return connections.place.leases.take(name)
        with needing_lease_files(connections.url):
            return await self.files.take(name)

    async def is_taken(self, name: str) -> bool:
        """Whether a process has ``name``; this takes nothing."""
        if self._connections.wire is not None:
            return await self._reader.is_leased(name)
        if self.files is None:
            return self._connections.place.leases.has(name)
        await self._tables.prepare()
        with needing_lease_files(self._connections.url):
            return await self.files.is_taken(name)

    async def _give_back(self, name: str, taking: asyncio.Task[bool]) -> None:
        """Release a lease whose taker was cancelled."""
        with contextlib.suppress(Exception):
            if await taking:
                await self._let_go_of(name)

    async def _release(self, lease: GivenLease) -> None:
        """Release the name; idempotent."""
        if not self._connections.life.closed and self.given.take_back(lease):
            await self._let_go_of(lease.name)

    async def _let_go_of(self, name: str) -> None:
        wire = self._connections.wire
        if self.files is not None:
            await self.files.release(name)
        elif wire is None:
            self._connections.place.leases.release(name)
        else:
            with contextlib.suppress(Exception):  # one that cannot be released ends by itself
                await asyncio.shield(begin(asyncio.get_running_loop(), wire.leases.release(name)))

    def numbers(self) -> dict[str, int]:
        """How often each name was taken when this store took it: the fence. Lost leases are included."""
        if self.files is not None:
            return dict(self.files.held)
        wire = self._connections.wire
        return {} if wire is None else dict(wire.leases.held)

    async def submit_fenced(self, job: Work[T]) -> T:
        """The result of ``job``, unless it writes under a name that another process has taken over.

        Raises:
            LeaseLost: Another process has taken over the name; nothing was written.
        """
        with self.given.noticing_losses():
            done: T = await self._writer.submit(job)
        return done

    def notice(self, names: Iterable[str]) -> None:
        """Note that other processes have taken over ``names``."""
        for name in names:
            self.given.lose(name)

    async def _confirm(self) -> None:
        """Find out which names other processes have taken over."""
        connections = self._connections
        if (wire := connections.wire) is not None:
            await connections.again_if_lost(wire.leases.renew)
        elif self.files is not None:
            with needing_lease_files(connections.url):
                await self.files.confirm()

    async def release_pooled(self) -> None:
        """Release the leases of a store behind a pooler: no session ends there that would make the server free them."""
        connections = self._connections
        if connections.wire is not None and connections.pooled:
            for name in tuple(connections.wire.leases.held):
                await connections.wire.leases.release(name)

    def move(self) -> None:
        """Keep holding the names beside an SQLite file on another event loop."""
        if self.files is not None and self.files.held:
            self.files.beat()

    def stop(self) -> None:
        """Take no more names beside an SQLite file."""
        if self.files is not None:
            self.files.stop()

    def leave(self) -> None:
        """Release the names, except in PostgreSQL; for a store that is closed."""
        leases = self._connections.place.leases
        if self.files is not None:
            self.files.close()
        else:
            for name in self.given.held:
                leases.release(name)
        leases.leave()


class SqliteRows:
    """See `uno_stores.file_leases.Rows`."""

    def __init__(self, reader: Reader, writer: Writer) -> None:
        self._reader = reader
        self._writer = writer

    async def read(self, names: Iterable[str]) -> Mapping[str, Row]:
        """See there."""
        found = await self._reader.rows(read_rows(names))
        return {row.name: row_from(row.taken, row.holder) for row in found}

    async def swap(self, name: str, old: Row, new: Row) -> bool:
        """See there."""
        return bool(await self._writer.submit(SwapRow(name, old, new)))
