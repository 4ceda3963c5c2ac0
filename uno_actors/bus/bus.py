"""The event bus: delivers events to handlers in memory and keeps no copy of them.

The bus is not durable. It records nothing, and events still waiting when the process ends are lost.
For events that must not be lost, use `EventPublisher` and the handlers of an `ActorSystem`.
"""

import asyncio
import inspect
import threading
from collections import deque
from collections.abc import Callable
from contextvars import copy_context
from dataclasses import dataclass
from datetime import datetime
from functools import partial
from time import monotonic
from typing import TYPE_CHECKING, Any, Protocol, TypeVar, cast, overload

from uno_actors.actors.ask import copied_context
from uno_actors.actors.carrier import run_in
from uno_actors.actors.dispatcher import MAX_DEPTH, Dispatcher, outcome_of
from uno_actors.bus.concurrent_runs import ConcurrentRuns
from uno_actors.bus.subscription import BusSubscription, Kind, SubscriptionTable, selection, spec_for
from uno_actors.causality import _current as _current_cause
from uno_actors.causality import current_cause
from uno_actors.domain.aggregate import AggregateRoot
from uno_actors.domain.events import DomainEvent
from uno_actors.domain.exactness import is_exact
from uno_actors.domain.payloads import unshared
from uno_actors.errors import InvalidHandler, as_error
from uno_actors.handlers.failures import error_text
from uno_actors.handlers.routes import Routes
from uno_actors.handlers.services import SystemServices
from uno_actors.handlers.spec import BoundHandler, EventHandler, EventPriority, HandlerContext, HandlerSpec
from uno_actors.handlers.subscribe import HandlerRegistry, gather
from uno_actors.logs import Logger, get_logger
from uno_actors.observing import Observation

if TYPE_CHECKING:
    from structlog.typing import FilteringBoundLogger

T = TypeVar("T")
E = TypeVar("E", bound=DomainEvent)
H = TypeVar("H", bound="Callable[..., Any] | EventHandler[Any]")

KEPT = 1000
"""How many dead letters a bus keeps, the most recent ones. It logs and counts all of them."""

NOT_RECORDED = 0
"""``context.position`` of an event that is not in a log. Positions in a log start at 1."""


@dataclass(frozen=True, slots=True)
class FailedDelivery:
    """A dead letter of a bus: an event that a handler failed to handle, and why.

    Attributes:
        event: The event as the bus delivered it.
        handler: Name of the handler.
        error: Class name and text of the exception.
        traceback: Traceback of the exception.
        at: Time of the failure; timezone-aware, in UTC.
    """

    event: DomainEvent
    handler: str
    error: str
    traceback: str
    at: datetime


@dataclass(frozen=True, slots=True)
class BusStatistics:
    """Counters of a bus since it was created.

    Attributes:
        subscriptions: Current number of subscriptions.
        published: Published events, with and without handlers.
        handled: Successful handler calls.
        failed: Failed handler calls.
        routes: Kinds of events whose handlers are remembered.
    """

    subscriptions: int
    published: int
    handled: int
    failed: int
    routes: int


class _System(SystemServices, Protocol):
    """The system to which a bus belongs."""

    def _dispatcher(self) -> Dispatcher | None:
        """The system's event loop and worker threads while it runs."""


class EventBus:
    """Delivers events to handlers in memory. It is not durable: see the module.

    This class is long because programs call it directly: a third of its lines are docstrings and the overloads of
    `subscribe`.

    `publish` returns when every matching handler has run. For each event, all HIGH handlers finish before the
    first NORMAL handler starts, and all NORMAL handlers before the first LOW handler. Handlers of one priority
    start in the order of their subscription and then run concurrently: a handler that waits does not delay the
    others. Plain functions run on worker threads and may block.

    If a handler fails, the others still run. The bus logs the failure, keeps it in `dead_letters` and does not
    retry. ``SystemExit`` and the like also count as a failure of the handler.

    As everywhere, handlers take ``(event)`` or ``(event, context)``. On a bus ``context.attempt`` is 1.
    ``context.position`` is 0, or the event's position in the log if a publisher recorded it first. Events
    published and commands sent inside a handler name the handled event as their cause.

    Any thread may subscribe. Any event loop may publish.

    Args:
        name: Name of the bus in logs.
        registry: The bus also serves every handler in this registry, including handlers added later. The
            registry of ``@subscribe`` is `uno_actors.handlers.subscribe.handler_registry`; `get_event_bus`
            serves it.
        system: Provides ``context.system`` and worker threads. Without a system the bus uses ``asyncio``'s
            executor.
    """

    def __init__(
        self,
        name: str = "bus",
        *,
        registry: HandlerRegistry | None = None,
        system: "_System | None" = None,
    ) -> None:
        self.name = name
        self._registry = registry
        self._served: tuple[int, int] | None = None  # the registry's state when the bus last read it
        self._registered: dict[int, tuple[HandlerSpec, BusSubscription]] = {}
        self._system = system
        self._own_dispatcher: Dispatcher | None = None
        self._subscriptions = SubscriptionTable()
        self._lock = threading.RLock()
        self._routes: Routes[Kind, BusSubscription] = Routes(self._matching, self._lock, skip_empty=True)
        self._dead_letters: deque[FailedDelivery] = deque(maxlen=KEPT)
        self._published = 0
        self._handled = 0
        self._failed = 0
        self._observed: Observation | None = getattr(system, "_observed", None)
        self.log_to(get_logger())

    def log_to(self, log: Logger) -> None:
        """Log failures of handlers to ``log``, which has the names of the bus's system bound."""
        self._log = log.bind(actor=f"bus {self.name}", bus=self.name)
        self._program_log: FilteringBoundLogger | None = (
            None  # made for the first handler that takes a context
        )

    # --- subscribing ---

    @overload
    def subscribe(
        self,
        handler: H,
        event_type: type[DomainEvent] | None = None,
        topic_pattern: str | None = None,
        priority: EventPriority | None = None,
        *,
        name: str | None = None,
        aggregate_type: type[AggregateRoot] | str | None = None,
    ) -> H: ...
    @overload
    def subscribe(
        self,
        handler: None = None,
        event_type: type[DomainEvent] | None = None,
        topic_pattern: str | None = None,
        priority: EventPriority | None = None,
        *,
        name: str | None = None,
        aggregate_type: type[AggregateRoot] | str | None = None,
    ) -> Callable[[H], H]: ...

    def subscribe(
        self,
        handler: H | None = None,
        event_type: type[DomainEvent] | None = None,
        topic_pattern: str | None = None,
        priority: EventPriority | None = None,
        *,
        name: str | None = None,
        aggregate_type: type[AggregateRoot] | str | None = None,
    ) -> H | Callable[[H], H]:
        """Subscribe ``handler`` and return it. Without a handler, return a decorator that subscribes.

        Omitted options come from the handler's own ``@subscribe(...)`` or ``EventHandler[AnEvent]``, if it has
        them. Repeating a subscription of a handler has no effect.

        A handler with ``batch`` receives lists of one event. A bus ignores the other options of `HandlerSpec`.

        Args:
            handler: A function, a bound method, an `EventHandler`, or a subclass of `EventHandler`, which the
                bus instantiates once.
            event_type: Only events of this class and its subclasses.
            topic_pattern: Only events whose topic matches.
            priority: See `EventPriority`; default is NORMAL.
            name: Name in logs and dead letters; default is the qualified name.
            aggregate_type: Only events of aggregates of this class, or of this type name.

        Raises:
            InvalidTopic: The pattern is malformed.
            InvalidHandler: Another argument is wrong, or the handler is a projection or has dependencies.
        """
        if handler is None:
            return lambda handler: self.subscribe(
                handler, event_type, topic_pattern, priority, name=name, aggregate_type=aggregate_type
            )
        spec = spec_for(
            handler, event_type, topic_pattern, priority, name=name, aggregate_type=aggregate_type
        )
        if spec.keeps_a_view or spec.keeps_progress:
            raise InvalidHandler(f"{spec.name} keeps a view of recorded events: give it to an ActorSystem")
        if spec.has_dependencies:
            raise InvalidHandler(
                f"{spec.name} has dependencies, which a bus has no supervisor to open for: give it to an ActorSystem"
            )
        with self._lock:
            self._serve_registry()
            wanted = selection(spec)
            if any(selection(other.spec) == wanted for other in self._subscriptions.of_handler(handler)):
                return handler
            self._add(spec)
        return handler

    def unsubscribe(self, handler: Callable[..., Any] | EventHandler[Any]) -> bool:
        """End all subscriptions of ``handler`` to this bus. Return whether there were any.

        The bus may still call the handler for an event whose publishing has already begun.
        """
        with self._lock:
            self._serve_registry()
            ended = self._subscriptions.of_handler(handler)
            for subscription in ended:
                self._remove(subscription)
        return bool(ended)

    def _serve_registry(self) -> None:
        """Adopt changes of the registry since the last check: add new handlers, remove those that are gone."""
        registry = self._registry
        if registry is None or self._served == registry.state:
            return
        with self._lock:
            state = registry.state
            specs = {id(spec): spec for spec in tuple(registry.values())}
            for key in self._registered.keys() - specs.keys():
                self._remove(self._registered.pop(key)[1])
            for key, spec in specs.items():
                if key not in self._registered:
                    (complete,) = gather([spec])
                    if not (
                        complete.keeps_a_view or complete.keeps_progress or complete.has_dependencies
                    ):  # only systems serve these
                        self._registered[key] = (spec, self._add(complete))
            self._served = state

    def _add(self, spec: HandlerSpec) -> BusSubscription:
        subscription = self._subscriptions.add(spec)
        self._routes.clear()
        return subscription

    def _remove(self, subscription: BusSubscription) -> None:
        self._subscriptions.remove(subscription)
        self._routes.clear()

    def _matching(self, route: Kind) -> list[BusSubscription]:
        with self._lock:
            return self._subscriptions.matching(route)

    # --- publishing ---

    async def publish(self, *events: DomainEvent, raise_errors: bool = False) -> None:
        """Deliver ``events`` one after the other. Return when every matching handler has run.

        Cancelling the call cancels the running handlers. The bus keeps a dead letter of the current event for
        each of them and for each handler not yet started. It does not publish the remaining events.

        Args:
            *events: The events; the bus does not record them.
            raise_errors: Raise the handlers' exceptions at the end, in addition to keeping dead letters.

        Raises:
            ExceptionGroup: Handlers failed and ``raise_errors`` is set; a ``BaseExceptionGroup`` if a handler
                raised ``SystemExit``.
            TypeError: One of ``events`` is not a `DomainEvent`.
            InvalidHandler: The registry that the bus serves contains a handler that cannot work.
        """
        errors: list[BaseException] = []
        for event in events:
            await self._deliver(event, NOT_RECORDED, errors)
        if errors and raise_errors:
            raise BaseExceptionGroup(f"handlers of bus {self.name!r} failed", errors)

    async def _deliver(self, event: DomainEvent, position: int, errors: list[BaseException]) -> None:
        """Deliver one event. Append the handlers' exceptions to ``errors``."""
        registry = self._registry
        if registry is not None and self._served != registry.state:
            self._serve_registry()
        tiers = self._routes.get(
            (event.__class__, getattr(event, "topic", None), getattr(event, "aggregate_type", None))
        )
        if tiers is None:
            if not issubclass(event.__class__, DomainEvent):
                raise TypeError(f"a bus carries DomainEvents; found {event!r}")
            tiers = self._routes[event.__class__, event.topic, event.aggregate_type]
        self._published += 1
        if not tiers:
            return
        event = with_cause(event)
        observed = self._observed
        if observed is not None and observed.in_contexts:
            event = correlated(event, observed)
            copied_context().run(observed.bus_published, self.name, event, sum(map(len, tiers)))
        # Of several handlers each receives a copy, unless nothing in the event can change.
        copied = (len(tiers) > 1 or len(tiers[0]) > 1) and not is_exact(event)
        begun = 0
        token = _current_cause.set(event.cause)  # does the same as `caused_by`, in half the time
        try:
            for tier in tiers:
                begun += 1
                if len(tier) == 1:  # most events have one handler: run it in the caller's task
                    await self._run(tier[0], event, position, errors, copied=copied)
                else:
                    await self._run_tier(tier, event, position, errors, copied=copied)
        except asyncio.CancelledError:
            for tier in tiers[begun:]:
                for subscription in tier:
                    cancelled = asyncio.CancelledError("publish was cancelled before the handler's turn")
                    self._fail(subscription, event, cancelled)
            raise
        finally:
            _current_cause.reset(token)

    async def _run_tier(
        self,
        tier: tuple[BusSubscription, ...],
        event: DomainEvent,
        position: int,
        errors: list[BaseException],
        *,
        copied: bool,
    ) -> None:
        """Run several handlers of ``event`` concurrently."""
        dispatcher = self._dispatcher()
        if dispatcher.depth >= MAX_DEPTH:  # nested publishing; Python's recursion limit ends it
            for subscription in tier:
                await self._run(subscription, event, position, errors, copied=copied)
            return
        running = ConcurrentRuns(dispatcher)
        for subscription in tier:
            running.start(self._run(subscription, event, position, errors, copied=copied))
        await running.end()

    def _dispatcher(self) -> Dispatcher:
        """The system's dispatcher on the system's loop; on any other loop the bus's own, which has no threads."""
        of_system = None if self._system is None else self._system._dispatcher()
        if of_system is not None:
            return of_system
        own, loop = self._own_dispatcher, asyncio.get_running_loop()
        if own is None or own.loop is not loop:
            own = self._own_dispatcher = Dispatcher(loop)
        return own

    async def _on_worker(self, function: Callable[..., T], *args: object) -> T:
        """Run a plain function on a worker thread, in the caller's context variables."""
        of_system = None if self._system is None else self._system._dispatcher()
        if of_system is not None:
            return await of_system.on_worker(function, *args)
        # Use asyncio's executor, which ends with the loop. A future cannot carry a StopIteration.
        value, error = await asyncio.to_thread(outcome_of, partial(function, *args))
        if error is not None:
            raise error
        return cast("T", value)

    async def _run(
        self,
        subscription: BusSubscription,
        event: DomainEvent,
        position: int,
        errors: list[BaseException],
        *,
        copied: bool,
    ) -> None:
        """Run one handler on ``event``, or on a copy. Raise nothing except the cancellation of this call."""
        task = asyncio.current_task()
        cancelled = 0 if task is None else task.cancelling()
        try:
            handler = subscription.handler
            if handler is None:
                handler = subscription.handler = subscription.spec.instantiate()
            context = self._context(subscription, event, position) if handler.takes_context else None
            mine = unshared(event) if copied else event
            given = mine if subscription.spec.batch is None else [mine]
            arguments = (given,) if context is None else (given, context)
            if self._observed is not None and self._observed.in_contexts:
                name = subscription.spec.name
                await run_in(copy_context(), self._observe(self._observed, name, handler, event, arguments))
            elif handler.is_async:
                await handler.function(*arguments)
            else:
                await self._call_plain(handler, arguments)
        except asyncio.CancelledError as error:
            errors.append(as_error(error, f"handler {subscription.spec.name}"))
            self._fail(subscription, event, error)
            if task is not None and task.cancelling() > cancelled:
                raise  # otherwise the handler cancelled itself
        except (KeyboardInterrupt, GeneratorExit):  # these end the process or the coroutine, not the handler
            raise
        except BaseException as error:  # noqa: BLE001 - one handler must not keep others from running
            errors.append(as_error(error, f"handler {subscription.spec.name}"))
            self._fail(subscription, event, error)
        else:
            self._handled += 1

    async def _call_plain(self, handler: BoundHandler, arguments: tuple[Any, ...]) -> None:
        result = await self._on_worker(handler.function, *arguments)
        if result is not None and inspect.isawaitable(result):  # a coroutine, or an ask's future
            await result

    async def _observe(
        self,
        observed: Observation,
        name: str,
        handler: BoundHandler,
        event: DomainEvent,
        arguments: tuple[Any, ...],
    ) -> None:
        """Call a handler of this name, and tell the observers."""
        observed.bus_handler_called(self.name, name, event)
        began = monotonic()
        try:
            await (handler.function(*arguments) if handler.is_async else self._call_plain(handler, arguments))
        except BaseException as error:
            observed.bus_handler_returned(self.name, name, event, monotonic() - began, error)
            raise
        observed.bus_handler_returned(self.name, name, event, monotonic() - began, None)

    def _context(self, subscription: BusSubscription, event: DomainEvent, position: int) -> HandlerContext:
        name = subscription.spec.name
        if self._program_log is None:
            self._program_log = self._log.for_program()
        logger = self._program_log.bind(handler=name, event_type=event.event_type, position=position)
        system = cast("SystemServices", _NoSystem() if self._system is None else self._system)
        return HandlerContext(position, 1, name, logger, system)

    # --- failures ---

    def _fail(self, subscription: BusSubscription, event: DomainEvent, error: BaseException) -> None:
        self._failed += 1
        name = subscription.spec.name
        text = error_text(error)
        self._dead_letters.append(FailedDelivery(event, name, text.error, text.traceback, text.at))
        self._log.error(
            "handler failed",
            handler=name,
            event_type=event.event_type,
            event_id=event.event_id,
            correlation_id=event.correlation_id,
            exc_info=error,
        )

    def dead_letters(self, handler: str | None = None) -> list[FailedDelivery]:
        """The last `KEPT` dead letters, oldest first; with ``handler``, those of the handler with this name."""
        return [letter for letter in tuple(self._dead_letters) if handler in (None, letter.handler)]

    def statistics(self) -> BusStatistics:
        """The bus's counters."""
        return BusStatistics(
            len(self._subscriptions), self._published, self._handled, self._failed, len(self._routes)
        )

    def __repr__(self) -> str:
        return f"<EventBus {self.name} ({len(self._subscriptions)} subscriptions)>"


def with_cause(event: E) -> E:
    """``event``, with the correlation and causation ids that it lacks taken from the message being handled."""
    cause = current_cause()
    if cause is None or event.event_id == cause.causation_id:  # the handled event itself, passed on
        return event
    if event.correlation_id is not None and event.causation_id is not None:
        return event
    correlation_id, causation_id = cause.fill(event.correlation_id, event.causation_id)
    return event.stamped(correlation_id=correlation_id, causation_id=causation_id)


def correlated(event: E, observed: Observation) -> E:
    """``event``, with a correlation id from an observer if it has none."""
    if event.correlation_id is not None:
        return event
    correlation_id = observed.correlation_id()
    return event if correlation_id is None else event.stamped(correlation_id=correlation_id)


class _NoSystem:
    """Stands in for the system in the contexts of a bus without a system."""

    def __getattr__(self, name: str) -> Any:
        raise InvalidHandler(
            f"context.system.{name} on a bus of no system: subscribe the handler to the bus of one, system.bus"
        )
