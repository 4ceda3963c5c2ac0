"""The facts of an inquiry: values from the store, from the processes that run systems on it, and from the nodes.

What a process knows travels to others as JSON, see `Question` and `ProcessFacts`.
"""

from base64 import b64decode, b64encode
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Literal, Self

from pydantic import TypeAdapter

from uno_actors.flight_recorder.steps import Step
from uno_actors.handlers.control import HandlerInfo
from uno_actors.handlers.partitions import whole_name
from uno_actors.handlers.requests import Pause
from uno_actors.scheduling.entries import ScheduleInfo
from uno_actors.store.codec import StreamId, pack, unpack
from uno_actors.store.records import DeadLetter, StoredRecord

LARGEST_PAYLOAD = 1_000
"""Bytes of the payload of a record that travels with a question; a larger one is left out."""

# --- the store ---


@dataclass(frozen=True, slots=True)
class Searched:
    """How far the log was searched.

    Attributes:
        events: Number of events that were looked at, the newest first.
        total: Number of positions in the logs.
        is_whole: Whether the search came to the first event, or had found all before.
    """

    events: int = 0
    total: int = 0
    is_whole: bool = True


@dataclass(frozen=True, slots=True)
class LogFacts:
    """What the log has of an id.

    Attributes:
        event: The event of this id.
        of_command: The events that the command of this id has recorded, in order.
        effects: Events that the event or the command has caused, directly or not, in order.
        causes: The chain of events that have caused it, the nearest first.
        correlated: Events with this correlation id, in order; at most `MOST` of them.
        correlated_total: Their number.
        searched: How far the log was searched.
        similar: Ids that begin like the one that was asked for.
    """

    event: StoredRecord | None = None
    of_command: tuple[StoredRecord, ...] = ()
    effects: tuple[StoredRecord, ...] = ()
    causes: tuple[StoredRecord, ...] = ()
    correlated: tuple[StoredRecord, ...] = ()
    correlated_total: int = 0
    searched: Searched = Searched()
    similar: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class StreamFacts:
    """What the store has of an aggregate.

    Attributes:
        stream: Its type and id.
        version: Number of its events; 0 if it has none.
        last: Its last event.
        snapshot: The version of its snapshot and when it was taken; ``None`` if it has none.
        schedules: Commands that are to be sent to it, or that it has scheduled.
    """

    stream: StreamId
    version: int
    last: StoredRecord | None = None
    snapshot: tuple[int, datetime] | None = None
    schedules: tuple[ScheduleInfo, ...] = ()


@dataclass(frozen=True, slots=True)
class ScheduleFacts:
    """What the store has of something that was scheduled.

    Attributes:
        id: Its id.
        key: Its key.
        entry: What is to be sent; ``None`` if nothing is.
        is_listed: Whether the scheduler has it in its list.
        last: The last event of its times, a `uno_actors.domain.schedules.Fired` or the like; ``None`` before the first.
        sent: The id of the command that was sent last.
        due: When that was due.
        to: The aggregate that it was for.
        recorded: The last event that it has recorded there; ``None`` if none was found.
    """

    id: str
    key: str
    entry: ScheduleInfo | None = None
    is_listed: bool = True
    last: StoredRecord | None = None
    sent: str | None = None
    due: datetime | None = None
    to: str = ""
    recorded: StoredRecord | None = None


@dataclass(frozen=True, slots=True)
class HandlerFacts:
    """What the store has of a handler, or of one of its partitions.

    Attributes:
        info: Its position, lag, reported state and requests.
        seconds: Age of the next event after its position; 0 if there is none.
        pause: The pause that is requested.
        is_leased: Whether a process has the handler's lease, and so runs it.
        is_building: Whether it builds a view that readers do not get yet.
        letters: Its dead letters.
    """

    info: HandlerInfo
    seconds: float = 0.0
    pause: Pause | None = None
    is_leased: bool = False
    is_building: bool = False
    letters: tuple[DeadLetter, ...] = ()

    @property
    def name(self) -> str:
        """Its name, that of the partition if it is one."""
        return self.info.name


# --- processes ---

Stage = Literal["waits", "is decided", "loads", "is recorded", "travels", "has no node", "is over"]
"""How far a command has come in a process: it waits in the mailbox; its method runs; its aggregate loads; its events
wait for the store; another node has it; no node serves it; or its sender's time was over before it was decided."""


@dataclass(frozen=True, slots=True)
class CommandFacts:
    """A command that a process has and that is not answered.

    Attributes:
        command_id: Its id.
        command: Its class.
        aggregate_type: Of the aggregate that it is for.
        aggregate_id: Likewise.
        stage: How far it has come.
        seconds: Since it was sent, or since its stage began; ``None`` if that is not known.
        place: Its place in the mailbox, from 1.
        waiting: Commands in the mailbox.
        behind: The class of the command that is before it: the one that is decided now, or the first in the mailbox.
        behind_seconds: Since when that is decided.
        line: The line of the program that is being executed for the command that is decided now.
        node: The node that has it.
        obstacle: What else the aggregate waits for.
    """

    command_id: str
    command: str
    aggregate_type: str
    aggregate_id: str
    stage: Stage
    seconds: float | None = None
    place: int | None = None
    waiting: int = 0
    behind: str | None = None
    behind_seconds: float | None = None
    line: str | None = None
    node: str | None = None
    obstacle: str | None = None


@dataclass(frozen=True, slots=True)
class AggregateFacts:
    """An aggregate in the memory of a process.

    Attributes:
        aggregate_type: Its type.
        aggregate_id: Its id.
        version: The version of its state; ``None`` while it is not loaded.
        waiting: Commands in its mailbox.
        recording: Commands whose events wait for the store.
        idle: Seconds since it had something to do.
        obstacle: What its commands wait for; ``None`` if for nothing.
        deciding: The class of the command that is decided now.
        line: The line of the program that is being executed for that.
    """

    aggregate_type: str
    aggregate_id: str
    version: int | None
    waiting: int
    recording: int
    idle: float
    obstacle: str | None = None
    deciding: str | None = None
    line: str | None = None


@dataclass(frozen=True, slots=True)
class DeadFacts:
    """A message that was told and will not be handled; see `uno_actors.actors.dead_messages.DeadMessage`."""

    actor: str
    message: str
    reason: str
    at: datetime


@dataclass(frozen=True, slots=True)
class RunningHandler:
    """A handler in a process that can run it.

    Attributes:
        name: Its name.
        state: See `uno_actors.handlers.subscription.HandlerStatistics`.
        is_leased: Whether this process runs it.
        position: All events up to here are done.
        wants: The positions of those events of the question that it subscribes to.
        takes: What it subscribes to, in words.
        start: Where it begins when it is new.
        began: The position after which it began, if it was new in this process; ``None`` if that is not known.
        busy_at: Position of the event that it handles now.
        busy_for: Since when, in seconds; also of a call that it no longer waits for.
        line: The line of its code that runs or waits now.
        failing_at: Position of the event at which it has failed.
        attempts: Attempts at that event that have failed.
        max_attempts: Attempts after which an event becomes a dead letter.
        error: Of the last attempt.
        restart_in: Seconds until its supervisor starts it again; ``None`` if it does not wait for that.
        supervisor: The name of its supervisor.
        gave_up: Why its supervisor has given up; ``None`` if it has not.
        rate: Positions of the log that it passes per second; ``None`` if that was not measured.
    """

    name: str
    state: str
    is_leased: bool
    position: int
    wants: tuple[int, ...] = ()
    takes: str = "every event"
    start: str = "latest"
    began: int | None = None
    busy_at: int | None = None
    busy_for: float = 0.0
    line: str | None = None
    failing_at: int | None = None
    attempts: int = 0
    max_attempts: int = 0
    error: str | None = None
    restart_in: float | None = None
    supervisor: str = ""
    gave_up: str | None = None
    rate: float | None = None


@dataclass(frozen=True, slots=True)
class ChildFacts:
    """An actor or a supervisor in a process.

    Attributes:
        name: Its name.
        kind: ``actor`` or ``supervisor``.
        state: See `uno_actors.supervision.child.TreeNode`.
        waiting: Messages in its mailbox.
        restarts: How often it was restarted.
        supervisor: The name of its supervisor; empty if it has none.
        restart_in: Seconds until its supervisor starts it again; ``None`` if it does not wait for that.
        doing: What an actor is handling, since when and at which line.
        gave_up: Why a supervisor has given up.
        children: Of a supervisor: the names and states of its children.
    """

    name: str
    kind: str
    state: str
    waiting: int = 0
    restarts: int = 0
    supervisor: str = ""
    restart_in: float | None = None
    doing: str | None = None
    gave_up: str | None = None
    children: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True, slots=True)
class ProcessFacts:
    """What a process that runs a system knows.

    Attributes:
        system: Name of the system.
        process: Number of the process.
        node: Its name among the nodes.
        held_for: Seconds for which code has held its event loop; ``None`` if none does.
        line: The line of the program at which it is held.
        router: The error with which its router has failed, until it is restarted; ``None`` while it works.
        serves: The types of aggregates that it serves.
        remembers: For how many events an aggregate remembers the commands.
        commands: Commands of the id that was asked for.
        aggregates: Aggregates of the id that was asked for.
        dead: Dead messages that are commands of the id that was asked for.
        steps: The latest steps about the id that its flight recorder has, if they were asked for.
        handlers: All handlers that it can run.
        children: The actors and supervisors of the name that was asked for.
        schedules: Whether it keeps the list of what is to be sent later.
        names: Names that it knows, to find the one that was meant.
    """

    system: str
    process: int
    node: str
    held_for: float | None = None
    line: str | None = None
    router: str | None = None
    serves: tuple[str, ...] = ()
    remembers: int = 0
    commands: tuple[CommandFacts, ...] = ()
    aggregates: tuple[AggregateFacts, ...] = ()
    dead: tuple[DeadFacts, ...] = ()
    steps: tuple[Step, ...] = ()
    handlers: tuple[RunningHandler, ...] = ()
    children: tuple[ChildFacts, ...] = ()
    schedules: bool = False
    names: tuple[str, ...] = ()

    def to_json(self) -> dict[str, Any]:
        """As JSON."""
        found: dict[str, Any] = _ADAPTER.dump_python(self, mode="json")
        return found

    @staticmethod
    def from_json(found: Mapping[str, Any]) -> "ProcessFacts":
        """What `to_json` has made.

        Raises:
            ValueError: Something else.
        """
        return _ADAPTER.validate_python(found)


_ADAPTER = TypeAdapter(ProcessFacts)


@dataclass(frozen=True, slots=True)
class Silent:
    """A process that could not be asked.

    Attributes:
        process: Number of the process.
        reason: Why it has not answered.
    """

    process: int
    reason: str

    def __str__(self) -> str:
        return f"process {self.process}: {self.reason}"


@dataclass(frozen=True, slots=True)
class Question:
    """What a process is asked.

    Attributes:
        id: What was asked for.
        streams: Aggregates that belong to it.
        events: Events of which it is asked which handlers subscribe to them.
        steps: Whether the steps about the id are wanted, since the store knows nothing of it.
    """

    id: str
    streams: tuple[StreamId, ...] = ()
    events: tuple[StoredRecord, ...] = ()
    steps: bool = False

    def to_json(self) -> dict[str, Any]:
        """As JSON."""
        return {
            "id": self.id,
            "streams": [list(stream) for stream in self.streams],
            "events": [[stored.position, _packed(stored)] for stored in self.events],
            "steps": self.steps,
        }

    @classmethod
    def from_json(cls, found: Mapping[str, Any]) -> Self:
        """What `to_json` has made.

        Raises:
            KeyError, TypeError, ValueError, CorruptRecord: Something else.
        """
        return cls(
            str(found["id"]),
            tuple(StreamId(str(kind), str(name)) for kind, name in found["streams"]),
            tuple(
                StoredRecord(int(position), unpack(b64decode(packed), "question"))
                for position, packed in found["events"]
            ),
            found.get("steps") is True,
        )


def _packed(stored: StoredRecord) -> str:
    record = stored.record._replace(reply=None)
    if len(record.payload) > LARGEST_PAYLOAD:
        record = record._replace(payload=b"\x80")  # an empty map
    return b64encode(pack(record)).decode()


# --- nodes ---


@dataclass(frozen=True, slots=True)
class NodeFacts:
    """A node, as it is announced.

    Attributes:
        name: Its name.
        host: Name of its machine.
        process: Number of its process there.
        serves: The types of aggregates that it serves.
        unreachable: Why it does not answer; ``None`` if it does, or was not asked.
        is_leaving: Whether it is about to stop.
    """

    name: str
    host: str = ""
    process: int = 0
    serves: tuple[str, ...] = ()
    unreachable: str | None = None
    is_leaving: bool = False


# --- all of them ---


@dataclass(frozen=True, slots=True)
class Facts:
    """All that was found out for an inquiry.

    Attributes:
        id: What was asked for.
        now: When.
        log: What the log has.
        streams: The aggregates of this id.
        newest: The version that the aggregate has now whose command the id is; 0 if it is none.
        handlers: All handlers that have run on the store, each partition by itself.
        schedules: What was scheduled under this id or key.
        owners: The nodes to which the commands of an aggregate go, by its stream.
        processes: The processes that answered.
        silent: The processes that did not.
        nodes: The nodes that are announced.
        missing: The parts that could not be asked, each with the reason.
        ends: The last position of each log.
        names: Names of aggregates and handlers, among which the one that was meant may be.
    """

    id: str
    now: datetime
    log: LogFacts = LogFacts()
    streams: tuple[StreamFacts, ...] = ()
    newest: int = 0
    handlers: tuple[HandlerFacts, ...] = ()
    schedules: tuple[ScheduleFacts, ...] = ()
    owners: Mapping[StreamId, str] = field(default_factory=dict)
    processes: tuple[ProcessFacts, ...] = ()
    silent: tuple[Silent, ...] = ()
    nodes: tuple[NodeFacts, ...] = ()
    missing: tuple[str, ...] = ()
    ends: Sequence[int] = ()
    names: tuple[str, ...] = ()

    def running(self, name: str) -> RunningHandler | None:
        """The handler in the process that runs it, or else in one that can."""
        found = [each for process in self.processes for each in process.handlers if each.name == name]
        return next((each for each in found if each.is_leased), found[0] if found else None)

    def process_of(self, handler: str) -> ProcessFacts | None:
        """The process that runs a handler."""
        for process in self.processes:
            if any(each.name == handler and each.is_leased for each in process.handlers):
                return process
        return None

    def node(self, name: str | None) -> NodeFacts | None:
        """The node of this name."""
        return next((each for each in self.nodes if each.name == name), None)

    def handlers_named(self, name: str) -> Iterator[HandlerFacts]:
        """The handler of this name, or its partitions."""
        return (each for each in self.handlers if name in (each.name, whole_name(each.name)))
