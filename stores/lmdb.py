"""The embedded event store: an LMDB environment on local disk with one writer thread and group commit.

Layout (format 1). All integers are unsigned, 64 bit, big-endian, so that keys sort by number. ``log`` is the
truth; ``streams`` is an index that can be rebuilt from it.

============== ==================================================== ====================================
database       key                                                  value
============== ==================================================== ====================================
log            position, from 1                                     record (`uno_actors.codec.pack`)
streams        aggregate id, NUL, aggregate type, NUL, version      position
checkpoints    handler name                                         position
dead_letters   handler name, NUL, position                          msgpack array, fields of `DeadLetter`
snapshots      aggregate id, NUL, aggregate type, NUL               msgpack array: version, schema version,
                                                                    state (itself msgpack), taken at
meta           ``program``, ``format``                              ``uno_actors``, ``1``
============== ==================================================== ====================================

The environment is opened with LMDB's defaults ``sync=True, metasync=True``: `commit` returns after fsync. The
writer thread takes everything that waits, checks each request before its first put, commits once, and answers
with one wake-up of the event loop; whatever arrives during the fsync forms the next transaction.
"""

import asyncio
import contextlib
import errno
import os
import queue
import struct
import threading
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any, Generic, Protocol, TypeVar, cast

import lmdb
import msgpack
from lmdb.verify import VerifyError, verify
from typing_extensions import override

from uno_actors.codec import StreamId, pack, unpack
from uno_actors.errors import (
    CorruptRecord,
    InvalidStoreUrl,
    OutcomeUnknown,
    StoreFormatError,
    StoreFull,
    StoreUnavailable,
    UnoError,
    WorldError,
)
from uno_actors.events import EventRegistry, event_registry
from uno_actors.store import PAGE, Append, Appended, DeadLetter, EventStore, Snapshot, StoredRecord, place

FORMAT = b"1"
PROGRAM = b"uno_actors"
MAP_SIZE = 64 << 30
"""Bytes of address space reserved for the file, which grows as it is filled and is sparse until then."""
MAX_READERS = 1024
MAX_GROUP = 10_000
"""Jobs in one transaction at the most, so that the first of them is not kept waiting by the last."""
MAX_HEADS = 100_000
"""Stream versions that the writer remembers between transactions."""

_U64 = struct.Struct(">Q")
_LAST = b"\xff" * 8
_DISK_FULL = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}

T = TypeVar("T")
T_co = TypeVar("T_co", covariant=True)
Outcomes = list[Appended | UnoError]


class LmdbEventStore(EventStore):
    """Events in an LMDB environment in the directory ``path``, made if it is missing.

    Args:
        path: A directory of its own on a local disk; network file systems are not safe for LMDB.
        event_registry: Finds the classes of recorded events.
        map_size: Bytes that the store may grow to.

    Raises:
        StoreUnavailable: The directory cannot be made, read or written, or is open in this process already.
        StoreFormatError: It belongs to another program or was written by a newer version of this one.
    """

    def __init__(
        self, path: str | Path, event_registry: EventRegistry = event_registry, *, map_size: int = MAP_SIZE
    ) -> None:
        super().__init__(event_registry)
        self.path = Path(path)
        self._env = _open(self.path, map_size)
        self._log = self._env.open_db(b"log")
        self._streams = self._env.open_db(b"streams")
        self._checkpoints = self._env.open_db(b"checkpoints")
        self._dead_letters = self._env.open_db(b"dead_letters")
        self._snapshots = self._env.open_db(b"snapshots")
        self._jobs: queue.SimpleQueue[_Job[Any] | None] = queue.SimpleQueue()
        self._heads: dict[StreamId, int] = {}
        self._known_end = -1  # the end of the log for which the heads are right
        self._closed = False
        self._writer = threading.Thread(target=self._write_jobs, name=f"lmdb-writer {self.path}", daemon=True)
        self._writer.start()

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
        self, checkpoints: Mapping[str, int], dead_letters: Sequence[DeadLetter] = ()
    ) -> None:
        await self._submit(_SaveProgress(dict(checkpoints), tuple(dead_letters)))

    @override
    async def drop_dead_letter(self, handler: str, position: int) -> bool:
        return await self._submit(_DropDeadLetter(handler, position))

    @override
    async def save_snapshots(self, snapshots: Sequence[Snapshot]) -> None:
        await self._submit(_SaveSnapshots(tuple(snapshots)))

    @override
    async def drop_snapshots(self, aggregate_type: str | None = None) -> int:
        return await self._submit(_DropSnapshots(aggregate_type))

    @override
    async def close(self) -> None:
        if not self._closed:
            self._closed = True
            self._end_subscriptions()
            self._jobs.put(None)
        # A second caller waits too: whoever sees close return may open the place again.
        await asyncio.to_thread(self._writer.join)
        self._env.close()

    # --- the port: reading ---

    @override
    async def read_stream(
        self, stream: StreamId, after_version: int = 0, limit: int = PAGE
    ) -> list[StoredRecord]:
        prefix = _stream_prefix(stream)
        with self._reading() as txn:
            positions: list[bytes] = []
            with txn.cursor(self._streams) as cursor:
                if cursor.set_range(prefix + _U64.pack(after_version + 1)):
                    for key, position in _items(cursor):
                        if not key.startswith(prefix) or len(positions) == limit:
                            break
                        positions.append(position)
            return [self._stored(position, _value(txn, position, self._log)) for position in positions]

    @override
    async def read_log(self, after: int = 0, limit: int = PAGE) -> list[StoredRecord]:
        page: list[StoredRecord] = []
        with self._reading() as txn, txn.cursor(self._log) as cursor:
            if cursor.set_range(_U64.pack(after + 1)):
                for position, data in _items(cursor):
                    if len(page) == limit:
                        break
                    page.append(self._stored(position, data))
        return page

    @override
    async def last_version(self, stream: StreamId) -> int:
        with self._reading() as txn:
            return self._version(txn, stream)

    @override
    async def aggregate_types(self, aggregate_id: str) -> list[str]:
        start = aggregate_id.encode() + b"\0"
        types: list[str] = []
        with self._reading() as txn, txn.cursor(self._streams) as cursor:
            found = cursor.set_range(start)
            while found and _key(cursor).startswith(start):
                name = _key(cursor)[len(start) :].partition(b"\0")[0]
                types.append(name.decode())
                found = cursor.set_range(start + name + b"\0" + _LAST)
        return types

    @override
    async def last_position(self) -> int:
        with self._reading() as txn:
            return self._end(txn)

    @override
    async def checkpoints(self) -> dict[str, int]:
        with self._reading() as txn, txn.cursor(self._checkpoints) as cursor:
            return {name.decode(): _U64.unpack(position)[0] for name, position in _items(cursor)}

    @override
    async def dead_letters(self, handler: str | None = None) -> list[DeadLetter]:
        letters: list[DeadLetter] = []
        prefix = b"" if handler is None else handler.encode() + b"\0"
        with self._reading() as txn, txn.cursor(self._dead_letters) as cursor:
            if cursor.set_range(prefix):
                for key, data in _items(cursor):
                    if not key.startswith(prefix):
                        break
                    letters.append(DeadLetter._make(msgpack.unpackb(data, timestamp=3)))
        return letters

    @override
    async def read_snapshot(self, stream: StreamId) -> Snapshot | None:
        with self._reading() as txn:
            data = _value(txn, _stream_prefix(stream), self._snapshots)
        return None if data is None else _to_snapshot(stream, data)

    @contextlib.contextmanager
    def _reading(self) -> Iterator[lmdb.Transaction]:
        self._check_open()
        try:
            with self._env.begin() as txn:
                yield txn
        except lmdb.Error as error:
            raise StoreUnavailable(f"lmdb:{self.path}", str(error)) from error

    def _check_open(self) -> None:
        if self._closed:
            raise StoreUnavailable(f"lmdb:{self.path}", "it was closed")

    def _stored(self, position: bytes, data: bytes | None) -> StoredRecord:
        (number,) = _U64.unpack(position)
        if data is None:
            raise CorruptRecord(
                f"position {number} of {self.path}", "an index names it but it is not in the log"
            )
        return StoredRecord(number, unpack(data, f"position {number} of {self.path}"))

    def _end(self, txn: lmdb.Transaction) -> int:
        with txn.cursor(self._log) as cursor:
            return int(_U64.unpack(_key(cursor))[0]) if cursor.last() else 0

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
        while not closing:
            group: list[_Job[Any]] = []
            job = self._jobs.get()
            while job is not None:
                group.append(job)
                if len(group) == MAX_GROUP or self._jobs.empty():
                    break
                job = self._jobs.get()
            closing = job is None
            if group:
                self._answer(group, self._write(group))

    def _write(self, group: "list[_Job[Any]]") -> list[Any]:
        """Do the work of all jobs in one transaction, and return the result of each.

        If a job cannot be done, each is done in a transaction of its own, so that it fails alone.
        """
        try:
            txn = self._env.begin(write=True)
        except lmdb.Error as error:
            return [StoreUnavailable(f"lmdb:{self.path}", str(error)) for _ in group]
        try:
            writing = _Writing(self, txn)
            results = [job.work.write(writing) for job in group]
            writing.flush()
        except Exception as error:  # noqa: BLE001 - the writer thread must outlive whatever one group meets
            txn.abort()
            self._known_end = -1
            if len(group) == 1:
                return [self._refused(error)]
            return [result for job in group for result in self._write([job])]
        try:
            txn.commit()
        except lmdb.Error as error:
            self._known_end = -1
            return [self._undecided(error) for _ in group]
        self._known_end = writing.end
        return results

    def _undecided(self, error: lmdb.Error) -> WorldError:
        """What a failed commit means: a full disk or map is met before anything counts as written."""
        refused = self._refused(error)
        return (
            refused
            if isinstance(refused, StoreFull)
            else OutcomeUnknown(f"store lmdb:{self.path}", str(error))
        )

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
            self._committed()

    def _refused(self, error: Exception) -> Exception:
        name = f"lmdb:{self.path}"
        if isinstance(error, lmdb.MapFullError):
            size = self._env.info()["map_size"]
            return StoreFull(name, f"its map of {size:,} bytes is used up; open it with a larger map_size")
        if isinstance(error, lmdb.Error):
            if any(
                f"Errno {number}" in str(error) or _message(number) in str(error) for number in _DISK_FULL
            ):
                return StoreFull(name, f"{error}; make room on the disk")
            return StoreUnavailable(name, str(error))
        return error

    def _version(self, txn: lmdb.Transaction, stream: StreamId) -> int:
        """The version of ``stream``: its last index key. No separate head row is kept."""
        prefix = _stream_prefix(stream)
        with txn.cursor(self._streams) as cursor:
            found = cursor.last() if not cursor.set_range(prefix + _LAST) else cursor.prev()
            if found and _key(cursor).startswith(prefix):
                return int(_U64.unpack(cursor.key()[-8:])[0])
        return 0

    def __repr__(self) -> str:
        return f"LmdbEventStore({str(self.path)!r})"


class _Writing:
    """One write transaction: what its jobs put into it, gathered so that each database is written at once."""

    def __init__(self, store: LmdbEventStore, txn: lmdb.Transaction) -> None:
        self.store = store
        self.txn = txn
        self.end = store._end(txn)
        self.log: list[tuple[bytes, bytes]] = []
        self.streams: list[tuple[bytes, bytes]] = []
        if self.end != store._known_end or len(store._heads) > MAX_HEADS:
            store._heads.clear()  # another process has written, or the memory is full

    def version_of(self, stream: StreamId) -> int:
        heads = self.store._heads
        version = heads.get(stream)
        if version is None:
            version = heads[stream] = self.store._version(self.txn, stream)
        return version

    def append(self, request: Append) -> Appended:
        placed = place(request, self.version_of)
        packed = [pack(record) for record in placed]  # refused before anything is noted
        first = self.end + 1
        for record, data in zip(placed, packed, strict=True):
            self.end += 1
            position = _U64.pack(self.end)
            self.log.append((position, data))
            stream = record.stream
            if stream is not None and record.aggregate_version is not None:
                self.store._heads[stream] = record.aggregate_version
                self.streams.append((_stream_prefix(stream) + _U64.pack(record.aggregate_version), position))
        return Appended(range(first, first + len(placed)), placed)

    def flush(self) -> None:
        if self.log:
            with self.txn.cursor(self.store._log) as cursor:
                cursor.putmulti(self.log, append=True)
        if self.streams:
            self.streams.sort()
            with self.txn.cursor(self.store._streams) as cursor:
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

    def write(self, writing: _Writing) -> None:
        for name, position in self.checkpoints.items():
            writing.txn.put(name.encode(), _U64.pack(position), db=writing.store._checkpoints)
        for letter in self.dead_letters:
            key = _dead_letter_key(letter.handler, letter.position)
            writing.txn.put(key, msgpack.packb(letter, datetime=True), db=writing.store._dead_letters)


@dataclass(frozen=True, slots=True)
class _DropDeadLetter:
    handler: str
    position: int

    def write(self, writing: _Writing) -> bool:
        key = _dead_letter_key(self.handler, self.position)
        return bool(writing.txn.delete(key, db=writing.store._dead_letters))


@dataclass(frozen=True, slots=True)
class _SaveSnapshots:
    snapshots: tuple[Snapshot, ...]

    def write(self, writing: _Writing) -> None:
        items = {
            _stream_prefix(snapshot.stream): msgpack.packb(snapshot[1:], datetime=True)
            for snapshot in self.snapshots
        }
        with writing.txn.cursor(writing.store._snapshots) as cursor:
            cursor.putmulti(sorted(items.items()))


@dataclass(frozen=True, slots=True)
class _DropSnapshots:
    aggregate_type: str | None

    def write(self, writing: _Writing) -> int:
        end = None if self.aggregate_type is None else f"\0{self.aggregate_type}\0".encode()
        with writing.txn.cursor(writing.store._snapshots) as cursor:
            dropped = [key for key in _keys(cursor) if end is None or key.endswith(end)]
        for key in dropped:
            writing.txn.delete(key, db=writing.store._snapshots)
        return len(dropped)


@dataclass(slots=True)
class _Job(Generic[T]):
    work: _Work[T]
    loop: asyncio.AbstractEventLoop
    future: asyncio.Future[T]


# py-lmdb's types allow for memory views, which only an environment with buffers=True returns.


def _items(cursor: lmdb.Cursor) -> Iterator[tuple[bytes, bytes]]:
    return cast("Iterator[tuple[bytes, bytes]]", cursor.iternext())


def _keys(cursor: lmdb.Cursor) -> Iterator[bytes]:
    return cast("Iterator[bytes]", cursor.iternext(values=False))


def _key(cursor: lmdb.Cursor) -> bytes:
    return cast("bytes", cursor.key())


def _value(txn: lmdb.Transaction, key: bytes, database: Any) -> bytes | None:
    return cast("bytes | None", txn.get(key, db=database))


def _stream_prefix(stream: StreamId) -> bytes:
    return f"{stream.aggregate_id}\0{stream.aggregate_type}\0".encode()


def _to_snapshot(stream: StreamId, data: bytes) -> Snapshot:
    try:
        match msgpack.unpackb(data, timestamp=3):
            case [int(version), int(schema_version), bytes(state), datetime() as taken_at]:
                return Snapshot(stream, version, schema_version, state, taken_at)
    except Exception as error:  # damaged bytes fail in many ways
        raise CorruptRecord(f"the snapshot of {stream}", f"{type(error).__name__}: {error}") from error
    raise CorruptRecord(f"the snapshot of {stream}", "its fields are of other types")


def _dead_letter_key(handler: str, position: int) -> bytes:
    return handler.encode() + b"\0" + _U64.pack(position)


def _message(number: int) -> str:
    return os.strerror(number)


def _open(path: Path, map_size: int) -> lmdb.Environment:
    name = f"lmdb:{path}"
    data = path / "data.mdb"
    try:
        path.mkdir(parents=True, exist_ok=True)
        if not data.exists() and (
            others := sorted(entry.name for entry in path.iterdir() if entry.name != "lock.mdb")
        ):
            raise StoreFormatError(
                path, f"the directory holds other files ({', '.join(others[:3])}); name an empty one"
            )
        env = lmdb.open(str(path), map_size=map_size, max_dbs=8, max_readers=MAX_READERS)
    except OSError as error:
        raise StoreUnavailable(
            name, f"{error.strerror or error}; it needs a directory that it may write"
        ) from error
    except lmdb.Error as error:
        twice = "already open" in str(error)
        remedy = "share the store that has it open" if twice else "it needs a directory that it may write"
        if isinstance(error, (lmdb.InvalidError, lmdb.VersionMismatchError, lmdb.CorruptedError)):
            raise StoreFormatError(path, f"data.mdb is no LMDB file ({error})") from error
        raise StoreUnavailable(name, f"{error}; {remedy}") from error
    try:
        _check_whole(env, path)
        _check_format(env, path)
        env.reader_check()
    except lmdb.Error as error:
        env.close()
        raise StoreUnavailable(name, str(error)) from error
    except BaseException:
        env.close()
        raise
    return env


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


def open_url(url: str, event_registry: EventRegistry) -> LmdbEventStore:
    """Open ``lmdb:PATH``.

    Raises:
        InvalidStoreUrl: The path is missing.
    """
    path = url.removeprefix("lmdb:")
    if not path:
        raise InvalidStoreUrl(url, ["lmdb:PATH"])
    return LmdbEventStore(path, event_registry)
