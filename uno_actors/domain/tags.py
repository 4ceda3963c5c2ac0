"""Tags: the fields of events by whose values a decision finds the events that it rests on.

A tag is a mark on a field. It changes nothing in what is recorded, so fields of existing events can be marked too.
"""

from collections.abc import Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from functools import lru_cache
from types import NoneType, UnionType
from typing import Annotated, Any, Literal, TypeAlias, Union, get_args, get_origin
from uuid import UUID

from pydantic_core import SchemaValidator

from uno_actors.domain.events import METADATA, DomainEvent
from uno_actors.errors import InvalidEvent

_SEVERAL = (list, tuple, set, frozenset)
_KINDS = frozenset({str, int, UUID})
_UNCHANGED = frozenset({*_KINDS, bool})
_CHANGES = ("str_to_lower", "str_to_upper", "str_strip_whitespace")
"""Options of a class by which its fields change their values."""

TagValue: TypeAlias = str | int | UUID


@dataclass(frozen=True, slots=True)
class Tag:
    """Marks a field of an event: ``email: Annotated[str, Tag()]``.

    Events are then selected by the value of the field: ``EventQuery(UserRegistered, tags={"email": "ann@x.org"})``.
    The type of the field is ``str``, ``int`` or ``UUID``, or a list, tuple or set of one of them: then each item is a
    value of the tag. ``None`` does not count. Several fields of a class may have the same tag. The mark may be within
    the annotation: ``Annotated[str, Tag()] | None`` means the same as ``Annotated[str | None, Tag()]``.

    Attributes:
        name: Of the tag; default is that of the field.
    """

    name: str | None = None


@dataclass(frozen=True, slots=True)
class TaggedFields:
    """The fields of an event class that have one tag.

    Attributes:
        names: Of the fields.
        kinds: The types of their values.
    """

    names: tuple[str, ...]
    kinds: frozenset[type]


@lru_cache(maxsize=1024)
def tagged_fields(event_type: type[DomainEvent]) -> dict[str, TaggedFields]:
    """The fields of an event class by their tags.

    Raises:
        InvalidEvent: A mark is on metadata, or on a field of another type.
    """
    found: dict[str, TaggedFields] = {}
    for name, field in event_type.model_fields.items():
        for tag in (*_marks(field.metadata), *_marks_in(field.annotation)):
            if name in METADATA:
                reason = f"{name} has a Tag and is metadata: mark a field of the payload, or select by topic"
                raise InvalidEvent(event_type.__qualname__, reason)
            kinds = _kinds(field.annotation)
            if not kinds or not kinds <= _KINDS:
                reason = (
                    f"{name} has a Tag and is annotated with {field.annotation!r}: a tag is a str, int or UUID, or a"
                    " list, tuple or set of one of them"
                )
                raise InvalidEvent(event_type.__qualname__, reason)
            before = found.get(tag.name or name, TaggedFields((), frozenset()))
            found[tag.name or name] = TaggedFields((*before.names, name), before.kinds | kinds)
    return found


def _marks(metadata: Iterable[object]) -> Iterator[Tag]:
    return (each for each in metadata if isinstance(each, Tag))


def _marks_in(annotation: Any) -> Iterator[Tag]:
    """The marks within an annotation, as in ``Annotated[str, Tag()] | None``."""
    if get_origin(annotation) is Annotated:
        yield from _marks(annotation.__metadata__)
    if get_origin(annotation) is not Literal:
        for each in get_args(annotation):
            yield from _marks_in(each)


def _kinds(annotation: Any) -> frozenset[Any]:
    """The types of the values of a field; ``None`` and collections are looked into."""
    annotation = getattr(annotation, "__supertype__", annotation)
    origin, args = get_origin(annotation), get_args(annotation)
    if origin is Annotated:
        return _kinds(args[0])
    if origin in (Union, UnionType):
        return frozenset[Any]().union(*map(_kinds, args))
    if origin in _SEVERAL:
        return frozenset[Any]().union(*(_kinds(each) for each in args if each is not ...))
    return frozenset() if annotation is NoneType else frozenset({annotation})


def as_text(value: object) -> str:
    """A value of a tag as text by which equal values are found; ``str`` and ``int`` are kept apart.

    A UUID counts as its text, and a member of an enumeration as its value: that is how they are recorded.
    """
    value = plain(value)
    return f"i{value}" if isinstance(value, int) else f"s{value}"


def plain(value: object) -> object:
    """``value`` without the text of a subclass of ``str`` or ``int``: a member of an enumeration as what it equals."""
    if type(value) in _UNCHANGED:
        return value
    if isinstance(value, str):
        return str.__str__(value)
    return int.__int__(value) if isinstance(value, int) else value


def texts_of(recorded: object) -> list[str]:
    """The values of a tag in a recorded field."""
    if recorded is None:
        return []
    if isinstance(recorded, _SEVERAL):
        return [text for each in recorded for text in texts_of(each)]
    return [as_text(recorded)]


def as_recorded(event_type: type[DomainEvent], name: str, value: TagValue) -> TagValue:
    """A value of a tag as the field ``name`` records it: as its annotation and its validators leave it.

    Events that are recorded have been validated, perhaps to lower case, and a query must mean the same. A value that
    the field refuses stays as it is: an earlier version of the class may have recorded it.
    """
    for given in (
        value,
        [value],
        (value,),
        {value},
        frozenset({value}),
    ):  # of a field with several values, one
        with suppress(Exception):  # a program's own validator may raise anything
            found = _validator_of(event_type, name).validate_python(given)
            (one,) = found if isinstance(found, _SEVERAL) else (found,)
            if isinstance(one, (str, int, UUID)):
                return one
    return value


def is_recorded_as_given(event_type: type[DomainEvent], name: str) -> bool:
    """Whether the field ``name`` records each value of a tag as it is, as it has no validator and no such option."""
    schema, _, config = _schema_of(event_type, name)
    while schema["type"] in ("default", "nullable", "list", "set", "frozenset", "tuple"):
        items = schema.get("items_schema", schema.get("schema"))
        if not isinstance(items, dict):
            return False
        schema = items
    changes = any((config or {}).get(option) for option in _CHANGES)
    return schema["type"] in ("str", "int", "uuid") and schema.keys() <= {"type", "metadata"} and not changes


@lru_cache(maxsize=1024)
def _validator_of(event_type: type[DomainEvent], name: str) -> SchemaValidator:
    """What validates one field: the class itself is frozen, and validates whole events alone."""
    field, definitions, config = _schema_of(event_type, name)
    if definitions:
        field = {"type": "definitions", "schema": field, "definitions": definitions}
    return SchemaValidator(field, config)


def _schema_of(event_type: type[DomainEvent], name: str) -> tuple[Any, list[Any], Any]:
    """The schema of a field, with what it may refer to, and the options of its class."""
    event_type.model_rebuild()
    schema: Any = event_type.__pydantic_core_schema__
    definitions: list[Any] = []
    config = None
    while schema["type"] != "model-fields":
        definitions = schema.get("definitions", definitions)
        config = schema.get("config", config)
        schema = schema["schema"]
    return schema["fields"][name]["schema"], definitions, config
