"""What a stream remembers of the commands that wrote it, so that a repeated one is answered and not run again.

Nothing is stored for it but the reply and the command's fingerprint, in the last record of a command
(`codec.Record.reply`): the record also tells which command it answers. An active aggregate keeps three bytes for
each of its last events, in which it looks for the id of a command that comes; what is found is compared with the
record before it counts.

The memory reaches back over so many events and no further. A command that may have been recorded before those is
sent with the position since which that can be (`AggregateRef.ask`): then the aggregate reads its stream from there
and its memory reaches back as far, until it is loaded again. `Landmarks` spare it that where nothing was recorded
in between.
"""

import asyncio
from collections.abc import Sequence
from contextlib import suppress
from functools import lru_cache
from typing import Any, ClassVar

import msgpack

from uno_actors.aggregates.fingerprint import SIZE, fingerprint, is_same
from uno_actors.domain.commands import Command
from uno_actors.domain.values import classes_in, pack_value, unpack_value
from uno_actors.errors import CommandIdReused, ReplyNotRecorded, describe
from uno_actors.store.codec import Record, StreamId
from uno_actors.store.port import EventStore
from uno_actors.store.records import PAGE

MAX_REPLY = 64 << 10
"""The largest reply, in bytes, that is recorded with a command's events."""

_NOT_KEPT = b"\xc1"
"""Begins what stands in for a reply that could not be recorded, before the reason: no msgpack begins so."""
_FINGERPRINT = b"\xc1\x01"
"""Begins the fingerprint of the command, after which the reply follows: no reason begins so. Programs that know
of no fingerprints take it for a reply that could not be recorded. Their records have none."""

_WIDTH = 3
_NONE = b"\0" * _WIDTH


class CommandMemory(bytearray):
    """The commands that the last events of a stream answered: a ring of hashes by version, three bytes each.

    A subclass of ``bytearray`` because a system may keep a million of them.
    """

    __slots__ = ()

    def note(self, version: int, command_id: str | None, size: int) -> None:
        """Remember that the event of ``version`` is the last of ``command_id``, or of no command's.

        Args:
            version: One more than that of the call before.
            command_id: ``None`` for an event that answers no command.
            size: For how many events the memory reaches back.
        """
        place = version % size * _WIDTH
        if place >= len(self):
            if command_id is None:
                return
            self.extend(bytes(place + _WIDTH - len(self)))
        self[place : place + _WIDTH] = _NONE if command_id is None else _hash(command_id)

    def versions(self, command_id: str, head: int, size: int) -> Sequence[int]:
        """Versions up to ``head``, the last one noted, whose events may be the last of ``command_id``."""
        wanted = _hash(command_id)
        place = self.find(wanted)
        if place < 0:
            return ()
        found: list[int] = []
        while place >= 0:
            slot, askew = divmod(place, _WIDTH)
            if not askew:
                found.append(head - (head - slot) % size)
            place = self.find(wanted, place + 1)
        return found


def _hash(command_id: str) -> bytes:
    return (hash(command_id) & 0xFF_FFFF or 1).to_bytes(_WIDTH, "little")


class Landmarks(tuple[tuple[int, int], ...]):
    """Some versions of a stream with their positions in the log, in order: which events came after a position.

    A value; what it says of recorded events stays true.
    """

    __slots__ = ()
    KEPT: ClassVar[int] = 5

    def with_one(self, version: int, position: int, every: int) -> "Landmarks":
        """With that of a recorded event, unless there is one within ``every`` versions before it; the last ones."""
        if self and version - self[-1][0] < every:
            return self
        return Landmarks((*self[1 - self.KEPT :], (version, position)))

    def show(self, oldest: int, since: int) -> bool:
        """Whether all events after position ``since`` have a version after ``oldest``, as far as is known."""
        return any(version >= oldest and position <= since for version, position in self)


NO_LANDMARKS = Landmarks()


async def version_at(store: EventStore, stream: StreamId, position: int, head: int) -> tuple[int, int]:
    """The last version of ``stream``, up to ``head``, that is recorded up to ``position``, and its own position.

    Reads one record after the other, about as often as ``head`` can be halved.
    """
    low, low_position, high = 0, 0, head
    middle = head  # most often nothing has come since
    while low < high:
        page = await store.read_stream(stream, middle - 1, 1)
        if page and page[0].position <= position:
            low, low_position = middle, page[0].position
        else:
            high = middle - 1
        middle = (low + high + 1) // 2
    return low, low_position


async def memory_of(store: EventStore, stream: StreamId, after: int, head: int, size: int) -> CommandMemory:
    """The memory of the events of ``stream`` after version ``after`` up to ``head``, read from the store."""
    memory = CommandMemory()
    while after < head and (page := await store.read_stream(stream, after, min(PAGE, head - after))):
        for _, record in page:
            after += 1
            memory.note(after, record.answered, size)
        await asyncio.sleep(0)  # a long stream must not keep the event loop from others
    return memory


# --- replies ---

_PLAIN = frozenset({type(None), bool, float, str})
_UNCHANGING = _PLAIN | {int}
_SMALL = 2**63
_pack_plain = msgpack.Packer().pack


def pack_answer(command: Command[Any], reply: Any) -> tuple[bytes, Any]:
    """What the last record of ``command`` holds: its fingerprint, and the reply or why that cannot be recorded.

    And the reply for its asker: equal to what is recorded, and not changed by what the aggregate does later to a
    list of its own. One that cannot be recorded is the aggregate's.
    """
    begin = _FINGERPRINT + fingerprint(command)
    kind = type(reply)
    packed = pack_reply(reply, type(command))
    if kind in _UNCHANGING or packed.startswith(_NOT_KEPT):
        return begin + packed, reply
    with suppress(Exception):  # then a repetition is told so; the first asker has what was replied
        reply = unpack_value(packed, _reply_classes(type(command)))
    return begin + packed, reply


def pack_reply(reply: object, command: type[Command[Any]]) -> bytes:
    """The reply as it is recorded, or why it cannot be."""
    try:
        kind = type(reply)
        if kind in _PLAIN or (kind is int and -_SMALL <= reply < _SMALL):  # type: ignore[operator]
            packed: bytes = _pack_plain(reply)
        else:
            packed = pack_value(reply, _reply_classes(command), may_share=True)
        if len(packed) > MAX_REPLY:
            raise ValueError(f"it has {len(packed):,} bytes, recorded are at most {MAX_REPLY:,}")  # noqa: TRY301
    except Exception as error:  # noqa: BLE001 - the command was handled: a reply of any kind must not undo it
        return _NOT_KEPT + describe(error).encode()[:MAX_REPLY]
    return packed


def recorded_reply(record: Record, command: Command[Any]) -> Any:
    """The reply that ``record``, the last one of a command with this id, holds.

    Raises:
        CommandIdReused: It was another command: of another type, or with other contents.
        ReplyNotRecorded: It holds no reply that can be given again.
    """
    packed = record.reply or b""
    name = type(command).__name__
    if packed.startswith(_FINGERPRINT):
        begin = len(_FINGERPRINT)
        packed, known = packed[begin + SIZE :], packed[begin : begin + SIZE]
        if not is_same(command, known):
            recorded = f"recorded {record.event_type} as version {record.aggregate_version}"
            raise CommandIdReused(name, command.command_id, str(record.stream), recorded)
    if packed.startswith(_NOT_KEPT):
        raise ReplyNotRecorded(
            name, command.command_id, str(record.stream), packed[1:].decode(errors="replace")
        )
    try:
        return unpack_value(packed, _reply_classes(type(command)))
    except Exception as error:  # a class may have other fields now
        raise ReplyNotRecorded(name, command.command_id, str(record.stream), describe(error)) from error


@lru_cache(maxsize=1024)
def _reply_classes(command: type[Command[Any]]) -> dict[str, type]:
    """The classes in the ``R`` of ``Command[R]``."""
    parameters = [
        base.__pydantic_generic_metadata__["args"] for base in command.__mro__ if issubclass(base, Command)
    ]
    return classes_in(*(argument for arguments in parameters for argument in arguments))
