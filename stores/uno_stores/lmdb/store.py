"""The embedded event store: an LMDB environment on local disk with one writer thread and group commit.

Layout (format 1). All integers are unsigned and big-endian, so that keys sort by number; positions and
versions have 64 bits. ``log`` is the truth; ``streams`` is an index that can be rebuilt from it.

============== ==================================================== ====================================
database       key                                                  value
============== ==================================================== ====================================
log            position, from 1                                     record (`uno_actors.store.codec.pack`), check
streams        aggregate id, NUL, aggregate type, NUL, version      position
checkpoints    handler name                                         position, check
dead_letters   handler name, NUL, position                          msgpack array, fields of `DeadLetter`, check
snapshots      aggregate id, NUL, aggregate type, NUL               msgpack array: version, schema version,
                                                                    state (itself msgpack), taken at; check
views          view name, NUL, key                                  value, check
meta           ``program``, ``format``                              ``uno_actors``, ``1``
meta           ``facet``, NUL, key                                  msgpack array: fields of `Facet`, and the
                                                                    position up to which it is indexed; check
meta           ``term``, NUL, term, position                        check
meta           ``lease``, NUL, name                                 while the name is held: msgpack array, fields
                                                                    of `uno_stores.file_leases.Row`, check
============== ==================================================== ====================================

The last record of a command holds its reply (`uno_actors.store.codec.Record.reply`): the bytes C1 01 and eight bytes
of fingerprint, which distinguishes another command of the same id (`uno_actors.aggregates.fingerprint`), then the reply
as msgpack (`uno_actors.domain.values`), or C1 and the reason why the reply could not be recorded. Older versions wrote
no fingerprint, only what follows it.

*check* is the CRC-32 of key and value, 32 bits, the lowest byte first: a value that was changed or moved is
reported as `CorruptRecord`. So is a damaged key: `uno_stores.lmdb.reader` has the rules. These checks do not see
damage to the structure of LMDB's own pages: LMDB notices some of it; the rest can at worst end the process, but not
change an event. A truncated file is refused when it is opened; ``python -m lmdb verify`` finds other damage in a file
that is not in use.

Files in the directory: ``data.mdb``; ``lock.mdb``, LMDB's readers and its lock for writers; ``leases.lock``, a locked
byte for each handler name that a process has leased, where earlier versions look for it; the directory ``nodes``, a
file for each node that works on the store and for each holder of leases (`uno_stores.node_files`); the directory
``links``, the sockets of the nodes of a cluster. All but the first mean nothing when no process runs. The process that
writes holds a lock on the directory itself (``flock``; on Windows on a file ``writer.lock`` in it). If a file is
removed or replaced while the store is open, commits are refused from then on, and reads within
`uno_stores.lmdb.environment.LOOK_AT_FILES_EVERY` seconds.

The writer thread takes all waiting jobs, checks each request before its first put, commits once, and delivers the
results with one wake-up of the event loop; jobs that arrive during the fsync form the next transaction.

Durability, by LMDB's flags (never ``writemap``, never ``sync=False``, which a power cut may corrupt):

- ``fsync``: ``sync=True, metasync=True``. A commit returns when its pages and the meta page that points to them
  are on disk. Nothing that was acknowledged is lost, unless the disk lies about its cache.
- ``relaxed``: ``sync=True, metasync=False``. The pages are synced, the meta page is left to the next commit or
  to the system. In LMDB's words this "maintains database integrity, but a system crash may undo the last
  committed transaction". Nothing is lost when a process ends, even if it is killed. Nothing is ever corrupted.

LMDB writes the meta page last, and refuses all use of the environment when that fails. So a failed commit recorded
nothing, unless the environment is unusable afterwards: then the caller gets `OutcomeUnknown`, and the environment is
opened again.
"""

import asyncio
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from typing_extensions import override

from uno_actors.clock import Clock
from uno_actors.domain.events import EventRegistry, event_registry
from uno_actors.errors import StoreUnavailable, WorldError
from uno_actors.resources import closed, opened
from uno_actors.store.checkpoints import losses_in, moves_of
from uno_actors.store.codec import StreamId
from uno_actors.store.conditions import Condition
from uno_actors.store.limits import check_handlers, check_lease, check_progress
from uno_actors.store.maintenance import Fault, Progress, StoreInfo, StoreUsage, Verified
from uno_actors.store.membership import Membership
from uno_actors.store.port import EventStore, Lease
from uno_actors.store.records import PAGE, Append, DeadLetter, Heading, Snapshot, StoredRecord, ViewChange
from uno_actors.store.terms import PART, Facet, is_fresh
from uno_actors.tasks import on_another_thread
from uno_stores.file_leases import LEASE_TIME
from uno_stores.file_nodes import FileMembership
from uno_stores.guards import guard_forks
from uno_stores.lmdb import maintenance
from uno_stores.lmdb.environment import Environment
from uno_stores.lmdb.jobs import (
    Commit,
    DropDeadLetter,
    DropProgress,
    DropSnapshot,
    DropSnapshots,
    DropView,
    Outcomes,
    SaveProgress,
    SaveSnapshots,
)
from uno_stores.lmdb.leases import HeldLeases
from uno_stores.lmdb.opening import LINKS, NODES
from uno_stores.lmdb.options import MAP_SIZE, MAX_EVENT_SIZE, Durability, Options, check_options
from uno_stores.lmdb.statistics import LmdbStatistics, statistics
from uno_stores.lmdb.terms import ExtendIndex, found_by, lag_of
from uno_stores.lmdb.watcher import Watcher
from uno_stores.lmdb.writer import Writer
from uno_stores.node_files import NodeDirectory


class LmdbEventStore(EventStore):
    """Events in an LMDB environment in the directory ``path``, made if it is missing.

    The class implements the port; `Environment`, `Writer` and `Watcher` each own one concern.

    Args:
        path: A directory for this store alone, on a local disk; network file systems are not safe for LMDB.
        event_registry: Finds the classes of recorded events.
        durability: ``fsync``, or ``relaxed``, which may lose the last moments in a power cut; see the module.
        map_size: Bytes of address space reserved at first; the map is doubled whenever it is used up.
        max_size: Bytes that the file may grow to; beyond that, appends are refused with `StoreFull`. Default is the
            size of the disk.
        max_event_size: Bytes that one record may take; a larger one is refused with `EventNotSerializable`.
        lease_time: Seconds after which a process that hangs loses its handlers to another.
        create: Whether to make the store if there is none.
        read_only: Whether to open an existing store without changing anything in its directory. Writes are refused
            with `StoreUnavailable`. Other processes may write meanwhile, if the directory has its ``lock.mdb``.

    Raises:
        ValueError: An option is out of range.
        StoreFull: The disk has no room for its files.
        StoreUnavailable: The directory cannot be made, read or written, or is open in this process already.
        StoreFormatError: It belongs to another program or was written by a newer version of this one.
    """

    checks_conditions = True

    def __init__(
        self,
        path: str | Path,
        event_registry: EventRegistry = event_registry,
        *,
        durability: Durability = "fsync",
        map_size: int = MAP_SIZE,
        max_size: int | None = None,
        max_event_size: int = MAX_EVENT_SIZE,
        lease_time: float = LEASE_TIME,
        create: bool = True,
        read_only: bool = False,
    ) -> None:
        super().__init__(event_registry)
        check_options(durability, map_size, max_size, max_event_size, lease_time)
        self.path = Path(path).absolute()  # the program may go to another working directory
        if (read_only or not create) and not (self.path / "data.mdb").exists():
            raise StoreUnavailable(f"lmdb:{path}", f"there is no store in {self.path}")
        self.max_event_size = max_event_size
        map_size = map_size if max_size is None else min(map_size, max_size)
        self._environment = Environment(self.path, Options(durability, map_size, max_size, read_only))
        self._reading = self._environment.reading
        self._looked: dict[Facet, float] = {}
        self.gate = self._environment.gate
        self._nodes = NodeDirectory(self.path / NODES)
        self._watcher = Watcher(self._environment, lambda: bool(self._commit_listeners), self._committed)
        guard_forks(self)
        self._writer = Writer(self._environment, max_event_size, self._watcher.committed)
        self._leases = HeldLeases(self._environment, self._writer, self._nodes, lease_time)
        opened(self, f"store lmdb:{self.path}", "await store.close()")

    # --- the port: writing ---

    @override
    async def commit(self, requests: Sequence[Append]) -> Outcomes:
        self._environment.check_open()
        moves = moves_of(requests)
        try:
            for request in requests:
                if request.condition is not None:
                    await self._catch_up(request.condition)
            outcomes = await self._writer.submit(Commit(requests, self._leases.fence() if moves else None))
        except WorldError as error:
            return [error] * len(requests)
        if moves:
            self._leases.notice(losses_in(outcomes))
        return outcomes

    @override
    async def save_progress(
        self,
        checkpoints: Mapping[str, int],
        dead_letters: Sequence[DeadLetter] = (),
        views: Sequence[ViewChange] = (),
        dropped: Sequence[tuple[str, int]] = (),
    ) -> None:
        check_progress(checkpoints, dead_letters, views, dropped)
        work = SaveProgress(
            dict(checkpoints), tuple(dead_letters), tuple(views), tuple(dropped), self._leases.fence()
        )
        await self._leases.submit_fenced(work)

    @override
    async def drop_view(self, view: str) -> None:
        check_handlers([view])
        while await self._leases.submit_fenced(DropView(view, self._leases.fence())):
            pass

    @override
    async def drop_dead_letter(self, handler: str, position: int) -> bool:
        check_progress({}, dropped=[(handler, position)])
        return await self._writer.submit(DropDeadLetter(handler, position))

    @override
    async def save_snapshots(self, snapshots: Sequence[Snapshot]) -> None:
        await self._writer.submit(SaveSnapshots(tuple(snapshots)))

    @override
    async def drop_snapshots(self, aggregate_type: str | None = None) -> int:
        return await self._writer.submit(DropSnapshots(aggregate_type))

    @override
    async def drop_snapshot(self, stream: StreamId) -> bool:
        return await self._writer.submit(DropSnapshot(stream))

    @override
    async def drop_progress(self, handler: str) -> bool:
        check_handlers([handler])
        return await self._leases.submit_fenced(DropProgress(handler, self._leases.fence()))

    async def _catch_up(self, condition: Condition) -> None:
        """Bring the index near to the end of the log; the transaction that needs it does the rest.

        This looks at each facet once in `LOOK_EVERY` seconds, as the writes of others seldom bring it far behind.
        """
        facets = condition.facets
        if is_fresh(self._looked, facets, time.monotonic()):
            return
        with self._reading() as reading:
            is_far = lag_of(reading, facets) > PART
        while is_far:  # an error of the job is raised here
            is_far = bool(await self._writer.submit(ExtendIndex(dict.fromkeys(facets, condition.registry))))
        self._looked |= dict.fromkeys(facets, time.monotonic())

    # --- the port: reading ---

    @override
    async def _find(self, condition: Condition) -> tuple[list[StoredRecord], int]:
        await self._catch_up(condition)
        found: dict[int, StoredRecord] = {}
        with self._reading() as reading:
            up_to = reading.end() - lag_of(reading, condition.facets)
        for wanted in condition.wanted:
            after = condition.after
            while after < up_to:
                with self._reading() as reading:
                    page = found_by(reading, wanted.term, after, up_to)
                if not page:
                    break
                for stored in page:
                    if wanted.matches(stored.record, condition.registry):
                        found[stored.position] = stored
                    after = stored.position
                await asyncio.sleep(0)  # a long read must not block the event loop
        return [found[position] for position in sorted(found)], max(condition.after, up_to)

    @override
    async def read_stream(
        self, stream: StreamId, after_version: int = 0, limit: int = PAGE
    ) -> list[StoredRecord]:
        with self._reading() as reading:
            return reading.stream_page(stream, after_version, limit)

    @override
    async def read_log(self, after: int = 0, limit: int = PAGE) -> list[StoredRecord]:
        with self._reading() as reading:
            return reading.log_page(after, limit)

    @override
    async def read_headings(self, after: int = 0, limit: int = PAGE) -> list[Heading]:
        with self._reading() as reading:
            return reading.headings(after, limit)

    @override
    async def last_version(self, stream: StreamId) -> int:
        with self._reading() as reading:
            return reading.version(stream)

    @override
    async def aggregate_types(self, aggregate_id: str) -> list[str]:
        with self._reading() as reading:
            return reading.types(aggregate_id)

    @override
    async def last_position(self) -> int:
        with self._reading() as reading:
            return reading.end()

    @override
    async def checkpoints(self) -> dict[str, int]:
        with self._reading() as reading:
            return reading.checkpoints()

    @override
    async def dead_letters(self, handler: str | None = None) -> list[DeadLetter]:
        with self._reading() as reading:
            return reading.dead_letters(handler)

    @override
    async def dead_letter_counts(self) -> dict[str, int]:
        with self._reading() as reading:
            return reading.dead_letter_counts()

    @override
    async def read_view(
        self, view: str, start: bytes = b"", end: bytes | None = None, limit: int | None = PAGE
    ) -> list[tuple[bytes, bytes]]:
        with self._reading() as reading:
            return reading.view(view, start, end, limit)

    @override
    async def read_snapshot(self, stream: StreamId) -> Snapshot | None:
        with self._reading() as reading:
            return reading.snapshot(stream)

    # --- the port: listeners, leases and the end ---

    @override
    def on_commit(self, listener: Callable[[], None]) -> Callable[[], None]:
        """As `EventStore.on_commit`; commits of other processes are noticed within
        `uno_stores.lmdb.watcher.LOOK_EVERY` seconds.
        """
        stop = super().on_commit(listener)
        self._watcher.watch()
        return stop

    @override
    async def lease(self, name: str) -> Lease | None:
        self._environment.check_open()
        check_lease(name)
        self._environment.check_files()
        return await self._leases.take(name)

    @override
    async def is_leased(self, name: str) -> bool:
        self._environment.check_open()
        check_lease(name)
        return await self._leases.is_taken(name)

    @override
    def membership(self, seconds: float, clock: Clock) -> Membership:
        """As `EventStore.membership`; each node has a file beside the store that its process has locked."""
        return FileMembership(self._nodes, seconds, self._environment.check_files_open, f"lmdb:{self.path}")

    @override
    async def close(self) -> None:
        environment = self._environment
        if environment.is_inherited:  # all of it belongs to the parent process
            return
        if not environment.closed:
            environment.closed = True
            closed(self)
            self._end_subscriptions()
            self._leases.stop()
            self._writer.stop()
        # A second caller waits too: after close returns, the directory may be opened again.
        await on_another_thread(self._let_go)

    def _let_go(self) -> None:
        self._writer.thread.join()
        self._leases.close()
        self._nodes.close()
        self._environment.close()

    @property
    @override
    def directory(self) -> Path:
        return self.path / LINKS

    def abandon(self, *, quiet: bool) -> None:
        """See `uno_stores.guards.Forkable`."""
        self._leases.abandon()
        self._environment.abandon(quiet=quiet)

    # --- maintenance: see `uno_actors.store.maintenance` ---

    def statistics(self) -> LmdbStatistics:
        """The current state of the store."""
        return statistics(self._environment, self._watcher)

    async def usage(self) -> StoreUsage:
        """Bytes of the files, and the time that commits take."""
        self._environment.check_open()
        writer = self._writer
        return StoreUsage(maintenance.size_of(self._environment), writer.commits, writer.commit_seconds)

    async def info(self) -> StoreInfo:
        """Facts about the store; the time grows with the number of streams."""
        return await asyncio.to_thread(maintenance.info, self._environment)

    async def verify(self, progress: Progress | None = None) -> Verified | Fault:
        """Check the file with LMDB's verifier, and every index against the log and back."""
        self._environment.check_open()
        stopped = threading.Event()

        def report(done: int, total: int) -> None:
            if stopped.is_set():
                raise StoreUnavailable(f"lmdb:{self.path}", "the check was cancelled")
            (progress or _ignored)(done, total)

        try:
            return await asyncio.to_thread(maintenance.verify, self._environment, report, self.event_registry)
        finally:
            stopped.set()  # a caller that is cancelled does not wait for the thread, which then ends soon

    async def backup(self, target: str, progress: Progress | None = None) -> None:
        """Copy the store as it is at one moment to the directory ``target``, without free pages.

        While it is being copied the map cannot grow in this process; a separate process, such as
        ``uno-actors store backup``, delays no writer.

        Raises:
            PlaceTaken: ``target`` holds something already.
            StoreUnavailable: It cannot be written.
        """
        await asyncio.to_thread(maintenance.backup, self._environment, Path(target), progress or _ignored)

    def __repr__(self) -> str:
        return f"LmdbEventStore({str(self.path)!r})"


def _ignored(done: int, total: int) -> None:
    """For callers that want no progress."""
