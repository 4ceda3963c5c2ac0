"""Recorded events reach brokers, in order and at least once."""

import asyncio
import json
from pathlib import Path
from typing import Any

import pytest
from faststream.nats import NatsBroker
from faststream.redis import RedisBroker

from tests.broker_servers import RedisServer
from tests.outside.conftest import JetStream
from tests.outside.shop import OrderSent, ended, sent
from tests.waiting import until
from uno_actors import ActorSystem, DomainEvent, InvalidHandler, RetryLater, Supervisor
from uno_actors.backoff import Backoff
from uno_actors.handlers.spec import HandlerSpec
from uno_actors.outside import DeliveryRefused, Destination, DestinationGone, Outgoing, ToNats, forward

QUICK = Backoff(initial=0.01, max=0.05)


class Place(Destination):
    """A destination that the test looks into; ``failures`` are raised one after the other before it takes anything."""

    kind = "a place"

    def __init__(self, *failures: Exception) -> None:
        self.failures = [*failures]
        self.taken: list[Outgoing] = []
        self.attempts = 0
        self.closed = 0

    async def send(self, outgoing: Outgoing) -> None:
        self.attempts += 1
        if self.failures:
            raise self.failures.pop(0)
        self.taken.append(outgoing)

    async def close(self) -> None:
        self.closed += 1


def system_of(spec: HandlerSpec, store: Any = "memory:") -> ActorSystem:
    quick = Supervisor("outside", [spec], max_restarts=None, backoff=QUICK)
    return ActorSystem(store, name="shop", aggregates=[], handlers=[], supervisors=[quick])


# --- what is sent ------------------------------------------------------------------------------------------


async def test_events_go_to_nats_in_order_with_their_ids_and_attributes(jetstream: JetStream) -> None:
    events = [sent(1, 10), sent(2, 20), ended(1)]
    async with system_of(forward("orders.>", to=NatsBroker(jetstream.url))) as system:
        recorded = [each.event for each in await system.publisher.publish(*events)]
        await system.settled()
    messages = await jetstream.messages()
    assert [message.subject for message in messages] == ["orders.sent", "orders.sent", "orders.ended"]
    assert [json.loads(message.data) for message in messages] == [{"total": 10}, {"total": 20}, {}]
    for message, event in zip(messages, recorded, strict=True):
        headers = message.headers
        assert headers["Nats-Msg-Id"] == headers["ce-id"] == event.event_id
        assert headers["ce-source"] == "/shop"
        assert headers["ce-subject"] == headers["ce-partitionkey"] == event.aggregate_id
        assert headers["ce-aggregateversion"] == str(event.aggregate_version)
        assert headers["content-type"] == "application/json"


async def test_a_structured_cloud_event_is_one_json_object(jetstream: JetStream) -> None:
    to = forward(
        "orders.>", to=NatsBroker(jetstream.url), mode="structured", source="https://shop.example",
        schema=lambda event: f"https://shop.example/schemas/{event.event_type}/{event.version}",
    )  # fmt: skip
    async with system_of(to) as system:
        await system.publisher.publish(sent(1, 10, correlation_id="c-1", causation_id="q-1"))
        await system.settled()
    (message,) = await jetstream.messages()
    assert message.headers["content-type"] == "application/cloudevents+json"
    found = json.loads(message.data)
    assert found.pop("time").endswith("Z")
    assert found.pop("id") == message.headers["Nats-Msg-Id"]
    assert found == {
        "specversion": "1.0",
        "source": "https://shop.example",
        "type": "OrderSent",
        "subject": "order-1",
        "datacontenttype": "application/json",
        "dataschema": "https://shop.example/schemas/OrderSent/1",
        "schemaversion": 1,
        "correlationid": "c-1",
        "causationid": "q-1",
        "aggregatetype": "Order",
        "aggregateversion": 1,
        "partitionkey": "order-1",
        "topic": "orders.sent",
        "data": {"total": 10},
    }


async def test_events_go_to_a_stream_of_redis(redis_server: RedisServer) -> None:
    broker = RedisBroker(redis_server.url)
    async with system_of(forward("orders.>", to=broker)) as system:
        await system.publisher.publish(sent(1, 10), ended(1))
        await system.settled()
    reader = RedisBroker(redis_server.url)
    client = await reader.connect()
    entries = [fields[b"__data__"] for _, fields in await client.xrange("orders")]
    await reader.stop()
    assert len(entries) == 2
    assert b'{"total": 10}' in entries[0]
    assert b"OrderEnded" in entries[1]


async def test_what_is_sent_may_be_less_than_what_is_recorded() -> None:
    def public(event: DomainEvent) -> Any:
        return {"sum": event.total} if isinstance(event, OrderSent) else None

    place = Place()
    async with system_of(forward("orders.>", to=place, data=public)) as system:
        await system.publisher.publish(sent(1, 10), ended(1))
        await system.settled()
    assert [each.cloud_event.get_data() for each in place.taken] == [{"sum": 10}]


# --- what goes wrong ---------------------------------------------------------------------------------------


async def test_a_destination_that_is_away_makes_no_dead_letter_however_often_it_is_tried() -> None:
    place = Place(*(RetryLater("away") for _ in range(8)))
    async with system_of(forward("orders.>", to=place, max_attempts=2)) as system:
        await system.publisher.publish(sent(1), sent(2))
        await system.settled()
        assert await system.store.dead_letters() == []
        (info,) = await system.handlers()
        assert info.failures == 8
    assert [each.event.aggregate_id for each in place.taken] == ["order-1", "order-2"]


async def test_a_refused_event_becomes_a_dead_letter_and_the_next_one_follows() -> None:
    place = Place(*(DeliveryRefused("no") for _ in range(2)))
    async with system_of(forward("orders.>", to=place, max_attempts=2)) as system:
        await system.publisher.publish(sent(1), sent(2))
        await system.settled()
        (letter,) = await system.store.dead_letters()
        assert (letter.position, letter.attempts, letter.error) == (1, 2, "DeliveryRefused: no")
        assert await system.retry_dead_letters(letter.handler) == 1
        await until(lambda: len(place.taken) == 2)
    assert [each.event.aggregate_id for each in place.taken] == ["order-2", "order-1"]


async def test_a_destination_that_wants_no_more_pauses_its_handler_and_nothing_is_lost() -> None:
    place = Place(DestinationGone("gone"))
    async with system_of(forward("orders.>", to=place, name="out")) as system:
        await system.publisher.publish(sent(1), sent(2))
        await until(lambda: not place.failures)

        await until(lambda: system.statistics().handlers["out"].state == "paused")
        assert place.taken == []
        assert await system.store.dead_letters() == []
        await system.resume("out")
        await system.settled()
    assert [each.event.aggregate_id for each in place.taken] == ["order-1", "order-2"]


async def test_a_server_that_is_down_at_the_start_delays_the_events_alone(jetstream: JetStream) -> None:
    jetstream.server.stop()
    spec = forward("orders.>", to=ToNats(NatsBroker(jetstream.url), timeout=0.2), max_attempts=1)
    async with system_of(spec) as system:
        await system.publisher.publish(*(sent(number) for number in range(3)))
        await until(lambda: system.statistics().handlers[spec.name].failures >= 2)
        jetstream.server.start()
        await system.settled()
        assert await system.store.dead_letters() == []
    messages = await jetstream.messages()
    assert [message.headers["ce-subject"] for message in messages] == [
        f"order-{number}" for number in range(3)
    ]


async def test_a_server_that_restarts_in_between_gets_each_event_once(jetstream: JetStream) -> None:
    spec = forward("orders.>", to=ToNats(NatsBroker(jetstream.url), timeout=0.2), max_attempts=1)
    async with system_of(spec) as system:
        await system.publisher.publish(sent(0))
        await system.settled()
        jetstream.server.stop()
        await system.publisher.publish(*(sent(number) for number in range(1, 4)))
        await until(lambda: system.statistics().handlers[spec.name].failures >= 2)
        jetstream.server.start()
        await system.settled()
    messages = await jetstream.messages()
    assert [message.headers["ce-subject"] for message in messages] == [
        f"order-{number}" for number in range(4)
    ]


async def test_a_subject_that_no_stream_keeps_is_not_sent_into_the_void(jetstream: JetStream) -> None:
    spec = forward("bills.>", to=NatsBroker(jetstream.url), address=lambda _: "bills.all")
    async with system_of(spec) as system:
        await system.publisher.publish(sent(1, topic="bills.sent"))
        await until(lambda: system.statistics().handlers[spec.name].failures >= 1)
        await jetstream.context.add_stream(name="BILLS", subjects=["bills.>"])
        await system.settled()
    assert len(await jetstream.messages(stream="BILLS")) == 1


async def test_it_continues_where_the_last_process_was(tmp_path: Path) -> None:
    first, second = Place(), Place()
    store = f"lmdb:{tmp_path}/log"
    async with system_of(forward("orders.>", to=first), store) as system:
        await system.publisher.publish(sent(1))
        await system.settled()
    async with system_of(forward("orders.>", to=second), store) as system:
        await system.publisher.publish(sent(2))
        await system.settled()
    assert [len(first.taken), len(second.taken)] == [1, 1]
    assert second.taken[0].event.aggregate_id == "order-2"
    assert first.closed == second.closed == 1


async def test_events_of_one_aggregate_stay_in_order_when_several_are_under_way() -> None:
    class Slow(Place):
        async def send(self, outgoing: Outgoing) -> None:
            await asyncio.sleep(0.001 * (outgoing.event.aggregate_version or 0) % 0.003)
            await super().send(outgoing)

    place = Slow(RetryLater("away"))
    async with system_of(forward("orders.>", to=place, concurrency=4)) as system:
        await system.publisher.publish(*(sent(number % 4, number) for number in range(24)))
        await system.settled()
    for order in range(4):
        totals = [
            each.cloud_event.get_data() for each in place.taken if each.event.aggregate_id == f"order-{order}"
        ]
        assert totals == [{"total": number} for number in range(order, 24, 4)]


async def test_an_address_that_is_none_is_refused_with_the_reason() -> None:
    spec = forward("orders.>", to=Place(), name="there", address=lambda _: None, max_attempts=1)  # type: ignore[arg-type, return-value]
    async with system_of(spec) as system:
        await system.publisher.publish(sent(1))
        await system.settled()
        (letter,) = await system.store.dead_letters("there")
    assert "must be a str, and the function for it returned None" in letter.error


# --- what is refused when it is written --------------------------------------------------------------------


async def _later(event: DomainEvent) -> Any:
    return event


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"to": object()}, "give a broker of FastStream"),
        ({"to": Place(), "mode": "xml"}, "'binary' or 'structured'"),
        ({"to": Place(), "source": "a b"}, "source must be a URI"),
        ({"to": Place(), "max_attempts": 0}, "max_attempts must be 1 or more"),
        ({"to": Place(), "schema": "https://example.org/order"}, "schema must be a function"),
        ({"to": Place(), "data": {}}, "data must be a function"),
        ({"to": Place(), "data": _later}, "data: .* must be a plain function"),
        ({"to": Place(), "address": 5}, "address must be a function"),
    ],
    ids=["destination", "mode", "source", "attempts", "schema", "data", "awaits", "address"],
)
def test_what_cannot_work_is_refused_when_it_is_written(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(InvalidHandler, match=message):
        forward("orders.>", **arguments)


def test_one_address_for_all_needs_a_name_where_the_pattern_has_none() -> None:
    with pytest.raises(InvalidHandler, match="give address="):
        forward(">", to=RedisBroker())
    assert forward(">", to=RedisBroker(), address="all").name == "forward > to Redis"
