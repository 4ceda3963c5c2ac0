"""Messages of brokers are recorded once each, or become commands that take effect once; none is lost silently."""

import asyncio
import json
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from faststream.nats import NatsBroker
from faststream.redis import RedisBroker
from pydantic import AliasChoices, AliasPath, ConfigDict, Field
from pydantic.alias_generators import to_camel

from tests.broker_servers import RedisServer
from tests.faults import lease_is_lost
from tests.outside.conftest import JetStream
from tests.outside.paying import BillPaid, PaidOrder, PaymentSeen, pay
from tests.waiting import until
from uno_actors import ActorSystem, DomainEvent, InvalidHandler, StoreUnavailable, Supervisor
from uno_actors.backoff import Backoff
from uno_actors.handlers.spec import HandlerSpec
from uno_actors.outside import Message, ReceivedMessage, forward, receive
from uno_actors.outside.messages import stream_name
from uno_actors.testing.faults import failing

QUICK = Backoff(initial=0.01, max=0.05)


def receiver(jetstream: JetStream, **options: Any) -> HandlerSpec:
    given = {"name": "payments", "stream": "ALL", **options}
    return receive(NatsBroker(jetstream.url), "payments.>", **given)


def system_of(*specs: HandlerSpec, store: Any = "memory:") -> ActorSystem:
    quick = Supervisor("outside", specs, max_restarts=None, backoff=QUICK)
    return ActorSystem(store, name="shop", handlers=[], supervisors=[quick])


async def send(jetstream: JetStream, order: str, amount: object, **headers: str) -> None:
    body = json.dumps({"order": order, "amount": amount}).encode()
    await jetstream.context.publish("payments.made", body, headers=headers or None)


async def recorded(system: ActorSystem, kind: type[DomainEvent] = DomainEvent) -> list[DomainEvent]:
    return [each.event async for each in system.store.read_all() if isinstance(each.event, kind)]


async def acknowledged(jetstream: JetStream) -> bool:
    """Whether the broker knows that all messages were taken; for `until`."""
    return await jetstream.is_acknowledged("payments")


def cloud_event(id: str) -> dict[str, str]:
    """The headers of one, by which JetStream does not leave out what comes twice."""
    return {
        "ce-specversion": "1.0",
        "ce-id": id,
        "ce-source": "/bank",
        "ce-type": "paid",
        "ce-correlationid": "c-1",
        "content-type": "application/json",
    }


async def test_a_message_becomes_an_event_in_a_stream_of_its_own(jetstream: JetStream) -> None:
    await send(jetstream, "o-1", 10)
    await send(jetstream, "o-2", 20)
    async with system_of(receiver(jetstream, event=PaymentSeen)) as system:
        await until(lambda: acknowledged(jetstream))
        events = await recorded(system)
    assert [event.model_dump(include={"order", "amount"}) for event in events] == [
        {"order": "o-1", "amount": 10},
        {"order": "o-2", "amount": 20},
    ]
    assert [(event.aggregate_type, event.aggregate_id) for event in events] == [
        ("payments", "payments.made ALL/1"),
        ("payments", "payments.made ALL/2"),
    ]
    assert {event.topic for event in events} == {"payments.seen"}


async def test_a_message_that_comes_again_records_nothing(jetstream: JetStream) -> None:
    await send(jetstream, "o-1", 10, **cloud_event("p-1"))
    await send(jetstream, "o-1", 10, **cloud_event("p-1"))  # sent twice
    await send(jetstream, "o-1", 10, **{**cloud_event("p-1"), "ce-source": "/other-bank"})
    async with system_of(receiver(jetstream, event=PaymentSeen)) as system:
        await until(lambda: acknowledged(jetstream))
        events = await recorded(system)
        assert [event.aggregate_id for event in events] == ["/bank p-1", "/other-bank p-1"]
        assert {event.correlation_id for event in events} == {"c-1"}
        assert events[0].causation_id == "p-1"


@pytest.mark.parametrize("elsewhere", [1, 2], ids=["one in another stream", "all in other streams"])
async def test_one_message_may_become_several_events_of_other_streams_all_or_none(
    jetstream: JetStream, elsewhere: int
) -> None:
    def several(message: Message) -> list[DomainEvent]:
        order, amount = message.data["order"], message.data["amount"]
        place = {"aggregate_type": "Ledger", "aggregate_id": order} if elsewhere == 2 else {}
        return [
            PaymentSeen(order=order, amount=amount, **place),
            BillPaid(amount=amount, aggregate_type="PaidOrder", aggregate_id=order),
        ]

    for _ in range(2):
        await send(jetstream, "o-1", 10, **cloud_event("p-1"))
    async with system_of(receiver(jetstream, event=several)) as system:
        await until(lambda: acknowledged(jetstream))
        assert len(await recorded(system, PaymentSeen)) == len(await recorded(system, BillPaid)) == 1
        assert await system.aggregate(PaidOrder, "o-1").at(1)


async def test_a_message_becomes_a_command_that_takes_effect_once(
    jetstream: JetStream, tmp_path: Path
) -> None:
    """Also if it is sent twice, after the handler was reset, and when the aggregate has forgotten the command."""
    for _ in range(2):
        await send(jetstream, "o-1", 10, **cloud_event("p-1"))
    spec = receiver(jetstream, command=pay)
    quick = Supervisor("outside", [spec], max_restarts=None, backoff=QUICK)
    async with ActorSystem(
        f"lmdb:{tmp_path}/log", handlers=[], supervisors=[quick], remember_commands=0
    ) as system:
        await until(lambda: acknowledged(jetstream))
        await system.settled()
        for _ in range(2):
            await system.reset("payments", to="earliest")
            await system.settled()
        assert [event.amount for event in await recorded(system, BillPaid)] == [10]  # type: ignore[attr-defined]
        (message,) = await recorded(system, ReceivedMessage)
        (paid,) = await recorded(system, BillPaid)
        assert paid.correlation_id == "c-1"
        assert paid.causation_id != message.message_id


async def test_a_command_that_is_rejected_is_a_dead_letter_with_its_reason(jetstream: JetStream) -> None:
    await send(jetstream, "o-1", -5)
    await send(jetstream, "o-1", 5)
    async with system_of(receiver(jetstream, command=pay, max_attempts=2)) as system:
        await until(lambda: acknowledged(jetstream))
        await system.settled()
        (letter,) = await system.store.dead_letters("payments")
        assert letter.error == "CommandRejected: amount must be positive"
        assert len(await recorded(system, BillPaid)) == 1


@pytest.mark.parametrize(
    ("body", "headers"),
    [
        (b"{not json", {"content-type": "application/json"}),
        (b"\xff\xfe", {"content-type": "text/plain"}),
        (b'{"order": "o-1"}', {}),
        (b'{"order": "o-1", "amount": "many"}', {}),
        (b"[1, 2]", {}),
        (b"", {}),
        (b"{}", {"ce-specversion": "1.0", "ce-id": "x"}),
        (b'{"specversion": "1.0"}', {"content-type": "application/cloudevents+json"}),
        (b"nonsense", {"content-type": "application/cloudevents+json; charset=utf-8"}),
        (
            b"{}",
            {"ce-specversion": "1.0", "ce-id": "x", "ce-source": "/s", "ce-type": "t", "ce-time": "then"},
        ),
    ],
    ids=["JSON", "text", "missing", "type", "list", "empty", "binary", "structured", "nonsense", "time"],
)
async def test_a_message_that_cannot_be_read_is_seen_and_the_next_one_follows(
    jetstream: JetStream, body: bytes, headers: dict[str, str]
) -> None:
    await jetstream.context.publish("payments.made", body, headers=headers or None)
    await send(jetstream, "o-2", 20)
    async with system_of(receiver(jetstream, event=PaymentSeen, max_attempts=2)) as system:
        await until(lambda: acknowledged(jetstream))
        await system.settled()
        (letter,) = await system.store.dead_letters("payments")
        assert letter.error.startswith("UnreadableMessage: ")
        kept, good = await recorded(system)
        assert isinstance(kept, ReceivedMessage)
        assert kept.body == body
        assert isinstance(good, PaymentSeen)


async def test_a_dead_letter_is_recorded_once_after_the_program_was_repaired(jetstream: JetStream) -> None:
    broken = True

    def read(message: Message) -> PaymentSeen:
        if broken:
            raise LookupError("not yet")
        return message.read(PaymentSeen)

    await send(jetstream, "o-1", 10)
    async with system_of(receiver(jetstream, event=read, max_attempts=1)) as system:
        await until(lambda: acknowledged(jetstream))
        await system.settled()
        assert len(await system.store.dead_letters("payments")) == 1
        broken = False
        assert await system.retry_dead_letters("payments") == 1

        async def is_recorded() -> bool:
            return not await system.store.dead_letters("payments")

        await until(is_recorded)
        await system.reset("payments", to="earliest")  # even if it is handled once more
        await system.settled()
        (seen,) = await recorded(system, PaymentSeen)
        assert (seen.aggregate_id, seen.aggregate_version) == ("payments.made ALL/1", 2)


async def test_metadata_and_unknown_fields_are_not_taken_from_outside(jetstream: JetStream) -> None:
    fields = {
        "order": "o-1",
        "amount": 1,
        "aggregate_id": "admin",
        "topic": "orders.paid",
        "event_id": "1",
        "x": 2,
    }
    await jetstream.context.publish("payments.made", json.dumps(fields).encode())
    async with system_of(receiver(jetstream, event=PaymentSeen)) as system:
        await until(lambda: acknowledged(jetstream))
        (event,) = await recorded(system)
    assert (event.aggregate_id, event.topic) == ("payments.made ALL/1", "payments.seen")
    assert event.event_id != "1"


NOT_IDS = {"id": "\ud800", "source": "/b\x00", "correlationid": "\ud83d" + "c" * 2000}
"""Strings of JSON that no store can keep as ids."""


@pytest.mark.parametrize("by", ["event", "command", "neither"])
@pytest.mark.parametrize("field", NOT_IDS)
async def test_ids_that_no_store_can_keep_hold_up_no_message(
    jetstream: JetStream, field: str, by: str
) -> None:
    document = {"specversion": "1.0", "id": "1", "source": "/bank", "type": "paid"}
    document["data"] = {"order": "o-1", "amount": 1}  # type: ignore[assignment]
    as_it_is = {"Content-Type": "application/cloudevents+json"}
    for written in (
        {**document, field: NOT_IDS[field]},
        {**document, field: NOT_IDS[field]},
        {**document, "id": "2"},
    ):
        await jetstream.context.publish("payments.made", json.dumps(written).encode(), headers=as_it_is)
    options: dict[str, Any] = (
        {"event": PaymentSeen} if by == "event" else {"command": pay} if by == "command" else {}
    )
    aggregates = [PaidOrder] if by == "command" else []
    spec = receiver(jetstream, **options)
    async with ActorSystem("memory:", name="shop", handlers=[spec], aggregates=aggregates) as system:
        await until(lambda: acknowledged(jetstream))
        await system.settled()
        assert await system.store.dead_letters() == []
        kind = {"event": PaymentSeen, "command": BillPaid, "neither": ReceivedMessage}[by]
        assert len(await recorded(system, kind)) == 2  # the same message came twice


def a_message(**data: object) -> Message:
    return Message("1", "/station", None, None, None, "weather", {}, data, None)


class ReadingTaken(DomainEvent):
    celsius: float = Field(validation_alias=AliasChoices("temp", AliasPath("values", 0)))
    measured_at: datetime = Field(validation_alias="timestamp")
    station: str = Field(alias="stationId")


class WindMeasured(DomainEvent):
    model_config = ConfigDict(alias_generator=to_camel)
    wind_speed: float


@pytest.mark.parametrize("celsius", [{"temp": 1.5}, {"values": [1.5, 2]}])
def test_fields_are_read_by_each_of_their_aliases(celsius: dict[str, Any]) -> None:
    read = a_message(**celsius, timestamp="2026-01-01T00:00:00Z", stationId="s").read(ReadingTaken)
    assert (read.celsius, read.station, read.measured_at) == (1.5, "s", datetime(2026, 1, 1, tzinfo=UTC))
    assert read.timestamp != read.measured_at  # that of the event is its own


def test_metadata_are_not_taken_from_outside_by_their_aliases_either() -> None:
    data = {"windSpeed": 3, "aggregateId": "admin", "aggregateType": "User", "topic": "x", "eventId": "1"}
    read = a_message(**data).read(WindMeasured)
    assert read.wind_speed == 3
    assert (read.aggregate_id, read.aggregate_type, read.topic) == (None, None, None)
    assert read.event_id != "1"


async def test_a_store_that_is_away_delays_a_message_and_nothing_else(jetstream: JetStream) -> None:
    async with system_of(receiver(jetstream, event=PaymentSeen)) as system:
        with failing(system.store, "commit", StoreUnavailable("the disk", "away"), times=2):
            await send(jetstream, "o-1", 10)
            await until(lambda: acknowledged(jetstream))
        assert len(await recorded(system)) == 1


async def test_a_paused_receiver_takes_nothing_and_a_resumed_one_continues(jetstream: JetStream) -> None:
    async with system_of(receiver(jetstream, event=PaymentSeen)) as system:
        await send(jetstream, "o-1", 10)
        await until(lambda: acknowledged(jetstream))
        await system.pause("payments")
        await send(jetstream, "o-2", 20)
        await asyncio.sleep(0.3)
        assert len(await recorded(system)) == 1
        await system.resume("payments")
        await until(lambda: acknowledged(jetstream))
        assert len(await recorded(system)) == 2


async def test_a_server_that_is_away_at_the_start_is_waited_for(jetstream: JetStream) -> None:
    jetstream.server.stop()
    async with system_of(receiver(jetstream, event=PaymentSeen)) as system:
        await until(lambda: system.statistics().handlers["payments"].failures or True)
        jetstream.server.start()
        await until(lambda: jetstream.client.is_connected)
        await send(jetstream, "o-1", 10)

        async def is_recorded() -> bool:
            return bool(await recorded(system))

        await until(is_recorded)


async def test_it_stops_and_starts_again_and_takes_what_came_in_between(
    jetstream: JetStream, tmp_path: Path
) -> None:
    spec = receiver(jetstream, event=PaymentSeen)
    store = f"lmdb:{tmp_path}/log"
    for number in range(1, 4):
        await send(jetstream, f"o-{number}", number)
        async with system_of(spec, store=store) as system:
            await until(lambda: acknowledged(jetstream))
            assert len(await recorded(system)) == number


async def test_an_event_goes_out_of_one_system_and_into_another(jetstream: JetStream) -> None:
    """With its correlation, in either mode."""
    for number, mode in enumerate(("binary", "structured")):
        way_out = forward("payments.>", to=NatsBroker(jetstream.url), mode=mode, source=f"/bank{number}")  # type: ignore[arg-type]
        async with ActorSystem(name="bank", handlers=[way_out]) as bank:
            await bank.publisher.publish(PaymentSeen(order="o-1", amount=1, correlation_id="c-1"))
            await bank.settled()
    async with system_of(receiver(jetstream, event=PaymentSeen)) as system:
        await until(lambda: acknowledged(jetstream))
        events = await recorded(system, PaymentSeen)
    assert [event.correlation_id for event in events] == ["c-1", "c-1"]


async def test_messages_of_a_stream_of_redis_are_recorded_once(redis_server: RedisServer) -> None:
    writer = RedisBroker(redis_server.url)
    client = await writer.connect()
    await writer.publish({"order": "o-1", "amount": 10}, stream="payments")
    await client.xadd("payments", {"order": "o-2", "amount": "20"})  # by a program without FastStream
    specs = [
        receive(
            RedisBroker(redis_server.url), "payments", name="payments", event=PaymentSeen, claim_after=0.2
        )
        for _ in range(2)
    ]
    async with system_of(specs[0]) as system:

        async def all_acknowledged() -> bool:
            last = (await client.xinfo_stream("payments"))["last-generated-id"]
            groups = await client.xinfo_groups("payments")  # none before the receiver has begun
            return [(group["pending"], group["last-delivered-id"]) for group in groups] == [(0, last)]

        await until(all_acknowledged)
        with failing(system.store, "commit", StoreUnavailable("the disk", "away"), times=3):
            await writer.publish({"order": "o-3", "amount": 30}, stream="payments")
            await until(all_acknowledged)  # it may be claimed, and come twice
        found = sorted(event.amount for event in await recorded(system, PaymentSeen))  # type: ignore[attr-defined]
    assert found == [10, 20, 30]
    await writer.stop()


# --- rules -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("broker", "options", "message"),
    [
        (NatsBroker(), {}, "without a stream forgets"),
        (NatsBroker(), {"stream": "S", "ack_policy": None}, "ack_policy cannot be given"),
        (RedisBroker(), {"list": "x"}, "list cannot be given"),
        (object(), {}, "give a broker of FastStream"),
        (RedisBroker(), {"event": PaymentSeen, "command": pay}, "not both"),
        (RedisBroker(), {"event": 3}, "not a function of a Message"),
        (RedisBroker(), {"event": int}, "not a class of events"),
        (RedisBroker(), {"name": "a@b"}, "no NUL and no @"),
    ],
    ids=["core", "policy", "list", "broker", "both", "number", "class", "name"],
)
def test_what_could_lose_messages_is_refused_when_it_is_written(
    broker: Any, options: dict[str, Any], message: str
) -> None:
    with pytest.raises(InvalidHandler, match=message):
        receive(broker, "payments", **{"name": "payments", **options})


async def test_a_function_that_awaits_is_refused() -> None:
    async def read(message: Message) -> None: ...

    with pytest.raises(InvalidHandler, match="a plain function"):
        receive(RedisBroker(), "payments", name="payments", event=read)  # type: ignore[arg-type]


def test_streams_are_named_after_source_and_id_as_far_as_they_can() -> None:
    assert stream_name("/bank", "p-1") == "/bank p-1"
    long, other = stream_name("/bank", "p" * 500), stream_name("/bank" + "p" * 500, "p")
    assert len(long) == len(other) == len(stream_name("/bank", "a\0b")) == 32
    assert long != other


async def test_a_process_that_has_lost_the_handler_gives_a_message_back(jetstream: JetStream) -> None:
    async with system_of(receiver(jetstream, event=PaymentSeen)) as system:
        await send(jetstream, "o-1", 1)
        await until(lambda: acknowledged(jetstream))
        lease_is_lost(system, "payments")
        await send(jetstream, "o-2", 2)
        await until(lambda: acknowledged(jetstream))
        assert len(await recorded(system)) == 2
        info = await jetstream.context.consumer_info("ALL", "payments")
        assert info.delivered.consumer_seq == 3  # it was given back, and taken later
