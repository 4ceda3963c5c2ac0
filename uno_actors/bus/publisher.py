"""Publishers, which record events before handlers see them, and the default bus, store and publisher of a process."""

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
    """Records events that come from no aggregate, then delivers them.

    Events are as durable as the store. ``system.publisher`` records to its system's store, and the system's
    router delivers to the system's handlers at least once, across restarts. `publish` does not wait for those
    handlers; ``system.settled()`` does. `get_event_publisher` records to the default store, in memory, and
    delivers once, on the default bus.

    Args:
        store: Records the events.
        bus: Delivers the events after recording; ``None`` if readers of the store deliver them.
    """

    def __init__(self, store: EventStore, bus: EventBus | None = None) -> None:
        self._store = store
        self._bus = bus

    async def publish(self, *events: DomainEvent) -> list[RecordedEvent]:
        """Record ``events`` atomically, all or none, and return them as recorded.

        When this returns, the events are as durable as the store makes them. If there is a bus, every matching
        handler has run. A failed handler stops neither the other handlers nor the following events;
        ``bus.dead_letters()`` lists it. Inside a handler, the events name the handled event as their cause.

        An event without ``aggregate_id`` goes to the log only. An event with one becomes the next event of that
        aggregate's stream, whatever the stream's version.

        Raises:
            EventNotSerializable, InvalidAggregateId, ConcurrencyConflict: An event cannot be recorded.
            StoreFull, StoreUnavailable, OutcomeUnknown: The store failed; see each class.
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
    global _current  # noqa: PLW0603 - one per process, created at first use
    with _lock:
        if _current is None:
            _current = _fresh()
        return _current


def get_event_bus() -> EventBus:
    """The default bus of this process. It serves every ``@subscribe`` handler, present and future. Not durable."""
    return _defaults().bus


def get_event_store() -> EventStore:
    """The default store of this process, in memory. It grows with every event and is lost with the process."""
    return _defaults().store


def get_event_publisher() -> EventPublisher:
    """The default publisher of this process. It records in `get_event_store`, then delivers on `get_event_bus`."""
    defaults = _defaults()
    return EventPublisher(defaults.store, defaults.bus)


@contextmanager
def event_defaults(store: EventStore | None = None, bus: EventBus | None = None) -> Iterator[None]:
    """Replace the process's default store and bus inside the block; omitted ones are new and empty. For tests."""
    global _current  # noqa: PLW0603 - as above
    replaced = _fresh(store, bus)
    with _lock:
        before, _current = _current, replaced
    try:
        yield
    finally:
        with _lock:
            _current = before
