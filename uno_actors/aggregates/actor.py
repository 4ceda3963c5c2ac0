"""Aggregates as actors: one live actor per aggregate, activated by its first command.

The actor only sequences: load, let the aggregate decide, append, adopt, reply. Commands of one aggregate run
one after the other on the event loop, ahead of the disk; their replies wait for it. At most one append of an
aggregate is under way: what is decided meanwhile forms its next one, so that the expected version of an
append never rests on events that may still fail.
"""

import asyncio
import math
from collections import OrderedDict, deque
from collections.abc import Callable, Coroutine, Iterable, Mapping
from dataclasses import dataclass
from itertools import islice
from time import monotonic
from typing import Any, Protocol, TypeVar

from typing_extensions import override

from uno_actors.actors.dead_messages import DeadMessages
from uno_actors.actors.dispatcher import Dispatcher
from uno_actors.actors.future import Future, GetTimeout
from uno_actors.aggregates.fingerprint import are_same
from uno_actors.aggregates.idempotency import (
    NO_LANDMARKS,
    CommandMemory,
    Landmarks,
    memory_of,
    pack_answer,
    recorded_reply,
    version_at,
)
from uno_actors.aggregates.journal import Journal, Outcome
from uno_actors.aggregates.snapshots import Snapshots
from uno_actors.backoff import Backoff
from uno_actors.causality import Cause, current_cause, new_id
from uno_actors.clock import Clock, Deadlines, Timer
from uno_actors.domain.aggregate import AggregateRoot, check_aggregate_id, command_method
from uno_actors.domain.commands import Command
from uno_actors.domain.events import DomainEvent
from uno_actors.errors import (
    AskTimeout,
    CallerError,
    CommandIdReused,
    CommandRejected,
    ConcurrencyConflict,
    InvalidCommand,
    MailboxFull,
    OutcomeUnknown,
    UnoError,
    WorldError,
    as_error,
    describe,
    shown,
)
from uno_actors.logs import get_logger
from uno_actors.quantities import check_duration
from uno_actors.store.codec import Record, StreamId, to_record
from uno_actors.store.port import EventStore
from uno_actors.store.records import Append, Appended, Snapshot

R = TypeVar("R")

CAPACITY = 1000
"""Commands that may wait for one aggregate."""
LOAD_BACKOFF = Backoff(initial=0.1, max=30.0, jitter=0.0)
"""How long an aggregate whose stream cannot be replayed answers with the error of the last try."""
BATCH = 64
"""Commands that one aggregate handles before the next one has its turn."""
MAX_RERUNS = 3
"""How often a command is run again after another writer was faster."""
MAX_RELOADS = 3
"""How often a stream is loaded at once if it has grown meanwhile; then the commands that wait have their turn."""
LOOKS = 8
"""At the limit, among so many of the oldest an idle aggregate is looked for when a new one comes."""
SAVE_AFTER = 0.2
"""Seconds that a snapshot waits for others, so that a hot aggregate does not cost a transaction for each."""
SLACK = 256
"""Events by which a memory that is made to reach back, beside a quarter, reaches further than it must: it is not
made anew for each of those that follow."""
LOOP_LATE = 1.0
"""Seconds beyond the time of a command after which a thread that waits for the reply gives up on the loop."""
SWEEPS = 4
"""Looks for idle aggregates in each ``passivate_after``."""


class CommandReply(Future[R]):
    """The reply to a command. Its time is kept on the loop on which the aggregates run, except for a thread that
    waits for it: that one hears, `LOOP_LATE` seconds after its time, that the loop itself is held or gone.

    Attributes:
        seconds: How long it is waited for.
    """

    seconds = math.inf

    def __init__(self, stream: StreamId, command_type: type[Command[R]]) -> None:
        self._stream = stream
        self._command_type = command_type
        self._asked = monotonic()

    @override
    def _source(self) -> str:
        return str(self._stream)

    @override
    def _wait(self, timeout: float | None) -> None:
        left = max(0.0, self._asked + self.seconds + LOOP_LATE - monotonic())
        if timeout is not None and timeout <= left:
            super()._wait(timeout)
            return
        try:
            super()._wait(left)
        except GetTimeout:
            doing = "The event loop of its system does not run, or is held by code that blocks it"
            command = self._command_type.__name__
            raise AskTimeout(str(self._stream), command, self.seconds, started=True, doing=doing) from None


class Envelope:
    """A command on its way, with what becomes of its reply."""

    __slots__ = (
        "actor",
        "after",
        "alone",
        "command",
        "future",
        "log",
        "looks_back",
        "others",
        "recorded",
        "reruns",
        "since",
        "started",
        "timer",
    )

    actor: "AggregateActor"
    since: int
    log: object
    after: int | None

    def __init__(self, command: Command[Any], future: CommandReply[Any] | None) -> None:
        self.command = command
        self.future = future
        self.reruns = 0
        self.alone = False  # its events are not to share an append with those of others
        self.started = False
        self.timer: Timer | None = None
        self.recorded: Recorded | None = None  # found in the store: it is a repetition
        self.others: tuple[int, ...] = ()  # versions whose commands look like it and are others
        self.looks_back = False  # for most commands: then none of the three below is ever set

    def look_back(self, since: int, log: object = None, after: int | None = None) -> None:
        """It may have been recorded before, further back than the memory reaches: only after these places.

        Args:
            since: Position in ``log``.
            log: A store; ``None`` for that of the system.
            after: Version of the stream; ``None`` if it is not known yet.
        """
        self.looks_back, self.since, self.log, self.after = True, since, log, after

    @property
    def withdrawn(self) -> bool:
        """Its asker was told that it will not be handled."""
        return self.future is not None and not self.started and self.future.done()

    def answer(self, result: Any) -> bool:
        """Give the asker its reply, or the error that ``result`` is; whether there is one who still waits."""
        if self.timer is not None:
            self.timer.cancel()
        future = self.future
        if future is None or future.done():
            return False
        self.future = (
            None  # frames in the error's traceback have this envelope, which must not have the error
        )
        if isinstance(result, Failed):
            future.set_exception(result.error)
        else:
            future.offer(result)
        return True


class Failed:
    """The outcome of a command that raised."""

    __slots__ = ("error",)

    def __init__(self, error: BaseException) -> None:
        self.error = error


class Recorded:
    """The outcome that a repeated command had the first time."""

    __slots__ = ("outcome",)

    def __init__(self, outcome: Any) -> None:
        self.outcome = outcome


@dataclass(slots=True)
class AggregateStatistics:
    """What the aggregates of a system have done since it started.

    Attributes:
        commands: Commands that were handled and answered with a reply.
        rejected: Commands that were rejected by a rule of the domain.
        failed: Commands that were answered with another error.
        reruns: Commands that were run again because another writer was faster or a commit failed.
        repeated: Commands that were answered with the outcome that they had the first time.
        activations: Aggregates loaded from the store.
        events_replayed: Events applied while loading.
        passivations: Idle aggregates that were let go.
    """

    commands: int = 0
    rejected: int = 0
    failed: int = 0
    reruns: int = 0
    repeated: int = 0
    activations: int = 0
    events_replayed: int = 0
    passivations: int = 0


@dataclass(frozen=True, slots=True)
class Unreadable:
    """A stream could not be replayed, ``times`` in a row, with this error; it is tried again after ``until``."""

    error: BaseException
    until: float
    times: int


class AggregateActor:
    """One live aggregate: its mailbox, its state, and the replies that wait for the disk."""

    __slots__ = (
        "_aggregates",
        "_behind",
        "_flight",
        "_landmarks",
        "_loading",
        "_mailbox",
        "_memory",
        "_reach",
        "_records",
        "_scheduled",
        "_snapshot",
        "_unreadable",
        "instance",
        "last_used",
        "stream",
    )

    def __init__(self, aggregates: "Aggregates", stream: StreamId) -> None:
        self.stream = stream
        self.instance: AggregateRoot | None = None
        self.last_used = 0.0
        self._aggregates = aggregates
        self._mailbox: deque[Envelope] | None = None  # made when a command comes, gone when it is empty
        self._flight: list[tuple[Envelope, Any]] | None = None  # replies that wait for the append under way
        self._behind: list[tuple[Envelope, Any]] | None = None  # replies that wait for the next one
        self._records: list[Record] | None = None  # events of the next append
        self._memory: CommandMemory | None = None  # made when there is something to remember
        self._reach = aggregates.remember_commands  # so many of the last events are in it
        self._landmarks: Landmarks = NO_LANDMARKS
        self._snapshot: Snapshot | None = None  # of the state after the append under way
        self._scheduled = False
        self._loading = False  # something from the store, without which nothing can be handled
        self._unreadable: Unreadable | None = None  # how the last replay of its stream has failed

    @property
    def idle(self) -> bool:
        """Whether it could be let go without anybody noticing."""
        return not (self._mailbox or self._flight or self._behind or self._loading)

    @property
    def waiting(self) -> int:
        """Commands in the mailbox."""
        return len(self._mailbox or ())

    def put(self, envelope: Envelope) -> None:
        """Accept a command, or answer it with `MailboxFull`."""
        mailbox = self._mailbox
        if mailbox is None:
            mailbox = self._mailbox = deque()
        elif len(mailbox) >= CAPACITY:
            self._aggregates.answer(self, envelope, Failed(MailboxFull(str(self.stream), CAPACITY)))
            return
        mailbox.append(envelope)
        self._schedule()

    def _schedule(self) -> None:
        if not self._scheduled and not self._loading:
            self._scheduled = True
            self._aggregates.dispatcher.post(self._run)

    def _run(self) -> None:
        """Handle the commands that wait, as far as the state allows."""
        self._scheduled = False
        self.last_used = self._aggregates.clock.monotonic()
        for _ in range(BATCH):
            if not self._mailbox or self._loading:
                break
            if self.instance is None:
                # What is not yet recorded cannot be loaded: the append under way comes first.
                if self._flight is None and not self._records:
                    self._load()
                    continue
                break
            first = self._mailbox[0]
            if (
                (first.alone or first.looks_back)
                and (self._flight or self._behind)
                and self._must_wait(first)
            ):
                break
            envelope = self._mailbox.popleft()
            if not (envelope.withdrawn or self._is_repeated(envelope, self.instance)):
                self._execute(envelope, self.instance)
            if envelope.alone:
                break
        self._flush()
        if not self._mailbox:
            self._mailbox = None
        elif self._flight is None or not (self.instance is None or self._must_wait(self._mailbox[0])):
            self._schedule()  # else what is under way comes first, and its outcome goes on from here

    def _must_wait(self, envelope: Envelope) -> bool:
        """Whether what is under way must be recorded before the command is handled."""
        return envelope.alone or (envelope.looks_back and not self._reaches_back(envelope))

    def _execute(self, envelope: Envelope, instance: AggregateRoot) -> None:
        """Let the aggregate decide. Its events and the reply join the next append; a failure undoes itself."""
        envelope.started = True
        outcome: Any
        try:
            outcome = instance.handle(envelope.command)
            records, outcome = self._to_records(instance.take_pending_events(), envelope.command, outcome)
        except BaseException as error:  # noqa: BLE001 - one aggregate's SystemExit is that aggregate's failure
            outcome, records = Failed(error), []
            if instance.pending_events or not isinstance(error, CommandRejected):
                self.instance = None  # it may have changed by half; what is recorded is whole
        if records:
            for record in records[:-1]:
                self._remember(record, None)
            self._remember(records[-1], envelope.command.command_id)
            if self._records is None:
                self._records = records
            else:
                self._records += records
        self._answer_behind(envelope, outcome)
        del outcome  # the traceback of an error keeps this frame, which must not keep the error

    def _to_records(
        self, events: list[DomainEvent], command: Command[Any], reply: Any
    ) -> tuple[list[Record], Any]:
        """The events as records, of which the last one holds the reply; and the reply, equal to that."""
        if not events:
            return [], reply
        registry, cause = self._aggregates.registry, command.causation_id
        for event in events:
            registry.check_readable(event)
        *others, last = events
        records = [to_record(event, command_causation_id=cause) for event in others] if others else []
        packed, reply = pack_answer(command, reply)
        records.append(to_record(last, command.command_id, packed, cause))
        return records, reply

    def _answer_behind(self, envelope: Envelope, outcome: Any) -> None:
        if self._behind is None:
            self._behind = []
        self._behind.append((envelope, outcome))

    # --- repeated commands ---

    def _remember(self, record: Record, answered: str | None) -> None:
        if not self._reach:
            return
        if self._memory is None:
            if answered is None:
                return
            self._memory = CommandMemory()
        self._memory.note(record.aggregate_version or 0, answered, self._reach)

    def _is_repeated(self, envelope: Envelope, instance: AggregateRoot) -> bool:
        """Whether the command was handled before, or may have been: then it is dealt with here."""
        if envelope.recorded is None:
            if envelope.looks_back and not self._reaches_back(envelope):
                self._look_first(envelope, self._reach_back(envelope, instance.version))
                return True
            if self._memory is None:
                return False
            command = envelope.command
            found = self._memory.versions(command.command_id, instance.version, self._reach)
            versions = [version for version in found if version not in envelope.others] if found else ()
            if not versions:
                return False
            envelope.recorded = self._outcome_under_way(command)
            if envelope.recorded is None:
                self._look_first(envelope, self._look_up(envelope, versions[-1]))
                return True
        envelope.started = True
        self._aggregates.statistics.repeated += 1
        self._answer_behind(envelope, envelope.recorded.outcome)
        envelope.recorded = None  # if what is under way fails, it is decided again
        return True

    def _look_first(self, envelope: Envelope, looking: Coroutine[Any, Any, None]) -> None:
        """Have ``looking`` look into the store before the command and those after it are handled."""
        self._mailbox = deque([envelope, *(self._mailbox or ())])  # it keeps its turn
        self._loading = True
        self._aggregates.start(looking)

    def _outcome_under_way(self, command: Command[Any]) -> Recorded | None:
        """The outcome of a command of this id whose events are not recorded yet; the latest if there are several."""
        under_way = [*(self._flight or ()), *(self._behind or ())]
        for envelope, outcome in reversed(under_way):
            first = envelope.command
            if first.command_id != command.command_id or isinstance(outcome, Failed):
                continue  # what has failed has no events
            if are_same(first, command):
                return Recorded(outcome)
            name, recorded = type(command).__name__, f"is under way: {type(first).__name__}"
            return Recorded(Failed(CommandIdReused(name, command.command_id, str(self.stream), recorded)))
        return None

    def _reaches_back(self, envelope: Envelope) -> bool:
        """Whether the memory holds all events among which those of the command can be."""
        if self.instance is None:
            return True  # it is loaded before anything else
        oldest = self.instance.version - self._reach
        if oldest <= 0:
            return True
        if envelope.after is not None:
            return envelope.after >= oldest
        return self._landmarks.show(oldest, envelope.since)

    async def _reach_back(self, envelope: Envelope, version: int) -> None:
        """Have the memory reach back to the first event that may be one of the command; all are recorded."""
        store = self._aggregates.store
        try:
            after = envelope.after
            if after is None:
                after, position = await version_at(store, self.stream, envelope.since, version)
                self._landmarks = self._landmarks.with_one(after, position, self._reach // 4)
            if after < version - self._reach:
                size = (version - after) * 5 // 4 + SLACK
                memory = await memory_of(store, self.stream, max(0, version - size), version, size)
                self._memory, self._reach = memory, size
            envelope.after = after
        except BaseException as error:  # noqa: BLE001 - it must be answered, whatever a store raises
            envelope.recorded = Recorded(Failed(error))
        self._loading = False
        self._schedule()

    async def _look_up(self, envelope: Envelope, version: int) -> None:
        """See in the store whether the event of ``version`` is the last of this very command."""
        try:
            record = await self._aggregates.record_at(self.stream, version)
            if record is None or record.answered != envelope.command.command_id:
                envelope.others += (version,)
            else:
                envelope.recorded = Recorded(recorded_reply(record, envelope.command))
        except BaseException as error:  # noqa: BLE001 - it must be answered, whatever a store raises
            envelope.recorded = Recorded(Failed(as_error(error, f"reading {self.stream}")))
        self._loading = False
        self._schedule()

    # --- recording ---

    def _flush(self) -> None:
        """Send the next append on its way if none is; replies that wait for none go out at once."""
        if self._flight is not None or self._behind is None:
            return
        self._flight, self._behind = self._behind, None
        records, self._records = self._records, None
        if records:
            expected = (records[0].aggregate_version or 1) - 1
            self._snapshot = self._take_snapshot(expected, expected + len(records))
            self._aggregates.journal.append(Append(tuple(records), expected), self._recorded)
        else:
            self._answer_flight()

    def _take_snapshot(self, before: int, after: int) -> Snapshot | None:
        """A snapshot, if one is due, of the state at version ``after``; it is saved when that is recorded."""
        snapshots, instance = self._aggregates.snapshots, self.instance
        if instance is None or not snapshots.due(before, after):
            return None
        return snapshots.take(instance)

    def _recorded(self, outcome: Outcome) -> None:
        snapshot, self._snapshot = self._snapshot, None
        if isinstance(outcome, Appended):
            if snapshot is not None:
                self._aggregates.save_snapshot(snapshot)
            last = outcome.records[-1].aggregate_version or 0
            if last > self._reach:
                place = outcome.positions[-1]
                self._landmarks = self._landmarks.with_one(last, place, self._reach // 4)
            self._answer_flight()
        elif isinstance(outcome, ConcurrencyConflict):
            self._run_again(outcome, [*(self._flight or ()), *(self._behind or ())])
        elif isinstance(outcome, CallerError) and len(self._flight or ()) > 1:
            # One command's event cannot be recorded, and which one is not told: each has an append of its own.
            for envelope, _ in self._flight or ():
                envelope.alone = True
            self._run_again(None, [*(self._flight or ()), *(self._behind or ())])
        else:
            flight = self._flight or []
            for envelope, result in flight:
                failed = result if isinstance(result, Failed) else self._failed(envelope, outcome)
                self._aggregates.answer(self, envelope, failed)
            self._run_again(None, self._behind or [])
        self._flush()
        if self._mailbox:
            self._schedule()

    def _failed(self, envelope: Envelope, error: UnoError) -> Failed:
        """The end of a command whose events were not, or may not have been, recorded."""
        if isinstance(error, OutcomeUnknown) and self._aggregates.remember_commands:
            since = self._aggregates.journal.position
            error = OutcomeUnknown(error.what, error.reason, envelope.command.command_id, since)
        return Failed(error)

    def _answer_flight(self) -> None:
        flight, self._flight = self._flight or [], None
        for envelope, result in flight:
            self._aggregates.answer(self, envelope, result)

    def overtaken(self, version: int) -> None:
        """The stream has come to ``version``; if that is none of ours, the state is not that of today."""
        if self.instance is None or version <= self.instance.version:
            return  # while it is loaded see `Aggregates.come_to`
        if not (
            self._flight or self._behind
        ):  # else the append under way meets the conflict, and all begins anew
            self.instance = None

    def _run_again(
        self, conflict: ConcurrencyConflict | None, entries: Iterable[tuple[Envelope, Any]]
    ) -> None:
        """Forget what was decided upon a state that was not recorded, and decide again on what is."""
        self.instance = self._flight = self._behind = self._records = None
        again: list[Envelope] = []
        for envelope, _ in entries:
            if conflict is not None:
                envelope.reruns += 1
                if envelope.reruns > MAX_RERUNS:
                    self._aggregates.answer(self, envelope, Failed(conflict))
                    continue
                if not envelope.looks_back and self._aggregates.remember_commands:
                    # What the others have recorded since may be this very command, and more than is remembered.
                    envelope.look_back(0, after=conflict.expected)
            again.append(envelope)
        self._aggregates.statistics.reruns += len(again)
        if again:
            self._mailbox = deque([*again, *(self._mailbox or ())])

    def abandon(self, reason: UnoError) -> None:
        """Answer everything that waits; what is on its way to the disk may or may not be recorded."""
        sent, decided = self._flight or (), self._behind or ()
        waiting = [envelope for envelope in self._mailbox or () if not envelope.withdrawn]
        self.instance = self._mailbox = self._flight = self._behind = self._records = None
        for envelope, _ in sent:
            unknown = OutcomeUnknown(str(self.stream), str(reason))
            self._aggregates.answer(self, envelope, self._failed(envelope, unknown))
        for envelope in (*(envelope for envelope, _ in decided), *waiting):
            self._aggregates.answer(self, envelope, Failed(reason))

    # --- loading ---

    def _load(self) -> None:
        """Begin to load; or answer what waits, if the stream cannot be replayed and it is too early to try again."""
        unreadable = self._unreadable
        if unreadable is not None and self.last_used < unreadable.until:
            self._answer_all(unreadable.error)
            return
        self._loading = True
        self._aggregates.start(self._activate())

    def _answer_all(self, error: BaseException) -> None:
        waiting, self._mailbox = self._mailbox or (), None
        for envelope in waiting:
            if not envelope.withdrawn:
                self._aggregates.answer(self, envelope, Failed(error))

    def _cannot_load(self, error: BaseException) -> None:
        if not isinstance(error, WorldError):  # what is wrong with the world may be over soon
            times = 0 if self._unreadable is None else self._unreadable.times
            until = self._aggregates.clock.monotonic() + LOAD_BACKOFF.delay(times, 0.0)
            self._unreadable = Unreadable(error, until, times + 1)
        self._answer_all(error)
        self._aggregates.log.error("aggregate cannot be loaded", aggregate=str(self.stream), exc_info=error)

    async def _activate(self) -> None:
        aggregates = self._aggregates
        try:
            for _ in range(MAX_RELOADS):
                self._memory, self._reach = None, aggregates.remember_commands
                instance, replayed = await aggregates.load(
                    self.stream, look=lambda record: self._remember(record, record.answered)
                )
                heard_of = aggregates.come_to(self.stream)
                if instance.version >= heard_of:
                    break
        except BaseException as error:  # noqa: BLE001 - whatever it is, who waits must be answered
            self._loading = False
            self._cannot_load(as_error(error, f"loading {self.stream}"))
            return
        self.instance, self._unreadable = instance, None
        self._loading = False
        for envelope in self._mailbox or ():
            envelope.others = ()  # versions that were not recorded then may be another's now
        if snapshot := self._take_snapshot(instance.version - replayed, instance.version):
            aggregates.save_snapshot(snapshot)
        self._run()
        self.overtaken(heard_of)  # else the next command would be answered by a state of the past

    def __repr__(self) -> str:
        return shown(self.instance, repr) if self.instance is not None else str(self.stream)


class Aggregates:
    """The live aggregates of a system. Lives on the event loop.

    Args:
        types: The classes by type name; the mapping may grow.
        store: Where streams are loaded from.
        journal: Where events are recorded.
        dispatcher: The loop on which aggregates run.
        clock: For timeouts and passivation.
        ask_timeout: Seconds until a command without a reply times out, where its asker says nothing else.
        passivate_after: Seconds without a command after which an aggregate is let go.
        max_active: Aggregates that stay active; beyond it those idle for longest are let go.
        snapshot_every: Events between two snapshots of an aggregate; 0 or ``None`` to take none.
        remember_commands: For how many of its last events an aggregate knows the commands; 0 for none.
        start: Starts a coroutine as a task that the system knows of.
        dead: Where commands go that were told and failed.
    """

    def __init__(
        self,
        types: Mapping[str, type[AggregateRoot]],
        store: EventStore,
        journal: Journal,
        dispatcher: Dispatcher,
        clock: Clock,
        *,
        ask_timeout: float,
        passivate_after: float,
        max_active: int,
        snapshot_every: int | None,
        remember_commands: int,
        start: Callable[[Any], object],
        dead: DeadMessages,
    ) -> None:
        self._types = types
        self.journal = journal
        self.dispatcher = dispatcher
        self.statistics = AggregateStatistics()
        self.start = start
        self.snapshots = Snapshots(store, snapshot_every)
        self.remember_commands = remember_commands
        self._snapshots_to_save: dict[StreamId, Snapshot] = {}
        self._save_timer: Timer | None = None
        self._saving = asyncio.Lock()
        self._dead = dead
        self.log = get_logger(actor="aggregates")
        self.store = store
        self.registry = store.event_registry
        self.clock = clock
        self._ask_timeout = ask_timeout
        self._deadlines: Deadlines[Envelope] = Deadlines(
            clock, ask_timeout, lambda envelope: self._time_out(envelope, ask_timeout)
        )
        self._passivate_after = passivate_after
        self._max_active = max_active
        self._active: OrderedDict[StreamId, AggregateActor] = OrderedDict()
        self._sweeping: Timer | None = None
        self._come_to: dict[StreamId, int] = {}
        self._busy = 0
        self._closed: UnoError | None = None  # why it takes no more commands
        self._sweep_later()

    def __len__(self) -> int:
        return len(self._active)

    @property
    def busy(self) -> bool:
        """Whether any command is not answered yet."""
        return self._busy > 0

    @property
    def waiting(self) -> int:
        """Commands that are not answered yet."""
        return self._busy

    def oldest(self) -> float | None:
        """Seconds since the command came that waits for longest, of those with the timeout of the system."""
        return self._deadlines.longest()

    def deliver(self, stream: StreamId, envelope: Envelope, timeout: float) -> None:
        """Hand a command to the one live actor of its aggregate, activating it if need be."""
        if self._closed is not None:  # it comes from what was abandoned: nothing that it waits for will come
            self._refuse(stream, envelope, self._closed)
            return
        actor = self._active.get(stream)
        if actor is None:
            if len(self._active) >= self._max_active:
                self._make_room()
            actor = self._active[stream] = AggregateActor(self, stream)
        else:
            self._active.move_to_end(stream)
        if envelope.looks_back and envelope.log is not None and envelope.log is not self.store:
            envelope.since = 0  # positions of another log say nothing here
        self._busy += 1
        if envelope.future is not None:
            envelope.actor = actor
            if timeout == self._ask_timeout:
                self._deadlines.add(envelope)
            else:
                envelope.timer = self.clock.call_later(timeout, lambda: self._time_out(envelope, timeout))
        actor.put(envelope)

    def _refuse(self, stream: StreamId, envelope: Envelope, reason: UnoError) -> None:
        self.statistics.failed += 1
        if not envelope.answer(Failed(reason)):
            self._dead.add(str(stream), envelope.command, str(reason))

    def answer(self, actor: AggregateActor, envelope: Envelope, result: Any) -> None:
        """The end of every command: its reply or its error."""
        self._busy -= 1
        self._deadlines.discard(envelope)
        statistics = self.statistics
        if not isinstance(result, Failed):
            statistics.commands += 1
        elif isinstance(result.error, CommandRejected):
            statistics.rejected += 1
        else:
            statistics.failed += 1
        if not envelope.answer(result) and isinstance(result, Failed) and envelope.future is None:
            self._dead.add(repr(actor), envelope.command, describe(result.error))

    def heard(self, record: Record) -> None:
        """Perhaps somebody else has recorded this; see `uno_actors.aggregates.external_writes`."""
        stream = record.stream
        if stream is not None and (actor := self._active.get(stream)) is not None:
            version = record.aggregate_version or 0
            if actor.instance is None:
                self._come_to[stream] = version
            else:
                actor.overtaken(version)

    def come_to(self, stream: StreamId) -> int:
        """To which version a stream has come while its aggregate was loaded, as far as that was heard of."""
        return self._come_to.pop(stream, 0)

    async def load(self, stream: StreamId, look: Callable[[Record], object]) -> tuple[AggregateRoot, int]:
        """An instance with all of its stream applied, and how many events were replayed for it.

        ``look`` is called with as many of the last records as commands are to be remembered of.
        """
        aggregate_type = self._types[stream.aggregate_type]
        instance, replayed = await self.snapshots.load(
            aggregate_type, stream, reach=self.remember_commands, look=look
        )
        self.statistics.activations += 1
        self.statistics.events_replayed += replayed
        return instance, replayed

    async def record_at(self, stream: StreamId, version: int) -> Record | None:
        """The record of one event, if there is one."""
        page = await self.store.read_stream(stream, version - 1, 1)
        return page[0].record if page else None

    def save_snapshot(self, snapshot: Snapshot) -> None:
        """Save it behind the commands, together with others that come within `SAVE_AFTER`."""
        self._snapshots_to_save[snapshot.stream] = snapshot
        if self._save_timer is None:
            self._save_timer = self.clock.call_later(SAVE_AFTER, lambda: self.start(self.save_snapshots()))

    async def save_snapshots(self) -> None:
        """Save those that wait."""
        if self._save_timer is not None:
            self._save_timer.cancel()
            self._save_timer = None
        async with self._saving:  # whoever saves at the end waits for those under way, too
            group, self._snapshots_to_save = list(self._snapshots_to_save.values()), {}
            if group:
                await self.snapshots.save(group)

    def _time_out(self, envelope: Envelope, seconds: float) -> None:
        if envelope.future is None or envelope.future.done():
            return
        actor, started = envelope.actor, envelope.started
        doing = f"{actor!r} has {actor.waiting} commands waiting" + (
            "; the command was handled and its events wait to be recorded" if started else ""
        )
        command = type(envelope.command).__name__
        envelope.future.set_exception(AskTimeout(repr(actor), command, seconds, started=started, doing=doing))
        if not started:
            self._busy -= 1  # it is withdrawn: nobody will answer it

    # --- passivation ---

    def _sweep_later(self) -> None:
        self._sweeping = self.clock.call_later(self._passivate_after / SWEEPS, self._sweep)

    def _sweep(self) -> None:
        """Let go of aggregates that had no command for ``passivate_after``, or are too many; the oldest first."""
        now = self.clock.monotonic()
        for stream, actor in list(self._active.items()):
            if now - actor.last_used < self._passivate_after and len(self._active) <= self._max_active:
                break
            if actor.idle:
                self._let_go(stream)
        self._sweep_later()

    def _make_room(self) -> None:
        """Let go of the oldest that is idle; those found busy are in use, and so not the oldest any more."""
        for stream, actor in list(islice(self._active.items(), LOOKS)):
            if actor.idle:
                self._let_go(stream)
                return
            self._active.move_to_end(stream)

    def let_go_of_type(self, aggregate_type: str) -> None:
        """Let go of the idle aggregates of a type, so that the next command finds its new class."""
        for stream, actor in list(self._active.items()):
            if stream.aggregate_type == aggregate_type and actor.idle:
                self._let_go(stream)

    def _let_go(self, stream: StreamId) -> None:
        del self._active[stream]
        self._come_to.pop(stream, None)
        self.statistics.passivations += 1

    def close(self, reason: UnoError) -> None:
        """Stop looking for idle aggregates; who still waits, and who comes later, is answered with ``reason``."""
        self._closed = reason
        self._deadlines.close()
        for timer in (self._sweeping, self._save_timer):
            if timer is not None:
                timer.cancel()
        for actor in self._active.values():
            actor.abandon(reason)


class AcceptsCommands(Protocol):
    """What a reference needs of the system behind it."""

    def deliver(self, stream: StreamId, envelope: Envelope, timeout: float | None) -> None:
        """Hand a command over to the event loop; from any thread."""


class AggregateRef:
    """A reference to an aggregate, active or not, existing or not: making one does no I/O."""

    __slots__ = ("_system", "_type", "stream")

    def __init__(
        self, system: AcceptsCommands, aggregate_type: type[AggregateRoot], aggregate_id: str
    ) -> None:
        self.stream = StreamId(aggregate_type.aggregate_type, check_aggregate_id(aggregate_id))
        self._type = aggregate_type
        self._system = system

    def ask(
        self, command: Command[R], *, timeout: float | None = None, since: int | None = None
    ) -> Future[R]:
        """Send ``command`` and return the future reply, which comes when its events are durable.

        Args:
            command: One that the aggregate handles.
            timeout: Seconds; default is that of the system.
            since: For a command that may have been recorded longer ago than the aggregate remembers (see
                `ActorSystem`): the position in the log before which that cannot be, 0 if there is none. The
                aggregate looks through its stream from there. Default, for a command with an id that was given,
                is the event being handled; so a handler may send it again at any time.

        Raises:
            UnknownCommand: The aggregate does not handle it.
            InvalidCommand: One of its ids is no string.
            SystemNotRunning: The system was not started, or has stopped.
            ValueError: ``since`` is negative.
            InvalidNumber: ``timeout`` is no number of seconds.
            CommandRejected, CommandIdReused, ReplyNotRecorded, AskTimeout, ConcurrencyConflict: In the reply.
            MailboxFull, StoreUnavailable, StoreFull, OutcomeUnknown, WorkCancelled, ExitRaised: In the reply, and
                whatever else the aggregate raises.
        """
        if timeout is not None:
            check_duration("timeout", timeout, zero=True)
        future = CommandReply(self.stream, type(command))
        self._system.deliver(self.stream, self._envelope(command, future, since), timeout)
        return future

    def tell(self, command: Command[Any], *, since: int | None = None) -> None:
        """Send ``command`` and do not wait; if it fails, the failure is logged.

        Args:
            command: As for `ask`.
            since: As for `ask`.

        Raises:
            UnknownCommand, InvalidCommand, SystemNotRunning, ValueError: As for `ask`.
        """
        self._system.deliver(self.stream, self._envelope(command, None, since), None)

    def _envelope(self, command: Command[R], future: CommandReply[R] | None, since: int | None) -> Envelope:
        """``command`` with the event being handled as its cause, and whence to look whether it was handled."""
        command_method(self._type, command)
        ids = command.__dict__
        if not (
            type(ids["command_id"]) is str
            and type(ids["correlation_id"]) in _STR_OR_NONE
            and type(ids["causation_id"]) in _STR_OR_NONE
        ):
            command = _with_fit_ids(command)
        cause = current_cause()
        if cause is None and since is None:
            return Envelope(command, future)
        envelope = Envelope(command if cause is None else _caused(command, cause), future)
        if since is not None:
            if type(since) is not int or since < 0:
                raise ValueError(f"since must be a position of the log, or 0; found {since}")
            envelope.look_back(since)
        elif cause is not None and cause.position is not None and "command_id" in command.model_fields_set:
            # What follows from an event is recorded after it.
            envelope.look_back(cause.position, cause.log)
        return envelope

    def __repr__(self) -> str:
        return f"AggregateRef({self.stream})"


_STR_OR_NONE = frozenset({str, type(None)})


def _caused(command: Command[R], cause: Cause) -> Command[R]:
    """``command`` with ``cause`` as its own; explicit values win."""
    if command.correlation_id and command.causation_id:
        return command
    correlation_id = command.correlation_id or cause.correlation_id
    causation_id = command.causation_id or cause.causation_id
    return command.model_copy(update={"correlation_id": correlation_id, "causation_id": causation_id})


def _with_fit_ids(command: Command[R]) -> Command[R]:
    """``command``, whose ids were not validated, as in a copy that was updated; a new ``command_id`` for ``None``.

    Raises:
        InvalidCommand: One is no string.
    """
    ids: dict[str, Any] = {name: getattr(command, name) for name in Command.model_fields}
    if ids["command_id"] is None:
        ids["command_id"] = new_id()
        command = command.model_copy(update=ids)
    for name, found in ids.items():
        if not isinstance(found, str) and (found is not None or name == "command_id"):
            raise InvalidCommand(
                type(command).__name__, f"its {name} must be a string, or None; found {found!r}"
            )
    return command
