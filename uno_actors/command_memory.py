"""What a stream remembers of the commands that wrote it, so that a repeated one is answered and not run again.

Nothing is stored for it but the reply, in the last record of a command (`codec.Record.reply`): the record also
tells which command it answers. An active aggregate keeps three bytes for each of its last events, in which it
looks for the id of a command that comes; what is found is compared with the record before it counts.
"""

from collections.abc import Sequence
from functools import lru_cache
from typing import Any

import msgpack

from uno_actors.codec import Record
from uno_actors.commands import Command
from uno_actors.errors import ReplyNotRecorded, describe
from uno_actors.values import classes_in, pack_value, unpack_value

MAX_REPLY = 64 << 10
"""The largest reply, in bytes, that is recorded with a command's events."""

_NOT_KEPT = b"\xc1"
"""Begins what stands in for a reply that could not be recorded, before the reason: no msgpack begins so."""

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


# --- replies ---

_PLAIN = frozenset({type(None), bool, float, str})
_SMALL = 2**63
_pack_plain = msgpack.Packer().pack


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
    """The reply that ``record``, the last one of ``command``, holds.

    Raises:
        ReplyNotRecorded: It holds none that can be given again.
    """
    packed = record.reply or b""
    name = type(command).__name__
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
