"""Publishers: events are recorded first and handled then. And the defaults of a process that has no system."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from uno_actors.bus.bus import EventBus, with_cause
from uno_actors.domain.events import DomainEvent
from uno_actors.handlers.subscribe import handler_registry
from uno_actors.store.opening import open_store
from uno_actors.store.port import EventStore
from uno_actors.store.records import RecordedEvent


class EventPublisher:
    """Records events that no aggregate has registered, and has them delivered.

    Durable is what its store makes durable. ``system.publisher`` records to the store of its system, whose
    router then delivers to the system's handlers, at least once, across restarts: `publish` does not wait for
    them, ``system.settled()`` does. `get_event_publisher` records to the default store, in memory, and
    delivers on the default bus, once.

    Args:
        store: Where events are recorded.
        bus: Where they are delivered then; ``None`` if whoever reads the store delivers them.
    """

    def __init__(self, store: EventStore, bus: EventBus | None = None) -> None:
        self._store = store
        self._bus = bus

    async def publish(self, *events: DomainEvent) -> list[RecordedEvent]:
        """Record ``events`` together or not at all; return them as recorded.

        When it returns they are as durable as the store makes them. With a bus every matching handler has run
        by then; one that fails keeps neither the others nor the events after it, and is found in
        ``bus.dead_letters()``. Inside of a handler they name the event being handled as their cause.

        An event without ``aggregate_id`` is recorded in the log alone; one with it becomes the next of that
        aggregate's stream, whatever its version.

        Raises:
            EventNotSerializable, InvalidAggregateId, ConcurrencyConflict: An event cannot be recorded.
            StoreFull, StoreUnavailable, OutcomeUnknown: See there.
        """
        recorded = await self._store.append(*map(with_cause, events))
        if self._bus is not None:
            for position, event in recorded:
                await self._bus._deliver(event, position, [])
        return recorded

    def __repr__(self) -> str:
        return f"EventPublisher({self._store!r}, {self._bus!r})"


@dataclass(frozen=True, slots=True)
class _Defaults:
    store: EventStore
    bus: EventBus


def _fresh(store: EventStore | None = None, bus: EventBus | None = None) -> _Defaults:
    return _Defaults(store or open_store("memory:"), bus or EventBus("default", registry=handler_registry))


_lock = threading.Lock()
_current: _Defaults | None = None


def _defaults() -> _Defaults:
    global _current  # noqa: PLW0603 - one per process, made when first needed
    with _lock:
        if _current is None:
            _current = _fresh()
        return _current


def get_event_bus() -> EventBus:
    """The bus of this process. It serves all that ``@subscribe`` has marked or will mark; not durable."""
    return _defaults().bus


def get_event_store() -> EventStore:
    """The store of this process: in memory, gone with the process, and growing with what is recorded."""
    return _defaults().store


def get_event_publisher() -> EventPublisher:
    """The publisher of this process: records in `get_event_store`, then delivers on `get_event_bus`."""
    defaults = _defaults()
    return EventPublisher(defaults.store, defaults.bus)


@contextmanager
def event_defaults(store: EventStore | None = None, bus: EventBus | None = None) -> Iterator[None]:
    """Inside the block the defaults of the process are these, and fresh ones where they are left out: for tests."""
    global _current  # noqa: PLW0603 - as above
    replaced = _fresh(store, bus)
    with _lock:
        before, _current = _current, replaced
    try:
        yield
    finally:
        with _lock:
            _current = before
