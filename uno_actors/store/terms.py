"""Terms: what an index of the log has for each record, so that a condition is checked without reading the log.

A `Facet` is one thing by which events are found: a tag of one event type, the type itself, the topic, or the command.
A term stands for one facet and one value. An index maps each term to the positions of the records that have it. It is
derived from the log alone. A store indexes a facet from the first time that a condition needs it.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import lru_cache
from hashlib import blake2b
from itertools import islice
from math import inf
from typing import Literal, NamedTuple

from uno_actors.domain.events import EventRegistry
from uno_actors.domain.payload_reader import tags_of
from uno_actors.domain.tags import texts_of
from uno_actors.errors import EventNotReadable
from uno_actors.store.codec import Record, read_payload

Placed = tuple[int, Record]
"""A position, and the record there; a `StoredRecord` is one."""
PART = 2000
"""Records that are indexed in one transaction when an index is far behind the log."""
LOOK_EVERY = 1.0
"""Seconds between two looks at how far a facet is behind the log."""
TERM_BYTES = 16


class Facet(NamedTuple):
    """One thing by which events are found.

    Attributes:
        kind: ``tag``, ``type``, ``topic``, or ``command`` for the command whose last event it is.
        event_type: For a tag or a type: the name under which the events are recorded.
        tag: The name of the tag.
        fields: The fields of the payload that have the tag.
        version: The schema version of the event type. Older events are read through its upcasts.
    """

    kind: Literal["tag", "type", "topic", "command"]
    event_type: str = ""
    tag: str = ""
    fields: tuple[str, ...] = ()
    version: int = 0

    @property
    def key(self) -> bytes:
        """Identifies the facet in a store."""
        return blake2b(f"facet\0{self}".encode(), digest_size=TERM_BYTES).digest()

    def __str__(self) -> str:
        fields = ",".join(self.fields)
        return f"{self.kind}\0{self.event_type}\0{self.tag}\0{fields}\0{self.version}"


TOPICS = Facet("topic")
COMMANDS = Facet("command")


def is_fresh(looked: Mapping[Facet, float], facets: Iterable[Facet], now: float) -> bool:
    """Whether the last look at how far an index is behind is fresh enough for all ``facets``.

    Each facet is behind by itself: only appends under conditions that need it, or writers that know it, move it.

    Args:
        looked: When that of each facet was.
        facets: What a condition needs.
        now: On the same clock, in seconds.
    """
    return all(now < looked.get(facet, -inf) + LOOK_EVERY for facet in facets)


def term(facet: Facet, value: str = "") -> bytes:
    """The term of one facet and one value."""
    digest = _begun(facet).copy()
    digest.update(value.encode())
    return bytes(digest.digest())


@lru_cache(maxsize=1024)
def _begun(facet: Facet) -> blake2b:
    """The digest of what all terms of one facet begin with."""
    return blake2b(f"{facet}\0".encode(), digest_size=TERM_BYTES)


def terms_of(record: Record, facet: Facet, registry: EventRegistry) -> Sequence[bytes]:
    """The terms that ``record`` has of one facet.

    Args:
        record: Any record.
        facet: Any facet.
        registry: Finds the upcasts for events of older schema versions.

    Raises:
        CorruptRecord: The payload is not a map of fields.
        EventNotReadable: The event has a newer schema version, or cannot be upcast.
        UnknownEventType, AmbiguousEventType: As for `to_event`, for an event of an older schema version.
    """
    match facet.kind:
        case "topic":
            return [] if record.topic is None else [term(facet, each) for each in _topic_values(record.topic)]
        case "command":
            return [] if record.answered is None else [term(facet, record.answered)]
    if record.event_type != facet.event_type:
        return []
    if facet.kind == "type":
        return [term(facet)]
    fields = _fields(record, facet, registry)
    return [term(facet, text) for name in facet.fields for text in texts_of(fields.get(name))]


def _topic_values(topic: str) -> Iterator[str]:
    """The topic itself, and what may precede a wildcard."""
    yield f"={topic}"
    tokens = topic.split(".")
    for count in range(1, len(tokens)):
        yield ".".join(tokens[:count])


def topic_term(tokens: Sequence[str]) -> bytes | None:
    """A term that each topic has which a pattern of these tokens matches; ``None`` if it begins with a wildcard."""
    literal = next((at for at, token in enumerate(tokens) if token in ("*", ">")), len(tokens))
    if literal == len(tokens):
        return term(TOPICS, f"={'.'.join(tokens)}")
    return term(TOPICS, ".".join(tokens[:literal])) if literal else None


def _fields(record: Record, facet: Facet, registry: EventRegistry) -> dict[str, object]:
    """The payload as the class that defines the facet has it."""
    if record.version == facet.version:
        return read_payload(record)
    if record.version > facet.version:
        reason = "a newer program recorded it; use that here too"
        raise EventNotReadable(
            record.event_type, record.version, facet.version, reason, f"event {record.event_id}"
        )
    event_type = registry.resolve(record.event_type, record.aggregate_type)
    return registry.upcast(
        record.event_type,
        record.version,
        facet.version,
        read_payload(record, tags_of(event_type)),
        event_type=event_type,
        where=f"event {record.event_id}",
    )


class TermIndex:
    """An index in memory: of a whole log, or of the records that another index lacks.

    Attributes:
        facets: What is indexed, each with the registry by which it is read.
    """

    def __init__(self) -> None:
        self.facets: dict[Facet, EventRegistry] = {}
        self._found: dict[bytes, list[Placed]] = {}

    def require(self, facet: Facet, registry: EventRegistry, records: Iterable[Placed]) -> None:
        """Index by ``facet`` too, from now on.

        Args:
            facet: What records are found by.
            registry: As for `terms_of`.
            records: Those that there are; read only if the facet is new here.

        Raises:
            UnoError: As `terms_of`.
        """
        if facet in self.facets:
            return
        found: dict[bytes, list[Placed]] = {}
        for stored in records:
            for each in terms_of(stored[1], facet, registry):
                found.setdefault(each, []).append(stored)
        self._found |= found
        self.facets[facet] = registry

    def add_to_all(self, stored: Placed) -> None:
        """Index a record, the next one of its log. A facet by which it cannot be read is dropped."""
        for facet, registry in tuple(self.facets.items()):
            try:
                for each in terms_of(stored[1], facet, registry):
                    self._found.setdefault(each, []).append(stored)
            except Exception:  # noqa: BLE001 - an upcast may raise anything; a condition that needs it gets the error
                del self.facets[facet]

    def after(self, wanted: bytes, position: int) -> Iterator[Placed]:
        """The indexed records after a position that have a term, in order."""
        found = self._found.get(wanted, [])
        first = len(found)
        while first and found[first - 1][0] > position:  # mostly few: decisions are made near the end
            first -= 1
        return islice(found, first, None)

    def terms(self) -> Iterator[tuple[bytes, int]]:
        """Each term, with the position of each record that has it."""
        return ((each, position) for each, found in self._found.items() for position, _ in found)
