"""The leases of an LMDB store: rows in the database ``meta``, which earlier versions of this program leave alone.

A name that no node holds has no row. So that a count never comes again, the first one is drawn by chance.
"""

import asyncio
import secrets
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import TypeVar

import msgpack

from uno_actors.errors import LeaseLost
from uno_actors.store.port import Lease
from uno_actors.tasks import begin
from uno_stores.file_leases import FileLeases, Row
from uno_stores.given_leases import GivenLease, GivenLeases, needing_lease_files
from uno_stores.guards import LeaseFile
from uno_stores.lmdb.environment import Environment
from uno_stores.lmdb.jobs import Fence, Work, Writing
from uno_stores.lmdb.opening import LEASES
from uno_stores.lmdb.reader import Reading
from uno_stores.lmdb.searching import sealed
from uno_stores.lmdb.writer import Writer
from uno_stores.node_files import NodeDirectory

T = TypeVar("T")

_PREFIX = b"lease\0"
_BITS = 62
"""Of the first count; more are to follow."""


class LmdbRows:
    """See `uno_stores.file_leases.Rows`."""

    def __init__(self, environment: Environment, writer: Writer) -> None:
        self._environment = environment
        self._writer = writer

    async def read(self, names: Iterable[str]) -> Mapping[str, Row]:
        """See there."""
        with self._environment.reading() as reading:
            found = {name: row_of(reading, name) for name in names}
        return {name: Row(secrets.randbits(_BITS)) if row is None else row for name, row in found.items()}

    async def swap(self, name: str, old: Row, new: Row) -> bool:
        """See there."""
        return await self._writer.submit(SwapRow(name, old, new))


@dataclass(frozen=True, slots=True)
class SwapRow:
    """Put one row in the place of another; the result is whether that was there."""

    name: str
    old: Row
    new: Row

    def write(self, writing: Writing) -> bool:
        """See `uno_stores.lmdb.jobs.Work.write`."""
        found = row_of(writing.reading, self.name)
        if found != (None if _is_free(self.old) else self.old):
            return False
        key = _PREFIX + self.name.encode()
        if _is_free(self.new):
            return writing.txn.delete(key, db=writing.databases.meta)
        writing.txn.put(key, sealed(key, msgpack.packb(self.new)), db=writing.databases.meta)
        return True


def row_of(reading: Reading, name: str) -> Row | None:
    """The row of ``name``.

    Raises:
        CorruptRecord: It cannot be read.
    """
    value = reading.meta(_PREFIX + name.encode(), f"the lease of {name}")
    return None if value is None else Row(*value)


def _is_free(row: Row) -> bool:
    return not (row.holder or row.keeper)


def lost_among(
    reading: Reading, held: Mapping[str, int], names: Iterable[str], store: str
) -> LeaseLost | None:
    """The error for those of the ``names`` that are ``held`` and were taken by others since."""
    ours = held.keys() & set(names)
    lost = [name for name in ours if (row_of(reading, name) or Row()).taken != held[name]]
    return LeaseLost(store, lost) if lost else None


class HeldLeases:
    """The one owner of which names the store has leased."""

    def __init__(
        self, environment: Environment, writer: Writer, nodes: NodeDirectory, lease_time: float
    ) -> None:
        self._environment = environment
        self._writer = writer
        self._url = f"lmdb:{environment.path}"
        self._file = LeaseFile(environment.path / LEASES)
        self._given = GivenLeases(self._release, self._confirm)
        rows = LmdbRows(environment, writer)
        self._names = FileLeases(
            rows, nodes, self._file, lease_time=lease_time, lost=self._given.lose, renewed=self._given.renewed
        )

    async def take(self, name: str) -> Lease | None:
        """See `EventStore.lease`."""
        self._environment.check_files()
        taking = begin(asyncio.get_running_loop(), self._names.take(name))
        try:
            await asyncio.wait([taking])  # what is written is written, though the caller is cancelled
        except asyncio.CancelledError:
            taking.add_done_callback(lambda _: self._give_back(name, taking))
            raise
        with needing_lease_files(self._url):
            if not taking.result():
                return None
            self._environment.files.watch(self._environment.path / LEASES)
        return self._given.give(name)

    def _give_back(self, name: str, taking: asyncio.Task[bool]) -> None:
        """Release a lease whose taker was cancelled."""
        if not taking.cancelled() and taking.exception() is None and taking.result():
            self._names.run(self._names.release(name))

    async def is_taken(self, name: str) -> bool:
        """See `EventStore.is_leased`."""
        with needing_lease_files(self._url):
            return await self._names.is_taken(name)

    async def _release(self, lease: GivenLease) -> None:
        """Let others have the name; idempotent."""
        if self._given.take_back(lease):
            await self._names.release(lease.name)

    async def _confirm(self) -> None:
        """Find out which names other processes have taken over."""
        with needing_lease_files(self._url):
            await self._names.confirm()

    def fence(self) -> Fence | None:
        """Refuses what is written for a handler that is held now and that another process has taken over."""
        held = dict(self._names.held)
        if not held:
            return None
        return lambda reading, handlers: lost_among(reading, held, handlers, self._url)

    async def submit_fenced(self, work: Work[T | LeaseLost]) -> T:
        """The result of ``work``, whose `fence` has refused nothing.

        Raises:
            LeaseLost: It has; nothing was written.
        """
        with self._given.noticing_losses():
            done = await self._writer.submit(work)
        assert not isinstance(done, LeaseLost)  # it was raised
        return done

    def notice(self, names: Iterable[str]) -> None:
        """Note that other processes have taken over ``names``."""
        for name in names:
            self._given.lose(name)

    # --- the end ---

    def stop(self) -> None:
        """Take no more names; on the event loop."""
        self._names.stop()

    def close(self) -> None:
        """Let go of all names."""
        self._names.close()
        self._file.close()

    def abandon(self) -> None:
        """See `uno_stores.guards.Forkable`."""
        self._file.close()
