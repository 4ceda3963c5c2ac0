"""Situations of which users of other libraries have told: what is sent, and what is received, all the same."""

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from faststream.nats import NatsBroker
from faststream.redis import RedisBroker

from tests.broker_servers import RedisServer
from tests.outside.conftest import JetStream
from tests.outside.paying import PaidOrder, PaymentSeen, pay
from tests.outside.shop import sent
from tests.outside.test_forwarding import Place, system_of
from tests.outside.test_receiving import acknowledged, receiver, recorded, send
from tests.outside.test_receiving import system_of as serving_system_of
from tests.postgres import postgres
from tests.waiting import until
from uno_actors import DomainEvent, InvalidHandler, open_store
from uno_actors.outside import forward, receive, receiving
from uno_actors.outside.subscribers import start


async def test_an_event_that_is_too_large_for_the_broker_does_not_hold_up_the_others(
    jetstream: JetStream,
) -> None:
    spec = forward(
        "orders.>",
        to=NatsBroker(jetstream.url),
        max_attempts=2,
        data=lambda event: {"text": "x" * 2_000_000} if event.aggregate_id == "order-1" else {},
    )
    async with system_of(spec) as system:
        await system.publisher.publish(sent(1), sent(2))
        await system.settled()
        (letter,) = await system.store.dead_letters()
    assert letter.position == 1
    assert "maximum payload exceeded" in letter.error
    (message,) = await jetstream.messages()
    assert message.headers["ce-subject"] == "order-2"


class WithBytes(DomainEvent):
    key: bytes
    topic: str = "orders.keyed"


async def test_an_event_that_json_cannot_hold_is_set_aside_and_says_why() -> None:
    place = Place()
    async with system_of(forward("orders.>", to=place, max_attempts=1)) as system:
        await system.publisher.publish(WithBytes(key=b"\xff"), sent(2))
        await system.settled()
        (letter,) = await system.store.dead_letters()
    assert "utf-8" in letter.error
    assert len(place.taken) == 1


async def test_ids_in_any_writing_and_topics_of_any_depth_arrive(jetstream: JetStream) -> None:
    async with system_of(forward("orders.>", to=NatsBroker(jetstream.url))) as system:
        await system.publisher.publish(
            sent(1).stamped(aggregate_id="Größe 30 %\n中", topic="orders.eu.de.sent"),
        )
        await system.settled()
    (message,) = await jetstream.messages()
    assert message.subject == "orders.eu.de.sent"
    assert message.headers["ce-subject"] == "Gr%C3%B6%C3%9Fe%2030%20%25%0A%E4%B8%AD"


async def test_partitions_share_a_destination() -> None:
    place = Place()
    async with system_of(forward("orders.>", to=place, partitioned=4)) as system:
        await system.publisher.publish(*(sent(number % 5, number) for number in range(20)))
        await system.settled()
    totals: dict[str | None, list[Any]] = {}
    for each in place.taken:
        totals.setdefault(each.event.aggregate_id, []).append(each.cloud_event.get_data())
    assert totals == {
        f"order-{order}": [{"total": number} for number in range(order, 20, 5)] for order in range(5)
    }


async def test_another_node_receives_when_the_first_one_ends(jetstream: JetStream) -> None:
    store = open_store("memory:")
    first = system_of(receiver(jetstream, event=PaymentSeen), store=store)
    second = system_of(receiver(jetstream, event=PaymentSeen), store=store)
    async with first:
        await until(lambda: first.statistics().handlers["payments"].state == "live")
        await second.start()
        assert second.statistics().handlers["payments"].state == "standby"
        await send(jetstream, "o-1", 1)
        await until(lambda: acknowledged(jetstream))
    await until(lambda: second.statistics().handlers["payments"].state == "live")
    await send(jetstream, "o-2", 2)
    await until(lambda: acknowledged(jetstream))
    assert [event.order for event in await recorded(second, PaymentSeen)] == ["o-1", "o-2"]  # type: ignore[attr-defined]
    await second.stop()


CONFIGURED = """
from uno_actors import DomainEvent
from uno_actors.outside import Destination, forward

class Shown(DomainEvent):
    topic: str = "shown.now"

class Screen(Destination):
    kind = "screen"
    async def send(self, outgoing):
        print("sent", outgoing.cloud_event.get_source(), outgoing.address)

shown = forward("shown.>", to=Screen())
"""
FILE = """
[system]
name = "desk"

[aggregates]
types = []

[[supervisors]]
name = "outside"
max_restarts = "unlimited"
backoff = { initial = "5s", max = "1h" }

  [[supervisors.handlers]]
  handler = "outward:shown"
  max_attempts = 20
"""
PROGRAM = """
import asyncio
from uno_actors import ActorSystem
from outward import Shown

async def main():
    system = ActorSystem.from_config("desk.toml")
    async with system:
        await system.publisher.publish(Shown())
        await system.settled()
        (info,) = await system.handlers()
        print(info.name)

asyncio.run(main())
"""


def test_a_configuration_file_names_what_forwards(tmp_path: Path) -> None:
    for name, text in (("outward.py", CONFIGURED), ("desk.toml", FILE), ("program.py", PROGRAM)):
        (tmp_path / name).write_text(text)
    run = subprocess.run(
        [sys.executable, "program.py"], cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert (run.stdout, run.returncode) == ("sent /desk shown.now\nforward shown.> to screen\n", 0), (
        run.stderr
    )
    command = Path(sys.executable).with_name("uno-actors")
    check = subprocess.run(
        [command, "check", "desk.toml"], cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert check.returncode == 0, check.stdout + check.stderr


@pytest.mark.parametrize(
    ("name", "library", "extra"),
    [
        ("forward", "cloudevents", "brokers"),
        ("receive", "faststream", "brokers"),
        ("Webhook", "httpcore", "webhooks"),
        ("Webhook", "standardwebhooks", "webhooks"),
    ],
)
def test_a_missing_library_is_named_with_the_extra_that_brings_it(
    name: str, library: str, extra: str
) -> None:
    program = (
        f"import sys; sys.modules[{library!r}] = None\n"
        "import uno_actors.outside as outside\n"
        f"try: outside.{name}\n"
        "except ImportError as error: print(type(error).__name__, error)"
    )
    run = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert run.stdout.startswith(f"MissingExtra uno_actors.outside.{name} needs"), run.stdout + run.stderr
    assert f"uno-actors[{extra}]" in run.stdout


def test_the_half_without_brokers_needs_none_of_their_libraries() -> None:
    program = (
        "import sys\n"
        "for name in ('cloudevents', 'faststream', 'httpcore', 'standardwebhooks'): sys.modules[name] = None\n"
        "import uno_actors, uno_actors.outside; uno_actors.ActorSystem; print('well')"
    )
    run = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert run.stdout == "well\n", run.stderr


def test_webhooks_need_no_broker() -> None:
    program = (
        "import sys; sys.modules['faststream'] = None\n"
        "from uno_actors.outside import Webhook, forward\n"
        "print(forward('a.>', to=Webhook('https://h.example', 'c2VjcmV0' * 4)).name)"
    )
    run = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert run.stdout == "forward a.> to webhook\n", run.stderr


async def test_a_consumer_that_was_removed_at_the_server_is_made_again(jetstream: JetStream) -> None:
    async with system_of(receiver(jetstream, event=PaymentSeen)) as system:
        await send(jetstream, "o-1", 1)
        await until(lambda: acknowledged(jetstream))
        await jetstream.context.delete_consumer("ALL", "payments")
        await send(jetstream, "o-2", 2)
        await until(lambda: acknowledged(jetstream))
        seen = await recorded(system, PaymentSeen)
    assert [event.order for event in seen] == ["o-1", "o-2"]  # type: ignore[attr-defined]


async def test_a_group_that_redis_has_forgotten_is_made_again(redis_server: RedisServer) -> None:
    writer = RedisBroker(redis_server.url)
    client = await writer.connect()
    spec = receive(RedisBroker(redis_server.url), "payments", name="payments", event=PaymentSeen)
    async with system_of(spec) as system:

        async def are_recorded(*orders: str) -> bool:
            return [event.order for event in await recorded(system, PaymentSeen)] == [*orders]  # type: ignore[attr-defined]

        await writer.publish({"order": "o-1", "amount": 1}, stream="payments")
        await until(lambda: are_recorded("o-1"))
        await client.xgroup_destroy("payments", "payments")
        await writer.publish({"order": "o-2", "amount": 2}, stream="payments")
        await until(lambda: are_recorded("o-1", "o-2"))  # both come again, and the first is recognised
    await writer.stop()


async def test_a_group_that_redis_forgets_while_it_is_subscribed_to_loses_no_message(
    redis_server: RedisServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    writer = RedisBroker(redis_server.url)
    client = await writer.connect()
    started = list[Any]()

    async def forgotten_between(subscriber: Any, kind: str) -> None:
        if len(started) == 1:  # one reads, and one claims what a killed process had taken
            await client.xgroup_destroy("payments", "payments")
            await writer.publish({"order": "o-1", "amount": 1}, stream="payments")
        started.append(subscriber)
        await start(subscriber, kind)

    monkeypatch.setattr(receiving, "start", forgotten_between)
    spec = receive(RedisBroker(redis_server.url), "payments", name="payments", event=PaymentSeen)
    async with system_of(spec) as system:

        async def is_recorded() -> bool:
            return len(await recorded(system, PaymentSeen)) == 1

        await until(is_recorded)
    await writer.stop()


@pytest.mark.parametrize("logs", [1, 2])
async def test_nodes_share_what_follows_from_messages(jetstream: JetStream, logs: int) -> None:
    url = "memory:" if logs == 1 else f"{await postgres().new_url()}&logs={logs}"
    for number in range(8):
        await send(jetstream, f"o-{number}", number + 1)
    spec = receiver(jetstream, command=pay, partitioned=2)
    async with serving_system_of(spec, store=url) as system:
        await until(lambda: acknowledged(jetstream))
        await system.settled()
        assert [info.dead_letters for info in await system.handlers()] == [0]
        paid = [await system.aggregate(PaidOrder, f"o-{number}").at(1) for number in range(8)]
    assert [order.paid for order in paid] == [*range(1, 9)]


async def test_one_receiver_does_not_record_for_two_systems(jetstream: JetStream) -> None:
    """As when one that is made at the top of a module is given to the system of each tenant."""
    spec = receiver(jetstream, event=PaymentSeen)
    async with system_of(spec) as first:
        with pytest.raises(InvalidHandler, match="make one for each system"):
            await system_of(spec).start()
        await send(jetstream, "o-1", 1)
        await until(lambda: acknowledged(jetstream))
        assert len(await recorded(first, PaymentSeen)) == 1
    async with system_of(spec) as later:
        await send(jetstream, "o-2", 2)
        await until(lambda: acknowledged(jetstream))
        assert len(await recorded(later, PaymentSeen)) == 1
