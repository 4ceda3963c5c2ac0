"""What it costs to observe a system: durable commands with and without."""

import gc
import io
import statistics
import time
from collections.abc import Callable, Mapping
from contextlib import AsyncExitStack

from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import ConsoleMetricExporter, PeriodicExportingMetricReader

from tests.benchmarks.accounts import Account, Deposit
from tests.benchmarks.measuring import Measured, directory, in_flight
from uno_actors import ActorSystem
from uno_actors.ops import Metrics

IN_FLIGHT = 1000
COMMANDS = 4000
ROUNDS = 40
"""Short and many: what is looked for is smaller than what a disk and a machine vary by from second to second."""

PAIRS, WARM = 150, 10
"""Pairs of runs with and without the flight recorder, and those before, in which its ring is filled."""

Watch = Callable[[ActorSystem], object]
"""Has a system observed that has not started yet."""


def nothing(system: ActorSystem) -> None: ...


def opentelemetry(system: ActorSystem) -> None:
    """Metrics through an SDK that exports every ten seconds, six times as often as by default."""
    exporter = ConsoleMetricExporter(out=io.StringIO())
    Metrics(system).opentelemetry(MeterProvider([PeriodicExportingMetricReader(exporter, 10_000)]))


WATCHES: Mapping[str, Watch] = {"nothing": nothing, "metrics": Metrics, "opentelemetry": opentelemetry}


async def rates() -> dict[str, float]:
    """The median rate of each way to be observed. The systems all run, and take turns; every second round backwards."""
    found: dict[str, list[float]] = {name: [] for name in WATCHES}
    async with AsyncExitStack() as stack:
        refs = {}
        for name, watch in WATCHES.items():
            path = stack.enter_context(directory())
            system = ActorSystem(f"lmdb:{path / 'store'}", handlers=[], name=name)
            watch(system)
            await stack.enter_async_context(system)
            refs[name] = [system.aggregate(Account, f"account-{n}") for n in range(IN_FLIGHT)]
        for number in range(ROUNDS + 2):
            for name in list(WATCHES)[:: 1 if number % 2 else -1]:
                accounts = refs[name]
                gc.collect()
                rate = await in_flight(
                    COMMANDS,
                    IN_FLIGHT,
                    lambda n, accounts=accounts: accounts[n % IN_FLIGHT].ask(Deposit(amount=1)),  # type: ignore[misc]
                )
                if number >= 2:  # before, the aggregates are loaded
                    found[name].append(rate)
    return {name: statistics.median(each) for name, each in found.items()}


async def recorded() -> tuple[float, float]:
    """Commands per second of processor time, with the flight recorder and without.

    In many short pairs, of which every second one is the other way round; the rate without, and the same divided by the
    median ratio of a pair. Processor time of the whole process depends less on what else the machine does than a rate.
    """
    costs: dict[bool, list[float]] = {True: [], False: []}
    async with AsyncExitStack() as stack:
        refs = {}
        for is_on in costs:
            path = stack.enter_context(directory())
            system = ActorSystem(f"lmdb:{path / 'store'}", handlers=[], recorder=is_on)
            await stack.enter_async_context(system)
            refs[is_on] = [system.aggregate(Account, f"account-{n}") for n in range(IN_FLIGHT)]
        gc.collect()
        for number in range(PAIRS + WARM):
            for is_on in (True, False) if number % 2 else (False, True):
                accounts = refs[is_on]
                began = time.process_time()
                await in_flight(
                    IN_FLIGHT,
                    IN_FLIGHT,
                    lambda n, accounts=accounts: accounts[n].ask(Deposit(amount=1)),  # type: ignore[misc]
                )
                if number >= WARM:
                    costs[is_on].append((time.process_time() - began) / IN_FLIGHT)
    ratio = statistics.median(on / off for on, off in zip(costs[True], costs[False], strict=True))
    without = 1 / statistics.median(costs[False])
    return without / ratio, without


async def observed() -> list[Measured]:
    rate = await rates()
    plain = rate["nothing"]
    with_recorder, without = await recorded()
    return [
        Measured(
            "durable commands per CPU second with the flight recorder",
            with_recorder,
            "without",
            without,
            0.97,
        ),
        Measured("durable commands/s with metrics", rate["metrics"], "without", plain, 0.95),
        Measured("  the same, through OpenTelemetry too", rate["opentelemetry"], "without", plain),
    ]
