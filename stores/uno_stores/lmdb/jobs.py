"""The jobs that the writer does in one transaction."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol, TypeVar

import msgpack

from uno_actors.domain.events import EventRegistry
from uno_actors.errors import EventNotSerializable, LeaseLost, UnoError
from uno_actors.store.checkpoints import check_checkpoint, check_move
from uno_actors.store.codec import Record, StreamId, pack, unpack
from uno_actors.store.expected_version import place
from uno_actors.store.handler_names import handler_of, handlers_of
from uno_actors.store.records import (
    PAGE,
    Append,
    Appended,
    Checkpoint,
    DeadLetter,
    Snapshot,
    StoredRecord,
    ViewChange,
)
from uno_actors.store.terms import Facet
from uno_stores.lmdb.reader import U64, Reading, stream_prefix
from uno_stores.lmdb.searching import sealed
from uno_stores.lmdb.terms import Terms

MAX_HEADS = 100_000
"""Stream versions that the writer remembers between transactions."""

T_co = TypeVar("T_co", covariant=True)
Outcomes = list[Appended | UnoError]


class Heads:
    """Stream versions that the writer remembers between transactions.

    Attributes:
        versions: The last version of each stream.
        facets: What is indexed up to the end of the log, for conditions.
        end: The end of the log for which they are right; -1 if it is not known.
    """

    __slots__ = ("end", "facets", "versions")

    def __init__(self) -> None:
        self.versions: dict[StreamId, int] = {}
        self.facets: dict[Facet, EventRegistry] = {}
        self.end = -1


class Writing:
    """One write transaction: its jobs collect what goes into the log, so that each database is written at once.

    Args:
        reading: Reads in the transaction.
        heads: Cleared here if another process has written since, or if there are too many.
        max_event_size: Bytes that one record may take.
    """

    __slots__ = (
        "_heads",
        "_max_event_size",
        "_terms",
        "databases",
        "end",
        "log",
        "reading",
        "streams",
        "txn",
    )

    def __init__(self, reading: Reading, heads: Heads, max_event_size: int) -> None:
        self.reading = reading
        self.txn = reading.txn
        self.databases = reading.databases
        self.end = reading.end()
        self.log: list[tuple[bytes, bytes]] = []
        self.streams: list[tuple[bytes, bytes]] = []
        self._max_event_size = max_event_size
        self._heads = heads.versions
        if self.end != heads.end or len(self._heads) > MAX_HEADS:
            self._heads.clear()
            heads.facets.clear()
        self._terms = Terms(reading, heads.facets, self.end)

    def version_of(self, stream: StreamId) -> int:
        """The version of ``stream``, earlier jobs of the transaction included."""
        heads = self._heads
        version = heads.get(stream)
        if version is None:
            version = heads[stream] = self.reading.version(stream)
        return version

    def append(self, request: Append, fence: "Fence | None" = None) -> Appended:
        """Place the records of one request at the end of the log, and move its checkpoint.

        Raises:
            UnoError: A record or the checkpoint is refused; nothing of the request is recorded.
        """
        if request.checkpoint is not None:
            self._check_move(request.checkpoint, fence)
        placed = place(request, self.version_of)
        packed = [self._packed(record) for record in placed]  # refused before anything is noted
        if request.condition is not None:
            self._terms.check(request.condition, self._appended(), self.end)
        if request.checkpoint is not None:
            self.put_checkpoint(request.checkpoint.name, request.checkpoint.position)
        first = self.end + 1
        for record, data in zip(placed, packed, strict=True):
            self.end += 1
            position = U64.pack(self.end)
            self.log.append((position, sealed(position, data)))
            stream, version = record.stream, record.aggregate_version
            if stream is not None and version is not None:
                self._heads[stream] = version
                self.streams.append((stream_prefix(stream) + U64.pack(version), position))
            if self._terms.is_used:
                self._terms.add(StoredRecord(self.end, record))
        return Appended(range(first, first + len(placed)), placed)

    def _check_move(self, checkpoint: Checkpoint, fence: "Fence | None") -> None:
        check_checkpoint(checkpoint)
        if fence is not None and (lost := fence(self.reading, [handler_of(checkpoint.name)])):
            raise lost
        check_move(checkpoint, self.reading.checkpoint(checkpoint.name))

    def put_checkpoint(self, name: str, position: int) -> None:
        """Set a checkpoint."""
        key = name.encode()
        self.txn.put(key, sealed(key, U64.pack(position)), db=self.databases.checkpoints)

    def _appended(self) -> Iterator[StoredRecord]:
        """The records that the transaction has appended so far."""
        for position, data in self.log:
            yield StoredRecord(int.from_bytes(position), unpack(data[:-4], ""))

    def _packed(self, record: Record) -> bytes:
        data, limit = pack(record), self._max_event_size
        if len(data) > limit:
            reason = f"it takes {len(data):,} bytes, the limit is {limit:,} (the store's max_event_size)"
            raise EventNotSerializable(record.event_type, reason)
        return data

    def flush(self) -> None:
        """Write everything that was collected to the databases."""
        if self.log:
            with self.txn.cursor(self.databases.log) as cursor:
                cursor.putmulti(self.log, append=True)
        if self.streams:
            self.streams.sort()
            with self.txn.cursor(self.databases.streams) as cursor:
                cursor.putmulti(self.streams)
        if indexed := self._terms.items(self.end):
            with self.txn.cursor(self.databases.meta) as cursor:
                cursor.putmulti(indexed)


Fence = Callable[[Reading, Iterable[str]], LeaseLost | None]
"""The error for those of some handlers that another process has taken over."""


class Work(Protocol[T_co]):
    """A job for the writer."""

    def write(self, writing: Writing) -> T_co:
        """Do it in the transaction of ``writing``, and return its result."""


@dataclass(frozen=True, slots=True)
class Commit:
    """Append the requests that can be appended; the result is the outcome of each request."""

    requests: Sequence[Append]
    fence: Fence | None = None

    def write(self, writing: Writing) -> Outcomes:
        """See `Work.write`."""
        outcomes: Outcomes = []
        for request in self.requests:
            try:
                outcomes.append(writing.append(request, self.fence))
            except UnoError as error:
                outcomes.append(error)
        return outcomes


@dataclass(frozen=True, slots=True)
class SaveProgress:
    """Write checkpoints, dead letters and views, all or nothing; the result is an error if that is refused."""

    checkpoints: dict[str, int]
    dead_letters: tuple[DeadLetter, ...]
    views: tuple[ViewChange, ...]
    dropped: tuple[tuple[str, int], ...]
    fence: Fence | None = None

    def write(self, writing: Writing) -> LeaseLost | None:
        """See `Work.write`."""
        if self.fence is not None:
            names = {
                *self.checkpoints,
                *(letter.handler for letter in self.dead_letters),
                *(handler for handler, _ in self.dropped),
            }
            lost = self.fence(writing.reading, handlers_of(names, (each[:2] for each in self.views)))
            if lost is not None:
                return lost
        for name, position in self.checkpoints.items():
            writing.put_checkpoint(name, position)
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
        return None


@dataclass(frozen=True, slots=True)
class DropView:
    """Remove a part of a view, so a large view delays no other job.

    The result is whether there may be more, or an error if that is refused.
    """

    view: str
    fence: Fence | None = None

    def write(self, writing: Writing) -> bool | LeaseLost:
        """See `Work.write`."""
        if self.fence is not None and (lost := self.fence(writing.reading, [handler_of(self.view)])):
            return lost
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
class DropDeadLetter:
    """The result is whether there was one."""

    handler: str
    position: int

    def write(self, writing: Writing) -> bool:
        """See `Work.write`."""
        key = _dead_letter_key(self.handler, self.position)
        return writing.reading.has_dead_letter(key) and writing.txn.delete(
            key, db=writing.databases.dead_letters
        )


@dataclass(frozen=True, slots=True)
class SaveSnapshots:
    """One for each stream."""

    snapshots: tuple[Snapshot, ...]

    def write(self, writing: Writing) -> None:
        """See `Work.write`."""
        packed = {
            stream_prefix(snapshot.stream): msgpack.packb(snapshot[1:], datetime=True)
            for snapshot in self.snapshots
        }
        items = {key: sealed(key, value) for key, value in packed.items()}
        with writing.txn.cursor(writing.databases.snapshots) as cursor:
            cursor.putmulti(sorted(items.items()))


@dataclass(frozen=True, slots=True)
class DropSnapshots:
    """The result is how many there were."""

    aggregate_type: str | None

    def write(self, writing: Writing) -> int:
        """See `Work.write`."""
        end = None if self.aggregate_type is None else f"\0{self.aggregate_type}\0".encode()
        with writing.txn.cursor(writing.databases.snapshots) as cursor:
            keys = map(bytes, cursor.iternext(values=False))
            dropped = [key for key in keys if end is None or key.endswith(end)]
        for key in dropped:
            writing.txn.delete(key, db=writing.databases.snapshots)
        return len(dropped)


@dataclass(frozen=True, slots=True)
class DropSnapshot:
    """The result is whether there was one."""

    stream: StreamId

    def write(self, writing: Writing) -> bool:
        """See `Work.write`."""
        return writing.txn.delete(stream_prefix(self.stream), db=writing.databases.snapshots)


@dataclass(frozen=True, slots=True)
class DropProgress:
    """The result is whether there was a checkpoint or a dead letter, or an error if that is refused."""

    handler: str
    fence: Fence | None = None

    def write(self, writing: Writing) -> bool | LeaseLost:
        """See `Work.write`."""
        if self.fence is not None and (lost := self.fence(writing.reading, [handler_of(self.handler)])):
            return lost
        letters = writing.reading.dead_letters(self.handler)
        for letter in letters:
            key = _dead_letter_key(letter.handler, letter.position)
            writing.txn.delete(key, db=writing.databases.dead_letters)
        there = writing.reading.checkpoint(self.handler) is not None
        writing.txn.delete(self.handler.encode(), db=writing.databases.checkpoints)
        return there or bool(letters)


def _dead_letter_key(handler: str, position: int) -> bytes:
    return f"{handler}\0".encode() + U64.pack(position)
