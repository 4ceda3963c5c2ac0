"""Aggregates: they decide on their state and change it only by events.

Nothing here knows actors, stores or threads: to test an aggregate, call it.
"""

import inspect
import time
from collections.abc import Callable, Iterable, Mapping, Set
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import Any, ClassVar, Self, TypeVar, overload

from uno_actors.annotations import is_subclass
from uno_actors.causality import Cause, new_id
from uno_actors.causality import _current as _current_cause
from uno_actors.domain import schedules
from uno_actors.domain.commands import Command
from uno_actors.domain.events import DomainEvent, EventRegistry, check_metadata, register_meaning
from uno_actors.domain.marked_methods import HANDLES, REACTS
from uno_actors.domain.methods import applied_events, apply_methods, command_methods, event_key, events_named
from uno_actors.domain.outgoing_commands import OutgoingCommand
from uno_actors.domain.payloads import mark_exact, own_copy
from uno_actors.domain.schedules import CatchUp, Scheduled, Unscheduled
from uno_actors.domain.tags import plain
from uno_actors.errors import (
    ApplyFailed,
    InternalError,
    InvalidAggregate,
    InvalidAggregateId,
    InvalidSchedule,
    MissingApply,
    UnknownCommand,
    UnoError,
    describe,
)

MAX_ID_BYTES = 255
"""The longest aggregate id, in bytes of UTF-8."""
MAX_TYPE_BYTES = 200
"""The longest aggregate type, in bytes of UTF-8: LMDB indexes both in one key of at most 511 bytes."""

M = TypeVar("M", bound=Callable[..., Any])
R = TypeVar("R")


@overload
def handles(method: M) -> M: ...
@overload
def handles() -> Callable[[M], M]: ...


def handles(method: M | None = None) -> M | Callable[[M], M]:
    """Mark the method that handles a command; the command's type is read from the annotation.

    The method decides: it raises `CommandRejected`, or registers events and returns the reply. It runs on the event
    loop and must not block. The reply waits for the disk while later commands may run, so return values, not the
    aggregate's own lists and dicts. The method may be defined in any class that aggregates inherit from. An error in
    its signature is reported when the class of an aggregate is defined.
    """
    return HANDLES.put_on if method is None else HANDLES.put_on(method)


def check_aggregate_id(aggregate_id: object) -> str:
    """Return ``aggregate_id`` as a plain string if it can name an aggregate.

    That of a member of a class such as ``class Sku(str, Enum)`` is its value, as everywhere else.

    Raises:
        InvalidAggregateId: It is not a string, is empty, is longer than `MAX_ID_BYTES`, holds a NUL character or
            cannot be written as UTF-8.
    """
    if reason := unfit_name(aggregate_id, MAX_ID_BYTES):
        raise InvalidAggregateId(aggregate_id, reason)
    return str(plain(aggregate_id))


def unfit_name(name: object, max_bytes: int) -> str:
    """Why ``name`` cannot be part of a stream's name in ``max_bytes`` of UTF-8; empty if it can."""
    if not isinstance(name, str):
        return f"it must be a str, not {type(name).__name__}"
    if not name:
        return "it is empty"
    if "\0" in name:
        return "it holds a NUL character"
    try:
        size = len(name.encode())
    except UnicodeEncodeError as error:
        return f"it is not valid Unicode ({error.reason})"
    return f"it has {size} bytes; at most {max_bytes} are allowed" if size > max_bytes else ""


class AggregateRoot:
    """A consistency boundary with an id, whose state is the sum of its events.

    Subclasses set their initial state in ``__init__(self, id)``, decide in ``@handles`` methods, and change state
    only in ``apply_<event>`` methods. These are named after the event's class without a trailing ``Event`` (unless
    that is the whole name), ignoring case and underscores: ``apply_user_created`` applies ``UserCreatedEvent``.

    Attributes:
        version: The number of events applied, pending ones included.

    Raises:
        InvalidAggregate: At class definition: two methods for one command or event, or a ``@handles`` method
            that is not a plain method with one annotated command.
        InvalidAggregateId: At construction.
    """

    aggregate_type: ClassVar[str] = "AggregateRoot"
    """The name under which its streams are recorded: the class name, unless the class sets another."""
    schema_version: ClassVar[int] = 1
    """The version of its state in snapshots: raise it when attributes, or how ``apply_`` methods set them, change."""

    _commands: ClassVar[dict[type[Command[Any]], str]] = {}
    _applies: ClassVar[dict[str, str]] = {}
    _command_names: ClassVar[dict[type, str]] = {}  # cache of command_method
    _apply_names: ClassVar[dict[type, str]] = {}  # cache of _apply_method
    _own_events: ClassVar[
        tuple[type[DomainEvent], ...]
    ] = ()  # those that the framework records in its streams
    _initial: ClassVar[Set[str] | None] = None  # the attributes that __init__ sets, once they are known
    _time: Callable[[], float] = staticmethod(
        time.time
    )  # a system with another clock sets it on its aggregates

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        if "aggregate_type" not in cls.__dict__:
            cls.aggregate_type = cls.__name__
        _check_type_name(cls)
        cls._commands = command_methods(cls)
        if not hasattr(cls, "_reactions"):
            REACTS.check_absent(cls, f"{cls.__name__} is not a ProcessManager, so nothing would call it")
        cls._applies = apply_methods(cls)
        register_meaning(cls, cls.aggregate_type, partial(events_named, cls))
        cls._command_names = {}
        cls._apply_names = dict(_APPLIED_HERE)
        cls._initial = None

    def __init__(self, id: str) -> None:
        self._id = check_aggregate_id(id)
        self.version = 0
        self._pending: list[DomainEvent] | None = None
        self._applying = False

    @property
    def id(self) -> str:
        """The name of this aggregate, unique among the aggregates of its type. It never changes."""
        return self._id

    def register_event(self, event: DomainEvent) -> None:
        """Stamp ``event`` with its place in this stream and its cause, apply it, and keep it to be recorded.

        The event is recorded as it is now and applied as a fresh process reads it: later changes to its lists affect
        neither.

        Raises:
            MissingApply: The class has no method for it.
            EventNotSerializable: The event would not read back as it is; see `uno_actors.domain.payloads`.
            InvalidAggregate: An ``apply_`` method calls this method; a replay must not register events.
            ApplyFailed: The ``apply_`` method raised an error that is not a `UnoError`.
        """
        check_is_initialised(self)
        apply = _apply_method(type(self), type(event))
        if self._applying:
            name = type(event).__name__
            reason = f"an apply_ method registers {name}, and a replay runs it too: it may only change state"
            raise InvalidAggregate(type(self).__name__, reason)
        if event.version != event._schema_version:
            check_metadata(event)
        cause, correlation_id, causation_id = _current_cause.get(), event.correlation_id, event.causation_id
        if cause is not None:
            correlation_id, causation_id = cause.fill(correlation_id, causation_id)
        stamped = event.stamped(
            aggregate_id=self._id,
            aggregate_type=self.aggregate_type,
            aggregate_version=self.version + 1,
            correlation_id=correlation_id,
            causation_id=causation_id,
        )
        applied = stamped
        if not mark_exact(stamped):
            stamped = own_copy(stamped)
            applied = own_copy(stamped)  # a method may keep and change parts of it
        if self._pending is None:
            self._pending = []
        self._pending.append(stamped)
        self.version += 1
        self._applying = True
        try:
            getattr(self, apply)(applied)
        except UnoError:
            raise
        except Exception as error:
            raise ApplyFailed(repr(self), apply, str(stamped), describe(error)) from error
        finally:
            self._applying = False

    def handle(self, command: Command[R]) -> R:
        """Let the ``@handles`` method for ``command`` decide; the events that it registers name the command as cause.

        Their correlation id is that of the command, or a new one if it has none.

        Raises:
            UnknownCommand: The class has no method for it.
        """
        method = command_method(type(self), command)
        cause = Cause(command.correlation_id or new_id(), command.command_id)
        token = _current_cause.set(cause)
        try:
            reply: R = getattr(self, method)(command)
            return reply
        finally:
            _current_cause.reset(token)

    def schedule(
        self,
        command: Command[Any],
        *,
        to: "tuple[type[AggregateRoot], str] | None" = None,
        after: timedelta | float | None = None,
        at: datetime | None = None,
        every: str | None = None,
        tz: str = "UTC",
        catch_up: CatchUp = "last",
        key: str | None = None,
    ) -> str:
        """Have ``command`` sent later. This is recorded with the events that are registered beside it.

        A system that runs the scheduler sends the command when it is due, with a ``command_id`` that follows from this
        schedule, so that it takes effect once. See `uno_actors.ActorSystem` for which systems do.

        Args:
            command: The command. Its own ``command_id`` is not used. It is recorded as JSON.
            to: Class and id of the aggregate to send it to; default is this one.
            after: Seconds, or a ``timedelta``, from now.
            at: The time; one without a zone is in UTC. A time that has passed means at once.
            every: A cron expression: minute, hour, day of the month, month, day of the week. ``"0 9 * * mon"`` means
                each Monday at nine, until it is unscheduled.
            tz: The name of the time zone of ``every``, such as ``Europe/Berlin``.
            catch_up: Which of the times that have passed while no scheduler ran are made up for: of one that recurs
                ``"all"`` or the ``"last"``; with ``"none"``, no command is sent that is over a minute late.
            key: Names the schedule within this aggregate: what was scheduled under it before is not sent any more.
                Default is a new key.

        Returns:
            The key.

        Raises:
            InvalidSchedule: The arguments do not say when, or the key is not valid.
            UnknownCommand, InvalidAggregate, InvalidAggregateId: No aggregate takes the command there.
            ValueError: It is handled only as a command of another class, or together with another class of its name,
                or JSON does not preserve it.
        """
        found = (type(self), self.id) if to is None else to
        event = schedules.scheduled(
            outgoing_to(found, command),
            None if key is None else schedules.check_key(key),
            datetime.fromtimestamp(self._time(), UTC),
            after=after,
            at=at,
            every=every,
            tz=tz,
            catch_up=catch_up,
        )
        self.register_event(event)
        return event.key

    def unschedule(self, key: str) -> None:
        """Have the command that this aggregate has scheduled under ``key`` not sent, unless it is due already.

        Raises:
            InvalidSchedule: The key is not valid.
        """
        self.register_event(Unscheduled(key=schedules.check_key(key)))

    def _apply_schedule(self, event: Scheduled | Unscheduled) -> None:
        """Change nothing: the scheduler keeps what is to be sent."""

    @property
    def pending_events(self) -> tuple[DomainEvent, ...]:
        """The registered events that have not been taken for recording yet, oldest first."""
        check_is_initialised(self)
        return tuple(self._pending or ())

    def take_pending_events(self, count: int | None = None) -> list[DomainEvent]:
        """Take the pending events, oldest first: all, or the first ``count``."""
        pending = self._pending or []
        if count is None:
            self._pending = None
            return pending
        taken = pending[:count]
        self._pending = pending[len(taken) :] or None
        return taken

    def replay(self, events: Iterable[DomainEvent]) -> Self:
        """Apply recorded events in order, without checking the rules again.

        Raises:
            MissingApply: The class has no method for one of the events.
            ApplyFailed: The method raised an error.
            InternalError: The events do not follow the current version.
        """
        check_is_initialised(self)
        for event in events:
            if event.aggregate_version != self.version + 1:
                raise InternalError(f"{self!r} cannot replay {event}: a gap in its stream")
            apply = _apply_method(type(self), type(event))
            self.version += 1  # before the event is applied, as in register_event
            self._applying = True
            try:
                getattr(self, apply)(event)
            except Exception as error:
                raise ApplyFailed(repr(self), apply, str(event), describe(error)) from error
            finally:
                self._applying = False
        return self

    def to_snapshot(self) -> Mapping[str, Any]:
        """The state for a snapshot: all attributes except those of this base class.

        Override it, and `from_snapshot`, if attributes hold values that `uno_actors.domain.values` cannot restore.

        Raises:
            TypeError: The class keeps attributes in ``__slots__``, or an attribute is neither set by ``__init__``
                nor annotated on the class, so `from_snapshot` would not know it.
        """
        if any(base.__dict__.get("__slots__") for base in type(self).__mro__):
            raise TypeError(
                "attributes in __slots__ are not part of a snapshot: remove __slots__, or override it"
            )
        state = {name: value for name, value in vars(self).items() if name not in OWN_ATTRIBUTES}
        if self._initial is not None and (unknown := state.keys() - self._initial - _annotated(type(self))):
            raise TypeError(
                f"{', '.join(sorted(unknown))}: set in __init__, or annotate on the class, all attributes of the state"
            )
        return state

    def from_snapshot(self, state: Mapping[str, Any]) -> None:
        """Adopt the state that `to_snapshot` returned; called on a fresh instance.

        Raises:
            ValueError: ``state`` lacks an attribute that the class sets today, or has one that the class does not have.
        """
        if missing := vars(self).keys() - OWN_ATTRIBUTES - state.keys():
            raise ValueError(f"it has no {', '.join(sorted(missing))}")
        if unknown := state.keys() - (vars(self).keys() - OWN_ATTRIBUTES) - _annotated(type(self)):
            raise ValueError(f"the class has no attribute {', '.join(sorted(unknown))}")
        vars(self).update(state)

    def __repr__(self) -> str:
        return f"{self.aggregate_type}<{self._id}@{self.version}>"


OWN_ATTRIBUTES = frozenset({*vars(AggregateRoot("any")), "_time"})
_APPLIED_HERE: dict[type, str] = {Scheduled: "_apply_schedule", Unscheduled: "_apply_schedule"}
"""Events of every aggregate: a subclass may have events of the same names, with methods for them."""

A = TypeVar("A", bound=AggregateRoot)


def new_aggregate(aggregate_type: type[A], aggregate_id: str) -> A:
    """An aggregate without recorded events: the start of every replay.

    Raises:
        InvalidAggregateId: Its class sets another id, so its events would go to another stream.
        InvalidAggregate: Its ``__init__`` registers events, and would do so again in each replay; or it does not call
            that of `AggregateRoot`.
    """
    instance = aggregate_type(aggregate_id)
    check_is_initialised(instance)
    if instance.id != aggregate_id:
        reason = (
            f"{aggregate_type.__name__}.__init__ changes it to {instance.id!r}, so its events would go to another"
            " stream than the one it is loaded from; normalize ids before you ask for an aggregate"
        )
        raise InvalidAggregateId(aggregate_id, reason)
    if instance.version or instance._pending:
        reason = (
            "__init__ registers events, and would do so again whenever the aggregate is loaded; register them in a"
            " @handles method, or in a class method that makes a new aggregate"
        )
        raise InvalidAggregate(aggregate_type.__name__, reason)
    if aggregate_type._initial is None:
        aggregate_type._initial = vars(instance).keys() - OWN_ATTRIBUTES
    return instance


def _annotated(aggregate: type[AggregateRoot]) -> Set[str]:
    """The attributes that the class and its bases annotate."""
    bases = aggregate.__mro__[: aggregate.__mro__.index(AggregateRoot)]
    return {name for base in bases for name in inspect.get_annotations(base)}


def check_is_aggregate(found: Any) -> None:
    """Check that ``found`` is the class of an aggregate.

    Raises:
        InvalidAggregate: It is something else, or its definition did not reach `AggregateRoot.__init_subclass__`.
    """
    if not is_subclass(found, AggregateRoot):
        name = found.__name__ if isinstance(found, type) else repr(found)
        reason = 'pass the class of an aggregate, as in system.aggregate(Account, "alice"); found '
        if isinstance(found, AggregateRoot):
            reason += f"an instance of {type(found).__name__}"
        else:
            reason += f"{'a class that is not an AggregateRoot' if isinstance(found, type) else type(found).__name__}"
        raise InvalidAggregate(name, reason)
    if "_commands" not in vars(found):
        bases = [base.__name__ for base in found.__mro__ if "__init_subclass__" in vars(base)]
        reason = f"{bases[0]}.__init_subclass__ must call super().__init_subclass__(**kwargs): without it, no commands"
        raise InvalidAggregate(found.__name__, reason)


def check_is_initialised(aggregate: AggregateRoot) -> None:
    """Check that the ``__init__`` of a subclass has called that of `AggregateRoot`.

    Raises:
        InvalidAggregate: It has not.
    """
    try:
        aggregate._pending  # noqa: B018 - `AggregateRoot.__init__` sets it last
    except AttributeError:
        reason = (
            "its __init__ must begin with super().__init__(id); in a dataclass, let __post_init__ call it"
        )
        raise InvalidAggregate(type(aggregate).__name__, reason) from None


def known_commands(aggregate: type[AggregateRoot]) -> list[str]:
    """The names of the commands that ``aggregate`` handles."""
    return [command.__name__ for command in aggregate._commands]


def command_method(aggregate: type[AggregateRoot], command: object) -> str:
    """The name of the method of ``aggregate`` that handles ``command``.

    Raises:
        UnknownCommand: There is none.
    """
    kind = type(command)
    name = aggregate._command_names.get(kind)
    if name is None:
        methods = aggregate._commands
        name = next((methods[base] for base in kind.__mro__ if base in methods), None)
        if name is None:
            check_is_aggregate(aggregate)
            raise UnknownCommand(aggregate.aggregate_type, command, known_commands(aggregate))
        aggregate._command_names[kind] = name
    return name


def outgoing_to(to: Any, command: Command[Any]) -> OutgoingCommand:
    """``command`` to the aggregate of this class and id, in the form in which it is recorded.

    Raises:
        UnknownCommand, InvalidAggregate, InvalidAggregateId, ValueError: See `AggregateRoot.schedule`.
    """
    if not isinstance(to, tuple) or len(to) != 2:
        raise InvalidSchedule(
            f'to is the class and the id of an aggregate, as in (Order, "o-1"); found {to!r}'
        )
    aggregate, aggregate_id = to
    check_is_aggregate(aggregate)
    command_method(aggregate, command)
    if type(command) not in aggregate._commands:
        raise ValueError(
            f"{type(command).__name__} is handled by {aggregate.__name__} as a command of another class; schedule one"
            " that it handles as such"
        )
    return OutgoingCommand.of(
        aggregate.aggregate_type, check_aggregate_id(aggregate_id), command, handled=aggregate._commands
    )


def _apply_method(aggregate: type[AggregateRoot], event: type[DomainEvent]) -> str:
    name = aggregate._apply_names.get(event)
    if name is None:
        keys = (event_key(base.__name__) for base in event.__mro__)
        name = next((aggregate._applies[key] for key in keys if key in aggregate._applies), None)
        if name is None:
            expected = f"apply_{event_key(event.__name__)}"
            known = aggregate._applies.values()
            raise MissingApply(aggregate.aggregate_type, event.__name__, expected, known)
        aggregate._apply_names[event] = name
    return name


def _check_type_name(cls: type[AggregateRoot]) -> None:
    if reason := unfit_name(cls.aggregate_type, MAX_TYPE_BYTES):
        raise InvalidAggregate(
            cls.__name__, f"aggregate_type {cls.aggregate_type!r} cannot name streams: {reason}"
        )


def check_events(cls: type[AggregateRoot], registry: EventRegistry) -> None:
    """Check, before an event is recorded, that each event that ``cls`` applies is found by its name.

    Raises:
        AmbiguousEventType: Another class has the same name, and nothing shows which is meant.
    """
    for event in cls._own_events:
        if event not in registry.classes():
            registry.register(event)
    for name in registry.shared_names():
        if event_key(name) in cls._applies:
            registry.resolve(name, cls.aggregate_type)
    for event in applied_events(cls):
        registry.check_meant(event, cls.aggregate_type)
