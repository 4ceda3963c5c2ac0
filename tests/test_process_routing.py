"""Which processes an event reaches: by what the domain says, once they have started and until they end."""

import asyncio
import math
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest

from tests.waiting import ManualClock, until
from uno_actors import (
    ActorSystem,
    AggregateRoot,
    Command,
    CommandRejected,
    DomainEvent,
    EventRegistry,
    EventStore,
    InvalidAggregate,
    InvalidAggregateId,
    InvalidHandler,
    OutcomeUnknown,
    ProcessEnded,
    ProcessManager,
    Refusal,
    StoreUnavailable,
    UnoError,
    handles,
    reacts,
)
from uno_actors.processes.reactions import processes_of
from uno_actors.store.records import Append, Appended
from uno_actors.testing import given
from uno_stores import InMemoryEventStore


class CartPlaced(DomainEvent):
    cart_id: str
    book: str = "dune"


class BookHeld(DomainEvent):
    cart_id: str


class CartPaid(DomainEvent):
    cart_id: str


class VanLeft(DomainEvent):
    cart_ids: list[str]


class ShopClosed(DomainEvent):
    day: int


class HoldBook(Command[None]):
    cart_id: str


class Deliver(Command[None]):
    pass


class Shelf(AggregateRoot):
    @handles
    def hold(self, command: HoldBook) -> None:
        if self.id == "sold out":
            raise CommandRejected("sold out")
        self.register_event(BookHeld(cart_id=command.cart_id))

    def apply_book_held(self, event: BookHeld) -> None: ...


class Door(AggregateRoot):
    """Where parcels are delivered; it counts them."""

    def __init__(self, id: str) -> None:
        super().__init__(id)
        self.parcels = 0

    @handles
    def deliver(self, command: Deliver) -> None:
        self.register_event(ParcelDelivered())

    def apply_parcel_delivered(self, event: "ParcelDelivered") -> None:
        self.parcels += 1


class ParcelDelivered(DomainEvent):
    pass


class CartNoted(DomainEvent):
    what: str


class CartReopened(Command[None]):
    pass


class Cart(ProcessManager):
    sends_to = (Shelf, Door)

    def __init__(self, id: str) -> None:
        super().__init__(id)
        self.notes: list[str] = []

    @reacts(starts=True, by="cart_id")
    def on_placed(self, event: CartPlaced) -> None:
        self.register_event(CartNoted(what="placed"))
        self.send(Shelf, event.book, HoldBook(cart_id=self.id))

    @reacts(by="cart_id")
    def on_paid(self, event: CartPaid) -> None:
        self.register_event(CartNoted(what="paid"))

    @reacts(by=lambda event: event.cart_ids)
    def on_van(self, event: VanLeft) -> None:
        self.send(Door, self.id, Deliver())
        self.end()

    @reacts
    def on_no_book(self, refusal: Refusal[HoldBook]) -> None:
        self.register_event(CartNoted(what=refusal.reason))
        self.end()

    @handles
    def reopen(self, command: CartReopened) -> None:
        self.register_event(CartNoted(what="by hand"))

    def apply_cart_noted(self, event: CartNoted) -> None:
        self.notes.append(event.what)


# --- in a scenario ---


def test_a_process_is_keyed_by_what_the_domain_says() -> None:
    placed = given(Cart).when(CartPlaced(cart_id="7", book="emma"))
    placed.sends(HoldBook(cart_id="7"), to=(Shelf, "emma")).sends().then(CartNoted(what="placed"))
    assert placed.aggregate.id == "7"
    given(Cart, CartPlaced(cart_id="7")).when(VanLeft(cart_ids=["6", "7"])).sends(
        Deliver, to=(Door, "7")
    ).ends()
    with pytest.raises(InvalidAggregate, match=r"CartPaid\(cart_id='8'\) belongs to '8', and this is '7'"):
        given(Cart, CartPlaced(cart_id="7")).when(CartPaid(cart_id="8"))


def test_an_event_that_does_not_start_a_process_is_ignored_until_one_has_started() -> None:
    given(Cart).when(CartPaid(cart_id="7")).ignores().then().sends()
    given(Cart).when(CartPaid(cart_id="7"), CartPlaced(cart_id="7"), CartPaid(cart_id="7")).then(
        CartNoted(what="placed"), CartNoted(what="paid")
    )


def test_a_process_is_started_by_an_event_that_it_records_itself_too() -> None:
    given(Cart, id="7").when(CartReopened(), CartPaid(cart_id="7")).leaves(notes=["by hand", "paid"])


def test_later_events_do_not_revive_a_process_that_has_ended() -> None:
    ended = given(Cart, CartPlaced(cart_id="7"), VanLeft(cart_ids=["7"]))
    ended.when(CartPaid(cart_id="7")).ignores().then()
    ended.when(VanLeft(cart_ids=["7"])).ignores().sends()


def test_an_event_that_starts_a_process_starts_an_ended_one_again_with_the_state_of_a_new_one() -> None:
    ended = given(Cart, CartPlaced(cart_id="7"), CartPaid(cart_id="7"), VanLeft(cart_ids=["7"]))
    again = ended.when(CartPlaced(cart_id="7"), CartPaid(cart_id="7"))
    again.leaves(notes=["placed", "paid"], has_ended=False).sends(HoldBook, to=Shelf)
    ended.when(CartPlaced(cart_id="7"), VanLeft(cart_ids=["7"])).ends().leaves(has_ended=True)


def test_a_process_reacts_to_refusals_after_its_end() -> None:
    """Otherwise what was done before would not be undone."""
    ended = given(Cart, CartPlaced(cart_id="7"), VanLeft(cart_ids=["7"]))
    ended.when(Refusal(HoldBook(cart_id="7"), "burnt")).then(CartNoted(what="burnt")).leaves(has_ended=True)


class Lasting(ProcessManager):
    """No reaction says that it starts a process, so each does; but none starts an ended one."""

    @reacts
    def on_paid(self, event: CartPaid) -> None:
        self.end()
        self.end()


def test_without_starts_every_event_starts_a_process_and_none_starts_an_ended_one() -> None:
    given(Lasting).when(CartPaid(cart_id="7")).ends()
    given(Lasting, CartPaid(cart_id="7")).when(CartPaid(cart_id="7")).ignores()


def test_commands_cannot_be_sent_outside_a_reaction_where_nothing_would_send_them() -> None:
    class Wrong(ProcessManager):
        sends_to = (Door,)

        @handles
        def reopen(self, command: CartReopened) -> None:
            self.send(Door, self.id, Deliver())

    with pytest.raises(InvalidAggregate, match=r"send\(...\) of Deliver is called outside a @reacts method"):
        given(Wrong).when(CartReopened())


def test_a_method_that_fails_does_not_leave_the_process_sending() -> None:
    class Failing(ProcessManager):
        sends_to = (Door,)

        @reacts
        def on_paid(self, event: CartPaid) -> None:
            raise KeyError("no")

    process = Failing("7")
    with pytest.raises(KeyError):
        given(Failing).when(CartPaid(cart_id="7"))
    with pytest.raises(InvalidAggregate, match="outside a @reacts method"):
        process.send(Door, "x", Deliver())


# --- routes ---


class Visited(DomainEvent):
    where: Any
    number: int = 3
    stamp: UUID = UUID(int=5)

    @property
    def place(self) -> str:
        return f"at {self.number}"


ROUTES: list[tuple[Any, tuple[str, ...]]] = [
    ("number", ("3",)),
    ("stamp", (str(UUID(int=5)),)),
    ("place", ("at 3",)),
    ("aggregate_id", ()),
    (lambda event: None, ()),
    (lambda event: [], ()),
    (lambda event: "a", ("a",)),
    (lambda event: ("a", "b", "a"), ("a", "b")),
    (lambda event: {1, 2}, ("1", "2")),
    (lambda event: (str(n) for n in range(3)), ("0", "1", "2")),
]


def manager_by(by: Any) -> type[ProcessManager]:
    class Visitor(ProcessManager):
        @reacts(by=by)
        def on_visit(self, event: Visited) -> None: ...

    return Visitor


@pytest.mark.parametrize(("by", "ids"), ROUTES, ids=map(str, range(len(ROUTES))))
def test_a_route_gives_the_ids_of_processes(by: Any, ids: tuple[str, ...]) -> None:
    assert processes_of(manager_by(by), Visited(where=None)) == ids


@pytest.mark.parametrize("found", [3.5, True, b"a", {"a": 1}, "", ["a", ""], [["a"]], object(), "x" * 300])
def test_a_route_that_gives_something_else_is_an_error_that_names_the_method(found: Any) -> None:
    for by in ("where", lambda event: event.where):
        with pytest.raises(
            InvalidAggregateId, match=r"Visitor.on_visit gives it for Visited, and it must give"
        ):
            processes_of(manager_by(by), Visited(where=found))


def test_the_default_route_may_be_replaced_and_may_give_several_processes_too() -> None:
    class Both(ProcessManager):
        @classmethod
        def process_id(cls, event: DomainEvent) -> object:
            return [event.correlation_id, "all"]

        @reacts
        def on_visit(self, event: Visited) -> None: ...

        @reacts(by="day")
        def on_closed(self, event: ShopClosed) -> None: ...

    assert processes_of(Both, Visited(where=0, correlation_id="c")) == ("c", "all")
    assert processes_of(Both, ShopClosed(day=3, correlation_id="c")) == ("3",)


def test_a_subclass_of_an_event_takes_the_route_of_its_base() -> None:
    class VanLeftLate(VanLeft): ...

    assert processes_of(Cart, VanLeftLate(cart_ids=["1"])) == ("1",)


def make_wrong(what: str) -> None:
    if what == "attribute":

        class NoSuchField(ProcessManager):
            @reacts(by="order_id")
            def on_placed(self, event: CartPlaced) -> None: ...

    elif what == "number":

        class Numbered(ProcessManager):
            @reacts(by=3)  # type: ignore[call-overload]
            def on_placed(self, event: CartPlaced) -> None: ...

    elif what == "refusal":

        class OfRefusal(ProcessManager):
            @reacts(starts=True)
            def on_refused(self, refusal: Refusal[HoldBook]) -> None: ...

    else:
        Cart.handler(batch=3)


@pytest.mark.parametrize(
    ("what", "error", "text"),
    [
        ("attribute", InvalidAggregate, "finds its process by 'order_id', and CartPlaced has no such attribute;"
         " it has the fields cart_id, book, and those of every event"),
        ("number", InvalidAggregate, "by of @reacts method on_placed must be the name of an attribute"),
        ("refusal", InvalidAggregate, "that goes to the process that sent the command"),
        ("batch", InvalidHandler, "handler Cart: a process reacts to one event at a time; leave out batch"),
    ],
)  # fmt: skip
def test_a_mistake_in_a_route_is_found_when_the_class_is_defined(what: str, error: Any, text: str) -> None:
    with pytest.raises(error, match=text):
        make_wrong(what)


# --- in a system ---

TYPES = [Cart, Shelf, Door]


@asynccontextmanager
async def running(store: EventStore, **options: Any) -> AsyncIterator[ActorSystem]:
    handler = Cart.handler(start="earliest", **options)
    async with ActorSystem(store, aggregates=TYPES, handlers=[handler]) as system:
        yield system


async def notes_of(system: ActorSystem, cart: str) -> list[str]:
    events = await system.store.get_events(cart, aggregate_type="Cart")
    return [event.what if isinstance(event, CartNoted) else "ended" for event in events
            if isinstance(event, (CartNoted, ProcessEnded))]  # fmt: skip


async def test_one_event_reaches_several_processes() -> None:
    async with running(InMemoryEventStore()) as system:
        publish = system.publisher.publish
        await publish(*(CartPlaced(cart_id=name, correlation_id="all one") for name in "abc"))
        await publish(CartPaid(cart_id="b"), VanLeft(cart_ids=["a", "b", "unknown"]), CartPaid(cart_id="c"))
        await system.settled()
        assert [await notes_of(system, name) for name in "abc"] == [
            ["placed", "ended"], ["placed", "paid", "ended"], ["placed", "paid"],
        ]  # fmt: skip
        assert [(await door(system, name)) for name in "abc"] == [1, 1, 0]
        assert await system.store.get_events("unknown", aggregate_type="Cart") == [], (
            "it is not even recorded"
        )
        assert await system.store.dead_letters() == []


async def door(system: ActorSystem, name: str) -> int:
    return len(await system.store.get_events(name, aggregate_type="Door"))


async def test_an_event_with_several_processes_in_several_partitions_reaches_each_once_and_in_order() -> None:
    names = [f"cart-{number}" for number in range(12)]
    async with running(InMemoryEventStore(), partitioned=4) as system:
        await system.publisher.publish(*(CartPlaced(cart_id=name) for name in names))
        await system.publisher.publish(*(CartPaid(cart_id=name) for name in names))
        await system.publisher.publish(VanLeft(cart_ids=names))
        await system.publisher.publish(*(CartPaid(cart_id=name) for name in names))
        await system.settled()
        assert [await notes_of(system, name) for name in names] == [["placed", "paid", "ended"]] * 12
        assert [await door(system, name) for name in names] == [1] * 12
        assert sum(each.handled > 0 for each in system.statistics().handlers.values()) == 4


async def test_what_was_ignored_before_a_process_started_is_ignored_when_it_is_delivered_again() -> None:
    """As after a crash before the checkpoint was saved."""
    store = InMemoryEventStore()
    async with running(store) as system:
        await system.publisher.publish(CartPaid(cart_id="a"), CartPlaced(cart_id="a"), CartPaid(cart_id="a"))
        await system.settled()
        before = await notes_of(system, "a")
        assert before == ["placed", "paid"]
        await system.reset("Cart", "earliest")
        await system.settled()
        assert await notes_of(system, "a") == before


async def test_a_program_whose_registry_does_not_name_what_processes_record_gets_it() -> None:
    registry = EventRegistry([CartPlaced, BookHeld, CartPaid, VanLeft, CartNoted, ParcelDelivered])
    async with running(InMemoryEventStore(registry)) as system:
        await system.publisher.publish(CartPlaced(cart_id="a", book="sold out"))
        await system.settled()
        assert await notes_of(system, "a") == ["placed", "sold out", "ended"]


async def test_a_route_that_gives_no_id_is_a_dead_letter_that_names_the_method() -> None:
    manager = manager_by(lambda event: event.where)
    async with ActorSystem(
        "memory:", aggregates=[manager], handlers=[manager.handler(max_attempts=1)]
    ) as system:
        await system.publisher.publish(Visited(where=3.5))
        await system.settled()
        (letter,) = await system.store.dead_letters()
        assert "the function in by= of Visitor.on_visit gives it for Visited" in letter.error


@pytest.mark.parametrize("partitioned", [False, 2])
@pytest.mark.parametrize(
    "error",
    [ValueError("no"), SystemExit(3), KeyboardInterrupt(), asyncio.CancelledError(), GeneratorExit()],
    ids=repr,
)
async def test_a_route_that_raises_is_a_dead_letter_and_holds_up_no_other_event(
    error: BaseException, partitioned: int | bool
) -> None:
    def route(event: Any) -> object:
        if event.where == "nowhere":
            raise error
        return event.where

    manager = manager_by(route)
    handler = manager.handler(max_attempts=1, partitioned=partitioned)
    async with ActorSystem("memory:", aggregates=[manager], handlers=[handler]) as system:
        places = ["first", "nowhere", "last"]
        await system.publisher.publish(*(Visited(where=place) for place in places))
        await system.settled()
        (letter,) = await system.store.dead_letters()
        assert type(error).__name__ in letter.error
        visited = [
            await system.store.get_events(place, aggregate_type=manager.aggregate_type) for place in places
        ]
        assert [bool(events) for events in visited] == [True, False, True]


class Gate:
    """What holds up the loads of shelves, until it is opened."""

    def __init__(self) -> None:
        self.opened = asyncio.Event()
        self.began: list[tuple[str, str]] = []


class SlowStore(InMemoryEventStore):
    def __init__(self, gate: Gate) -> None:
        super().__init__()
        self._gate = gate

    async def read_stream(self, stream: Any, *args: Any, **kwargs: Any) -> Any:
        if stream.aggregate_type == "Shelf":
            await self._gate.opened.wait()
        return await super().read_stream(stream, *args, **kwargs)


async def test_processes_run_side_by_side_and_each_takes_one_event_at_a_time() -> None:
    """One that waits long for an aggregate delays no other."""
    gate = Gate()

    class Waiting(ProcessManager):
        sends_to = (Shelf,)

        @reacts(by="cart_id")
        def on_placed(self, event: CartPlaced) -> None:
            gate.began.append((event.cart_id, event.book))
            self.send(Shelf, event.book, HoldBook(cart_id=event.cart_id))

    store = SlowStore(gate)
    async with ActorSystem(
        store, aggregates=[Waiting, Shelf], handlers=[Waiting.handler(start="earliest")]
    ) as system:
        await system.publisher.publish(
            *(CartPlaced(cart_id=name, book=book) for name, book in ["a1", "a2", "b3", "c4"])
        )
        await until(lambda: len(gate.began) == 3)
        assert gate.began == [("a", "1"), ("b", "3"), ("c", "4")]
        gate.opened.set()
        await system.settled()
        assert gate.began[3:] == [("a", "2")]
        assert len(await store.get_events("2", aggregate_type="Shelf")) == 1


async def test_a_process_that_ended_before_the_program_was_restarted_starts_again_after_it(
    tmp_path: Path,
) -> None:
    """Nothing of its end is in memory then."""
    for life in range(3):
        async with running_at(tmp_path) as system:
            await system.publisher.publish(CartPaid(cart_id="a"), CartPlaced(cart_id="a"))
            await system.publisher.publish(CartPaid(cart_id="a"), VanLeft(cart_ids=["a"]))
            await system.settled()
            assert await notes_of(system, "a") == ["placed", "paid", "ended"] * (life + 1)
            assert await door(system, "a") == life + 1


@asynccontextmanager
async def running_at(path: Path) -> AsyncIterator[ActorSystem]:
    async with ActorSystem(
        f"lmdb:{path}/store", aggregates=TYPES, handlers=[Cart.handler(start="earliest")]
    ) as system:
        yield system


async def test_two_events_that_start_the_same_process_make_one() -> None:
    async with running(InMemoryEventStore()) as system:
        await system.publisher.publish(*(CartPlaced(cart_id="a", book=book) for book in ("dune", "emma")))
        await system.settled()
        assert await notes_of(system, "a") == ["placed", "placed"]
        for book in ("dune", "emma"):
            assert len(await system.store.get_events(book, aggregate_type="Shelf")) == 1


async def test_an_event_that_a_process_causes_in_another_reaches_it_even_while_both_run() -> None:
    """One process manager may send commands to the processes of another, and these back to it."""

    class Asking(ProcessManager):
        @reacts(starts=True, by="cart_id")
        def on_placed(self, event: CartPlaced) -> None:
            self.send(Answering, f"of {self.id}", HoldBook(cart_id=self.id))

        @reacts(by="cart_id")
        def on_held(self, event: BookHeld) -> None:
            self.register_event(CartNoted(what="held"))
            self.end()

        @handles
        def remember(self, command: Deliver) -> None:
            self.register_event(CartNoted(what="asked back"))

        def apply_cart_noted(self, event: CartNoted) -> None: ...

    class Answering(ProcessManager):
        sends_to = (Asking,)

        @handles
        def hold(self, command: HoldBook) -> None:
            self.register_event(BookHeld(cart_id=command.cart_id))

        @reacts(by="aggregate_id")
        def on_held(self, event: BookHeld) -> None:
            self.send(Asking, event.cart_id, Deliver())

        def apply_book_held(self, event: BookHeld) -> None: ...

    Asking.sends_to = (Answering,)
    handlers = [Asking.handler(start="earliest"), Answering.handler(start="earliest")]
    async with ActorSystem("memory:", aggregates=[Asking, Answering], handlers=handlers) as system:
        names = [f"{number}" for number in range(20)]
        await system.publisher.publish(*(CartPlaced(cart_id=name) for name in names))
        await system.settled()
        for name in names:
            events = await system.store.get_events(name, aggregate_type="Asking")
            notes = [event.what for event in events if isinstance(event, CartNoted)]
            assert sorted(notes) == ["asked back", "held"]
        assert await system.store.dead_letters() == []


# --- killed after any write ---


class Mortal(InMemoryEventStore):
    """Commits a number of times more; the last commit is done but not reported, as if the process had been killed."""

    def __init__(self) -> None:
        super().__init__()
        self.left: float = math.inf

    async def commit(self, requests: Sequence[Append]) -> list[Appended | UnoError]:
        self.left -= 1
        if self.left < 0:
            raise StoreUnavailable("memory:", "it is dead")
        outcomes = await super().commit(requests)
        if self.left == 0:
            raise OutcomeUnknown("memory:", "killed")
        return outcomes

    async def save_progress(self, *args: Any, **kwargs: Any) -> None:
        if self.left > 0:
            await super().save_progress(*args, **kwargs)

    async def close(self) -> None:
        """It is kept for the next system."""


DAY = [
    CartPaid(cart_id="a"),  # ignored
    CartPlaced(cart_id="a"),
    CartPaid(cart_id="a"),
    CartPlaced(cart_id="b", book="sold out"),
    VanLeft(cart_ids=["a", "b", "c"]),
    CartPaid(cart_id="a"),  # ignored
    CartPlaced(cart_id="a"),
    CartPaid(cart_id="a"),
]
A_DAY = {"a": ["placed", "paid", "ended", "placed", "paid"], "b": ["placed", "sold out", "ended"], "c": []}


@pytest.mark.parametrize("concurrency", [1, 64])
async def test_a_process_that_is_killed_after_any_write_starts_ends_and_ignores_the_same_events(
    concurrency: int,
) -> None:
    kills = 0
    while await survives_a_day(kills + 1, concurrency):
        kills += 1
    assert kills >= 5


async def survives_a_day(commits: int, concurrency: int) -> bool:
    """Whether the program was killed at all; either way the day ends as expected."""
    store = Mortal()
    await store.append(*DAY)
    store.left = commits
    options = {"concurrency": concurrency, "max_attempts": 1000}
    async with ActorSystem(
        store,
        aggregates=TYPES,
        handlers=[Cart.handler(start="earliest", **options)],
        stop_timeout=1,
        clock=ManualClock(),
    ) as system:
        await until(lambda: store.left <= 0 or is_quiet(system, len(store.records)))
        is_killed = store.left <= 0
    store.left = math.inf
    async with running(store, **options) as system:
        await system.settled()
        assert {name: await notes_of(system, name) for name in A_DAY} == A_DAY
        assert [await door(system, name) for name in "abc"] == [1, 0, 0]
        assert len(await store.get_events("dune", aggregate_type="Shelf")) == 2
        assert await store.dead_letters() == []
    return is_killed


def is_quiet(system: ActorSystem, end: int) -> bool:
    statistics = system.statistics()
    return statistics.handlers["Cart"].position == end and not statistics.commands_waiting
