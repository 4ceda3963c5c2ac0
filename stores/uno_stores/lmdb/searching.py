"""How an LMDB store searches among keys of which one may be damaged: each entry is checked before it is used."""

import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn, Self, TypeVar, cast

import lmdb
import msgpack

from uno_actors.errors import CorruptRecord

_SOUND = 0x2144DF1C
"""The CRC-32 of anything that its own CRC-32 follows, the lowest byte first."""

T = TypeVar("T")
Item = tuple[bytes, bytes]
Describe = Callable[[bytes], str]
"""The name of the entry of a key, for errors."""


@dataclass(frozen=True, slots=True)
class Databases:
    """The named databases of an environment."""

    log: Any
    streams: Any
    checkpoints: Any
    dead_letters: Any
    snapshots: Any
    views: Any
    meta: Any

    @classmethod
    def opened(cls, env: lmdb.Environment) -> Self:
        """The databases of ``env``, made if they are missing."""
        return cls(*(env.open_db(name) for name in NAMES))


NAMES = tuple(name.encode() for name in Databases.__annotations__)


class Search:
    """Searches of one transaction.

    Args:
        txn: A transaction for reading or for writing.
        databases: The databases of its environment.
        path: The path of the store, for errors.
    """

    __slots__ = ("_path", "databases", "txn")

    def __init__(self, txn: lmdb.Transaction, databases: Databases, path: Path) -> None:
        self.txn = txn
        self.databases = databases
        self._path = path

    def count(self, database: Any) -> int:
        """The number of entries in ``database``."""
        return int(self.txn.stat(database)["entries"])

    def ascending(self, database: Any, start: bytes) -> Iterator[Item]:
        """The items of ``database`` from ``start`` on, values unchecked, in the order of their keys.

        Raises:
            CorruptRecord: They are out of order.
        """
        with self.txn.cursor(database) as cursor:
            before = start
            for key, data in items_of(cursor) if cursor.set_range(start) else ():
                if key < before:
                    self._disordered(before, key)
                before = key + b"\0"
                yield key, data

    def entries(self, database: Any, start: bytes, describe: Describe) -> Iterator[Item]:
        """Keys and values from ``start`` on to the end of ``database``, each checked before it is returned."""
        with self.txn.cursor(database) as cursor:
            if not self._seek(cursor, start, lambda key, data: self._opened(key, data, describe)):
                return
            before = b""
            for key, data in items_of(cursor):
                if key <= before:
                    self._disordered(before, key)
                before = key
                yield key, self._opened(key, data, describe)

    def _value(self, database: Any, key: bytes, describe: Describe) -> bytes | None:
        data = self.txn.get(key, db=database)
        if data is not None:
            return self._opened(key, cast("bytes", data), describe)
        for found, value in self.entries(database, key, describe):
            return value if found == key else None  # else what is beside its place is sound
        return None

    def _opened(self, key: bytes, data: bytes, describe: Describe) -> bytes:
        """What `sealed` has sealed."""
        if not is_sound(key, data):
            self._corrupt(describe(key), "its check sum is wrong")
        return data[:-4]

    def _unpacked(self, value: bytes, made: Callable[[Any], T], what: str) -> T:
        try:
            return made(msgpack.unpackb(value, timestamp=3))
        except Exception as error:  # damaged bytes fail in many ways
            raise CorruptRecord(self._place(what), f"{type(error).__name__}: {error}") from error

    def _seek(self, cursor: lmdb.Cursor, key: bytes, check: Callable[[bytes, bytes], object]) -> bool:
        """Move to the first entry from ``key`` on; return whether there is one.

        If it is not the entry of ``key``, the entry before it was checked; the caller must check this one.
        """
        found = cursor.set_range(key)
        if found:
            if (at := key_of(cursor)) == key:
                return True
            if at < key:
                self._disordered(key, at)
        if cursor.prev() if found else cursor.last():
            if (before := key_of(cursor)) >= key:
                self._disordered(before, key)
            check(*item_of(cursor))
            if found:
                cursor.next()
        elif found:
            cursor.first()
        return found

    def _disordered(self, one: bytes, other: bytes) -> NoReturn:
        self._corrupt(f"a key beside {other!r}", f"the keys are out of order: {one!r} stands before it")

    def _corrupt(self, what: str, reason: str) -> NoReturn:
        raise CorruptRecord(self._place(what), reason)

    def _place(self, what: str) -> str:
        return f"{what} of {self._path}"


def sealed(key: bytes, value: bytes) -> bytes:
    """``value`` with its check."""
    return value + zlib.crc32(value, zlib.crc32(key)).to_bytes(4, "little")


def is_sound(key: bytes, data: bytes) -> bool:
    """Whether ``data`` ends with the check of ``key`` and itself."""
    return zlib.crc32(data, zlib.crc32(key)) == _SOUND


# py-lmdb's types allow for memory views, which only an environment with buffers=True returns.


def items_of(cursor: lmdb.Cursor) -> Iterator[Item]:
    """The items from the position of ``cursor`` on."""
    return cast("Iterator[Item]", cursor.iternext())


def item_of(cursor: lmdb.Cursor) -> Item:
    """The item at the position of ``cursor``."""
    return cast("Item", cursor.item())


def key_of(cursor: lmdb.Cursor) -> bytes:
    """The key at the position of ``cursor``."""
    return cast("bytes", cursor.key())
