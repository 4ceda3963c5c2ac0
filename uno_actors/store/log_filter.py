"""Which records of the log are wanted, by their headers alone: no payload is decoded."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import TypeAlias

from uno_actors.domain.events import DomainEvent, EventRegistry
from uno_actors.store.codec import Record, StreamId
from uno_actors.topics import TopicPattern

EventTypes: TypeAlias = type[DomainEvent] | str | Iterable[type[DomainEvent] | str]
"""A class, which includes its subclasses, or the name under which events are recorded; or several of these."""


TopicPatterns: TypeAlias = TopicPattern | str | Iterable[TopicPattern | str]
"""A topic pattern, or its text; or several of these, of which one must match."""


@dataclass(frozen=True, slots=True)
class LogFilter:
    """Selects the records that all given filters match; ``None`` means no filter.

    Attributes:
        topic: The topic matches this pattern, or one of several; a record without topic matches none.
        event_types: The event is recorded under one of these names.
        aggregate_type: It belongs to a stream of this type.
        correlation_id: It originates from this one first message.
        aggregate_id: It belongs to a stream of this id. With ``aggregate_type`` that is one stream, which is read by
            itself: the rest of the log costs nothing.
    """

    topic: TopicPattern | tuple[TopicPattern, ...] | None = None
    event_types: frozenset[str] | None = None
    aggregate_type: str | None = None
    correlation_id: str | None = None
    aggregate_id: str | None = None

    @property
    def topics(self) -> tuple[TopicPattern, ...] | None:
        """The patterns, of which one must match."""
        return (self.topic,) if isinstance(self.topic, TopicPattern) else self.topic

    @property
    def stream(self) -> StreamId | None:
        """The one stream to which all that it selects belong; ``None`` if there may be several."""
        if self.aggregate_id is None or self.aggregate_type is None:
            return None
        return StreamId(self.aggregate_type, self.aggregate_id)

    def matches(self, record: Record) -> bool:
        """Whether ``record`` is selected."""
        return (
            (self.event_types is None or record.event_type in self.event_types)
            and (self.aggregate_type is None or record.aggregate_type == self.aggregate_type)
            and (self.correlation_id is None or record.correlation_id == self.correlation_id)
            and (self.aggregate_id is None or record.aggregate_id == self.aggregate_id)
            and (self.topic is None or (record.topic is not None and self._has_topic(record.topic)))
        )

    def _has_topic(self, topic: str) -> bool:
        if isinstance(self.topic, TopicPattern):
            return self.topic.matches(topic)
        return any(pattern.matches(topic) for pattern in self.topic or ())


EVERYTHING = LogFilter()


def topic_patterns(topics: TopicPatterns) -> TopicPattern | tuple[TopicPattern, ...]:
    """The pattern, or the patterns, of which one must match.

    Raises:
        InvalidTopic: One of them is not a topic pattern.
    """
    if isinstance(topics, str):
        return TopicPattern(topics)
    if isinstance(topics, TopicPattern):
        return topics
    return tuple(each if isinstance(each, TopicPattern) else TopicPattern(each) for each in topics)


def recorded_names(event_types: EventTypes, registry: EventRegistry) -> frozenset[str]:
    """The names under which events of ``event_types`` are recorded, by the classes that ``registry`` has now."""
    if isinstance(event_types, (str, type)):
        event_types = (event_types,)
    names: set[str] = set()
    for wanted in event_types:
        names |= {wanted} if isinstance(wanted, str) else registry.names_of(wanted)
    return frozenset(names)
