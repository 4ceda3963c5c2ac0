"""How an LMDB store reads, and the checks that everything it reads must pass.

LMDB checks neither keys nor values, and a search among keys of which one is damaged can end anywhere. So:

- A value ends with a checksum of its key and itself; a value with a wrong checksum is not returned.
- Positions of the log run 1, 2, 3 up to the number of its entries.
- Versions in the index of a stream run 1, 2, 3, and each leads to a record with this stream and version.
- Keys ascend, so no read runs in a circle.
- A key counts as *missing* only if the two entries beside its place are in order and sound. A
  binary search that meets one false key ends beside that key, and one that took a wrong turn ends where the order
  is broken.

Everything else raises `CorruptRecord`, which names the place. `uno_stores.lmdb.searching` implements the rules for
keys.
"""

import struct
from collections import Counter
from collections.abc import Callable
from datetime import datetime
from itertools import islice
from pathlib import Path
from typing import Any, NoReturn, cast

import lmdb
import msgpack

from uno_actors.errors import CorruptRecord
from uno_actors.store.codec import Record, StreamId, stream_and_version, unpack
from uno_actors.store.records import DeadLetter, Heading, Snapshot, StoredRecord
from uno_stores.lmdb.searching import Databases, Item, Search, is_sound, item_of, items_of, key_of

PAGE_BYTES = 4 << 20
"""Bytes after which a page of records is full, however few they are, so that a read stays short."""
LAST = b"\xff" * 8
"""Greater than each version of a stream."""
U64 = struct.Struct(">Q")
_pack_fields: Callable[[object], bytes] = msgpack.Packer().pack


class Reading(Search):
    """The reads of one transaction.

    Args:
        txn: A transaction for reading or for writing.
        databases: The databases of its environment.
        path: The path of the store, for errors.
    """

    __slots__ = ("_sound",)

    def __init__(self, txn: lmdb.Transaction, databases: Databases, path: Path) -> None:
        super().__init__(txn, databases, path)
        self._sound: dict[Item, tuple[StreamId, int]] = {}  # entries of the index that were checked

    # --- the log and the index of streams ---

    def end(self) -> int:
        """The last position; 0 in an empty log."""
        with self.txn.cursor(self.databases.log) as cursor:
            last = int.from_bytes(key_of(cursor)) if cursor.last() else 0
        if last != (count := self.count(self.databases.log)):
            self._corrupt("the end of the log", f"its last position is {last}, and it has {count} entries")
        return last

    def log_page(self, after: int, limit: int) -> list[StoredRecord]:
        """See `EventStore.read_log`."""
        page: list[StoredRecord] = []
        room, number = PAGE_BYTES, after
        with self.txn.cursor(self.databases.log) as cursor:
            found = cursor.set_range(U64.pack(after + 1))
            for position, data in items_of(cursor) if found else ():
                if len(page) >= limit or room <= 0:
                    return page
                number += 1
                if int.from_bytes(position) != number:
                    self._missing(number)
                page.append(self.stored(position, data))
                room -= len(data)
        if number < self.count(self.databases.log):
            self._missing(number + 1)
        return page

    def headings(self, after: int, limit: int) -> list[Heading]:
        """See `EventStore.read_headings`; no check sum is computed, and no payload decoded."""
        with self.txn.cursor(self.databases.log) as cursor:
            found = cursor.set_range(U64.pack(after + 1))
            items = islice(items_of(cursor), limit) if found else ()
            return [
                Heading(int.from_bytes(position), *stream_and_version(data[:-4])) for position, data in items
            ]

    def _missing(self, position: int) -> NoReturn:
        self._corrupt(f"position {position}", "it is missing from the log")

    def stream_page(self, stream: StreamId, after: int, limit: int) -> list[StoredRecord]:
        """See `EventStore.read_stream`."""
        prefix = stream_prefix(stream)
        page: list[StoredRecord] = []
        version, room = after, PAGE_BYTES
        with self.txn.cursor(self.databases.streams) as cursor:
            if not self._seek(cursor, prefix + U64.pack(after + 1), self.check_indexed):
                return page
            for key, position in items_of(cursor):
                if len(page) >= limit or room <= 0:
                    break
                version += 1
                if key != prefix + U64.pack(version):
                    if key.startswith(prefix):
                        reason = "it is missing from the index of its stream"
                        self._corrupt(f"{stream} version {version}", reason)
                    self.check_first(key, position)
                    break
                data = self.data(position) or b""
                page.append(self.stored(position, data, (stream, version)))
                room -= len(data)
        return page

    def version(self, stream: StreamId) -> int:
        """The version of ``stream``, from its last index key. There is no separate head row."""
        prefix = stream_prefix(stream)
        end = prefix + LAST
        with self.txn.cursor(self.databases.streams) as cursor:
            found = cursor.set_range(end)
            if found:
                behind, position = item_of(cursor)
                if behind < end:
                    self._disordered(end, behind)
                self.check_first(behind, position)
            if not (cursor.prev() if found else cursor.last()):
                return 0
            key, position = item_of(cursor)
            if key >= end:
                self._disordered(key, end)
            self.check_indexed(key, position)
            return int.from_bytes(key[-8:]) if key.startswith(prefix) else 0

    def types(self, aggregate_id: str) -> list[str]:
        """See `EventStore.aggregate_types`."""
        start = f"{aggregate_id}\0".encode()
        types: list[str] = []
        with self.txn.cursor(self.databases.streams) as cursor:
            at = start
            while self._seek(cursor, at, self.check_indexed):
                key, position = item_of(cursor)
                stream = self.check_first(key, position)
                if not key.startswith(start):
                    break
                types.append(stream.aggregate_type)
                at = key[:-8] + LAST
        return types

    def check_first(self, key: bytes, position: bytes) -> StreamId:
        """The stream of an index entry that must be the first of its stream.

        Raises:
            CorruptRecord: It is not the first; or as in `check_indexed`.
        """
        stream, version = self.check_indexed(key, position)
        if version != 1:
            self._corrupt(f"{stream} version {version}", "the version before it is missing from the index")
        return stream

    def check_indexed(self, key: bytes, position: bytes) -> tuple[StreamId, int]:
        """The stream and the version in the key of an index entry.

        Raises:
            CorruptRecord: Its record has another stream or version. (A record that cannot be read is not compared.)
        """
        known = self._sound.get((key, position))
        if known is not None:  # many new streams in one transaction have the same neighbours
            return known
        stream, version = self.named(key[:-8]), int.from_bytes(key[-8:])
        data = self.data(position) or b""
        # A record that holds these fields, one after the other, belongs to the entry and need not be unpacked.
        fields = _pack_fields((stream.aggregate_type, stream.aggregate_id, version))
        if fields[1:] not in data or not is_sound(position, data):
            try:
                self.stored(position, data)
            except CorruptRecord:  # its readers get the error
                return stream, version
            self.stored(position, data, (stream, version))
        self._sound[key, position] = stream, version
        return stream, version

    def named(self, prefix: bytes) -> StreamId:
        """The stream of a `stream_prefix`.

        Raises:
            CorruptRecord: It belongs to no stream.
        """
        try:
            aggregate_id, aggregate_type, nothing = prefix.decode().split("\0")
        except ValueError:
            nothing = "?"
        if nothing:
            self._corrupt(f"the entry {prefix!r} of the index of streams", "its key names no stream")
        return StreamId(aggregate_type, aggregate_id)

    def data(self, position: bytes) -> bytes | None:
        """The bytes at ``position`` of the log."""
        return cast("bytes | None", self.txn.get(position, db=self.databases.log)) if position else None

    def entry(self, stream: StreamId, version: int) -> bytes | None:
        """The position of ``version`` in the index of ``stream``, as bytes."""
        key = stream_prefix(stream) + U64.pack(version)
        return cast("bytes | None", self.txn.get(key, db=self.databases.streams))

    def stored(
        self, position: bytes, data: bytes, wanted: tuple[StreamId, int] | None = None
    ) -> StoredRecord:
        """Read one record, which should be the ``wanted`` version of a stream.

        Raises:
            CorruptRecord: It is damaged, or is not a record.
        """
        if not data:
            reason = "an index names it but it is not in the log"
        elif not is_sound(position, data):
            reason = "its check sum is wrong"
        else:
            try:
                record = unpack(data[:-4], "")
            except CorruptRecord as error:
                where = self._place(f"position {int.from_bytes(position)}")
                raise CorruptRecord(where, error.reason) from error
            if wanted is None or _is(record, *wanted):
                return StoredRecord(int.from_bytes(position), record)
            reason = f"it is that of {record.stream} version {record.aggregate_version}"
        whose = _told_by(data) if wanted is None else f"{wanted[0]} version {wanted[1]}"
        raise CorruptRecord(self._place(f"position {int.from_bytes(position)} ({whose})"), reason)

    # --- the other databases ---

    def checkpoints(self) -> dict[str, int]:
        """See `EventStore.checkpoints`."""
        found: dict[str, int] = {}
        for key, value in self.entries(self.databases.checkpoints, b"", _a_checkpoint):
            found[key.decode()] = self._position(key, value)
        return found

    def checkpoint(self, name: str) -> int | None:
        """The checkpoint of this name; ``None`` if there is none."""
        key = name.encode()
        value = self._value(self.databases.checkpoints, key, _a_checkpoint)
        return None if value is None else self._position(key, value)

    def _position(self, key: bytes, value: bytes) -> int:
        if len(value) != U64.size:
            self._corrupt(_a_checkpoint(key), "it is not a position")
        return int.from_bytes(value)

    def dead_letters(self, handler: str | None) -> list[DeadLetter]:
        """See `EventStore.dead_letters`."""
        prefix = b"" if handler is None else handler.encode() + b"\0"
        letters: list[DeadLetter] = []
        for key, value in self.entries(self.databases.dead_letters, prefix, _a_dead_letter):
            if not key.startswith(prefix):
                break
            letters.append(self._unpacked(value, DeadLetter._make, _a_dead_letter(key)))
        return letters

    def dead_letter_counts(self) -> dict[str, int]:
        """See `EventStore.dead_letter_counts`; it reads the keys alone."""
        counts: Counter[str] = Counter()
        with self.txn.cursor(self.databases.dead_letters) as cursor:
            for key in cursor.iternext(values=False):
                counts[bytes(key)[: -U64.size - 1].decode()] += 1
        return dict(counts)

    def has_dead_letter(self, key: bytes) -> bool:
        """Whether there is such a dead letter."""
        return self._value(self.databases.dead_letters, key, _a_dead_letter) is not None

    def view(self, view: str, start: bytes, end: bytes | None, limit: int | None) -> list[Item]:
        """See `EventStore.read_view`."""
        prefix = view.encode() + b"\0"
        found: list[Item] = []
        if limit == 0:
            return found
        for stored_key, value in self.entries(self.databases.views, prefix + start, _an_entry):
            key = stored_key[len(prefix) :]
            if not stored_key.startswith(prefix) or (end is not None and key >= end):
                break
            found.append((key, value))
            if len(found) == limit:
                break
        return found

    def snapshot(self, stream: StreamId) -> Snapshot | None:
        """See `EventStore.read_snapshot`."""
        value = self._value(self.databases.snapshots, stream_prefix(stream), _a_snapshot)
        if value is None:
            return None
        what = f"the snapshot of {stream}"
        return self._unpacked(value, lambda fields: _to_snapshot(stream, fields), what)

    def meta(self, key: bytes, what: str) -> list[Any] | None:
        """The fields of the entry ``key`` of ``meta``, which is ``what`` for errors; ``None`` if there is none."""
        data = self.txn.get(key, db=self.databases.meta)
        if data is None:
            return None
        fields: list[Any] = self._unpacked(self._opened(key, bytes(data), lambda _: what), list, what)
        return fields

    def check_views(self, start: bytes, limit: int) -> bytes | None:
        """Check at most ``limit`` view entries from ``start`` on; return where to resume, or ``None`` at the end."""
        checked = [key for key, _ in islice(self.entries(self.databases.views, start, _an_entry), limit)]
        return checked[-1] + b"\0" if checked else None


def stream_prefix(stream: StreamId) -> bytes:
    """The keys of ``stream`` in the index, less the version; the key of its snapshot."""
    return f"{stream.aggregate_id}\0{stream.aggregate_type}\0".encode()


def _is(record: Record, stream: StreamId, version: int) -> bool:
    return (
        record.aggregate_version == version
        and record.aggregate_id == stream.aggregate_id
        and (record.aggregate_type or "") == stream.aggregate_type
    )


def _told_by(data: bytes) -> str:
    """The stream of a damaged record by its own header, as far as that can be read."""
    try:
        record = unpack(data[:-4], "")
    except CorruptRecord:
        return "of which stream cannot be read"
    return f"by its header {record.stream} version {record.aggregate_version}"


def _to_snapshot(stream: StreamId, fields: object) -> Snapshot:
    match fields:
        case [int(version), int(schema_version), bytes(state), datetime() as taken_at]:
            return Snapshot(stream, version, schema_version, state, taken_at)
    raise TypeError("its fields are of other types")


def _a_checkpoint(key: bytes) -> str:
    return f"the checkpoint {key!r}"


def _a_dead_letter(key: bytes) -> str:
    return f"the dead letter {key!r}"


def _a_snapshot(key: bytes) -> str:
    aggregate_id, _, aggregate_type = key.decode(errors="replace").removesuffix("\0").partition("\0")
    return f"the snapshot of {StreamId(aggregate_type, aggregate_id)}"


def _an_entry(key: bytes) -> str:
    view, _, entry = key.partition(b"\0")
    return f"the entry {entry!r} of the view {view.decode(errors='replace')}"
