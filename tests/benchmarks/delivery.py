"""Handlers beside the commands, and catching up."""

import time
from functools import partial
from typing import Any

from tests.benchmarks.accounts import Account, Deposit, Deposited
from tests.benchmarks.durable import IN_FLIGHT, our_commands
from tests.benchmarks.measuring import Measured, directory, in_flight, in_turn, rate
from uno_actors import (
    ActorSystem,
    EventPriority,
    subscribe,
)
from uno_stores import LmdbEventStore


async def delivery(events: int = 20_000) -> list[Measured]:
    count = 0

    def handler(name: str, priority: EventPriority) -> Any:
        @subscribe(topic_pattern="accounts.*", priority=priority, name=name, start="earliest")
        async def handle(event: Deposited) -> None:
            nonlocal count
            count += 1

        return handle

    three = [handler(priority.name, priority) for priority in EventPriority]

    async def end_to_end() -> float:
        with directory() as path:
            async with ActorSystem(f"lmdb:{path / 'store'}", handlers=three) as system:
                refs = [system.aggregate(Account, f"account-{n}") for n in range(1000)]
                started = time.perf_counter()
                await in_flight(events, IN_FLIGHT, lambda n: refs[n % 1000].ask(Deposit(amount=1)))
                await system.settled()
                return rate(events, started)

    handled, alone = await in_turn(end_to_end, partial(our_commands, 1000))
    with directory() as path:
        async with LmdbEventStore(path / "store") as store:
            made = [Deposited(amount=1, aggregate_id=f"account-{n % 1000}") for n in range(events)]
            await store.append(*made)
            names = iter(range(1000))

            async def catch_up() -> float:
                late = handler(f"late-{next(names)}", EventPriority.NORMAL)
                async with ActorSystem(store, handlers=[late]) as system:
                    started = time.perf_counter()
                    await system.settled()
                    return rate(events, started)

            async def reading() -> float:
                started = time.perf_counter()
                async for _ in store.read_all():
                    pass
                return rate(events, started)

            caught_up, read = await in_turn(catch_up, reading)
    return [
        Measured("durable commands/s until three handlers are done", handled, "commands alone", alone, 0.7),
        Measured(
            "events/s of one handler catching up", caught_up, "reading and decoding alone", read, 75 / 180
        ),
    ]
