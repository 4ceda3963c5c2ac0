"""Given what a process has reacted to, when an event arrives, then it sends these commands."""

from collections.abc import Sequence
from typing import Any, Generic, NamedTuple, Self, TypeVar

from typing_extensions import override

from uno_actors.domain.aggregate import AggregateRoot, new_aggregate
from uno_actors.domain.commands import Command
from uno_actors.domain.events import DomainEvent
from uno_actors.errors import CommandRejected, InvalidAggregate, MissingApply
from uno_actors.processes.manager import ProcessManager
from uno_actors.processes.messages import PROGRESS, Known, Outgoing, ProcessEnded, Refusal
from uno_actors.processes.reactions import command_of, processes_of, reactions_of, step_of
from uno_actors.store.codec import to_record
from uno_actors.testing.outcome import Target, Then, check_replay, difference, freeze, listed, shown

P = TypeVar("P", bound=ProcessManager)


class Sent(NamedTuple):
    """A command that a process sends."""

    command: Command[Any]
    aggregate_type: type[AggregateRoot]
    aggregate_id: str

    @override
    def __str__(self) -> str:
        return f"{shown(self.command)} to ({self.aggregate_type.__name__}, {self.aggregate_id!r})"


class GivenProcess(Generic[P]):
    """A process with a past; see `given`."""

    def __init__(self, manager: type[P], id: str | None, events: Sequence[DomainEvent]) -> None:
        self._type = manager
        self._id = id
        self._events = tuple(events)
        self._run(())  # reports an event that the process neither applies nor reacts to

    def when(self, *messages: DomainEvent | Refusal[Any] | Command[Any]) -> "ThenProcess[P]":
        """Let the process react to events and to refusals of its commands, and handle commands of its own.

        A rejected command ends the run.

        Args:
            *messages: In order: events; ``Refusal(Reserve(count=1), "sold out")``; commands that the class handles.

        Raises:
            AssertionError: The state differs from what a replay of the events produces.
            InvalidAggregate: The class does not react to an event, or the event belongs to another process.
            UnknownCommand: The class does not handle a command.
            CommandRejected: The class does not react to a refusal, or a reaction raises it.
            EventNotSerializable: An event could not be recorded.
            ValueError: The process sends what it cannot send; see `ProcessManager.send`.
            Exception: Any other error that a method raises.
        """
        run = self._run(messages)
        for message in messages:
            if not run.tell(message):
                break
        for event in run.recorded:
            to_record(event)
        story = f"{self._type.__name__} {run.process.id!r}, given {listed(self._events) or 'nothing'}"
        story = f"{story}, when {listed(messages)}"
        replayed = new_aggregate(self._type, run.process.id).replay([*run.past, *run.recorded])
        check_replay(run.process, replayed, story, but=("_sending",))
        return ThenProcess(story, run)

    def _run(self, messages: Sequence[object]) -> "_Run[P]":
        """The process after its past."""
        run = _Run(self._type, self._id_of(messages))
        for event in self._events:
            run.happens(event)
        run.past, run.recorded, run.sent, run.ignored = run.recorded, [], [], ""
        return run

    def _id_of(self, messages: Sequence[object]) -> str:
        if self._id is not None:
            return self._id
        for message in (*self._events, *messages):
            if isinstance(message, DomainEvent) and _reacts_to(self._type, message):
                found = processes_of(self._type, message)
                if found:
                    return found[0]
        return "test"

    def __repr__(self) -> str:
        return f"given({self._type.__name__}, {listed(self._events)})"


class _Run(Generic[P]):
    """A process, and what it has done."""

    def __init__(self, manager: type[P], id: str) -> None:
        self.process = new_aggregate(manager, id)
        freeze(self.process)
        self.past: list[DomainEvent] = []
        self.recorded: list[DomainEvent] = []
        self.sent: list[Sent] = []
        self.ignored = ""
        self.reply: Any = None
        self.rejection: CommandRejected | None = None
        self._type = manager

    def happens(self, event: DomainEvent) -> None:
        """Put an event into the past."""
        process = self.process
        is_own = True
        try:
            process.replay([self._stamped(event)])
        except MissingApply:
            is_own = False
            if not _reacts_to(self._type, event):
                raise
        else:
            self.recorded.append(self._stamped(event, process.version))
        if _reacts_to(self._type, event) and not (is_own and self._id_of_another(event)):
            self.react(event)

    def _stamped(self, event: DomainEvent, version: int | None = None) -> DomainEvent:
        process = self.process
        return event.stamped(
            aggregate_id=process.id,
            aggregate_type=process.aggregate_type,
            aggregate_version=process.version + 1 if version is None else version,
            correlation_id=event.correlation_id or process.id,
        )

    def _id_of_another(self, event: DomainEvent) -> bool:
        return self.process.id not in processes_of(self._type, self._known_by(event))

    def _known_by(self, event: DomainEvent) -> DomainEvent:
        return event if event.correlation_id else event.stamped(correlation_id=self.process.id)

    def tell(self, message: object) -> bool:
        """Let the process react to a message, or handle it; return false if it was rejected."""
        if isinstance(message, DomainEvent):
            self.react(message)
        elif isinstance(message, Refusal):
            to = f"refused-{len(self.past) + len(self.recorded)}"
            answer = self.process.handle(step_of(self._type, DomainEvent(), to, message))
            self._send(answer or [])
        elif isinstance(message, Command):
            try:
                self.reply = self.process.handle(message)
            except CommandRejected as error:
                self.reply, self.rejection = None, error
                # as the runtime does, if it had registered events
                self.process = new_aggregate(self._type, self.process.id).replay([*self.past, *self.recorded])
                freeze(self.process)
                return False
        else:
            reason = f".when(...) takes events, refusals and commands; found {message!r}"
            raise InvalidAggregate(self._type.__name__, reason)
        self.recorded += self.process.take_pending_events()
        return True

    def react(self, event: DomainEvent) -> None:
        """Let the process react to an event."""
        name = self._type.__name__
        if not _reacts_to(self._type, event):
            known = ", ".join(kind.__name__ for kind in reactions_of(self._type))
            raise InvalidAggregate(name, f"it does not react to {shown(event)}; it reacts to {known}")
        event = self._known_by(event)
        ids = processes_of(self._type, event)
        if self.process.id not in ids:
            belongs = f"to {' and '.join(map(repr, ids))}" if ids else "to no process"
            raise InvalidAggregate(name, f"{shown(event)} belongs {belongs}, and this is {self.process.id!r}")
        answer = self.process.handle(step_of(self._type, event))
        if isinstance(answer, Known):
            self.ignored = answer.ignored
        self._send(answer or [])
        self.recorded += self.process.take_pending_events()

    def _send(self, outgoing: Sequence[Outgoing]) -> None:
        for each in outgoing:
            aggregate, command = command_of(self._type, each, "sent")
            self.sent.append(Sent(command, aggregate, each.aggregate_id))


class ThenProcess(Then[P]):
    """What a process does: the events of its own, the commands that it sends, and whether it ends.

    Attributes:
        sent: The commands, each with the class and the id of its aggregate.
    """

    def __init__(self, story: str, run: _Run[P]) -> None:
        events = [event for event in run.recorded if not isinstance(event, PROGRESS)]
        super().__init__(story, events, run.reply, run.rejection, run.process)
        self.sent = tuple(run.sent)
        self._compared = 0
        self._run = run

    def sends(
        self,
        command: Command[Any] | type[Command[Any]] | None = None,
        *,
        to: Target | type[AggregateRoot] | None = None,
    ) -> Self:
        """Check the next command that the process sends; without arguments, that it sends no more.

        Args:
            command: A command with the same fields, or its class.
            to: The class and the id of the aggregate, or the class alone. Default is any.

        Raises:
            AssertionError: Another command is sent, or none.
        """
        rest = self.sent[self._compared :]
        if command is None:
            if rest:
                raise AssertionError(
                    f"{self._story}: sends {'; '.join(map(str, rest))}, and nothing was expected"
                )
            return self
        wanted = shown(command) + ("" if to is None else f" to {_named(to)}")
        if not rest:
            after = f" after {'; '.join(map(str, self.sent))}" if self.sent else self._why_nothing()
            raise AssertionError(f"{self._story}: expected that it sends {wanted}, found nothing{after}")
        self._compared += 1
        found = rest[0]
        kind, aggregate_id = to if isinstance(to, tuple) else (to, None)
        why = difference(command, found.command)
        if (
            why is not None
            or kind not in (None, found.aggregate_type)
            or aggregate_id not in (None, found.aggregate_id)
        ):
            raise AssertionError(
                f"{self._story}: expected that it sends {wanted}, found {found}{f' ({why})' if why else ''}"
            )
        return self

    def _why_nothing(self) -> str:
        return f": the event is ignored, because {self._run.ignored}" if self._run.ignored else ""

    def ends(self) -> Self:
        """Check that the process ends.

        Raises:
            AssertionError: It does not.
        """
        if not any(isinstance(event, ProcessEnded) for event in self._run.recorded):
            raise AssertionError(f"{self._story}: expected that the process ends, and it does not")
        return self

    def ignores(self) -> Self:
        """Check that the process ignores the event, because it has not started or has ended.

        Raises:
            AssertionError: It reacts.
        """
        if not self._run.ignored:
            raise AssertionError(f"{self._story}: expected that the process ignores it, and it reacts")
        return self


def _reacts_to(manager: type[ProcessManager], event: DomainEvent) -> bool:
    return any(kind in reactions_of(manager) for kind in type(event).__mro__)


def _named(to: Target | type[AggregateRoot]) -> str:
    return f"({to[0].__name__}, {to[1]!r})" if isinstance(to, tuple) else to.__name__
