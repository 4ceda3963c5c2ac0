"""The values of the port: everything that goes into a store or comes out."""

from dataclasses import dataclass
from datetime import datetime
from enum import Enum
from typing import Generic, Literal, NamedTuple

from typing_extensions import TypeVar, override

from uno_actors.domain.events import DomainEvent
from uno_actors.store.codec import Record, StreamId
from uno_actors.store.conditions import Condition

PAGE = 512
"""Records read at once: few enough to leave the event loop within milliseconds."""


class StreamState(Enum):
    """The class of `ANY` and `EXISTS`: values that stay the same when they are copied or pickled."""

    ANY = "any version"
    EXISTS = "a stream that exists"

    @override
    def __repr__(self) -> str:
        return self.name


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """A checkpoint, to be moved in the transaction that records events: `EventStore.append`.

    A consumer that records its results together with its checkpoint takes in each event once, even if two processes
    run it: the second one gets `CheckpointConflict`, and records nothing. A checkpoint moves forward only, so to give
    ``name`` and ``position`` is enough where positions grow.

    Attributes:
        name: The handler whose checkpoint it is, or the name of any other consumer; see `EventStore.checkpoints`.
        position: How far it has come: the position of an event in any log, or any number that grows; 0 or more, and
            below 2**63.
        was: Where the checkpoint is expected, 0 if there is none yet; ``None`` for any place before ``position``.
        may_go_back: Whether ``position`` may be where the checkpoint is, or before that.
    """

    name: str
    position: int
    was: int | None = None
    may_go_back: bool = False


class Append(NamedTuple):
    """A request to record events together.

    Attributes:
        records: One that brings its own ``aggregate_version`` is recorded in that place, or the request fails. There
            may be none if there is a ``checkpoint``.
        expected_version: The version of their one stream before them, or `EXISTS`; ``None`` asks for no check.
        checkpoint: A checkpoint that moves with them, or the request fails.
        condition: The request fails if an event stands against it, those of earlier requests included.
    """

    records: tuple[Record, ...]
    expected_version: int | Literal[StreamState.EXISTS] | None = None
    checkpoint: Checkpoint | None = None
    condition: Condition | None = None


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


class Selection(NamedTuple):
    """The events that a query selects, and the position up to which the log was read.

    Attributes:
        events: In the order of the log.
        position: For ``after`` of `EventStore.append`. It may be beyond the last of the events.
    """

    events: list[RecordedEvent]
    position: int


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
