"""The payload of an event: how it is recorded, and the rule that it reads back as it was decided.

A payload is a msgpack map of the event's fields by name. The rule stands in `pack_payload`: an event is recorded
only if the bytes, read by a fresh process, give an event of equal values and equal types; otherwise it is refused
with the field that would change. `as_recorded` gives the event that such a process reads, and
`AggregateRoot.register_event` applies that one, so an aggregate never lives on anything else.

Most values need no proof. `_exactly` compiles the annotations of a class into a check: a value that is immutable
and of the very type that its annotation names reads back equal by construction (an int, a str, an aware time in
UTC, a frozen model of such fields). Every other event is written, read and compared. A field that plain msgpack
does not carry (a ``Decimal`` in ``Decimal | str``, an enum whose values are tuples, a mapping keyed by models) is
written with the tags of `uno_actors.domain.values` instead.

Two values are brought into a fixed form rather than refused, before they are applied: a time keeps its offset from
UTC but not the name of its zone, because the rules of a zone change; and an instance of a subclass of a
scalar type, such as a ``datetime`` of a library, becomes the scalar.
"""

import dataclasses
from collections import deque
from collections.abc import Callable, Collection, Iterable, Mapping, Set
from datetime import UTC, date, datetime, time, timedelta
from decimal import Decimal
from enum import Enum
from functools import lru_cache, partial
from types import NoneType, UnionType
from typing import Annotated, Any, Literal, TypeVar, Union, get_args, get_origin
from uuid import UUID

import annotated_types
import msgpack
from pydantic import (
    AwareDatetime,
    BaseModel,
    NaiveDatetime,
    PlainValidator,
    RootModel,
    StringConstraints,
    TypeAdapter,
    ValidationError,
)
from pydantic.fields import FieldInfo
from pydantic_core import to_jsonable_python

from uno_actors.domain.events import METADATA, DomainEvent, Payload
from uno_actors.domain.values import (
    Classes,
    TagReader,
    at_offset,
    classes_in,
    difference,
    tag_reader,
    with_tags,
)
from uno_actors.errors import EventNotSerializable, describe

E = TypeVar("E", bound=DomainEvent)
M = TypeVar("M", bound=BaseModel)

Exact = Callable[[Any], bool]
"""Whether a value is immutable and reads back as it is."""


_set = object.__setattr__  # a frozen model allows this one


class Unreadable(ValueError):
    """A payload does not fit the class of its event; the text says where.

    Attributes:
        fields: Those that do not fit, as far as that is known.
    """

    def __init__(self, reason: str, fields: Set[str] = frozenset()) -> None:
        self.fields = fields
        super().__init__(reason)


# --- the rule ----------------------------------------------------------------------------------------------


def pack_payload(event: DomainEvent) -> bytes:
    """The payload of ``event`` as msgpack; read back it gives an equal event of equal types.

    Raises:
        EventNotSerializable: It would not, or something in it cannot be written.
    """
    try:
        proven = event._proven_payload
    except AttributeError:
        if not is_exact(event):
            return _prove(event)[0]
    else:
        if proven:
            return proven
    fields = _fields(event)
    try:
        try:
            return _pack_native(fields)
        except TypeError:  # it has a value that msgpack does not know, such as a Decimal
            packed: bytes = msgpack.packb(fields, datetime=True, default=_plain)
            return packed
    except Exception:  # noqa: BLE001 - an integer beyond 64 bits; any other reason the proof will name
        return _prove(event)[0]


_pack_native: Callable[[object], bytes] = msgpack.Packer(datetime=True).pack
"""A packer that is kept: to make one takes longer than to pack an event. It runs no code but msgpack's own."""


def as_recorded(event: E) -> E:
    """``event`` as a fresh process reads it: itself, if nothing in it can change, else a copy of its own.

    Raises:
        EventNotSerializable: As for `pack_payload`.
    """
    return event if is_exact(event) else own_copy(event)


_EXACT = b""
"""Stands for the payload of an event that needed no proof."""


def mark_exact(event: DomainEvent) -> bool:
    """As `is_exact`, and have `pack_payload` know it of this very event."""
    exactly = event.__class__._exactly
    if not (is_exact(event) if exactly is None else exactly(event.__dict__)):
        return False
    _set(event, "_proven_payload", _EXACT)
    return True


def own_copy(event: E) -> E:
    """A copy of ``event`` as a fresh process reads it; no change of one shows in the other.

    Raises:
        EventNotSerializable: As for `pack_payload`.
    """
    payload = getattr(event, "_proven_payload", None)
    if payload:
        copy = _read_back(event, payload)
    else:
        payload, copy = _prove(event)
    _set(copy, "__pydantic_fields_set__", event.__pydantic_fields_set__)
    _set(copy, "_proven_payload", payload)
    return copy


def unshared(event: E) -> E:
    """``event`` for one of several that get it: a deep copy, if anything in it can change and it can be copied."""
    if is_exact(event):
        return event
    try:
        return event.model_copy(deep=True)
    except Exception:  # noqa: BLE001 - whatever a value does when it is copied; it is not to be recorded
        return event


def is_exact(event: DomainEvent) -> bool:
    """Whether nothing in the payload of ``event`` can change, and all of it reads back as it is."""
    kind = event.__class__
    exactly = kind._exactly
    if exactly is None:
        exactly = kind._exactly = _exact_fields(kind, _payload_names(kind)) or _never
    return exactly(event.__dict__)


def _never(_: dict[str, Any]) -> bool:
    return False


def _prove(event: E) -> tuple[bytes, E]:
    """The payload of ``event``, and the event that is read from it.

    A field that is to blame for a failure is written with tags the next time. If all that are to blame are, the rest
    is: a failure does not always name its field.

    Raises:
        EventNotSerializable: It is another event.
    """
    fields = _written(event)
    values = event.__dict__ | (event.model_extra or {})
    by_tags: Payload = {}
    reasons: dict[str, str] = {}
    try:
        while True:
            payload, found, failed = _attempt(event, fields, by_tags)
            if not failed:
                return payload, found
            reasons = failed | reasons  # what was first said of a field, before it had tags, says more
            rest = fields.keys() & values.keys() - by_tags.keys()
            for name in (failed.keys() & rest) or rest:
                try:
                    by_tags[name] = with_tags(values[name], classes_of(type(event)))
                except Exception as error:  # noqa: BLE001 - whatever the value does when it is looked at
                    failed, rest = {name: f"{name}: {describe(error)}"}, set()
                    reasons = failed | reasons
            if not rest:
                raise EventNotSerializable(event.event_type, reasons[next(iter(failed))])
    except _NotRecordable as error:
        raise EventNotSerializable(event.event_type, str(error)) from error


def _attempt(event: E, fields: Payload, by_tags: Payload) -> tuple[bytes, E, dict[str, str]]:
    """Write ``event`` and read it back; if that fails, the reason by field, or by no name if no field is to blame."""
    payload = b""
    try:
        payload = msgpack.packb(fields | by_tags, default=_with_offset)
        found = _read_back(event, payload)
    except _NotRecordable:
        raise
    except Exception as error:  # noqa: BLE001 - a serializer or a validator of the class may raise anything
        untagged = {name: value for name, value in fields.items() if name not in by_tags}
        return payload, event, _blamed(error, untagged) or {"": describe(error)}
    return payload, found, _differences(event, found)


def _blamed(error: Exception, untagged: Payload) -> dict[str, str]:
    """The fields to blame for ``error``, each with the reason."""
    if isinstance(error, Unreadable):
        return dict.fromkeys(error.fields or untagged, str(error))
    unwritable = {name: reason for name, value in untagged.items() if (reason := _unwritable(value))}
    if unwritable:
        return {name: f"{name}: {reason}" for name, reason in unwritable.items()}
    return dict.fromkeys(untagged, f"{', '.join(untagged)}: {describe(error)}")


def _unwritable(value: object) -> str:
    """Why ``value`` cannot be written without tags; empty if it can."""
    try:
        msgpack.packb(value, default=_with_offset)
    except _NotRecordable:
        raise
    except Exception as error:  # noqa: BLE001 - whatever a serializer raises
        return describe(error)
    return ""


def _read_back(event: E, payload: bytes) -> E:
    fields = unpack_fields(payload, tags_of(type(event)))
    fields |= {name: event.__dict__[name] for name in METADATA}
    return read_fields(type(event), fields)


def _differences(event: DomainEvent, found: DomainEvent) -> dict[str, str]:
    """What each field of ``event`` that was not read back as it is was read as."""
    values, others = _contents(event), _contents(found)
    changed = {
        name: difference(name, values.get(name), others.get(name))
        for name in {**values, **others}
        if name not in METADATA
    }
    return {name: text for name, text in changed.items() if text}


def _contents(event: DomainEvent) -> dict[str, object]:
    fields = {name: event.__dict__[name] for name in type(event).model_fields if name in event.__dict__}
    return fields | (event.model_extra or {}) | (event.__pydantic_private__ or {})


# --- writing -----------------------------------------------------------------------------------------------


class _NotRecordable(TypeError):
    """What must not be recorded, in no form."""


def _written(event: DomainEvent) -> Payload:
    """The fields of ``event`` as they are to be written, by the class's own serializers if it has any.

    Raises:
        EventNotSerializable: A serializer has failed, or leaves something out.
    """
    event_type = type(event)
    if not _has_serializers(event_type):
        return _fields(event)
    try:
        _check_is_whole(event_type)
        return event.model_dump(exclude=set(METADATA), by_alias=False, round_trip=True)
    except Exception as error:  # whatever a field's own serializer raises belongs to the event
        raise EventNotSerializable(event.event_type, describe(error)) from error


def _fields(event: DomainEvent) -> Payload:
    values = event.__dict__  # by name, for cached properties are in it too
    payload = {name: values[name] for name in _payload_names(type(event))}
    extra = event.__pydantic_extra__
    return payload if extra is None else payload | extra


@lru_cache(maxsize=1024)
def _payload_names(event_type: type[DomainEvent]) -> tuple[str, ...]:
    return tuple(name for name in event_type.model_fields if name not in METADATA)


@lru_cache(maxsize=1024)
def _has_serializers(event_type: type[DomainEvent]) -> bool:
    decorators = event_type.__pydantic_decorators__
    return bool(decorators.field_serializers or decorators.model_serializers)


@lru_cache(maxsize=1024)
def _check_is_whole(model: type[BaseModel]) -> None:
    """Refuse to record a model of which pydantic leaves something out."""
    if lost := [name for name, field in model.model_fields.items() if field.exclude]:
        raise _NotRecordable(
            f"{model.__name__} has exclude=True for {', '.join(lost)}, which would not be recorded; leave that away"
        )


def _plain(value: object) -> object:
    """What msgpack cannot write, in the form from which pydantic reads it back."""
    if isinstance(value, BaseModel):
        _check_is_whole(type(value))
        return value.model_dump(by_alias=False, round_trip=True)
    if isinstance(value, (set, frozenset, deque)):
        return list(value)
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {field.name: getattr(value, field.name) for field in dataclasses.fields(value)}
    if isinstance(value, datetime):  # naive, for msgpack writes aware ones itself
        return value.isoformat()
    if hasattr(value, "get_secret_value"):
        raise _NotRecordable("a secret would be recorded as asterisks; record a reference to it instead")
    return to_jsonable_python(value)


def _with_offset(value: object) -> object:
    """As `_plain`; times in UTC are instants, all others keep their offset."""
    if isinstance(value, datetime):
        if value.tzinfo is UTC:
            return msgpack.Timestamp.from_datetime(value)
        return at_offset(value).isoformat()
    return _plain(value)


# --- reading -----------------------------------------------------------------------------------------------


@lru_cache(maxsize=1024)
def classes_of(event_type: type[DomainEvent]) -> Classes:
    """The enums, dataclasses, named tuples and models in the annotations of the payload, by name."""
    return classes_in(*(event_type.model_fields[name].annotation for name in _payload_names(event_type)))


@lru_cache(maxsize=1024)
def tags_of(event_type: type[DomainEvent]) -> TagReader:
    """Reads the tagged values of an event type."""
    return tag_reader(classes_of(event_type))


def unpack_fields(payload: bytes, tags: TagReader) -> Payload:
    """The fields in ``payload``.

    Args:
        payload: What `pack_payload` returned, now or years ago.
        tags: Reads its tagged values.

    Raises:
        UnknownClass: ``tags`` does not know the class of a value.
        Exception: The bytes are damaged.
    """
    try:
        fields = msgpack.unpackb(payload, timestamp=3, strict_map_key=False, ext_hook=tags)
    except TypeError:  # lists cannot be keys: the tuples that were are wanted back
        fields = msgpack.unpackb(payload, timestamp=3, strict_map_key=False, use_list=False, ext_hook=tags)
    if not isinstance(fields, dict):
        raise TypeError(f"{type(fields).__name__}, not a map")
    return fields


def read_fields(event_type: type[E], fields: Payload) -> E:
    """The event of ``fields``, metadata included.

    What was recorded is not judged again: where today's constraints or validators would refuse a recorded
    value, it is taken as it was written. (``model_post_init`` is no rule: pydantic runs it for every instance.)

    Raises:
        Unreadable: It is not the rules: the types do not fit.
    """
    try:
        return event_type.model_validate(fields, by_name=True)
    except Exception as judgement:  # noqa: BLE001 - a validator may raise anything
        try:
            return _unjudged(event_type, fields)
        except ValueError as misfit:
            if not isinstance(judgement, ValidationError):
                raise Unreadable(describe(misfit)) from judgement
            errors = judgement.errors(include_url=False, include_input=False)
            reason = "; ".join(f"{'.'.join(map(str, e['loc']))}: {e['msg']}" for e in errors)
            fields_of = frozenset(str(e["loc"][0]) for e in errors if e["loc"])
            raise Unreadable(reason, fields_of) from judgement


def _unjudged(model: type[M], fields: object) -> M:
    """Build a model whose recorded values today's rules would refuse, converting by bare types only.

    Raises:
        ValueError: The values do not fit the bare types.
    """
    if isinstance(fields, model):
        return fields
    if not isinstance(fields, Mapping):
        raise ValueError(f"no fields of {model.__name__}")  # noqa: TRY004 - pydantic takes ValueError alone
    values: Payload = {}
    for name, field in model.model_fields.items():
        if name in fields:
            values[name] = _bare(model, name).validate_python(fields[name])
        elif field.is_required():
            raise ValueError(f"{name} is missing")
        else:
            values[name] = field.get_default(call_default_factory=True, validated_data=values)
    others = {name: fields[name] for name in fields if name not in values}
    extra = model.model_config.get("extra")
    if others and extra == "forbid":
        raise ValueError(f"{model.__name__} has no {', '.join(map(str, others))}")
    return model.model_construct(**values, **(others if extra == "allow" else {}))


@lru_cache(maxsize=4096)
def _bare(model: type[BaseModel], name: str) -> TypeAdapter[Any]:
    """A validator of the field's type that converts and does not judge."""
    return TypeAdapter(_bare_type(model.model_fields[name].annotation))


def _bare_type(annotation: Any) -> Any:
    """The type less the constraints and validators in it, those of the models that it holds included."""
    origin, args = get_origin(annotation), get_args(annotation)
    if origin is Annotated:
        return _bare_type(args[0])
    if origin in (Union, UnionType):
        return Union[tuple(map(_bare_type, args))]  # noqa: UP007 - built at run time
    if isinstance(origin, type) and issubclass(origin, Collection):
        return origin[tuple(arg if arg is ... else _bare_type(arg) for arg in args)]  # type: ignore[index]
    if not (isinstance(annotation, type) and issubclass(annotation, BaseModel)):
        return annotation
    if issubclass(annotation, RootModel):
        return annotation  # its value is no map of fields
    return Annotated[Any, PlainValidator(partial(_unjudged, annotation))]


# --- values that need no proof -----------------------------------------------------------------------------

_OF_METADATA = frozenset(DomainEvent.__pydantic_decorators__.field_validators)

_NATIVE = frozenset({NoneType, bool, int, float, str, bytes})
"""What msgpack tells apart by itself."""

_JUDGEMENTS = (annotated_types.BaseMetadata, StringConstraints)
"""Metadata of an annotation that refuses values and does not make others of them a second time."""


def _exact_fields(
    model: type[BaseModel], names: Iterable[str], holders: tuple[type[BaseModel], ...] = ()
) -> Callable[[dict[str, Any]], bool] | None:
    """A check of an instance's ``__dict__``; ``None`` if every instance of ``model`` needs the proof."""
    if not _is_bare(model):
        return None
    kinds: dict[str, frozenset[type]] = {}
    checks: list[tuple[str, Exact]] = []
    for name in names:
        field = model.model_fields[name]
        if field.exclude or not all(map(_only_judges, field.metadata)):
            return None
        if native := _native_types(field.annotation):
            kinds[name] = native
        elif (check := _exactly(field.annotation, (*holders, model))) is None or _is_strict(field.metadata):
            return None
        else:
            checks.append((name, check))
    natives = tuple(kinds.items())

    def are_exact(values: dict[str, Any]) -> bool:
        for name, among in natives:
            if type(values[name]) not in among:
                return False
        return all(check(values[name]) for name, check in checks) if checks else True

    return are_exact


_CODE = frozenset({"__init__", "__new__", "__get_pydantic_core_schema__", "model_post_init"})
"""What pydantic runs when it reads an instance, if the class has it."""


def _is_bare(model: type[BaseModel]) -> bool:
    """Whether an instance is nothing but its frozen fields, and reading it runs no code of the class."""
    decorators, config = model.__pydantic_decorators__, model.model_config
    validators = {name: one for name, one in decorators.field_validators.items() if name not in _OF_METADATA}
    return (
        bool(config.get("frozen"))
        and config.get("extra") != "allow"
        and not (config.get("use_enum_values") or config.get("strict"))
        and not (
            validators or decorators.validators or decorators.root_validators or decorators.model_validators
        )
        and not (decorators.field_serializers or decorators.model_serializers)
        and not model.__private_attributes__
        and _CODE.isdisjoint(name for base in _bases(model) for name in vars(base))
    )


def _bases(model: type[BaseModel]) -> tuple[type, ...]:
    """The classes of users among the bases of ``model``, itself included."""
    return model.__mro__[: model.__mro__.index(BaseModel)]


def _only_judges(metadata: object) -> bool:
    if isinstance(metadata, FieldInfo):  # Annotated[int, Field(gt=0)] inside of another type
        return metadata.discriminator is None and all(map(_only_judges, metadata.metadata))
    return isinstance(metadata, _JUDGEMENTS) or type(metadata).__name__ == "PydanticGeneralMetadata"


def _is_strict(metadata: Iterable[object]) -> bool:
    """Whether a value must be of the very type when it is read, or a union goes by another order."""
    return any(
        getattr(one, "strict", None) is not None or getattr(one, "union_mode", None) is not None
        for one in metadata
    )


def _native_types(annotation: Any) -> frozenset[type] | None:
    """The types that values of ``annotation`` may have, if msgpack tells them all apart; else ``None``."""
    annotation = _aliased(annotation)
    if annotation is Any or annotation is object:
        return _NATIVE
    if annotation is None:
        return frozenset({NoneType})
    origin, args = get_origin(annotation), get_args(annotation)
    if origin is Annotated:
        return _native_types(args[0]) if all(map(_only_judges, args[1:])) else None
    if origin in (Union, UnionType):
        found = [_native_types(arg) for arg in args]
        return frozenset[type]().union(*found) if all(found) else None  # type: ignore[arg-type]
    if origin is Literal:
        types = frozenset(map(type, args))
        return types if len(types) == 1 and types <= {str, int} else None
    return frozenset({annotation}) if annotation in _NATIVE else None


def _aliased(annotation: Any) -> Any:
    """What a ``type`` alias or a ``NewType`` stands for."""
    while (
        other := getattr(annotation, "__value__", None) or getattr(annotation, "__supertype__", None)
    ) is not None:
        annotation = other
    return annotation


def _exactly(annotation: Any, holders: tuple[type[BaseModel], ...]) -> Exact | None:
    """The check of values of ``annotation``; ``None`` if they all need the proof."""
    native = _native_types(annotation)
    if native is not None:
        return lambda value: type(value) in native
    annotation = _aliased(annotation)
    origin, args = get_origin(annotation), get_args(annotation)
    if origin is None:
        return _exactly_class(annotation, holders)
    if origin is Annotated and all(map(_only_judges, args[1:])) and not _is_strict(args[1:]):
        return _exactly(args[0], holders)
    if origin in (Union, UnionType):
        return _exactly_or_none(args, holders)
    return _exactly_tuple(args, holders) if origin is tuple else None


def _exactly_class(kind: Any, holders: tuple[type[BaseModel], ...]) -> Exact | None:
    scalar = _EXACT_SCALARS.get(kind)
    if scalar is not None or not isinstance(kind, type):
        return scalar
    if issubclass(kind, Enum):
        return _exactly_enum(kind)
    if issubclass(kind, BaseModel) and not issubclass(kind, RootModel):
        return _exactly_model(kind, holders)
    return None


def _exactly_or_none(args: tuple[Any, ...], holders: tuple[type[BaseModel], ...]) -> Exact | None:
    others = [arg for arg in args if arg is not NoneType]
    check = _exactly(others[0], holders) if len(others) == 1 else None
    return check and (lambda value: value is None or check(value))


def _exactly_tuple(args: tuple[Any, ...], holders: tuple[type[BaseModel], ...]) -> Exact | None:
    if len(args) == 2 and args[1] is ...:
        check = _exactly(args[0], holders)
        return check and (lambda value: type(value) is tuple and all(map(check, value)))
    checks = [_exactly(arg, holders) for arg in args]
    if not args or None in checks:
        return None
    return lambda value: (
        type(value) is tuple
        and len(value) == len(checks)
        and all(check(item) for check, item in zip(checks, value, strict=True))  # type: ignore[misc]
    )


def _exactly_enum(kind: type[Enum]) -> Exact | None:
    """Its members are few: each is tried."""
    if not {type(member.value) for member in kind} <= {str, int}:
        return None
    reader = TypeAdapter(kind)
    for member in kind:
        try:
            if reader.validate_python(member.value) is not member:
                return None
        except ValueError:
            return None
    members = frozenset(map(id, kind))
    return lambda value: type(value) is kind and id(value) in members


def _exactly_model(model: type[BaseModel], holders: tuple[type[BaseModel], ...]) -> Exact | None:
    if model in holders:
        return None  # it holds others of its kind
    check = _exact_fields(model, model.model_fields, holders)
    if check is None:
        return None
    return lambda value: type(value) is model and check(value.__dict__)


def _is_moment(value: Any) -> bool:
    return type(value) is datetime and (value.tzinfo is UTC or value.tzinfo is None) and not value.fold


_EXACT_SCALARS: dict[Any, Exact] = {
    Decimal: lambda value: type(value) is Decimal and value.is_finite(),
    UUID: lambda value: type(value) is UUID,
    date: lambda value: type(value) is date,
    datetime: _is_moment,
    AwareDatetime: lambda value: type(value) is datetime and value.tzinfo is UTC and not value.fold,
    NaiveDatetime: lambda value: type(value) is datetime and value.tzinfo is None and not value.fold,
    time: lambda value: type(value) is time and value.tzinfo is None and not value.fold,
    timedelta: lambda value: type(value) is timedelta,
}
