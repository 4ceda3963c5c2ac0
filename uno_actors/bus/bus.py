"""The event bus: events go to their handlers in memory, and are gone once they were handled.

Nothing here is durable: what a bus was given is recorded nowhere, and what waits when the process ends is lost.
For events that must not be lost there is `EventPublisher`, and the handlers of an `ActorSystem`.
"""

import asyncio
import inspect
import itertools
import threading
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from functools import partial
from typing import Any, Protocol, TypeVar, cast, overload

from uno_actors.actors.dispatcher import MAX_DEPTH, Dispatcher, outcome_of
from uno_actors.bus.concurrent_runs import ConcurrentRuns
from uno_actors.bus.subscription import BusSubscription, event_classes, selection, spec_for, target_key
from uno_actors.causality import _current as _current_cause
from uno_actors.causality import current_cause
from uno_actors.domain.aggregate import AggregateRoot
from uno_actors.domain.events import DomainEvent
from uno_actors.domain.payloads import unshared
from uno_actors.errors import InvalidHandler, as_error
from uno_actors.handlers.failures import error_text
from uno_actors.handlers.routes import Routes
from uno_actors.handlers.services import SystemServices
from uno_actors.handlers.spec import EventHandler, EventPriority, HandlerContext, HandlerSpec
from uno_actors.handlers.subscribe import HandlerRegistry, gather
from uno_actors.logs import get_logger, program_logger
from uno_actors.topics import TopicTrie

T = TypeVar("T")

E = TypeVar("E", bound=DomainEvent)

H = TypeVar("H", bound="Callable[..., Any] | EventHandler[Any]")

KEPT = 1000
"""Dead letters that a bus keeps, the last ones; all are logged and counted."""

NOT_RECORDED = 0
"""``context.position`` of an event that stands in no log; positions in a log begin at 1."""


@dataclass(frozen=True, slots=True)
class FailedDelivery:
    """A dead letter of a bus: an event that one of its handlers could not handle, and why.

    Attributes:
        event: As the handler was given it.
        handler: Name of the handler.
        error: Class name and text of what it raised.
        traceback: Of the same.
        at: When; aware, in UTC.
    """

    event: DomainEvent
    handler: str
    error: str
    traceback: str
    at: datetime


@dataclass(frozen=True, slots=True)
class BusStatistics:
    """What a bus has done so far.

    Attributes:
        subscriptions: Subscriptions now.
        published: Events that were published, with and without handlers.
        handled: Times that a handler has handled an event.
        failed: Times that one failed.
    """

    subscriptions: int
    published: int
    handled: int
    failed: int


Kind = tuple[type[DomainEvent], str | None, str | None]
"""Class, topic and aggregate type of an event."""


class _System(SystemServices, Protocol):
    """The system that a bus belongs to."""

    def _dispatcher(self) -> Dispatcher | None:
        """Its event loop and worker threads while it runs."""


class EventBus:
    """Hands events to handlers in memory. It is not durable: see the module.

    `publish` returns when every matching handler has run. For each event all HIGH handlers are done before a
    NORMAL one starts, and NORMAL before LOW. Those of one priority start in the order of their subscription
    and then run concurrently, so that one which waits does not hold up the others. Plain functions run on worker
    threads and may block.

    A handler that fails keeps no other from running. Its failure is logged and kept among the `dead_letters`;
    there is no second attempt. ``SystemExit`` and the like too are the handler's failure.

    Handlers may take ``(event)`` or ``(event, context)`` as everywhere. On a bus ``context.attempt`` is 1 and
    ``context.position`` 0, or the event's place in the log if a publisher has recorded it before. Events that
    are published, and commands that are sent, inside of a handler name the event as their cause.

    Subscribing is possible from any thread; publishing on any event loop.

    Args:
        name: For logs.
        registry: Handlers that it serves besides those subscribed to it: all that are in it now or later. That
            of ``@subscribe`` is `uno_actors.handlers.subscribe.handler_registry`, served by `get_event_bus`.
        system: For ``context.system``, and for its worker threads; a bus of none uses ``asyncio``'s executor.
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
        self._served: tuple[int, int] | None = None  # the registry, when it was last looked at
        self._registered: dict[int, tuple[HandlerSpec, BusSubscription]] = {}
        self._system = system
        self._own_dispatcher: Dispatcher | None = None
        self._subscriptions: dict[BusSubscription, None] = {}
        self._by_target: dict[tuple[int, ...], list[BusSubscription]] = {}
        self._by_type: dict[type[DomainEvent], dict[BusSubscription, None]] = {}
        self._by_topic: TopicTrie[BusSubscription] = TopicTrie()
        self._order = itertools.count()
        self._lock = threading.RLock()
        self._routes: Routes[Kind, BusSubscription] = Routes(self._matching, self._lock, skip_empty=True)
        self._dead_letters: deque[FailedDelivery] = deque(maxlen=KEPT)
        self._published = 0
        self._handled = 0
        self._failed = 0
        self._log = get_logger(bus=name)
        self._program_log = program_logger(bus=name)

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
        """Subscribe ``handler``, and return it; without one, a decorator that does.

        What is left out is taken from the handler's own ``@subscribe(...)`` or ``EventHandler[AnEvent]``, if it has
        them. A subscription that is there already is not made twice.

        Args:
            handler: A function, a bound method, an `EventHandler`, or a class of it, which is instantiated once.
            event_type: Only events of this class and its subclasses.
            topic_pattern: Only events whose topic matches.
            priority: See `EventPriority`; default is NORMAL.
            name: For logs and dead letters; default is the qualified name.
            aggregate_type: Only events of aggregates of this class, or of this name of a type.

        A handler with ``batch`` is given lists of one event; of the other options of `HandlerSpec` a bus knows none.

        Raises:
            InvalidTopic: The pattern is malformed.
            InvalidHandler: Another argument is wrong, or it is a projection.
        """
        if handler is None:
            return lambda handler: self.subscribe(
                handler, event_type, topic_pattern, priority, name=name, aggregate_type=aggregate_type
            )
        spec = spec_for(
            handler, event_type, topic_pattern, priority, name=name, aggregate_type=aggregate_type
        )
        if spec.keeps_a_view:
            raise InvalidHandler(f"{spec.name} keeps a view of recorded events: give it to an ActorSystem")
        with self._lock:
            self._serve_registry()
            wanted = selection(spec)
            if any(selection(other.spec) == wanted for other in self._by_target.get(target_key(handler), ())):
                return handler
            self._add(spec)
        return handler

    def unsubscribe(self, handler: Callable[..., Any] | EventHandler[Any]) -> bool:
        """End all subscriptions of ``handler`` to this bus; whether there were any.

        For an event that is being published it may still be called.
        """
        with self._lock:
            self._serve_registry()
            ended = tuple(self._by_target.get(target_key(handler), ()))
            for subscription in ended:
                self._remove(subscription)
        return bool(ended)

    def _serve_registry(self) -> None:
        """Take in what has come to the registry since it was last looked at, and leave out what has gone."""
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
                    if not complete.keeps_a_view:  # else it is for systems alone
                        self._registered[key] = (spec, self._add(complete))
            self._served = state

    def _add(self, spec: HandlerSpec) -> BusSubscription:
        subscription = BusSubscription(spec, next(self._order))
        self._subscriptions[subscription] = None
        self._by_target.setdefault(target_key(spec.target), []).append(subscription)
        if spec.topic_pattern is not None:
            self._by_topic.add(spec.topic_pattern, subscription)
        else:
            for kind in event_classes(spec):
                self._by_type.setdefault(kind, {})[subscription] = None
        self._routes.clear()
        return subscription

    def _remove(self, subscription: BusSubscription) -> None:
        if subscription not in self._subscriptions:
            return
        spec = subscription.spec
        del self._subscriptions[subscription]
        of_target = self._by_target[target_key(spec.target)]
        of_target.remove(subscription)
        if not of_target:
            del self._by_target[target_key(spec.target)]
        if spec.topic_pattern is not None:
            self._by_topic.remove(spec.topic_pattern, subscription)
        else:
            for kind in event_classes(spec):
                del self._by_type[kind][subscription]
        self._routes.clear()

    # --- publishing ---

    async def publish(self, *events: DomainEvent, raise_errors: bool = False) -> None:
        """Have ``events`` handled, one after the other; return when every matching handler has run.

        If it is cancelled, so are the handlers that run; they and those whose turn had not come are kept as
        dead letters of the event, and the events after it are not published.

        Args:
            *events: Not recorded, here or elsewhere.
            raise_errors: At the end raise what handlers have raised, besides keeping it.

        Raises:
            ExceptionGroup: Handlers have failed, and ``raise_errors`` was given; a ``BaseExceptionGroup`` if one
                raised ``SystemExit``.
            TypeError: One of ``events`` is no `DomainEvent`.
            InvalidHandler: The registry that the bus serves has a handler that cannot work.
        """
        errors: list[BaseException] = []
        for event in events:
            await self._deliver(event, NOT_RECORDED, errors)
        if errors and raise_errors:
            raise BaseExceptionGroup(f"handlers of bus {self.name!r} failed", errors)

    async def _deliver(self, event: DomainEvent, position: int, errors: list[BaseException]) -> None:
        """Have one event handled; what handlers raise is added to ``errors``."""
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
        begun = 0
        token = _current_cause.set(event.cause)  # `caused_by`, in half the time
        try:
            for tier in tiers:
                begun += 1
                if len(tier) == 1:  # most events have one handler: it runs in the caller's task
                    await self._run(tier[0], event, position, errors, shared=len(tiers) > 1)
                else:
                    await self._run_tier(tier, event, position, errors)
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
    ) -> None:
        """Have several handlers handle ``event`` at the same time."""
        dispatcher = self._dispatcher()
        if dispatcher.depth >= MAX_DEPTH:  # publishing inside publishing: Python's own limit is the end of it
            for subscription in tier:
                await self._run(subscription, event, position, errors, shared=True)
            return
        running = ConcurrentRuns(dispatcher)
        for subscription in tier:
            running.start(self._run(subscription, event, position, errors, shared=True))
        await running.end()

    def _dispatcher(self) -> Dispatcher:
        """The system's on its loop; on any other one of our own, which has no threads."""
        of_system = None if self._system is None else self._system._dispatcher()
        if of_system is not None:
            return of_system
        own, loop = self._own_dispatcher, asyncio.get_running_loop()
        if own is None or own.loop is not loop:
            own = self._own_dispatcher = Dispatcher(loop)
        return own

    async def _on_worker(self, function: Callable[..., T], *args: object) -> T:
        """Run a plain function on a worker thread, in the caller's context."""
        of_system = None if self._system is None else self._system._dispatcher()
        if of_system is not None:
            return await of_system.on_worker(function, *args)
        # asyncio's executor, which ends with the loop, cannot carry a StopIteration
        value, error = await asyncio.to_thread(outcome_of, partial(function, *args))
        if error is not None:
            raise error
        return cast("T", value)

    def _matching(self, route: Kind) -> list[BusSubscription]:
        """The handlers of events of this class, topic and aggregate type, in the order of subscription."""
        kind, topic, aggregate_type = route
        with self._lock:
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

    async def _run(
        self,
        subscription: BusSubscription,
        event: DomainEvent,
        position: int,
        errors: list[BaseException],
        *,
        shared: bool,
    ) -> None:
        """Have one handler handle ``event``; raises nothing but its own cancellation.

        An event that is shared with other handlers is given as a copy if anything in it can change.
        """
        task = asyncio.current_task()
        cancelled = 0 if task is None else task.cancelling()
        try:
            handler = subscription.handler
            if handler is None:
                handler = subscription.handler = subscription.spec.instantiate()
            context = self._context(subscription, event, position) if handler.takes_context else None
            mine = unshared(event) if shared else event
            given = mine if subscription.spec.batch is None else [mine]
            arguments = (given,) if context is None else (given, context)
            if handler.is_async:
                await handler.function(*arguments)
            else:
                result = await self._on_worker(handler.function, *arguments)
                if result is not None and inspect.isawaitable(result):  # a coroutine, or the future of an ask
                    await result
        except asyncio.CancelledError as error:
            errors.append(as_error(error, f"handler {subscription.spec.name}"))
            self._fail(subscription, event, error)
            if task is not None and task.cancelling() > cancelled:
                raise  # else it is the handler's own
        except (KeyboardInterrupt, GeneratorExit):  # of the process, or of the coroutine, not of the handler
            raise
        except BaseException as error:  # noqa: BLE001 - one handler must not keep others from running
            errors.append(as_error(error, f"handler {subscription.spec.name}"))
            self._fail(subscription, event, error)
        else:
            self._handled += 1

    def _context(self, subscription: BusSubscription, event: DomainEvent, position: int) -> HandlerContext:
        name = subscription.spec.name
        logger = self._program_log.bind(handler=name, event_type=event.event_type, position=position)
        system = cast("SystemServices", _NoSystem() if self._system is None else self._system)
        return HandlerContext(position, 1, name, logger, system)

    # --- what has failed ---

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
            exc_info=error,
        )

    def dead_letters(self, handler: str | None = None) -> list[FailedDelivery]:
        """The last `KEPT` events that handlers, or the one of this name, could not handle; oldest first."""
        return [letter for letter in tuple(self._dead_letters) if handler in (None, letter.handler)]

    def statistics(self) -> BusStatistics:
        """What it has done so far."""
        return BusStatistics(len(self._subscriptions), self._published, self._handled, self._failed)

    def __repr__(self) -> str:
        return f"<EventBus {self.name} ({len(self._subscriptions)} subscriptions)>"


def with_cause(event: E) -> E:
    """``event``, naming the message being handled now as its cause where it names none; explicit values win."""
    cause = current_cause()
    if cause is None or event.event_id == cause.causation_id:  # the very event being handled, passed on
        return event
    if event.correlation_id is not None and event.causation_id is not None:
        return event
    return event.stamped(
        correlation_id=event.correlation_id or cause.correlation_id,
        causation_id=event.causation_id or cause.causation_id,
    )


class _NoSystem:
    """In place of the system in the contexts of a bus that belongs to none."""

    def __getattr__(self, name: str) -> Any:
        raise InvalidHandler(
            f"context.system.{name} on a bus of no system: subscribe the handler to the bus of one, system.bus"
        )
