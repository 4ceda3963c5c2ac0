"""The reactions of a process manager, as the handler and the testing kit use them."""

from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType
from typing import Any, ClassVar

from pydantic import create_model

from uno_actors.domain.aggregate import AggregateRoot
from uno_actors.domain.commands import Command
from uno_actors.domain.events import DomainEvent
from uno_actors.domain.outgoing_commands import class_named
from uno_actors.errors import CommandRejected, InvalidAggregate
from uno_actors.processes.messages import Outgoing, Refusal, Step
from uno_actors.processes.routing import Reaction


class Reacting(AggregateRoot):
    """An aggregate that reacts to events: the part of `uno_actors.ProcessManager` that says to what."""

    sends_to: ClassVar[tuple[type[AggregateRoot], ...]] = ()
    """The aggregate classes to which the process sends commands."""

    _reactions: ClassVar[Mapping[type, Reaction]] = {}
    _steps: ClassVar[dict[str, type[Step]]] = {}

    @classmethod
    def process_id(cls, event: DomainEvent) -> object:
        """The process that ``event`` belongs to, for reactions without ``by``: its correlation id, unless overridden.

        Returns:
            The id of a process, several of them, or ``None``, as ``by`` of `reacts`.
        """
        return event.correlation_id


def reaction_to(manager: type[Reacting], message: object) -> Reaction:
    """The reaction to an event or a refusal.

    Raises:
        CommandRejected: There is none to this refusal.
    """
    reactions = manager._reactions
    if isinstance(message, Refusal):
        for kind in type(message.command).__mro__:
            if kind in reactions:
                return reactions[kind]
        raise CommandRejected(
            f"{type(message.command).__name__} was refused ({message.reason}) and {manager.__name__} has no reaction"
            f" to Refusal[{type(message.command).__name__}]"
        )
    return next(reactions[kind] for kind in type(message).__mro__ if kind in reactions)


def reactions_of(manager: type[Reacting]) -> Mapping[type, str]:
    """Names of the methods of a process by what they react to: types of events, and of commands that were refused."""
    return MappingProxyType({kind: reaction.method for kind, reaction in manager._reactions.items()})


def processes_of(manager: type[Reacting], event: DomainEvent) -> tuple[str, ...]:
    """The ids of the processes that ``event`` belongs to.

    Raises:
        InvalidAggregateId: What the route gives cannot name processes.
    """
    return reaction_to(manager, event).processes(manager.__name__, event, manager.process_id)


def goes_by_correlation(manager: type[Reacting]) -> bool:
    """Whether every event belongs to the process of its correlation id, which can be told without reading it."""
    default: Callable[..., object] = manager.process_id.__func__  # type: ignore[attr-defined]
    return default is Reacting.process_id.__func__ and not any(  # type: ignore[attr-defined]
        reaction.by is not None for reaction in manager._reactions.values()
    )


def step_of(
    manager: type[Reacting],
    event: DomainEvent,
    to: str | None = None,
    message: object = None,
    **more: Any,
) -> Step:
    """The command that lets a process react to ``event``, or to a refusal that follows from it.

    Args:
        manager: The class of the process.
        event: The event.
        to: The id of the refused command; default is that of the event.
        message: The `Refusal`; ``None`` if the process has reacted to it. Default is the event.
        **more: Other fields of `Step`.

    Raises:
        CommandRejected: There is no reaction to this refusal.
    """
    if to is None:
        to, message = event.event_id, event
    name = reaction_to(manager, event if message is None else message).method
    kind = manager._steps.get(name)
    if kind is None:
        kind = manager._steps[name] = create_model(name, __base__=Step, __module__=manager.__module__)
        manager._command_names[kind] = "_react"
    return kind(to=to, message=message, **more)


def command_of(
    manager: type[Reacting], outgoing: Outgoing, command_id: str
) -> tuple[type[AggregateRoot], Command[Any]]:
    """The aggregate class and the command that ``outgoing`` describes.

    Raises:
        InvalidAggregate: The program has no such aggregate or command any more: a process may have sent it long ago.
    """
    aggregate = next(
        (kind for kind in manager.sends_to if kind.aggregate_type == outgoing.aggregate_type), None
    )
    if aggregate is None:
        where = f"the aggregate type {outgoing.aggregate_type!r}, which its sends_to does not name"
        known = [kind.aggregate_type for kind in manager.sends_to]
        raise _gone(manager, outgoing, where, "names", known)
    kind = class_named(outgoing.command, aggregate._commands)
    if kind is None:
        where = f"{aggregate.__name__}, which handles no command of this name"
        raise _gone(manager, outgoing, where, "handles", [each.__name__ for each in aggregate._commands])
    return aggregate, outgoing.read(kind, command_id)


def _gone(
    manager: type[Reacting], outgoing: Outgoing, where: str, verb: str, known: Sequence[str]
) -> InvalidAggregate:
    reason = f"it has sent {outgoing.command} to {where} any more; it {verb} {', '.join(known) or 'none'}"
    return InvalidAggregate(manager.__name__, reason)
