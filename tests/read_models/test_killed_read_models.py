"""A read model whose process is killed at its writes counts each event once."""

import asyncio
import os
import signal
import sys
from pathlib import Path

import pytest
from sqlalchemy.ext.asyncio import create_async_engine

from tests.killing import kill_at_each_step
from tests.read_models.orders import Base, listed, placed
from uno_actors import open_store
from uno_actors.read_models import create_schema

WORKER = Path(__file__).with_name("killed_worker.py")
EVENTS = 8
FAILS = 4
"""This event cannot be counted."""


async def prepared(directory: Path) -> None:
    """A log to fill the tables from."""
    engine = create_async_engine(f"sqlite+aiosqlite:///{directory}/store.db")
    async with engine.begin() as connection:
        await connection.run_sync(Base.metadata.create_all)
    await create_schema(engine)
    await engine.dispose()
    async with open_store(f"lmdb:{directory}/log") as store:
        for number in range(EVENTS):
            await store.append(placed(number, amount=number, fails=number == FAILS))


async def run(directory: Path, kill_at: int) -> int:
    """The exit code of the worker."""
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
    worker = await asyncio.create_subprocess_exec(
        sys.executable, WORKER, directory, str(kill_at), env=environment, stderr=asyncio.subprocess.DEVNULL
    )
    return await worker.wait()


async def check(directory: Path) -> None:
    engine = create_async_engine(f"sqlite+aiosqlite:///{directory}/store.db")
    assert await listed(engine) == {f"order-{number}": number for number in range(EVENTS) if number != FAILS}
    await engine.dispose()
    async with open_store(f"lmdb:{directory}/log") as store:
        assert [letter.position for letter in await store.dead_letters("Orders")] == [FAILS + 1]


async def test_a_read_model_that_is_killed_again_and_again_counts_each_event_once(tmp_path: Path) -> None:
    await prepared(tmp_path)
    for kill_at in (4, 7, 10):
        assert await run(tmp_path, kill_at) in (-signal.SIGKILL, 0)
    assert await run(tmp_path, 0) == 0
    await check(tmp_path)


@pytest.mark.soak
async def test_a_read_model_that_is_killed_at_any_of_its_writes_counts_each_event_once(
    tmp_path: Path,
) -> None:
    async def attempt(directory: Path, kill_at: int) -> int:
        await prepared(directory)
        code = await run(directory, kill_at)
        assert await run(directory, 0) == 0
        await check(directory)
        return code

    assert await kill_at_each_step(tmp_path, attempt) > 20
