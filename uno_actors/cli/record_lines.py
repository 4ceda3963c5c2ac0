"""Converts records to JSON lines, and back to the same bytes.

A line is one object in ASCII: the position, the header fields, and the payload. Times are in ISO 8601, bytes in
base64. The payload is a JSON object where that gives the same bytes back, else its msgpack in base64.

`readable_fields` are for people and programs that only read: payload and reply are always readable.
"""

import binascii
import json
from base64 import b64decode, b64encode
from datetime import datetime
from typing import Any, get_args

import msgpack

from uno_actors.aggregates.recording import readable_reply
from uno_actors.domain.aggregate import check_aggregate_id
from uno_actors.errors import CallerError, CorruptRecord
from uno_actors.printable import json_value
from uno_actors.store.codec import Record, pack, read_payload, unpack
from uno_actors.store.records import StoredRecord

_KINDS = {name: get_args(kind) or (kind,) for name, kind in Record.__annotations__.items()}


class UnreadableLine(CallerError, ValueError):
    """A line that is not a record."""

    def __init__(self, line: int, reason: str) -> None:
        self.line = line
        super().__init__(f"line {line} is not an exported event: {reason}")


def to_line(stored: StoredRecord) -> str:
    """The line of ``stored``, without a line end."""
    return json.dumps(to_fields(stored), allow_nan=False)


def to_fields(stored: StoredRecord) -> dict[str, Any]:
    """The fields in the line of ``stored``."""
    fields = {name: _plain(value) for name, value in stored.record._asdict().items()}
    return {"position": stored.position, **fields, "payload": _payload(stored.record.payload)}


def readable_fields(stored: StoredRecord) -> dict[str, Any]:
    """The fields of ``stored`` with a readable payload and reply; values that JSON lacks are as `as_json` writes them.

    A damaged payload is its bytes in base64.
    """
    record = stored.record
    fields = {name: _plain(value) for name, value in record._asdict().items()}
    payload: object
    try:
        payload = read_payload(record)
    except CorruptRecord:
        payload = record.payload
    readable = {"reply": json_value(readable_reply(record)), "payload": json_value(payload)}
    return {"position": stored.position, **fields, **readable}


def from_line(line: str, number: int) -> Record:
    """The record of a line that `to_line` made.

    Args:
        line: With or without a line end.
        number: Number of the line, for the error.

    Raises:
        UnreadableLine: The line has another form.
    """
    try:
        found = json.loads(line)
        values = {name: _value(found.get(name), kinds) for name, kinds in _KINDS.items() if name != "payload"}
        payload = found["payload"]
        packed = msgpack.packb(payload) if isinstance(payload, dict) else b64decode(payload, validate=True)
        record = Record(**values, payload=packed)
        unpack(pack(record), "")  # checks the types
        if record.aggregate_id is not None:
            check_aggregate_id(record.aggregate_id)
    except (ValueError, TypeError, KeyError, AttributeError, binascii.Error) as error:
        raise UnreadableLine(number, f"{type(error).__name__}: {error}") from error
    except Exception as error:  # our own, whose position means nothing here
        raise UnreadableLine(number, str(error)) from error
    return record


def _plain(value: object) -> object:
    if isinstance(value, datetime):
        return value.isoformat()
    return b64encode(value).decode() if isinstance(value, bytes) else value


def _value(found: Any, kinds: tuple[Any, ...]) -> Any:
    if found is None:
        return None
    if datetime in kinds:
        return datetime.fromisoformat(found)
    return b64decode(found, validate=True) if bytes in kinds else found


def _payload(payload: bytes) -> object:
    try:
        fields = msgpack.unpackb(payload)
        if (
            isinstance(fields, dict)
            and msgpack.packb(json.loads(json.dumps(fields, allow_nan=False))) == payload
        ):
            return fields
    except Exception:  # noqa: BLE001, S110 - anything that JSON cannot hold
        pass
    return b64encode(payload).decode()
