"""Python values as msgpack and back, exactly: what is read equals what was written, type for type.

Besides the types of msgpack (None, bool, int, float, str, bytes, list, dict), these are restored exactly: tuple, set,
frozenset, Decimal, date, time, datetime with its zone, timedelta, UUID, integers of any size; and enums, dataclasses,
named tuples and pydantic models, if their classes are passed to the reader. Everything else is refused, subclasses
included: a value that cannot be restored exactly is not written. The bytes hold the names of classes, never import
paths, and reading runs no code of these classes.
"""

import dataclasses
from collections import deque
from collections.abc import Callable, Iterable, Mapping
from datetime import UTC, date, datetime, time, timedelta, timezone, tzinfo
from decimal import Decimal
from enum import Enum
from inspect import get_annotations
from typing import Any, get_args, get_type_hints
from uuid import UUID
from zoneinfo import ZoneInfo

import msgpack
from pydantic import BaseModel
from pydantic_core import TzInfo

Classes = Mapping[str, type]
"""The classes that a reader knows, by name."""
TagReader = Callable[[int, bytes], Any]
"""The ``ext_hook`` that msgpack calls for a tagged value."""


class UnknownClass(ValueError):
    """The class of a value is unknown to its reader."""


def classes_in(*annotations: Any) -> dict[str, type]:
    """The enums, dataclasses, named tuples and models in ``annotations``, and in their fields.

    If two classes have the same name, both are left out: a reader would have to choose.
    """
    found: dict[str, type] = {}
    seen: dict[int, object] = {}  # some cannot be hashed; kept, so that an id is not given to another
    ambiguous: set[str] = set()
    waiting = list(annotations)
    while waiting:
        annotation = waiting.pop()
        if id(annotation) in seen:
            continue
        seen[id(annotation)] = annotation
        waiting += get_args(annotation)
        waiting.append(getattr(annotation, "__value__", None))  # of `type Money = ...`
        if isinstance(annotation, type) and is_restorable(annotation):
            if found.setdefault(annotation.__name__, annotation) is not annotation:
                ambiguous.add(annotation.__name__)
            waiting += annotations_of(annotation)
    return {name: known for name, known in found.items() if name not in ambiguous}


def annotations_of(annotated: type) -> list[Any]:
    """The annotations of a class and its bases; those that cannot be resolved are left out."""
    try:
        return list(get_type_hints(annotated).values())
    except Exception:  # noqa: BLE001 - resolving a name may raise anything
        bases = annotated.__mro__
        return [
            hint for base in bases for hint in get_annotations(base).values() if not isinstance(hint, str)
        ]


def pack_value(value: object, classes: Classes, *, may_share: bool = False) -> bytes:
    """The bytes of ``value``.

    Args:
        value: A value of the types that this module's docstring names.
        classes: The classes of the enums, dataclasses, named tuples and models in it.
        may_share: Whether one mutable object may occur in two places; it is read back as two objects.

    Raises:
        TypeError, ValueError: ``value`` cannot be restored exactly; the text says why.
    """
    packed: bytes = msgpack.packb(ValueWriter(classes, may_share=may_share).plain(value))
    return packed


def unpack_value(data: bytes, classes: Classes) -> Any:
    """The value whose bytes are ``data``.

    Raises:
        Exception: ``data`` is damaged, or a class is unknown or has other fields now.
    """
    return _unpack(data, classes)


def with_tags(value: object, classes: Classes) -> object:
    """``value`` in a form that msgpack writes, as part of a larger value; `tag_reader` reads the tags.

    A time keeps its offset from UTC but not the name of its zone. One mutable object may occur in two places.

    Raises:
        TypeError, ValueError: ``value`` cannot be restored exactly; the text says why.
    """
    return ValueWriter(classes, may_share=True, keep_zones=False).plain(value)


def tag_reader(classes: Classes | None, others: Mapping[int, Callable[..., Any]] | None = None) -> TagReader:
    """The ``ext_hook`` for the output of `with_tags`.

    Args:
        classes: As for `unpack_value`; ``None`` gives a `Shown` for each value of a class.
        others: Readers of further tags, by their numbers, called with the parts given to `tagged`.
    """
    readers = _READERS if others is None else {**_READERS, **others}

    def read(code: int, data: bytes) -> Any:
        parts = msgpack.unpackb(data, ext_hook=read, strict_map_key=False)
        if code in readers:
            return readers[code](*parts)
        name, *fields = parts
        if classes is None:
            return Shown(name, fields)
        if name not in classes:
            raise UnknownClass(f"the annotations name no class {name}, or several")
        return _CLASS_READERS[code](classes[name], *fields)

    return read


class Shown:
    """A readable stand-in for a value whose class is unknown."""

    __slots__ = ("_fields", "_name")

    def __init__(self, name: str, fields: list[Any]) -> None:
        self._name = name
        self._fields = fields

    def __repr__(self) -> str:
        return f"{self._name}({', '.join(map(repr, self._fields))})"


def at_offset(moment: datetime) -> datetime:
    """``moment`` with its zone replaced by the zone's offset; a naive time is unchanged."""
    offset = moment.utcoffset()
    if offset is None:
        return moment
    return datetime(
        moment.year, moment.month, moment.day, moment.hour, moment.minute, moment.second, moment.microsecond,
        timezone(offset) if offset else UTC,
    )  # fmt: skip


def difference(path: str, one: Any, other: Any) -> str:
    """How ``other``, read from the bytes of ``one``, differs from it; empty if value and type are the same.

    Times are the same at the same offset from UTC, whatever the name of the zone. An instance of a subclass of a
    scalar type may be read as the scalar; members of enums and booleans may not.
    """
    if type(one) is not type(other):
        if (
            type(other) in _SCALAR_TYPES
            and isinstance(one, type(other))
            and not isinstance(one, (Enum, bool))
        ):
            return difference(path, _as_scalar(one, type(other)), other)
        return _unequal(path, one, other)
    parts = _PARTS.get(type(one)) or _parts_of_class(type(one))
    if parts is None:
        return "" if _is_equal(one, other) else _unequal(path, one, other)
    ours, others = parts(one), parts(other)
    if ours is None or others is None or ours.keys() != others.keys():
        return _unequal(path, one, other)
    found = (difference(f"{path}.{key}", value, others[key]) for key, value in ours.items())
    return next(filter(None, found), "")


def _unequal(path: str, one: object, other: object) -> str:
    return f"{path} is {_short(one)} and would be read back as {_short(other)}"


def _short(value: object) -> str:
    try:
        text = repr(value)
    except Exception:  # noqa: BLE001 - its own __repr__ may raise anything
        text = f"a {type(value).__qualname__}"
    return text if len(text) <= 80 else f"{text[:79]}…"


def _as_scalar(value: Any, kind: type) -> object:
    """An instance of a subclass of ``kind``, as an instance of ``kind`` itself."""
    if kind is datetime:
        return at_offset(datetime.combine(value.date(), value.timetz()))
    return value if kind is date and isinstance(value, datetime) else _BASE_SCALARS[kind](value)


def _is_equal(one: Any, other: Any) -> bool:
    match one:
        case float() | complex() | Decimal():
            return repr(one) == repr(other)  # distinguishes 1.0 from 1.00, and equals itself for a NaN
        case datetime():
            if (one.tzinfo is None) != (other.tzinfo is None):
                return False
            offset = one.utcoffset()
            return at_offset(one).replace(tzinfo=None) == at_offset(other).replace(tzinfo=None) and (
                one.fold == other.fold if offset is None else offset == other.utcoffset()
            )
        case time():
            return (repr(one), one.fold) == (repr(other), other.fold)
    try:
        return bool(one is other or one == other)
    except Exception:  # noqa: BLE001 - its own __eq__ may raise anything
        return False


def _parts_of_class(kind: type) -> Callable[[Any], Mapping[Any, Any] | None] | None:
    """The fields of an instance of ``kind``, if it has fields."""
    if issubclass(kind, Enum):
        return None
    if issubclass(kind, BaseModel):
        return _model_parts
    if dataclasses.is_dataclass(kind):
        return lambda value: {field.name: getattr(value, field.name) for field in dataclasses.fields(value)}
    if issubclass(kind, (list, tuple, deque)):
        return _in_order
    if issubclass(kind, (set, frozenset)):
        return _by_member
    return _by_key if issubclass(kind, dict) else None


def _model_parts(value: BaseModel) -> Mapping[str, Any]:
    fields = {name: value.__dict__[name] for name in type(value).model_fields if name in value.__dict__}
    return fields | (value.__pydantic_extra__ or {}) | (value.__pydantic_private__ or {})


def _in_order(value: Any) -> Mapping[int, Any]:
    return dict(enumerate(value))


def _by_member(value: Any) -> Mapping[Any, Any]:
    return {member: member for member in value}


def _by_key(value: dict[Any, Any]) -> Mapping[Any, Any]:
    """Keys and items by position, so that keys are compared by type and in their order, too."""
    return {
        place: part
        for at, item in enumerate(value.items())
        for place, part in zip((f"key {at}", item[0]), item, strict=True)
    }


_SCALAR_TYPES = frozenset({str, bytes, int, float, Decimal, UUID, datetime, date, time, timedelta})
_PARTS: dict[type, Callable[[Any], Mapping[Any, Any] | None]] = {
    list: _in_order,
    tuple: _in_order,
    set: _by_member,
    frozenset: _by_member,
    dict: _by_key,
}
_BASE_SCALARS: dict[type, Callable[[Any], object]] = {
    str: str.__str__,
    bytes: lambda value: bytes(memoryview(value)),
    int: int.__int__,
    float: float.__float__,
    Decimal: lambda value: Decimal(value.as_tuple()),
    UUID: lambda value: UUID(int=value.int),
    date: lambda value: date(value.year, value.month, value.day),
    time: lambda value: time(
        value.hour, value.minute, value.second, value.microsecond, value.tzinfo, fold=value.fold
    ),
    timedelta: lambda value: timedelta(value.days, value.seconds, value.microseconds),
}


def is_restorable(kind: type) -> bool:
    """Whether an instance consists of its fields alone, so it can be built from them."""
    if issubclass(kind, (Enum, BaseModel)) or _is_named_tuple(kind):
        return kind not in (Enum, BaseModel)
    if not dataclasses.is_dataclass(kind):
        return False
    names = {field.name for field in dataclasses.fields(kind)}
    slots = {name for base in kind.__mro__ for name in base.__dict__.get("__slots__", ())}
    return kind.__new__ is object.__new__ and slots - {"__weakref__", "__dict__"} <= names


def _is_named_tuple(kind: type) -> bool:
    return issubclass(kind, tuple) and hasattr(kind, "_fields")


# --- tags of types that msgpack does not know; they are stored, so their numbers never change ---

_TUPLE, _SET, _FROZENSET, _BIG_INT, _DECIMAL, _UUID = 1, 2, 3, 4, 5, 6
_DATE, _TIME, _DATETIME, _TIMEDELTA = 10, 11, 12, 13
_ENUM, _DATACLASS, _NAMED_TUPLE, _MODEL = 20, 21, 22, 23

_NATIVE = frozenset({type(None), bool, float, str, bytes})


def tagged(code: int, *parts: object) -> msgpack.ExtType:
    """A value that a reader makes of ``parts``, which msgpack can write."""
    return msgpack.ExtType(code, msgpack.packb(parts))


class ValueWriter:
    """Converts one value to a form that msgpack can write, tags included."""

    def __init__(self, classes: Classes, *, may_share: bool, keep_zones: bool = True) -> None:
        self._names = {known: name for name, known in classes.items()}
        self._may_share = may_share
        self._keep_zones = keep_zones
        self._seen: dict[int, object] = {}

    def plain(self, value: Any) -> object:
        """``value`` in a form that msgpack can write."""
        kind = type(value)
        if kind in _NATIVE:
            return value
        return _WRITERS.get(kind, ValueWriter._of_known_class)(self, value)

    def _int(self, value: int) -> object:
        if -(2**63) <= value < 2**64:
            return value
        return tagged(_BIG_INT, value.to_bytes((value.bit_length() + 8) // 8, "big", signed=True))

    def _list(self, value: list[Any]) -> object:
        self._once(value)
        return [*map(self.plain, value)]

    def _dict(self, value: dict[Any, Any]) -> object:
        self._once(value)
        return {self.plain(key): self.plain(item) for key, item in value.items()}

    def _set(self, value: set[Any]) -> object:
        self._once(value)
        return self._collection(value)

    def _collection(self, value: Any) -> object:
        return tagged(_COLLECTIONS[type(value)], *map(self.plain, value))

    def _scalar(self, value: Any) -> object:
        code, parts = _SCALARS[type(value)]
        if code == _DATETIME and not self._keep_zones:
            value = at_offset(value)
        return tagged(code, *parts(value))

    def _of_known_class(self, value: Any) -> object:
        kind = type(value)
        name = self._names.get(kind)
        if name is None:
            raise TypeError(f"a {kind.__qualname__} cannot be restored exactly")
        if issubclass(kind, Enum):
            return self._enum(name, value)
        if issubclass(kind, BaseModel):
            return self._model(name, value)
        if _is_named_tuple(kind):
            return tagged(_NAMED_TUPLE, name, *map(self.plain, value))
        return self._dataclass(name, value)

    def _enum(self, name: str, value: Enum) -> object:
        if type(value).__members__.get(value.name) is not value:
            raise ValueError(f"{value!r} is not a single member")
        return tagged(_ENUM, name, value.name)

    def _model(self, name: str, value: BaseModel) -> object:
        if not value.model_config.get("frozen"):
            self._once(value)
        _check_fields(type(value), value.__dict__, type(value).model_fields)
        parts = (value.__dict__, value.__pydantic_extra__, value.__pydantic_private__)
        return tagged(_MODEL, name, sorted(value.__pydantic_fields_set__), *map(self._fields, parts))

    def _dataclass(self, name: str, value: Any) -> object:
        if not value.__dataclass_params__.frozen:
            self._once(value)
        fields = {field.name: getattr(value, field.name) for field in dataclasses.fields(value)}
        _check_fields(type(value), fields | getattr(value, "__dict__", {}), fields)
        return tagged(_DATACLASS, name, self._fields(fields))

    def _fields(self, fields: Mapping[str, object] | None) -> object:
        return fields and {name: self.plain(value) for name, value in fields.items()}

    def _once(self, value: object) -> None:
        """Refuse one mutable object in two places: it would be read back as two, and a change would reach only one."""
        if self._may_share:
            return
        if id(value) in self._seen:
            raise ValueError(f"the same {type(value).__qualname__} occurs in two places")
        self._seen[id(value)] = value  # kept, so that its id is not given to another


def _check_fields(kind: type, found: Mapping[str, object], wanted: Iterable[str]) -> None:
    if others := set(found).symmetric_difference(wanted):
        raise ValueError(f"{kind.__qualname__} has other fields: {', '.join(sorted(others))}")


def _zone(zone: tzinfo | None) -> object:
    kind = type(zone)
    if zone is None:
        return None
    if kind is timezone:
        offset, *name = zone.__getinitargs__()  # type: ignore[attr-defined]
        return [*_span(offset), *name]
    if kind is TzInfo:
        return int((zone.utcoffset(None) or timedelta()).total_seconds())
    if kind is ZoneInfo and zone.key:  # type: ignore[attr-defined]
        return zone.key  # type: ignore[attr-defined]
    raise TypeError(f"the time zone {zone!r} cannot be restored exactly")


def _zone_of(data: Any) -> tzinfo | None:
    match data:
        case None:
            return None
        case int():
            return TzInfo(data)
        case str():
            return ZoneInfo(data)
        case [days, seconds, microseconds, *name]:
            return timezone(timedelta(days, seconds, microseconds), *name)
    raise ValueError(f"{data!r} is not a time zone")


def _span(value: timedelta) -> tuple[int, int, int]:
    return value.days, value.seconds, value.microseconds


def _moment(value: Any) -> tuple[object, ...]:
    return value.replace(tzinfo=None).isoformat(), value.fold, _zone(value.tzinfo)


def _moment_of(kind: Any) -> Callable[..., Any]:
    return lambda text, fold, zone: kind.fromisoformat(text).replace(fold=fold, tzinfo=_zone_of(zone))


_COLLECTIONS: dict[type, int] = {tuple: _TUPLE, set: _SET, frozenset: _FROZENSET}
_SCALARS: dict[type, tuple[int, Callable[[Any], tuple[object, ...]]]] = {
    Decimal: (_DECIMAL, lambda value: (str(value),)),
    UUID: (_UUID, lambda value: (value.bytes,)),
    date: (_DATE, lambda value: (value.isoformat(),)),
    time: (_TIME, _moment),
    datetime: (_DATETIME, _moment),
    timedelta: (_TIMEDELTA, _span),
}
_WRITERS: dict[type, Callable[[ValueWriter, Any], object]] = {
    int: ValueWriter._int,
    list: ValueWriter._list,
    dict: ValueWriter._dict,
    set: ValueWriter._set,
    tuple: ValueWriter._collection,
    frozenset: ValueWriter._collection,
    **dict.fromkeys(_SCALARS, ValueWriter._scalar),
}
_READERS: dict[int, Callable[..., Any]] = {
    _TUPLE: lambda *items: items,
    _SET: lambda *items: set(items),
    _FROZENSET: lambda *items: frozenset(items),
    _BIG_INT: lambda data: int.from_bytes(data, "big", signed=True),
    _DECIMAL: Decimal,
    _UUID: lambda data: UUID(bytes=data),
    _DATE: date.fromisoformat,
    _TIME: _moment_of(time),
    _DATETIME: _moment_of(datetime),
    _TIMEDELTA: timedelta,
}


def _unpack(data: bytes, classes: Classes) -> Any:
    return msgpack.unpackb(data, ext_hook=tag_reader(classes), strict_map_key=False)


def _dataclass_of(kind: Any, fields: dict[str, Any]) -> Any:
    _check_fields(kind, fields, [field.name for field in dataclasses.fields(kind)])
    instance = kind.__new__(kind)
    for name, value in fields.items():
        object.__setattr__(instance, name, value)  # also of a frozen one
    return instance


def _named_tuple_of(kind: Any, *values: Any) -> Any:
    return kind._make(values)


def _model_of(kind: Any, fields_set: list[str], fields: Any, extra: Any, private: Any) -> Any:
    """The model with its recorded values: they were validated when they were recorded."""
    _check_fields(kind, fields, kind.model_fields)
    instance = kind.__new__(kind)
    object.__setattr__(instance, "__dict__", fields)
    object.__setattr__(instance, "__pydantic_fields_set__", set(fields_set))
    object.__setattr__(instance, "__pydantic_extra__", extra)
    object.__setattr__(instance, "__pydantic_private__", private)
    return instance


_CLASS_READERS: dict[int, Callable[..., Any]] = {
    _ENUM: lambda kind, name: kind[name],
    _DATACLASS: _dataclass_of,
    _NAMED_TUPLE: _named_tuple_of,
    _MODEL: _model_of,
}
