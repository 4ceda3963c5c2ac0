"""Maintenance of an LMDB store: facts, a check of everything in it, a copy while it is in use.

Everything is read in short transactions, so the store can be used and can grow at the same time.
"""

import contextlib
import os
import secrets
import shutil
import stat
import tempfile
import threading
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import Any

import lmdb
from lmdb.verify import VerifyError
from lmdb.verify import verify as verify_pages

from uno_actors.domain.events import EventRegistry
from uno_actors.errors import CorruptRecord, PlaceTaken, StoreFormatError, StoreUnavailable
from uno_actors.store.codec import StreamId, read_payload
from uno_actors.store.maintenance import Fault, Progress, StoreInfo, Verified
from uno_actors.store.records import PAGE, StoredRecord
from uno_stores.guards import bytes_on_disk
from uno_stores.lmdb.environment import Environment
from uno_stores.lmdb.reader import LAST, U64, Reading
from uno_stores.lmdb.searching import Item
from uno_stores.lmdb.term_check import fault_in_terms

Items = list[Item]


def info(environment: Environment) -> StoreInfo:
    """Facts about the store."""
    with environment.reading() as reading:
        txn, databases = reading.txn, reading.databases
        events = reading.count(databases.log)
        snapshots = reading.count(databases.snapshots)
        page_size, facts = txn.stat(databases.log)["psize"], environment.env.info()
        version = bytes(txn.get(b"format", db=environment.env.open_db(b"meta", txn, create=False)) or b"")
    return StoreInfo(
        version.decode(errors="replace"),
        events,
        sum(1 for _ in _stream_names(environment)),
        snapshots,
        size_of(environment),
        (facts["last_pgno"] + 1) * page_size,
        facts["map_size"],
    )


def size_of(environment: Environment) -> int:
    """Bytes that the files take on disk."""
    return sum(bytes_on_disk(file.stat()) for file in environment.path.iterdir() if file.is_file())


def verify(environment: Environment, progress: Progress, registry: EventRegistry) -> Verified | Fault:
    """Check the pages, then each record and its index entry, then each index entry and its record.

    The index of conditions is compared with the records that ``registry`` can read.
    """
    try:
        _check_pages(environment)
        check = _Check(environment, progress)
        check.log()
        check.streams()
        check.the_rest()
        if (fault := fault_in_terms(environment, registry)) is not None:
            return fault
    except _Found as found:
        return found.args[0]  # type: ignore[no-any-return]
    except (CorruptRecord, StoreFormatError) as error:
        return Fault(None, str(error))
    return Verified(check.events, check.streams_seen)


def backup(environment: Environment, target: Path, progress: Progress) -> None:
    """Copy the current contents of the store to ``target``, without free pages. The copy is complete, or not made."""
    if target.exists() and (not target.is_dir() or any(target.iterdir())):
        raise PlaceTaken(target)
    done = threading.Event()
    partial: Path | None = None
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        partial = _new_directory(target, environment.path.stat().st_mode)
        data = partial / "data.mdb"
        total = info(environment).map_used
        watch = threading.Thread(target=_watch, args=(data, total, progress, done))
        watch.start()
        try:
            copy = os.open(data, _NEW_FILE, _mode(environment.path / "data.mdb"))
            try:
                with environment.gate:
                    environment.env.copyfd(copy, compact=True)
            finally:
                os.close(copy)
        finally:
            done.set()
            watch.join()
        _sync(data)
        _sync(partial)
        if target.exists():
            target.rmdir()  # it is empty; Windows would not replace it
        partial.rename(target)
        _sync(target.parent)
    except (OSError, lmdb.Error) as error:
        if partial is not None:
            shutil.rmtree(partial, ignore_errors=True)
        reason = f"{getattr(error, 'strerror', None) or error}; the copy was not made"
        raise StoreUnavailable(f"lmdb:{target}", reason) from error
    progress(total, total)


def _new_directory(target: Path, mode: int) -> Path:
    """A directory with a new name beside ``target``, with ``mode`` less the umask."""
    while True:
        directory = target.parent / f".{target.name}-{secrets.token_hex(4)}"
        with contextlib.suppress(FileExistsError):
            directory.mkdir(stat.S_IMODE(mode) | stat.S_IRWXU)
            return directory


def _mode(file: Path) -> int:
    return stat.S_IMODE(file.stat().st_mode)


def _watch(data: Path, total: int, progress: Progress, done: threading.Event) -> None:
    while not done.wait(0.1):
        if data.exists():
            progress(min(data.stat().st_size, total), total)


_NEW_FILE = os.O_WRONLY | os.O_CREAT | os.O_EXCL | getattr(os, "O_BINARY", 0)


def _sync(path: Path) -> None:
    if os.name == "nt" and path.is_dir():  # which cannot be opened there, and is written with its files
        return
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


class _Found(Exception):
    """A fault was found; the argument describes it."""


def _found(position: int | None, reason: str) -> _Found:
    return _Found(Fault(position, reason))


def _check_pages(environment: Environment) -> None:
    """Run LMDB's own verifier on the file; on a copy, if the file was written to while it ran."""
    with environment.gate:
        before = environment.env.info()["last_txnid"]
    faults = _page_faults(environment.path)
    with environment.gate:
        after = environment.env.info()["last_txnid"]
    if faults and before != after:
        with tempfile.TemporaryDirectory(
            prefix=f".{environment.path.name}-", dir=environment.path.parent
        ) as copy:
            with environment.gate:
                environment.env.copy(copy)
            faults = _page_faults(Path(copy))
    if faults:
        raise _found(
            None, f"LMDB's verifier: {faults[0]}" + f" (and {len(faults) - 1} more)" * (len(faults) > 1)
        )


def _page_faults(path: Path) -> list[str]:
    try:
        return [str(fault) for fault in verify_pages(str(path))]  # type: ignore[no-untyped-call]
    except VerifyError as error:
        return [str(error)]


class _Check:
    """One walk through everything."""

    def __init__(self, environment: Environment, progress: Progress) -> None:
        self._environment = environment
        self._progress = progress
        self._done = 0
        with environment.reading() as reading:
            self._end = reading.count(reading.databases.log)
            self._total = self._end + reading.count(reading.databases.streams)
        self.events = 0
        self.streams_seen = 0

    def log(self) -> None:
        """Each record can be read, none is missing, and the index of its stream leads to it."""
        environment, wanted = self._environment, 1
        while wanted <= self._end:
            with environment.reading() as reading:
                page = _page(reading, reading.databases.log, U64.pack(wanted))
                for key, data in page:
                    if key != U64.pack(wanted):
                        raise _found(wanted, f"position {wanted}: it is missing from the log")
                    stored = self._read(reading, key, data, None)
                    self._check_indexed(reading, stored)
                    wanted += 1
            if not page:
                raise _found(wanted, f"position {wanted}: the log ends before it")
            self._step(len(page))
        self.events = wanted - 1

    def _check_indexed(self, reading: Reading, stored: StoredRecord) -> None:
        position, record = stored
        try:
            read_payload(record)
        except CorruptRecord as error:
            raise _found(position, f"position {position}: {error}") from error
        stream = record.stream
        if stream is None:
            return
        what = f"position {position}: {stream} version {record.aggregate_version}"
        if record.aggregate_version is None:
            raise _found(position, f"{what}: an event of a stream has no version")
        entry = reading.entry(stream, record.aggregate_version)
        if entry is None:
            raise _found(position, f"{what} is missing from the index of its stream")
        if entry != U64.pack(position):
            raise _found(
                position, f"{what}: the index of its stream leads to position {int.from_bytes(entry)}"
            )

    def streams(self) -> None:
        """Versions of each stream run 1, 2, 3 in the order of the log, and each leads to its record."""
        environment = self._environment
        start, prefix, version, before = b"", b"", 0, 0
        while True:
            with environment.reading() as reading:
                page = _page(reading, reading.databases.streams, start)
                end = reading.count(reading.databases.log)
                for key, position in page:
                    start = key + b"\0"
                    if key[:-8] != prefix:
                        prefix, version, before = key[:-8], 0, 0
                        self.streams_seen += 1
                    version += 1
                    stream, number = reading.named(prefix), int.from_bytes(position)
                    if (
                        self._end < number <= end
                    ):  # recorded since: a check that followed them might never end
                        start = prefix + LAST
                        break
                    what = f"position {number}: {stream} version {version}"
                    if key[-8:] != U64.pack(version):
                        raise _found(number, f"{what} is missing from the index of its stream")
                    if number <= before:
                        raise _found(number, f"{what} is recorded before the version before it, at {before}")
                    self._read(reading, position, reading.data(position) or b"", (stream, version))
                    before = number
            if not page:
                return
            self._step(len(page))

    def the_rest(self) -> None:
        """Checkpoints, dead letters, snapshots and views can be read."""
        environment = self._environment
        with environment.reading() as reading:
            reading.checkpoints()
            reading.dead_letters(None)
        for prefix in _keys(environment, "snapshots"):
            with environment.reading() as reading:
                reading.snapshot(reading.named(prefix))
        start: bytes | None = b""
        while start is not None:
            with environment.reading() as reading:
                start = reading.check_views(start, PAGE)

    def _read(
        self, reading: Reading, position: bytes, data: bytes, wanted: tuple[StreamId, int] | None
    ) -> StoredRecord:
        try:
            return reading.stored(position, data, wanted)
        except CorruptRecord as error:
            raise _found(int.from_bytes(position), str(error)) from error

    def _step(self, count: int) -> None:
        self._done += count
        self._progress(min(self._done, self._total), self._total)


def _page(reading: Reading, database: Any, start: bytes) -> Items:
    """At most `PAGE` items from ``start`` on, in the order of their keys.

    Raises:
        CorruptRecord: They are out of order.
    """
    return list(islice(reading.ascending(database, start), PAGE))


def _keys(environment: Environment, database: str) -> Iterator[bytes]:
    key = b""
    while True:
        with environment.reading() as reading:
            page = _page(reading, getattr(reading.databases, database), key)
        if not page:
            return
        yield from (key for key, _ in page)
        key = page[-1][0] + b"\0"


def _stream_names(environment: Environment) -> Iterator[bytes]:
    """The prefix of each stream, by jumps from one to the next."""
    key = b""
    while True:
        with environment.reading() as reading:
            found: list[bytes] = []
            streams = reading.databases.streams
            while len(found) < PAGE and (first := next(reading.ascending(streams, key), None)):
                prefix = first[0][:-8]
                found.append(prefix)
                key = prefix + b"\xff" * 9
        if not found:
            return
        yield from found
