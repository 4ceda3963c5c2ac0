"""An event of ``eventsourcing`` as a record of ours, and back.

It belongs to the stream of its originator's id, whose aggregate type is the name of the application. Versions of our
streams run from 1; those of an originator begin where its first event says, so each event keeps its own one. Its state
stays as the application's mapper has encoded it.
"""

from typing import Any, NamedTuple
from uuid import UUID

from eventsourcing.persistence import Notification, StoredEvent

from uno_actors.domain.events import DomainEvent
from uno_actors.errors import InvalidTopic
from uno_actors.store.codec import Record, StreamId, read_payload, to_record
from uno_actors.store.log_filter import LogFilter
from uno_actors.store.records import StoredRecord
from uno_actors.topics import TopicPattern, check_topic

EVENT_TYPE = "eventsourcing.StoredEvent"


class StoredEventRecorded(DomainEvent):
    """An event that an application of ``eventsourcing`` has recorded.

    Its ``topic`` is that of the event's class, if that is a valid topic here.

    Attributes:
        originator_version: The event's version in that package.
        event_topic: The topic of the event's class there.
        state: The event, as the application's mapper has encoded it.
        has_uuid: Whether the originator's id is a UUID, not a text.
    """

    event_type: str = EVENT_TYPE
    originator_version: int
    event_topic: str
    state: bytes
    has_uuid: bool


class Content(NamedTuple):
    """What a record holds of an event."""

    originator_id: UUID | str
    originator_version: int
    topic: str
    state: bytes


def record_of(event: StoredEvent, application: str, version: int) -> Record:
    """The record of ``event``.

    Args:
        event: The event.
        application: The aggregate type of its stream.
        version: Its place in the stream, from 1.
    """
    return to_record(
        StoredEventRecorded(
            aggregate_type=application,
            aggregate_id=str(event.originator_id),
            aggregate_version=version,
            topic=event.topic if _is_topic(event.topic) else None,
            originator_version=event.originator_version,
            event_topic=event.topic,
            state=event.state,
            has_uuid=isinstance(event.originator_id, UUID),
        )
    )


def content_of(record: Record) -> Content:
    """What ``record`` holds."""
    found: dict[str, Any] = read_payload(record)
    id_ = record.aggregate_id or ""
    return Content(
        UUID(id_) if found["has_uuid"] else id_,
        found["originator_version"],
        found["event_topic"],
        found["state"],
    )


def stored_event_of(record: Record) -> StoredEvent:
    """The event in ``record``."""
    return StoredEvent(**content_of(record)._asdict())


def notification_of(stored: StoredRecord) -> Notification:
    """The event in a record of the log, with its position as id."""
    return Notification(**content_of(stored.record)._asdict(), id=stored.position)


def stream_of(originator_id: UUID | str, application: str) -> StreamId:
    """The stream of one originator."""
    return StreamId(application, str(originator_id))


def events_of(application: str, topics: tuple[str, ...] = ()) -> LogFilter:
    """Selects the events of one application, and of ``topics`` as far as these are topics here."""
    patterns = tuple(map(TopicPattern, topics)) if topics and all(map(_is_topic, topics)) else None
    return LogFilter(patterns, frozenset((EVENT_TYPE,)), application)


def _is_topic(text: str) -> bool:
    try:
        check_topic(text)
    except InvalidTopic:
        return False
    return True
