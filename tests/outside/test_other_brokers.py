"""RabbitMQ, where Debian's server is installed, and Kafka in the memory of FastStream."""

import asyncio
from typing import Annotated, Any

from faststream import Context
from faststream.kafka import KafkaBroker, TestKafkaBroker
from faststream.rabbit import RabbitBroker, RabbitQueue

from tests.broker_servers import RabbitServer
from tests.outside.paying import PaymentSeen
from tests.outside.shop import ended, sent
from tests.outside.test_forwarding import system_of
from tests.outside.test_receiving import recorded
from tests.waiting import until
from uno_actors.outside import ReceivedMessage, forward, receive


async def test_what_no_queue_of_rabbitmq_takes_waits_for_one(rabbit_server: RabbitServer) -> None:
    broker = RabbitBroker(rabbit_server.url)
    await broker.connect()
    spec = forward("orders.>", to=RabbitBroker(rabbit_server.url), name="out", max_attempts=1)
    async with system_of(spec) as system:
        (event,) = await system.publisher.publish(sent(1, 10))
        await until(lambda: system.statistics().handlers["out"].failures >= 2)
        queue = await broker.declare_queue(RabbitQueue("orders.sent"))
        await system.settled()
        assert await system.store.dead_letters() == []
    message: Any = await queue.get()
    await message.ack()
    assert message.message_id == message.headers["ce-id"] == event.event.event_id
    assert (message.body, message.content_type, message.delivery_mode) == (
        b'{"total": 10}',
        "application/json",
        2,
    )
    await broker.stop()


async def test_messages_of_rabbitmq_are_recorded_once_and_in_order(rabbit_server: RabbitServer) -> None:
    broker = RabbitBroker(rabbit_server.url)
    await broker.connect()
    await broker.declare_queue(RabbitQueue("payments"))
    for number in (*range(20), 3, 7):
        await broker.publish({"order": "o", "amount": number}, "payments", message_id=f"p-{number}")
    await broker.publish(b"{bad", "payments", content_type="application/json", message_id="p-bad")
    spec = receive(
        RabbitBroker(rabbit_server.url), "payments", name="payments", event=PaymentSeen, max_attempts=1
    )
    async with system_of(spec) as system:

        async def is_bad_one_recorded() -> bool:
            return bool(await recorded(system, ReceivedMessage))

        await until(is_bad_one_recorded)
        await system.settled()
        seen = await recorded(system, PaymentSeen)
        assert [event.amount for event in seen] == [*range(20)]  # type: ignore[attr-defined]
        assert len(await system.store.dead_letters("payments")) == 1
    await broker.stop()


async def test_events_go_to_one_topic_of_kafka_with_the_aggregate_as_their_key() -> None:
    broker = KafkaBroker()
    came: list[Any] = []

    @broker.subscriber("orders")
    async def keep(message: Annotated[Any, Context("message")]) -> None:
        came.append(message)

    async with TestKafkaBroker(broker), system_of(forward("orders.>", to=broker)) as system:
        await system.publisher.publish(sent(1, 10), ended(1))
        await system.settled()
        await asyncio.sleep(0)
    assert [message.raw_message.key for message in came] == [b"order-1", b"order-1"]
    assert [message.headers["ce_type"] for message in came] == ["OrderSent", "OrderEnded"]
    assert came[0].body == b'{"total": 10}'
    assert came[0].headers["content-type"] == "application/json"
