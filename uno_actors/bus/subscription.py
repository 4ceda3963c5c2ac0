"""The subscriptions of an event bus: builds them from the arguments of `subscribe`, and finds those of an event."""

import inspect
import itertools
from collections.abc import Callable
from dataclasses import replace
from typing import Any

from uno_actors.domain.aggregate import AggregateRoot
from uno_actors.domain.events import DomainEvent
from uno_actors.errors import InvalidHandler
from uno_actors.handlers.spec import BoundHandler, EventHandler, EventPriority, HandlerSpec
from uno_actors.handlers.subscribe import complete, default_name, gather, subscription_of
from uno_actors.topics import TopicPattern, TopicTrie

Kind = tuple[type[DomainEvent], str | None, str | None]
"""Class, topic and aggregate type of an event."""


class BusSubscription:
    """One handler subscribed to one bus; compared by identity."""

    __slots__ = ("handler", "order", "spec")

    def __init__(self, spec: HandlerSpec, order: int) -> None:
        self.spec = spec
        self.order = order
        self.handler: BoundHandler | None = None  # created for the first event


class SubscriptionTable:
    """The subscriptions of one bus, indexed by handler, event class and topic.

    The table is not thread-safe: the bus holds its lock around every call that changes or searches it.
    """

    def __init__(self) -> None:
        self._all: dict[BusSubscription, None] = {}
        self._by_target: dict[tuple[int, ...], list[BusSubscription]] = {}
        self._by_type: dict[type[DomainEvent], dict[BusSubscription, None]] = {}
        self._by_topic: TopicTrie[BusSubscription] = TopicTrie()
        self._order = itertools.count()

    def __len__(self) -> int:
        return len(self._all)

    def add(self, spec: HandlerSpec) -> BusSubscription:
        """Subscribe a handler, after all present ones."""
        subscription = BusSubscription(spec, next(self._order))
        self._all[subscription] = None
        self._by_target.setdefault(target_key(spec.target), []).append(subscription)
        if spec.topic_pattern is not None:
            self._by_topic.add(spec.topic_pattern, subscription)
        else:
            for kind in event_classes(spec):
                self._by_type.setdefault(kind, {})[subscription] = None
        return subscription

    def remove(self, subscription: BusSubscription) -> None:
        """End a subscription; if it has ended already, do nothing."""
        if subscription not in self._all:
            return
        spec = subscription.spec
        del self._all[subscription]
        of_target = self._by_target[target_key(spec.target)]
        of_target.remove(subscription)
        if not of_target:
            del self._by_target[target_key(spec.target)]
        if spec.topic_pattern is not None:
            self._by_topic.remove(spec.topic_pattern, subscription)
        else:
            for kind in event_classes(spec):
                del self._by_type[kind][subscription]

    def of_handler(self, handler: object) -> tuple[BusSubscription, ...]:
        """The subscriptions of ``handler``, as passed to `EventBus.subscribe`."""
        return tuple(self._by_target.get(target_key(handler), ()))

    def matching(self, route: Kind) -> list[BusSubscription]:
        """The subscriptions that select events of this class, topic and aggregate type, in order of subscription."""
        kind, topic, aggregate_type = route
        of_kind = {
            subscription: None for base in kind.__mro__ for subscription in self._by_type.get(base, ())
        }
        found = list(of_kind)
        if topic is not None:
            found += (
                subscription
                for subscription in self._by_topic.match(topic)
                if issubclass(kind, event_classes(subscription.spec))
            )
        found = [each for each in found if each.spec.aggregate_type in (None, aggregate_type)]
        return sorted(found, key=lambda subscription: subscription.order)


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
