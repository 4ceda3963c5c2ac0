"""Commands whose senders wait for a handler, beside the plain commands: how long one of them takes."""

import statistics
import time
from collections.abc import Callable
from typing import Any

from tests.benchmarks.accounts import Account, Deposit, Deposited
from tests.benchmarks.measuring import Measured, directory
from uno_actors import ActorSystem, Projection, subscribe

ROUNDS = 50
COMMANDS = 20


class Sums(Projection[Deposited, str]):
    """The sum of the amounts of each account."""

    async def handle(self, event: Deposited) -> None:
        key = event.aggregate_id or ""
        self.view.put(key, await self.view.get(key, 0) + event.amount)


@subscribe(name="waited for by the benchmark")
async def counted(event: Deposited) -> None:
    """Stands for a handler that writes somewhere else."""


async def waited() -> list[Measured]:
    rows = []
    for what, handler in (("a handler", counted), ("a view", Sums)):
        waiting, plain = await _medians(handler)
        rows.append(
            Measured(
                f"durable commands/s one at a time, waiting for {what} (median)",
                1 / waiting,
                "the same without waiting",
                1 / plain,
                0.5,
            )
        )
    return rows


async def _medians(handler: Any) -> tuple[float, float]:
    """Seconds of a command that waits and of one that does not, both with the handler, taken in turn."""
    waiting: list[float] = []
    plain: list[float] = []
    with directory() as path:
        async with ActorSystem(f"lmdb:{path / 'store'}", aggregates=[Account], handlers=[handler]) as system:
            account = system.aggregate(Account, "alice")
            await _timed(lambda: account.ask(Deposit(amount=1), wait_for=handler), [])
            for _ in range(ROUNDS):
                await _timed(lambda: account.ask(Deposit(amount=1)), plain)
                await system.settled()
                await _timed(lambda: account.ask(Deposit(amount=1), wait_for=handler), waiting)
    return statistics.median(waiting), statistics.median(plain)


async def _timed(one: Callable[[], Any], seconds: list[float]) -> None:
    for _ in range(COMMANDS):
        began = time.perf_counter()
        await one()
        seconds.append(time.perf_counter() - began)
