"""Bridges between bounded contexts: recorded once, never sent back, nothing lost."""

import asyncio
from collections.abc import Sequence

import pytest

from tests.waiting import until
from uno_actors import (
    ActorSystem,
    AggregateRoot,
    Backoff,
    Command,
    DomainEvent,
    EventRegistry,
    EventStore,
    InvalidHandler,
    InvalidTopic,
    StoreUnavailable,
    Supervisor,
    SystemNotRunning,
    UnoError,
    bridge,
    handles,
    subscribe,
)
from uno_actors.store.records import Append, Appended
from uno_actors.system.bridges import CARRIED, systems_passed
from uno_stores import InMemoryEventStore, LmdbEventStore


class OrderLeft(DomainEvent):
    order: str
    topic: str | None = "orders.shipped"


class ParcelAnnounced(DomainEvent):
    """The translation for the other context."""

    reference: str
    topic: str | None = "parcels.announced"


class Ship(Command[None]):
    pass


class Order(AggregateRoot):
    shipped = False

    @handles
    def ship(self, command: Ship) -> None:
        self.register_event(OrderLeft(order=self.id))

    def apply_order_left(self, event: OrderLeft) -> None:
        self.shipped = True


def system(name: str, store: EventStore | str = "memory:", **options: object) -> ActorSystem:
    return ActorSystem(store, name=name, handlers=[], **options)  # type: ignore[arg-type]


async def events_of(system: ActorSystem) -> list[DomainEvent]:
    return [event async for _, event in system.store.read_all()]


async def test_a_carried_event_is_recorded_in_the_other_system_and_handled_there() -> None:
    seen = []

    @subscribe(topic_pattern="orders.*", name="look")
    async def look(event: OrderLeft) -> None:
        seen.append(event)

    orders = system("orders")
    shipping = ActorSystem("memory:", name="shipping", handlers=[look])
    bridge(orders, shipping, "orders.>")
    async with shipping, orders:
        await orders.aggregate(Order, "o1").ask(Ship(correlation_id="c"))
        await orders.publisher.publish(ParcelAnnounced(reference="not of this topic"))
        await orders.settled()
        await shipping.settled()
        original, _ = await events_of(orders)
        (carried,) = await events_of(shipping)
    assert seen == [carried]
    assert isinstance(carried, OrderLeft)
    assert (carried.order, carried.topic, carried.timestamp) == ("o1", original.topic, original.timestamp)
    assert carried.event_id != original.event_id
    assert carried.causation_id == original.event_id
    assert carried.correlation_id == original.correlation_id == "c"
    assert carried.aggregate_type == CARRIED  # not of the target's Order "o1", if there is one
    assert systems_passed(carried) == ["orders"]
    assert systems_passed(original) == []


async def test_an_event_may_be_translated_or_left_out() -> None:
    def translate(event: DomainEvent) -> DomainEvent | None:
        assert isinstance(event, OrderLeft)
        return None if event.order == "secret" else ParcelAnnounced(reference=event.order)

    orders, shipping = system("orders"), system("shipping")
    bridge(orders, shipping, "orders.shipped", translate=translate)
    async with shipping, orders:
        recorded = await orders.publisher.publish(OrderLeft(order="secret"), OrderLeft(order="o1"))
        await orders.settled()
        (parcel,) = await events_of(shipping)
    assert isinstance(parcel, ParcelAnnounced)
    assert parcel.reference == "o1"
    assert parcel.causation_id == recorded[1].event.event_id


class ForgetfulStore(InMemoryEventStore):
    """A store that records and then fails, the given number of times, as a crash would."""

    forgets = 0

    async def commit(self, requests: Sequence[Append]) -> list[Appended | UnoError]:
        outcomes = await super().commit(requests)
        if self.forgets:
            self.forgets -= 1
            return [StoreUnavailable("memory:", "it fell silent after the commit")] * len(requests)
        return outcomes


async def test_an_event_whose_recording_was_not_acknowledged_is_recorded_once() -> None:
    store = ForgetfulStore()
    store.forgets = 2
    orders, shipping = system("orders"), system("shipping", store)
    bridge(orders, shipping, "orders.>")
    async with shipping, orders:
        await orders.publisher.publish(OrderLeft(order="o1"), OrderLeft(order="o2"))
        await orders.settled()
        assert [event.order for event in await events_of(shipping)] == ["o1", "o2"]  # type: ignore[attr-defined]
        assert await orders.store.dead_letters() == []
        (statistics,) = orders.statistics().handlers.values()
        assert statistics.failures == 2


async def test_after_a_crash_between_recording_and_checkpoint_nothing_is_recorded_twice(tmp_path) -> None:  # type: ignore[no-untyped-def]
    """Whatever happens in between: another run, and any number of events delivered again."""
    source, target = LmdbEventStore(tmp_path / "orders"), LmdbEventStore(tmp_path / "shipping")
    events = [OrderLeft(order=str(number)) for number in range(20)]
    for run in range(3):
        orders, shipping = system("orders", source), system("shipping", target)
        bridge(orders, shipping, "orders.>", name="out", start="earliest")
        async with shipping, orders:
            if run == 0:
                await orders.publisher.publish(*events)
            await orders.settled()
            assert orders.statistics().handlers["out"].handled == (20, 20, 13)[run]
            carried = await events_of(shipping)
            assert [event.causation_id for event in carried] == [event.event_id for event in events]
        await source.save_progress({"out": (0, 7, 0)[run]})  # what a crash leaves behind
    await source.close()
    await target.close()


async def test_two_bridges_in_opposite_directions_do_not_send_events_back() -> None:
    one, two = system("one"), system("two")
    bridge(one, two, ">")
    bridge(two, one, ">")
    async with one, two:
        await one.publisher.publish(OrderLeft(order="from one"))
        await two.publisher.publish(OrderLeft(order="from two"))
        for _ in range(3):
            await one.settled()
            await two.settled()
        ours = [(event.order, systems_passed(event)) for event in await events_of(one)]  # type: ignore[attr-defined]
        others = [(event.order, systems_passed(event)) for event in await events_of(two)]  # type: ignore[attr-defined]
    assert sorted(ours) == [("from one", []), ("from two", ["two"])]
    assert sorted(others) == [("from one", ["one"]), ("from two", [])]


async def test_in_a_ring_an_event_reaches_every_system_once() -> None:
    ring = [system(name) for name in ("a", "b", "c")]
    for place, source in enumerate(ring):
        bridge(source, ring[(place + 1) % 3], ">")
    async with ring[0], ring[1], ring[2]:
        await ring[1].publisher.publish(OrderLeft(order="o1"))
        for _ in range(4):
            for each in ring:
                await each.settled()
        passed = [[systems_passed(event) for event in await events_of(each)] for each in ring]
    assert passed == [[["b", "c"]], [[]], [["b"]]]


async def test_systems_on_different_loops_are_bridged() -> None:
    def program() -> list[str]:
        orders, shipping = system("orders"), system("shipping")
        bridge(orders, shipping, "orders.>")
        with shipping, orders:
            orders.run(orders.publisher.publish(OrderLeft(order="o1"), OrderLeft(order="o2")))
            orders.run(orders.settled())
            return [event.order for event in shipping.run(events_of(shipping))]  # type: ignore[attr-defined]

    assert await asyncio.to_thread(program) == ["o1", "o2"]


async def test_while_the_target_does_not_run_the_bridge_fails_and_loses_nothing() -> None:
    orders_store, shipping = InMemoryEventStore(), system("shipping", InMemoryEventStore())
    orders = system("orders", orders_store)
    bridge(orders, shipping, "orders.>", name="out")
    async with orders:
        await orders.publisher.publish(OrderLeft(order="o1"))
        await until(lambda: orders.statistics().handlers["out"].failures)
        async with shipping:
            await orders.settled()
            assert len(await events_of(shipping)) == 1


async def test_an_event_that_the_target_could_not_read_becomes_a_dead_letter_of_the_source() -> None:
    orders, shipping = system("orders"), system("shipping", event_registry=EventRegistry([ParcelAnnounced]))
    bridge(orders, shipping, "orders.>", max_attempts=1)
    async with shipping, orders:
        await orders.publisher.publish(OrderLeft(order="o1"))
        await orders.settled()
        (letter,) = await orders.store.dead_letters()
        assert "UnknownEventType" in letter.error
        assert await events_of(shipping) == []


async def test_bridges_that_cannot_work_are_refused() -> None:
    store = InMemoryEventStore()
    one, two = system("one", store), system("two")
    with pytest.raises(InvalidHandler, match="both systems are named 'one'"):
        bridge(one, system("one"), ">")
    with pytest.raises(InvalidHandler, match="must not have '>' or '/' in it; found \\['a/b'\\]"):
        bridge(one, system("a/b"), ">")
    with pytest.raises(InvalidHandler, match="share a store"):
        bridge(one, system("three", store), ">")
    with pytest.raises(InvalidHandler, match="share a store"):
        bridge(system("four", "lmdb:x"), system("five", "lmdb:x"), ">")
    with pytest.raises(InvalidTopic):
        bridge(one, two, "a..b")

    async def coroutine(event: DomainEvent) -> DomainEvent:
        return event

    with pytest.raises(InvalidHandler, match="translate must be a plain function"):
        bridge(one, two, ">", translate=coroutine)  # type: ignore[arg-type]
    bridge(one, two, ">")
    with pytest.raises(InvalidHandler, match="two handlers are named 'bridge one to two: >'"):
        bridge(one, two, ">")
    async with one:
        with pytest.raises(SystemNotRunning, match="'one' is running and takes no more handlers"):
            bridge(one, two, "a.>")


async def test_a_bridge_may_stand_beside_handlers_under_supervisors() -> None:
    @subscribe(topic_pattern="orders.>", name="supervised")
    async def supervised(event: OrderLeft) -> None: ...

    calm = Supervisor("calm", children=[supervised], backoff=Backoff(initial=0.01, max=0.1))
    orders, shipping = system("orders", supervisors=[calm]), system("shipping")
    bridge(orders, shipping, "orders.>", name="out")
    async with shipping, orders:
        await orders.publisher.publish(OrderLeft(order="o1"))
        await orders.settled()
        assert {name: s.handled for name, s in orders.statistics().handlers.items()} == {
            "out": 1,
            "supervised": 1,
        }
        assert len(await events_of(shipping)) == 1
