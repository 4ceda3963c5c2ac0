"""A process that forwards events and is killed at any of its steps loses none, and keeps their order."""

import asyncio
import os
import signal
import sys
from pathlib import Path

import pytest

from tests.killing import kill_at_each_step
from tests.outside.conftest import JetStream
from tests.outside.shop import sent
from uno_actors import open_store

WORKER = Path(__file__).with_name("killed_forwarder.py")
EVENTS = 5


async def prepared(directory: Path) -> list[str]:
    """A log to forward; the ids of its events."""
    async with open_store(f"lmdb:{directory}/log") as store:
        events = [sent(number % 2, number) for number in range(EVENTS)]
        for event in events:
            await store.append(event)
    return [event.event_id for event in events]


async def run(directory: Path, url: str, kill_at: int) -> int:
    """The exit code of the worker."""
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
    worker = await asyncio.create_subprocess_exec(
        sys.executable,
        WORKER,
        directory,
        url,
        str(kill_at),
        env=environment,
        stderr=asyncio.subprocess.DEVNULL,
    )
    return await worker.wait()


async def check(jetstream: JetStream, ids: list[str]) -> None:
    """JetStream leaves out what it has got already, by its id."""
    assert [message.headers["ce-id"] for message in await jetstream.messages()] == ids
    await jetstream.context.purge_stream("ALL")


async def test_a_forwarder_that_is_killed_again_and_again_loses_nothing(
    jetstream: JetStream, tmp_path: Path
) -> None:
    ids = await prepared(tmp_path)
    for kill_at in (2, 3, 4):
        assert await run(tmp_path, jetstream.url, kill_at) == -signal.SIGKILL
    assert await run(tmp_path, jetstream.url, 0) == 0
    await check(jetstream, ids)


@pytest.mark.soak
async def test_a_forwarder_that_is_killed_at_any_of_its_steps_loses_nothing(
    jetstream: JetStream, tmp_path: Path
) -> None:
    async def attempt(directory: Path, kill_at: int) -> int:
        ids = await prepared(directory)
        code = await run(directory, jetstream.url, kill_at)
        assert await run(directory, jetstream.url, 0) == 0
        await check(jetstream, ids)
        return code

    assert await kill_at_each_step(tmp_path, attempt) > 2 * EVENTS
