"""What a command leaves in the store: its events as records, the last of them with the reply and a fingerprint.

A repeated command is answered with that reply and not run again. The last record (`codec.Record.reply`) also shows
which command it answers.
"""

from contextlib import suppress
from functools import lru_cache
from typing import Any

import msgpack

from uno_actors.aggregates.fingerprint import SIZE, fingerprint, is_same
from uno_actors.domain.commands import Command
from uno_actors.domain.events import DomainEvent, EventRegistry
from uno_actors.domain.values import classes_in, pack_value, tag_reader, unpack_value
from uno_actors.errors import CommandIdReused, ReplyNotRecorded, describe
from uno_actors.store.codec import Record, to_record

MAX_REPLY = 64 << 10
"""The largest reply, in bytes, that is recorded with a command's events."""

_NOT_KEPT = b"\xc1"
"""Precedes the reason why a reply could not be recorded; no msgpack value begins with it."""
_FINGERPRINT = b"\xc1\x01"
"""Precedes the fingerprint of the command, after which the reply follows; no reason begins with it.

Older programs, which know no fingerprints and record none, read it as a reply that could not be recorded.
"""

_PLAIN = frozenset({type(None), bool, float, str})
_UNCHANGING = _PLAIN | {int}
_SMALL = 2**63
_pack_plain = msgpack.Packer().pack


def to_records(
    events: list[DomainEvent], command: Command[Any], reply: Any, registry: EventRegistry
) -> tuple[list[Record], Any]:
    """The events of a command as records, of which the last one holds the reply; and the reply, equal to that.

    Raises:
        AmbiguousEventType, EventNotSerializable: An event could not be read back.
    """
    if not events:
        return [], reply
    for event in events:
        registry.check_readable(event)
    *before, last = events
    cause = command.causation_id
    records = [to_record(event, command_causation_id=cause) for event in before] if before else []
    packed, reply = pack_answer(command, reply)
    records.append(to_record(last, command.command_id, packed, cause))
    return records, reply


def pack_answer(command: Command[Any], reply: Any) -> tuple[bytes, Any]:
    """What the last record of ``command`` holds, and the reply for its sender.

    Returns:
        The fingerprint with the reply, or with the reason why the reply cannot be recorded; and the reply: a value
        equal to the recorded one, which later changes of the aggregate's lists do not reach. A reply that cannot be
        recorded is returned as the aggregate gave it.
    """
    begin = _FINGERPRINT + fingerprint(command)
    kind = type(reply)
    packed = pack_reply(reply, type(command))
    if kind in _UNCHANGING or packed.startswith(_NOT_KEPT):
        return begin + packed, reply
    with suppress(
        Exception
    ):  # a repetition then gets the error; the first sender gets the aggregate's own value
        reply = unpack_value(packed, reply_classes(type(command)))
    return begin + packed, reply


def pack_reply(reply: object, command: type[Command[Any]]) -> bytes:
    """The reply as it is recorded, or why it cannot be."""
    try:
        kind = type(reply)
        if kind in _PLAIN or (kind is int and -_SMALL <= reply < _SMALL):  # type: ignore[operator]
            packed: bytes = _pack_plain(reply)
        else:
            packed = pack_value(reply, reply_classes(command), may_share=True)
        if len(packed) > MAX_REPLY:
            raise ValueError(f"it has {len(packed):,} bytes; at most {MAX_REPLY:,} are recorded")  # noqa: TRY301
    except Exception as error:  # noqa: BLE001 - the command was handled, and its reply must not undo that
        return _NOT_KEPT + describe(error).encode()[:MAX_REPLY]
    return packed


def recorded_reply(record: Record, command: Command[Any]) -> Any:
    """The reply in ``record``, the last one of a command with this id.

    Raises:
        CommandIdReused: The recorded command is of another type or has other contents.
        ReplyNotRecorded: The record holds no reply that can be given again.
    """
    packed = record.reply or b""
    name = type(command).__name__
    where = "the log" if record.stream is None else str(record.stream)
    if packed.startswith(_FINGERPRINT):
        begin = len(_FINGERPRINT)
        packed, known = packed[begin + SIZE :], packed[begin : begin + SIZE]
        if not is_same(command, known):
            place = "" if record.stream is None else f" as version {record.aggregate_version}"
            raise CommandIdReused(name, command.command_id, where, f"recorded {record.event_type}{place}")
    if packed.startswith(_NOT_KEPT):
        raise ReplyNotRecorded(name, command.command_id, where, packed[1:].decode(errors="replace"))
    try:
        return unpack_value(packed, reply_classes(type(command)))
    except Exception as error:  # a class may have other fields now
        raise ReplyNotRecorded(name, command.command_id, where, describe(error)) from error


def is_command_of(record: Record, command: Command[Any]) -> bool:
    """Whether ``record``, the last one of a command with this id, has the fingerprint of ``command``."""
    packed = record.reply or b""
    begin = len(_FINGERPRINT)
    return packed.startswith(_FINGERPRINT) and is_same(command, packed[begin : begin + SIZE])


def readable_reply(record: Record) -> Any:
    """The reply in ``record``, read without the class of the command; ``None`` if it holds none, too."""
    packed = record.reply
    if not packed:
        return None
    if packed.startswith(_FINGERPRINT):
        packed = packed[len(_FINGERPRINT) + SIZE :]
    if packed.startswith(_NOT_KEPT):
        return f"not recorded: {packed[1:].decode(errors='replace')}"
    try:
        return msgpack.unpackb(packed, timestamp=3, strict_map_key=False, ext_hook=_show)
    except Exception:  # noqa: BLE001 - damaged bytes fail in many ways
        return packed


_show = tag_reader(None)


@lru_cache(maxsize=1024)
def reply_classes(command: type[Command[Any]]) -> dict[str, type]:
    """The classes in the ``R`` of ``Command[R]``."""
    parameters = [
        base.__pydantic_generic_metadata__["args"] for base in command.__mro__ if issubclass(base, Command)
    ]
    return classes_in(*(argument for arguments in parameters for argument in arguments))
