"""A process that receives messages and is killed at any of its steps records each once, and loses none."""

import asyncio
import json
import os
import signal
import sys
from pathlib import Path

import pytest

from tests.killing import kill_at_each_step
from tests.outside.conftest import JetStream
from tests.outside.paying import BillPaid, PaymentSeen
from uno_actors import open_store

WORKER = Path(__file__).with_name("killed_receiver.py")
MESSAGES = 3


async def prepared(jetstream: JetStream) -> None:
    """A stream to read, and no consumer of it."""
    await jetstream.context.delete_stream("ALL")
    await jetstream.context.add_stream(name="ALL", subjects=["payments.>"])
    for number in range(1, MESSAGES + 1):
        body = json.dumps({"order": f"o-{number % 2}", "amount": number}).encode()
        await jetstream.context.publish("payments.made", body)


async def run(directory: Path, url: str, way: str, kill_at: int) -> int:
    """The exit code of the worker."""
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
    worker = await asyncio.create_subprocess_exec(
        sys.executable, WORKER, directory, url, way, str(kill_at),
        env=environment, stdout=asyncio.subprocess.DEVNULL, stderr=asyncio.subprocess.DEVNULL,
    )  # fmt: skip
    return await worker.wait()


async def check(directory: Path, way: str) -> None:
    kind = PaymentSeen if way == "event" else BillPaid
    async with open_store(f"lmdb:{directory}/log") as store:
        events = [each.event async for each in store.read_all() if isinstance(each.event, kind)]
        assert await store.dead_letters() == []
    assert sorted(event.amount for event in events) == [*range(1, MESSAGES + 1)]


@pytest.mark.parametrize("way", ["event", "command"])
async def test_a_receiver_that_is_killed_again_and_again_records_each_message_once(
    jetstream: JetStream, tmp_path: Path, way: str
) -> None:
    await prepared(jetstream)
    for kill_at in (4, 5, 6):
        assert await run(tmp_path, jetstream.url, way, kill_at) in (-signal.SIGKILL, 0)
    assert await run(tmp_path, jetstream.url, way, 0) == 0
    await check(tmp_path, way)


@pytest.mark.soak
@pytest.mark.parametrize("way", ["event", "command"])
async def test_a_receiver_that_is_killed_at_any_of_its_steps_records_each_message_once(
    jetstream: JetStream, tmp_path: Path, way: str
) -> None:
    async def attempt(directory: Path, kill_at: int) -> int:
        await prepared(jetstream)
        code = await run(directory, jetstream.url, way, kill_at)
        assert await run(directory, jetstream.url, way, 0) == 0
        await check(directory, way)
        return code

    assert await kill_at_each_step(tmp_path, attempt) > 4 * MESSAGES
