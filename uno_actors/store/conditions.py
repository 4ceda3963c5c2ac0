"""Conditions of appends: which events must not be there, and how a store checks that.

A decision may rest on events of any streams, and on their absence. `EventQuery` selects them. The append of what was
decided names the query, and the position up to which it was answered: the store refuses it if the query selects an
event after that position. This is the append condition of https://dcb.events.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping
from itertools import islice
from operator import itemgetter
from typing import Any, NamedTuple, TypeAlias
from uuid import UUID
from weakref import WeakKeyDictionary

from uno_actors.domain.events import DomainEvent, EventRegistry, event_registry
from uno_actors.domain.tags import (
    TaggedFields,
    TagValue,
    as_recorded,
    as_text,
    is_recorded_as_given,
    plain,
    tagged_fields,
)
from uno_actors.errors import AppendConditionFailed, InvalidQuery, StandingEvent
from uno_actors.store.codec import Record
from uno_actors.store.log_filter import LogFilter, recorded_names
from uno_actors.store.terms import COMMANDS, TOPICS, Facet, Placed, term, terms_of, topic_term
from uno_actors.topics import TopicPattern

MAX_STANDING = 10
"""Maximum number of events that an error names."""


class EventQuery:
    """Selects events by type, topic and tags: an event is selected if all of them match.

    Several queries select what one of them selects.

    Args:
        event_types: Classes, each with its subclasses, or names under which events are recorded; none for any.
        tags: The value of each tag; each event type must have all of them. The first one should be the rarest.
        topic: A topic pattern. It does not begin with a wildcard unless event types or tags are given.

    Raises:
        InvalidQuery: Nothing is given, or tags without event types.
        InvalidTopic: ``topic`` is not a topic pattern.
    """

    __slots__ = ("event_types", "tags", "topic")

    def __init__(
        self,
        *event_types: type[DomainEvent] | str,
        tags: Mapping[str, TagValue] | None = None,
        topic: TopicPattern | str | None = None,
    ) -> None:
        given: tuple[Any, ...] = event_types
        for each in given:
            if not (isinstance(each, str) or (isinstance(each, type) and issubclass(each, DomainEvent))):
                raise InvalidQuery(f"EventQuery({each!r})", "it selects classes of events, or their names")
        self.event_types = event_types
        self.tags = _checked_tags(tags)
        self.topic = _checked_topic(topic)
        if self.tags and not event_types:
            raise InvalidQuery(
                repr(self), "it has tags and no event types: name the types, which say where the tags are"
            )
        if not event_types and (self.topic is None or topic_term(self.topic.tokens) is None):
            raise InvalidQuery(
                repr(self), "it selects from the whole log: give event types, or a topic with a first token"
            )

    def __repr__(self) -> str:
        parts = [each if isinstance(each, str) else each.__name__ for each in self.event_types]
        parts += [f"tags={self.tags!r}"] if self.tags else []
        parts += [f"topic={self.topic.text!r}"] if self.topic else []
        return f"EventQuery({', '.join(parts)})"

    def __eq__(self, other: object) -> bool:
        return isinstance(other, EventQuery) and self._key == other._key

    def __hash__(self) -> int:
        return hash(self._key)

    @property
    def _key(self) -> tuple[object, ...]:
        return (self.event_types, tuple(self.tags.items()), self.topic)


def _checked_tags(tags: Any) -> dict[str, Any]:
    if tags is not None and not isinstance(tags, Mapping):
        raise InvalidQuery(f"EventQuery(tags={tags!r})", 'tags is a dict, as in {"email": "ann@x.org"}')
    return dict(tags or {})


def _checked_topic(topic: Any) -> TopicPattern | None:
    if topic is not None and not isinstance(topic, (str, TopicPattern)):
        raise InvalidQuery(f"EventQuery(topic={topic!r})", "topic is a topic pattern, as a str")
    pattern = TopicPattern(topic) if isinstance(topic, str) else topic
    try:
        (pattern.text if pattern else "").encode()
    except UnicodeEncodeError as error:
        raise InvalidQuery(
            f"EventQuery(topic={topic!a})", f"it is not valid Unicode ({error.reason})"
        ) from None
    return pattern


Queries: TypeAlias = EventQuery | LogFilter | Iterable[EventQuery | LogFilter]
"""One query, or several, which select what one of them selects."""


class Wanted(NamedTuple):
    """One way in which an event may be selected.

    Attributes:
        facet: What the event is found by.
        term: The term that it has.
        also: Further terms that it has.
        rest: What its header must be.
    """

    facet: Facet
    term: bytes
    also: tuple[tuple[Facet, bytes], ...]
    rest: LogFilter

    def matches(self, record: Record, registry: EventRegistry) -> bool:
        """Whether ``record`` is selected."""
        return self.rest.matches(record) and all(
            each in terms_of(record, facet, registry) for facet, each in ((self.facet, self.term), *self.also)
        )


Find: TypeAlias = Callable[[Wanted, int], Iterable[Placed]]


class Condition(NamedTuple):
    """What must not be recorded after a position; see `Append`.

    Attributes:
        wanted: Each way in which an event may stand against it.
        after: Exclusive.
        registry: By whose classes and upcasts events are read.
        queries: As they were given.
        facets: What the index must have.
    """

    wanted: tuple[Wanted, ...]
    after: int
    registry: EventRegistry
    queries: tuple[EventQuery | LogFilter, ...]
    facets: frozenset[Facet]

    @property
    def text(self) -> str:
        """The queries as text."""
        return " | ".join(map(repr, self.queries))

    def check_position(self, end: int) -> None:
        """Refuse a position that the log does not have yet: it is that of another store, or was made up.

        Raises:
            InvalidQuery: The log ends at ``end``, before the position.
        """
        if self.after > end:
            raise InvalidQuery(
                self.text,
                f"after={self.after} is beyond the end of the log, {end}: pass the position of a `Selection` of this"
                " store, or of an event that was read from it",
            )

    def check(self, find: Find) -> None:
        """Refuse if an event stands against it.

        Args:
            find: As for `selected`.

        Raises:
            AppendConditionFailed: One does.
        """
        if standing := [*islice(self.selected(find), MAX_STANDING)]:
            raise self.failed(standing)

    def selected(self, find: Find) -> Iterator[Placed]:
        """The records after `after` that are selected, each once, in no order.

        Args:
            find: The records after a position that have the term of a `Wanted`. There may be others among them.
        """
        seen: set[int] = set()
        for wanted in self.wanted:
            for stored in find(wanted, self.after):
                position, record = stored
                if position not in seen and wanted.matches(record, self.registry):
                    seen.add(position)
                    yield stored

    def matches(self, record: Record) -> bool:
        """Whether ``record`` is selected."""
        return any(wanted.matches(record, self.registry) for wanted in self.wanted)

    def failed(self, standing: Iterable[Placed]) -> AppendConditionFailed:
        """The error for the events that stand against it."""
        events = [_standing(each) for each in sorted(standing, key=itemgetter(0))]
        return AppendConditionFailed(self.text, self.after, events)


def _standing(stored: Placed) -> StandingEvent:
    position, record = stored
    return StandingEvent(
        position,
        record.event_type,
        record.event_id,
        record.topic,
        record.aggregate_type,
        record.aggregate_id,
        record.aggregate_version,
    )


def condition_of(
    queries: Queries, after: int, registry: EventRegistry, command_id: str | None = None
) -> Condition:
    """The condition that no event after a position is selected.

    Args:
        queries: What selects events.
        after: Exclusive.
        registry: The classes that are meant by now.
        command_id: Selects the last event of this command, too.

    Raises:
        InvalidQuery: Something is not a query, has a tag that an event type lacks, or a value that the tag cannot have.
        UnknownEventType, AmbiguousEventType: A name with tags has no class, or several.
    """
    given: Any = queries
    is_one = isinstance(given, (EventQuery, LogFilter, str, type)) or not isinstance(given, Iterable)
    several: list[Any] = [given] if is_one else [*given]
    if not several and command_id is None:
        raise InvalidQuery("()", "there is none; give one or more EventQuery")
    wanted: dict[Wanted, None] = {}
    for query in several:
        if isinstance(query, LogFilter):
            wanted.update(dict.fromkeys(_of_filter(query)))
        elif isinstance(query, EventQuery):
            wanted.update(dict.fromkeys(_of_query(query, registry)))
        else:
            name = query.__name__ if isinstance(query, type) else "UserRegistered"
            raise InvalidQuery(repr(query), f"it is not an EventQuery; make one: EventQuery({name})")
    if command_id is not None:
        of_command = Wanted(COMMANDS, term(COMMANDS, command_id), (), LogFilter())
        wanted[of_command] = None
    facets = frozenset([each.facet for each in wanted])
    return Condition(tuple(wanted), after, registry, tuple(several), facets)


class _Place(NamedTuple):
    """Where a tag of a query is in events of one class.

    Attributes:
        event_type: The class.
        fields: Its fields that have the tag.
        facet: What they are found by.
        as_given: Whether the fields record each value of the right type as it is given.
    """

    event_type: type[DomainEvent]
    fields: TaggedFields
    facet: Facet
    as_given: bool


class _Shape(NamedTuple):
    """What all queries with the same tags say of events of one class, whatever the values.

    Attributes:
        places: Of the tags, in order.
        rest: What the header must be.
    """

    places: tuple[_Place, ...]
    rest: LogFilter


_SHAPES: WeakKeyDictionary[EventRegistry, tuple[int, dict[object, tuple[_Shape, ...]]]] = WeakKeyDictionary()
"""By registry, for the classes that it has: a decision asks for the same with other values each time."""
_MOST_SHAPES = 1024


def _shapes_of(query: EventQuery, registry: EventRegistry) -> tuple[_Shape, ...]:
    generation = registry.generation + event_registry.generation  # which grows when aggregates are defined
    known_at, known = _SHAPES.get(registry, (-1, {}))
    if known_at != generation or len(known) >= _MOST_SHAPES:
        known = {}
        _SHAPES[registry] = generation, known
    key = query.event_types, tuple(query.tags), query.topic
    found = known.get(key)
    if found is None:
        names = sorted(recorded_names(query.event_types, registry))
        found = known[key] = tuple(_shape(query, name, registry.resolve(name)) for name in names)
    return found


def _shape(query: EventQuery, name: str, event_type: type[DomainEvent]) -> _Shape:
    tags = tagged_fields(event_type)
    places: list[_Place] = []
    for tag in query.tags:
        if tag not in tags:
            known = f"it has {', '.join(sorted(tags))}" if tags else "it has none"
            remedy = f"mark a field: `{tag}: Annotated[str, Tag()]`"
            raise InvalidQuery(repr(query), f"{name} has no tag {tag!r} ({known}); {remedy}")
        fields = tags[tag]
        facet = Facet("tag", name, tag, fields.names, event_type.schema_version())
        as_given = all(is_recorded_as_given(event_type, each) for each in fields.names)
        places.append(_Place(event_type, fields, facet, as_given))
    return _Shape(tuple(places), LogFilter(query.topic, frozenset({name})))


def _of_query(query: EventQuery, registry: EventRegistry) -> Iterator[Wanted]:
    if not query.tags:
        names = recorded_names(query.event_types, registry) if query.event_types else None
        yield from _of_filter(LogFilter(query.topic, names))
        return
    for shape in _shapes_of(query, registry):
        terms: list[tuple[Facet, bytes]] = []
        for place, (tag, given) in zip(shape.places, query.tags.items(), strict=True):
            value = _fit(query, tag, given, place.fields)
            if not place.as_given:
                value = _recorded(query, place, value)
            terms.append((place.facet, _term(query, tag, place.facet, value)))
        (first, first_term), *also = terms
        yield Wanted(first, first_term, tuple(also), shape.rest)


def _term(query: EventQuery, tag: str, facet: Facet, value: TagValue) -> bytes:
    """The term of one value of a tag.

    Raises:
        InvalidQuery: It is not valid Unicode, which no event has.
    """
    try:
        return term(facet, as_text(value))
    except UnicodeEncodeError as error:
        raise InvalidQuery(ascii(query), f"the tag {tag!r} is not valid Unicode ({error.reason})") from None


def _recorded(query: EventQuery, place: _Place, value: TagValue) -> TagValue:
    """``value`` as the fields that have the tag record it.

    Raises:
        InvalidQuery: They record it differently.
    """
    found = {as_recorded(place.event_type, name, value): name for name in place.fields.names}
    if len(found) > 1:
        shown = " and ".join(f"{each!r} in {name}" for each, name in found.items())
        raise InvalidQuery(
            repr(query),
            f"{place.event_type.__name__} records {value!r} as {shown}, which have one tag: give them two",
        )
    return next(iter(found))


def _fit(query: EventQuery, tag: str, value: Any, fields: TaggedFields) -> TagValue:
    """``value`` as the tag has it.

    Raises:
        InvalidQuery: No value of the tag is like this.
    """
    value = plain(value)  # a member of an enumeration is recorded as its value
    if type(value) in fields.kinds and isinstance(value, (str, int, UUID)):
        return value
    if isinstance(value, str) and UUID in fields.kinds:
        try:
            return UUID(value)
        except ValueError:
            pass
    kinds = " or ".join(sorted(kind.__name__ for kind in fields.kinds))
    raise InvalidQuery(repr(query), f"the tag {tag!r} is a {kinds}, not {value!r}")


def _of_filter(matching: LogFilter) -> Iterator[Wanted]:
    topics = [topic_term(pattern.tokens) for pattern in matching.topics or ()]
    if topics and None not in topics:
        yield from (
            Wanted(TOPICS, topic, (), matching) for topic in dict.fromkeys(topics) if topic is not None
        )
    elif matching.event_types is not None:
        for name in sorted(matching.event_types):
            facet = Facet("type", name)
            yield Wanted(facet, term(facet), (), matching)
    else:
        raise InvalidQuery(
            repr(matching), "it selects from the whole log: give event types, or a topic with a first token"
        )
