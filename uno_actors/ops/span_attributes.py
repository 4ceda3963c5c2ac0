"""The attributes of spans, by OpenTelemetry's semantic conventions for messaging where these have a name."""

from typing import Any

from uno_actors.observing import Delivered

SYSTEM = "uno_actors"
"""``messaging.system`` of all spans, and the name of their instrumentation."""

Attributes = dict[str, str | int | float | bool]


def of_command(stream: Any, command: Any) -> Attributes:
    """The attributes of a command for an aggregate."""
    found: Attributes = {
        "messaging.system": SYSTEM,
        "messaging.destination.name": stream[0],
        "messaging.message.id": command.command_id,
        "uno.aggregate.type": stream[0],
        "uno.aggregate.id": stream[1],
        "uno.command.type": type(command).__name__,
    }
    return found | _of_ids(command.correlation_id, command.causation_id)


def of_event(event: Delivered) -> Attributes:
    """The attributes of a recorded event."""
    record = event.record
    found: Attributes = {
        "messaging.system": SYSTEM,
        "messaging.destination.name": record.topic or record.event_type,
        "messaging.message.id": record.event_id,
        "uno.event.type": record.event_type,
        "uno.position": event.position,
    }
    if record.aggregate_id is not None:
        found |= {"uno.aggregate.type": record.aggregate_type or "", "uno.aggregate.id": record.aggregate_id}
    return found | _of_ids(record.correlation_id, record.causation_id)


def _of_ids(correlation_id: str | None, causation_id: str | None) -> Attributes:
    found = {"messaging.message.conversation_id": correlation_id, "uno.causation_id": causation_id}
    return {name: value for name, value in found.items() if value is not None}


def number_of(digits: str | None, length: int) -> int:
    """The number that so many hexadecimal digits are; 0 for any other text."""
    if digits is None or len(digits) != length:
        return 0
    try:
        return int(digits, 16)
    except ValueError:
        return 0
