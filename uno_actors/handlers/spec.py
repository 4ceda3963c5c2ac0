"""Event handlers: functions and objects that run when events they subscribe to have been recorded."""

import inspect
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime
from enum import IntEnum
from functools import partial
from typing import Any, ClassVar, Generic, Literal, TypeVar

from structlog.typing import FilteringBoundLogger

from uno_actors.annotations import (
    NOT_ANNOTATED,
)
from uno_actors.domain.aggregate import AggregateRoot
from uno_actors.domain.events import DomainEvent
from uno_actors.errors import InvalidHandler
from uno_actors.handlers.services import SystemServices
from uno_actors.quantities import is_count, is_duration
from uno_actors.store.handler_names import MARK
from uno_actors.topics import TopicPattern

E = TypeVar("E", bound=DomainEvent)

H = TypeVar("H", bound="Callable[..., Any] | EventHandler[Any]")

MAX_NAME_BYTES = 200

_BARRED = frozenset({"\0", MARK})

Start = Literal["latest", "earliest"] | int | datetime
"""Where a handler without a checkpoint begins; see `HandlerSpec`."""

STARTS = "'latest', 'earliest', a position (0 or more) or a datetime"


class EventPriority(IntEnum):
    """For each event every HIGH handler finishes before a NORMAL one starts, and NORMAL before LOW."""

    HIGH = 0
    NORMAL = 1
    LOW = 2


class EventHandler(Generic[E]):
    """A handler as a class: ``async def handle(self, event)`` or ``def handle(self, event)``.

    ``handle`` may take a second parameter, the `HandlerContext`. A class given to a system is instantiated
    anew at each restart; an instance is used again.

    Args:
        event_type: Only events of this class or its subclasses are handled.
    """

    keeps_a_view: ClassVar[bool] = False
    """Whether it is a `uno_actors.handlers.projection.Projection`."""

    event_type: type[E] | None = None  # for a class whose own __init__ does not call this one's

    def __init__(self, event_type: type[E] | None = None) -> None:
        self.event_type = event_type

    # So wide, that type checkers accept overrides as def and async def, with the context and without.
    def handle(self, *args: Any, **kwargs: Any) -> Any:
        """Handle one event: ``handle(self, event)`` or ``handle(self, event, context)``; override it."""
        raise NotImplementedError(f"{type(self).__name__} must define handle(self, event)")


@dataclass(frozen=True, slots=True)
class HandlerContext:
    """What a handler may want to know besides the event.

    Attributes:
        position: Place of the event in the log; of several events, of the last.
        attempt: 1 for the first delivery of this event, more after failures. Of several events always 1.
        handler: Name of the handler.
        logger: A structlog logger with handler, event and position bound.
        system: For sending commands; they name the event as their cause.
    """

    position: int
    attempt: int
    handler: str
    logger: FilteringBoundLogger
    system: SystemServices


@dataclass(frozen=True, slots=True)
class HandlerSpec:
    """A subscription as it was written: which events, in which order, and what to call.

    Attributes:
        name: Unique in a system; its checkpoint is kept under this name.
        target: A function, a bound method, an `EventHandler`, or a class of it.
        event_type: Only events of this class, or of these, and their subclasses. Default is what the event is
            annotated with in the target, ``AnEvent | AnotherEvent`` included, and what stands in
            ``EventHandler[...]``; no annotation, ``Any`` and ``DomainEvent`` mean all events.
        topic_pattern: Only events whose topic matches.
        priority: See `EventPriority`.
        start: Where a handler without a checkpoint begins. ``latest``: at what comes after the system's start.
            ``earliest``: at the first event of the log. A number: after this position. A time (a naive one is
            read as UTC): at the first event in the log whose timestamp is this or later, for which the log is
            read from its beginning, once, for timestamps need not grow from one event to the next.
        max_attempts: After so many failures of one event it goes to the dead letters.
        timeout: Seconds that one call may take; a longer one has failed, with `HandlerTimeout`. A coroutine is
            cancelled. A plain function cannot be: its thread is left to itself, and the handler's next call,
            whichever event it is for, waits until the thread has come back. Default is no limit.
        concurrency: So many events are handled at once, each of another aggregate; those of one aggregate are
            handled in order, and so are those of no aggregate. The checkpoint is the position below which all
            are done. An event that fails lets those under way end; while its handler is restarted nothing
            new begins.
        batch: The handler is given a list of up to so many events that are there, in order, instead of one
            event, and has handled or failed to handle all of them. After a failure each of them comes in a
            list of its own, so that a poisonous one is set aside alone; only these are attempts that count.
        aggregate_type: Only events of aggregates of this class; kept as the name of the type, which may be given
            as well.
    """

    name: str
    target: Any
    event_type: type[DomainEvent] | tuple[type[DomainEvent], ...] | None = None
    topic_pattern: TopicPattern | None = None
    priority: EventPriority = EventPriority.NORMAL
    start: Start = "latest"
    max_attempts: int = 5
    timeout: float | None = None
    concurrency: int = 1
    batch: int | None = None
    aggregate_type: str | None = None
    # What the target is annotated with, once that was read; see `complete`.
    _annotated: Any = field(default=NOT_ANNOTATED, repr=False, compare=False)

    def __post_init__(self) -> None:
        if not (callable(self.target) or isinstance(self.target, EventHandler)):
            raise InvalidHandler(
                f"{self.target!r} is no event handler: a function or an EventHandler is needed"
            )
        if isinstance(self.target, type) and not _instances_are_callable(self.target):
            reason = "must be an EventHandler to handle events"
            if remedy := remedy_for(self.target).removesuffix(" Else "):
                reason = f"{reason}: {remedy}"
            raise InvalidHandler(f"class {self.target.__qualname__} {reason}")
        if not 0 < len(self.name.encode()) <= MAX_NAME_BYTES or not _BARRED.isdisjoint(self.name):
            raise InvalidHandler(
                f"handler name {self.name!r} must have 1 to {MAX_NAME_BYTES} bytes, no NUL and no @"
            )
        kinds: tuple[object, ...] = (
            self.event_type if isinstance(self.event_type, tuple) else (self.event_type,)
        )
        for kind in kinds:
            if kind is not None and not (isinstance(kind, type) and issubclass(kind, DomainEvent)):
                raise InvalidHandler(
                    f"handler {self.name}: event_type must be a DomainEvent class, not {kind!r}"
                )
        object.__setattr__(self, "aggregate_type", self._aggregate_type_name(self.aggregate_type))
        self._check_options()
        if not isinstance(self.target, type):
            self.instantiate()  # checks its parameters

    def _aggregate_type_name(self, found: object) -> str | None:
        name = found.aggregate_type if isinstance(found, type) and issubclass(found, AggregateRoot) else found
        if name is not None and (not isinstance(name, str) or not name):
            raise InvalidHandler(
                f"handler {self.name}: aggregate_type must be an AggregateRoot class or the name of its type,"
                f" not {found!r}"
            )
        return name

    def _check_options(self) -> None:
        for option, found, allowed, is_allowed in (
            (
                "start",
                self.start,
                STARTS,
                is_start(self.start),
            ),
            ("max_attempts", self.max_attempts, "1 or more", is_count(self.max_attempts, 1)),
            (
                "timeout",
                self.timeout,
                "a positive number of seconds, or None",
                self.timeout is None or is_duration(self.timeout),
            ),
            ("concurrency", self.concurrency, "1 or more", is_count(self.concurrency, 1)),
            ("batch", self.batch, "1 or more, or None", self.batch is None or is_count(self.batch, 1)),
        ):
            if not is_allowed:
                raise InvalidHandler(f"handler {self.name}: {option} must be {allowed}, not {found!r}")
        if self.batch is not None and self.concurrency > 1:
            raise InvalidHandler(
                f"handler {self.name}: batch and concurrency exclude each other: a batch is handled in log order"
            )
        if self.keeps_a_view and (self.start not in ("latest", "earliest") or self.concurrency > 1):
            raise InvalidHandler(
                f"handler {self.name}: a projection counts all events, in log order: it has no start and no concurrency"
            )

    @property
    def keeps_a_view(self) -> bool:
        """Whether it is a projection, which records its progress by itself, with what it writes."""
        return bool(getattr(self.target, "keeps_a_view", False))

    def instantiate(self) -> "BoundHandler":
        """What to call for each event; a class is instantiated."""
        target = self.target() if isinstance(self.target, type) else self.target
        handler = BoundHandler(target.handle if isinstance(target, EventHandler) else target)
        if self.keeps_a_view and not handler.is_async:
            raise InvalidHandler(f"handler {self.name}: a projection has async def handle, to read its view")
        return handler


class BoundHandler:
    """A callable with what the runtime must know of it: coroutine or plain, with context or without.

    Raises:
        InvalidHandler: It takes neither one parameter nor two, or it is a generator.
    """

    def __init__(self, function: Callable[..., Any]) -> None:
        self.function = function
        if _is_generator(function):
            raise InvalidHandler(
                f"{function!r} has a yield in it, so that calling it would handle nothing: write it without"
            )
        self.is_async = _is_async(function)
        self.takes_context = _positional_parameters(function) >= 2
        if not _accepts(function, 2 if self.takes_context else 1):
            raise InvalidHandler(f"{function!r} must take the event, and may take the HandlerContext")

    def __call__(self, given: DomainEvent | list[DomainEvent], context: HandlerContext | None) -> Any:
        """What the handler returns for an event, or a batch of them: a coroutine if it ``is_async``."""
        return self.function(given, context) if self.takes_context else self.function(given)


def remedy_for(found: object) -> str:
    """What to give in place of an aggregate's class; empty for what is none."""
    if not (isinstance(found, type) and issubclass(found, AggregateRoot)):
        return ""
    name = found.__name__
    if callable(getattr(found, "handler", None)):  # a process manager
        return f"give {name}.handler() among the handlers, and {name} among the aggregates. Else "
    return f"give {name} among the aggregates, as in ActorSystem(aggregates=[{name}]). Else "


def is_start(found: object) -> bool:
    """Whether ``found`` is a `Start`."""
    return found in ("latest", "earliest") or isinstance(found, datetime) or is_count(found)


def _instances_are_callable(target: type) -> bool:
    return issubclass(target, EventHandler) or any("__call__" in vars(base) for base in target.__mro__)


def _is_async(function: Any) -> bool:
    while isinstance(function, partial):
        function = function.func
    return inspect.iscoroutinefunction(function) or inspect.iscoroutinefunction(type(function).__call__)


def _is_generator(function: Any) -> bool:
    while isinstance(function, partial):
        function = function.func
    return any(
        inspect.isgeneratorfunction(called) or inspect.isasyncgenfunction(called)
        for called in (function, type(function).__call__)
    )


def _accepts(function: Callable[..., Any], arguments: int) -> bool:
    """Whether ``function`` can be called with so many arguments."""
    try:
        inspect.signature(function).bind(*range(arguments))
    except TypeError:
        return False
    except ValueError:  # some built-in functions do not tell
        return True
    return True


def _positional_parameters(function: Callable[..., Any]) -> int:
    kinds = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
    try:
        parameters = inspect.signature(function).parameters.values()
    except ValueError:  # some built-in functions do not tell
        return 1
    return sum(
        parameter.kind in kinds and parameter.default is inspect.Parameter.empty for parameter in parameters
    )
