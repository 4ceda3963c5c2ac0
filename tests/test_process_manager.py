"""Process managers: state for each correlation id, and commands whose ids are derived from their causes."""

import math
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Any, Literal

import pytest
from pydantic import Field

from tests.waiting import ManualClock, until
from uno_actors import (
    ActorSystem,
    AggregateRoot,
    Command,
    CommandRejected,
    ConcurrencyConflict,
    DomainEvent,
    EventRegistry,
    InvalidAggregate,
    InvalidHandler,
    OutcomeUnknown,
    ProcessManager,
    Refusal,
    StoreUnavailable,
    UnknownCommand,
    UnoError,
    handles,
    reacts,
)
from uno_actors.processes.messages import Known, Outgoing, Reacted, id_of_sent
from uno_actors.processes.reactions import command_of, reactions_of, step_of
from uno_actors.store.records import Append, Appended
from uno_stores import InMemoryEventStore


class Reserve(Command):
    count: int


class Pack(Command):
    pass


class Release(Command):
    count: int


class OrderSubmitted(DomainEvent):
    count: int


class StockReserved(DomainEvent):
    count: int


class StockReleased(DomainEvent):
    count: int


class ParcelPacked(DomainEvent):
    pass


class PlaceOrder(Command):
    count: int


class Order(AggregateRoot):
    @handles
    def place(self, command: PlaceOrder) -> None:
        self.register_event(OrderSubmitted(count=command.count))

    def apply_order_submitted(self, event: OrderSubmitted) -> None: ...


class Stock(AggregateRoot):
    def __init__(self, id: str) -> None:
        super().__init__(id)
        self.left = 10

    @handles
    def reserve(self, command: Reserve) -> None:
        if command.count > self.left:
            raise CommandRejected("sold out")
        self.register_event(StockReserved(count=command.count))

    @handles
    def release(self, command: Release) -> None:
        self.register_event(StockReleased(count=command.count))

    def apply_stock_reserved(self, event: StockReserved) -> None:
        self.left -= event.count

    def apply_stock_released(self, event: StockReleased) -> None:
        self.left += event.count


class Parcel(AggregateRoot):
    works = True

    @handles
    def pack(self, command: Pack) -> None:
        if not self.works:
            raise CommandRejected("no box")
        self.register_event(ParcelPacked())

    def apply_parcel_packed(self, event: ParcelPacked) -> None: ...


class Fulfilment(ProcessManager):
    sends_to = (Stock, Parcel)

    @reacts
    def reserve(self, event: OrderSubmitted) -> None:
        self.send(Stock, "shelf", Reserve(count=event.count))

    @reacts
    def pack(self, event: StockReserved) -> None:
        self.send(Parcel, self.id, Pack())

    @reacts
    def undo(self, refusal: Refusal[Pack]) -> None:
        self.send(Stock, "shelf", Release(count=3))


EVENTS = EventRegistry([OrderSubmitted, StockReserved, StockReleased, ParcelPacked, Reacted])
TYPES = [Order, Stock, Parcel, Fulfilment]


@pytest.fixture
async def system() -> AsyncIterator[ActorSystem]:
    handler = Fulfilment.handler(max_attempts=2)
    async with ActorSystem(aggregates=TYPES, handlers=[handler], event_registry=EVENTS) as running:
        yield running


async def recorded(system: ActorSystem) -> list[str]:
    return [event.event_type async for _, event in system.store.read_all() if not isinstance(event, Reacted)]


# --- with no runtime ---


def test_a_reaction_sends_commands_and_records_what_it_sends() -> None:
    process = Fulfilment("order-1")
    (outgoing,) = process.handle(step_of(Fulfilment, OrderSubmitted(event_id="event-1", count=3)))
    (event,) = process.pending_events
    assert isinstance(event, Reacted)
    assert (event.to, event.sent) == ("event-1", [outgoing])
    aggregate, command = command_of(Fulfilment, outgoing, "event-1.0")
    command_id = id_of_sent("Fulfilment", "order-1", "event-1", 0)
    assert (aggregate, command) == (Stock, Reserve(count=3, command_id=command_id))


def test_the_same_event_again_sends_the_same_commands_and_records_nothing() -> None:
    process = Fulfilment("order-1")
    first = process.handle(step_of(Fulfilment, OrderSubmitted(event_id="event-1", count=3)))
    events = process.take_pending_events()
    again = Fulfilment("order-1").replay(
        [event.stamped(aggregate_version=n) for n, event in enumerate(events, 1)]
    )
    for same in (process, again):
        known = same.handle(step_of(Fulfilment, OrderSubmitted(event_id="event-1", count=99)))
        assert known == first
        assert isinstance(known, Known)
        assert known.refused == set()
        assert not same.pending_events


def test_a_command_to_an_undeclared_aggregate_is_an_error_that_names_the_declared_ones() -> None:
    process = Fulfilment("order-1")
    with pytest.raises(ValueError, match="a command to Order; its sends_to names Stock, Parcel"):
        process.send(Order, "x", PlaceOrder(count=1))
    with pytest.raises(UnknownCommand, match="Stock does not handle Pack"):
        process.send(Stock, "shelf", Pack())

    class ReserveSoon(Reserve):
        pass

    with pytest.raises(ValueError, match="ReserveSoon is handled by Stock as a command of another class"):
        process.send(Stock, "shelf", ReserveSoon(count=1))


class Measure(Command):
    length: float = Field(alias="len")


class Measured(DomainEvent):
    length: float


class Gauge(AggregateRoot):
    @handles
    def measure(self, command: Measure) -> None:
        self.register_event(Measured(length=command.length))

    def apply_measured(self, event: Measured) -> None: ...


class Surveyor(ProcessManager):
    sends_to = (Gauge,)

    @reacts
    def measure(self, event: OrderSubmitted) -> None:
        self.send(Gauge, "g", Measure(len=event.count, correlation_id="its own"))


def test_a_command_is_sent_as_it_was_made_and_refused_if_it_cannot_be() -> None:
    process = Surveyor("s")
    (outgoing,) = process.handle(step_of(Surveyor, OrderSubmitted(event_id="e", count=3)))
    _, command = command_of(Surveyor, outgoing, "e.0")
    command_id = id_of_sent("Surveyor", "s", "e", 0)
    assert command == Measure(len=3, command_id=command_id, correlation_id="its own")
    with pytest.raises(ValueError, match="cannot be read back from the JSON in which a process records"):
        process.send(Gauge, "g", Measure(len=math.inf))


@pytest.mark.parametrize("found", [Gauge, ["Gauge"], (Gauge("g"),), "Gauge"])
def test_what_sends_to_cannot_be_is_reported_when_the_class_is_defined(found: Any) -> None:
    with pytest.raises(
        InvalidAggregate, match=r"sends_to is a tuple of aggregate classes, as in .*; found .*Gauge"
    ):
        type("Misdirected", (ProcessManager,), {"sends_to": found})


def test_a_command_that_was_sent_and_that_the_program_does_not_have_any_more_is_named() -> None:
    (outgoing,) = Surveyor("s").handle(step_of(Surveyor, OrderSubmitted(count=3)))
    with pytest.raises(
        InvalidAggregate, match="sent Weigh to Gauge, which handles no command of this name any more"
    ):
        command_of(Surveyor, outgoing.model_copy(update={"command": "Weigh"}), "e.0")
    with pytest.raises(
        InvalidAggregate, match="type 'Scale', which its sends_to does not name any more; .* Gauge"
    ):
        command_of(Surveyor, outgoing.model_copy(update={"aggregate_type": "Scale"}), "e.0")


def test_an_invalid_reaction_is_reported_when_the_class_is_defined() -> None:
    with pytest.raises(InvalidAggregate, match="@reacts method on_it has no annotation: write on_it"):

        class NoAnnotation(ProcessManager):
            @reacts
            def on_it(self, event) -> None: ...  # type: ignore[no-untyped-def]

    with pytest.raises(InvalidAggregate, match="@reacts method on_it is async"):

        class IsAsync(ProcessManager):
            @reacts
            async def on_it(self, event: OrderSubmitted) -> None: ...

    with pytest.raises(InvalidAggregate, match="<class 'int'>, which is neither an event nor a Refusal"):

        class NoEvent(ProcessManager):
            @reacts
            def on_it(self, event: int) -> None: ...

    with pytest.raises(InvalidAggregate, match="one and two both react to OrderSubmitted"):

        class Twice(ProcessManager):
            @reacts
            def one(self, event: OrderSubmitted) -> None: ...

            @reacts
            def two(self, event: OrderSubmitted) -> None: ...

    class Deaf(ProcessManager):
        pass

    with pytest.raises(InvalidHandler, match="Deaf reacts to no event"):
        Deaf.handler()


def test_a_subclass_may_react_otherwise() -> None:
    class Express(Fulfilment):
        @reacts
        def reserve(self, event: OrderSubmitted) -> None:
            self.send(Parcel, self.id, Pack())

    (outgoing,) = Express("order-1").handle(step_of(Express, OrderSubmitted(count=1)))
    assert outgoing.command == "Pack"
    assert reactions_of(Express)[StockReserved] == "pack"


# --- in a system ---


async def test_a_process_goes_from_event_to_command_to_event(system: ActorSystem) -> None:
    await system.aggregate(Order, "order-1").ask(PlaceOrder(count=3, correlation_id="order-1"))
    await system.settled()
    assert await recorded(system) == ["OrderSubmitted", "StockReserved", "ParcelPacked"]
    events = [event async for _, event in system.store.read_all()]
    assert {event.correlation_id for event in events} == {"order-1"}


async def test_each_correlation_id_has_its_own_process(system: ActorSystem) -> None:
    for number in range(3):
        await system.aggregate(Order, f"order-{number}").ask(PlaceOrder(count=1))
    await system.settled()
    processes = {
        record.aggregate_id
        for _, record in await system.store.read_log(0, 100)
        if record.aggregate_type == "Fulfilment"
    }
    assert len(processes) == 3


async def test_events_delivered_again_send_nothing_twice(system: ActorSystem) -> None:
    """As after a crash between the last command and the checkpoint."""
    await system.aggregate(Order, "order-1").ask(PlaceOrder(count=3))
    await system.settled()
    before = await recorded(system)
    again = Fulfilment.handler(name="again", start="earliest")
    async with ActorSystem(
        system.store, aggregates=TYPES, handlers=[again], event_registry=EVENTS, remember_commands=256
    ) as other:
        await other.settled()
    assert await recorded(system) == before


async def test_an_event_that_comes_again_when_its_commands_are_long_forgotten_sends_nothing(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(Parcel, "works", False)
    handler = Fulfilment.handler(max_attempts=2)
    async with ActorSystem(
        aggregates=TYPES, handlers=[handler], event_registry=EVENTS, remember_commands=1
    ) as system:
        for name in ("order-1", "order-2"):
            await system.aggregate(Order, name).ask(PlaceOrder(count=3))
            await system.settled()
        end = await system.store.last_position()
        await system.reset("Fulfilment", "earliest")
        await system.settled()
        assert await recorded(system) == ["OrderSubmitted", "StockReserved", "StockReleased"] * 2
        assert await system.store.last_position() == end


async def test_a_process_reacts_to_a_refused_command_and_does_not_try_it_again(
    system: ActorSystem, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Not even if it would be accepted by now: the process has moved on."""
    monkeypatch.setattr(Parcel, "works", False)
    await system.aggregate(Order, "order-1").ask(PlaceOrder(count=3))
    await system.settled()
    wanted = ["OrderSubmitted", "StockReserved", "StockReleased"]
    assert await recorded(system) == wanted
    monkeypatch.setattr(Parcel, "works", True)
    again = Fulfilment.handler(name="again", start="earliest")
    async with ActorSystem(system.store, aggregates=TYPES, handlers=[again], event_registry=EVENTS) as other:
        await other.settled()
    assert await recorded(system) == wanted


async def test_a_refusal_without_a_reaction_becomes_a_dead_letter_that_says_so(system: ActorSystem) -> None:
    await system.aggregate(Order, "order-1").ask(PlaceOrder(count=11))
    await system.settled()
    (letter,) = await system.store.dead_letters()
    assert letter.handler == "Fulfilment"
    assert "Reserve was refused (sold out) and Fulfilment has no reaction to Refusal[Reserve]" in letter.error


async def test_events_without_a_reaction_are_not_even_decoded(system: ActorSystem) -> None:
    """Event types that this program does not know do not stop a process either."""

    class Elsewhere(DomainEvent):
        """Recorded by another program."""

    await system.store.append(Elsewhere(correlation_id="x"))
    await system.aggregate(Order, "order-1").ask(PlaceOrder(count=1))
    await system.settled()
    assert await system.store.dead_letters() == []


# --- a command once in effect, whenever the process comes to send it again ---


class DyingStore(InMemoryEventStore):
    """Commits a number of times more; the last commit is done but not reported, as if the process had been killed.

    If ``apart``, it refuses what a process decides together with what follows, as if another writer had been faster.
    """

    def __init__(self, *, apart: bool = False) -> None:
        super().__init__(EVENTS)
        self.left: float = math.inf
        self.shared = 0
        self._apart = apart

    async def commit(self, requests: Sequence[Append]) -> list[Appended | UnoError]:
        together = [len({record.stream for record in request.records}) > 1 for request in requests]
        if self._apart and any(together):
            return [ConcurrencyConflict("Fulfilment<order-1>", 0, 1) for _ in requests]
        self.shared += sum(together)
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


@asynccontextmanager
async def running(
    store: InMemoryEventStore, options: dict[str, Any] | None = None, *, handles: bool = True, **settings: Any
) -> AsyncIterator[ActorSystem]:
    handlers = [Fulfilment.handler(start="earliest", max_attempts=1000, **(options or {}))] if handles else []
    async with ActorSystem(
        store, aggregates=TYPES, handlers=handlers, remember_commands=4, stop_timeout=1, **settings
    ) as system:
        yield system


async def go_on_without_it(store: InMemoryEventStore) -> None:
    """Add more events to the streams to which the process sends than their aggregates remember commands for."""
    async with running(store, handles=False) as system:
        for _ in range(10):
            await system.aggregate(Stock, "shelf").ask(Release(count=0))


Way = Literal["together", "apart", "one by one"]
KILLS: dict[tuple[Way, bool], int] = {
    # Place of the last commit before the end: reaction and command; note that all was sent, with the next reaction.
    ("together", True): 3,
    ("together", False): 4,
    # Each reaction, and then its command.
    ("apart", True): 5,
    ("apart", False): 6,
    # The note that all was sent comes alone.
    ("one by one", True): 4,
    ("one by one", False): 5,
}


@pytest.mark.parametrize(("way", "works"), KILLS)
@pytest.mark.parametrize("snapshot_every", [0, 3])
async def test_a_process_that_is_killed_after_any_write_sends_no_command_twice_in_effect(
    monkeypatch: pytest.MonkeyPatch, way: Way, works: bool, snapshot_every: int
) -> None:
    """Killed, and started again when the aggregates no longer remember the commands that it had sent."""
    monkeypatch.setattr(Parcel, "works", works)
    monkeypatch.setattr(InMemoryEventStore, "close", still_open)
    wanted = ["OrderSubmitted", "StockReserved", "ParcelPacked" if works else "StockReleased"]
    kills = 0
    while await dies_and_goes_on(kills + 1, wanted, snapshot_every, way):
        kills += 1
    assert kills == KILLS[way, works]


async def dies_and_goes_on(commits: int, wanted: list[str], snapshot_every: int, way: Way) -> bool:
    """Whether a process to be killed after ``commits`` commits was killed at all; either way it ends as expected."""
    store = DyingStore(apart=way == "apart")
    options: dict[str, Any] = {"concurrency": 1} if way == "one by one" else {}
    await go_on_without_it(store)
    async with running(store, handles=False) as system:
        await system.aggregate(Order, "order-1").ask(PlaceOrder(count=3, correlation_id="order-1"))
    store.left = commits
    async with running(store, options, snapshot_every=snapshot_every, clock=ManualClock()) as system:
        await until(lambda: store.left <= 0 or is_done(system, store))
        is_killed = store.left <= 0
    store.left = math.inf
    await go_on_without_it(store)
    async with running(store, options, snapshot_every=snapshot_every) as system:
        await system.settled()
        assert await store.dead_letters() == []
        events = [event async for _, event in store.read_all() if not isinstance(event, Reacted)]
    assert [event.event_type for event in events if getattr(event, "count", 1)] == wanted
    assert bool(store.shared) == (way != "apart")
    return is_killed


def is_done(system: ActorSystem, store: DyingStore) -> bool:
    statistics = system.statistics()
    return (
        statistics.handlers["Fulfilment"].position == len(store.records) and not statistics.commands_waiting
    )


async def still_open(self: InMemoryEventStore) -> None:
    """The store in memory is kept for the next system."""


class Weigh(Command[Any]):
    weight: int


class ParcelWeighed(DomainEvent):
    weight: int


class Scale(AggregateRoot):
    @handles
    def weigh(self, command: Weigh) -> object:
        self.register_event(ParcelWeighed(weight=command.weight))
        return object()

    def apply_parcel_weighed(self, event: ParcelWeighed) -> None: ...


class Weighing(ProcessManager):
    sends_to = (Scale,)

    @reacts
    def weigh(self, event: OrderSubmitted) -> None:
        self.send(Scale, "scale", Weigh(weight=event.count))


async def test_a_process_may_send_a_command_again_whatever_its_first_reply_or_contents_were() -> None:
    """Its reply could not be recorded; and by now the class of the command has other fields."""
    registry = EventRegistry([OrderSubmitted, ParcelWeighed, Reacted])
    async with ActorSystem(
        aggregates=[Scale, Weighing], handlers=[Weighing.handler(start="earliest")], event_registry=registry
    ) as system:
        scale = system.aggregate(Scale, "scale")
        for number, recorded in enumerate([3, 4]):  # by the process, and by its older program
            event = OrderSubmitted(count=3, correlation_id=f"{number}")
            command_id = id_of_sent("Weighing", f"{number}", event.event_id, 0)
            await scale.ask(Weigh(weight=recorded, command_id=command_id))
            await system.store.append(event)
        await system.settled()
        assert await system.store.dead_letters() == []
        weighed = [event.weight for event in await system.store.get_events("scale")]
        assert weighed == [3, 4]
        ends = [
            record
            async for _, record in system.store.read_records()
            if record.event_type == "uno_actors.Reacted"
        ]
        assert len(ends) == 4, "both processes know that all was sent"


class ScaleOrdered(DomainEvent):
    sizes: list[int]


class WeighingEach(ProcessManager):
    sends_to = (Scale,)

    @reacts(by="sizes")
    def weigh(self, event: ScaleOrdered) -> None:
        self.send(Scale, "scale", Weigh(weight=int(self.id)))


class WeighingAll(ProcessManager):
    sends_to = (Scale,)

    @reacts(by="aggregate_id")
    def weigh(self, event: ScaleOrdered) -> None:
        self.send(Scale, "scale", Weigh(weight=sum(event.sizes)))


async def test_processes_that_react_to_one_event_all_have_their_commands_carried_out_by_one_aggregate() -> (
    None
):
    """Also those of several managers, and once each if the event comes again."""
    managers = [WeighingEach, WeighingAll]
    async with ActorSystem(
        aggregates=[Scale, *managers], handlers=[manager.handler() for manager in managers]
    ) as system:
        await system.publisher.publish(
            ScaleOrdered(sizes=[1, 2], aggregate_id="1", aggregate_type="Ordering")
        )
        await system.settled()
        for manager in managers:
            await system.reset(manager.__name__, 0)
        await system.settled()
        assert sorted(event.weight for event in await system.store.get_events("scale")) == [1, 2, 3]


async def test_what_an_earlier_program_had_begun_to_send_keeps_its_id() -> None:
    """It was killed when the command had taken effect and the process did not know yet."""
    store = InMemoryEventStore()
    event = OrderSubmitted(count=3, correlation_id="1")
    sent = Outgoing(aggregate_type="Scale", aggregate_id="scale", command="Weigh", fields='{"weight":3}')
    await store.append(
        event,
        Reacted(to=event.event_id, sent=[sent], aggregate_id="1", aggregate_type="Weighing"),
    )
    async with ActorSystem(store, aggregates=[Scale], handlers=[]) as system:
        await system.aggregate(Scale, "scale").ask(Weigh(weight=3, command_id=f"{event.event_id}.0"))
    handlers = [Weighing.handler(start="earliest")]
    async with ActorSystem(store, aggregates=[Scale, Weighing], handlers=handlers) as system:
        await system.settled()
        assert await store.dead_letters() == []
        assert [event.weight for event in await store.get_events("scale")] == [3]
        assert len(await store.get_events("1", aggregate_type="Weighing")) == 2, (
            "the process knows that all was sent"
        )


async def test_one_command_id_sent_to_two_aggregates_begins_two_processes(system: ActorSystem) -> None:
    """Such as the key of a request: the correlation id is not taken from it."""
    for name in ("order-1", "order-2"):
        await system.aggregate(Order, name).ask(PlaceOrder(count=3, command_id="request-1"))
    await system.settled()
    assert sorted(await recorded(system)) == sorted(["OrderSubmitted", "StockReserved", "ParcelPacked"] * 2)


async def test_a_refusal_with_a_reaction_stays_refused_when_its_event_comes_again_right_after_another() -> (
    None
):
    """Killed before the process has recorded that all was sent, for two events. Meanwhile there is a box."""
    store = InMemoryEventStore(EVENTS)

    first = OrderSubmitted(count=1, correlation_id="order-1", aggregate_id="order-1", aggregate_type="Order")
    second = StockReserved(count=3, correlation_id="order-1", aggregate_id="shelf", aggregate_type="Stock")
    await store.append(first, second)
    other = Outgoing(aggregate_type="Stock", aggregate_id="shelf", command="Release", fields='{"count": 0}')
    pack = Outgoing(aggregate_type="Parcel", aggregate_id="order-1", command="Pack", fields="{}")
    release = Outgoing(aggregate_type="Stock", aggregate_id="shelf", command="Release", fields='{"count": 3}')
    await store.append(
        *(
            Reacted(to=to, sent=[sent], aggregate_id="order-1", aggregate_type="Fulfilment")
            for to, sent in [
                (first.event_id, other),
                (second.event_id, pack),
                (f"{second.event_id}.0", release),
            ]
        )
    )
    async with running(store) as system:
        await system.settled()
        events = await recorded(system)
        assert "ParcelPacked" not in events, "the process has made up for it"
        assert events.count("StockReleased") == 2
        assert await store.dead_letters() == []
