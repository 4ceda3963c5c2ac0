"""Recorded events as the page and the command line show them: readable, and never too large."""

from datetime import datetime
from typing import Any

from uno_actors.errors import UnoError, describe
from uno_actors.ops.api.endpoint import Answered
from uno_actors.printable import json_value
from uno_actors.store.codec import read_payload
from uno_actors.store.records import StoredRecord

LARGEST = 16 << 10
"""Bytes of a payload in a list; a larger one is shown where its event is shown alone."""
LARGEST_ALONE = 4 << 20
"""Bytes of a payload that is shown at all."""


class EventShown(Answered):
    """A recorded event.

    Attributes:
        position: Its place in the log.
        bytes: Size of its payload.
        payload: The recorded fields; ``None`` if they are left out.
        left_out: Why the payload is missing.
    """

    position: int
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
    bytes: int
    payload: dict[str, Any] | None = None
    left_out: str | None = None


def shown(stored: StoredRecord, largest: int = LARGEST) -> EventShown:
    """A record for people.

    Args:
        stored: From a store; the class of the event is not needed.
        largest: Maximum number of bytes of the payload.
    """
    position, record = stored
    payload, left_out = None, None
    size = len(record.payload)
    if size > largest:
        left_out = f"the payload has {size:,} bytes"
    else:
        try:
            payload = json_value(read_payload(record))
        except UnoError as error:
            left_out = describe(error)
    return EventShown(
        position=position,
        event_id=record.event_id,
        event_type=record.event_type,
        version=record.version,
        aggregate_type=record.aggregate_type,
        aggregate_id=record.aggregate_id,
        aggregate_version=record.aggregate_version,
        topic=record.topic,
        timestamp=record.timestamp,
        correlation_id=record.correlation_id,
        causation_id=record.causation_id,
        command_id=record.answered or record.command_id,
        bytes=size,
        payload=payload,
        left_out=left_out,
    )
