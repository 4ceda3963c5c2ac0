"""Decisions without an aggregate: what they rest on is selected for each command, in whatever streams it is.

`decide` selects events, makes a `DecisionModel` of them, lets a function decide, and appends what it registered under
the condition that the selection is still complete. If it is not, all of that is done again, by the same rule as the
commands of an aggregate that has other writers: see `uno_actors.aggregates.reruns`.
"""

import asyncio
import inspect
from collections.abc import Callable, Iterable
from time import monotonic
from typing import Any, Generic, TypeVar, cast

from uno_actors.aggregates.recording import recorded_reply, to_records
from uno_actors.aggregates.ref import with_cause, with_valid_ids
from uno_actors.aggregates.reruns import Contention, may_run_again
from uno_actors.annotations import UnreadableAnnotation, annotated_classes, runs_later
from uno_actors.backoff import chance
from uno_actors.causality import Cause, caused_by, current_cause, new_id
from uno_actors.domain.commands import Command
from uno_actors.domain.decision_model import DecisionModel
from uno_actors.errors import (
    AppendConditionFailed,
    InvalidDecision,
    UnknownCommand,
    UnoError,
)
from uno_actors.quantities import check_duration
from uno_actors.store.codec import to_event
from uno_actors.store.conditions import Queries, condition_of
from uno_actors.store.port import EventStore
from uno_actors.store.records import Append, StoredRecord

C = TypeVar("C", bound=Command[Any])
M = TypeVar("M", bound=DecisionModel)
R = TypeVar("R")


class Decider(Generic[C, R]):
    """A function marked with `decides`. Call it with a command and a model to test it.

    Attributes:
        name: Of the function.
        command_type: The class of the commands that it decides.
        model_type: The class of its model.
    """

    def __init__(self, function: Callable[[C, Any], R], selects: Callable[[Any], Queries]) -> None:
        self.name = getattr(function, "__name__", repr(function))
        self._function = function
        self._selects = selects
        if runs_later(function):
            raise InvalidDecision(self.name, "it is async or has a yield; a decision is a plain function")
        given: Any = selects
        if not callable(given):
            reason = (
                f"@decides takes a function that returns for a command the EventQuery of the events that the decision"
                f" rests on, as in @decides(lambda command: EventQuery(...)); found {selects!r}"
            )
            raise InvalidDecision(self.name, reason)
        self.command_type: type[C] = _only_class(self.name, function, 0, Command)
        self.model_type: type[DecisionModel] = _only_class(self.name, function, 1, DecisionModel)
        _check_is_made_alone(self.name, self.model_type)

    def __call__(self, command: C, model: Any) -> R:
        """Decide ``command`` on ``model``, which keeps the events."""
        return self._function(command, model)

    def selects(self, command: C) -> Queries:
        """What the decision on ``command`` rests on."""
        return self._selects(command)

    def __repr__(self) -> str:
        return f"<Decider {self.name}({self.command_type.__name__}, {self.model_type.__name__})>"


def decides(selects: Callable[[Any], Queries]) -> Callable[[Callable[[C, M], R]], Decider[C, R]]:
    """Mark a function that decides commands on events of any streams.

    The function takes a `Command` and a `DecisionModel`, both annotated. It raises `CommandRejected`, or registers
    events in the model, and returns the reply. It may run several times and must not block.

    Args:
        selects: Returns for a command the `EventQuery`, or several, of the events that its decision rests on.

    Raises:
        InvalidDecision: The function is async, or its annotations do not name one command and one model.
    """
    return lambda function: Decider(function, selects)


def _only_class(name: str, function: Callable[..., Any], place: int, base: type) -> Any:
    try:
        found = annotated_classes(function, base, skip=place)
    except UnreadableAnnotation as unreadable:
        raise InvalidDecision(name, str(unreadable)) from None
    if found is None or len(found) != 1:
        what = "first" if place == 0 else "second"
        reason = f"annotate the {what} argument with a subclass of {base.__name__}: (command: ACommand, model: AModel)"
        raise InvalidDecision(name, reason)
    return found[0]


def _check_is_made_alone(name: str, model: type[DecisionModel]) -> None:
    try:
        inspect.signature(model).bind()
    except ValueError:  # without a signature, which is known once it is called
        return
    except TypeError as error:
        reason = (
            f"its model {model.__name__} cannot be made without arguments ({error}): write __init__(self), and set what"
            " the events change"
        )
        raise InvalidDecision(name, reason) from None


async def decide(store: EventStore, decider: Decider[C, R], command: C, *, timeout: float = 30.0) -> R:
    """Let ``decider`` decide ``command``, and return its reply when the events that it registered are durable.

    A command with the ``command_id`` of one that has recorded events gets the reply of that one.

    Args:
        store: A store that checks conditions, with one log.
        decider: A function marked with `decides`.
        command: A command of its type.
        timeout: Seconds within which it is decided again if others record what its query selects.

    Raises:
        AppendConditionFailed: The time is over; it says how often it was decided. Nothing was recorded.
        CommandIdReused: An earlier command of another type or with other contents has the id.
        InvalidQuery, SeveralLogs: The store cannot answer the query; see each class.
        InvalidDecision: ``decider`` is not marked with `decides`.
        UnknownCommand, InvalidCommand, MissingApply, ApplyFailed: See each class.
        EventNotSerializable, StoreFull, StoreUnavailable, OutcomeUnknown: See each class.
        Exception: What the function raises, such as `CommandRejected`.
    """
    check_duration("timeout", timeout, zero=True)
    given: Any = decider
    if not isinstance(given, Decider):
        name = getattr(given, "__name__", repr(given))
        raise InvalidDecision(name, "it does not say what it rests on: mark the function with @decides(...)")
    if not isinstance(command, decider.command_type):
        raise UnknownCommand(decider.name, command, [decider.command_type.__name__])
    command = cast("C", with_valid_ids(command))
    if (cause := current_cause()) is not None:
        command = cast("C", with_cause(command, cause))
    contention, tries, begun = Contention(1), 0, monotonic()
    while True:
        tries += 1
        try:
            return await _decide_once(store, decider, command)
        except AppendConditionFailed as conflict:
            contention = contention.lost(1, chance())
            now = monotonic()
            if not may_run_again(now + contention.pause, begun + timeout):
                raise conflict.until_late(decider.name, tries, now - begun) from conflict
        await asyncio.sleep(contention.pause)


async def _decide_once(store: EventStore, decider: Decider[C, R], command: C) -> R:
    condition = condition_of(decider.selects(command), 0, store.event_registry, command.command_id)
    store.check_conditional(condition)
    found, position = await store.select_records(condition)
    if (earlier := _answer_to(command, found)) is not None:
        answer: R = recorded_reply(earlier.record, command)
        return answer
    model = decider.model_type()
    model.replay(to_event(record, store.event_registry, place) for place, record in found)
    with caused_by(Cause(command.correlation_id or new_id(), command.command_id)):
        reply = decider(command, model)
    records, reply = to_records([*model.pending_events], command, reply, store.event_registry)
    if records:
        (outcome,) = await store.commit(
            [Append(tuple(records), condition=condition._replace(after=position))]
        )
        if isinstance(outcome, UnoError):
            raise outcome
    return reply


def _answer_to(command: Command[Any], found: Iterable[StoredRecord]) -> StoredRecord | None:
    """The record with the reply to an earlier command of the same id."""
    return next((each for each in found if each.record.answered == command.command_id), None)
