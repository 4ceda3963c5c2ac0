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

    In pairs, of which every second one is the other way round; the medians. Processor time of the whole process hardly
    depends on what else the machine does, and so shows what a rate on a busy machine does not.
    """
    found: dict[bool, list[float]] = {True: [], False: []}
    async with AsyncExitStack() as stack:
        refs = {}
        for is_on in found:
            path = stack.enter_context(directory())
            system = ActorSystem(f"lmdb:{path / 'store'}", handlers=[], recorder=is_on)
            await stack.enter_async_context(system)
            refs[is_on] = [system.aggregate(Account, f"account-{n}") for n in range(IN_FLIGHT)]
        for number in range(ROUNDS + 2):
            for is_on in (True, False) if number % 2 else (False, True):
                accounts = refs[is_on]
                gc.collect()
                began = time.process_time()
                await in_flight(
                    COMMANDS,
                    IN_FLIGHT,
                    lambda n, accounts=accounts: accounts[n % IN_FLIGHT].ask(Deposit(amount=1)),  # type: ignore[misc]
                )
                if number >= 2:
                    found[is_on].append(COMMANDS / (time.process_time() - began))
    return statistics.median(found[True]), statistics.median(found[False])


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
