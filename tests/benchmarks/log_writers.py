"""One process of writers of single events; `logs.appended` starts it.

Usage: log_writers.py JSON, the arguments of `main`. It prints ``ready``, begins at a line on standard input, and
prints how many events its writers have recorded and the seconds of processor that they took.
"""

import asyncio
import itertools
import json
import sys
import time
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack
from typing import Any, Literal
from zlib import crc32

import asyncpg
from sqlalchemy import make_url

from tests.benchmarks.accounts import Deposited
from uno_actors import open_store
from uno_actors.store.port import EventStore

BARE_APPEND = """
    WITH moved AS (UPDATE bare_head SET last = last + 1 WHERE id = $1 RETURNING last)
    INSERT INTO bare_log SELECT $1, moved.last, $2, 1, $3 FROM moved
"""
PAYLOAD = bytes(120)

Way = Literal["alone", "together", "bare"]
"""Each writer has a store of its own, all have one store, or there is no store but SQL."""
Append = Callable[[str], Awaitable[object]]
"""Records one event, the first one of the stream of this name."""


async def ours(stack: AsyncExitStack, url: str) -> Append:
    """By a store of this project."""
    store: EventStore = await stack.enter_async_context(open_store(url))

    async def append(name: str) -> None:
        event = Deposited(amount=1, aggregate_id=name, aggregate_type="Account")
        await store.append(event, expected_version=0)

    return append


async def bare(stack: AsyncExitStack, url: str, heads: int) -> Append:
    """By the least that does the same: one prepared statement that takes the next place of one head."""
    found = make_url(url)
    connection = await asyncpg.connect(host=found.query["host"], user=found.username, database=found.database)
    stack.push_async_callback(connection.close)
    prepared = await connection.prepare(BARE_APPEND)

    async def append(name: str) -> None:
        await prepared.fetchval(crc32(name.encode()) % heads, name, PAYLOAD)

    return append


async def made(stack: AsyncExitStack, url: str, way: Way, heads: int, writers: int) -> list[Append]:
    """What each of the writers calls."""
    if way == "together":
        return [await ours(stack, url)] * writers
    return [await (ours(stack, url) if way == "alone" else bare(stack, url, heads)) for _ in range(writers)]


async def main(*, url: str, way: Way, heads: int, writers: int, seconds: float, number: str) -> None:
    lines = asyncio.StreamReader()
    await asyncio.get_running_loop().connect_read_pipe(lambda: asyncio.StreamReaderProtocol(lines), sys.stdin)
    names = (f"account-{number}-{n}" for n in itertools.count())
    async with AsyncExitStack() as stack:
        appends = await made(stack, url, way, heads, writers)
        await asyncio.gather(*(append(next(names)) for append in appends))  # all are connected
        print("ready", flush=True)
        await lines.readline()
        end = time.perf_counter() + seconds
        used = time.process_time()

        async def writer(append: Append) -> int:
            done = 0
            while time.perf_counter() < end:
                await append(next(names))
                done += 1
            return done

        done: dict[str, Any] = {"count": sum(await asyncio.gather(*map(writer, appends)))}
        print(json.dumps(done | {"cpu": time.process_time() - used}), flush=True)
        await lines.readline()  # the other processes have ended too


if __name__ == "__main__":
    asyncio.run(main(**json.loads(sys.argv[1])))
