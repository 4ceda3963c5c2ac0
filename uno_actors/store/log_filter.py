"""Which records of the log are wanted, by their headers alone: no payload is decoded."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import TypeAlias

from uno_actors.domain.events import DomainEvent, EventRegistry
from uno_actors.store.codec import Record
from uno_actors.topics import TopicPattern

EventTypes: TypeAlias = type[DomainEvent] | str | Iterable[type[DomainEvent] | str]
"""A class, which includes its subclasses, or the name under which events are recorded; or several of these."""


@dataclass(frozen=True, slots=True)
class LogFilter:
    """Selects the records that all given filters match; ``None`` means no filter.

    Attributes:
        topic: The topic matches this pattern; a record without topic matches none.
        event_types: The event is recorded under one of these names.
        aggregate_type: It belongs to a stream of this type.
        correlation_id: It originates from this one first message.
    """

    topic: TopicPattern | None = None
    event_types: frozenset[str] | None = None
    aggregate_type: str | None = None
    correlation_id: str | None = None

    def matches(self, record: Record) -> bool:
        """Whether ``record`` is selected."""
        return (
            (self.event_types is None or record.event_type in self.event_types)
            and (self.aggregate_type is None or record.aggregate_type == self.aggregate_type)
            and (self.correlation_id is None or record.correlation_id == self.correlation_id)
            and (self.topic is None or (record.topic is not None and self.topic.matches(record.topic)))
        )


EVERYTHING = LogFilter()


def recorded_names(event_types: EventTypes, registry: EventRegistry) -> frozenset[str]:
    """The names under which events of ``event_types`` are recorded, by the classes that ``registry`` has now."""
    if isinstance(event_types, (str, type)):
        event_types = (event_types,)
    names: set[str] = set()
    for wanted in event_types:
        names |= {wanted} if isinstance(wanted, str) else registry.names_of(wanted)
    return frozenset(names)
