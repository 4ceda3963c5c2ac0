"""Process managers: they react to events by sending commands, and record the progress of each process.

A process manager is an aggregate that reacts to events. There is one process for each correlation id. A process
records each reaction, with the commands it sends, in its own stream before it sends any of them. The id of a command
is derived from its cause and from its place in the reaction. So a crash at any point does no harm, however late the
event is delivered again: the process sends the same commands again, with the same ids, and they take no effect a
second time. For ids that an aggregate no longer has in memory, it searches its stream, starting at the event to which
the process reacts (`AggregateRef.ask`). A process also records that all commands of an event were sent. If the event
is delivered after that, for example because the handler was reset, the process sends nothing.

A command that was rejected, or that recorded no event, leaves no trace in its aggregate. If a crash comes before the
process has recorded the outcome, the command is sent and decided again. If it is accepted this time, that is its only
effect.
"""

from collections import deque
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from time import monotonic
from types import MappingProxyType
from typing import Any, ClassVar, Generic, TypeVar, get_args, get_origin, overload

from pydantic import BaseModel, ConfigDict
from typing_extensions import override

from uno_actors.aggregates.ref import AggregateRef
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
from uno_actors.handlers.services import SystemServices
from uno_actors.handlers.spec import EventHandler, HandlerContext, HandlerSpec
from uno_actors.observing import Observation
from uno_actors.store.codec import Record

C = TypeVar("C", bound=Command[Any])
M = TypeVar("M", bound=Callable[..., Any])
P = TypeVar("P", bound="ProcessManager")


@dataclass(frozen=True, slots=True)
class Refusal(Generic[C]):
    """A command of the process was rejected. React to, for example, ``Refusal[Deposit]`` to compensate.

    Attributes:
        command: The rejected command.
        reason: The text of the aggregate's `CommandRejected`.
    """

    command: C
    reason: str


@overload
def reacts(method: M) -> M: ...
@overload
def reacts() -> Callable[[M], M]: ...


def reacts(method: M | None = None) -> M | Callable[[M], M]:
    """Mark a method as the reaction to the event, or the ``Refusal[ACommand]``, in its annotation.

    ``AnEvent | AnotherEvent`` means a reaction to each of them. The method may register events of the process and
    send commands with `ProcessManager.send`. Like a command handler, it runs on the event loop and must not block.
    """
    return REACTS.put_on if method is None else REACTS.put_on(method)


class Outgoing(BaseModel):
    """A command that a process sends, in the form in which it is recorded."""

    model_config = ConfigDict(frozen=True)

    aggregate_type: str
    aggregate_id: str
    command: str
    fields: str  # JSON


class Reacted(DomainEvent):
    """A process has reacted. ``to`` is the id of the event or of the refused command.

    After all commands that follow from an event were sent, this is recorded once more with an empty ``sent``.
    """

    event_type: str = "uno_actors.Reacted"
    to: str
    sent: list[Outgoing]


class React(Command[list[Outgoing]]):
    """To a process: react to ``message`` unless it has already; the reply is the commands to send.

    It is handled on the node that runs the handler, since any event may be in it. The process may be in the memory of
    its owner too; the expected version is the fence, as ever.
    """

    _travels: ClassVar[bool] = False

    to: str
    message: Any


class HasReacted(Command[bool]):
    """To a process: reply whether it has reacted to ``to``."""

    _travels: ClassVar[bool] = False

    to: str


class AllSent(Command[None]):
    """To a process: all commands that follow from the event ``to`` were sent."""

    _travels: ClassVar[bool] = False

    to: str


class ProcessManager(AggregateRoot):
    """Base class of process managers: ``@reacts`` methods decide, ``apply_`` methods keep the state of the process.

    Give a system the subclass among its ``aggregates``, and the result of `handler` among its ``handlers``.

    Raises:
        InvalidAggregate: At class definition: two methods react to one event, or a ``@reacts`` method is not a
            plain method with one parameter annotated with events or refusals.
    """

    sends_to: ClassVar[tuple[type[AggregateRoot], ...]] = ()
    """The aggregate classes to which the process sends commands."""

    partitioned: ClassVar[bool | int] = False
    """Whether its handler is partitioned, by process; see `HandlerSpec`."""

    _reactions: ClassVar[dict[type, str]] = {}
    _sent: dict[str, list[Outgoing]]  # by the id of the event or refused command
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
        """Return the id of the process that ``event`` belongs to, or ``None``. Default is the correlation id."""
        return event.correlation_id

    def send(self, aggregate_type: type[AggregateRoot], aggregate_id: str, command: Command[Any]) -> None:
        """Send ``command`` once the reaction is recorded, with a derived ``command_id``. Call it in a reaction.

        Raises:
            ValueError: The aggregate class is not in `sends_to`, the aggregate handles the command only as a
                command of another class, or the command has fields that JSON does not preserve.
            UnknownCommand: The aggregate does not handle the command.
            InvalidAggregateId: ``aggregate_id`` is not a valid aggregate id.
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
        """React, or return the commands still to send from the first reaction."""
        if command.to not in self._sent:
            self._sending = []
            getattr(self, self._reaction_to(command.message))(command.message)
            self.register_event(Reacted(to=command.to, sent=self._sending))
        return list(self._sent[command.to])

    @handles
    def has_reacted(self, command: HasReacted) -> bool:
        """Return whether the process has reacted to ``command.to``."""
        return command.to in self._sent

    @handles
    def all_sent(self, command: AllSent) -> None:
        """Record that nothing is left to send, so that the event sends and looks up nothing when it comes again."""
        if self._sent[command.to]:
            self.register_event(Reacted(to=command.to, sent=[]))

    def apply_reacted(self, event: Reacted) -> None:
        """Keep the commands of the reaction."""
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
        """Return the handler to give to a system among its ``handlers``.

        Args:
            name: The handler's name. Default is the aggregate type of the class.
            **options: As for `HandlerSpec`: ``priority``, ``start``, ``max_attempts`` and so on.
        """
        kinds = tuple(kind for kind in cls._reactions if issubclass(kind, DomainEvent))
        if not kinds:
            raise InvalidHandler(f"{cls.__name__} reacts to no event: mark methods with @reacts")
        options.setdefault("partitioned", cls.partitioned)
        return HandlerSpec(name or cls.aggregate_type, _Feed(cls), event_type=kinds, **options)

    @classmethod
    def command_of(cls, outgoing: Outgoing, command_id: str) -> tuple[type[AggregateRoot], Command[Any]]:
        """Return the aggregate class and the command that ``outgoing`` describes."""
        aggregate = next(kind for kind in cls.sends_to if kind.aggregate_type == outgoing.aggregate_type)
        kind = next(kind for kind in aggregate._commands if kind.__name__ == outgoing.command)
        command = kind.model_validate_json(outgoing.fields, by_name=True)
        return aggregate, command.model_copy(update={"command_id": command_id})


class _Feed(EventHandler[DomainEvent]):
    """The handler of a process manager: passes events to processes and sends their commands."""

    def __init__(self, manager: type[ProcessManager]) -> None:
        super().__init__()
        self._manager = manager
        self._by_correlation = (
            manager.process_id.__func__ is ProcessManager.process_id.__func__  # type: ignore[attr-defined]
        )

    def process_of(self, record: Record, decode: Callable[[], DomainEvent]) -> str | None:
        """The process that an event belongs to, by which the handler is partitioned."""
        return record.correlation_id if self._by_correlation else self._manager.process_id(decode())

    @override
    async def handle(self, event: DomainEvent, context: HandlerContext) -> None:
        process_id = self._manager.process_id(event)
        if process_id is None or isinstance(event, Reacted):  # reacting to a reaction would never end
            return
        observed: Observation | None = getattr(context.system, "_observed", None)
        process = context.system.aggregate(self._manager, process_id)
        waiting: deque[tuple[str, object]] = deque([(event.event_id, event)])
        has_sent = False
        while waiting:
            to, message = waiting.popleft()
            if observed is None or not observed.in_contexts:
                sent, refused = await self._step(process, to, message, context.system)
            else:
                sent, refused = await self._observe(observed, process, to, message, context.system)
            has_sent = has_sent or bool(sent)
            waiting += refused
        if has_sent:
            await process.ask(AllSent(to=event.event_id))

    async def _step(
        self, process: AggregateRef, to: str, message: object, system: SystemServices
    ) -> tuple[int, list[tuple[str, object]]]:
        """Let the process react to ``message``; send the commands, return their number and the refusals that follow."""
        refused: list[tuple[str, object]] = []
        reaction: list[Outgoing] = await process.ask(React(to=to, message=message))
        for step, outgoing in enumerate(reaction):
            command_id = f"{to}.{step}"
            if await process.ask(HasReacted(to=command_id)):  # the first attempt was refused
                refused.append((command_id, None))
                continue
            aggregate, command = self._manager.command_of(outgoing, command_id)
            try:
                await system.aggregate(aggregate, outgoing.aggregate_id).ask(command)
            except CommandRejected as rejection:
                refused.append((command_id, Refusal(command, str(rejection))))
            except (ReplyNotRecorded, CommandIdReused):
                pass  # it took effect before; the id is ours, so only the command class changed
        return len(reaction), refused

    async def _observe(
        self, observed: Observation, process: AggregateRef, to: str, message: object, system: SystemServices
    ) -> tuple[int, list[tuple[str, object]]]:
        names, began = (self._manager.__name__, process.stream.aggregate_id), monotonic()
        observed.process_step_begun(*names, message)
        try:
            sent, refused = await self._step(process, to, message, system)
        except BaseException as error:
            observed.process_step_ended(*names, 0, monotonic() - began, error)
            raise
        observed.process_step_ended(*names, sent, monotonic() - began, None)
        return sent, refused


def reactions_of(process: type[ProcessManager]) -> Mapping[type, str]:
    """Names of the methods of a process by what they react to: types of events, and of commands that were refused."""
    return MappingProxyType(process._reactions)


def _reactions(cls: type[ProcessManager]) -> dict[type, str]:
    """Map each event class, and each command class whose refusal the process handles, to its method."""
    found: dict[type, str] = {}
    for method in REACTS.methods_of(cls):
        for kind in _reacted_to(cls, method):
            if found.get(kind, method.name) != method.name:
                reason = f"{found[kind]} and {method.name} both react to {kind.__name__}"
                raise InvalidAggregate(cls.__name__, reason)
            found[kind] = method.name
    return found


def _reacted_to(cls: type[ProcessManager], method: MarkedMethod) -> Iterator[type]:
    """Yield the event classes that ``method`` takes and the command classes whose refusal it takes."""
    for part in method.alternatives:
        is_refusal = part is Refusal or get_origin(part) is Refusal
        commands = method.scope.alternatives(next(iter(get_args(part)), Command)) if is_refusal else ()
        kinds = [Command if kind is Any else kind for kind in commands] if is_refusal else [part]
        for kind in kinds:
            if not is_subclass(kind, Command if is_refusal else DomainEvent):
                raise InvalidAggregate(
                    cls.__name__,
                    f"@reacts method {method.name} is annotated with {method.annotation!r}, which is neither an event"
                    " nor a Refusal",
                )
            yield kind
