"""The proof: a message is written, read and compared, and fields that plain msgpack does not carry get tags."""

from typing import TypeVar

import msgpack
from pydantic import BaseModel

from uno_actors.domain.events import Payload
from uno_actors.domain.payload_reader import Unreadable, classes_of, read_fields, tags_of, unpack_fields
from uno_actors.domain.payload_writer import (
    Message,
    NotRecordable,
    metadata_of,
    not_writable,
    with_offset,
    written_fields,
)
from uno_actors.domain.values import (
    difference,
    with_tags,
)
from uno_actors.errors import describe

E = TypeVar("E", bound=Message)


def prove(event: E) -> tuple[bytes, E]:
    """The payload of ``event``, and the event that is read from it.

    A field that is to blame for a failure is written with tags in the next attempt. If those fields have tags already,
    all other fields get them too, because a failure does not always name the right field.

    Raises:
        EventNotSerializable, InvalidCommand: The event or command that is read differs from ``event``.
    """
    fields = written_fields(event)
    kind: type[BaseModel] = type(event)
    values = event.__dict__ | (event.model_extra or {})
    by_tags: Payload = {}
    reasons: dict[str, str] = {}
    try:
        while True:
            payload, found, failed = _attempt(event, fields, by_tags)
            if not failed:
                return payload, found
            reasons = failed | reasons  # the first reason, from before the field had tags, is clearer
            rest = fields.keys() & values.keys() - by_tags.keys()
            for name in (failed.keys() & rest) or rest:
                try:
                    by_tags[name] = with_tags(values[name], classes_of(kind))
                except Exception as error:  # noqa: BLE001 - a value's own code may raise anything
                    failed, rest = {name: f"{name}: {describe(error)}"}, set()
                    reasons = failed | reasons
            if not rest:
                raise not_writable(event, reasons[next(iter(failed))])
    except NotRecordable as error:
        raise not_writable(event, str(error)) from error


def _attempt(event: E, fields: Payload, by_tags: Payload) -> tuple[bytes, E, dict[str, str]]:
    """Write ``event`` and read it back; return the reasons for a failure by field, under "" if no field is to blame."""
    payload = b""
    try:
        payload = msgpack.packb(fields | by_tags, default=with_offset)
        found = read_back(event, payload)
    except NotRecordable:
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
        msgpack.packb(value, default=with_offset)
    except NotRecordable:
        raise
    except Exception as error:  # noqa: BLE001 - a serializer may raise anything
        return describe(error)
    return ""


def read_back(event: E, payload: bytes) -> E:
    """The event that a fresh process reads from ``payload`` and the metadata of ``event``."""
    kind: type[BaseModel] = type(event)
    fields = unpack_fields(payload, tags_of(kind))
    fields |= {name: event.__dict__[name] for name in metadata_of(kind)}
    return read_fields(type(event), fields)


def _differences(event: Message, found: Message) -> dict[str, str]:
    """For each field of ``event`` that was read back as a different value: both values, as text."""
    values, others = _contents(event), _contents(found)
    metadata = metadata_of(type(event))
    changed = {
        name: difference(name, values.get(name), others.get(name))
        for name in {**values, **others}
        if name not in metadata
    }
    return {name: text for name, text in changed.items() if text}


def _contents(event: Message) -> dict[str, object]:
    fields = {name: event.__dict__[name] for name in type(event).model_fields if name in event.__dict__}
    return fields | (event.model_extra or {}) | (event.__pydantic_private__ or {})
