"""Bridges between bounded contexts: they copy events that one system records into another system.

A bridge is a handler of the source system. Like any handler it has a checkpoint, attempts and dead letters. It
records the events in the target's store, where the target's handlers read them like any other event.

The target records each carried event once, although a handler may receive an event twice. Each carried event
has its own stream in the target's store. The stream's name derives from the event's id, and the bridge records
the event only as the first of that stream. The name also lists the systems that the event has passed, so an
event never returns to one of them, even if bridges form a cycle. If two paths lead to a system, the event
arrives once on each path.
"""

import inspect
from collections.abc import Callable
from hashlib import blake2b
from typing import Literal

from uno_actors.domain.events import DomainEvent
from uno_actors.errors import ConcurrencyConflict, InvalidHandler
from uno_actors.handlers.spec import HandlerSpec
from uno_actors.store.port import EventStore
from uno_actors.store.records import RecordedEvent
from uno_actors.system.system import ActorSystem
from uno_actors.topics import TopicPattern

CARRIED = "uno.bridge"
"""The ``aggregate_type`` of carried events. No class can have this name."""

Translate = Callable[[DomainEvent], DomainEvent | None]


def bridge(
    source: ActorSystem,
    target: ActorSystem,
    topic_pattern: str,
    *,
    translate: Translate | None = None,
    name: str | None = None,
    start: Literal["latest", "earliest"] = "latest",
    max_attempts: int = 5,
) -> None:
    """Copy the events that ``source`` records under ``topic_pattern`` to ``target``.

    Call this before starting ``source``. The target must run as long as the source runs. In ``async with
    target, source:`` the source starts last and stops first.

    In the target, a carried event keeps its payload, type, topic and time, and names the source's event as its
    cause. It belongs to no aggregate there: its ``aggregate_type`` is `CARRIED`, and its ``aggregate_id`` lists
    the systems that it has passed. To reach the target's own aggregates, write a handler that turns carried
    events into commands.

    Args:
        source: The system that records the events first.
        target: The system that receives them. It needs another name and another store.
        topic_pattern: Selects the events to carry.
        translate: A plain function that maps the source's event to the target's event, or to ``None`` to skip
            it. The bridge may call it again with the same event.
        name: Name of the handler and of its checkpoint. Bridges with different names create different events in
            the target.
        start: As for other handlers.
        max_attempts: As for other handlers.

    Raises:
        InvalidTopic: The pattern is malformed.
        InvalidHandler: The systems share a name or a store, a name contains ``>`` or ``/``, the source already
            has a handler of this name, or an argument is wrong.
        SystemNotRunning: The source was already started.
    """
    if source.name == target.name:
        raise InvalidHandler(f"both systems are named {source.name!r}: bridged ones need names that differ")
    if unfit := [system.name for system in (source, target) if ">" in system.name or "/" in system.name]:
        raise InvalidHandler(f"the name of a bridged system must not have '>' or '/' in it; found {unfit}")
    if source._shares_store_with(target):
        raise InvalidHandler(f"{source!r} and {target!r} share a store: there is nothing to bridge")
    if inspect.iscoroutinefunction(translate):
        raise InvalidHandler(f"translate must be a plain function, {translate!r} is a coroutine function")
    name = name or f"bridge {source.name} to {target.name}: {topic_pattern}"
    carrier = _Bridge(name, source.name, target, translate)
    source._add_handler(
        HandlerSpec(
            name=name,
            target=carrier.carry,
            topic_pattern=TopicPattern(topic_pattern),
            start=start,
            max_attempts=max_attempts,
        )
    )


class _Bridge:
    """The handler that carries events from the source to the target."""

    def __init__(self, name: str, source: str, target: ActorSystem, translate: Translate | None) -> None:
        self._name = name
        self._source = source
        self._target = target
        self._translate = translate

    async def carry(self, event: DomainEvent) -> None:
        """Record ``event`` in the target, unless it is there already or has passed the source or the target."""
        passed = systems_passed(event)
        if self._source in passed or self._target.name in passed:
            return
        carried = event if self._translate is None else self._translate(event)
        if carried is None:
            return
        self._target.store.event_registry.resolve(
            carried.event_type
        )  # otherwise the target could not read it
        event_id = blake2b(f"{self._name}\0{event.event_id}".encode(), digest_size=16).hexdigest()
        cause = event.cause
        stamped = carried.stamped(
            event_id=event_id,
            aggregate_type=CARRIED,
            aggregate_id=f"{'>'.join([*passed, self._source])}/{event_id}",
            aggregate_version=None,
            correlation_id=cause.correlation_id,
            causation_id=cause.causation_id,
        )
        await self._target._on_its_loop(_record_once(self._target.store, stamped))


def systems_passed(event: DomainEvent) -> list[str]:
    """Names of the systems that a carried event has passed, starting with its origin."""
    if event.aggregate_type != CARRIED or event.aggregate_id is None:
        return []
    return event.aggregate_id.rpartition("/")[0].split(">")


async def _record_once(store: EventStore, event: DomainEvent) -> list[RecordedEvent]:
    try:
        return await store.append(event, expected_version=0)
    except ConcurrencyConflict:  # an earlier attempt recorded it, but its success went unseen
        return []
