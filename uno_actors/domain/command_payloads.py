"""The payload of a command, as it travels to another node: it arrives equal, in values and types, or is refused here.

The rule and the forms are those of events; see `uno_actors.domain.payloads`.
"""

from typing import Any

import msgpack

from uno_actors.domain.commands import Command
from uno_actors.domain.exactness import exactness_of
from uno_actors.domain.payload_reader import read_fields, tags_of, unpack_fields
from uno_actors.domain.payload_writer import native_fields, plain
from uno_actors.domain.proof import prove

_set = object.__setattr__  # a frozen model allows this one
_pack_native = msgpack.Packer(datetime=True).pack


def pack_command(command: Command[Any]) -> bytes:
    """The fields of ``command`` without its ids, as msgpack.

    Raises:
        InvalidCommand: A value would arrive as another one, or cannot be written.
    """
    if not exactness_of(type(command))(command.__dict__):
        return prove(command)[0]
    fields = native_fields(command)
    try:
        try:
            return _pack_native(fields)  # type: ignore[no-any-return]
        except TypeError:  # it has a value that msgpack does not know, such as a Decimal
            return msgpack.packb(fields, datetime=True, default=plain)  # type: ignore[no-any-return]
    except Exception:  # noqa: BLE001 - an integer beyond 64 bits; any other reason the proof will name
        return prove(command)[0]


def unpack_command(
    command_type: type[Command[Any]], payload: bytes, ids: dict[str, str | None], left_out: list[str]
) -> Command[Any]:
    """The command whose payload was packed with `pack_command`.

    Args:
        command_type: Its class.
        payload: From `pack_command`.
        ids: Its ids, by field.
        left_out: The fields that its sender did not give, whose values are defaults.

    Raises:
        Unreadable, UnknownClass: The class here has other fields.
    """
    command = read_fields(command_type, unpack_fields(payload, tags_of(command_type)) | ids)
    # Which fields were given counts in the fingerprint by which a repeated command is known.
    _set(command, "__pydantic_fields_set__", command.__pydantic_fields_set__.difference(left_out))
    return command
