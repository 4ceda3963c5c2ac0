"""Decorators that register event types and the steps between their schemas."""

from collections.abc import Callable
from typing import overload

from uno_actors.domain.events import DomainEvent, E, Upcast, event_registry


@overload
def register_event(event_type: type[E]) -> type[E]: ...
@overload
def register_event(*, name: str) -> Callable[[type[E]], type[E]]: ...


def register_event(
    event_type: type[E] | None = None, *, name: str | None = None
) -> type[E] | Callable[[type[E]], type[E]]:
    """Class decorator that registers an event type in the process-wide registry.

    Subclasses of `DomainEvent` register themselves under their own name. With ``name=``, events recorded under
    another name, such as the one that the class had before it was renamed, are read as this class too.
    """

    def register(event_type: type[E]) -> type[E]:
        event_registry.register(event_type, name)
        return event_type

    return register if event_type is None else register(event_type)


def upcasts(event_type: type[DomainEvent] | str, from_version: int) -> Callable[[Upcast], Upcast]:
    """Register a function that turns a payload of one schema version into a payload of the next.

    Args:
        event_type: The class or the recorded name of the event type.
        from_version: The schema version that the function reads; it returns ``from_version + 1``.

    The function takes the payload (a ``dict`` without metadata) and returns the new one. Steps chain: an event of
    version 1 passes through 1 to 2 and 2 to 3 if today's class has ``version: int = 3``.

    Raises:
        ValueError: ``from_version`` is not a schema version.
    """

    def register(step: Upcast) -> Upcast:
        event_registry.add_upcast(event_type, from_version, step)
        return step

    return register
