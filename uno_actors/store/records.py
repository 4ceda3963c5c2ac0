"""The values of the port: everything that goes into a store or comes out."""

from datetime import datetime
from typing import Generic, NamedTuple

from typing_extensions import TypeVar

from uno_actors.domain.events import DomainEvent
from uno_actors.store.codec import Record, StreamId

PAGE = 512
"""Records read at once: few enough to leave the event loop within milliseconds."""


class Append(NamedTuple):
    """A request to record events together.

    ``expected_version`` is the version of their one stream before them; ``None`` asks for no check. A record
    that brings its own ``aggregate_version`` is recorded in that place or the request fails.
    """

    records: tuple[Record, ...]
    expected_version: int | None = None


class Appended(NamedTuple):
    """The result of an `Append`: the position of each record, and the records as stored.

    Positions of one log are a range. Only an append to several streams of a store with several logs has others.
    """

    positions: range | tuple[int, ...]
    records: tuple[Record, ...]


class StoredRecord(NamedTuple):
    """A record and its place in the log."""

    position: int
    record: Record


class Heading(NamedTuple):
    """A place in the log, and whose event is there: all that is needed to notice that a stream has grown.

    Attributes:
        position: Place in the log.
        aggregate_type: As in the record, like the others.
        aggregate_id: ``None`` for an event that stands in the log alone.
        aggregate_version: Place in its stream.
    """

    position: int
    aggregate_type: str | None
    aggregate_id: str | None
    aggregate_version: int | None


E_co = TypeVar("E_co", bound=DomainEvent, default=DomainEvent, covariant=True)

E = TypeVar("E", bound=DomainEvent)


class RecordedEvent(NamedTuple, Generic[E_co]):
    """An event and its place in the log."""

    position: int
    event: E_co


class DeadLetter(NamedTuple):
    """An event that a handler could not handle, and why.

    Attributes:
        handler: Name of the handler; with ``position`` it names the dead letter.
        position: Place of the event in the log.
        event_type: Type of the event.
        attempts: How often it was tried.
        error: Class name and text of the last exception.
        traceback: The traceback of the last attempt.
        first_failed: When the first attempt failed.
        last_failed: When the last attempt failed.
    """

    handler: str
    position: int
    event_type: str
    attempts: int
    error: str
    traceback: str
    first_failed: datetime
    last_failed: datetime


class ViewChange(NamedTuple):
    """One entry of a view that a projection writes, or removes if ``value`` is ``None``.

    Attributes:
        view: Name of the view: 1 to 255 bytes and no NUL.
        key: 1 to 250 bytes; a view is read in their order.
        value: Any bytes.
    """

    view: str
    key: bytes
    value: bytes | None


class Snapshot(NamedTuple):
    """The state of an aggregate at one version of its stream.

    Attributes:
        stream: The stream of the aggregate; there is one snapshot for each.
        version: The number of events in the state.
        schema_version: The schema version of the state, from the class of the aggregate.
        state: The state as msgpack.
        taken_at: When it was taken; aware, in UTC.
    """

    stream: StreamId
    version: int
    schema_version: int
    state: bytes
    taken_at: datetime
