"""Writing payloads: the fields of an event in the forms from which pydantic reads them back."""

import dataclasses
from collections import deque
from datetime import UTC, datetime
from functools import lru_cache

import msgpack
from pydantic import BaseModel
from pydantic_core import to_jsonable_python

from uno_actors.domain.events import METADATA, DomainEvent, Payload
from uno_actors.domain.values import at_offset
from uno_actors.errors import EventNotSerializable, describe


class NotRecordable(TypeError):
    """A value that must not be recorded in any form."""


def written_fields(event: DomainEvent) -> Payload:
    """The fields of ``event`` to be written, from the class's own serializers if it has any.

    Raises:
        EventNotSerializable: A serializer has failed, or the class leaves a field out.
    """
    event_type = type(event)
    if not _has_serializers(event_type):
        return native_fields(event)
    try:
        _check_is_whole(event_type)
        return event.model_dump(exclude=set(METADATA), by_alias=False, round_trip=True)
    except Exception as error:  # a field's own serializer may raise anything
        raise EventNotSerializable(event.event_type, describe(error)) from error


def native_fields(event: DomainEvent) -> Payload:
    """The values of the payload of ``event`` by field, extra ones included."""
    values = event.__dict__  # read by name: it holds cached properties too
    payload = {name: values[name] for name in payload_names(type(event))}
    extra = event.__pydantic_extra__
    return payload if extra is None else payload | extra


@lru_cache(maxsize=1024)
def payload_names(event_type: type[DomainEvent]) -> tuple[str, ...]:
    """The declared fields of the payload."""
    return tuple(name for name in event_type.model_fields if name not in METADATA)


@lru_cache(maxsize=1024)
def _has_serializers(event_type: type[DomainEvent]) -> bool:
    decorators = event_type.__pydantic_decorators__
    return bool(decorators.field_serializers or decorators.model_serializers)


@lru_cache(maxsize=1024)
def _check_is_whole(model: type[BaseModel]) -> None:
    """Refuse to record a model that pydantic writes without some of its fields."""
    if lost := [name for name, field in model.model_fields.items() if field.exclude]:
        raise NotRecordable(
            f"{model.__name__} has exclude=True for {', '.join(lost)}, which would not be recorded; remove it"
        )


def plain(value: object) -> object:
    """A value that msgpack cannot write, in the form from which pydantic reads it back."""
    if isinstance(value, BaseModel):
        _check_is_whole(type(value))
        return value.model_dump(by_alias=False, round_trip=True)
    if isinstance(value, (set, frozenset, deque)):
        return list(value)
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {field.name: getattr(value, field.name) for field in dataclasses.fields(value)}
    if isinstance(value, datetime):  # a naive one; msgpack writes aware ones itself
        return value.isoformat()
    if hasattr(value, "get_secret_value"):
        raise NotRecordable("a secret would be recorded as asterisks; record a reference to it instead")
    return to_jsonable_python(value)


def with_offset(value: object) -> object:
    """As `plain`, except that a time in UTC is an instant and any other time keeps its offset."""
    if isinstance(value, datetime):
        if value.tzinfo is UTC:
            return msgpack.Timestamp.from_datetime(value)
        return at_offset(value).isoformat()
    return plain(value)
