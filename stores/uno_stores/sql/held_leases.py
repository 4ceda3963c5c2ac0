"""The leases of one store: taken, released, and lost to other processes."""

import asyncio
import contextlib

from typing_extensions import override

from uno_actors.errors import LeaseLost, StoreUnavailable
from uno_actors.store.port import Lease
from uno_stores.sql.connections import Connections
from uno_stores.sql.jobs import CountLease, Work
from uno_stores.sql.reader import Reader
from uno_stores.sql.tables import Tables
from uno_stores.sql.watcher import Watcher
from uno_stores.sql.writer import Writer


class HeldLeases:
    """The one owner of which names the store has leased.

    PostgreSQL keeps them in a table, see `uno_stores.sql.leases.ServerLeases`. Beside an SQLite file the operating
    system holds them, and the database counts how often each was taken.
    """

    def __init__(
        self, connections: Connections, tables: Tables, writer: Writer, reader: Reader, watcher: Watcher
    ) -> None:
        self._connections = connections
        self._tables = tables
        self._writer = writer
        self._reader = reader
        self._watcher = watcher
        self.held: dict[str, _HeldLease] = {}
        self._counted: dict[str, int] = {}  # how often each was taken, on SQLite

    async def take(self, name: str) -> Lease | None:
        """See `EventStore.lease`."""
        await self._tables.prepare()
        taking = asyncio.ensure_future(self._take(name))
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
        self.held[name] = lease = _HeldLease(self, name)
        self._watcher.watch()
        return lease

    async def _take(self, name: str) -> bool:
        connections = self._connections
        if (wire := connections.wire) is not None:
            return await connections.again_if_lost(lambda: wire.leases.take(name))
        try:
            if not connections.place.leases.take(name):
                return False
        except OSError as error:
            raise self._no_lease_file(error) from error
        try:
            self._counted[name] = await self._writer.submit(CountLease(name))
        except BaseException:
            connections.place.leases.release(name)
            raise
        return True

    async def is_taken(self, name: str) -> bool:
        """Whether a process has ``name``; this asks PostgreSQL and takes nothing."""
        if self._connections.wire is not None:
            return await self._reader.is_leased(name)
        try:
            return self._connections.place.leases.is_taken(name)
        except OSError as error:
            raise self._no_lease_file(error) from error

    def _no_lease_file(self, error: OSError) -> StoreUnavailable:
        return StoreUnavailable(self._connections.url, f"its leases: {error.strerror or error}")

    async def _give_back(self, name: str, taking: asyncio.Task[bool]) -> None:
        """Release a lease whose taker was cancelled."""
        with contextlib.suppress(Exception):
            if await taking:
                await self._let_go_of(name)

    async def release(self, lease: "_HeldLease") -> None:
        """Release the name; idempotent."""
        if self.held.get(lease.name) is not lease or self._connections.life.closed:
            return
        del self.held[lease.name]
        await self._let_go_of(lease.name)

    async def _let_go_of(self, name: str) -> None:
        wire = self._connections.wire
        if wire is None:
            self._counted.pop(name, None)
            self._connections.place.leases.release(name)
        else:
            with contextlib.suppress(Exception):  # one that cannot be released ends by itself
                await asyncio.shield(wire.leases.release(name))

    def numbers(self) -> dict[str, int]:
        """How often each name was taken when this store took it: the fence. Lost leases are included."""
        wire = self._connections.wire
        return dict(self._counted if wire is None else wire.leases.held)

    async def submit_fenced(self, job: Work[None]) -> None:
        """Write ``job``, unless it writes under a name that another process has taken over.

        Raises:
            LeaseLost: Another process has taken over the name; nothing was written.
        """
        try:
            await self._writer.submit(job)
        except LeaseLost as lost:
            for name in lost.handlers:
                self.lose(name)
            raise

    def lose(self, name: str) -> None:
        """Note that another process has taken over ``name``."""
        if (lease := self.held.get(name)) is not None:
            lease._lose()

    async def release_pooled(self) -> None:
        """Release the leases of a store behind a pooler: no session ends there that would make the server free them."""
        connections = self._connections
        if connections.wire is not None and connections.pooled:
            for name in tuple(connections.wire.leases.held):
                await connections.wire.leases.release(name)

    def leave(self) -> None:
        """Release the names beside an SQLite file; for a store that is closed."""
        leases = self._connections.place.leases
        for name in self._counted:
            leases.release(name)
        leases.leave()


class _HeldLease(Lease):
    def __init__(self, leases: HeldLeases, name: str) -> None:
        self._leases = leases
        self.name = name

    @override
    async def release(self) -> None:
        await self._leases.release(self)
