"""Events as bytes, and back.

A record is a msgpack array: ten header fields, then the payload as one binary field. A reader that only
routes or counts never decodes the payload. No pickle, no class path: the names of types and fields are the
stored schema.
"""

from collections.abc import Mapping
from datetime import datetime
from functools import lru_cache
from typing import Any, NamedTuple

import msgpack
from pydantic import BaseModel, TypeAdapter, ValidationError
from pydantic_core import to_jsonable_python

from uno_actors.errors import CorruptRecord, EventNotReadable, EventNotSerializable
from uno_actors.events import METADATA, DomainEvent, EventRegistry, Payload


class StreamId(NamedTuple):
    """The name of a stream: ``Account`` "alice" and ``User`` "alice" never meet."""

    aggregate_type: str
    aggregate_id: str

    def __str__(self) -> str:
        return f"{self.aggregate_type}<{self.aggregate_id}>"


class Record(NamedTuple):
    """An event as it is stored; the fields are those of `DomainEvent`, ``payload`` is msgpack."""

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
    payload: bytes

    @property
    def stream(self) -> StreamId | None:
        """The stream that the event belongs to; ``None`` if it stands in the log alone."""
        if self.aggregate_id is None:
            return None
        return StreamId(self.aggregate_type or "", self.aggregate_id)


def to_record(event: DomainEvent) -> Record:
    """Encode ``event``.

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
        payload,
    )


def to_event(record: Record, registry: EventRegistry) -> DomainEvent:
    """Decode ``record`` into today's class of its type, through the registered upcasts.

    What was recorded is not judged again: where today's constraints or validators would refuse a recorded
    value, it is taken as it was written.

    Raises:
        UnknownEventType: The registry has no class for it.
        AmbiguousEventType: It has several.
        EventNotReadable: The payload does not fit the class, or an upcast is missing.
    """
    event_type = registry.resolve(record.event_type)
    current = event_type.schema_version()
    try:
        fields: Payload = msgpack.unpackb(record.payload, timestamp=3, strict_map_key=False)
    except (ValueError, msgpack.UnpackException) as error:
        raise CorruptRecord(f"event {record.event_id}", f"payload: {error}") from error
    if record.version != current:
        fields = registry.upcast(record.event_type, record.version, current, fields)
    fields |= zip(_HEADER, record, strict=False)
    fields["version"] = current
    try:
        return event_type.model_validate(fields, by_name=True)
    except ValidationError as error:
        return _unjudged(event_type, record, fields, error)


def pack(record: Record) -> bytes:
    """The bytes of ``record``."""
    packed: bytes = msgpack.packb(record, datetime=True)
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
        return Record._make(msgpack.unpackb(data, timestamp=3))
    except Exception as error:  # damaged bytes fail in many ways
        raise CorruptRecord(where, f"{type(error).__name__}: {error}") from error


_HEADER = Record._fields[:-1]


def _payload(event: DomainEvent) -> Payload:
    if _has_serializers(type(event)):
        return event.model_dump(exclude=set(METADATA), by_alias=False)
    return {name: value for name, value in event.__dict__.items() if name not in METADATA}


@lru_cache(maxsize=1024)
def _has_serializers(event_type: type[DomainEvent]) -> bool:
    decorators = event_type.__pydantic_decorators__
    return bool(decorators.field_serializers or decorators.model_serializers)


def _plain(value: object) -> object:
    """What msgpack cannot write, in the form from which pydantic reads it back."""
    if isinstance(value, BaseModel):
        return value.model_dump()
    if isinstance(value, (set, frozenset)):
        return list(value)
    if isinstance(value, datetime):  # naive, for msgpack writes aware ones itself
        return value.isoformat()
    return to_jsonable_python(value)


def _unjudged(
    event_type: type[DomainEvent], record: Record, fields: Mapping[str, Any], judgement: ValidationError
) -> DomainEvent:
    """Build an event whose recorded values today's rules would refuse, converting by bare types only."""
    values: Payload = {}
    for name, field in event_type.model_fields.items():
        if name in fields:
            try:
                values[name] = _bare(event_type, name).validate_python(fields[name])
            except ValidationError:
                values = {}
                break
        elif field.is_required():
            break
        else:
            values[name] = field.get_default(call_default_factory=True, validated_data=values)
    if len(values) < len(event_type.model_fields) or fields.keys() - values.keys():
        reason = "; ".join(f"{'.'.join(map(str, e['loc']))}: {e['msg']}" for e in judgement.errors())
        remedy = f"{reason}. Raise the class's version and register an upcast for the old payload"
        raise EventNotReadable(record.event_type, record.version, event_type.schema_version(), remedy)
    return event_type.model_construct(**values)


@lru_cache(maxsize=4096)
def _bare(event_type: type[DomainEvent], name: str) -> TypeAdapter[Any]:
    """A validator of the field's bare type, less the constraints and validators that judge its value."""
    return TypeAdapter(event_type.model_fields[name].annotation)
