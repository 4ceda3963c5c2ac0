"""Writing payloads: the fields of an event or a command in the forms from which pydantic reads them back."""

import dataclasses
from collections import deque
from collections.abc import Set
from datetime import UTC, datetime
from functools import lru_cache
from typing import Any

import msgpack
from pydantic import BaseModel
from pydantic_core import to_jsonable_python

from uno_actors.domain.commands import Command
from uno_actors.domain.events import METADATA, DomainEvent, Payload
from uno_actors.domain.values import at_offset
from uno_actors.errors import EventNotSerializable, InvalidCommand, describe


class NotRecordable(TypeError):
    """A value that must not be recorded in any form."""


Message = DomainEvent | Command[Any]
"""What has a payload."""
IDS = frozenset(Command.model_fields)
"""The fields of a command that are not part of its payload."""


def metadata_of(message_type: type[BaseModel]) -> Set[str]:
    """The fields that are not part of the payload."""
    return IDS if issubclass(message_type, Command) else METADATA


def not_writable(message: Message, reason: str) -> EventNotSerializable | InvalidCommand:
    """The error for a payload that cannot be written."""
    if isinstance(message, Command):
        return InvalidCommand(type(message).__name__, reason)
    return EventNotSerializable(message.event_type, reason)


def written_fields(event: Message) -> Payload:
    """The fields of ``event`` to be written, from the class's own serializers if it has any.

    Raises:
        EventNotSerializable, InvalidCommand: A serializer has failed, or the class leaves a field out.
    """
    event_type = type(event)
    if not _has_serializers(event_type):
        return native_fields(event)
    try:
        _check_is_whole(event_type)
        return event.model_dump(exclude=set(metadata_of(event_type)), by_alias=False, round_trip=True)
    except Exception as error:  # a field's own serializer may raise anything
        raise not_writable(event, describe(error)) from error


def native_fields(event: Message) -> Payload:
    """The values of the payload of ``event`` by field, extra ones included."""
    values = event.__dict__  # read by name: it holds cached properties too
    payload = {name: values[name] for name in payload_names(type(event))}
    extra = event.__pydantic_extra__
    return payload if extra is None else payload | extra


@lru_cache(maxsize=1024)
def payload_names(event_type: type[BaseModel]) -> tuple[str, ...]:
    """The declared fields of the payload."""
    metadata = metadata_of(event_type)
    return tuple(name for name in event_type.model_fields if name not in metadata)


@lru_cache(maxsize=1024)
def _has_serializers(event_type: type[BaseModel]) -> bool:
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
