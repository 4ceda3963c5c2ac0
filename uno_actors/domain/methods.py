"""The methods of an aggregate's class, by the command that they handle and by the event that they apply."""

import inspect
from collections.abc import Iterator
from contextlib import suppress
from typing import Any

from uno_actors.annotations import UnreadableAnnotation, annotated_classes, is_subclass, runs_later
from uno_actors.domain.commands import Command
from uno_actors.domain.events import DomainEvent
from uno_actors.domain.marked_methods import HANDLES
from uno_actors.errors import InvalidAggregate


def _key(name: str) -> str:
    return name.replace("_", "").lower()


def event_key(name: str) -> str:
    """The key of an event class without a trailing ``Event``; ``event`` for a class of just that name."""
    return _key(name.removesuffix("Event")) or _key(name)


def apply_methods(cls: type) -> dict[str, str]:
    """Map ``usercreated`` to ``apply_user_created`` for each apply method, inherited ones included."""
    found: dict[str, str] = {}
    for name in dir(cls):
        if not name.startswith("apply_"):
            continue
        if runs_later(inspect.getattr_static(cls, name)):
            reason = f"{name} is async or has a yield, so calling it would change nothing: write a plain def"
            raise InvalidAggregate(cls.__name__, reason)
        other = found.setdefault(_key(name.removeprefix("apply_")), name)
        if other != name:
            raise InvalidAggregate(cls.__name__, f"{other} and {name} apply the same event")
    return found


def command_methods(cls: type) -> dict[type[Command[Any]], str]:
    """Map each command type to the method that handles it, inherited ones included."""
    found: dict[type[Command[Any]], str] = {}
    for method in HANDLES.methods_of(cls):
        if len(method.alternatives) != 1 or not is_subclass(command := method.alternatives[0], Command):
            reason = f"@handles method {method.name} is annotated with {method.annotation!r}, which is not a Command"
            raise InvalidAggregate(cls.__name__, reason)
        if command in found:
            reason = f"{found[command]} and {method.name} both handle {command.__name__}"
            raise InvalidAggregate(cls.__name__, reason)
        found[command] = method.name
    return found


def events_named(cls: Any, name: str) -> list[type[DomainEvent]]:
    """The classes of this name in the annotations of the ``apply_`` methods of ``cls``."""
    return [event for event in applied_events(cls) if event.type_name() == name]


def applied_events(cls: Any) -> Iterator[type[DomainEvent]]:
    """The events in the annotations of the ``apply_`` methods of ``cls``; unreadable annotations are skipped."""
    for name in cls._applies.values():
        with suppress(UnreadableAnnotation):
            yield from annotated_classes(getattr(cls, name), DomainEvent, skip=1, kind=cls) or ()
