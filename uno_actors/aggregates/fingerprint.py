"""The fingerprint of a command: eight bytes that distinguish a repetition from another command of the same id.

Two commands are the same if their classes have the same name and their fields the same values. The ids of a command
(``command_id``, ``correlation_id``, ``causation_id``) are not part of its contents. A command has the same fingerprint
in every process and after the next deployment, because

- these do not count: the order of sets and dictionaries, zeros at the end of a ``Decimal``, the sign of zero, the
  zone of a time, and whether a whole number is an ``int``, a ``float`` or a ``Decimal``;
- a field with its default value is left out: if a class gains a field with a default, commands of the older program
  stay the same;
- a field that a ``default_factory`` filled in (a time, a new id) is left out: a request that is sent again is often
  built again;
- secrets (`pydantic.SecretStr`) count by their class only, because a reader of the store could try likely ones; so do
  values that pydantic cannot write.

Models and dataclasses within a command follow the same rules.
"""

import dataclasses
from collections import deque
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Set
from contextlib import suppress
from datetime import UTC, date, datetime, time, timedelta
from decimal import Decimal
from enum import Enum
from functools import lru_cache
from hashlib import blake2b
from typing import Any, Literal, NamedTuple, TypeAlias, get_args
from uuid import UUID

import msgpack
from pydantic import BaseModel
from pydantic_core import PydanticUndefined, to_jsonable_python

from uno_actors.domain.commands import Command

SIZE = 8
"""Bytes of a fingerprint."""

Made: TypeAlias = Literal["if given", "always", "never"]
"""When a field that has a ``default_factory`` counts."""


def fingerprint(command: Command[Any], made: Made = "if given") -> bytes:
    """The fingerprint of ``command``. Those of commands with different ids differ."""
    kind = type(command)
    names, fields = _fields_of(kind)
    parts: list[object] = [kind.__name__, command.command_id]
    if names is not None:  # the fast path of most commands
        values = command.__dict__
        try:
            for name in names:
                value = values[name]
                if type(value) not in _EXACT:
                    value = _canonical(value, made)
                parts += name, value
            return blake2b(_pack(parts), digest_size=SIZE).digest()
        except Exception:  # noqa: BLE001 - see below; or an integer beyond 64 bits
            del parts[2:]
    try:
        _add_fields(parts, command, fields, made)
        if command.__pydantic_extra__:
            parts.append(_map(command.__pydantic_extra__, made))
        packed = _pack(parts)
    except Exception:  # noqa: BLE001 - a value may raise anything, and that must not undo a command that was handled
        packed = _pack(parts[:2])
    return blake2b(packed, digest_size=SIZE).digest()


def is_same(command: Command[Any], recorded: bytes) -> bool:
    """Whether ``recorded`` is the fingerprint of a command of this id with the same contents.

    A field that a factory filled in the first time may be given now, for example if the command was kept as JSON.
    """
    return any(fingerprint(command, made) == recorded for made in get_args(Made))


def are_same(first: Command[Any], other: Command[Any]) -> bool:
    """Whether ``other``, a command of the same id, is ``first`` sent again."""
    return first is other or is_same(other, fingerprint(first))


# --- fields ---


class _Field(NamedTuple):
    """A field of a model or a dataclass.

    Attributes:
        name: Its name.
        default: Its default value as canonical bytes; ``None`` if it has none.
        is_made: Whether a ``default_factory`` fills it in with more than an empty container.
    """

    name: str
    default: bytes | None
    is_made: bool


_IDS = frozenset(Command.model_fields)
_EMPTY: dict[object, object] = {factory: factory() for factory in (list, dict, set, frozenset, tuple)}
_EXACT = frozenset({type(None), bool, str, bytes, int})
"""Types whose values msgpack writes in exactly one way, if it can write them."""


class _Fields(NamedTuple):
    """The fields of a model or a dataclass, by name: a class may change their order.

    Attributes:
        names: Their names if they all count, whatever their values; otherwise ``None``.
        fields: All of them.
    """

    names: tuple[str, ...] | None
    fields: tuple[_Field, ...]


@lru_cache(maxsize=1024)
def _fields_of(kind: Any) -> _Fields:
    found: Iterable[tuple[str, Any]]
    is_open = False
    if issubclass(kind, BaseModel):
        ids = _IDS if issubclass(kind, Command) else ()
        found = ((name, field) for name, field in kind.model_fields.items() if name not in ids)
        is_open = kind.model_config.get("extra") == "allow"
    else:
        found = ((field.name, field) for field in dataclasses.fields(kind) if field.compare)
    fields = tuple(sorted(_field(name, field.default, field.default_factory) for name, field in found))
    all_count = not (is_open or any(field.is_made or field.default is not None for field in fields))
    return _Fields(tuple(field.name for field in fields) if all_count else None, fields)


def _field(name: str, default: object, factory: object) -> _Field:
    if factory is not None and factory is not dataclasses.MISSING:
        if not (isinstance(factory, type) and factory in _EMPTY):
            return _Field(name, None, is_made=True)
        default = _EMPTY[factory]
    if default is not PydanticUndefined and default is not dataclasses.MISSING:
        with suppress(Exception):  # its own methods may raise anything
            return _Field(name, _pack(_canonical(default, "if given")), is_made=False)
    return _Field(name, None, is_made=False)


def _add_fields(parts: list[object], value: Any, fields: tuple[_Field, ...], made: Made) -> None:
    """Add name and value of each field that counts to ``parts``."""
    for name, default, is_made in fields:
        if is_made and (made == "never" or (made == "if given" and not _was_given(value, name))):
            continue
        item = _canonical(getattr(value, name), made)
        if default is not None and _pack(item) == default:
            continue
        parts.append(name)
        parts.append(item)


def _was_given(value: Any, name: str) -> bool:
    return not isinstance(value, BaseModel) or name in value.__pydantic_fields_set__


# --- values in the one form in which msgpack writes them ---

_LEAST, _MOST = -(2**63), 2**64  # integers in between msgpack writes itself
_pack: Callable[[object], bytes] = msgpack.Packer(unicode_errors="surrogatepass").pack

_NUMBER, _SET, _MAP, _MOMENT, _SPAN, _UUID, _FIELDS, _ENUM, _CLASS, _OTHER = range(10)


def _tagged(code: int, *parts: object) -> msgpack.ExtType:
    return msgpack.ExtType(code, _pack(parts))


def _canonical(value: Any, made: Made) -> object:
    kind = type(value)
    if kind in _EXACT and (kind is not int or _LEAST <= value < _MOST):
        return value
    for base, write in _WRITERS:
        if isinstance(value, base):
            return write(value, made)
    return _other(value, made)


def _enum(value: Enum, made: Made) -> object:
    if isinstance(value, (str, int, float, bytes)):  # equal to its value
        return _canonical(value.value, made)
    return _tagged(_ENUM, type(value).__name__, value.name)


def _text(value: str, _: Made) -> object:
    return str.__str__(value)


def _bytes(value: Any, _: Made) -> object:
    return bytes(value)


def _int(value: int, _: Made) -> object:
    value = int.__int__(value)
    return value if _LEAST <= value < _MOST else _tagged(_NUMBER, *_digits(Decimal(value)))


def _float(value: float, made: Made) -> object:
    value = float.__float__(value)
    if value != value:  # noqa: PLR0124 - not a number, of which there are many
        return _tagged(_NUMBER, "nan")
    return _int(int(value), made) if value.is_integer() else value


def _decimal(value: Decimal, _: Made) -> object:
    if not value.is_finite():
        return float(value) if value.is_infinite() else _tagged(_NUMBER, "nan")
    if _LEAST <= value < _MOST and value == (whole := int(value)):
        return whole
    return _tagged(_NUMBER, *_digits(value))


def _digits(value: Decimal) -> tuple[object, ...]:
    """Sign, digits and exponent, without zeros at the end."""
    sign, digits, exponent = value.as_tuple()
    text = "".join(map(str, digits))
    kept = text.rstrip("0")
    return sign, kept, int(exponent) + len(text) - len(kept)


def _moment(value: datetime, _: Made) -> object:
    if value.tzinfo is not None:
        try:
            value = value.astimezone(UTC)
        except OverflowError:  # at the ends of the calendar
            return _tagged(_MOMENT, value.isoformat())
    return _tagged(_MOMENT, value.isoformat())


def _day(value: date | time, _: Made) -> object:
    return _tagged(_MOMENT, value.isoformat())


def _span(value: timedelta, _: Made) -> object:
    return _tagged(_SPAN, value.days, value.seconds, value.microseconds)


def _uuid(value: UUID, _: Made) -> object:
    return _tagged(_UUID, value.bytes)


def _model(value: BaseModel, made: Made) -> object:
    return _fields(value, value.__pydantic_extra__, made)


def _fields(value: Any, extra: Mapping[str, object] | None, made: Made) -> object:
    kind: Any = type(value)
    parts: list[object] = [kind.__name__]
    _add_fields(parts, value, _fields_of(kind).fields, made)
    if extra:
        parts.append(_map(extra, made))
    return _tagged(_FIELDS, *parts)


def _set(value: Set[Any], made: Made) -> object:
    return _tagged(_SET, *sorted(_pack(_canonical(item, made)) for item in value))


def _map(value: Mapping[Any, Any], made: Made) -> object:
    items = [(_pack(_canonical(key, made)), _canonical(item, made)) for key, item in value.items()]
    return _tagged(_MAP, *sorted(items, key=lambda item: item[0]))


def _list(value: Collection[Any], made: Made) -> object:
    return [_canonical(item, made) for item in value]


def _other(value: Any, made: Made) -> object:
    """Its JSON form by pydantic; its class if there is none, or if it is a secret or can be read only once."""
    name = type(value).__name__
    if dataclasses.is_dataclass(value):
        return _fields(value, None, made)
    if not (hasattr(value, "get_secret_value") or isinstance(value, Iterator)):
        with suppress(Exception):  # its own methods may raise anything
            return _tagged(_OTHER, name, _canonical(to_jsonable_python(value), made))
    return _tagged(_CLASS, name)


_WRITERS: tuple[tuple[type | tuple[type, ...], Callable[[Any, Made], object]], ...] = (
    (Enum, _enum),
    (str, _text),
    ((bytes, bytearray, memoryview), _bytes),
    (bool, lambda value, _: value),
    (int, _int),
    (float, _float),
    (Decimal, _decimal),
    (datetime, _moment),
    (date, _day),
    (time, _day),
    (timedelta, _span),
    (UUID, _uuid),
    (BaseModel, _model),
    (Set, _set),
    (Mapping, _map),
    ((list, tuple, deque), _list),
)
