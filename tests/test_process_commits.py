"""What the steps of a process cost: a reaction and the commands that it sends share a commit."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from uno_actors import (
    ActorSystem,
    AggregateRoot,
    Command,
    CommandRejected,
    DomainEvent,
    EventStore,
    Observer,
    ProcessManager,
    Refusal,
    handles,
    reacts,
)
from uno_actors.processes.messages import Reacted


class CheckOut(Command[None]):
    book: str


class TakeBook(Command[None]):
    order: str


class Charge(Command[None]):
    pass


class Dispatch(Command[None]):
    pass


class CheckedOut(DomainEvent):
    book: str


class BookTaken(DomainEvent):
    order: str


class Charged(DomainEvent):
    pass


class Dispatched(DomainEvent):
    pass


class Basket(AggregateRoot):
    @handles
    def check_out(self, command: CheckOut) -> None:
        self.register_event(CheckedOut(book=command.book))

    def apply_checked_out(self, event: CheckedOut) -> None: ...


class Warehouse(AggregateRoot):
    def __init__(self, id: str) -> None:
        super().__init__(id)
        self.taken = 0

    @handles
    def take(self, command: TakeBook) -> None:
        if self.id == "none left":
            raise CommandRejected("none left")
        self.register_event(BookTaken(order=command.order))

    def apply_book_taken(self, event: BookTaken) -> None:
        self.taken += 1


class Card(AggregateRoot):
    @handles
    def charge(self, command: Charge) -> None:
        self.register_event(Charged())

    def apply_charged(self, event: Charged) -> None: ...


class Van(AggregateRoot):
    @handles
    def dispatch(self, command: Dispatch) -> None:
        self.register_event(Dispatched())

    def apply_dispatched(self, event: Dispatched) -> None: ...


class Buying(ProcessManager):
    sends_to = (Warehouse, Card, Van)

    @reacts(starts=True, by="aggregate_id")
    def take(self, event: CheckedOut) -> None:
        self.send(Warehouse, event.book, TakeBook(order=self.id))

    @reacts(by="order")
    def charge(self, event: BookTaken) -> None:
        self.send(Card, self.id, Charge())

    @reacts(by="aggregate_id")
    def ship(self, event: Charged) -> None:
        self.send(Van, self.id, Dispatch())

    @reacts(by="aggregate_id")
    def finish(self, event: Dispatched) -> None:
        self.end()

    @reacts
    def give_up(self, refusal: Refusal[TakeBook]) -> None:
        self.end()


TYPES = [Basket, Warehouse, Card, Van, Buying]


REACTED = "uno_actors.Reacted"


@asynccontextmanager
async def shop(store: EventStore | str, *observers: Observer, **options: Any) -> AsyncIterator[ActorSystem]:
    handler = Buying.handler(start="earliest", **options)
    async with ActorSystem(store, aggregates=TYPES, handlers=[handler], observers=observers) as system:
        yield system


async def types_of(system: ActorSystem) -> list[str]:
    return [event.event_type async for _, event in system.store.read_all() if not isinstance(event, Reacted)]


CHECKOUT = ["CheckedOut", "BookTaken", "Charged", "Dispatched"]


@pytest.fixture(
    params=["memory:", "lmdb:{}/store", "sqlite+aiosqlite:///{}/store"], ids=["memory", "lmdb", "sqlite"]
)
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    found: str = request.param.format(tmp_path)
    return found


class Groups(Observer):
    """The events of each commit, as the store was asked for it."""

    def __init__(self) -> None:
        self.all: list[list[str]] = []

    def append_ended(self, group: Any, outcomes: Any, seconds: float) -> None:
        self.all.append([record.event_type for request in group.appends for record in request.records])


async def test_a_checkout_takes_four_commits_until_it_is_shipped(url: str) -> None:
    """The order; and three times a reaction with its command. With the fifth the process ends."""
    groups = Groups()
    async with shop(url, groups) as system:
        await system.aggregate(Basket, "1").ask(CheckOut(book="dune"))
        await system.settled()
        assert groups.all == [
            ["CheckedOut"],
            [REACTED, "BookTaken"],
            [REACTED, REACTED, "Charged"],
            [REACTED, REACTED, "Dispatched"],
            [REACTED, "uno_actors.ProcessEnded", REACTED],
        ]
        assert system.statistics().commits == 5
        assert await system.store.dead_letters() == []
