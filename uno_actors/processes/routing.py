"""Which method of a process manager reacts to what, and to which processes an event belongs."""

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, TypeVar, get_args, get_origin, overload
from uuid import UUID

from uno_actors.annotations import is_subclass
from uno_actors.domain.aggregate import check_aggregate_id
from uno_actors.domain.commands import Command
from uno_actors.domain.events import DomainEvent
from uno_actors.domain.marked_methods import REACTS, MarkedMethod
from uno_actors.errors import InvalidAggregate, InvalidAggregateId
from uno_actors.processes.messages import Refusal

M = TypeVar("M", bound=Callable[..., Any])

By = str | Callable[[Any], object]
"""How a reaction finds the processes of an event: the name of one of its attributes, or a function of the event."""


@overload
def reacts(method: M) -> M: ...
@overload
def reacts(*, starts: bool = False, by: By | None = None) -> Callable[[M], M]: ...


def reacts(method: M | None = None, *, starts: bool = False, by: By | None = None) -> M | Callable[[M], M]:
    """Mark a method as the reaction to the event, or the ``Refusal[ACommand]``, in its annotation.

    ``AnEvent | AnotherEvent`` means a reaction to each of them. The method may register events of the process, send
    commands with `ProcessManager.send` and end the process with `ProcessManager.end`. Like a command handler, it runs
    on the event loop and must not block.

    Args:
        method: The method.
        starts: Whether the event starts a process. If one reaction of the class says so, the events of the others
            reach only processes that have started and have not ended; others ignore them. A process starts by such an
            event, or by recording an event in one of its ``@handles`` methods. Without ``starts`` in the class every
            event starts the process it belongs to.
        by: The processes that the event belongs to: the name of an attribute of the event, or a function of it. The
            value is the id of a process (a ``str``, an ``int`` or a ``UUID``), several of them (a list, set or other
            iterable), or ``None`` for no process. Default is `ProcessManager.process_id`.
    """
    if method is not None and not (starts or by is not None):
        return REACTS.put_on(method)
    options = _Options(starts, by)
    if method is not None:
        return REACTS.put_on(method, options)
    return lambda marked: REACTS.put_on(marked, options)


@dataclass(frozen=True, slots=True)
class _Options:
    """What ``@reacts`` was given."""

    starts: bool = False
    by: By | None = None


@dataclass(frozen=True, slots=True)
class Reaction:
    """One method that reacts.

    Attributes:
        method: Its name.
        starts: Whether it starts a process.
        by: How it finds the processes of an event; ``None`` for the way of the class.
    """

    method: str
    starts: bool = False
    by: By | None = None

    def processes(
        self, manager: str, event: DomainEvent, default: Callable[[Any], object]
    ) -> tuple[str, ...]:
        """The ids of the processes that ``event`` belongs to, each once, in order.

        Args:
            manager: Name of the class, for errors.
            event: An event to which the method reacts.
            default: The way of the class.

        Raises:
            InvalidAggregateId: What the route gives cannot name processes.
        """
        by = self.by
        found = getattr(event, by) if isinstance(by, str) else (by or default)(event)
        try:
            return tuple(dict.fromkeys(map(check_aggregate_id, _ids_in(found))))
        except (InvalidAggregateId, TypeError) as error:
            reason = getattr(error, "reason", None) or str(error)
            route = (
                "process_id" if by is None else f"by={by!r}" if isinstance(by, str) else "the function in by="
            )
            raise InvalidAggregateId(
                found,
                f"{route} of {manager}.{self.method} gives it for {type(event).__name__}, and it must give the id of a"
                f" process, several, or None: {reason}",
            ) from None


def _ids_in(found: object) -> Iterator[str]:
    """The ids that a route has given.

    Raises:
        TypeError: There is something else.
    """
    if found is None:
        return
    if isinstance(found, str):
        yield found
    elif isinstance(found, (int, UUID)) and not isinstance(found, bool):
        yield str(found)
    elif isinstance(found, Iterable) and not isinstance(found, (bytes, bytearray, Mapping)):
        for each in found:
            if isinstance(each, Iterable) and not isinstance(each, str):
                raise TypeError(f"an id must be a str, an int or a UUID, not {type(each).__name__}")
            yield from _ids_in(each)
    else:
        raise TypeError(f"an id must be a str, an int or a UUID, not {type(found).__name__}")


def reactions_in(cls: type) -> dict[type, Reaction]:
    """Map each event class, and each command class whose refusal the process handles, to its method.

    Raises:
        InvalidAggregate: Two methods react to one event, or a method is not a reaction.
    """
    found: dict[type, Reaction] = {}
    for method in REACTS.methods_of(cls):
        options = method.options or _Options()
        reaction = Reaction(method.name, options.starts, options.by)
        for kind, is_event in _reacted_to(cls, method):
            if kind in found and found[kind].method != method.name:
                reason = f"{found[kind].method} and {method.name} both react to {kind.__name__}"
                raise InvalidAggregate(cls.__name__, reason)
            _check_options(cls, reaction, kind, is_event=is_event)
            found[kind] = reaction
    return found


def _reacted_to(cls: type, method: MarkedMethod) -> Iterator[tuple[type, bool]]:
    """Yield the event classes that ``method`` takes, and the command classes whose refusal it takes with ``False``."""
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
            yield kind, not is_refusal


def _check_options(cls: type, reaction: Reaction, kind: Any, *, is_event: bool) -> None:
    what = f"@reacts method {reaction.method}"
    by: Any = reaction.by
    if not is_event and (reaction.starts or by is not None):
        reason = (
            f"{what} has starts or by, and reacts to a Refusal: that goes to the process that sent the command;"
            " write a method of its own for it, with @reacts alone"
        )
        raise InvalidAggregate(cls.__name__, reason)
    if by is None or callable(by):
        return
    if not isinstance(by, str):
        reason = (
            f"by of {what} must be the name of an attribute of the event, or a function of it; found {by!r}"
        )
        raise InvalidAggregate(cls.__name__, reason)
    if by not in kind.model_fields and not hasattr(kind, by):
        fields = (
            ", ".join(name for name in kind.model_fields if name not in DomainEvent.model_fields) or "none"
        )
        reason = (
            f"{what} finds its process by {by!r}, and {kind.__name__} has no such attribute; it has the fields"
            f" {fields}, and those of every event, such as aggregate_id and correlation_id"
        )
        raise InvalidAggregate(cls.__name__, reason)
