"""The domain of the tests of web services: a theatre that sells seats."""

from collections.abc import Callable
from typing import Any

from pydantic import Field

from uno_actors import (
    ActorSystem,
    AggregateRoot,
    Command,
    CommandRejected,
    DomainEvent,
    EventHandler,
    Supervisor,
    handles,
)


class SeatsAreGone(CommandRejected):
    """A refusal of the program's own."""


class SellSeats(Command[int]):
    seats: int = Field(gt=0)
    note: Any = None


class CountSeats(Command[int]):
    pass


class Raise(Command[None]):
    """The aggregate raises what `RAISED` makes."""


class SeatsSold(DomainEvent):
    seats: int
    note: Any = None
    topic: str = "theatre.sold"


class Theatre(AggregateRoot):
    def __init__(self, id: str) -> None:
        super().__init__(id)
        self.free = 100

    @handles
    def sell(self, command: SellSeats) -> int:
        if command.seats > self.free:
            raise SeatsAreGone(f"only {self.free} seats are free")
        self.register_event(SeatsSold(seats=command.seats, note=command.note))
        return self.free

    @handles
    def count(self, command: CountSeats) -> int:
        return self.free

    @handles
    def fail(self, command: Raise) -> None:
        error = RAISED[0]()
        raise error

    def apply_seats_sold(self, event: SeatsSold) -> None:
        self.free -= event.seats


RAISED: list[Callable[[], Exception]] = [ValueError]


class Ushers(EventHandler[SeatsSold]):
    """A handler that fails, always."""

    def __init__(self) -> None:
        super().__init__(SeatsSold)

    async def handle(self, event: SeatsSold) -> None:
        raise ValueError("no ushers")


class Counter(EventHandler[SeatsSold]):
    """A handler that does nothing."""

    def __init__(self) -> None:
        super().__init__(SeatsSold)

    async def handle(self, event: SeatsSold) -> None:
        pass


def failing_system(store: str = "memory:") -> ActorSystem:
    """A system that gives up at its first event."""
    supervisor = Supervisor("all", [Ushers()], max_restarts=0)
    return ActorSystem(store, aggregates=[Theatre], handlers=[], supervisors=[supervisor])
