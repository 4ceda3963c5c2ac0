"""Events as bytes, and back.

A record is a msgpack array: thirteen header fields, then the payload as one binary field. A reader that only
routes or counts never decodes the payload. No pickle, no class path: the names of types and fields are the
stored schema. The payload is a msgpack map by field; values that plain msgpack does not carry have the extension
types of `uno_actors.domain.values`, and `uno_actors.domain.payloads` holds the rule that decides it.
"""

from collections.abc import Callable
from datetime import UTC, datetime
from functools import lru_cache
from typing import NamedTuple, get_args

import msgpack

from uno_actors.domain.events import METADATA, DomainEvent, EventRegistry, Payload
from uno_actors.domain.payload_reader import Unreadable, read_fields, tags_of, unpack_fields
from uno_actors.domain.payloads import pack_payload
from uno_actors.domain.values import TagReader, UnknownClass, tag_reader
from uno_actors.errors import CorruptRecord, EventNotReadable, EventNotSerializable


class StreamId(NamedTuple):
    """The name of a stream: ``Account`` "alice" and ``User`` "alice" are different streams."""

    aggregate_type: str
    aggregate_id: str

    def __str__(self) -> str:
        return f"{self.aggregate_type}<{self.aggregate_id}>"


class Record(NamedTuple):
    """An event as it is stored; the first fields are those of `DomainEvent`, ``payload`` is msgpack.

    The last event that a command recorded also holds the reply and a fingerprint of the command (see
    `recording.pack_answer`). The command is the one named as the event's cause, or, if the event names another cause,
    ``command_id``.

    Commands are not recorded. To keep chains of causes unbroken, an event that names a command as its cause also
    holds that command's cause: ``command_causation_id``.
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
        """The stream that the event belongs to; ``None`` if it is only in the log."""
        if self.aggregate_id is None:
            return None
        return StreamId(self.aggregate_type or "", self.aggregate_id)

    @property
    def answered(self) -> str | None:
        """The id of the command whose last event this is; ``None`` if it belongs to no command."""
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
        event: An event of any type.
        command_id: The command whose last event it is.
        reply: The reply to that command, as `recording.pack_answer` writes it.
        command_causation_id: The cause of the command that is the event's cause.

    Raises:
        EventNotSerializable: Its payload would not read back unchanged; see `payloads`.
    """
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
        pack_payload(event),
    )


def to_event(record: Record, registry: EventRegistry, position: int | None = None) -> DomainEvent:
    """Decode ``record`` into today's class of its type, through the registered upcasts.

    Recorded values are not validated again; see `payloads.read_fields`.

    Args:
        record: A record of a type that the registry knows.
        registry: Finds the class and the upcasts.
        position: The position in the log, for errors.

    Raises:
        CorruptRecord: The payload is not a map of fields.
        UnknownEventType: The registry has no class for it.
        AmbiguousEventType: It has several, and the aggregate type does not show which is meant.
        EventNotReadable: The payload does not fit the class, or an upcast is missing or has failed.
    """
    event_type = registry.resolve(record.event_type, record.aggregate_type)
    current = event_type.schema_version()
    try:
        fields = read_payload(record, tags_of(event_type))
        if record.version != current:
            fields = registry.upcast(
                record.event_type, record.version, current, fields,
                event_type=event_type, where=_place(record, position),
            )  # fmt: skip
        fields |= zip(_HEADER, record, strict=False)
        fields["version"] = current
        return read_fields(event_type, fields)
    except (Unreadable, UnknownClass) as misfit:
        reason = str(misfit)
        if record.version == current:
            reason += ". Raise the class's version and register an upcast for the old payload"
        where = _place(record, position)
        raise EventNotReadable(
            record.event_type, record.version, current, reason, where
        ) from misfit.__cause__


def _place(record: Record, position: int | None) -> str:
    """The place of ``record``, for errors."""
    at = f"event {record.event_id}" if position is None else f"position {position}"
    return at if record.stream is None else f"{at}, {record.stream} version {record.aggregate_version}"


def pack(record: Record) -> bytes:
    """The bytes of ``record``.

    Raises:
        EventNotSerializable: A header field holds a value of another type than declared.
    """
    try:
        if type(record.timestamp) is datetime and record.timestamp.tzinfo is UTC:  # else its code would run
            return _pack_plain(record)
        packed: bytes = msgpack.packb(record, datetime=True, default=_instant)
    except (TypeError, ValueError, OverflowError) as error:
        raise EventNotSerializable(record.event_type, f"{type(error).__name__}: {error}") from error
    return packed


_pack_plain: Callable[[object], bytes] = msgpack.Packer(datetime=True).pack
"""A packer that is reused, see `payloads`; for records whose fields run no code of their own when they are packed."""


def unpack(data: bytes, where: str) -> Record:
    """Read a record.

    Args:
        data: The bytes that `pack` returned.
        where: The place of the record, for the error.

    Raises:
        CorruptRecord: The bytes are not a record.
    """
    try:
        record = Record._make(msgpack.unpackb(data, timestamp=3))
    except Exception as error:  # damaged bytes fail in many ways
        raise CorruptRecord(where, f"{type(error).__name__}: {error}") from error
    if not _are_kinds(tuple(map(type, record))):
        raise CorruptRecord(where, "a header field is of another type")
    return record


def stream_and_version(data: bytes) -> tuple[str | None, str | None, int | None]:
    """Aggregate type, aggregate id and aggregate version of a record; all ``None`` for anything else.

    Much sooner read than the whole of it.

    Args:
        data: What `pack` returned.
    """
    try:
        found = msgpack.unpackb(data, timestamp=3)[_PLACE]
    except Exception:  # noqa: BLE001 - damaged bytes fail in many ways
        return None, None, None
    aggregate_type, aggregate_id, version = found
    if type(aggregate_id) is not str or type(version) is not int:
        return None, None, None
    return aggregate_type, aggregate_id, version


_PLACE = slice(Record._fields.index("aggregate_type"), Record._fields.index("aggregate_version") + 1)
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


_show = tag_reader(None)


def read_payload(record: Record, tags: TagReader = _show) -> Payload:
    """The payload of ``record`` as it was recorded.

    Args:
        record: A record of any event.
        tags: Reads the values of classes; by default they become readable stand-ins.

    Raises:
        CorruptRecord: The payload is not a map of fields.
        UnknownClass: ``tags`` does not know one of the classes.
    """
    try:
        return unpack_fields(record.payload, tags)
    except UnknownClass:
        raise
    except Exception as error:  # damaged bytes fail in many ways
        raise CorruptRecord(f"event {record.event_id}", f"payload: {error}") from error
