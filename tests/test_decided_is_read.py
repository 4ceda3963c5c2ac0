"""The state of an aggregate rests on its stream alone: changing lists, metadata, ids, names shared by two classes."""

import asyncio
from pathlib import Path
from typing import Any

import pytest
from pydantic import Field

from uno_actors import (
    ActorSystem,
    AggregateRoot,
    AmbiguousEventType,
    Command,
    DomainEvent,
    EventBus,
    EventNotReadable,
    EventNotSerializable,
    EventRegistry,
    EventSourcedRepository,
    InvalidAggregate,
    InvalidAggregateId,
    InvalidConfig,
    InvalidEvent,
    UnoError,
    handles,
    subscribe,
    upcasts,
)
from uno_actors.config.reader import load
from uno_actors.domain.registration import register_event
from uno_stores import InMemoryEventStore


class Pick(Command[list[int]]):
    what: list[int]


class Picked(DomainEvent):
    what: list[int]


class Basket(AggregateRoot):
    def __init__(self, id: str) -> None:
        super().__init__(id)
        self.items: list[int] = []

    @handles
    def pick(self, command: Pick) -> list[int]:
        mine = list(command.what)
        event = Picked.model_construct(what=mine)
        self.register_event(event)
        mine.append(99)
        self.register_event(Picked(what=[0]))
        return list(self.items)

    def apply_picked(self, event: Picked) -> None:
        if self.items:
            self.items.extend(event.what)
        else:
            self.items = event.what  # keeps the event's own list, and the next event extends it


async def test_later_changes_to_the_lists_of_a_registered_event_are_not_recorded() -> None:
    store = InMemoryEventStore()
    async with ActorSystem(store, handlers=[]) as system:
        assert await system.aggregate(Basket, "b").ask(Pick(what=[1, 2])) == [1, 2, 0]
    assert [event.what for event in await store.get_events("b")] == [[1, 2], [0]]  # type: ignore[attr-defined]
    assert (await EventSourcedRepository(Basket, store).get_by_id("b")).items == [1, 2, 0]


async def test_events_of_a_repository_are_returned_as_they_were_registered() -> None:
    basket = Basket("b")
    basket.handle(Pick(what=[1, 2]))
    assert [event.what for event in basket.pending_events] == [[1, 2], [0]]  # type: ignore[attr-defined]
    recorded = await EventSourcedRepository(Basket, InMemoryEventStore()).save(basket)
    assert [one.event.what for one in recorded] == [[1, 2], [0]]  # type: ignore[attr-defined]


async def test_a_handler_that_changes_its_event_does_not_change_it_for_others() -> None:
    seen: list[list[int]] = []

    def spoil(event: Picked) -> None:
        seen.append(list(event.what))
        event.what.clear()

    @subscribe(event_type=Picked, name="first")
    async def first(event: Picked) -> None:
        spoil(event)

    @subscribe(event_type=Picked, name="second")
    async def second(event: Picked) -> None:
        spoil(event)

    async with ActorSystem(handlers=[first, second]) as system:
        await system.publisher.publish(Picked(what=[1]))
        await system.settled()
    assert seen == [[1], [1]]


async def test_a_handler_of_a_bus_that_changes_its_event_does_not_change_it_for_others() -> None:
    seen: list[list[int]] = []

    async def spoil(event: Picked) -> None:
        seen.append(list(event.what))
        event.what.clear()

    async def spoil_too(event: Picked) -> None:
        await spoil(event)

    bus = EventBus()
    bus.subscribe(handler=spoil, event_type=Picked)
    bus.subscribe(handler=spoil_too, event_type=Picked)
    event = Picked(what=[1])
    await bus.publish(event)
    assert seen == [[1], [1]]
    assert event.what == [1]


# --- metadata ----------------------------------------------------------------------------------------------


class Bump(Command[int]):
    metadata: dict[str, Any] = Field(default={})


class Bumped(DomainEvent):
    n: int = 1


class Counter(AggregateRoot):
    def __init__(self, id: str) -> None:
        super().__init__(id)
        self.n = 0

    @handles
    def bump(self, command: Bump) -> int:
        self.register_event(Bumped(**command.metadata))
        return self.n

    def apply_bumped(self, event: Bumped) -> None:
        self.n += event.n


METADATA = [
    ({"version": 2}, "version=2 was given, and the schema version of Bumped is 1"),
    ({"version": 0}, "version=0 was given"),
    ({"version": 2**70}, "the place in the stream is aggregate_version"),
    ({"event_type": "bumped"}, "event_type='bumped' was given, which names no class"),
    ({"event_type": "Picked"}, "would be read as a .*Picked, which has the same name"),
]


@pytest.mark.parametrize(("metadata", "reason"), METADATA)
async def test_metadata_that_would_make_an_event_unreadable_is_refused_before_it_is_recorded(
    metadata: dict[str, Any], reason: str
) -> None:
    store = InMemoryEventStore()
    async with ActorSystem(store, handlers=[]) as system:
        with pytest.raises(EventNotSerializable, match=reason):
            await system.aggregate(Counter, "c").ask(Bump(metadata=metadata))
        assert await system.aggregate(Counter, "c").ask(Bump()) == 1
    with pytest.raises(EventNotSerializable, match=reason):
        await store.append(Bumped(**metadata))
    assert await store.last_position() == 1


async def test_an_event_of_an_older_schema_is_accepted_as_history() -> None:
    class Grown(DomainEvent):
        version: int = 2
        amount: int = 0

    upcasts(Grown, from_version=1)(lambda payload: {"amount": payload["amount"] * 2})
    store = InMemoryEventStore(EventRegistry([Grown]))
    store.event_registry.add_upcast(Grown, 1, lambda payload: {"amount": payload["amount"] * 2})
    await store.append(Grown(amount=2).stamped(version=1), Grown(amount=2))
    assert [one.event.amount async for one in store.read_all()] == [4, 2]  # type: ignore[attr-defined]


@pytest.mark.parametrize("name", ["Bumped", "Kept under another name"])
async def test_a_name_that_is_registered_for_the_class_is_accepted(name: str) -> None:
    register_event(name="Kept under another name")(Bumped)
    store = InMemoryEventStore()
    await store.append(Bumped(event_type=name))
    assert [one.event.event_type async for one in store.read_all()] == [name]


@pytest.mark.parametrize("version", [0, -1, 2.0, True, None, "2", 2**40])
def test_a_class_without_a_usable_schema_version_is_refused_where_it_is_defined(version: Any) -> None:
    with pytest.raises(InvalidEvent, match=r"event class .*Odd: version is the schema version .* found"):
        type(
            "Odd",
            (DomainEvent,),
            {"__annotations__": {"version": Any}, "version": version, "__module__": __name__},
        )


def test_a_class_without_a_name_for_its_events_is_refused_where_it_is_defined() -> None:
    with pytest.raises(InvalidEvent, match="event_type is the name .* found ''"):

        class Odd(DomainEvent):
            event_type: str = ""


# --- aggregates that could not be loaded -------------------------------------------------------------------


class LowerCase(Counter):
    def __init__(self, id: str) -> None:
        super().__init__(id.lower())


class BornWithEvents(Counter):
    def __init__(self, id: str) -> None:
        super().__init__(id)
        self.register_event(Bumped())


class RegistersInApply(Counter):
    def apply_bumped(self, event: Bumped) -> None:
        super().apply_bumped(event)
        if self.n < 3:
            self.register_event(Bumped())


@pytest.mark.parametrize(
    ("kind", "error", "reason"),
    [
        (LowerCase, InvalidAggregateId, r"LowerCase.__init__ changes it to 'ann'"),
        (BornWithEvents, InvalidAggregate, "__init__ registers events"),
        (RegistersInApply, InvalidAggregate, "an apply_ method registers Bumped, and a replay runs it too"),
    ],
)
async def test_an_aggregate_whose_stream_could_not_be_loaded_again_records_nothing(
    kind: type[Counter], error: type[UnoError], reason: str
) -> None:
    store = InMemoryEventStore()
    async with ActorSystem(store, handlers=[]) as system:
        with pytest.raises(error, match=reason):
            await system.aggregate(kind, "Ann").ask(Bump())
    assert await store.last_position() == 0


@pytest.mark.parametrize("kind", [BornWithEvents, RegistersInApply])
async def test_a_repository_does_not_save_what_it_could_not_load_again(kind: type[Counter]) -> None:
    store = InMemoryEventStore()
    with pytest.raises(InvalidAggregate):
        counter = kind("ann")
        counter.handle(Bump())
        await EventSourcedRepository(kind, store).save(counter)
    assert await store.last_position() == 0


async def test_an_aggregate_that_changes_its_id_cannot_be_loaded_by_the_original_id() -> None:
    repository = EventSourcedRepository(LowerCase, InMemoryEventStore())
    counter = LowerCase("Ann")
    counter.handle(Bump())
    await repository.save(counter)
    assert (await repository.get_by_id("ann")).n == 1
    with pytest.raises(InvalidAggregateId, match="normalize ids before"):
        await repository.get_by_id("Ann")


def test_the_id_of_an_aggregate_cannot_be_assigned() -> None:
    with pytest.raises(AttributeError):
        Counter("a").id = "b"  # type: ignore[misc]


# --- steps between schemas ---------------------------------------------------------------------------------


class Priced(DomainEvent):
    version: int = 3
    cents: int


def _forgets(payload: dict[str, Any]) -> None:
    payload["cents"] = 1


STEPS = [
    (_forgets, "_forgets from version 1 returned None"),
    (lambda payload: [payload], "returned a list; it must return the payload, a dict"),
    (lambda payload: payload["nope"], "raised KeyError: 'nope'"),
]


@pytest.mark.parametrize(("step", "reason"), STEPS)
async def test_a_step_that_fails_is_named_with_the_event_and_its_place(step: Any, reason: str) -> None:
    registry = EventRegistry([Priced])
    store = InMemoryEventStore(registry)
    await store.append(Bumped())
    await store.append(
        Priced(cents=1).stamped(version=1, aggregate_type="Item", aggregate_id="i", aggregate_version=1)
    )
    registry.register(Bumped)
    registry.add_upcast("Priced", 1, step)
    with pytest.raises(EventNotReadable) as caught:
        [one async for one in store.read_all()]
    text = str(caught.value)
    assert reason in text
    assert (
        "event Priced of schema version 1 at position 2, Item<i> version 1 cannot be read as version 3"
        in text
    )


# --- two classes of one name -------------------------------------------------------------------------------


class orders:  # noqa: N801 - stands for a module
    class Created(DomainEvent):
        total: int

    class Create(Command[int]):
        total: int = 1


class customers:  # noqa: N801
    class Created(DomainEvent):
        name: str

    class Create(Command[str]):
        name: str = "ann"


class Order(AggregateRoot):
    def __init__(self, id: str) -> None:
        super().__init__(id)
        self.total = 0

    @handles
    def create(self, command: orders.Create) -> int:
        self.register_event(orders.Created(total=command.total))
        return self.total

    def apply_created(self, event: orders.Created) -> None:
        self.total += event.total


class Customer(AggregateRoot):
    def __init__(self, id: str) -> None:
        super().__init__(id)
        self.names: list[str] = []

    @handles
    def create(self, command: customers.Create) -> str:
        self.register_event(customers.Created(name=command.name))
        return ",".join(self.names)

    def apply_created(self, event: customers.Created) -> None:
        self.names.append(event.name)


async def test_events_of_one_name_are_distinguished_by_their_aggregate() -> None:
    store, seen = InMemoryEventStore(), list[DomainEvent]()

    @subscribe(event_type=orders.Created, start="earliest", name="orders")
    async def of_orders(event: orders.Created) -> None:
        seen.append(event)

    for n in (1, 2):
        async with ActorSystem(store, handlers=[of_orders]) as system:
            assert await system.aggregate(Order, "a").ask(orders.Create()) == n
            assert await system.aggregate(Customer, "a").ask(customers.Create()) == ",".join(["ann"] * n)
            await system.settled()
    assert [type(event) for event in seen] == [orders.Created] * 2


async def test_an_event_with_an_ambiguous_name_is_refused_before_it_is_recorded() -> None:
    store = InMemoryEventStore()
    with pytest.raises(
        AmbiguousEventType, match=r"event type 'Created' names several classes .*orders\.Created"
    ):
        await store.append(orders.Created(total=1))
    assert await store.last_position() == 0


class Neither(AggregateRoot):
    def apply_created(self, event: Any) -> None: ...


def test_an_aggregate_with_ambiguous_events_is_refused_where_it_is_given_to_a_system() -> None:
    with pytest.raises(AmbiguousEventType, match="annotate the event in the aggregate's apply_ method"):
        ActorSystem(aggregates=[Neither])


def test_an_aggregate_with_ambiguous_events_is_reported_by_check(tmp_path: Path) -> None:
    file = tmp_path / "bank.toml"
    file.write_text(f'[aggregates]\ntypes = ["{__name__}:Neither"]\n')
    with pytest.raises(InvalidConfig, match="event type 'Created' names several classes"):
        load(file)


async def test_the_event_class_defined_nearest_to_an_aggregate_is_meant() -> None:
    def shop(name: str) -> type[AggregateRoot]:
        class Opened(DomainEvent):
            n: int = 1

        class Open(Command[int]):
            pass

        class Shop(AggregateRoot):
            aggregate_type = name

            @handles
            def open(self, command: Open) -> int:
                self.register_event(Opened())
                return self.version

            def apply_opened(self, event):  # type: ignore[no-untyped-def]
                assert isinstance(event, Opened)

        Opened.__qualname__ = f"{name}.Opened"
        Shop.__qualname__ = f"{name}.Shop"
        Shop.open_command = Open  # type: ignore[attr-defined]
        return Shop

    await asyncio.sleep(0)
    one = shop("OneShop")
    assert one("a").handle(one.open_command()) == 1  # type: ignore[attr-defined]
