"""Publishers, which record events before handlers see them, and the default bus, store and publisher of a process."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import Context
from dataclasses import dataclass
from time import monotonic

from uno_actors.actors.ask import context_of_sender, copied_context
from uno_actors.bus.bus import EventBus, correlated, with_cause
from uno_actors.domain.events import DomainEvent
from uno_actors.event_contexts import EventContexts
from uno_actors.flight_recorder.ring import FlightRecorder
from uno_actors.handlers.subscribe import handler_registry
from uno_actors.observing import Observation
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
        contexts: Where to keep the context of the caller, for the handlers of a system.
        observed: The observers of that system, if there are any.
        recorder: The flight recorder of that system, if it has one.
    """

    def __init__(
        self,
        store: EventStore,
        bus: EventBus | None = None,
        *,
        contexts: EventContexts | None = None,
        observed: Observation | None = None,
        recorder: FlightRecorder | None = None,
    ) -> None:
        self._store = store
        self._bus = bus
        self._contexts = contexts
        self._observed = observed
        self._recorder = recorder

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
        began = monotonic()
        caused = [with_cause(event) for event in events]
        if self._observed is not None and self._observed.in_contexts:
            recorded = await self._observe(self._observed, caused)
        else:
            context = context_of_sender()
            if context is not None:
                self._keep(caused, context)
            recorded = await self._store.append(*caused)
        if self._recorder is not None:
            self._recorder.published(began, recorded)
        if self._bus is not None:
            for position, event in recorded:
                await self._bus._deliver(event, position, [])
        return recorded

    async def _observe(self, observed: Observation, events: list[DomainEvent]) -> list[RecordedEvent]:
        context, began = copied_context(), monotonic()
        context.run(observed.publish_begun, events)
        events = [context.run(correlated, event, observed) for event in events]
        self._keep(events, context)
        try:
            recorded = await self._store.append(*events)
        except BaseException as error:
            context.run(observed.publish_ended, events, monotonic() - began, error)
            raise
        context.run(observed.publish_ended, events, monotonic() - began, None)
        return recorded

    def _keep(self, events: list[DomainEvent], context: Context) -> None:
        if self._contexts is not None:
            self._contexts.keep_all(events, context)

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
