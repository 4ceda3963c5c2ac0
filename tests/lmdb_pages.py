"""The places of keys and values in an LMDB file, so that tests can damage them."""

import struct
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

PAGE = 4096
_HEADER = 16
_BRANCH, _LEAF, _OVERFLOW, _META = 1, 2, 4, 8
_BIG = 1
"""A node whose value is on separate pages."""
_SUB = 2
"""A node of the main database that is the root of a named one."""


class Part(NamedTuple):
    """Bytes of a file: a key, or a value.

    Attributes:
        database: To which it belongs.
        kind: ``key``, ``value``, or ``separator``: a key above the leaves.
        start: Where it begins in the file.
        size: Bytes.
    """

    database: str
    kind: str
    start: int
    size: int


def parts(path: Path) -> list[Part]:
    """All keys and values of the named databases in ``data.mdb`` below ``path``, as of its last commit."""
    data = (path / "data.mdb").read_bytes()
    metas = [data[at : at + PAGE] for at in (0, PAGE)]
    meta = max(metas, key=lambda page: struct.unpack_from("<Q", page, _HEADER + 24 + 2 * 48 + 8)[0])
    (main,) = struct.unpack_from("<Q", meta, _HEADER + 24 + 48 + 40)
    return list(_walk(data, main, "main"))


def _walk(data: bytes, page: int, database: str) -> Iterator[Part]:
    at = page * PAGE
    flags, lower = struct.unpack_from("<HH", data, at + 10)
    for index in range((lower - _HEADER) // 2):
        (offset,) = struct.unpack_from("<H", data, at + _HEADER + 2 * index)
        node = at + offset
        low, high, node_flags, key_size = struct.unpack_from("<HHHH", data, node)
        key, value = node + 8, node + 8 + key_size
        if flags & _BRANCH:
            if index:  # the first has no key
                yield Part(database, "separator", key, key_size)
            yield from _walk(data, low | high << 16 | node_flags << 32, database)
            continue
        yield Part(database, "key", key, key_size)
        size = low | high << 16
        if node_flags & _SUB:
            (root,) = struct.unpack_from("<Q", data, value + 40)
            if root != 2**64 - 1:
                yield from _walk(data, root, data[key : key + key_size].decode())
        elif node_flags & _BIG:
            (overflow,) = struct.unpack_from("<Q", data, value)
            yield Part(database, "value", overflow * PAGE + _HEADER, size)
        else:
            yield Part(database, "value", value, size)
