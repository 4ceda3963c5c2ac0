"""What it costs to observe a system: durable commands with and without."""

from collections.abc import Callable
from functools import partial

from tests.benchmarks.accounts import Account, Deposit
from tests.benchmarks.measuring import Measured, directory, in_flight, in_turn
from uno_actors import ActorSystem
from uno_actors.ops import Metrics

AGGREGATES = IN_FLIGHT = 1000
COMMANDS = 20_000
ROUNDS = 9
"""More than elsewhere: what is looked for is smaller than what a disk varies by."""

Watch = Callable[[ActorSystem], object]
"""Has a system observed that has not started yet."""


def nothing(system: ActorSystem) -> None: ...


async def watched_commands(watch: Watch) -> float:
    with directory() as path:
        system = ActorSystem(f"lmdb:{path / 'store'}", handlers=[])
        watch(system)
        async with system:
            refs = [system.aggregate(Account, f"account-{n}") for n in range(AGGREGATES)]
            return await in_flight(COMMANDS, IN_FLIGHT, lambda n: refs[n % AGGREGATES].ask(Deposit(amount=1)))


async def observed() -> list[Measured]:
    plain, metrics = await in_turn(
        partial(watched_commands, nothing), partial(watched_commands, Metrics), rounds=ROUNDS
    )
    return [Measured("durable commands/s with metrics", metrics, "without", plain, 0.95)]
