"""Event handlers: functions and objects that run after the events they subscribe to are recorded."""

import inspect
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field, replace
from datetime import datetime
from enum import IntEnum
from functools import partial
from typing import TYPE_CHECKING, Any, ClassVar, Generic, Literal, TypeVar

from uno_actors.annotations import NOT_ANNOTATED, UnreadableAnnotation
from uno_actors.domain.aggregate import AggregateRoot
from uno_actors.domain.events import DomainEvent
from uno_actors.errors import InvalidHandler
from uno_actors.handlers.dependencies import (
    PARTS,
    CallNeeds,
    HandlerNeeds,
    attribute_needs,
    call_needs,
    constructor_needs,
)
from uno_actors.handlers.services import SystemServices
from uno_actors.quantities import is_count, is_duration
from uno_actors.shards import SHARDS
from uno_actors.store.handler_names import MARK, partition_name
from uno_actors.topics import TopicPattern

if TYPE_CHECKING:
    from structlog.typing import FilteringBoundLogger
else:  # structlog is imported when a handler takes a context; annotations are read before
    FilteringBoundLogger = Any

E = TypeVar("E", bound=DomainEvent)

H = TypeVar("H", bound="Callable[..., Any] | EventHandler[Any]")

MAX_NAME_BYTES = 200

_BARRED = frozenset({"\0", MARK})

Start = Literal["latest", "earliest"] | int | datetime
"""Where a handler without a checkpoint begins; see `HandlerSpec`."""

PARTITIONS = 16
"""Minimum number of partitions of a handler with ``partitioned=True``."""

STARTS = "'latest', 'earliest', a position (0 or more) or a datetime"


def check_name(name: str) -> None:
    """Check that a handler can have this name.

    Raises:
        InvalidHandler: It cannot.
    """
    if not 0 < len(name.encode()) <= MAX_NAME_BYTES or not _BARRED.isdisjoint(name):
        raise InvalidHandler(f"handler name {name!r} must have 1 to {MAX_NAME_BYTES} bytes, no NUL and no @")


class EventPriority(IntEnum):
    """For each event, every HIGH handler finishes before a NORMAL one starts, and every NORMAL one before a LOW one."""

    HIGH = 0
    NORMAL = 1
    LOW = 2


class EventHandler(Generic[E]):
    """A handler as a class: ``async def handle(self, event)`` or ``def handle(self, event)``.

    ``handle`` may take a second parameter, the `HandlerContext`. If you give a system the class, each restart
    makes a new instance; if you give it an instance, restarts reuse that one. Each partition of a partitioned handler
    has an instance of its own: of an instance that you give it is a shallow copy.

    Parameters of ``handle`` and of the constructor, and attributes, may be dependencies: see `Depends`.

    Args:
        event_type: The handler receives only events of this class or its subclasses.
    """

    keeps_a_view: ClassVar[bool] = False
    """Whether the handler is a `uno_actors.handlers.projection.Projection`."""

    keeps_progress: ClassVar[bool] = False
    """Whether the handler records its own progress, with what it writes: see `uno_actors.read_models`."""

    partitioned: ClassVar[bool | int] = False
    """Whether the handler is partitioned, or into how many partitions; see `HandlerSpec`."""

    event_type: type[E] | None = None  # for subclasses whose __init__ does not call this one

    _given: ClassVar[tuple[str, ...]] = ("the event",)  # what handle() is called with, in words for errors

    def __init__(self, event_type: type[E] | None = None) -> None:
        self.event_type = event_type

    # The wide signature lets type checkers accept def and async def overrides, with and without the context.
    def handle(self, *args: Any, **kwargs: Any) -> Any:
        """Handle one event. Override it as ``handle(self, event)`` or ``handle(self, event, context)``."""
        raise NotImplementedError(f"{type(self).__name__} must define handle(self, event)")

    def _bound(self) -> "BoundHandler":
        """``handle`` as the runtime calls it."""
        return BoundHandler(self.handle)

    async def _ended(self) -> None:
        """Release what the handler holds outside of the system: its actor has ended."""


@dataclass(frozen=True, slots=True)
class HandlerContext:
    """Context of one call of a handler.

    Attributes:
        position: Position of the event in the log; of a batch of several events, the position of the last.
        attempt: 1 for the first delivery of this event, more after failures. For several events always 1.
        handler: The handler's name.
        logger: A structlog logger with handler, event and position bound.
        system: The services of the system. Commands sent through it name the event as their cause.
    """

    position: int
    attempt: int
    handler: str
    logger: FilteringBoundLogger
    system: SystemServices


PARTS[HandlerContext] = "context"


@dataclass(frozen=True, slots=True)
class HandlerSpec:
    """A subscription as declared: which events, in which order, and what to call.

    Attributes:
        name: Unique in a system. The store keeps the handler's checkpoint under this name.
        target: A function, a bound method, or an instance or subclass of `EventHandler`.
        event_type: Only events of this class, or of the classes in this tuple, and their subclasses. The default
            is the target's annotation of the event, such as ``AnEvent | AnotherEvent``, and the argument of
            ``EventHandler[...]``. No annotation, ``Any`` and ``DomainEvent`` mean all events.
        topic_pattern: Only events whose topic matches this pattern.
        priority: See `EventPriority`.
        start: Where a handler without a checkpoint begins. ``latest``: with the events recorded after the system
            starts. ``earliest``: at the first event of the log. A number: after this position. A time (a naive
            one is read as UTC): at the first event in the log with this timestamp or a later one. To find a time,
            the log is read once from its beginning, because timestamps need not increase from event to event.
        max_attempts: Number of failed attempts after which an event goes to the dead letters.
        timeout: Seconds that one call may take. A longer call fails with `HandlerTimeout`. A coroutine is then
            cancelled. A plain function cannot be cancelled: its thread keeps running, and the handler's next call,
            for any event, waits until the thread returns. Default is no limit.
        concurrency: Maximum number of events handled at once, each of a different aggregate; of a process manager, each
            of different processes. Events of one aggregate are handled in order, and so are events that belong to no
            aggregate. All events up to the checkpoint are done. When an event fails, the calls under way finish first,
            and no new call begins while the handler restarts.
        batch: Maximum number of events per call. The handler receives a list of available events, in order,
            instead of one event, and handles all of them or fails for all of them. After a failure each event of
            the list comes alone, in a list of one, so that only a poison event is set aside. Only these single
            deliveries count as attempts.
        aggregate_type: Only events of aggregates of this class. The class or its type name may be given; the spec
            keeps the name.
        partitioned: Whether the handler runs as several partitions, each on one node, so that several nodes share its
            work; a number says how many. ``True`` stands for `PARTITIONS`; on a store with several logs for the
            smallest multiple of their number that is not below that. All events of one aggregate belong to one
            partition and come in order. A process manager is partitioned by process, except on a store with several
            logs. Partitions have checkpoints and dead letters of their own, under names such as ``mail@3of16``. An
            `EventHandler` class may set it too. A store with several logs needs it, and the number of partitions is a
            multiple of that of logs: see `uno_actors.handlers.partitions`.
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
    partitioned: bool | int = False
    _partition: int | None = field(default=None, repr=False)
    _count: int = field(default=0, repr=False, compare=False)  # of the partitions, in the name of one
    # The events in the target's annotation, once read; see `complete`.
    _annotated: Any = field(default=NOT_ANNOTATED, repr=False, compare=False)

    def __post_init__(self) -> None:
        if not (callable(self.target) or isinstance(self.target, EventHandler)):
            raise InvalidHandler(
                f"{self.target!r} is not an event handler: pass a function or an EventHandler"
            )
        if isinstance(self.target, type) and not _instances_are_callable(self.target):
            reason = "must be an EventHandler to handle events"
            if remedy := remedy_for(self.target).removesuffix(" Else "):
                reason = f"{reason}: {remedy}"
            raise InvalidHandler(f"class {self.target.__qualname__} {reason}")
        if not self.partitioned and isinstance(_kind_of(self.target), type):
            object.__setattr__(self, "partitioned", getattr(_kind_of(self.target), "partitioned", False))
        given_name = self.name if self._partition is None else self.name.partition(MARK)[0]
        check_name(given_name)
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
        if self.keeps_progress and self.start == "latest":
            object.__setattr__(self, "start", "earliest")
        if not isinstance(self.target, type):
            self.instantiate()  # checks its parameters
        elif issubclass(self.target, EventHandler):
            with suppress(UnreadableAnnotation):  # a name in it may be defined later
                attribute_needs(self.target)
                self._call_of_class()

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
            (
                "partitioned",
                self.partitioned,
                f"true, false or 2 to {SHARDS}",
                isinstance(self.partitioned, bool)
                or (is_count(self.partitioned, 2) and self.partitioned <= SHARDS),
            ),
        ):
            if not is_allowed:
                raise InvalidHandler(f"handler {self.name}: {option} must be {allowed}, not {found!r}")
        if self.batch is not None and self.concurrency > 1:
            raise InvalidHandler(
                f"handler {self.name}: batch and concurrency exclude each other: a batch is handled in log order"
            )
        counts_all = self.keeps_a_view or self.keeps_progress
        if counts_all and (self.start not in ("latest", "earliest") or self.concurrency > 1):
            raise InvalidHandler(
                f"handler {self.name}: a projection counts all events, in log order: it has no start and no concurrency"
            )

    @property
    def keeps_a_view(self) -> bool:
        """Whether the target is a projection, which records its progress together with what it writes."""
        return bool(getattr(self.target, "keeps_a_view", False))

    @property
    def keeps_progress(self) -> bool:
        """Whether the target records its progress in a place of its own."""
        return bool(getattr(self.target, "keeps_progress", False))

    @property
    def takes_lists(self) -> bool:
        """Whether the target receives lists of events."""
        return self.batch is not None and not (self.keeps_a_view or self.keeps_progress)

    @property
    def partitions(self) -> int:
        """The number of its partitions; 0 if it is not partitioned. The store may ask for more: see `of_partition`."""
        return self._count or (PARTITIONS if self.partitioned is True else int(self.partitioned))

    @property
    def partition(self) -> int | None:
        """The number of the partition that this is, counted from 1; ``None`` if it is a whole handler."""
        return self._partition

    def of_partition(self, number: int, count: int) -> "HandlerSpec":
        """The specification of one partition, counted from 1. A partition is a handler with a name of its own."""
        return replace(self, name=partition_name(self.name, number, count), _partition=number, _count=count)

    def whole(self) -> "HandlerSpec":
        """The specification of the handler of which this is a partition; itself if it is none."""
        if self._partition is None:
            return self
        return replace(self, name=self.name.partition(MARK)[0], _partition=None, _count=0)

    @property
    def needs(self) -> HandlerNeeds:
        """What the handler depends on.

        Raises:
            InvalidHandler: A parameter of its call or of its constructor is not a dependency, or an annotation cannot
                be read.
        """
        target = self.target
        kind = target if isinstance(target, type) else type(target)
        try:
            return HandlerNeeds(
                constructor_needs(target) if isinstance(target, type) else (),
                attribute_needs(kind) if issubclass(kind, EventHandler) else (),
                self._call_of_class() if isinstance(target, type) else self.instantiate().checked(),
            )
        except UnreadableAnnotation as unreadable:
            raise InvalidHandler(f"handler {self.name}: an annotation {unreadable}") from None

    def _call_of_class(self) -> CallNeeds:
        kind = self.target
        if issubclass(kind, EventHandler):
            return call_needs(kind.handle, kind._given, of=kind)
        return call_needs(kind.__call__, ("the event",), of=kind)

    @property
    def has_dependencies(self) -> bool:
        """Whether it depends on anything, as far as its annotations can be read."""
        try:
            return bool(self.needs)
        except InvalidHandler:
            return False

    def instantiate(self, made: Any = None) -> "BoundHandler":
        """Return the callable that handles events.

        Args:
            made: What stands in for the target, such as an instance of its class. Default is the target; if that is a
                class, it is called without arguments.
        """
        target = self.target if made is None else made
        target = target() if isinstance(target, type) else target
        handler = target._bound() if isinstance(target, EventHandler) else BoundHandler(target)
        if self.keeps_a_view and not handler.is_async:
            raise InvalidHandler(f"handler {self.name}: a projection has async def handle, to read its view")
        return handler


class BoundHandler:
    """A handler's callable and how to call it: coroutine or plain function, with or without the context.

    Args:
        function: The callable.
        given: What it is given before the context, in words for errors.

    Attributes:
        owner: The object whose method it is.
        needs: What it depends on; `uno_actors.handlers.resources` replaces ``function`` by one that has that.

    Raises:
        InvalidHandler: The callable does not take what it is given, or takes more than the context and dependencies; or
            is a generator.
    """

    def __init__(self, function: Callable[..., Any], given: tuple[str, ...] = ("the event",)) -> None:
        self.function = function
        self.given = given
        self.owner = getattr(function, "__self__", None)
        if _is_generator(function):
            raise InvalidHandler(
                f"{function!r} has a yield in it, so calling it would handle nothing: write it without"
            )
        self.is_async = _is_async(function)
        self.needs = CallNeeds()
        self._unreadable: UnreadableAnnotation | None = None
        try:
            self.needs = call_needs(function, given)
        except UnreadableAnnotation as unreadable:
            self._unreadable = unreadable
        else:
            if not _accepts(function, len(given) + self.needs.by_position, self.needs):
                raise InvalidHandler(
                    f"{function!r} must take {' and '.join(given)}, and may take the HandlerContext and dependencies"
                )
        self.takes_context = self.needs.context is not None

    def checked(self) -> CallNeeds:
        """What it is called with besides its events.

        Raises:
            UnreadableAnnotation: An annotation still cannot be read.
        """
        if self._unreadable is not None:
            raise self._unreadable
        return self.needs

    def __call__(self, given: DomainEvent | list[DomainEvent], context: HandlerContext | None) -> Any:
        """Call the handler with an event or a batch; return what it returns, a coroutine if ``is_async``."""
        return self.function(given, context) if self.takes_context else self.function(given)


def remedy_for(found: object) -> str:
    """Return what to write instead of an aggregate's class; empty if ``found`` is not an aggregate class."""
    if not (isinstance(found, type) and issubclass(found, AggregateRoot)):
        return ""
    name = found.__name__
    if callable(getattr(found, "handler", None)):  # a process manager
        return f"give {name}.handler() among the handlers, and {name} among the aggregates. Else "
    return f"give {name} among the aggregates, as in ActorSystem(aggregates=[{name}]). Else "


def is_start(found: object) -> bool:
    """Whether ``found`` is a `Start`."""
    return found in ("latest", "earliest") or isinstance(found, datetime) or is_count(found)


def _kind_of(target: Any) -> Any:
    """The class of an `EventHandler`, given as class or instance; ``None`` for other targets."""
    kind = target if isinstance(target, type) else type(target)
    return kind if issubclass(kind, EventHandler) else None


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


def _accepts(function: Callable[..., Any], arguments: int, needs: CallNeeds) -> bool:
    """Whether ``function`` can be called with this number of positional arguments and with what it needs."""
    names = [name for name, _ in needs.needs]
    names += [needs.context] if needs.context is not None and not needs.by_position else []
    try:
        inspect.signature(function).bind(*range(arguments), **dict.fromkeys(names))
    except TypeError:
        return False
    except ValueError:  # some built-in functions do not tell
        return True
    return True
