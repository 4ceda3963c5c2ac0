"""Subscriptions of an event bus: builds them from the arguments of `subscribe`, and says which events they select."""

import inspect
from collections.abc import Callable
from dataclasses import replace
from typing import Any

from uno_actors.domain.aggregate import AggregateRoot
from uno_actors.domain.events import DomainEvent
from uno_actors.errors import InvalidHandler
from uno_actors.handlers.spec import BoundHandler, EventHandler, EventPriority, HandlerSpec
from uno_actors.handlers.subscribe import complete, default_name, gather, subscription_of
from uno_actors.topics import TopicPattern


class BusSubscription:
    """One handler subscribed to one bus; compared by identity."""

    __slots__ = ("handler", "order", "spec")

    def __init__(self, spec: HandlerSpec, order: int) -> None:
        self.spec = spec
        self.order = order
        self.handler: BoundHandler | None = None  # created for the first event


def spec_for(
    handler: Callable[..., Any] | EventHandler[Any],
    event_type: type[DomainEvent] | None,
    topic_pattern: str | None,
    priority: EventPriority | None,
    *,
    name: str | None,
    aggregate_type: type[AggregateRoot] | str | None,
) -> HandlerSpec:
    """Build the specification of ``handler``. Arguments override what its own ``@subscribe(...)`` or class says."""
    given: dict[str, Any] = {"event_type": event_type, "name": name, "aggregate_type": aggregate_type}
    if topic_pattern is not None:
        given["topic_pattern"] = TopicPattern(topic_pattern)
    if priority is not None:
        if priority not in tuple(EventPriority):
            allowed = ", ".join(EventPriority.__members__)
            raise InvalidHandler(f"priority must be one of {allowed}, not {priority!r}")
        given["priority"] = EventPriority(priority)
    given = {option: value for option, value in given.items() if value is not None}
    is_handler = isinstance(handler, EventHandler) or (
        isinstance(handler, type) and issubclass(handler, EventHandler)
    )
    if is_handler or subscription_of(handler) is not None:
        (own,) = gather([handler])
        return replace(own, **given)
    return complete(HandlerSpec(**({"name": name or default_name(handler), "target": handler} | given)))


def selection(spec: HandlerSpec) -> tuple[object, ...]:
    """Which events the handler selects, and at which priority. Equal selections are the same subscription."""
    return spec.event_type, spec.topic_pattern, spec.aggregate_type, spec.priority


def event_classes(spec: HandlerSpec) -> tuple[type[DomainEvent], ...]:
    """The event classes that the handler selects, without duplicates."""
    kinds = spec.event_type if isinstance(spec.event_type, tuple) else (spec.event_type or DomainEvent,)
    return tuple(dict.fromkeys(kinds))


def target_key(target: object) -> tuple[int, ...]:
    """Identify a handler. Python creates a new bound method at every lookup, so its object and function count."""
    if inspect.ismethod(target):
        return id(target.__self__), id(target.__func__)
    return (id(target),)
