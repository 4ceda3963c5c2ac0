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
============== ==================================================== ====================================

The last record of a command holds its reply (`uno_actors.store.codec.Record.reply`): the bytes C1 01 and eight bytes
of fingerprint, which tells another command of the same id apart (`uno_actors.aggregates.fingerprint`), then the reply
as msgpack (`uno_actors.domain.values`), or C1 and the reason why the reply could not be recorded. Older versions wrote
no fingerprint, only what follows it.

*check* is the CRC-32 of key and value, 32 bits, the lowest byte first: a value that was changed, or that stands
in another's place, is not believed but told as `CorruptRecord`. So is a false key: `uno_stores.lmdb.reader` has the
rules. Damage to the structure of LMDB's own pages is not seen by these checks: LMDB notices some of it, the rest can
in the worst case end the process, but not change an event. A file that has lost its end is refused when it is
opened; ``python -m lmdb verify`` finds the rest in a file at rest.

Files in the directory: ``data.mdb``; ``lock.mdb``, LMDB's readers and its lock for writers; ``leases.lock``,
a locked byte for each handler name that a process has leased. The last two mean nothing when no process runs. The
directory itself is locked (``flock``) by the one who writes. If a file is removed or replaced while the store is
open, commits are refused from then on, and reads within `LOOK_AT_FILES_EVERY` seconds.

The writer thread takes everything that waits, checks each request before its first put, commits once, and
answers with one wake-up of the event loop; whatever arrives during the fsync forms the next transaction.

Durability, by LMDB's flags (never ``writemap``, never ``sync=False``, which a power cut may corrupt):

- ``fsync``: ``sync=True, metasync=True``. A commit returns when its pages and the meta page that points to them
  are on disk. Nothing that was acknowledged is lost, unless the disk lies about its cache.
- ``relaxed``: ``sync=True, metasync=False``. The pages are synced, the meta page is left to the next commit or
  to the system. In LMDB's words this "maintains database integrity, but a system crash may undo the last
  committed transaction". If a process ends, however it ends, nothing is lost. Nothing is ever corrupted.

LMDB writes the meta page last, and when that fails lets nobody use the environment any more. So a failed commit
has recorded nothing unless the environment is unusable after it: then `OutcomeUnknown` is told, and it is
opened again.
"""

import asyncio
import contextlib
import errno
import os
import queue
import resource
import threading
import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Generic, Literal, NamedTuple, Protocol, TypeVar, get_args
from urllib.parse import parse_qsl

import lmdb
import msgpack
from lmdb.verify import VerifyError, verify
from typing_extensions import override

from uno_actors.domain.events import EventRegistry, event_registry
from uno_actors.errors import (
    EventNotSerializable,
    InvalidStoreUrl,
    OutcomeUnknown,
    StoreForked,
    StoreFormatError,
    StoreFull,
    StoreUnavailable,
    UnoError,
    WorldError,
)
from uno_actors.quantities import check_count
from uno_actors.store.codec import Record, StreamId, pack
from uno_actors.store.expected_version import place
from uno_actors.store.limits import check_handlers, check_lease, check_progress
from uno_actors.store.maintenance import Fault, Progress, StoreInfo, Verified
from uno_actors.store.port import EventStore, Lease
from uno_actors.store.records import PAGE, Append, Appended, DeadLetter, Snapshot, StoredRecord, ViewChange
from uno_actors.units import size
from uno_stores.files import Files
from uno_stores.guards import PATIENCE, Gate, LeaseFile, WriteTurn, can_map, guard_forks, reserve_lock_file
from uno_stores.lmdb import maintenance
from uno_stores.lmdb.reader import NAMES, U64, Databases, Reading, sealed, stream_prefix

FORMAT = b"1"
PROGRAM = b"uno_actors"
MAP_SIZE = 64 << 30
"""Bytes of address space reserved for the file at first; the file is as large as what is in it."""
MIN_SIZE = 1 << 20
"""Bytes of the smallest map, so that there is room for the databases themselves."""
MAX_EVENT_SIZE = 16 << 20
"""Bytes that a record may take, unless the store is told otherwise."""
MAX_READERS = 1024
MAX_GROUP = 10_000
"""Jobs in one transaction at the most, so that the first of them is not kept waiting by the last."""
MAX_HEADS = 100_000
"""Stream versions that the writer remembers between transactions."""
LOOK_EVERY = 0.025
"""Seconds between two looks for what other processes have recorded, while somebody listens."""
LOOK_AT_FILES_EVERY = 0.25
"""Seconds between two looks, by reads, at whether the files are still in their place; commits look each time."""
CHECK_READERS_EVERY = 30.0
"""Seconds between two looks for readers that died: what they read is kept, and the file grows."""

LEASES = "leases.lock"

Durability = Literal["fsync", "relaxed"]

_DISK_FULL = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}
_NO_ROOM = 1 << 20
"""Bytes left on a disk that is as good as full."""

T = TypeVar("T")
T_co = TypeVar("T_co", covariant=True)
Outcomes = list[Appended | UnoError]


class LmdbEventStore(EventStore):
    """Events in an LMDB environment in the directory ``path``, made if it is missing.

    Args:
        path: A directory of its own on a local disk; network file systems are not safe for LMDB.
        event_registry: Finds the classes of recorded events.
        durability: ``fsync`` or ``relaxed``, which may lose the last moments in a power cut; see the module.
        map_size: Bytes of address space reserved at first; the map is doubled whenever it is used up.
        max_size: Bytes that the file may grow to; beyond them appends are refused with `StoreFull`. Default is
            as large as the disk.
        max_event_size: Bytes that one record may take; a larger one is refused with `EventNotSerializable`.
        create: Whether to make the store if there is none.

    Raises:
        ValueError: An option is none of those that are allowed.
        StoreFull: There is no room for its files.
        StoreUnavailable: The directory cannot be made, read or written, or is open in this process already.
        StoreFormatError: It belongs to another program or was written by a newer version of this one.
    """

    def __init__(
        self,
        path: str | Path,
        event_registry: EventRegistry = event_registry,
        *,
        durability: Durability = "fsync",
        map_size: int = MAP_SIZE,
        max_size: int | None = None,
        max_event_size: int = MAX_EVENT_SIZE,
        create: bool = True,
    ) -> None:
        super().__init__(event_registry)
        _check_options(durability, map_size, max_size, max_event_size)
        self.path = Path(path).absolute()  # the program may go to another working directory
        if not create and not (self.path / "data.mdb").exists():
            raise StoreUnavailable(f"lmdb:{path}", f"there is no store in {self.path}")
        self.max_event_size = max_event_size
        self.gate = Gate()
        self._options = _Options(durability, map_size if max_size is None else min(map_size, max_size))
        self._max_size = max_size
        self._leases = LeaseFile(self.path / LEASES)
        self._forked = False
        self._broken = False  # its environment cannot be used and must be opened again
        self._files = Files()
        self._look_at_files_at = 0.0
        self._lost_was_told = False
        self._turn = _turn_at(self.path)
        try:
            self._open_environment()
        except BaseException:
            self._turn.close()
            raise
        self._jobs: queue.SimpleQueue[_Job[Any] | None] = queue.SimpleQueue()
        self._heads: dict[StreamId, int] = {}
        self._known_end = -1  # the end of the log for which the heads are right
        self._closed = False
        self._announced = 0  # listeners have been told of everything up to here
        self._looking: asyncio.AbstractEventLoop | None = None
        guard_forks(self)
        self._writer = threading.Thread(target=self._write_jobs, name=f"lmdb-writer {self.path}", daemon=True)
        self._writer.start()

    def _open_environment(self) -> None:
        try:
            with self._turn.taken(PATIENCE):
                self._env, self._databases = _open(self.path, self._options)
            self._files.watch(self.path / "data.mdb", self.path / "lock.mdb")
        except (OSError, TimeoutError) as error:
            raise StoreUnavailable(f"lmdb:{self.path}", str(error)) from error

    # --- the port: writing ---

    @override
    async def commit(self, requests: Sequence[Append]) -> Outcomes:
        self._check_open()
        try:
            return await self._submit(_Commit(requests))
        except WorldError as error:
            return [error] * len(requests)

    @override
    async def save_progress(
        self,
        checkpoints: Mapping[str, int],
        dead_letters: Sequence[DeadLetter] = (),
        views: Sequence[ViewChange] = (),
        dropped: Sequence[tuple[str, int]] = (),
    ) -> None:
        letters = [(letter.handler, letter.position) for letter in dead_letters]
        check_progress(checkpoints, [*letters, *dropped], views)
        work = _SaveProgress(dict(checkpoints), tuple(dead_letters), tuple(views), tuple(dropped))
        await self._submit(work)

    @override
    async def drop_view(self, view: str) -> None:
        check_handlers([view])
        while await self._submit(_DropView(view)):
            pass

    @override
    async def drop_dead_letter(self, handler: str, position: int) -> bool:
        check_progress({}, [(handler, position)], ())
        return await self._submit(_DropDeadLetter(handler, position))

    @override
    async def save_snapshots(self, snapshots: Sequence[Snapshot]) -> None:
        await self._submit(_SaveSnapshots(tuple(snapshots)))

    @override
    async def drop_snapshots(self, aggregate_type: str | None = None) -> int:
        return await self._submit(_DropSnapshots(aggregate_type))

    @override
    async def lease(self, name: str) -> Lease | None:
        self._check_open()
        check_lease(name)
        self._check_files()
        try:
            taken = self._leases.take(name)
            if taken:
                self._files.watch(self.path / LEASES)
        except OSError as error:
            raise StoreUnavailable(f"lmdb:{self.path}", f"{LEASES}: {error.strerror or error}") from error
        return _Held(self, name) if taken else None

    @override
    async def close(self) -> None:
        if self._forked:  # nothing of it is the child's
            return
        if not self._closed:
            self._closed = True
            self._end_subscriptions()
            self._jobs.put(None)
        # A second caller waits too: whoever sees close return may open the place again.
        await asyncio.to_thread(self._let_go)

    def _let_go(self) -> None:
        self._writer.join()
        self._leases.close()
        while not self.gate.lock(PATIENCE):  # a copy is being made
            pass
        try:
            self._env.close()
        finally:
            self._turn.close()
            self.gate.unlock()

    def abandon(self, *, quiet: bool) -> None:
        """See `uno_stores.guards.Forkable`."""
        self._forked = self._closed = True
        self._leases.close()
        self._turn.close()
        if quiet:
            self._env.close()

    # --- the port: reading ---

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
    async def last_version(self, stream: StreamId) -> int:
        with self._reading() as reading:
            return reading.version(stream)

    @override
    async def aggregate_types(self, aggregate_id: str) -> list[str]:
        with self._reading() as reading:
            return reading.types(aggregate_id)

    @override
    async def last_position(self) -> int:
        return self._last()

    @override
    async def checkpoints(self) -> dict[str, int]:
        with self._reading() as reading:
            return reading.checkpoints()

    @override
    async def dead_letters(self, handler: str | None = None) -> list[DeadLetter]:
        with self._reading() as reading:
            return reading.dead_letters(handler)

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

    @override
    def on_commit(self, listener: Callable[[], None]) -> Callable[[], None]:
        """As `EventStore.on_commit`; commits of other processes are noticed within `LOOK_EVERY` seconds."""
        stop = super().on_commit(listener)
        loop = asyncio.get_running_loop()
        if self._looking is not loop:
            self._looking = loop
            self._announced = self._last()
            loop.call_later(LOOK_EVERY, self._look)
        return stop

    def _look(self) -> None:
        """Tell the listeners if another process has recorded something."""
        if self._closed or not self._commit_listeners:
            self._looking = None
            return
        try:
            self._announce(self._last())
        except UnoError:  # the next read tells of it; those who wait for news have none before
            if self._files.lost() and not self._lost_was_told:
                self._lost_was_told = True
                self._committed()
        if self._looking is not None:
            self._looking.call_later(LOOK_EVERY, self._look)

    def _announce(self, end: int) -> None:
        if end > self._announced:
            self._announced = end
            self._committed()

    def _last(self) -> int:
        with self._reading() as reading:
            return reading.end()

    @contextlib.contextmanager
    def _reading(self) -> Iterator[Reading]:
        """A read transaction; it must be short, for the map cannot grow meanwhile."""
        self._check_open()
        try:
            txn = self._begin()
            try:
                yield Reading(txn, self._databases, self.path)
            finally:
                txn.abort()
                self.gate.leave()
        except (lmdb.Error, TimeoutError) as error:
            raise _meaning(self.path, error) from error

    def _check_files(self) -> None:
        """Refuse to go on with files that nobody else can find.

        Raises:
            StoreUnavailable: One of them was removed, or another is in its place.
        """
        if lost := self._files.lost():
            self._look_at_files_at = 0.0  # each read looks, until they are back
            raise StoreUnavailable(
                f"lmdb:{self.path}", f"{lost} while it was open: put the store back, or open it again"
            )
        self._look_at_files_at = time.monotonic() + LOOK_AT_FILES_EVERY

    def _check_open(self) -> None:
        if self._forked:
            raise StoreForked(f"lmdb:{self.path}")
        if self._closed:
            raise StoreUnavailable(f"lmdb:{self.path}", "it was closed")

    # --- care: see `uno_actors.store.maintenance` ---

    async def info(self) -> StoreInfo:
        """How the store is; the time grows with the number of streams."""
        return await asyncio.to_thread(maintenance.info, self)

    async def verify(self, progress: Progress | None = None) -> Verified | Fault:
        """Check the file by LMDB's verifier, and every index against the log and back."""
        self._check_open()
        stopped = threading.Event()

        def report(done: int, total: int) -> None:
            if stopped.is_set():
                raise StoreUnavailable(f"lmdb:{self.path}", "the check was cancelled")
            (progress or _unheard)(done, total)

        try:
            return await asyncio.to_thread(maintenance.verify, self, report)
        finally:
            stopped.set()  # a caller that is cancelled does not wait for the thread, which then ends soon

    async def backup(self, target: str, progress: Progress | None = None) -> None:
        """Copy the store as it is at one moment to the directory ``target``, without free pages.

        While it is being copied the map cannot grow in this process; a process of its own, such as
        ``uno-actors store backup``, keeps nobody waiting.

        Raises:
            PlaceTaken: Something is there already.
            StoreUnavailable: It cannot be written.
        """
        await asyncio.to_thread(maintenance.backup, self, Path(target), progress or _unheard)

    # --- the writer thread ---

    async def _submit(self, work: "_Work[T]") -> T:
        self._check_open()
        loop = asyncio.get_running_loop()
        job = _Job(work, loop, loop.create_future())
        self._jobs.put(job)
        # Shielded by nature: a caller that is cancelled abandons the future, and the work is done all the same.
        result: T = await job.future
        return result

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
                with contextlib.suppress(lmdb.Error), self.gate:  # only the size of the file depends on it
                    self._env.reader_check()

    def _write(self, group: "list[_Job[Any]]") -> list[Any]:
        """Do the work of all jobs in one transaction, and return the result of each.

        If the map is used up it is made to grow. If a job cannot be done, each is done in a transaction of its
        own, so that it fails alone.
        """
        while True:
            try:
                results, self._known_end = self._transact(group)
            except Exception as error:  # noqa: BLE001 - the writer thread must outlive whatever one group meets
                self._known_end = -1
                if isinstance(error, lmdb.MapFullError) and self._grow():
                    continue
                if isinstance(error, _CommitFailed):
                    return [self._undecided(error.args[0]) for _ in group]
                if len(group) == 1:
                    return [self._refused(error)]
                return [result for job in group for result in self._write([job])]
            return results

    def _transact(self, group: "list[_Job[Any]]") -> tuple[list[Any], int]:
        """The results of all jobs, done in one transaction, and the end of the log after it."""
        txn = self._begin(write=True)
        try:
            writing = _Writing(self, Reading(txn, self._databases, self.path))
            results = [job.work.write(writing) for job in group]
            writing.flush()
            try:
                txn.commit()
            except lmdb.MapFullError:  # met before anything is written
                raise
            except Exception as error:
                raise _CommitFailed(error) from error
        finally:
            txn.abort()  # does nothing after a commit
            self._turn.release()
            self.gate.leave()
        if lost := self._files.lost():
            raise _CommitFailed(FileNotFoundError(f"{lost} meanwhile"))
        return results, writing.end

    def _begin(self, *, write: bool = False) -> lmdb.Transaction:
        """Begin a transaction on the whole map, whoever made it grow.

        `Gate.leave` must follow its end, and, if it is one that writes, `WriteTurn.release`.

        Raises:
            lmdb.Error, TimeoutError, StoreUnavailable: It cannot be begun.
        """
        mended = False
        while True:
            self.gate.enter()
            try:
                if write or time.monotonic() >= self._look_at_files_at:
                    self._check_files()
                if not self._broken:
                    return self._begun(write)
            except lmdb.MapResizedError:  # another process has made it grow
                self.gate.leave()
                with self.gate.alone():
                    self._env.set_mapsize(0)
                continue
            except lmdb.PanicError:
                self._broken = True
                self.gate.leave()
                if mended:
                    raise
            except BaseException:
                self.gate.leave()
                raise
            else:
                self.gate.leave()
            self._open_again()
            mended = True

    def _begun(self, write: bool) -> lmdb.Transaction:
        if not write:
            return self._env.begin()
        self._turn.take()
        try:
            return self._env.begin(write=True)
        except BaseException:
            self._turn.release()
            raise

    def _open_again(self) -> None:
        """LMDB lets nobody use an environment whose meta page it could not write: begin anew."""
        with self.gate.alone():
            if self._broken:  # else another thread was faster
                self._check_files()  # nothing new is made in their place
                self._env.close()
                try:
                    self._open_environment()
                except UnoError as error:
                    raise lmdb.Error(f"it could not be opened again: {error}") from error
                self._broken = False

    def _grow(self) -> bool:
        """Double the map, within its limit; whether it has grown."""
        try:
            with self.gate.alone():
                size = self._env.info()["map_size"]
                grown = 2 * size if self._max_size is None else min(2 * size, self._max_size)
                if grown <= size or not can_map(grown):
                    return False
                self._env.set_mapsize(grown)
        except TimeoutError:
            return False
        return True

    def _undecided(self, error: Exception) -> Exception:
        """What a failed commit means: nothing was recorded, unless it was the meta page that failed."""
        if isinstance(error, lmdb.Error):
            try:
                with self.gate, self._turn.taken(PATIENCE):
                    self._env.begin(write=True).abort()
            except (lmdb.Error, TimeoutError):
                self._broken = True
            else:
                return self._refused(error)
        return OutcomeUnknown(f"store lmdb:{self.path}", str(error))

    def _answer(self, group: "list[_Job[Any]]", results: list[Any]) -> None:
        """Hand each job its result, with one wake-up of each loop."""
        by_loop: dict[asyncio.AbstractEventLoop, list[tuple[_Job[Any], Any]]] = defaultdict(list)
        for job, result in zip(group, results, strict=True):
            by_loop[job.loop].append((job, result))
        for loop, answers in by_loop.items():
            with contextlib.suppress(RuntimeError):  # the loop was closed: nobody waits any more
                loop.call_soon_threadsafe(self._resolve, answers)

    def _resolve(self, answers: "list[tuple[_Job[Any], Any]]") -> None:
        for job, result in answers:
            if job.future.done():  # cancelled by its caller
                continue
            if isinstance(result, Exception):
                job.future.set_exception(result)
            else:
                job.future.set_result(result)
        # Here and not in `commit`: what a cancelled caller asked for was recorded too.
        if any(isinstance(job.work, _Commit) for job, _ in answers):
            self._announced = max(self._announced, self._known_end)
            self._committed()

    def _refused(self, error: Exception) -> Exception:
        name = f"lmdb:{self.path}"
        if isinstance(error, lmdb.MapFullError):
            with self.gate:
                size = self._env.info()["map_size"]
            if self._max_size is not None and size >= self._max_size:
                return StoreFull(
                    name, f"its limit of {size:,} bytes is reached; open it with a larger max_size"
                )
            return StoreFull(
                name, f"its map of {size:,} bytes is used up and there is no address space for more"
            )
        return _meaning(self.path, error) if isinstance(error, (lmdb.Error, TimeoutError)) else error

    def __repr__(self) -> str:
        return f"LmdbEventStore({str(self.path)!r})"


def _unheard(done: int, total: int) -> None:
    """Progress that nobody asked for."""


class _Held(Lease):
    """A handler name that this process has."""

    def __init__(self, store: LmdbEventStore, name: str) -> None:
        self._store = store
        self._name = name

    @override
    async def release(self) -> None:
        self._store._leases.release(self._name)


class _CommitFailed(Exception):
    """LMDB's commit raised."""


class _Writing:
    """One write transaction: what its jobs put into it, gathered so that each database is written at once."""

    def __init__(self, store: LmdbEventStore, reading: Reading) -> None:
        self.store = store
        self.reading = reading
        self.txn = reading.txn
        self.databases = reading.databases
        self.end = reading.end()
        self.log: list[tuple[bytes, bytes]] = []
        self.streams: list[tuple[bytes, bytes]] = []
        if self.end != store._known_end or len(store._heads) > MAX_HEADS:
            store._heads.clear()  # another process has written, or the memory is full

    def version_of(self, stream: StreamId) -> int:
        heads = self.store._heads
        version = heads.get(stream)
        if version is None:
            version = heads[stream] = self.reading.version(stream)
        return version

    def append(self, request: Append) -> Appended:
        placed = place(request, self.version_of)
        packed = [self._packed(record) for record in placed]  # refused before anything is noted
        first = self.end + 1
        for record, data in zip(placed, packed, strict=True):
            self.end += 1
            position = U64.pack(self.end)
            self.log.append((position, sealed(position, data)))
            stream, version = record.stream, record.aggregate_version
            if stream is not None and version is not None:
                self.store._heads[stream] = version
                self.streams.append((stream_prefix(stream) + U64.pack(version), position))
        return Appended(range(first, first + len(placed)), placed)

    def _packed(self, record: Record) -> bytes:
        data, limit = pack(record), self.store.max_event_size
        if len(data) > limit:
            reason = f"it takes {len(data):,} bytes, the limit is {limit:,} (the store's max_event_size)"
            raise EventNotSerializable(record.event_type, reason)
        return data

    def flush(self) -> None:
        if self.log:
            with self.txn.cursor(self.databases.log) as cursor:
                cursor.putmulti(self.log, append=True)
        if self.streams:
            self.streams.sort()
            with self.txn.cursor(self.databases.streams) as cursor:
                cursor.putmulti(self.streams)


class _Work(Protocol[T_co]):
    def write(self, writing: _Writing) -> T_co: ...


@dataclass(frozen=True, slots=True)
class _Commit:
    requests: Sequence[Append]

    def write(self, writing: _Writing) -> Outcomes:
        outcomes: Outcomes = []
        for request in self.requests:
            try:
                outcomes.append(writing.append(request))
            except UnoError as error:
                outcomes.append(error)
        return outcomes


@dataclass(frozen=True, slots=True)
class _SaveProgress:
    checkpoints: dict[str, int]
    dead_letters: tuple[DeadLetter, ...]
    views: tuple[ViewChange, ...]
    dropped: tuple[tuple[str, int], ...]

    def write(self, writing: _Writing) -> None:
        for name, position in self.checkpoints.items():
            key = name.encode()
            writing.txn.put(key, sealed(key, U64.pack(position)), db=writing.databases.checkpoints)
        for letter in self.dead_letters:
            key = _dead_letter_key(letter.handler, letter.position)
            packed = msgpack.packb(letter, datetime=True)
            writing.txn.put(key, sealed(key, packed), db=writing.databases.dead_letters)
        for view, view_key, value in self.views:
            key = f"{view}\0".encode() + view_key
            if value is None:
                writing.txn.delete(key, db=writing.databases.views)
            else:
                writing.txn.put(key, sealed(key, value), db=writing.databases.views)
        for handler, position in self.dropped:
            writing.txn.delete(_dead_letter_key(handler, position), db=writing.databases.dead_letters)


@dataclass(frozen=True, slots=True)
class _DropView:
    """A part of it, so that a large one keeps nobody waiting; the result is whether there may be more."""

    view: str

    def write(self, writing: _Writing) -> bool:
        name = self.view.encode()
        writing.txn.delete(name, db=writing.databases.checkpoints)
        with writing.txn.cursor(writing.databases.views) as cursor:
            found = cursor.set_range(name + b"\0")
            for _ in range(PAGE):
                if not (found and bytes(cursor.key()).startswith(name + b"\0")):
                    return False
                found = cursor.delete()
        return True


@dataclass(frozen=True, slots=True)
class _DropDeadLetter:
    handler: str
    position: int

    def write(self, writing: _Writing) -> bool:
        key = _dead_letter_key(self.handler, self.position)
        return writing.reading.has_dead_letter(key) and writing.txn.delete(
            key, db=writing.databases.dead_letters
        )


@dataclass(frozen=True, slots=True)
class _SaveSnapshots:
    snapshots: tuple[Snapshot, ...]

    def write(self, writing: _Writing) -> None:
        packed = {
            stream_prefix(snapshot.stream): msgpack.packb(snapshot[1:], datetime=True)
            for snapshot in self.snapshots
        }
        items = {key: sealed(key, value) for key, value in packed.items()}
        with writing.txn.cursor(writing.databases.snapshots) as cursor:
            cursor.putmulti(sorted(items.items()))


@dataclass(frozen=True, slots=True)
class _DropSnapshots:
    aggregate_type: str | None

    def write(self, writing: _Writing) -> int:
        end = None if self.aggregate_type is None else f"\0{self.aggregate_type}\0".encode()
        with writing.txn.cursor(writing.databases.snapshots) as cursor:
            keys = map(bytes, cursor.iternext(values=False))
            dropped = [key for key in keys if end is None or key.endswith(end)]
        for key in dropped:
            writing.txn.delete(key, db=writing.databases.snapshots)
        return len(dropped)


@dataclass(slots=True)
class _Job(Generic[T]):
    work: _Work[T]
    loop: asyncio.AbstractEventLoop
    future: asyncio.Future[T]


def _dead_letter_key(handler: str, position: int) -> bytes:
    return f"{handler}\0".encode() + U64.pack(position)


def _check_options(
    durability: str = "fsync",
    map_size: int = MAP_SIZE,
    max_size: int | None = None,
    max_event_size: int = MAX_EVENT_SIZE,
) -> None:
    if durability not in get_args(Durability):
        allowed = " or ".join(map(repr, get_args(Durability)))
        raise ValueError(f"durability must be {allowed}; found {durability!r}")
    for name, given in (("map_size", map_size), ("max_size", max_size)):
        check_count(name, given, none=True)
        if given is not None and given < MIN_SIZE:
            raise ValueError(f"{name} must be at least {MIN_SIZE:,} bytes; found {given:,}")
    check_count("max_event_size", max_event_size, 1)


class _Options(NamedTuple):
    """How the environment is opened."""

    durability: Durability
    map_size: int


_DAMAGED = (
    lmdb.CorruptedError,
    lmdb.PageNotFoundError,
    lmdb.BadTxnError,
    lmdb.CursorFullError,
    lmdb.PageFullError,
    lmdb.IncompatibleError,
    lmdb.InvalidError,
)
"""What LMDB raises about pages that are none of its own."""


def _meaning(path: Path, error: Exception) -> UnoError:
    """What an error of LMDB means that has left nothing recorded."""
    if isinstance(error, _DAMAGED):
        remedy = f"{error}; find out more with `python -m lmdb verify {path}`, and put back a whole copy"
        return StoreFormatError(path, f"its pages are damaged: {remedy}")
    name, code = f"lmdb:{path}", getattr(error, "code", None)
    # A write that the disk took half of is told as EIO.
    with contextlib.suppress(OSError):  # of a disk that is gone there is nothing more to learn
        if code in _DISK_FULL or ("Input/output error" in str(error) and _is_full(path)):
            return StoreFull(name, f"{error}; make room on the disk")
    return StoreUnavailable(name, str(error))


def _is_full(path: Path) -> bool:
    """Whether the disk, or the largest file that this process may write, has no room left."""
    disk = os.statvfs(path)
    largest, _ = resource.getrlimit(resource.RLIMIT_FSIZE)
    room = disk.f_bavail * disk.f_frsize
    if largest != resource.RLIM_INFINITY:
        room = min(room, largest - (path / "data.mdb").stat().st_size)
    return room < _NO_ROOM


def _turn_at(path: Path) -> WriteTurn:
    """The turn to write of the directory ``path``, made if it is missing.

    Raises:
        StoreFull, StoreUnavailable: It cannot be made or read.
    """
    name = f"lmdb:{path}"
    try:
        path.mkdir(parents=True, exist_ok=True)
        return WriteTurn(path)
    except OSError as error:
        raise _cannot_open(name, error) from error


def _cannot_open(name: str, error: OSError) -> WorldError:
    if error.errno in _DISK_FULL:
        return StoreFull(name, f"{error.strerror}; make room on the disk")
    return StoreUnavailable(name, f"{error.strerror or error}; it needs a directory that it may write")


def _open(path: Path, options: _Options) -> tuple[lmdb.Environment, Databases]:
    name = f"lmdb:{path}"
    data = path / "data.mdb"
    try:
        ours = ("lock.mdb", LEASES)
        if not data.exists() and (
            others := sorted(entry.name for entry in path.iterdir() if entry.name not in ours)
        ):
            raise StoreFormatError(
                path, f"the directory holds other files ({', '.join(others[:3])}); name an empty one"
            )
        reserve_lock_file(path, MAX_READERS)
        env = lmdb.open(
            str(path),
            map_size=options.map_size,
            max_dbs=8,
            max_readers=MAX_READERS,
            metasync=options.durability == "fsync",
        )
    except OSError as error:
        raise _cannot_open(name, error) from error
    except lmdb.Error as error:
        if isinstance(error, (lmdb.InvalidError, lmdb.VersionMismatchError, lmdb.CorruptedError)):
            raise StoreFormatError(path, f"data.mdb is no LMDB file ({error})") from error
        full = _meaning(path, error)
        if isinstance(full, StoreFull):
            raise full from error
        raise StoreUnavailable(name, f"{error}; {_remedy(error)}") from error
    try:
        _check_whole(env, path)
        _check_format(env, path)
        env.reader_check()
        return env, Databases.opened(env)
    except lmdb.Error as error:
        env.close()
        raise _meaning(path, error) from error
    except BaseException:
        env.close()
        raise


def _remedy(error: lmdb.Error) -> str:
    """What helps where LMDB refuses to open a store."""
    if "already open" in str(error):
        return "share the store that has it open"
    if getattr(error, "code", None) == errno.EAGAIN:  # its lock for the number of this process is another's
        return (
            f"another process that has the number {os.getpid()} too, as the first ones of two containers do, has the"
            " store open, and LMDB tells its readers apart by their numbers: run both in one PID namespace (with"
            " Docker `--pid=container:NAME`, in a pod `shareProcessNamespace: true`), or move to a PostgreSQL store"
        )
    return "it needs a directory that it may write"


def _check_whole(env: lmdb.Environment, path: Path) -> None:
    """Refuse a file that has lost its end: to read the missing pages would kill the process (SIGBUS)."""
    pages = env.info()["last_pgno"] + 1  # before the size, which another process may make grow
    missing = pages * env.stat()["psize"] - (path / "data.mdb").stat().st_size
    # LMDB may leave out free pages at the end, so a short file is looked at closely before it is refused.
    if missing > 0 and _damaged(path):
        raise StoreFormatError(
            path, f"data.mdb was cut off, {missing:,} bytes are missing; put back a whole copy of it"
        )


def _damaged(path: Path) -> bool:
    try:
        return bool(verify(str(path)))  # type: ignore[no-untyped-call]
    except VerifyError:
        return True


def _check_format(env: lmdb.Environment, path: Path) -> None:
    """Claim an empty environment, and refuse one that is another program's or of a newer format."""
    with env.begin(write=True) as txn:
        if not txn.stat()["entries"]:
            meta = env.open_db(b"meta", txn)
            txn.put(b"program", PROGRAM, db=meta)
            txn.put(b"format", FORMAT, db=meta)
        try:
            meta = env.open_db(b"meta", txn, create=False)
            program, found = txn.get(b"program", db=meta), txn.get(b"format", db=meta)
            with txn.cursor() as cursor:
                unknown = sorted(set(map(bytes, cursor.iternext(values=False))).difference(NAMES))
        except (lmdb.NotFoundError, lmdb.IncompatibleError):
            program = None
    if program != PROGRAM:
        raise StoreFormatError(path, "another program's LMDB environment is there; it was left as it was")
    if found != FORMAT:
        shown = (found or b"none").decode(errors="replace")
        raise StoreFormatError(
            path,
            f"its format is {shown}, this version of uno_actors reads {FORMAT.decode()}; use the version that"
            " wrote it",
        )
    if unknown:  # else a new one would be made, empty, beside the one whose name is damaged
        raise StoreFormatError(
            path, f"its pages are damaged: a database is named {unknown[0]!r}; put back a whole copy"
        )


OPTIONS: dict[str, Callable[[str], Any]] = {
    "durability": str,
    "map_size": size,
    "max_size": size,
    "max_event_size": size,
}


def open_url(url: str, event_registry: EventRegistry, *, create: bool = True) -> LmdbEventStore:
    """Open ``lmdb:PATH`` or ``lmdb:PATH?durability=relaxed&map_size=64GiB``; options as of `LmdbEventStore`.

    Raises:
        InvalidStoreUrl: The path is missing, or an option is none of those that are allowed.
    """
    path, options = _read_url(url)
    try:
        return LmdbEventStore(path, event_registry, create=create, **options)
    except ValueError as error:
        raise InvalidStoreUrl(url, ["lmdb"], str(error)) from error


def check_url(url: str) -> None:
    """Whether `open_url` understands ``url``; nothing is opened.

    Raises:
        InvalidStoreUrl: As there.
    """
    _read_url(url)


def _read_url(url: str) -> tuple[str, dict[str, Any]]:
    """The path and the options."""
    path, _, query = url.removeprefix("lmdb:").partition("?")
    if not path:
        raise InvalidStoreUrl(url, ["lmdb:PATH"])
    pairs = parse_qsl(query, keep_blank_values=True)
    names = [name for name, _ in pairs]
    if (wrong := sorted(set(names) - OPTIONS.keys())) or len(names) > len(set(names)):
        what = f"unknown option {', '.join(wrong)}" if wrong else "an option is given twice"
        raise InvalidStoreUrl(url, ["lmdb"], f"{what}; options are {', '.join(OPTIONS)}")
    try:
        options = {name: OPTIONS[name](value) for name, value in pairs}
        _check_options(**options)
    except ValueError as error:
        raise InvalidStoreUrl(url, ["lmdb"], str(error)) from error
    return path, options
