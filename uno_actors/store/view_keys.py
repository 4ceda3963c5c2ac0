"""Keys of views as bytes, in whose order views are read: numbers before names before ``None``, part by part."""

import struct

from typing_extensions import TypeVar

Part = str | int | None
Key = Part | tuple[Part, ...]
"""A name or number, or several: ``("alice", 2024)``. ``None`` stands for a missing name, such as the aggregate
of an event that belongs to none. Ordered part by part, numbers before names before ``None``; names by their UTF-8
bytes. A single part is the same key as a tuple of it and is read back as the part."""

K = TypeVar("K", bound=Key, default=Key)
"""The keys of one view, as type checkers see them."""

MAX_KEY_BYTES = 250

_I64 = struct.Struct(">Q")
_BIAS = 1 << 63
_INT, _STR, _NONE = b"\x01", b"\x02", b"\x03"


def pack_key(key: Key) -> bytes:
    """The bytes of ``key``, in whose order views are read.

    Raises:
        TypeError: A part is neither a name, nor a number, nor ``None``.
        ValueError: There is no part, a number has over 64 bits, or it takes too many bytes.
    """
    parts = key if isinstance(key, tuple) else (key,)
    if not parts:
        raise ValueError("a key of a view has at least one part")
    packed = b"".join(map(_pack_part, parts))
    if len(packed) > MAX_KEY_BYTES:
        raise ValueError(f"the key {key!r} takes {len(packed)} bytes, the limit is {MAX_KEY_BYTES}")
    return packed


def _pack_part(part: Part) -> bytes:
    if isinstance(part, str):
        return _STR + part.encode().replace(b"\0", b"\0\xff") + b"\0"
    if part is None:
        return _NONE
    if type(part) is not int:
        raise TypeError(f"keys of a view are str, int or tuples of these, or None; found {part!r}")
    if not -_BIAS <= part < _BIAS:
        raise ValueError(f"a number in a key has at most 64 bits; found {part}")
    return _INT + _I64.pack(part + _BIAS)


def unpack_key(data: bytes) -> Key:
    """The key whose bytes are ``data``."""
    parts: list[Part] = []
    at = 0
    while at < len(data):
        if data[at : at + 1] == _INT:
            parts.append(_I64.unpack_from(data, at + 1)[0] - _BIAS)
            at += 9
            continue
        if data[at : at + 1] == _NONE:
            parts.append(None)
            at += 1
            continue
        end = at + 1
        while data[end] or data[end + 1 : end + 2] == b"\xff":
            end += 1 if data[end] else 2
        parts.append(data[at + 1 : end].replace(b"\0\xff", b"\0").decode())
        at = end + 1
    return parts[0] if len(parts) == 1 else tuple(parts)
