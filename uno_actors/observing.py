"""Observing: the one seam through which the runtime reports what it does.

Traces, metrics and recorders are observers. A program gives them to a system: ``ActorSystem(observers=[...])``. In a
system without observers each part of the runtime has `None` instead of an `Observation`, and checks only for that.

The methods of an observer are called where things happen: on the event loop, or on the thread that sends a command or
publishes an event. So they must be quick and must not block. An observer that raises is logged and called no more; the
system runs on without it.

Most methods run *in the context of a message*: the context variables that are current there are those of the sender's
code, and they travel with the message. What a method binds is current in the methods of all observers that follow for
the same message, and in the program's own code that handles it: in the aggregate's method, and in the handlers of its
events. So an observer needs no table of what is under way: it keeps a span, or whatever it likes, in a context variable
of its own. What is bound for a message is never current in the code of its sender.

Three kinds of values appear again and again:

- ``stream``: a `uno_actors.store.codec.StreamId`, the type and the id of an aggregate.
- ``seconds`` and ``waited``: seconds on ``time.monotonic``'s clock, whatever clock the system has.
- ``error``: the exception, or ``None`` on success.
"""

import threading
from collections.abc import Callable, Iterable, Sequence
from contextvars import Context
from functools import partial
from typing import Any, NamedTuple, Protocol

from uno_actors.errors import shown
from uno_actors.logs import Logger, get_logger


class CommitGroup(NamedTuple):
    """The appends that are committed together.

    Attributes:
        appends: Each a `uno_actors.store.records.Append`; its ``records`` are the events of one aggregate, or of a
            process and the aggregates to which it sends commands.
        contexts: Of the commands whose events are recorded, in no particular order, except of those that no observer
            wants to be told of. A repeated command, and one that registered no event, is among them if it was answered
            with the others.
    """

    appends: Sequence[Any]
    contexts: Sequence[Context]


class Unwatched(NamedTuple):
    """The result of `Observer.command_sent` for a command of which the observer does not want to be told again.

    Attributes:
        correlation_id: Its correlation id, as for `Observer.command_sent`.
    """

    correlation_id: str | None


class Delivered(Protocol):
    """A recorded event on its way to a handler.

    Attributes:
        position: Its position in the log.
        record: A `uno_actors.store.codec.Record`: type, stream, ids, time and topic of the event.
        context: The context of the message that caused it, if this process has recorded it just now. ``None`` for a
            handler that catches up.
    """

    position: int
    record: Any
    context: Context | None


class Observer:
    """Watches what a system does: derive from it and override what you need. Each method here does nothing.

    The order in the life of one command, on one node: `command_sent`, `command_arrived`, `aggregate_loaded` if it is
    the first one, `command_taken`, `command_deciding`, `command_decided`, `append_begun`, `append_ended`,
    `command_answered`, `command_returned`. In a cluster sender and aggregate may be on different nodes; then
    `hop_sent` and `hop_returned` are called on the sender's node, and `hop_served` on the other.
    """

    # --- commands, on the sender's node; in the context of the command ---

    def command_sent(self, stream: Any, command: Any, asked: bool) -> str | Unwatched | None:
        """A command is sent, on the sender's thread; ``asked`` is false if it was told.

        Returns:
            The correlation id of the command, if it has none and no other message caused it; ``None`` for a new one.
            The first observer with an id decides. `Unwatched` with the id, if the observer does not want to be told
            of this command again: for the trace of a command that is not sampled, say. If no other observer does,
            the command costs little. Its `event_routed` and the methods for handlers are called all the same.
        """
        return None

    def correlation_id(self) -> str | None:
        """As the result of `command_sent`, for events that are published."""
        return None

    def command_returned(
        self, stream: Any, command: Any, seconds: float, error: BaseException | None
    ) -> None:
        """The sender has its reply or its error, ``seconds`` after it was sent; once for each command that was sent.

        For a command that was told, this is when it ends.
        """

    # --- commands, on the aggregate's node; in the context of the command ---

    def command_arrived(self, stream: Any, command: Any, asked: bool) -> None:
        """A command has come to the mailbox of its aggregate."""

    def command_taken(self, stream: Any, command: Any, waited: float) -> None:
        """It was taken from the mailbox, ``waited`` seconds after it came or after its last attempt was lost.

        Called for each attempt: a command is decided again if another writer was faster.
        """

    def command_deciding(self, stream: Any, command: Any) -> None:
        """Its ``@handles`` method is about to be called. Not for a command that is answered with an earlier result."""

    def command_decided(
        self, stream: Any, command: Any, seconds: float, events: int, error: BaseException | None
    ) -> None:
        """Its method has returned or raised after ``seconds``, and has registered so many ``events``."""

    def command_answered(
        self, stream: Any, command: Any, seconds: float, error: BaseException | None
    ) -> None:
        """It has ended, ``seconds`` after it arrived; once for each command that arrived.

        ``error`` is a `CommandRejected` for a command that was rejected by a rule of the domain.
        """

    # --- aggregates and the log ---

    def aggregate_loaded(self, stream: Any, seconds: float, events: int, error: BaseException | None) -> None:
        """An aggregate was loaded from its snapshot and ``events``; in the context of the command that waits first."""

    def append_begun(self, group: CommitGroup) -> None:
        """The store begins to commit ``group``."""

    def append_ended(self, group: CommitGroup, outcomes: Sequence[Any], seconds: float) -> None:
        """The store has committed ``group``, or could not.

        Args:
            group: As for `append_begun`, the same object.
            outcomes: For each append a `uno_actors.store.records.Appended`, or an error.
            seconds: How long it took, until the events are durable.
        """

    # --- handlers ---

    def event_routed(self, event: Delivered, handlers: int) -> None:
        """The router has handed an event to so many live ``handlers``; in the context of the event, if it has one."""

    def handler_called(self, handler: str, events: Sequence[Delivered], attempt: int) -> None:
        """A handler is about to be called; in the context of the call.

        That context is a copy of the one of the last event, if that has one. Otherwise the handler catches up, and the
        context is empty.

        Args:
            handler: Name of the handler.
            events: One event; several for a handler that takes lists.
            attempt: Counted from 1.
        """

    def handler_returned(
        self, handler: str, events: Sequence[Delivered], seconds: float, error: BaseException | None
    ) -> None:
        """The call has ended after ``seconds``; in its context. For the arguments see `handler_called`."""

    def dead_letter(self, handler: str, letter: Any) -> None:
        """An event was set aside: ``letter`` is a `uno_actors.store.records.DeadLetter`."""

    def process_step_begun(self, process: str, process_id: str, message: object) -> None:
        """A process manager is about to react, in the context of the call of its handler.

        Args:
            process: Name of the class.
            process_id: Id of the process.
            message: The event, or the `Refusal` of a command; ``None`` after a crash between the two.
        """

    def process_step_ended(
        self, process: str, process_id: str, commands: int, seconds: float, error: BaseException | None
    ) -> None:
        """The reaction is recorded, and the ``commands`` that follow from it were sent; in the same context."""

    # --- publishing; in the context of the call of ``publish`` ---

    def publish_begun(self, events: Sequence[Any]) -> None:
        """A publisher is about to record ``events`` that come from no aggregate."""

    def publish_ended(self, events: Sequence[Any], seconds: float, error: BaseException | None) -> None:
        """The ``events`` are recorded, or cannot be."""

    def bus_published(self, bus: str, event: Any, handlers: int) -> None:
        """An event was published on a bus and has so many ``handlers``."""

    def bus_handler_called(self, bus: str, handler: str, event: Any) -> None:
        """A handler of a bus is about to be called."""

    def bus_handler_returned(
        self, bus: str, handler: str, event: Any, seconds: float, error: BaseException | None
    ) -> None:
        """The call has ended after ``seconds``."""

    # --- supervision ---

    def child_failed(
        self, supervisor: str, child: str, kind: str, error: BaseException, decision: str
    ) -> None:
        """A child has failed.

        Args:
            supervisor: Name of the supervisor.
            child: Name of the child.
            kind: ``handler``, ``actor`` or ``supervisor``.
            error: Why.
            decision: ``restart``, ``resume``, ``stop`` or ``give up``.
        """

    def child_restarted(self, supervisor: str, child: str, kind: str) -> None:
        """A child was started again after a failure, its own or that of a sibling."""

    def supervisor_gave_up(self, supervisor: str, child: str, reason: str, error: BaseException) -> None:
        """A supervisor has used up its budget, because of this ``child``."""

    # --- hops between the nodes of a cluster; in the context of the command ---

    def hop_sent(self, stream: Any, command: Any, node: str, carrier: dict[str, str]) -> None:
        """A command is sent to another ``node``; what is put into ``carrier`` travels with it, in a few headers.

        Called again if it is sent again, after `hop_returned`.
        """

    def hop_returned(
        self, stream: Any, command: Any, node: str, seconds: float, error: BaseException | str | None
    ) -> None:
        """The other node has answered; ``error`` is a text if it did not serve the command, or has not answered."""

    def hop_served(self, stream: Any, command: Any, node: str, carrier: dict[str, str]) -> None:
        """A command has come from another ``node``; called before `command_arrived`, in a context that is new."""

    # --- measures, in no particular context ---

    def system_started(self) -> None:
        """The system runs; called on its event loop."""

    def command_measured(  # noqa: PLR0917 - called for each command, by position
        self,
        stream: Any,
        command: Any,
        waited: float,
        deciding: float | None,
        seconds: float,
        error: BaseException | None,
    ) -> None:
        """A command has ended on the aggregate's node: all durations at once.

        Args:
            stream: The aggregate.
            command: The command.
            waited: Seconds in the mailbox, of its last attempt.
            deciding: Seconds of its method; ``None`` if it was not called, as for a command whose time was over.
            seconds: From its arrival to its answer.
            error: As for `command_answered`.
        """

    def handler_measured(
        self, handler: str, events: int, seconds: float, error: BaseException | None
    ) -> None:
        """A call of a handler for so many ``events`` has ended, on the loop or on a worker thread."""

    def hop_measured(self, node: str, seconds: float, error: BaseException | str | None) -> None:
        """As `hop_returned`."""


CONTEXT_FREE = frozenset(
    {
        "aggregate_loaded",
        "append_begun",
        "append_ended",
        "child_failed",
        "child_restarted",
        "command_measured",
        "dead_letter",
        "handler_measured",
        "hop_measured",
        "supervisor_gave_up",
        "system_started",
    }
)
"""The methods for observers that only count and measure. Where no other one is overridden, the runtime makes no context
for each message, and calls only these: that costs a tenth."""

HOOKS = tuple(name for name, found in vars(Observer).items() if callable(found) and not name.startswith("_"))
"""Names of the methods of an observer."""

IN_CONTEXT = tuple(name for name in HOOKS if name not in CONTEXT_FREE)
"""Those that are called in the context of a message."""


class Observation(Observer):
    """All observers of a system behind the interface of one. None of its methods raises.

    Args:
        observers: In the order in which they are called.
    """

    in_contexts: bool
    """Whether the methods outside of `CONTEXT_FREE` are called, in the contexts of messages."""
    measures: bool
    """Whether `command_measured` is called."""

    # A method that at least one observer overrides is an attribute of the instance, in front of the one of the class.

    def __init__(self, observers: Iterable[Observer]) -> None:
        self._watching = tuple(observers)
        self._lock = threading.Lock()
        self.log_to(get_logger())
        self._set_hooks()

    def log_to(self, log: Logger) -> None:
        """Log failures of observers to ``log``, which has the names of the system bound."""
        self._log = log.bind(actor="observers")

    @property
    def watching(self) -> tuple[Observer, ...]:
        """The observers that have not been switched off."""
        return self._watching

    def wants(self, hook: str) -> bool:
        """Whether an observer overrides the method of this name."""
        return hook in self.__dict__

    def _set_hooks(self) -> None:
        for hook in HOOKS:
            calls = [
                self._guarded(each, getattr(each, hook)) for each in self._watching if _overrides(each, hook)
            ]
            if calls:
                setattr(self, hook, calls[0] if len(calls) == 1 else _in_turn(calls))
            else:
                self.__dict__.pop(hook, None)
        told = [each for each in self._watching if any(map(partial(_overrides, each), IN_CONTEXT))]
        self.in_contexts = bool(told)
        self.measures = self.wants("command_measured")
        if told:
            sent = [self._guarded(each, each.command_sent) for each in told]
            self.__dict__["command_sent"] = sent[0] if len(sent) == 1 else _sent_in_turn(sent)

    def _guarded(self, observer: Observer, method: Callable[..., Any]) -> Callable[..., Any]:
        def call(*arguments: object) -> Any:
            try:
                return method(*arguments)
            except KeyboardInterrupt:  # meant for the process
                raise
            except BaseException as error:  # noqa: BLE001 - whatever an observer raises, even SystemExit
                self._switch_off(observer, error)
                return None

        return call

    def _switch_off(self, observer: Observer, error: BaseException) -> None:
        with self._lock:
            if observer not in self._watching:
                return
            self._watching = tuple(each for each in self._watching if each is not observer)
            self._set_hooks()
        self._log.error(
            "observer failed and is called no more", observer=shown(observer, repr), exc_info=error
        )


def _overrides(observer: Observer, hook: str) -> bool:
    return getattr(type(observer), hook) is not getattr(Observer, hook)


def _sent_in_turn(calls: Sequence[Callable[..., Any]]) -> Callable[..., Any]:
    """As `_in_turn`, for `Observer.command_sent`: the command is unwatched if each observer says so."""

    def call(*arguments: object) -> Any:
        found = [each(*arguments) for each in calls]
        ids = [each.correlation_id if isinstance(each, Unwatched) else each for each in found]
        correlation_id = next((each for each in ids if each is not None), None)
        unwatched = all(isinstance(each, Unwatched) for each in found)
        return Unwatched(correlation_id) if unwatched else correlation_id

    return call


def _in_turn(calls: Sequence[Callable[..., Any]]) -> Callable[..., Any]:
    def call(*arguments: object) -> Any:
        first = None
        for each in calls:
            found = each(*arguments)
            first = found if first is None else first
        return first

    return call


def observation(observers: Iterable[Observer]) -> Observation | None:
    """The observers of a system; ``None`` for none.

    Raises:
        TypeError: One of them is not an `Observer`.
    """
    found = tuple(observers)
    for each in found:
        if not isinstance(each, Observer):
            raise TypeError(
                f"observers is a list of instances of uno_actors.Observer; found {shown(each, repr)}"
            )
    return Observation(found) if found else None
