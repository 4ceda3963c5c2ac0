"""Events as bytes, and back.

A record is a msgpack array: thirteen header fields, then the payload as one binary field. A reader that only
routes or counts never decodes the payload. No pickle, no class path: the names of types and fields are the
stored schema.
"""

from collections.abc import Collection, Mapping
from datetime import datetime
from functools import lru_cache, partial
from types import UnionType
from typing import Annotated, Any, NamedTuple, TypeVar, Union, get_args, get_origin

import msgpack
from pydantic import BaseModel, PlainValidator, RootModel, TypeAdapter, ValidationError
from pydantic_core import to_jsonable_python

from uno_actors.errors import CorruptRecord, EventNotReadable, EventNotSerializable, describe
from uno_actors.events import METADATA, DomainEvent, EventRegistry, Payload


class StreamId(NamedTuple):
    """The name of a stream: ``Account`` "alice" and ``User`` "alice" never meet."""

    aggregate_type: str
    aggregate_id: str

    def __str__(self) -> str:
        return f"{self.aggregate_type}<{self.aggregate_id}>"


class Record(NamedTuple):
    """An event as it is stored; the first fields are those of `DomainEvent`, ``payload`` is msgpack.

    The last event that a command recorded also holds what was replied, and so which command it was: the one
    named as its cause, or, if the event names another cause, ``command_id``.

    Commands are not recorded. So that a chain of causes does not end at one, the events that name a command as
    their cause also hold what caused that: ``command_causation_id``.
    """

    event_id: str
    event_type: str
    version: int
    aggregate_type: str | None
    aggregate_id: str | None
    aggregate_version: int | None
    topic: str | None
    timestamp: datetime
    correlation_id: str | None
    causation_id: str | None
    command_id: str | None
    reply: bytes | None
    command_causation_id: str | None
    payload: bytes

    @property
    def stream(self) -> StreamId | None:
        """The stream that the event belongs to; ``None`` if it stands in the log alone."""
        if self.aggregate_id is None:
            return None
        return StreamId(self.aggregate_type or "", self.aggregate_id)

    @property
    def answered(self) -> str | None:
        """The id of the command whose last event this is; ``None`` if it is no command's."""
        if self.reply is None:
            return None
        return self.causation_id if self.command_id is None else self.command_id


def to_record(
    event: DomainEvent,
    command_id: str | None = None,
    reply: bytes | None = None,
    command_causation_id: str | None = None,
) -> Record:
    """Encode ``event``.

    Args:
        event: Of any type.
        command_id: The command whose last event it is.
        reply: What was replied to it, as `command_memory.pack_reply` writes it.
        command_causation_id: What caused the command that is the event's cause.

    Raises:
        EventNotSerializable: Its payload holds something that neither msgpack nor pydantic can write.
    """
    try:
        payload = msgpack.packb(_payload(event), datetime=True, default=_plain)
    except Exception as error:  # whatever a field's own serializer raises belongs to the event
        raise EventNotSerializable(event.event_type, f"{type(error).__name__}: {error}") from error
    return Record(
        event.event_id,
        event.event_type,
        event.version,
        event.aggregate_type,
        event.aggregate_id,
        event.aggregate_version,
        event.topic,
        event.timestamp,
        event.correlation_id,
        event.causation_id,
        None if command_id == event.causation_id else command_id,
        reply,
        command_causation_id,
        payload,
    )


def to_event(record: Record, registry: EventRegistry) -> DomainEvent:
    """Decode ``record`` into today's class of its type, through the registered upcasts.

    What was recorded is not judged again: where today's constraints or validators would refuse a recorded
    value, it is taken as it was written. (``model_post_init`` is no rule: pydantic runs it for every instance.)

    Raises:
        CorruptRecord: The payload is no map of fields.
        UnknownEventType: The registry has no class for it.
        AmbiguousEventType: It has several.
        EventNotReadable: The payload does not fit the class, or an upcast is missing.
    """
    event_type = registry.resolve(record.event_type)
    current = event_type.schema_version()
    fields = read_payload(record)
    if record.version != current:
        fields = registry.upcast(record.event_type, record.version, current, fields)
    fields |= zip(_HEADER, record, strict=False)
    fields["version"] = current
    try:
        return event_type.model_validate(fields, by_name=True)
    except Exception as judgement:  # noqa: BLE001 - a validator may raise anything
        try:
            return _unjudged(event_type, fields)
        except ValueError as misfit:  # it is not the rules: the types do not fit
            reason = describe(misfit)
            if isinstance(judgement, ValidationError):
                reason = "; ".join(f"{'.'.join(map(str, e['loc']))}: {e['msg']}" for e in judgement.errors())
            remedy = f"{reason}. Raise the class's version and register an upcast for the old payload"
            raise EventNotReadable(record.event_type, record.version, current, remedy) from judgement


def pack(record: Record) -> bytes:
    """The bytes of ``record``.

    Raises:
        EventNotSerializable: A header field holds something else than its type says.
    """
    try:
        packed: bytes = msgpack.packb(record, datetime=True, default=_instant)
    except (TypeError, ValueError, OverflowError) as error:
        raise EventNotSerializable(record.event_type, f"{type(error).__name__}: {error}") from error
    return packed


def unpack(data: bytes, where: str) -> Record:
    """Read a record back.

    Args:
        data: What `pack` returned.
        where: Named in the error.

    Raises:
        CorruptRecord: The bytes are no record.
    """
    try:
        record = Record._make(msgpack.unpackb(data, timestamp=3))
    except Exception as error:  # damaged bytes fail in many ways
        raise CorruptRecord(where, f"{type(error).__name__}: {error}") from error
    if not _are_kinds(tuple(map(type, record))):
        raise CorruptRecord(where, "a header field is of another type")
    return record


_HEADER = tuple(name for name in Record._fields if name in METADATA)
_KINDS = [get_args(kind) or (kind,) for kind in Record.__annotations__.values()]


@lru_cache(maxsize=256)
def _are_kinds(types: tuple[type, ...]) -> bool:
    return all(found in kind for found, kind in zip(types, _KINDS, strict=True))


def _instant(value: object) -> object:
    """The subclasses of ``datetime`` that libraries for dates and for tests bring along."""
    if isinstance(value, datetime):
        return msgpack.Timestamp.from_datetime(value)
    raise TypeError(f"a header field is {value!r}")


def read_payload(record: Record) -> Payload:
    """The payload of ``record`` as it was recorded, without the class of its event.

    Raises:
        CorruptRecord: It is no map of fields.
    """
    try:
        try:
            fields = msgpack.unpackb(record.payload, timestamp=3, strict_map_key=False)
        except TypeError:  # lists cannot be keys: the tuples that were are wanted back
            fields = msgpack.unpackb(record.payload, timestamp=3, strict_map_key=False, use_list=False)
    except Exception as error:  # damaged bytes fail in many ways
        raise CorruptRecord(f"event {record.event_id}", f"payload: {error}") from error
    if not isinstance(fields, dict):
        raise CorruptRecord(f"event {record.event_id}", f"payload: {type(fields).__name__}, not a map")
    return fields


def _payload(event: DomainEvent) -> Payload:
    event_type = type(event)
    if _has_serializers(event_type):
        _check_is_whole(event_type)
        return event.model_dump(exclude=set(METADATA), by_alias=False, round_trip=True)
    values = event.__dict__  # by name, for cached properties are in it too
    payload = {name: values[name] for name in _payload_names(event_type)}
    return payload if event.model_extra is None else payload | event.model_extra


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
        raise TypeError(
            f"{model.__name__} has exclude=True for {', '.join(lost)}, which would not be recorded; leave that away"
        )


def _plain(value: object) -> object:
    """What msgpack cannot write, in the form from which pydantic reads it back."""
    if isinstance(value, BaseModel):
        _check_is_whole(type(value))
        return value.model_dump(by_alias=False, round_trip=True)
    if isinstance(value, (set, frozenset)):
        return list(value)
    if isinstance(value, datetime):  # naive, for msgpack writes aware ones itself
        return value.isoformat()
    if hasattr(value, "get_secret_value"):
        raise TypeError("a secret would be recorded as asterisks; record a reference to it instead")
    return to_jsonable_python(value)


M = TypeVar("M", bound=BaseModel)


def _unjudged(model: type[M], fields: object) -> M:
    """Build a model whose recorded values today's rules would refuse, converting by bare types only.

    Raises:
        ValueError: The values do not fit the bare types.
    """
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
