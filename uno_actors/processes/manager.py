"""The base class of process managers.

A process manager is an aggregate that reacts to events. Its methods say which process an event belongs to; by default
there is one process for each correlation id. A process records each reaction, with the commands it sends, in its own
stream: before any of them takes effect, or in the same transaction. The id of a command is derived from its cause,
from its place in the reaction and from the process, and recorded with it. So a crash at any point does no harm,
however late the event is delivered again: the process sends the same commands again, with the same ids, and they take
no effect a second time. For ids that an aggregate no longer has in memory, it searches its stream, starting at the
event to which the process reacts (`AggregateRef.ask`). A process also records that all commands of an event were
sent. If the event is delivered after that, for example because the handler was reset, the process sends nothing.

A command that was rejected, or that recorded no event, leaves no trace in its aggregate. If a crash comes before the
process has recorded the outcome, the command is sent and decided again. If it is accepted this time, that is its only
effect.
"""

from collections.abc import Mapping
from typing import Any, ClassVar, TypeVar

from typing_extensions import override

from uno_actors.annotations import is_subclass
from uno_actors.causality import current_cause
from uno_actors.domain.aggregate import (
    OWN_ATTRIBUTES,
    AggregateRoot,
    check_aggregate_id,
    command_method,
    new_aggregate,
)
from uno_actors.domain.commands import Command
from uno_actors.domain.events import DomainEvent
from uno_actors.domain.schedules import Scheduled, Unscheduled
from uno_actors.errors import InvalidAggregate, InvalidHandler
from uno_actors.handlers.spec import HandlerSpec
from uno_actors.processes.feed import ProcessHandler
from uno_actors.processes.messages import (
    PROGRESS,
    Known,
    Outgoing,
    ProcessEnded,
    ProcessRestarted,
    Reacted,
    Refusal,
    Step,
    id_of_sent,
)
from uno_actors.processes.reactions import Reacting, command_of, reaction_to
from uno_actors.processes.routing import Reaction, reactions_in

R = TypeVar("R")

SIDE_BY_SIDE = 64
"""Processes of one manager that take an event at the same time, unless ``concurrency`` says otherwise."""


class ProcessManager(Reacting):
    """Base class of process managers: ``@reacts`` methods decide, ``apply_`` methods keep the state of the process.

    Give a system the subclass among its ``aggregates``, and the result of `handler` among its ``handlers``.

    Raises:
        InvalidAggregate: At class definition: two methods react to one event, or a ``@reacts`` method is not a
            plain method with one parameter annotated with events or refusals, or `sends_to` is not a tuple of
            aggregate classes.
    """

    partitioned: ClassVar[bool | int] = False
    """Whether its handler is partitioned, by process; see `HandlerSpec`."""

    _has_starts: ClassVar[bool] = False
    _own_events = PROGRESS
    _is_reacting = False
    _sent: dict[str, list[Outgoing]]  # by the id of the event or refused command
    _sending: list[Outgoing]
    _deadlines: dict[str, str]  # to itself: the id of each by its key, with a "*" if it recurs
    _late: list[str]  # the ids of those that its last end has unscheduled

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        _check_sends_to(cls)
        cls._reactions = reactions_in(cls)
        cls._has_starts = any(reaction.starts for reaction in cls._reactions.values())
        cls._steps = {}
        cls._apply_names |= {
            Reacted: "_apply_reacted",
            ProcessEnded: "_apply_ended",
            ProcessRestarted: "_apply_restarted",
        }

    def __init__(self, id: str) -> None:
        super().__init__(id)
        self._sent = {}
        self._sending = []
        self._ended = False
        self._deadlines = {}
        self._late = []

    @property
    def has_ended(self) -> bool:
        """Whether the process has ended, and has not started anew."""
        return self._ended

    def send(self, aggregate_type: type[AggregateRoot], aggregate_id: str, command: Command[Any]) -> None:
        """Send ``command`` once the reaction is recorded, with a derived ``command_id``. Call it in a reaction.

        Commands of one reaction to several aggregates are sent side by side, those to one aggregate in order.

        Raises:
            ValueError: The aggregate class is not in `sends_to`, the aggregate handles the command only as a
                command of another class, or together with another class of its name, or the command has fields that
                JSON does not preserve.
            UnknownCommand: The aggregate does not handle the command.
            InvalidAggregateId: ``aggregate_id`` is not a valid aggregate id.
            InvalidAggregate: The call is not made in a ``@reacts`` method.
        """
        if aggregate_type not in self.sends_to:
            known = ", ".join(kind.__name__ for kind in self.sends_to) or "none"
            raise ValueError(
                f"{type(self).__name__} sends a command to {aggregate_type.__name__}; its sends_to names {known}"
            )
        command_method(aggregate_type, command)
        if type(command) not in aggregate_type._commands:
            raise ValueError(
                f"{type(command).__name__} is handled by {aggregate_type.__name__} as a command of another class;"
                " send one that it handles as such"
            )
        outgoing = Outgoing.of(
            aggregate_type.aggregate_type,
            check_aggregate_id(aggregate_id),
            command,
            lambda recorded: command_of(type(self), recorded, command.command_id)[1],
            handled=aggregate_type._commands,
        )
        if not self._is_reacting:
            reason = (
                f"send(...) of {type(command).__name__} is called outside a @reacts method, and nothing would send it:"
                " record an event here, and send the command in the reaction to that"
            )
            raise InvalidAggregate(type(self).__name__, reason)
        self._sending.append(outgoing)

    def end(self) -> None:
        """End the process: it ignores all later events. Call it in a ``@reacts`` or ``@handles`` method.

        Its deadlines end with it: what it has scheduled for itself is unscheduled, and does nothing if it is due at
        this moment. Commands that it has sent to other aggregates, or has scheduled for them, still run, and it still
        reacts to the refusals of those that it has sent. An event whose reaction has ``starts=True`` starts it again:
        with the state of a new one, in the same stream.
        """
        if self._ended:
            return
        self.register_event(ProcessEnded())
        cause = current_cause()
        for key, schedule in tuple(self._deadlines.items()):
            if cause is None or schedule != _schedule_of(
                cause.causation_id
            ):  # else it is this one that is due now
                self.unschedule(key)

    @override
    def handle(self, command: Command[R]) -> R:
        if self._late and _schedule_of(command.command_id) in self._late:
            return None  # type: ignore[return-value]  # the scheduler wants no reply
        return super().handle(command)

    @classmethod
    def handler(cls, name: str | None = None, **options: Any) -> HandlerSpec:
        """Return the handler to give to a system among its ``handlers``.

        Processes run side by side, each with one event at a time, in the order of the log.

        Args:
            name: The handler's name. Default is the aggregate type of the class.
            **options: As for `HandlerSpec`: ``priority``, ``start``, ``max_attempts`` and so on. ``concurrency`` is
                the maximum number of processes that react at once; default is 64. With 1, each event is done, and
                recorded as done, before the next one is begun.

        Raises:
            InvalidHandler: The class reacts to no event, or an option is not one of a process manager.
        """
        kinds = tuple(kind for kind in cls._reactions if issubclass(kind, DomainEvent))
        if not kinds:
            raise InvalidHandler(f"{cls.__name__} reacts to no event: mark methods with @reacts")
        if options.get("batch") is not None:
            reason = (
                "a process reacts to one event at a time; leave out batch, processes run side by side anyway"
            )
            raise InvalidHandler(f"handler {name or cls.aggregate_type}: {reason}")
        options.setdefault("partitioned", cls.partitioned)
        options.setdefault("concurrency", SIDE_BY_SIDE)
        target = ProcessHandler(cls, lingers=options["concurrency"] != 1)
        return HandlerSpec(name or cls.aggregate_type, target, event_type=kinds, **options)

    # --- reacting ---

    def _react(self, step: Step) -> list[Outgoing] | None:
        """React, or return the commands still to send from the first reaction; ``None`` once all were sent."""
        if step.is_over:
            if self._sent.get(step.to):
                self.register_event(Reacted(to=step.to, sent=[]))
            return None
        if step.to in self._sent:
            sent = self._sent[step.to]
            refused = (place for place in range(len(sent)) if f"{step.to}.{place}" in self._sent)
            return Known(sent, frozenset(refused))
        reaction = reaction_to(type(self), step.message)
        if not isinstance(step.message, Refusal):
            if ignored := self._ignores(reaction):
                return Known(ignored=ignored)
            if self._ended:
                self.register_event(ProcessRestarted())
            for event_id in step.ignored:
                if event_id not in self._sent:
                    self.register_event(Reacted(to=event_id, sent=[]))
        self._sending = []
        self._is_reacting = True
        try:
            getattr(self, reaction.method)(step.message)
        finally:
            del self._is_reacting
        sent = [
            outgoing.with_id(id_of_sent(self.aggregate_type, self.id, step.to, place))
            for place, outgoing in enumerate(self._sending)
        ]
        self.register_event(Reacted(to=step.to, sent=sent))
        return list(self._sent[step.to])

    def _ignores(self, reaction: Reaction) -> str:
        """Why an event does not reach the process; empty if it does."""
        if reaction.starts:
            return ""
        if self._ended:
            return "the process has ended"
        return "no process has started" if self._has_starts and not self.version else ""

    def _apply_reacted(self, event: Reacted) -> None:
        self._sent[event.to] = event.sent

    def _apply_ended(self, _: ProcessEnded) -> None:
        self._ended = True
        self._late = []

    @override
    def _apply_schedule(self, event: Scheduled | Unscheduled) -> None:
        before = self._deadlines.pop(event.key, None)
        if isinstance(event, Unscheduled):
            if self._ended and before:
                self._late.append(before.removesuffix(_RECURS))
        elif (event.command.aggregate_type, event.command.aggregate_id) == (self.aggregate_type, self.id):
            self._deadlines[event.key] = event.event_id + _RECURS * (event.every is not None)

    def _apply_restarted(self, _: ProcessRestarted) -> None:
        """Begin with the state of a new process; what it has reacted to stays known."""
        kept = {name: vars(self)[name] for name in _KEPT if name in vars(self)}
        vars(self).clear()
        vars(self).update(vars(new_aggregate(type(self), kept["_id"])))
        vars(self).update(kept)
        self._ended = False

    @override
    def to_snapshot(self) -> Mapping[str, Any]:
        # As before there were ends and deadlines, unless there are some.
        state = super().to_snapshot()
        return {name: value for name, value in state.items() if value or name not in _LATER}

    @override
    def from_snapshot(self, state: Mapping[str, Any]) -> None:
        super().from_snapshot({"_ended": False, "_deadlines": {}, "_late": [], **state})


def _check_sends_to(cls: type[ProcessManager]) -> None:
    found: Any = cls.sends_to
    is_collection = isinstance(found, (tuple, list, set, frozenset))
    if not is_collection or not all(is_subclass(kind, AggregateRoot) for kind in found):
        reason = (
            f"sends_to is a tuple of aggregate classes, as in sends_to = (Shelf, Payment); found {found!r}"
        )
        raise InvalidAggregate(cls.__name__, reason)


_RECURS = "*"
_LATER = frozenset({"_ended", "_deadlines", "_late"})
"""Attributes that earlier versions of this program did not have."""
_KEPT = (*OWN_ATTRIBUTES, "_sent", "_sending", "_is_reacting", "_late")
"""The attributes that a process keeps when it starts again."""


def _schedule_of(command_id: str) -> str:
    """The id of the schedule that has sent a command; see `Fired.command_id`."""
    return command_id.rpartition(".")[0]
