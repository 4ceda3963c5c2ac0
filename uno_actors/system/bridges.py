"""Bridges between bounded contexts: events that one system has recorded are recorded in another one too.

A bridge is a handler of the source system, with a checkpoint, attempts and dead letters as any other. What it
carries over it records in the target's store, where the target's handlers find it like any other event.

Carried events are recorded once, although a handler may see an event twice: each has a stream of its own in
the target's store, whose name follows from the event's id, and is recorded as the first event of that stream
or not at all. The name of the stream also tells which systems the event has passed; so it never comes back to one
of them, however the bridges lie. To a system that two ways lead to it comes once on each.
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
"""The ``aggregate_type`` of carried events; no class can have this name."""

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
    """Have what ``source`` records under ``topic_pattern`` recorded in ``target`` too.

    Called before ``source`` is started; the target must be running while the source is. In ``async with
    target, source:`` the source starts last and stops first.

    In the target a carried event has the payload, type, topic and time that it has in the source, and names the
    source's event as its cause. It belongs to no aggregate there: its ``aggregate_type`` is `CARRIED`, its
    ``aggregate_id`` tells its way. For the target's own aggregates a handler turns it into commands.

    Args:
        source: Where the events are recorded first.
        target: Where they are carried to. The two have different names and different stores.
        topic_pattern: Which events.
        translate: A plain function from the source's event to the target's, or to ``None`` for one that is not
            to be carried; it may be called again with the same event.
        name: Of the handler, and so of its checkpoint. Events that are carried by bridges of different names
            are different in the target.
        start: As for other handlers.
        max_attempts: As for other handlers.

    Raises:
        InvalidTopic: The pattern is malformed.
        InvalidHandler: The systems share a name or a store, a name has ``>`` or ``/`` in it, the source has
            such a handler already, or an argument is wrong.
        SystemNotRunning: The source was started already.
    """
    if source.name == target.name:
        raise InvalidHandler(f"both systems are named {source.name!r}: bridged ones need names that differ")
    if unfit := [system.name for system in (source, target) if ">" in system.name or "/" in system.name]:
        raise InvalidHandler(f"the name of a bridged system must not have '>' or '/' in it; found {unfit}")
    if source._shares_store_with(target):
        raise InvalidHandler(f"{source!r} and {target!r} have one store: there is nothing to bridge")
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
    """The handler."""

    def __init__(self, name: str, source: str, target: ActorSystem, translate: Translate | None) -> None:
        self._name = name
        self._source = source
        self._target = target
        self._translate = translate

    async def carry(self, event: DomainEvent) -> None:
        """Record ``event`` in the target, unless it is there already or has passed it."""
        passed = systems_passed(event)
        if self._source in passed or self._target.name in passed:
            return
        carried = event if self._translate is None else self._translate(event)
        if carried is None:
            return
        self._target.store.event_registry.resolve(carried.event_type)  # else nobody could read it there
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
    """The names of the systems from which a carried event has come, first the one where it happened."""
    if event.aggregate_type != CARRIED or event.aggregate_id is None:
        return []
    return event.aggregate_id.rpartition("/")[0].split(">")


async def _record_once(store: EventStore, event: DomainEvent) -> list[RecordedEvent]:
    try:
        return await store.append(event, expected_version=0)
    except ConcurrencyConflict:  # it was recorded before, by an attempt whose success was not seen
        return []
