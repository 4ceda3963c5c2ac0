"""States of any classes in one form that two versions of a program can compare: by value, not by import path.

Order counts in lists and tuples, not in sets and dicts. Types count: 1, 1.0, True and ``Decimal(1)`` differ. An
instance of a class is its fields and the bare name of the class, so a class may move to another module; a member of an
enum is its name. A NaN equals a NaN. What has no visible state, such as a lock, equals all of its type.
"""

import dataclasses
import functools
import math
import re
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping
from datetime import date, datetime, time, timedelta
from decimal import Decimal
from enum import Enum
from hashlib import blake2b
from types import BuiltinFunctionType, FunctionType, MethodType, ModuleType
from typing import Any, NamedTuple
from uuid import UUID

import msgpack
from pydantic import BaseModel

from uno_actors.domain.aggregate import OWN_ATTRIBUTES, AggregateRoot

Form = Any
"""A value that msgpack can write: scalars as they are, everything else as a list that begins with its kind."""

LONGEST = 120
"""Characters of a value that is shown."""

MOST_BITS = 2_000
"""Bits of an integer that is written with decimal digits; Python refuses to write many of them."""

_ADDRESS = re.compile(r" at 0x[0-9a-fA-F]+")
_NATIVE = (type(None), bool, str, bytes)
LIST, DICT = 0, 1
"""The kinds of the forms of lists and of dicts."""
_CODE = (FunctionType, BuiltinFunctionType, MethodType, ModuleType, type)
_pack: Callable[[object], bytes] = msgpack.Packer(unicode_errors="surrogatepass").pack


class Difference(NamedTuple):
    """Where two forms part.

    Attributes:
        path: The place inside of the value, as Python writes it; empty for the value itself.
        old: The text of the old value there; ``None`` if there is none.
        new: That of the new one.
    """

    path: str
    old: str | None
    new: str | None


def state_of(instance: AggregateRoot) -> Mapping[str, Any]:
    """The state of an aggregate by field: what its own ``to_snapshot`` says, or else all of its attributes."""
    if type(instance).to_snapshot is not AggregateRoot.to_snapshot:
        return dict(instance.to_snapshot())
    return {name: value for name, value in _fields(instance) if name not in OWN_ATTRIBUTES}


def form_of_state(state: Mapping[str, Any]) -> Form:
    """The form of a whole state by field, as `state_of` returns it."""
    return ["object", "", _mapping(state, ())]


def digests_of(instance: AggregateRoot) -> dict[str, bytes]:
    """Eight bytes for each field of the state: equal for equal values."""
    return {name: digest(form_of(value)) for name, value in state_of(instance).items()}


def digest(form: Form) -> bytes:
    """Eight bytes that stand for a form."""
    return blake2b(_pack(form), digest_size=8).digest()


def form_of(value: Any) -> Form:
    """The form of a value."""
    kind = type(value)
    if kind in _NATIVE:
        return value
    try:
        return _form(value, ())
    except RecursionError:
        return ["too deep", kind.__name__]


def _form(value: Any, above: tuple[int, ...]) -> Form:
    kind = type(value)
    if kind in _NATIVE:
        return value
    writer = _WRITERS.get(kind)
    if writer is not None:
        return writer(value)
    if id(value) in above:
        return ["cycle", kind.__name__]
    return _nested(value, kind, (*above, id(value)))


def _nested(value: Any, kind: type, above: tuple[int, ...]) -> Form:
    if isinstance(value, Enum):
        return ["enum", value.name or repr(value.value)]
    if isinstance(value, dict):
        return _mapping(value, above)
    if isinstance(value, (set, frozenset)):
        name = "set" if isinstance(value, set) else "frozenset"
        return [name, *sorted((_form(each, above) for each in value), key=_pack)]
    if isinstance(value, (list, deque, tuple)):
        name = kind.__name__ if hasattr(kind, "_fields") else "tuple"
        return [name if isinstance(value, tuple) else LIST, *(_form(each, above) for each in value)]
    return _scalar_or_object(value, kind, above)


def _scalar_or_object(value: Any, kind: type, above: tuple[int, ...]) -> Form:
    for base in kind.__mro__:
        if base in _WRITERS or base in _NATIVE:  # a subclass of a scalar
            return _WRITERS[base](value) if base in _WRITERS else base(value)
    if isinstance(value, _CODE):
        return ["code", getattr(value, "__qualname__", repr(kind))]
    fields = dict(_fields(value))
    text = "" if fields else _text_without_address(value)
    return ["object", kind.__name__, _mapping(fields, above) if fields else text]


def _text_without_address(value: Any) -> str:
    try:
        return _ADDRESS.sub("", repr(value))
    except Exception:  # noqa: BLE001 - a class may raise anything there, and then shows no state
        return ""


def _mapping(value: Mapping[Any, Any], above: tuple[int, ...]) -> Form:
    pairs = [[_form(key, above), _form(item, above)] for key, item in value.items()]
    pairs.sort(key=_by_key)
    return [DICT, *pairs]


def _by_key(pair: list[Any]) -> bytes:
    return _pack(pair[0])


def _fields(value: Any) -> Iterator[tuple[str, Any]]:
    """The attributes of an instance, those in slots included, but not those that are computed and cached."""
    kind = type(value)
    if isinstance(value, BaseModel):
        yield from {
            name: value.__dict__[name] for name in kind.model_fields if name in value.__dict__
        }.items()
        yield from (value.__pydantic_extra__ or {}).items()
        yield from (value.__pydantic_private__ or {}).items()
        return
    if dataclasses.is_dataclass(value):
        names = {field.name for field in dataclasses.fields(value)}
        yield from ((name, getattr(value, name)) for name in sorted(names) if hasattr(value, name))
    else:
        names = set()
    for name, attribute in getattr(value, "__dict__", {}).items():
        if name not in names and not isinstance(getattr(kind, name, None), functools.cached_property):
            yield name, attribute
    for base in kind.__mro__:
        slots = vars(base).get("__slots__", ())
        for name in (slots,) if isinstance(slots, str) else slots:
            if name not in names and name not in ("__dict__", "__weakref__") and hasattr(value, name):
                yield name, getattr(value, name)


def _int(value: int) -> Form:
    if -(2**63) <= value < 2**64:
        return int(value)
    return ["int", hex(value) if value.bit_length() > MOST_BITS else str(int(value))]


def _float(value: float) -> Form:
    return ["float", "nan"] if math.isnan(value) else float(value)


def _moment(value: datetime | time) -> Form:
    return [datetime.__name__ if isinstance(value, datetime) else "time", value.isoformat()]


_WRITERS: dict[type, Callable[[Any], Form]] = {
    int: _int,
    float: _float,
    complex: lambda value: ["complex", repr(value)],
    Decimal: lambda value: ["Decimal", str(value)],
    datetime: _moment,
    time: _moment,
    date: lambda value: ["date", value.isoformat()],
    timedelta: lambda value: ["timedelta", value.days, value.seconds, value.microseconds],
    UUID: lambda value: ["UUID", str(value)],
    bytearray: lambda value: ["bytearray", bytes(value)],
    range: lambda value: ["range", repr(value)],
    re.Pattern: lambda value: ["pattern", repr(value)],
}


# --- for people ---


def text_of(form: Form, longest: int = LONGEST) -> str:
    """A form as Python would write the value, cut to ``longest`` characters."""
    text = _text(form)
    return text if len(text) <= longest else f"{text[: longest - 1]}…"


def _text(form: Form) -> str:
    if not isinstance(form, list):
        return repr(form)
    kind, *parts = form
    if kind == "object" and isinstance(parts[1], list):
        return f"{parts[0]}({', '.join(f'{key}={_text(item)}' for key, item in parts[1][1:])})"
    shown = _SHOWN.get(kind)
    return f"{kind}({', '.join(map(_text, parts))})" if shown is None else shown(parts)


def _joined(forms: Iterable[Form]) -> str:
    return ", ".join(map(_text, forms))


_SHOWN: dict[object, Callable[[list[Form]], str]] = {
    LIST: lambda parts: f"[{_joined(parts)}]",
    DICT: lambda parts: f"{{{', '.join(f'{_text(key)}: {_text(item)}' for key, item in parts)}}}",
    "set": lambda parts: f"{{{_joined(parts)}}}" if parts else "set()",
    "frozenset": lambda parts: f"frozenset({{{_joined(parts)}}})" if parts else "frozenset()",
    "tuple": lambda parts: f"({_joined(parts)}{',' if len(parts) == 1 else ''})",
    "object": lambda parts: str(parts[-1]),
    "code": lambda parts: str(parts[-1]),
    **dict.fromkeys(
        ("enum", "int", "float", "datetime", "date", "time", "complex", "range", "pattern"),
        lambda parts: str(parts[0]),
    ),
}


def is_same(one: Form, other: Form) -> bool:
    """Whether two forms are equal; ``1``, ``1.0`` and ``True`` are not."""
    return _pack(one) == _pack(other)


def difference(old: Form, new: Form) -> Difference | None:
    """The first place in which two forms differ; ``None`` if they are equal."""
    return None if is_same(old, new) else _parted("", old, new)


def first_difference(old: Form, new: Form) -> Difference | None:
    """The first difference of the forms of two whole states; ``None`` if they are equal."""
    parted = difference(old, new)
    return None if parted is None else parted._replace(path=parted.path.removeprefix("."))


def _parted(path: str, old: Form, new: Form) -> Difference:
    if isinstance(old, list) and isinstance(new, list) and old[:1] == new[:1]:
        found = None
        if old[0] == DICT:
            found = _parted_dict(path, old, new)
        elif (
            old[0] == "object" and old[1] == new[1] and isinstance(old[2], list) and isinstance(new[2], list)
        ):
            found = _parted_dict(path, old[2], new[2], attributes=True)
        elif old[0] in (LIST, "tuple"):
            found = _parted_list(path, old[1:], new[1:])
        if found is not None:
            return found
    return Difference(path, text_of(old), text_of(new))


def _parted_dict(path: str, old: Form, new: Form, *, attributes: bool = False) -> Difference | None:
    olds, news = ({_pack(key): (key, item) for key, item in form[1:]} for form in (old, new))
    for packed in sorted(olds.keys() | news.keys()):
        key = (olds.get(packed) or news[packed])[0]
        place = f"{path}.{key}" if attributes else f"{path}[{text_of(key, 60)}]"
        if packed not in olds:
            return Difference(place, None, text_of(news[packed][1]))
        if packed not in news:
            return Difference(place, text_of(olds[packed][1]), None)
        if _pack(olds[packed][1]) != _pack(news[packed][1]):
            return _parted(place, olds[packed][1], news[packed][1])
    return None


def _parted_list(path: str, old: Form, new: Form) -> Difference | None:
    for index in range(max(len(old), len(new))):
        place = f"{path}[{index}]"
        if index >= len(old):
            return Difference(place, None, text_of(new[index]))
        if index >= len(new):
            return Difference(place, text_of(old[index]), None)
        if _pack(old[index]) != _pack(new[index]):
            return _parted(place, old[index], new[index])
    return None
