"""The directory of a system: which aggregates are active or passivated, and which commands are unanswered."""

from collections import OrderedDict
from collections.abc import Callable, Coroutine, Iterator, Mapping
from itertools import islice
from time import monotonic
from typing import Any

from uno_actors.actors.dead_messages import DeadMessages
from uno_actors.actors.dispatcher import Dispatcher
from uno_actors.aggregates import observed as observing
from uno_actors.aggregates.actor import AggregateActor
from uno_actors.aggregates.envelope import CommandEnvelope, Failed
from uno_actors.aggregates.journal import Journal
from uno_actors.aggregates.loading import Loader
from uno_actors.aggregates.snapshots import Snapshots, SnapshotSaver
from uno_actors.aggregates.statistics import AggregateStatistics
from uno_actors.aggregates.turns import Turns
from uno_actors.clock import Deadlines, Timer, own_time
from uno_actors.domain.aggregate import AggregateRoot
from uno_actors.errors import AskTimeout, CommandRejected, OutcomeUnknown, UnoError, describe
from uno_actors.event_contexts import EventContexts
from uno_actors.flight_recorder.ring import COMMAND, UNDER_WAY, Entry, FlightRecorder
from uno_actors.observing import Observation
from uno_actors.settings import Settings
from uno_actors.store.codec import StreamId
from uno_actors.store.logs import log_of_position, log_of_stream
from uno_actors.store.port import EventStore
from uno_actors.store.records import Heading

LOOKS = 8
"""When an aggregate is activated at the limit, at most this many of the oldest are searched for an idle one."""
SWEEPS = 4
"""Searches for idle aggregates within each ``passivate_after``."""


class Aggregates:
    """The active aggregates of a system. Lives on the event loop.

    Args:
        types: The classes by type name; the mapping may grow.
        store: Where streams are loaded from.
        journal: Where events are recorded.
        dispatcher: The loop on which aggregates run.
        settings: The options, with the clock.
        start: Starts a coroutine as a task of the system.
        dead: Keeps commands that were told and failed.
        contexts: Where to keep the contexts of commands for the handlers of their events.
        observed: Its observers, if there are any.

    Attributes:
        when_overtaken: Called with the stream of an active aggregate that another writer has continued.
    """

    def __init__(
        self,
        types: Mapping[str, type[AggregateRoot]],
        store: EventStore,
        journal: Journal,
        dispatcher: Dispatcher,
        settings: Settings,
        *,
        start: Callable[[Coroutine[Any, Any, None]], object],
        dead: DeadMessages,
        contexts: EventContexts | None = None,
        observed: Observation | None = None,
    ) -> None:
        self.contexts = EventContexts() if contexts is None else contexts
        self.journal = journal
        self.observed = observed
        self.dispatcher = dispatcher
        self.recorder = dispatcher.recorder
        if self.recorder is not None:
            self.recorder.under_way = self._under_way
        self.statistics = AggregateStatistics()
        self.start = start
        self.snapshots = Snapshots(store, settings.snapshot_every, dispatcher.log)
        self.saver = SnapshotSaver(self.snapshots, settings.clock, start)
        self.loader = Loader(types, self.snapshots, settings.remember_commands, self.statistics)
        self.remember_commands = settings.remember_commands
        self.when_overtaken: Callable[[StreamId], object] | None = None
        self.log = dispatcher.log.bind(actor="aggregates")
        self.store = store
        self.registry = store.event_registry
        self.clock = settings.clock
        self.time = own_time(settings.clock)
        self.types = types
        self._dead = dead
        self.turns = Turns(store, start)
        self.ask_timeout = ask_timeout = settings.ask_timeout
        self._deadlines: Deadlines[CommandEnvelope] = Deadlines(
            settings.clock, ask_timeout, lambda envelope: self._time_out(envelope, ask_timeout)
        )
        self._passivate_after = settings.passivate_after
        self._max_active = settings.max_active
        self._active: OrderedDict[StreamId, AggregateActor] = OrderedDict()  # the least recently used first
        self._sweeping: Timer | None = None
        self._unanswered = 0
        self._closed: UnoError | None = None  # why it takes no more commands
        self._sweep_later()

    def __len__(self) -> int:
        return len(self._active)

    @property
    def waiting(self) -> int:
        """Commands that are not answered yet."""
        return self._unanswered

    def active(self) -> list[AggregateActor]:
        """The aggregates in memory."""
        return list(self._active.values())

    def oldest(self) -> float | None:
        """Seconds that the oldest unanswered command has waited, of those with the timeout of the system."""
        return self._deadlines.longest()

    @property
    def oldest_command(self) -> tuple[str, str] | None:
        """The aggregate and the class of the command that `oldest` is about."""
        envelope = self._deadlines.first
        return None if envelope is None else (repr(envelope.receiver), type(envelope.command).__name__)

    def deliver(self, stream: StreamId, envelope: CommandEnvelope, timeout: float) -> None:
        """Pass a command to the one actor of its aggregate, activating it if necessary."""
        if self.observed is not None:
            observing.arrive(self.observed, stream, envelope)
        if self._closed is not None:  # an abandoned task sent it
            self._refuse(stream, envelope, self._closed)
            return
        actor = self._active.get(stream)
        if actor is None:
            if len(self._active) >= self._max_active:
                self._make_room()
            actor = self._active[stream] = AggregateActor(self, stream)
        else:
            self._active.move_to_end(stream)
        if envelope.looks_back and not self._is_of_log(stream, envelope):
            envelope.since = 0  # positions of another log say nothing here
        self._unanswered += 1
        if envelope.future is not None:
            envelope.receiver = actor
            if timeout == self.ask_timeout:
                self._deadlines.add(envelope)
            else:
                envelope.timer = self.clock.call_later(timeout, lambda: self._time_out(envelope, timeout))
        actor.put(envelope)

    def _is_of_log(self, stream: StreamId, envelope: CommandEnvelope) -> bool:
        """Whether the position to which a command looks back is one of the log that holds its stream."""
        store = self.store
        if envelope.store is not None and envelope.store is not store:
            return False
        return store.logs == 1 or log_of_position(envelope.since) == log_of_stream(stream, store.logs)

    def _refuse(self, stream: StreamId, envelope: CommandEnvelope, reason: UnoError) -> None:
        self.statistics.failed += 1
        self._note_error(stream, envelope, reason)
        if self.observed is not None:
            observing.answer(self.observed, stream, envelope, Failed(reason))
        if not envelope.answer(Failed(reason), self.log):
            self._dead.add(str(stream), envelope.command, str(reason))

    def answer(self, actor: AggregateActor, envelope: CommandEnvelope, result: Any) -> None:
        """Answer a command with its reply or its error; every command that was not withdrawn ends here."""
        self._unanswered -= 1
        self._deadlines.discard(envelope)
        now, asked = monotonic(), None
        if (future := envelope.future) is not None:
            asked = future.asked
            self.statistics.asked += 1
            self.statistics.asked_seconds += now - asked
        if not isinstance(result, Failed):
            self.statistics.commands += 1
            if self.recorder is not None:
                # The one cost of the flight recorder that counts, so it calls nothing else.
                command = envelope.command
                if asked is None:
                    asked = envelope.asked
                if end := envelope.end:
                    positions, records = envelope.appended
                    record = records[end - 1]
                    self.recorder.note(
                        (
                            COMMAND, now, actor.stream, command.__class__, command.command_id,
                            record.correlation_id, asked, envelope.taken, envelope.decided, envelope.events,
                            record.event_id, positions, end,
                        )
                    )  # fmt: skip
                else:
                    self._note_unrecorded(self.recorder, actor.stream, envelope, now, asked)
        else:
            self._count(result)
            self._note_error(actor.stream, envelope, result.error)
            if future is None:  # it was told
                self._dead.add(repr(actor), envelope.command, describe(result.error))
        if self.observed is not None:
            observing.answer(self.observed, actor.stream, envelope, result)
        envelope.answer(result, self.log)

    @staticmethod
    def _note_unrecorded(
        recorder: FlightRecorder, stream: StreamId, envelope: CommandEnvelope, now: float, asked: float
    ) -> None:
        """Note that a command was answered that has recorded nothing, or nothing this time."""
        command = envelope.command
        recorder.note(
            (
                COMMAND, now, stream, command.__class__, command.command_id, command.correlation_id, asked,
                envelope.taken, envelope.decided, envelope.events, None, envelope.place or (), 1,
            )
        )  # fmt: skip

    def _note_error(self, stream: StreamId, envelope: CommandEnvelope, error: BaseException) -> None:
        if self.recorder is not None:
            self.recorder.ended(stream, envelope, error)

    def _under_way(self) -> Iterator[Entry]:
        """The commands that have not ended, for the flight recorder; from any thread."""
        found = set()
        for actor in tuple(self._active.values()):
            for envelope, is_decided in actor.commands():
                if is_decided or not envelope.withdrawn:
                    found.add(envelope)
                    yield _under_way(actor.stream, envelope)
        for envelope in self._deadlines.items:  # the one that is decided now is in no mailbox and in no batch
            if envelope not in found and envelope.future is not None:
                yield _under_way(envelope.receiver.stream, envelope)

    def _count(self, failed: Failed) -> None:
        if isinstance(failed.error, CommandRejected):
            self.statistics.rejected += 1
        else:
            self.statistics.failed += 1

    def answer_unrecorded(
        self, actor: AggregateActor, envelope: CommandEnvelope, result: Any, error: UnoError
    ) -> None:
        """Answer a command whose events were not, or may not have been, recorded: its own failure comes first."""
        if isinstance(result, Failed):
            self.answer(actor, envelope, result)
            return
        if isinstance(error, OutcomeUnknown) and self.remember_commands:
            error = OutcomeUnknown(
                error.what, error.reason, envelope.command.command_id, self.journal.position(actor.stream)
            )
        self.answer(actor, envelope, Failed(error))

    def _time_out(self, envelope: CommandEnvelope, seconds: float) -> None:
        if envelope.future is None or envelope.future.done():
            return
        actor, started = envelope.receiver, envelope.started
        command = type(envelope.command).__name__
        error: UnoError
        if envelope.conflicts and not started:
            self.statistics.failed += 1
            error = envelope.gave_up(self.clock.monotonic())
        else:
            doing = actor.doing + (
                "; the command was handled and its events wait to be recorded" if started else ""
            )
            error = AskTimeout(repr(actor), command, seconds, started=started, doing=doing)
        self._note_error(actor.stream, envelope, error)
        if self.observed is not None:
            observing.time_out(self.observed, actor.stream, envelope, error, started=started)
        envelope.future.fail(error, envelope.command, self.log)
        if not started:
            envelope.withdrawn = True
            self._unanswered -= 1  # nothing will answer it

    def on_heading(self, heading: Heading) -> None:
        """Compare an aggregate with an event that another writer may have added to its stream."""
        _, aggregate_type, aggregate_id, version = heading
        if aggregate_id is None or version is None:
            return
        # A plain tuple equals the `StreamId` of the same names: most streams are not active here.
        actor = self._active.get((aggregate_type or "", aggregate_id))  # type: ignore[call-overload]
        if actor is None:
            return
        if actor.instance is None:
            self.loader.report(actor.stream, version)
        elif version > actor.instance.version:
            actor.overtaken(version)
            if self.when_overtaken is not None:
                self.when_overtaken(actor.stream)

    # --- passivation ---

    def _sweep_later(self) -> None:
        self._sweeping = self.clock.call_later(self._passivate_after / SWEEPS, self._sweep)

    def _sweep(self) -> None:
        """Passivate aggregates that had no command for ``passivate_after``, or are too many; the oldest first."""
        now = self.clock.monotonic()
        for stream, actor in list(self._active.items()):
            if now - actor.last_used < self._passivate_after and len(self._active) <= self._max_active:
                break
            if actor.idle:
                self._passivate(stream)
        self._sweep_later()

    def _make_room(self) -> None:
        """Passivate the oldest that is idle; those found busy are in use, and so no longer the oldest."""
        for stream, actor in list(islice(self._active.items(), LOOKS)):
            if actor.idle:
                self._passivate(stream)
                return
            self._active.move_to_end(stream)

    def passivate_type(self, aggregate_type: str) -> None:
        """Passivate the idle aggregates of a type, so that the next command finds its new class."""
        for stream, actor in list(self._active.items()):
            if stream.aggregate_type == aggregate_type and actor.idle:
                self._passivate(stream)

    def put_away(self, stream: StreamId) -> bool:
        """Passivate an aggregate if it is idle; return whether it is out of memory."""
        actor = self._active.get(stream)
        if actor is not None and actor.idle:
            self._passivate(stream)
        return stream not in self._active

    def _passivate(self, stream: StreamId) -> None:
        del self._active[stream]
        self.loader.forget(stream)
        self.statistics.passivations += 1

    def close(self, reason: UnoError) -> None:
        """Stop passivation; answer all commands that wait, and those that still come, with ``reason``."""
        self._closed = reason
        self._deadlines.close()
        self.saver.cancel()
        if self._sweeping is not None:
            self._sweeping.cancel()
        for actor in self._active.values():
            actor.abandon(reason)


def _under_way(stream: StreamId, envelope: CommandEnvelope) -> Entry:
    """A command that has not ended. A slot that was not set yet has no value."""
    command, future = envelope.command, envelope.future
    asked = getattr(envelope, "asked", None) if future is None else future.asked
    taken, decided, events = (getattr(envelope, name, None) for name in ("taken", "decided", "events"))
    return (
        UNDER_WAY, 0.0, stream, command.__class__, command.command_id, command.correlation_id,
        asked, taken, decided, events,
    )  # fmt: skip
