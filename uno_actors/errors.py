"""All errors that uno_actors raises on purpose, in one small tree with three branches.

- ``CallerError``: the call, the class or the file is wrong. Change it; retrying does not help.
- ``WorldError``: the disk, the network, a time limit or another writer is to blame. Retrying may help.
- ``InternalError``: this should never happen. Please report it.

Errors carry their data as attributes, write their own message, and state the remedy.

This module is over 500 lines on purpose: it is one page of every error, sorted by who is to blame. Readers search
it as a whole, and each class is a few lines of data and text.
"""

from asyncio import CancelledError
from collections.abc import Callable, Iterable, Sequence
from datetime import datetime
from pathlib import Path
from types import TracebackType
from typing import Any, NamedTuple

from uno_actors.printable import LONGEST_ERROR, bounded, counted, printable, readable
from uno_actors.store_urls import without_password, without_secrets


class UnoError(Exception):
    """The base class of all errors of uno_actors."""


class CallerError(UnoError):
    """The caller is at fault: the same call will fail again."""


class WorldError(UnoError):
    """The world is at fault: the same call may succeed later."""


class InternalError(UnoError):
    """A fault of uno_actors itself."""


def describe(error: BaseException) -> str:
    """Class and text of any error, even one that cannot be shown or written as UTF-8; a long text is cut."""
    try:
        return bounded(readable(f"{type(error).__name__}: {error}"), LONGEST_ERROR)
    except BaseException:  # noqa: BLE001 - its own __str__ may raise anything, even SystemExit
        return f"{type(error).__name__} (its text cannot be shown)"


def bounded_traceback(place: TracebackType | None) -> TracebackType | None:
    """Cut a traceback to at most `MAX_FRAMES` frames.

    If a program raises one instance again and again, such as a module's constant, its traceback grows each time, and
    its frames keep all that they refer to.
    """
    last, count = place, 0
    while last is not None:
        count += 1
        if count >= MAX_FRAMES:
            last.tb_next = None
        last = last.tb_next
    return place


MAX_FRAMES = 1200
"""A few more than Python's own limit of recursion allows."""


def shown(value: object, show: Callable[[object], str] = str) -> str:
    """``show(value)``, or a substitute if the program's own ``__str__`` or ``__repr__`` raises.

    Objects of a program may do anything when they are shown, even while a failure is reported. So the runtime shows
    them through this function alone.
    """
    try:
        return readable(show(value))
    except BaseException as error:  # noqa: BLE001 - it may raise anything, even SystemExit
        return f"<{type(value).__name__} that cannot be shown: {type(error).__name__}>"


def as_error(error: BaseException, who: str) -> Exception:
    """``error`` in the form that may reach the caller who waits for ``who``.

    The rule for all replies: only the caller's own cancellation arrives as ``CancelledError``, and no reply ends a
    program, a task group or a loop by the meaning that Python gives to its exception. So ``StopIteration``, and
    anything that is not an ``Exception``, arrives as the ``__cause__`` of an error of uno_actors.
    """
    if isinstance(error, Exception) and not isinstance(error, (StopIteration, StopAsyncIteration)):
        return error
    ours = WorkCancelled(who) if _is_cancellation(error) else ExitRaised(who, describe(error))
    ours.__cause__ = error
    return ours


def _is_cancellation(error: BaseException) -> bool:
    if isinstance(error, BaseExceptionGroup):
        return error.split(CancelledError)[1] is None
    return isinstance(error, CancelledError)


def _listed(names: Iterable[str]) -> str:
    return ", ".join(sorted(names)) or "none"


# --- the caller's: definitions -----------------------------------------------------------------------------


class InvalidTopic(CallerError, ValueError):
    """A topic or topic pattern that no event can have or match."""

    def __init__(self, text: str, what: str, reason: str) -> None:
        self.text = text
        self.reason = reason
        super().__init__(
            f"invalid {what} {text!r}: {reason}. Tokens are separated by '.'; in a pattern '*' stands for one"
            " token and a trailing '>' for one or more"
        )


class InvalidAggregate(CallerError, TypeError):
    """An aggregate class that cannot work, found when it is defined."""

    def __init__(self, aggregate: str, reason: str) -> None:
        self.aggregate = aggregate
        self.reason = reason
        super().__init__(f"aggregate {aggregate}: {reason}")


class InvalidDecision(CallerError, TypeError):
    """A function marked with `decides`, or a `DecisionModel`, is not defined as it must be."""

    def __init__(self, name: str, reason: str) -> None:
        self.name = name
        self.reason = reason
        super().__init__(f"decision {name}: {reason}")


class UnknownHandler(CallerError):
    """No handler of this name has ever run on the store.

    Attributes:
        name: The name.
        known: The names that exist.
    """

    def __init__(self, name: str, known: Iterable[str]) -> None:
        self.name = name
        self.known = sorted(known)
        there = (
            f"there are: {', '.join(map(printable, self.known))}"
            if self.known
            else "none has run on this store yet"
        )
        super().__init__(f"no handler is named {printable(name)!r}; {there}")


class InvalidReset(CallerError):
    """A handler cannot resume from this position."""


class HandlerIsRunning(CallerError):
    """A handler cannot be renamed or forgotten while a process runs it.

    Attributes:
        handler: Name of the handler, or of one of its partitions.
    """

    def __init__(self, handler: str) -> None:
        self.handler = handler
        super().__init__(
            f"handler {printable(handler)!r} is running: stop the systems that run it, or remove it from them by"
            " `await system.unsubscribe(name)`"
        )


class NoDeadLetter(CallerError):
    """There is no dead letter of this handler at this position.

    Attributes:
        handler: Name of the handler.
        position: Position in the log.
    """

    def __init__(self, handler: str, position: int) -> None:
        self.handler = handler
        self.position = position
        super().__init__(f"handler {handler} has no dead letter at position {position}")


class InvalidHandler(CallerError, TypeError):
    """An event handler that cannot work, found when it is subscribed."""


class InvalidTenant(CallerError, ValueError):
    """A tenant cannot have this name, or a system is not that of the tenant.

    Attributes:
        tenant: The name.
    """

    def __init__(self, tenant: object, reason: str) -> None:
        self.tenant = tenant
        super().__init__(f"tenant {printable(repr(tenant)[:100])}: {reason}")


class UnknownTenant(CallerError, LookupError):
    """There is no tenant of this name.

    Attributes:
        tenant: The name.
    """

    def __init__(self, tenant: str, reason: str) -> None:
        self.tenant = tenant
        super().__init__(f"there is no tenant {tenant!r}: {reason}")


class OtherTenant(CallerError):
    """A handler of one tenant has used the system of another.

    Attributes:
        tenant: The tenant of the system.
        handled: The tenant whose event is being handled.
    """

    def __init__(self, tenant: str, handled: str) -> None:
        self.tenant = tenant
        self.handled = handled
        super().__init__(
            f"a handler of tenant {handled!r} cannot use the system of tenant {tenant!r}: a handler uses that of its"
            " context, and what concerns several tenants is done outside of their handlers"
        )


class InvalidSupervisor(CallerError, ValueError):
    """A supervisor or child whose rules are invalid or contradict each other."""

    def __init__(self, whose: str, reason: str) -> None:
        self.whose = whose
        super().__init__(f"{whose}: {reason}")


class ArgumentWithoutEffect(CallerError, ValueError):
    """An argument was given that means something only beside another one. Nothing was done.

    Attributes:
        argument: Its name.
        without: The name of the other.
    """

    def __init__(self, argument: str, found: object, without: str, remedy: str) -> None:
        self.argument = argument
        self.without = without
        super().__init__(
            f"{argument}={shown(found, repr)} has no effect without {without}=: {remedy}, or leave it out"
        )


class InvalidNumber(CallerError, ValueError):
    """A duration, count or other number that is not allowed.

    Attributes:
        what: What the number is for.
        allowed: The allowed values.
        found: The value found.
    """

    def __init__(self, what: str, allowed: str, found: object) -> None:
        self.what = what
        self.allowed = allowed
        self.found = found
        text = shown(found, repr)
        super().__init__(f"{what} must be {allowed}; found {text if len(text) <= 60 else text[:57] + '...'}")


class InvalidCluster(CallerError, ValueError):
    """A setting of ``cluster=`` or ``[cluster]`` that is not allowed, or a missing one.

    Attributes:
        key: Name of the setting; several are separated by commas.
        reason: What is wrong, and what is allowed.
    """

    def __init__(self, key: str, reason: str) -> None:
        self.key = key
        self.reason = reason
        super().__init__(f"cluster: {printable(key)} {printable(reason)}")


class UnknownChild(CallerError, LookupError):
    """The supervisor has no child of this name."""

    def __init__(self, supervisor: str, name: str, known: Iterable[str]) -> None:
        self.supervisor = supervisor
        super().__init__(
            f"supervisor {supervisor!r} has no child {name!r}; it has: {', '.join(known) or 'none'}"
        )


class UnknownSupervisor(CallerError, LookupError):
    """The system has no supervisor of this name."""

    def __init__(self, system: str, name: str, known: Iterable[str]) -> None:
        super().__init__(
            f"system {system!r} has no supervisor {name!r}; it has: {', '.join(known) or 'none'}"
        )


class MissingApply(CallerError, TypeError):
    """An event was registered for which the aggregate has no ``apply_`` method."""

    def __init__(self, aggregate: str, event: str, expected: str, known: Iterable[str]) -> None:
        self.aggregate = aggregate
        self.event = event
        self.expected = expected
        super().__init__(
            f"{aggregate} cannot apply {event}: define {expected}(self, event). It has: {_listed(known)}"
        )


class ApplyFailed(CallerError):
    """An ``apply_`` method raised: the event cannot become part of the aggregate's state.

    Attributes:
        aggregate: The aggregate, with the event's place in its stream as its version.
        method: The name of the method.
        event: The event.
    """

    def __init__(self, aggregate: str, method: str, event: str, reason: str) -> None:
        self.aggregate = aggregate
        self.method = method
        self.event = event
        super().__init__(
            f"{method} of {aggregate} raised {reason} while applying {event}. An event has already happened: accept it"
            f" in {method}, and reject in the @handles method what must not happen"
        )


class InvalidAggregateId(CallerError, ValueError):
    """An id that cannot name an aggregate."""

    def __init__(self, aggregate_id: object, reason: str) -> None:
        self.aggregate_id = aggregate_id
        shown = repr(aggregate_id)
        shown = shown if len(shown) <= 60 else shown[:57] + "..."
        super().__init__(f"invalid aggregate id {shown}: {reason}")


class UnknownAggregateType(CallerError, LookupError):
    """An aggregate class that this system does not serve."""

    def __init__(self, aggregate: str, known: Iterable[str]) -> None:
        self.aggregate = aggregate
        super().__init__(
            f"this system does not serve {aggregate}: add it to ActorSystem(aggregates=[...]). It serves:"
            f" {_listed(known)}"
        )


class MissingExtra(CallerError, ImportError):
    """A part of uno_actors needs a library that one of its extras brings, and that is not installed.

    Attributes:
        part: What needs it.
        extra: Name of the extra.
    """

    def __init__(self, part: str, extra: str, missing: ImportError) -> None:
        self.part = part
        self.extra = extra
        super().__init__(f"{part} needs `pip install 'uno-actors[{extra}]'`: {missing}", name=missing.name)


# --- the caller's: commands --------------------------------------------------------------------------------


class CommandRejected(CallerError):
    """Raised by a ``@handles`` method to refuse a command by a rule of the domain. Nothing is recorded."""

    def __init__(self, reason: str = "") -> None:
        self.reason = reason
        super().__init__(reason)


class UnknownCommand(CallerError, TypeError):
    """A command, or another object, sent to an aggregate that has no method for it."""

    def __init__(self, aggregate: str, command: object, known: Iterable[str]) -> None:
        self.aggregate = aggregate
        self.command = command
        if isinstance(command, type):
            name = command.__name__
            reason = f"{aggregate} handles commands, and {name} is a class of commands: write {name}(...)"
        else:
            reason = f"{aggregate} does not handle {type(command).__name__}; it handles: {_listed(known)}"
        super().__init__(reason)


class InvalidCommand(CallerError, TypeError):
    """A command with an invalid id, or with a value that would be another one at another node; it was not sent."""

    def __init__(self, command: str, reason: str) -> None:
        self.command = command
        super().__init__(f"{command} cannot be sent: {reason}")


class ReplyNotRecorded(CallerError):
    """A repeated command whose first reply cannot be given again; its events are recorded."""

    def __init__(self, command: str, command_id: str, stream: str, reason: str) -> None:
        self.command = command
        self.command_id = command_id
        super().__init__(
            f"{command} {command_id!r} was handled before and its events are recorded in {stream}, but its reply"
            f" cannot be given again: {reason}. Reply with plain values, or name the type in Command[...]"
        )


class CommandIdReused(CallerError, ValueError):
    """A command has the id of an earlier one of another type or with other contents. It was not handled.

    Attributes:
        command: The class of the command that was not handled.
        command_id: The id of both.
        stream: The aggregate to which both were sent.
    """

    def __init__(self, command: str, command_id: str, stream: str, recorded: str) -> None:
        self.command = command
        self.command_id = command_id
        self.stream = stream
        super().__init__(
            f"{command} was not handled: its command_id {command_id!r} is that of another command to {stream}, which"
            f" {recorded}. Give each command an id of its own; to send one again, keep its type and its fields"
        )


class BlockingCallOnLoop(CallerError, RuntimeError):
    """A blocking call on the thread whose event loop would have to produce the value."""

    def __init__(self, call: str = "get()", remedy: str = "await future") -> None:
        super().__init__(f"{call} would block the event loop's thread; write `{remedy}` instead")


class NameTaken(CallerError, ValueError):
    """Another running actor of the system has the name."""

    def __init__(self, name: str, owner: str) -> None:
        self.name = name
        super().__init__(f"the name {name!r} belongs to {owner}: stop it first, or choose another name")


class SystemNotRunning(CallerError, RuntimeError):
    """An actor system was used before it was started or after it was stopped."""

    def __init__(self, system: str, state: str) -> None:
        self.state = state
        super().__init__(
            f"actor system {system!r} is {state}: use it inside `async with ActorSystem(...)`, or `with` in a"
            " synchronous program"
        )


class UnknownActor(CallerError, LookupError):
    """No running actor has this name and class."""

    def __init__(self, system: str, name: str, reason: str) -> None:
        self.name = name
        super().__init__(f"system {system!r} has no actor {name!r}: {reason}")


class NoCluster(CallerError, RuntimeError):
    """A system that is not a node of a cluster was asked for its cluster."""

    def __init__(self, system: str) -> None:
        super().__init__(
            f"actor system {system!r} is not a node of a cluster: make it with ActorSystem(..., cluster=True), or with"
            " cluster=Cluster(listen=...) for several machines"
        )


class NoSystem(CallerError, RuntimeError):
    """A web application was asked for its actor system, and has none."""

    def __init__(self) -> None:
        super().__init__(
            "this application has no running actor system: give it one with"
            " FastAPI(lifespan=uno_actors.fastapi.lifespan(...)), and in tests write `with TestClient(app) as client:`,"
            " since only that starts an application"
        )


class ReplyNotSent(CallerError, TypeError):
    """Another node has handled the command, but its reply cannot be sent. Events of the command are recorded.

    Attributes:
        command: The class of the command.
        command_id: Its id.
        reply: The class of the reply.
        node: Name of the node that has handled it.
    """

    def __init__(self, command: str, command_id: str, reply: str, node: str, reason: str) -> None:
        self.command = command
        self.command_id = command_id
        self.reply = reply
        self.node = node
        super().__init__(
            f"node {printable(node)} has handled {command} {command_id!r}, but its reply of type {reply} cannot be sent"
            f" to another node: {reason}. Reply with None, numbers, strings, bytes, times, UUIDs, collections of them,"
            " or an enum, dataclass, named tuple or model that Command[...] names"
        )


class RemoteError(CallerError):
    """Another node raised an exception that cannot be rebuilt in this process.

    Attributes:
        kind: Module and name of its class.
        text: Its text.
        node: Name of the node.
    """

    def __init__(self, kind: str, text: str, node: str) -> None:
        self.kind = kind
        self.text = text
        self.node = node
        super().__init__(
            f"node {printable(node)} raised {kind}: {text}. To get the exception itself, import its module in this"
            " process too, and keep only plain values in its args and attributes"
        )


class InvalidSchedule(CallerError, ValueError):
    """What is to be sent later, when, or its key is not valid; the text says why."""


class UnknownSchedule(CallerError, LookupError):
    """Nothing that is to be sent later has this id.

    Attributes:
        schedule: The id.
    """

    def __init__(self, schedule: str, reason: str = "it was sent or cancelled, or never was") -> None:
        self.schedule = schedule
        super().__init__(
            f"nothing is scheduled as {printable(schedule)}: {reason}. `uno-actors schedule list` shows what is"
        )


# --- the caller's: waiting ----------------------------------------------------------------------------------


class ExitRaised(CallerError, RuntimeError):
    """The work for a reply raised an exception that must not reach the caller: it would end a program or a loop there.

    This concerns ``SystemExit``, ``KeyboardInterrupt``, ``GeneratorExit``, ``StopIteration`` and anything else that
    is not an ``Exception``. The exception is the ``__cause__``.

    Attributes:
        who: Whose code raised it.
    """

    def __init__(self, who: str, what: str) -> None:
        self.who = who
        super().__init__(
            f"{who} raised {what}, which cannot be a reply and ends only this work: raise an"
            " Exception, or stop the system to end the program"
        )


class WaitsForItself(CallerError, RuntimeError):
    """A handler waited for something that comes only after the handler has returned.

    Attributes:
        handler: Name of the handler.
        circle: Who waits for whom, the handler first and last; empty if it waits for every handler, itself included.
    """

    def __init__(self, handler: str, what: str, circle: Sequence[str] = ()) -> None:
        self.handler = handler
        self.circle = tuple(circle)
        names = f" ({' -> '.join(circle)})" if circle else ""
        super().__init__(
            f"handler {handler} waits for {what}, which comes only after this handler has returned{names}: call it from"
            " outside, or start it in the handler as a task that the handler does not wait for"
        )


class DeadlockError(CallerError):
    """Actors wait for each other in a cycle, so that none of their replies can come."""

    def __init__(self, cycle: Sequence[str]) -> None:
        self.cycle = tuple(cycle)
        super().__init__(
            f"deadlock: {' -> '.join(cycle)}. Break the cycle: tell instead of ask, or let one of them reply"
            " before it asks"
        )


# --- the caller's: events and stores -----------------------------------------------------------------------


class UnknownEventType(CallerError, LookupError):
    """No class in the registry has the type of a recorded event."""

    def __init__(self, event_type: str, known: Iterable[str]) -> None:
        self.event_type = event_type
        super().__init__(
            f"event type {event_type!r} is not registered: import the module that defines it, or name its class"
            f" with @register_event(name={event_type!r}). Registered: {_listed(known)}"
        )


class InvalidEvent(CallerError, TypeError):
    """An event class that cannot work; found when it is defined."""

    def __init__(self, event: str, reason: str) -> None:
        self.event = event
        super().__init__(f"event class {event}: {reason}")


class AmbiguousEventType(CallerError, LookupError):
    """Several classes share the name of an event type, and the store would have to choose."""

    def __init__(self, event_type: str, classes: Iterable[str]) -> None:
        self.event_type = event_type
        super().__init__(
            f"event type {event_type!r} names several classes ({_listed(classes)}): give one of them another name"
            " (`event_type: str = ...` in its class), annotate the event in the aggregate's apply_ method, or give"
            " the store its own event_registry=EventRegistry([...]) with the right one"
        )


class AmbiguousStream(CallerError, LookupError):
    """Aggregates of several types have the requested id."""

    def __init__(self, aggregate_id: str, types: Iterable[str]) -> None:
        self.aggregate_id = aggregate_id
        self.types = tuple(sorted(types))
        super().__init__(
            f"id {aggregate_id!r} has streams of several types ({_listed(self.types)}): pass aggregate_type=..."
        )


class EventNotSerializable(CallerError, TypeError):
    """An event holds a value that cannot be recorded."""

    def __init__(self, event_type: str, reason: str) -> None:
        self.event_type = event_type
        super().__init__(f"event {event_type} cannot be recorded: {reason}")


class EventNotReadable(CallerError, ValueError):
    """A recorded event does not fit today's class of its type."""

    def __init__(
        self, event_type: str, recorded: int, current: int, reason: str, where: str | None = None
    ) -> None:
        self.event_type = event_type
        self.recorded = recorded
        self.current = current
        self.where = where
        place = f" at {where}" if where else ""
        super().__init__(
            f"event {event_type} of schema version {recorded}{place} cannot be read as version {current}: {reason}"
        )


class InvalidExpectedVersion(CallerError, ValueError):
    """``expected_version`` is not a version that a stream can have."""

    def __init__(self, found: object) -> None:
        hint = ""
        if type(found).__module__ == "unittest.mock":
            hint = ". unittest.mock has another ANY"
        super().__init__(
            "expected_version is a version, 0 or more, uno_actors.EXISTS for a stream that has events, or"
            f" uno_actors.ANY for no check; found {found!r}{hint}"
        )


class AggregateNotFound(CallerError, LookupError):
    """No events of the aggregate are recorded, or none had been by a time.

    Attributes:
        aggregate: Its name.
        at: The time that was asked for, if it has events since; otherwise ``None``.
    """

    def __init__(self, aggregate: str, at: datetime | None = None) -> None:
        self.aggregate = aggregate
        self.at = at
        super().__init__(
            f"{aggregate} has no events: create it with its class, register events, and save it"
            if at is None
            else f"{aggregate} had no events yet at {at.isoformat()}: its first one was recorded later"
        )


class NoSuchVersion(CallerError, LookupError):
    """The stream of an aggregate has not come so far.

    Attributes:
        aggregate: Its name.
        version: The version asked for.
        last: The version of the stream.
    """

    def __init__(self, aggregate: str, version: int, last: int) -> None:
        self.aggregate, self.version, self.last = aggregate, version, last
        super().__init__(f"{aggregate} has {last:,} events: there is no version {version:,} yet")


class InvalidMoment(CallerError, ValueError):
    """Neither a version of a stream nor a time."""

    def __init__(self, found: object) -> None:
        super().__init__(
            f"an aggregate is looked at as of a version, 1 or more, or as of a datetime; found {shown(found)}"
        )


class InvalidStoreUrl(CallerError, ValueError):
    """A store URL that nothing can open."""

    def __init__(self, url: str, schemes: Iterable[str], reason: str = "") -> None:
        self.url = without_password(url)
        self.reason = without_secrets(reason, url) or (
            f"a store URL is SCHEME:REST with one of these schemes: {_listed(schemes)}; for example 'lmdb:./data/bank'"
        )
        super().__init__(f"cannot open the store {without_password(url)!r}: {self.reason}")


class StoreFormatError(CallerError):
    """The path holds something that this version cannot read; it was not changed."""

    def __init__(self, path: Path, reason: str) -> None:
        self.path = path
        super().__init__(f"{path} is not a store for this program: {reason}")


class StoreForked(CallerError, RuntimeError):
    """A forked process used the store of its parent. Nothing was done, and the parent's store is unharmed."""

    def __init__(self, store: str) -> None:
        self.store = store
        super().__init__(
            f"store {store} was opened before this process was forked and belongs to its parent: open it again here,"
            " after the fork"
        )


class PlaceTaken(CallerError):
    """The path for a new store is not empty; its contents were not changed."""

    def __init__(self, path: Path) -> None:
        self.path = path
        super().__init__(f"{path} is not empty, and nothing is overwritten: choose a new path")


class SeveralLogs(CallerError):
    """What was asked needs one order of all events, and the store has several logs, which have none between them.

    Attributes:
        store: The store.
        logs: Number of its logs.
    """

    def __init__(self, store: str, logs: int, what: str, remedy: str) -> None:
        self.store, self.logs = without_password(store), logs
        super().__init__(
            f"store {self.store} has {logs} logs, and events of different logs have no order: {what} is not possible;"
            f" {remedy}"
        )


class OtherNumberOfLogs(CallerError, ValueError):
    """A store was opened with a number of logs that is not its own. Nothing was changed.

    Attributes:
        store: The store.
        found: The number of its logs.
        wanted: The number that was given.
    """

    def __init__(self, store: str, found: int, wanted: int) -> None:
        self.store, self.found, self.wanted = without_password(store), found, wanted
        super().__init__(
            f"store {self.store} was made with logs={found} and cannot be opened with logs={wanted}: the number is"
            " fixed when a store is made; leave the option out, or copy the events into a new store"
        )


class InvalidPosition(CallerError, ValueError):
    """A position, or a position token, that is not one of this store.

    Attributes:
        found: What was given.
    """

    def __init__(self, found: object, reason: str) -> None:
        self.found = found
        text = bounded(repr(found), LONGEST_ERROR // 4)
        super().__init__(
            f"{text} is not a position in this store: {reason}. Give a position or token that this store has returned"
        )


class InvalidQuery(CallerError, ValueError):
    """A query cannot select events, or an append under a condition is not possible as it was asked.

    Attributes:
        query: As text.
        reason: What is wrong, and the remedy.
    """

    def __init__(self, query: str, reason: str) -> None:
        self.query = query
        self.reason = reason
        super().__init__(f"invalid query {query}: {reason}")


# --- the world's -------------------------------------------------------------------------------------------


class StoreUnavailable(WorldError):
    """The store cannot be reached, opened or written; nothing was recorded."""

    def __init__(self, store: str, reason: str) -> None:
        self.store = without_password(store)
        super().__init__(f"store {self.store} is unavailable: {without_secrets(reason, store)}")


class LeaseLost(StoreUnavailable):
    """Another process has taken over handlers of this one. The store refuses what this process still writes for them.

    Attributes:
        handlers: Names of these handlers.
    """

    def __init__(self, store: str, handlers: Iterable[str]) -> None:
        self.handlers = tuple(sorted(handlers))
        names = ", ".join(self.handlers)
        super().__init__(
            store,
            f"another process has taken over {names} while this one hung or was cut off: what this one still writes"
            " for it is refused",
        )


class StoreFull(WorldError):
    """The store has no room for the events; nothing was recorded."""

    def __init__(self, store: str, reason: str) -> None:
        self.store = without_password(store)
        super().__init__(f"store {self.store} is full: {without_secrets(reason, store)}")


class OutcomeUnknown(WorldError):
    """The store failed while committing: it is unknown whether the events were recorded.

    Attributes:
        command_id: Id of the handled command. If it is sent again with this id, it takes effect once. ``None`` if
            there was no command, or if the system remembers no commands.
        since: Log position before the command's events, if they were recorded. With ``ask(command, since=...)`` the
            command takes effect once, however late it is sent again. ``None`` as above.
    """

    def __init__(
        self, what: str, reason: str, command_id: str | None = None, since: int | None = None
    ) -> None:
        self.what = what
        self.reason = reason
        self.command_id = command_id
        self.since = since
        remedy = (
            "Read the stream before sending the command again"
            if command_id is None
            else f"Send the same command again, with command_id={command_id!r} and ask(..., since={since or 0}):"
            " it takes effect once"
        )
        super().__init__(
            f"{what}: a commit did not finish ({reason}); its events may or may not be recorded. {remedy}"
        )


class ConcurrencyConflict(WorldError):
    """Another writer was faster: the stream is not at the version on which the caller decided.

    A command of an aggregate is decided again until its time is over; only then its asker gets this error.

    Attributes:
        stream: Its name.
        expected: The version on which the last decision was made.
        actual: The version of the stream.
        tries: How often it was decided.
        seconds: From the first conflict to the last one, or to the end of the asker's time.
    """

    def __init__(
        self,
        stream: str,
        expected: int,
        actual: int,
        *,
        command: str | None = None,
        tries: int = 1,
        seconds: float = 0.0,
    ) -> None:
        self.stream = stream
        self.expected = expected
        self.actual = actual
        self.tries = tries
        self.seconds = seconds
        remedy = (
            "Load it again and decide again"
            if command is None
            else f"{command} was decided {counted(tries, 'time')} within {seconds:.3g} s, and others were faster each"
            " time; nothing was recorded. Send all commands of one aggregate to one process: let a cluster route them"
            " (cluster=...), or give the ask a longer timeout"
        )
        super().__init__(
            f"stream {stream} is at version {actual}, not at {expected}: another writer was faster. {remedy}"
        )

    def until_late(self, command: str, tries: int, seconds: float) -> "ConcurrencyConflict":
        """The error for the asker of ``command`` (its class), which was decided so often until its time was over."""
        return ConcurrencyConflict(
            self.stream, self.expected, self.actual, command=command, tries=tries, seconds=seconds
        )


class NoSuchStream(ConcurrencyConflict):
    """An append was for a stream that exists (`uno_actors.EXISTS`), and the stream has no events. Nothing was recorded.

    It is a conflict: the stream is at version 0, and the append expected 1 or more.
    """

    def __init__(self, stream: str) -> None:
        super().__init__(stream, 1, 0)
        self.args = (
            f"stream {stream} has no events, and the append expects some (expected_version=EXISTS): check the id and"
            " the type of the aggregate, or begin the stream with expected_version=0",
        )


class CheckpointConflict(WorldError):
    """Another process has moved the checkpoint, or the move would go back. Nothing was recorded.

    Attributes:
        name: Of the checkpoint.
        position: Where it was to be moved.
        was: Where it was expected; ``None`` for any place before ``position``.
        actual: Where it is; ``None`` if there is none of this name.
    """

    def __init__(self, name: str, position: int, was: int | None, actual: int | None) -> None:
        self.name = name
        self.position = position
        self.was = was
        self.actual = actual
        at = "is not set" if actual is None else f"is at {actual:,}"
        if was is not None and was != (actual or 0):
            reason = f"not at {was:,}: another process has moved it"
        else:
            reason = f"so it cannot move to {position:,}: that was handled before"
        super().__init__(
            f"the checkpoint {shown(name, repr)} {at}, {reason}. Nothing was recorded. Read the checkpoint and"
            " continue after it; to move it back on purpose, give Checkpoint(..., may_go_back=True)"
        )


class StandingEvent(NamedTuple):
    """An event that stands against an append: its place and header.

    Attributes:
        position: Place in the log.
        event_type: As in the event, like the others.
        event_id: See there.
        topic: See there.
        aggregate_type: See there.
        aggregate_id: ``None`` for an event that stands in the log alone.
        aggregate_version: Place in its stream.
    """

    position: int
    event_type: str
    event_id: str
    topic: str | None
    aggregate_type: str | None
    aggregate_id: str | None
    aggregate_version: int | None

    def __str__(self) -> str:
        stream = (
            ""
            if self.aggregate_id is None
            else f" of {self.aggregate_type}<{self.aggregate_id}@{self.aggregate_version}>"
        )
        return f"{self.event_type}{stream} at position {self.position}"


class AppendConditionFailed(WorldError):
    """Events stand against an append: its query selects them, and they were recorded after its position.

    Nothing was recorded. `decide` reads again and decides again until its time is over; only then it raises this.

    Attributes:
        query: The queries of the append, as text.
        after: The position after which the queries must select nothing.
        events: The first events that they select there, at most ten.
        tries: How often it was decided.
        seconds: From the first try to the last one.
    """

    def __init__(
        self,
        query: str,
        after: int,
        events: Iterable[StandingEvent],
        *,
        decider: str | None = None,
        tries: int = 1,
        seconds: float = 0.0,
    ) -> None:
        self.query = query
        self.after = after
        self.events = tuple(events)
        self.tries = tries
        self.seconds = seconds
        remedy = (
            "Read again and decide again"
            if decider is None
            else f"{decider} was decided {counted(tries, 'time')} within {seconds:.3g} s, and others were faster each"
            " time; nothing was recorded. Give it a longer timeout, or let its query select less"
        )
        found = ", ".join(map(str, self.events))
        super().__init__(f"{query} selects {found}, after position {after}. {remedy}")

    def until_late(self, decider: str, tries: int, seconds: float) -> "AppendConditionFailed":
        """The error of a decision that was made so often until its time was over."""
        return AppendConditionFailed(
            self.query, self.after, self.events, decider=decider, tries=tries, seconds=seconds
        )


class MailboxFull(WorldError):
    """A bounded mailbox has no room; the message was not accepted."""

    def __init__(self, owner: str, capacity: int) -> None:
        self.owner = owner
        self.capacity = capacity
        super().__init__(
            f"the mailbox of {owner} is full ({capacity} messages wait). Send fewer at once: await replies before"
            " asking more"
        )


class AskTimeout(WorldError, TimeoutError):
    """No reply came in time.

    Attributes:
        actor: Who was asked; with the node, if it is another one.
        message: Class of the message.
        seconds: How long the asker has waited.
        doing: What the actor did, as far as that is known.
        started: Whether the actor had begun to handle the message. If not, the message was withdrawn and will not be
            handled; otherwise it may still take effect.
    """

    def __init__(self, actor: str, message: str, seconds: float, *, started: bool, doing: str) -> None:
        self.actor = actor
        self.message = message
        self.seconds = seconds
        self.started = started
        self.doing = doing
        remedy = "it may still take effect" if started else "it was withdrawn and has no effect"
        super().__init__(f"no reply from {actor} to {message} within {seconds:g} s; {remedy}. {doing}")


class StartTimeout(AskTimeout):
    """A spawned actor did not start within the timeout of an ask; it was abandoned."""

    def __init__(self, actor: str, seconds: float, doing: str) -> None:
        super().__init__(actor, "on_start", seconds, started=True, doing=doing)
        self.args = (
            f"{actor} did not start within {seconds:g} s and was abandoned: its on_start did not return. {doing}",
        )


class HandlerTimeout(WorldError, TimeoutError):
    """An event handler took longer than its ``timeout``; it counts as a failed attempt.

    Attributes:
        handler: Name of the handler.
        event: The event, or batch of events, that the handler was handling.
        seconds: The handler's ``timeout``, in seconds.
    """

    def __init__(self, handler: str, event: str, seconds: float) -> None:
        self.handler = handler
        self.event = event
        self.seconds = seconds
        super().__init__(
            f"handler {handler} did not handle {event} within {seconds:g} s; make it quicker, or raise its"
            " timeout"
        )


class WorkCancelled(WorldError):
    """The work for a reply was cancelled; the caller was not.

    Its ``__cause__`` is the ``asyncio.CancelledError``. It arises when an actor's code cancels its own task or raises
    ``CancelledError`` (as a closed client does), and when a program cancels tasks that are not its own.

    Attributes:
        who: Whose work was cancelled.
    """

    def __init__(self, who: str) -> None:
        self.who = who
        super().__init__(
            f"{who}: the work was cancelled before it finished, and may have taken effect in part. The caller was not"
            " cancelled: ask again, and cancel only tasks of your own"
        )


class SupervisorGaveUp(WorldError):
    """A supervisor saw more failures than its restart budget allows, or a failure that escalates.

    Attributes:
        supervisor: Name of the supervisor.
        child: The name of the child that failed.
        cause: The child's last error.
    """

    def __init__(self, supervisor: str, child: str, reason: str, cause: BaseException) -> None:
        self.supervisor = supervisor
        self.child = child
        self.cause = cause
        super().__init__(
            f"supervisor {supervisor!r} gave up: {child} {reason}. Its last error was {describe(cause)}"
        )


class LinkUnavailable(WorldError):
    """A node cannot accept requests of other nodes at its address, or may not do so without a secret.

    Attributes:
        address: The address.
        reason: What is wrong.
    """

    def __init__(self, address: str, reason: str) -> None:
        self.address = address
        self.reason = reason
        super().__init__(f"no link at {printable(address)}: {reason}")


class TenantsInUse(WorldError):
    """So many tenants are in use that no further one can be started now.

    Attributes:
        tenant: The tenant that was asked for.
        max_open: Maximum number of tenants that run at once.
    """

    def __init__(self, tenant: str, max_open: int) -> None:
        self.tenant = tenant
        self.max_open = max_open
        super().__init__(
            f"tenant {tenant!r} cannot be started: {max_open} others are in use, which is max_open. Raise it, or use"
            " tenants for a shorter time"
        )


class NotServed(WorldError):
    """No node that is up serves this command.

    Attributes:
        command: The class of the command.
        aggregate: The aggregate to which it was sent.
        seconds: Time waited for a node that does.
        served: The aggregate types that nodes serve.
    """

    def __init__(
        self, command: str, aggregate: str, seconds: float, served: Iterable[str], reasons: Iterable[str] = ()
    ) -> None:
        self.command = command
        self.aggregate = aggregate
        self.seconds = seconds
        self.served = tuple(sorted(served))
        why = "".join(f"; {reason}" for reason in reasons)
        super().__init__(
            f"no node has served {command} of {aggregate} within {seconds:g} s{why}. The nodes that are up serve the"
            f" aggregate types: {_listed(self.served)}. Start a node with the role 'aggregates' that knows this command"
        )


class NotHandled(WorldError):
    """Events are recorded, but a handler that the caller waits for has not handled them, and the wait has ended.

    Raised as it is, the handler cannot handle them now: it is paused or stopped, or no process runs it.

    Attributes:
        handlers: Names of the handlers that have not handled them.
        position: Position of the last of the events.
        reason: Why the wait has ended.
        reply: The reply to the command, which has taken effect; ``None`` if no command was waited for.
        token: The position token of the events, for a later request; ``None`` if no command was waited for.
    """

    reply: Any = None
    token: str | None = None

    def __init__(self, handlers: Sequence[str], position: int, reason: str) -> None:
        self.handlers = tuple(handlers)
        self.position = position
        self.reason = reason
        super().__init__(
            f"events up to position {position} are recorded, but not handled by {', '.join(handlers)}: {reason}. Do not"
            " send the command again: it has taken effect"
        )


class WaitTimeout(NotHandled, TimeoutError):
    """Events are recorded, but a handler has not handled them in the time that the caller waits.

    Attributes:
        seconds: How long the caller has waited for the handlers.
    """

    def __init__(self, handlers: Sequence[str], position: int, seconds: float, doing: str) -> None:
        self.seconds = seconds
        super().__init__(handlers, position, f"not within {seconds:g} s; {doing}")


class EventSetAside(NotHandled):
    """A handler has set aside an event that the caller waits for, among its dead letters.

    Attributes:
        letter: Position of the event.
    """

    def __init__(self, handlers: Sequence[str], position: int, letter: int) -> None:
        self.letter = letter
        super().__init__(
            handlers,
            position,
            f"the event at position {letter} is among its dead letters, for it has failed each time:"
            " `uno-actors deadletters list` says why, and system.retry_dead_letters() tries it again",
        )


class RetryLater(WorldError):
    """Raised by a handler: what it needs is away or busy, and the event is not to blame.

    Such a failure does not count as an attempt, so that no event becomes a dead letter because a server is down. The
    supervisor restarts the handler after its back-off, but not before ``after`` seconds, and the same event comes
    again.

    Args:
        reason: What is away, for the log.
        after: Seconds to wait at least, such as those of an HTTP ``Retry-After``; at most `LONGEST_WAIT` count.
    """

    LONGEST_WAIT = 3600.0

    def __init__(self, reason: str, after: float | None = None) -> None:
        self.reason = reason
        self.after = after
        super().__init__(reason)

    @property
    def wait(self) -> float:
        """Seconds to wait at least."""
        return min(max(self.after or 0.0, 0.0), self.LONGEST_WAIT)


class RecordingNotWritten(WorldError):
    """The steps of the flight recorder cannot be written to a file.

    Attributes:
        system: Name of the system.
        reason: Why not, and the remedy.
    """

    def __init__(self, system: str, reason: str) -> None:
        self.system = system
        self.reason = reason
        super().__init__(f"the recording of system {system!r} cannot be written: {reason}")


class RecordingNotReadable(WorldError):
    """A file is not a whole recording of a flight recorder.

    Attributes:
        path: Path of the file.
        reason: What is wrong.
    """

    def __init__(self, path: str, reason: str) -> None:
        self.path = path
        self.reason = reason
        super().__init__(f"{path} cannot be read as a recording: {reason}")


# --- ours --------------------------------------------------------------------------------------------------


class CorruptRecord(InternalError):
    """Bytes in the store that are not a record."""

    def __init__(self, where: str, reason: str) -> None:
        self.where = where
        self.reason = reason
        super().__init__(f"the record at {where} is damaged: {reason}")
