"""Process managers: they react to events by sending commands, and remember how far each process has come.

A process manager is an aggregate that is fed by events, one for each correlation id. What it reacts to, and the
commands that it sends upon it, are events of its own stream, recorded before any command is sent. Commands have
ids derived from what caused them and their place in the reaction. So it does not matter where a crash comes
between, nor how late the event comes again: the same commands are sent again, with the same ids, and have no effect
a second time. Their aggregates look for them in their streams, from the event on that the process reacts to, as
far as their memory does not reach (`AggregateRef.ask`). That all were sent is recorded too: then an event that
comes again, as when the handler is reset, sends nothing.

A command that was rejected, or that recorded nothing, leaves no trace in its aggregate. If a crash comes before the
process has recorded how that ended, the command is sent again and decided again: it may be granted this time, which
then is its one effect.
"""

from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, ClassVar, Generic, TypeVar, get_args, get_origin, overload

from pydantic import BaseModel, ConfigDict
from typing_extensions import override

from uno_actors.annotations import is_subclass
from uno_actors.domain.aggregate import AggregateRoot, check_aggregate_id, command_method, handles
from uno_actors.domain.commands import Command
from uno_actors.domain.events import DomainEvent
from uno_actors.domain.marked_methods import REACTS, MarkedMethod
from uno_actors.errors import (
    CommandIdReused,
    CommandRejected,
    InvalidAggregate,
    InvalidHandler,
    ReplyNotRecorded,
    describe,
)
from uno_actors.handlers.spec import EventHandler, HandlerContext, HandlerSpec

C = TypeVar("C", bound=Command[Any])
M = TypeVar("M", bound=Callable[..., Any])
P = TypeVar("P", bound="ProcessManager")


@dataclass(frozen=True, slots=True)
class Refusal(Generic[C]):
    """A command of the process was rejected: react to ``Refusal[Deposit]`` to compensate.

    Attributes:
        command: The command.
        reason: What its aggregate said.
    """

    command: C
    reason: str


@overload
def reacts(method: M) -> M: ...
@overload
def reacts() -> Callable[[M], M]: ...


def reacts(method: M | None = None) -> M | Callable[[M], M]:
    """Mark a method as the reaction to an event, or to a ``Refusal[ACommand]``; read from its annotation.

    ``AnEvent | AnotherEvent`` means each of them. It may register events of the process's own and
    `ProcessManager.send` commands. As all that decides, it runs on the event loop and must not block.
    """
    return REACTS.put_on if method is None else REACTS.put_on(method)


class Outgoing(BaseModel):
    """A command that a process sends, as it is recorded."""

    model_config = ConfigDict(frozen=True)

    aggregate_type: str
    aggregate_id: str
    command: str
    fields: str  # JSON


class Reacted(DomainEvent):
    """A process has reacted: ``to`` is the id of the event, or that of the command that was refused.

    When all that followed from an event was sent this is recorded once more, with nothing that is to be ``sent``.
    """

    event_type: str = "uno_actors.Reacted"
    to: str
    sent: list[Outgoing]


class React(Command[list[Outgoing]]):
    """To a process: react to ``message``, unless it has; the reply is what it sends."""

    to: str
    message: Any


class HasReacted(Command[bool]):
    """To a process: whether it has reacted to this."""

    to: str


class AllSent(Command[None]):
    """To a process: all that followed from the event ``to`` was sent."""

    to: str


class ProcessManager(AggregateRoot):
    """Subclass it: ``@reacts`` methods decide upon events, ``apply_`` methods keep the state of the process.

    Give a system the class among its ``aggregates`` and `handler` among its ``handlers``.

    Raises:
        InvalidAggregate: At class definition: two reactions to one event, or a ``@reacts`` method that is no
            plain method with one annotated event or refusal.
    """

    sends_to: ClassVar[tuple[type[AggregateRoot], ...]] = ()
    """The aggregates that it sends commands to."""

    _reactions: ClassVar[dict[type, str]] = {}
    _sent: dict[str, list[Outgoing]]  # by what it reacted to
    _sending: list[Outgoing]

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        cls._reactions = _reactions(cls)

    def __init__(self, id: str) -> None:
        super().__init__(id)
        self._sent = {}
        self._sending = []

    @classmethod
    def process_id(cls, event: DomainEvent) -> str | None:
        """Which process ``event`` belongs to; ``None`` for none. Default is its correlation id."""
        return event.correlation_id

    def send(self, aggregate_type: type[AggregateRoot], aggregate_id: str, command: Command[Any]) -> None:
        """In a reaction: have ``command`` sent once the reaction is recorded. Its ``command_id`` is derived.

        Raises:
            ValueError: The class is not among `sends_to`, or the command cannot be found again by its name, or
                has fields that JSON does not keep.
            UnknownCommand: The aggregate does not handle it.
            InvalidAggregateId: The id cannot name an aggregate.
        """
        if aggregate_type not in self.sends_to:
            known = ", ".join(kind.__name__ for kind in self.sends_to) or "none"
            raise ValueError(
                f"{type(self).__name__} sends a command to {aggregate_type.__name__}; its sends_to names {known}"
            )
        command_method(aggregate_type, command)
        if type(command) not in aggregate_type._commands:
            raise ValueError(
                f"{type(command).__name__} is handled by {aggregate_type.__name__} as a command of another class;"
                " send one that it handles as such"
            )
        given = {name for name in ("correlation_id", "causation_id") if getattr(command, name) is not None}
        fields = command.model_dump_json(
            exclude={"command_id", "correlation_id", "causation_id"} - given, by_alias=False, round_trip=True
        )
        outgoing = Outgoing(
            aggregate_type=aggregate_type.aggregate_type,
            aggregate_id=check_aggregate_id(aggregate_id),
            command=type(command).__name__,
            fields=fields,
        )
        try:
            _, kept = self.command_of(outgoing, command.command_id)
        except ValueError as error:
            kept, reason = None, describe(error)
        else:
            reason = f"it would be {kept!r}"
        if kept != command:
            raise ValueError(
                f"{command!r} cannot be read back from the JSON in which a process records what it sends: {reason}"
            )
        self._sending.append(outgoing)

    @handles
    def react(self, command: React) -> list[Outgoing]:
        """React, or tell what is still to be sent, as it was decided the first time."""
        if command.to not in self._sent:
            self._sending = []
            getattr(self, self._reaction_to(command.message))(command.message)
            self.register_event(Reacted(to=command.to, sent=self._sending))
        return list(self._sent[command.to])

    @handles
    def has_reacted(self, command: HasReacted) -> bool:
        """Whether it has."""
        return command.to in self._sent

    @handles
    def all_sent(self, command: AllSent) -> None:
        """Send nothing more, whenever the event comes again: nothing need be looked for."""
        if self._sent[command.to]:
            self.register_event(Reacted(to=command.to, sent=[]))

    def apply_reacted(self, event: Reacted) -> None:
        """It has reacted."""
        self._sent[event.to] = event.sent

    @classmethod
    def _reaction_to(cls, message: object) -> str:
        if isinstance(message, Refusal):
            for kind in type(message.command).__mro__:
                if kind in cls._reactions:
                    return cls._reactions[kind]
            raise CommandRejected(
                f"{type(message.command).__name__} was refused ({message.reason}) and {cls.__name__} has no reaction"
                f" to Refusal[{type(message.command).__name__}]"
            )
        return next(cls._reactions[kind] for kind in type(message).__mro__ if kind in cls._reactions)

    @classmethod
    def handler(cls, name: str | None = None, **options: Any) -> HandlerSpec:
        """What a system is given among its ``handlers``.

        Args:
            name: Of the handler; default is the class's.
            **options: As for `HandlerSpec`: ``priority``, ``start``, ``max_attempts`` and so on.
        """
        kinds = tuple(kind for kind in cls._reactions if issubclass(kind, DomainEvent))
        if not kinds:
            raise InvalidHandler(f"{cls.__name__} reacts to no event: mark methods with @reacts")
        return HandlerSpec(name or cls.aggregate_type, _Feed(cls), event_type=kinds, **options)

    @classmethod
    def command_of(cls, outgoing: Outgoing, command_id: str) -> tuple[type[AggregateRoot], Command[Any]]:
        """The class and the command that ``outgoing`` names."""
        aggregate = next(kind for kind in cls.sends_to if kind.aggregate_type == outgoing.aggregate_type)
        kind = next(kind for kind in aggregate._commands if kind.__name__ == outgoing.command)
        command = kind.model_validate_json(outgoing.fields, by_name=True)
        return aggregate, command.model_copy(update={"command_id": command_id})


class _Feed(EventHandler[DomainEvent]):
    """The handler of a process manager: brings events to processes, and their commands on the way."""

    def __init__(self, manager: type[ProcessManager]) -> None:
        super().__init__()
        self._manager = manager

    @override
    async def handle(self, event: DomainEvent, context: HandlerContext) -> None:
        process_id = self._manager.process_id(event)
        if process_id is None or isinstance(
            event, Reacted
        ):  # which tells of a process, and would cause the next
            return
        process = context.system.aggregate(self._manager, process_id)
        waiting: deque[tuple[str, object]] = deque([(event.event_id, event)])
        has_sent = False
        while waiting:
            to, message = waiting.popleft()
            reaction: list[Outgoing] = await process.ask(React(to=to, message=message))
            has_sent = has_sent or bool(reaction)
            for step, outgoing in enumerate(reaction):
                command_id = f"{to}.{step}"
                if await process.ask(HasReacted(to=command_id)):  # it was refused the first time
                    waiting.append((command_id, None))
                    continue
                aggregate, command = self._manager.command_of(outgoing, command_id)
                try:
                    await context.system.aggregate(aggregate, outgoing.aggregate_id).ask(command)
                except CommandRejected as rejection:
                    waiting.append((command_id, Refusal(command, str(rejection))))
                except (ReplyNotRecorded, CommandIdReused):
                    pass  # it took effect before; the id is ours, so its class has other fields or replies by now
        if has_sent:
            await process.ask(AllSent(to=event.event_id))


def _reactions(cls: type[ProcessManager]) -> dict[type, str]:
    """Map each event class, and each command class whose refusal it reacts to, to the method."""
    found: dict[type, str] = {}
    for method in REACTS.methods_of(cls):
        for kind in _reacted_to(cls, method):
            if found.get(kind, method.name) != method.name:
                reason = f"{found[kind]} and {method.name} both react to {kind.__name__}"
                raise InvalidAggregate(cls.__name__, reason)
            found[kind] = method.name
    return found


def _reacted_to(cls: type[ProcessManager], method: MarkedMethod) -> Iterator[type]:
    """The classes of events, and of commands whose refusal, ``method`` takes: of unions each."""
    for part in method.alternatives:
        is_refusal = part is Refusal or get_origin(part) is Refusal
        commands = method.scope.alternatives(next(iter(get_args(part)), Command)) if is_refusal else ()
        kinds = [Command if kind is Any else kind for kind in commands] if is_refusal else [part]
        for kind in kinds:
            if not is_subclass(kind, Command if is_refusal else DomainEvent):
                raise InvalidAggregate(
                    cls.__name__,
                    f"@reacts method {method.name} is annotated with {method.annotation!r}, which is no event and"
                    " no Refusal",
                )
            yield kind
