"""Calls of a store as bytes, and back: what a simulated disk holds."""

from dataclasses import fields, is_dataclass
from datetime import datetime
from enum import Enum
from typing import Any

import msgpack

from uno_actors.store import codec, records

_CLASSES: dict[str, Any] = {
    name: found
    for module in (records, codec)
    for name, found in vars(module).items()
    if isinstance(found, type)
    and (
        issubclass(found, Enum)
        or is_dataclass(found)
        or (issubclass(found, tuple) and hasattr(found, "_fields"))
    )
}
"""The values of the port, by name."""

_OF_CLASS, _TUPLE, _TIME = 1, 2, 3


def packed(value: object) -> bytes:
    """The bytes of a call: its name and arguments.

    Raises:
        TypeError: One of them cannot be told apart when it is read back.
    """
    found: bytes = msgpack.packb(value, default=_default, strict_types=True)
    return found


def unpacked(data: bytes) -> Any:
    """What `packed` was given."""
    return msgpack.unpackb(data, ext_hook=_extension, strict_map_key=False)


def _default(value: Any) -> Any:
    kind = type(value).__name__
    if isinstance(value, datetime):
        return msgpack.ExtType(_TIME, value.isoformat().encode())
    if kind in _CLASSES:
        return msgpack.ExtType(_OF_CLASS, packed([kind, _values(value)]))
    if isinstance(value, tuple):
        return msgpack.ExtType(_TUPLE, packed([*value]))
    plain: Any
    for plain in (dict, str, list):
        if isinstance(value, plain):
            return plain(value)
    raise TypeError(f"a simulated disk cannot hold {value!r}")


def _values(value: Any) -> list[Any]:
    if isinstance(value, Enum):
        return [value.value]
    return [*value] if isinstance(value, tuple) else [getattr(value, each.name) for each in fields(value)]


def _extension(code: int, data: bytes) -> Any:
    if code == _TIME:
        return datetime.fromisoformat(data.decode())
    found = unpacked(data)
    if code == _TUPLE:
        return tuple(found)
    name, values = found
    return _CLASSES[name](*values)
