"""An aggregate as an actor, activated by its first command.

The actor only sequences: load, let the aggregate decide, append, adopt, reply. Commands of one aggregate run one
after the other on the event loop, ahead of the disk; their replies wait for it. At most one append of an aggregate
is in flight. Everything that is decided before it ends forms the next batch, so the expected version of an append
never rests on events that may still fail.
"""

from collections import deque
from collections.abc import Callable, Coroutine, Iterable, Iterator
from time import monotonic
from typing import Any, Protocol

from uno_actors.actors.dispatcher import Dispatcher
from uno_actors.aggregates import joint, observed
from uno_actors.aggregates.command_memory import NO_COMMAND, NO_LANDMARKS, CommandMemory, Landmarks
from uno_actors.aggregates.contending import Contending
from uno_actors.aggregates.envelope import CommandEnvelope, EarlierResult, Failed
from uno_actors.aggregates.idempotency import look_up, reach_back, result_under_way
from uno_actors.aggregates.joint import AppendOutcome, NotRecordedBefore, may_run_apart
from uno_actors.aggregates.journal import Journal
from uno_actors.aggregates.loading import Baseline, Loaded, Loader, LoadFailure, failed_again
from uno_actors.aggregates.recording import to_records
from uno_actors.aggregates.snapshots import Snapshots, SnapshotSaver
from uno_actors.aggregates.statistics import AggregateStatistics
from uno_actors.aggregates.turns import Turns
from uno_actors.clock import Clock
from uno_actors.domain.aggregate import AggregateRoot
from uno_actors.domain.events import EventRegistry
from uno_actors.errors import (
    CommandRejected,
    ConcurrencyConflict,
    MailboxFull,
    OutcomeUnknown,
    UnoError,
    as_error,
    describe,
    shown,
)
from uno_actors.event_contexts import EventContexts
from uno_actors.flight_recorder.ring import FlightRecorder
from uno_actors.logs import Logger
from uno_actors.observing import Observation
from uno_actors.store.codec import Record, StreamId
from uno_actors.store.port import EventStore
from uno_actors.store.records import Append, Appended, Snapshot

CAPACITY = 1000
"""Commands that may wait for one aggregate."""
BATCH = 64
"""Commands that one aggregate handles before the next one has its turn."""

Decided = tuple[CommandEnvelope, Any]
"""A command and its result, which its sender gets when the events are recorded."""


class Directory(Protocol):
    """The part of the directory, `uno_actors.aggregates.directory.Aggregates`, that the actor of an aggregate uses."""

    ask_timeout: float
    clock: Clock
    contexts: EventContexts
    dispatcher: Dispatcher
    journal: Journal
    loader: Loader
    log: Logger
    observed: Observation | None
    recorder: FlightRecorder | None
    registry: EventRegistry
    remember_commands: int
    saver: SnapshotSaver
    snapshots: Snapshots
    start: Callable[[Coroutine[Any, Any, None]], object]
    statistics: AggregateStatistics
    store: EventStore
    time: Callable[[], float] | None
    turns: Turns

    def answer(self, actor: "AggregateActor", envelope: CommandEnvelope, result: Any) -> None:
        """Answer a command."""

    def answer_unrecorded(
        self, actor: "AggregateActor", envelope: CommandEnvelope, result: Any, error: UnoError
    ) -> None:
        """Answer a command whose events were not, or may not have been, recorded."""


class AggregateActor:
    """One active aggregate: its mailbox, its state, and the replies that wait for the disk.

    Over 300 lines, because commands, loads, appends and other writers meet here in the order of one mailbox. What can
    be decided without that order is in `reruns`, `contending`, `idempotency`, `joint`, `loading` and `recording`.
    """

    __slots__ = (
        "_baseline",
        "_contending",
        "_directory",
        "_in_flight",
        "_landmarks",
        "_load_failure",
        "_loading",
        "_mailbox",
        "_memory",
        "_next_batch",
        "_next_records",
        "_scheduled",
        "_snapshot",
        "instance",
        "last_used",
        "stream",
    )

    def __init__(self, directory: Directory, stream: StreamId) -> None:
        self.stream = stream
        self.instance: AggregateRoot | None = None
        self.last_used = 0.0
        self._directory = directory
        # An idle aggregate has no mailbox and no batches: a system may keep a million of them.
        self._mailbox: deque[CommandEnvelope] | None = None
        self._in_flight: list[Decided] | None = None  # commands that wait for the append under way
        self._next_batch: list[Decided] | None = None  # commands that wait for the next one
        self._next_records: list[Record] | None = None
        self._memory = CommandMemory(directory.remember_commands)
        self._landmarks: Landmarks = NO_LANDMARKS
        self._snapshot: Snapshot | None = None  # of the state after the append under way
        self._scheduled = False
        self._loading = 0  # reads and pauses under way, without whose end no command can be handled
        self._baseline: Baseline | None = None  # from which it is loaded again
        self._contending: Contending | None = None  # for as long as other writers continue the stream too
        self._load_failure: LoadFailure | None = None

    @property
    def idle(self) -> bool:
        """Whether nothing is lost if it is passivated."""
        return not (self._mailbox or self._in_flight or self._next_batch or self._loading)

    @property
    def waiting(self) -> int:
        """Commands in the mailbox."""
        return len(self._mailbox or ())

    def put(self, envelope: CommandEnvelope) -> None:
        """Accept a command, or answer it with `MailboxFull`."""
        mailbox = self._mailbox
        if mailbox is None:
            mailbox = self._mailbox = deque()
        elif len(mailbox) >= CAPACITY:
            self._directory.answer(self, envelope, Failed(MailboxFull(str(self.stream), CAPACITY)))
            return
        mailbox.append(envelope)
        self._schedule()

    def _schedule(self) -> None:
        if not self._scheduled and not self._loading:
            self._scheduled = True
            self._directory.dispatcher.post(self._run)

    def _run(self) -> None:
        """Handle the commands that wait, as far as the state allows."""
        self._scheduled = False
        self.last_used = self._directory.clock.monotonic()
        contending = self._contending
        if contending is not None and self._in_flight is not None:
            return  # it decides nothing ahead of the disk
        joint.let_go(self._next_batch)
        for _ in range(BATCH if contending is None else contending.state.together):
            if not self._mailbox or self._loading:
                break
            if self.instance is None:
                # Events that are not recorded yet cannot be loaded: the append in flight comes first.
                if self._in_flight is None and not self._next_records:
                    self._load()
                    continue
                break
            envelope = self._mailbox[0]
            if (envelope.alone or envelope.looks_back) and self._must_wait(envelope, self.instance):
                break
            self._mailbox.popleft()
            if not envelope.withdrawn:
                self._handle(envelope, self.instance)
            if envelope.alone or envelope.leads:
                break
        self._flush()
        if not self._mailbox:
            self._mailbox = None
            if contending is not None and self._in_flight is None:
                contending.rest()
        elif self._in_flight is None or self._can_go_on(self._mailbox[0]):
            self._schedule()  # otherwise the outcome of the append in flight schedules it

    def _can_go_on(self, envelope: CommandEnvelope) -> bool:
        if self.instance is None or self._contending is not None:
            return False
        return not self._must_wait(envelope, self.instance)

    def _must_wait(self, envelope: CommandEnvelope, instance: AggregateRoot) -> bool:
        """Whether decided events must be recorded before the command is handled."""
        decided = bool(self._in_flight or self._next_batch)
        return decided and (envelope.alone or self._must_reach_back(envelope, instance))

    def _must_reach_back(self, envelope: CommandEnvelope, instance: AggregateRoot) -> bool:
        """Whether the command may have been recorded further back than the memory reaches."""
        return envelope.looks_back and not self._memory.reaches(
            instance.version, envelope.since, envelope.after, self._landmarks
        )

    def _handle(self, envelope: CommandEnvelope, instance: AggregateRoot) -> None:
        mark = self._memory.mark(envelope.command.command_id)
        # For nearly all commands none of the three holds.
        may_be_repeated = envelope.looks_back or envelope.earlier is not None or self._memory.find(mark) >= 0
        if not (may_be_repeated and self._is_repeated(envelope, instance, mark)):
            self._execute(envelope, instance, mark)

    def _execute(self, envelope: CommandEnvelope, instance: AggregateRoot, mark: bytes) -> None:
        """Let the aggregate decide. Its events and the result join the next batch; a failure leaves no trace."""
        envelope.started = True
        recorder = self._directory.recorder
        if recorder is not None:
            envelope.taken = monotonic()
        result: Any
        if self._directory.time is not None:
            instance._time = self._directory.time
        try:
            if envelope.context is None and self._directory.observed is None:
                result = instance.handle(envelope.command)
            else:
                result = observed.decide(self._directory.observed, self.stream, envelope, instance)
            events = instance.take_pending_events()
            records, result = to_records(events, envelope.command, result, self._directory.registry)
        except BaseException as error:  # noqa: BLE001 - one aggregate's SystemExit is that aggregate's failure
            result, records = Failed(error), []
            if instance.pending_events or not isinstance(error, CommandRejected):
                self.instance = None  # it may be half changed; what is recorded is whole
        if recorder is not None:
            envelope.decided, envelope.events = monotonic(), len(records)
        if records:
            version, note = instance.version, self._memory.note
            for before in range(len(records) - 1, 0, -1):
                note(version - before, NO_COMMAND)
            note(version, mark)
            if envelope.context is not None and self._directory.contexts.is_wanted:
                self._directory.contexts.keep_all(records, envelope.context)
            if self._next_records is None:
                self._next_records = records
            else:
                self._next_records += records
            envelope.end = len(self._next_records)
        self._decided(envelope, result)
        del result  # the traceback of an error keeps this frame, which must not keep the error

    def _decided(self, envelope: CommandEnvelope, result: Any) -> None:
        if self._next_batch is None:
            self._next_batch = []
        self._next_batch.append((envelope, result))

    # --- repeated commands ---

    def _is_repeated(self, envelope: CommandEnvelope, instance: AggregateRoot, mark: bytes) -> bool:
        """Whether the command was handled before, or the store must be asked; in both cases it is dealt with here."""
        if envelope.earlier is None:
            if self._must_reach_back(envelope, instance):
                self._look_first(envelope, self._reach_back(envelope, instance.version))
                return True
            found = self._memory.versions(mark, instance.version)
            versions = [version for version in found if version not in envelope.unrelated]
            if not versions:
                return False
            under_way = reversed([*(self._in_flight or ()), *(self._next_batch or ())])
            envelope.earlier = result_under_way(envelope.command, self.stream, under_way)
            if envelope.earlier is None:
                looking = look_up(self._directory.store, self.stream, envelope, versions[-1])
                self._look_first(envelope, looking)
                return True
        envelope.started = True
        if self._directory.recorder is not None:
            envelope.taken, envelope.decided, envelope.events = monotonic(), 0.0, 0
        if self._directory.observed is not None:
            observed.take(self._directory.observed, self.stream, envelope)
        self._directory.statistics.repeated += 1
        self._decided(envelope, envelope.earlier.result)
        return True

    async def _reach_back(self, envelope: CommandEnvelope, head: int) -> None:
        self._memory, self._landmarks = await reach_back(
            self._directory.store, self.stream, envelope, head, (self._memory, self._landmarks)
        )

    def _look_first(self, envelope: CommandEnvelope, looking: Coroutine[Any, Any, None]) -> None:
        """Let ``looking`` read the store before the command and those after it are handled."""
        self._mailbox = deque([envelope, *(self._mailbox or ())])  # it keeps its turn
        self._loading += 1
        self._directory.start(self._look(envelope, looking))

    async def _look(self, envelope: CommandEnvelope, looking: Coroutine[Any, Any, None]) -> None:
        try:
            await looking
        except BaseException as error:  # noqa: BLE001 - the command must be answered, whatever a store raises
            envelope.earlier = EarlierResult(Failed(as_error(error, f"reading {self.stream}")))
        self._loading -= 1
        self._schedule()

    # --- recording ---

    def _flush(self) -> None:
        """Send the next batch if none is in flight; without events it is answered at once."""
        if self._in_flight is not None or self._next_batch is None:
            return
        may_wait = self._next_batch[-1][0].held is not None and not (self._mailbox or self._contending)
        if may_wait and self._next_records and joint.holds(self._next_batch, self._flush):
            return
        self._in_flight, self._next_batch = self._next_batch, None
        records, self._next_records = self._next_records, None
        if records:
            expected = (records[0].aggregate_version or 1) - 1
            if self.instance is not None:
                self._snapshot = self._directory.snapshots.take_if_due(self.instance, expected)
            observation = self._directory.observed
            if observation is not None and observation.in_contexts:
                told = [envelope.context for envelope, _ in self._in_flight if envelope.told]
                if told:
                    self._directory.journal.observe_contexts(told)
            joints = joint.joints_of(self._in_flight)
            self._directory.journal.append(Append(tuple(records), expected), self._recorded, *joints)
        else:
            self._answer_in_flight()

    def _recorded(self, outcome: AppendOutcome) -> None:
        """Take the outcome of the append in flight."""
        snapshot, self._snapshot = self._snapshot, None
        if isinstance(outcome, Appended):
            if snapshot is not None:
                self._directory.saver.save_later(snapshot)
            last, reach = outcome.records[-1].aggregate_version or 0, self._memory.reach
            if last > reach:
                self._landmarks = self._landmarks.with_one(last, outcome.positions[-1], reach // 4)
            self._answer_in_flight(outcome)
            if self._contending is not None:
                self._yield_turn(self._contending)
            else:
                self._directory.turns.won(self, self.last_used)
        elif isinstance(outcome, ConcurrencyConflict):
            self._lose(outcome)
        elif may_run_apart(outcome, self._in_flight):
            self._run_again([*(self._in_flight or ()), *(self._next_batch or ())])
        else:
            for envelope, result in self._in_flight or ():
                self._directory.answer_unrecorded(self, envelope, result, outcome)
            self._run_again(self._next_batch or ())
        self._flush()
        if self._mailbox:
            self._schedule()

    def _answer_in_flight(self, appended: Appended | None = None) -> None:
        in_flight, self._in_flight = self._in_flight or [], None
        for envelope, result in in_flight:
            if appended is not None:
                envelope.appended = appended
            self._directory.answer(self, envelope, result)

    # --- other writers ---

    def overtaken(self, version: int) -> None:
        """Load again before the next command if the stream has reached a ``version`` beyond that of the state."""
        if self.instance is None or version <= self.instance.version:
            return  # while it is loaded, `Loader` compares
        if not (self._in_flight or self._next_batch):  # otherwise the append in flight meets the conflict
            self._load_again()

    def _load_again(self) -> None:
        """Catch up with the stream before the next command; all that was decided is recorded."""
        if self.instance is not None:
            self._baseline = Baseline(self.instance, self._memory)
            self.instance = None

    def yield_turns(self) -> None:
        """Other writers continue the stream, too, or would like to."""
        if self._contending is None:
            self._contending = Contending(self._directory, BATCH)

    def _lose(self, conflict: ConcurrencyConflict) -> None:
        """The append in flight met a faster writer."""
        in_flight = self._in_flight or ()
        self.yield_turns()
        self._run_again([*in_flight, *(self._next_batch or ())], conflict)
        self._directory.loader.report(self.stream, conflict.actual)
        if self._contending is not None:
            self._contending.lost(len(in_flight))
            self._pause(self._contending)

    def _yield_turn(self, contending: Contending) -> None:
        contending.recorded()
        self._load_again()
        self._pause(contending)

    def _pause(self, contending: Contending) -> None:
        if contending.state.pause > 0:
            self._loading += 1
            contending.pause(self._pause_over)

    def _pause_over(self) -> None:
        self._loading -= 1
        if self._mailbox:
            self._schedule()

    def _run_again(self, decided: Iterable[Decided], conflict: ConcurrencyConflict | None = None) -> None:
        """Drop decisions based on a state that was not recorded; decide again on the recorded state."""
        self.instance = self._in_flight = self._next_batch = self._next_records = None
        directory = self._directory
        again: list[CommandEnvelope] = []
        for envelope, _ in decided:
            is_repetition, envelope.earlier = envelope.earlier is not None, None
            envelope.started = False
            envelope.end = 0
            envelope.held = None
            if envelope.follows is not None and envelope.follows.has_failed:
                directory.answer(self, envelope, Failed(NotRecordedBefore()))
                continue
            if directory.observed is not None:
                observed.queue_again(envelope)
            if conflict is None or envelope.survives(
                conflict,
                self.last_used,
                directory.ask_timeout,
                looks_back=directory.remember_commands > 0,
                is_repetition=is_repetition,
            ):
                again.append(envelope)
            else:
                directory.answer(self, envelope, Failed(envelope.gave_up(self.last_used)))
        directory.statistics.reruns += len(again)
        if again:
            self._mailbox = deque([*again, *(self._mailbox or ())])

    def abandon(self, reason: UnoError) -> None:
        """Answer all commands with ``reason``; whether an append in flight was recorded is unknown."""
        sent, decided = self._in_flight or (), self._next_batch or ()
        self._mailbox = deque([*(envelope for envelope, _ in decided), *(self._mailbox or ())])
        self.instance = self._in_flight = self._next_batch = self._next_records = None
        for envelope, _ in sent:
            unknown = OutcomeUnknown(str(self.stream), str(reason))
            self._directory.answer_unrecorded(self, envelope, None, unknown)
        self._answer_all(reason)
        if self._contending is not None:
            self._contending.cancel()

    # --- loading ---

    def _load(self) -> None:
        """Begin to load; during the pause after a failure answer the waiting commands with its error."""
        failure = self._load_failure
        if failure is not None and self.last_used < failure.until:
            self._answer_all(failure.error)
            return
        self._loading += 1
        self._directory.start(self._activate())

    def _answer_all(self, error: BaseException) -> None:
        waiting, self._mailbox = self._mailbox or (), None
        for envelope in waiting:
            if not envelope.withdrawn:
                self._directory.answer(self, envelope, Failed(error))

    def _cannot_load(self, error: BaseException) -> None:
        self._loading -= 1
        now = self._directory.clock.monotonic()
        self._load_failure = failed_again(self._load_failure, error, now)
        waiting = next(iter(self._mailbox or ()), None)
        self._answer_all(error)
        self._directory.log.error(
            "aggregate cannot be loaded",
            aggregate=str(self.stream),
            correlation_id=None if waiting is None else waiting.command.correlation_id,
            exc_info=error,
        )

    async def _activate(self) -> None:
        directory, contending = self._directory, self._contending
        baseline, self._baseline = self._baseline, None
        if contending is not None:
            contending.begin()
        watched = observed.Load(directory.observed, self.stream, self._mailbox)
        try:
            loaded = await directory.loader.load(self.stream, baseline)
        except BaseException as error:  # noqa: BLE001 - whatever it is, the waiting commands must be answered
            watched.end(0, error)
            self._cannot_load(as_error(error, f"loading {self.stream}"))
            return
        watched.end(loaded.instance.version - loaded.restored, None)
        self.instance, self._memory, self._load_failure = loaded.instance, loaded.memory, None
        self._loading -= 1
        for envelope in self._mailbox or ():
            envelope.unrelated = ()  # versions that were not recorded then may be another command's now
        if snapshot := directory.snapshots.take_if_due(loaded.instance, loaded.restored):
            directory.saver.save_later(snapshot)
        if contending is not None:
            self._has_read(contending, loaded)
        self._run()
        self.overtaken(loaded.reported)  # otherwise a state of the past would answer the next command

    def _has_read(self, contending: Contending, loaded: Loaded) -> None:
        if not contending.has_read(loaded.instance.version - loaded.restored):
            self._contending = None
        elif copy := self._directory.snapshots.copy(loaded.instance):  # if the next append loses, too
            self._baseline = Baseline(copy, loaded.memory.copied())

    def commands(self) -> Iterator[tuple[CommandEnvelope, bool]]:
        """The commands that are not answered, in their order, each with whether it was decided; from any thread."""
        for envelope, _ in (*(self._in_flight or ()), *(self._next_batch or ())):
            yield envelope, True
        for envelope in tuple(self._mailbox or ()):
            yield envelope, False

    @property
    def obstacle(self) -> str | None:
        """What the commands in its mailbox wait for, apart from those before them; ``None`` if for nothing."""
        if self._load_failure is not None:
            return f"it cannot be loaded: {describe(self._load_failure.error)}"
        if self._contending is not None:
            return f"{self._contending.state}"
        return "it is being loaded" if self.instance is None else None

    @property
    def doing(self) -> str:
        """What it does, for an asker whose time is over."""
        waiting = f"{self!r} has {self.waiting} commands waiting"
        return waiting if self._contending is None else f"{waiting}; {self._contending.state}"

    def __repr__(self) -> str:
        return shown(self.instance, repr) if self.instance is not None else str(self.stream)
