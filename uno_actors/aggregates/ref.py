"""References to aggregates, through which commands are sent."""

from collections.abc import Callable
from typing import Any, Protocol, Self, TypeVar

from uno_actors.actors.ask import context_of_sender
from uno_actors.aggregates.envelope import CommandEnvelope, CommandReply
from uno_actors.aggregates.history import Moment, as_it_was, check_moment
from uno_actors.aggregates.joint import Held, Joint
from uno_actors.causality import Cause, current_cause, new_id
from uno_actors.domain.aggregate import AggregateRoot, check_aggregate_id, command_method
from uno_actors.domain.commands import Command
from uno_actors.errors import ArgumentWithoutEffect, InvalidCommand
from uno_actors.quantities import check_duration
from uno_actors.store.codec import StreamId
from uno_actors.store.port import EventStore

R = TypeVar("R")


class AcceptsCommands(Protocol):
    """The system behind a reference."""

    def deliver(self, stream: StreamId, envelope: CommandEnvelope, timeout: float | None) -> None:
        """Pass a command to the event loop; from any thread."""

    def waiting(self, wait_for: object, seconds: float | None) -> "WaitsForHandlers":
        """A wait for handlers, which begins when a command is recorded; from any thread."""

    @property
    def store(self) -> EventStore:
        """Where the events of its aggregates are."""


class WaitsForHandlers(Protocol):
    """A wait for handlers that has not begun."""

    def after(self, reply: CommandReply[R], stream: StreamId) -> CommandReply[R]:
        """``reply``, set once the handlers have handled the events of its command, which were not sent yet."""


class AggregateRef:
    """A reference to an aggregate, whether or not it is active or exists. Making one does no I/O."""

    __slots__ = ("_system", "_type", "_when_recorded", "stream")

    def __init__(
        self, system: AcceptsCommands, aggregate_type: type[AggregateRoot], aggregate_id: str
    ) -> None:
        self.stream = StreamId(aggregate_type.aggregate_type, check_aggregate_id(aggregate_id))
        self._type = aggregate_type
        self._system = system
        self._when_recorded: Callable[[CommandReply[Any]], object] | None = None

    def noting(self, when_recorded: Callable[[CommandReply[Any]], object]) -> Self:
        """This reference, which calls ``when_recorded`` on the event loop with each reply that has a position."""
        self._when_recorded = when_recorded
        return self

    def ask(
        self,
        command: Command[R],
        *,
        timeout: float | None = None,
        since: int | None = None,
        wait_for: object = None,
        wait_timeout: float | None = None,
    ) -> CommandReply[R]:
        """Send ``command`` and return the future reply, which is set when the events are durable.

        With ``wait_for`` it is set when handlers have handled those events too, so that their views show them. If a
        handler cannot, the reply is `NotHandled`; the command has taken effect all the same, and the error has its
        reply. A command that records nothing has nothing to wait for.

        Args:
            command: A command that the aggregate handles.
            timeout: Seconds; default is the system's.
            since: For a command that may have been recorded longer ago than the aggregate remembers (see
                `ActorSystem`): the position of the log after which that may have been, 0 for the whole log. The
                aggregate searches its stream from there. Default, for a command whose id was given, is the event being
                handled; so a handler may send the command again at any time.
            wait_for: Handlers, in this process or another: one of the classes, instances or functions that the system
                has as handlers, a process manager, the name of a handler, or several of them in a tuple. Of a
                partitioned handler, the partition that has the events is waited for.
            wait_timeout: Seconds that the handlers may take once the events are durable; default is the ``ask_timeout``
                of the system.

        Returns:
            The reply; its ``position`` and ``token`` say where the command was recorded.

        Raises:
            UnknownCommand: The aggregate does not handle it.
            InvalidCommand: One of its ids is not a string.
            SystemNotRunning: The system was not started, or has stopped.
            ValueError: ``since`` is negative.
            InvalidNumber: ``timeout`` or ``wait_timeout`` is not a number of seconds.
            ArgumentWithoutEffect: ``wait_timeout`` is given without ``wait_for``.
            InvalidHandler: ``wait_for`` is not a handler.
            WaitsForItself, DeadlockError: The caller is a handler for whose end the awaited handler waits; nothing was
                sent.
            WaitTimeout, EventSetAside, NotHandled: In the reply: the events are recorded, and not handled.
            CommandRejected, CommandIdReused, ReplyNotRecorded, AskTimeout, ConcurrencyConflict: In the reply.
            MailboxFull, StoreUnavailable, StoreFull, OutcomeUnknown, WorkCancelled, ExitRaised: In the reply, as any
                other exception that the aggregate raises.
        """
        if timeout is not None:
            check_duration("timeout", timeout, zero=True)
        future = CommandReply(self.stream, type(command))
        if self._when_recorded is not None:
            future.tell(self._when_recorded)
        if wait_for is None:
            if wait_timeout is not None:
                remedy = "name the handlers to wait for"
                raise ArgumentWithoutEffect("wait_timeout", wait_timeout, "wait_for", remedy)
            self._system.deliver(self.stream, self._envelope(command, future, since), timeout)
            return future
        envelope = self._envelope(command, future, since)
        reply = self._system.waiting(wait_for, wait_timeout).after(future, self.stream)
        self._system.deliver(self.stream, envelope, timeout)
        return reply

    def tell(self, command: Command[Any], *, since: int | None = None) -> None:
        """Send ``command`` without waiting; a failure is logged.

        Args:
            command: As for `ask`.
            since: As for `ask`.

        Raises:
            UnknownCommand, InvalidCommand, SystemNotRunning, ValueError: As for `ask`.
        """
        self._system.deliver(self.stream, self._envelope(command, None, since), None)

    async def at(self, moment: Moment) -> Any:
        """The aggregate as it was, an instance of its class for reading: at a version from 1, or at a time.

        It is read from the store, whatever node has the aggregate in memory. No event from the first one with a later
        timestamp on is applied. A time without a zone is in UTC.

        Raises:
            AggregateNotFound: It has no events, or had none by then.
            NoSuchVersion: It has fewer events.
            InvalidMoment: ``moment`` is neither a version nor a time.
            MissingApply, EventNotReadable, UnknownEventType, CorruptRecord: An event cannot be replayed.
            StoreUnavailable: The store cannot be read.
        """
        return await as_it_was(self._system.store, self._type, self.stream, check_moment(moment))

    def _ask_with(
        self, command: Command[R], held: Held | None = None, follows: Joint | None = None
    ) -> CommandReply[R]:
        """As `ask`, with an append that may be held, or that follows another; see `uno_actors.aggregates.joint`."""
        future: CommandReply[R] = CommandReply(self.stream, type(command))
        envelope = self._envelope(command, future, None)
        envelope.held, envelope.follows, envelope.leads = held, follows, isinstance(held, Joint)
        self._system.deliver(self.stream, envelope, None)
        return future

    def _envelope(
        self, command: Command[R], future: CommandReply[R] | None, since: int | None
    ) -> CommandEnvelope:
        """``command`` with the event being handled as its cause, and with the place to look back to."""
        command_method(self._type, command)
        ids = command.__dict__
        correlation_id, causation_id = ids["correlation_id"], ids["causation_id"]
        if (
            type(ids["command_id"]) is not str
            or (correlation_id is not None and type(correlation_id) is not str)
            or (causation_id is not None and type(causation_id) is not str)
        ):
            command = with_valid_ids(command)
        cause = current_cause()
        if cause is None and since is None:
            return CommandEnvelope(command, future, context_of_sender())
        caused = command if cause is None else with_cause(command, cause)
        envelope = CommandEnvelope(caused, future, context_of_sender())
        if since is not None:
            if type(since) is not int or since < 0:
                raise ValueError(f"since must be a position of the log, or 0; found {since}")
            envelope.look_back(since)
        elif cause is not None and cause.position is not None and "command_id" in command.model_fields_set:
            # What an event causes is recorded after it.
            envelope.look_back(cause.position, cause.store)
        return envelope

    def __repr__(self) -> str:
        return f"AggregateRef({self.stream})"


def with_cause(command: Command[R], cause: Cause) -> Command[R]:
    """``command`` with the ids of ``cause``; explicit values win."""
    if command.correlation_id and command.causation_id:
        return command
    correlation_id, causation_id = cause.fill(command.correlation_id, command.causation_id)
    return command.model_copy(update={"correlation_id": correlation_id, "causation_id": causation_id})


def with_valid_ids(command: Command[R]) -> Command[R]:
    """``command`` with valid ids; those of an updated copy were not validated. ``None`` becomes a new ``command_id``.

    Raises:
        InvalidCommand: One of them is not a string.
    """
    ids: dict[str, Any] = {name: getattr(command, name) for name in Command.model_fields}
    if ids["command_id"] is None:
        ids["command_id"] = new_id()
        command = command.model_copy(update=ids)
    for name, found in ids.items():
        if not isinstance(found, str) and (found is not None or name == "command_id"):
            raise InvalidCommand(
                type(command).__name__, f"its {name} must be a string or None; found {found!r}"
            )
    return command
