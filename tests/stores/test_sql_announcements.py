"""Appends to PostgreSQL are announced after their commit, and are found even if the announcement is lost."""

import asyncio
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import asyncpg

from tests.machine import patience
from tests.postgres import postgres
from tests.waiting import until
from uno_actors import open_store
from uno_actors.testing.contract.events import Noted

APPEND_AND_DIE = """
import asyncio, os, signal, sys
from uno_actors import open_store
from uno_actors.testing.contract.events import Noted

async def main():
    store = open_store(sys.argv[1])
    # The listeners of the process itself are called between its commit and the announcement.
    store.on_commit(lambda: os.kill(os.getpid(), signal.SIGKILL))
    await store.append(Noted(text="the last"))
    await asyncio.sleep(60)

asyncio.run(main())
"""


@asynccontextmanager
async def announced(url: str) -> AsyncIterator[list[int]]:
    """The positions that PostgreSQL announces to a listener of the store ``url``."""
    user = url.partition("//")[2].partition("@")[0]
    connection: asyncpg.Connection[asyncpg.Record] = await postgres().connect(user)
    heard: list[int] = []
    channel = await connection.fetchval("SELECT 'uno_log_' || md5(current_schema())")
    await connection.add_listener(channel, lambda *call: heard.append(int(str(call[-1]))))
    try:
        yield heard
    finally:
        await connection.close()


async def test_appends_in_quick_succession_are_announced_together_and_the_last_one_always() -> None:
    url = await postgres().new_url()
    async with open_store(url) as store, announced(url) as heard:
        for _ in range(3):
            for _ in range(50):
                await store.append(Noted())
            end = await store.last_position()
            await until(lambda end=end: heard and heard[-1] == end)
        assert heard == sorted(set(heard))
        assert len(heard) < end


async def test_an_append_is_announced_though_its_store_is_closed_at_once() -> None:
    url = await postgres().new_url()
    async with announced(url) as heard:
        async with open_store(url) as store:
            await store.append(Noted())
            await store.append(Noted())
        await until(lambda: heard and heard[-1] == 2)


async def test_the_events_of_a_process_killed_between_commit_and_announcement_are_heard_of() -> None:
    url = await postgres().new_url()
    async with open_store(url) as store, announced(url) as heard:
        found: list[str] = []

        async def follow() -> None:
            async for _, event in store.subscribe(event_type=Noted):
                found.append(event.text)

        following = asyncio.create_task(follow())
        await until(lambda: store.statistics().listens)  # type: ignore[attr-defined]
        killed = await asyncio.create_subprocess_exec(sys.executable, "-c", APPEND_AND_DIE, url)
        assert await killed.wait() < 0
        await asyncio.wait_for(until(lambda: found), patience(5))
        assert found == ["the last"]
        assert heard == []  # nothing was announced
        await store.close()
        await following
