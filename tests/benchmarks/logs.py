"""Single appends of many writers to PostgreSQL: to one log, where each waits for the others, and to 64."""

import asyncio
import itertools
import time
from contextlib import AsyncExitStack

from tests.benchmarks.accounts import Deposited
from tests.benchmarks.measuring import Measured, in_turn, rate
from tests.postgres import PostgresServer
from uno_actors import open_store
from uno_actors.store.port import EventStore

WRITERS = 16
SECONDS = 3.0


async def single_appends(url: str, number: int) -> float:
    """Appends each second of as many stores, each with one under way and with streams of its own."""
    async with AsyncExitStack() as stack:
        stores = [await stack.enter_async_context(open_store(url)) for _ in range(WRITERS)]
        names = itertools.count()

        async def append(store: EventStore) -> None:
            name = f"account-{number}-{next(names)}"
            await store.append(
                Deposited(amount=1, aggregate_id=name, aggregate_type="Account"), expected_version=0
            )

        async def writer(store: EventStore) -> int:
            done = 0
            while time.perf_counter() < started + SECONDS:
                await append(store)
                done += 1
            return done

        await asyncio.gather(*(append(store) for store in stores))  # all are connected
        started = time.perf_counter()
        return rate(sum(await asyncio.gather(*map(writer, stores))), started)


async def logs() -> list[Measured]:
    """64 logs beside one, on the same server, which syncs to disk for both."""
    server = PostgresServer()
    try:
        one, many = await server.new_url(), f"{await server.new_url()}&logs=64"
        rounds = itertools.count()
        ours, theirs = await in_turn(
            lambda: single_appends(many, next(rounds)), lambda: single_appends(one, next(rounds))
        )
    finally:
        server.remove()
    return [Measured("single appends, 16 writers: 64 logs", ours, "one log", theirs, 5)]
