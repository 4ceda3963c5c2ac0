"""Given some events, when a command arrives, then these events follow: an aggregate's rules as readable tests.

    given(Account, Deposited(amount=10)).when(Withdraw(amount=4)).then(Withdrawn(amount=4)).replies(6)
    given(Account).when(Withdraw(amount=4)).then(CommandRejected("not enough money"))

Or given what a process has reacted to, when an event arrives, then it sends these commands:

    given(Checkout).when(OrderPlaced(order_id="1", book="dune")).sends(Reserve(count=1), to=(Inventory, "dune"))

No runtime and no store are involved, but mistakes that would show up there are found: an event that cannot be
recorded, and state that a command's method changes outside of ``apply_…`` and that a replay would lose.
"""

from collections.abc import Sequence
from typing import Any, Generic, TypeVar, overload

from uno_actors.domain.aggregate import AggregateRoot, check_is_aggregate, new_aggregate
from uno_actors.domain.commands import Command
from uno_actors.domain.events import DomainEvent
from uno_actors.errors import CommandRejected, InvalidAggregate
from uno_actors.processes.manager import ProcessManager
from uno_actors.store.codec import to_record
from uno_actors.testing.outcome import Then, check_replay, freeze, listed
from uno_actors.testing.process_scenario import GivenProcess

A = TypeVar("A", bound=AggregateRoot)
P = TypeVar("P", bound=ProcessManager)


@overload
def given(  # type: ignore[overload-overlap]
    aggregate_type: type[P], *events: DomainEvent, id: str | None = None
) -> "GivenProcess[P]": ...
@overload
def given(aggregate_type: type[A], *events: DomainEvent, id: str | None = None) -> "Given[A]": ...


def given(aggregate_type: type[Any], *events: DomainEvent, id: str | None = None) -> Any:
    """An aggregate with these events in its past; without any, a new one.

    Args:
        aggregate_type: Its class.
        *events: In order. Fields that `AggregateRoot.register_event` sets may be left out. Those of a process are the
            events to which it has reacted, all of whose commands were granted, and the events that it has recorded.
        id: Its id. Default is ``test``; of a process, the id that its first event gives.

    Returns:
        `Given`; for a process manager, `GivenProcess`.

    Raises:
        MissingApply: The class has no ``apply_…`` method for one of them.
        InvalidAggregate: ``aggregate_type`` is not an aggregate class, or an event belongs to another process.
        InvalidAggregateId: ``id`` cannot name an aggregate.
    """
    check_is_aggregate(aggregate_type)
    _check_are_events(aggregate_type, events)
    if issubclass(aggregate_type, ProcessManager):
        return GivenProcess(aggregate_type, id, events)
    return Given(aggregate_type, "test" if id is None else id, events)


def _check_are_events(aggregate_type: type[AggregateRoot], found: Sequence[object]) -> None:
    for one in found:
        if not isinstance(one, DomainEvent):
            reason = f"given(...) takes events that have happened; found {one!r}: commands go into .when(...)"
            raise InvalidAggregate(aggregate_type.__name__, reason)


class Given(Generic[A]):
    """An aggregate with a past; see `given`."""

    def __init__(self, aggregate_type: type[A], id: str, events: Sequence[DomainEvent]) -> None:
        self._type = aggregate_type
        self._id = id
        self._events = [
            event.stamped(
                aggregate_id=id, aggregate_type=aggregate_type.aggregate_type, aggregate_version=place
            )
            for place, event in enumerate(events, start=1)
        ]
        self._replayed(())  # reports an event that cannot be applied

    def when(self, *commands: Command[Any]) -> "Then[A]":
        """Run the commands one after the other; a rejected one ends the run.

        Raises:
            AssertionError: The state differs from what a replay of the events produces.
            UnknownCommand: The class does not handle one of them.
            EventNotSerializable: An event could not be recorded.
            Exception: Any other error that a command's method raises.
        """
        aggregate, recorded = self._replayed(()), list[DomainEvent]()
        reply, rejection = None, None
        for command in commands:
            try:
                reply = aggregate.handle(command)
            except CommandRejected as error:
                reply, rejection = None, error
                aggregate = self._replayed(recorded)  # as the runtime does, if it had registered events
                break
            recorded += aggregate.take_pending_events()
        for event in recorded:
            to_record(event)
        story = f"{self._type.__name__} {self._id!r}, given {listed(self._events) or 'nothing'}"
        story = f"{story}, when {listed(commands)}"
        check_replay(aggregate, self._replayed(recorded), story)
        return Then(story, recorded, reply, rejection, aggregate)

    def _replayed(self, recorded: Sequence[DomainEvent]) -> A:
        aggregate = new_aggregate(self._type, self._id)
        freeze(aggregate)
        return aggregate.replay([*self._events, *recorded])

    def __repr__(self) -> str:
        return f"given({self._type.__name__}, {listed(self._events)})"
