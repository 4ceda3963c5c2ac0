"""What worker processes are worth on a machine of two cores: commands on both, and handlers out of their way.

The clients of `two_cores` are one process. They take no core from one process that serves, but they do from two
workers: if a command takes the time `s` of a worker and `c` of the clients, two cores can serve 2 / (s + c) commands
per second and one process 1 / s. Both times are printed with each measurement, and the ratio that they allow.
"""

import asyncio
import json
import os
import signal
import statistics
import sys
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.benchmarks.measuring import Measured, directory, in_flight, processor_seconds
from tests.benchmarks.nodes import environment
from tests.benchmarks.priced import Offer, Price
from uno_actors import ActorSystem, Cluster
from uno_actors.cluster.settings import Role

ROOT = Path(__file__).parents[2]
COMMAND = Path(sys.executable).with_name("uno-actors")
FLIGHTS_PROGRAM = Path(__file__).with_name("flown.py")
OFFERS = 500
COMMANDS = 4_000
CLIENTS = 200
ROUNDS = 3

FILE = """\
[system]
name = "offers"
store = "lmdb:store"
[aggregates]
types = ["tests.benchmarks.priced:Offer"]
[cluster]
[logging]
level = "warning"
"""


@asynccontextmanager
async def service(place: Path, *options: str) -> AsyncIterator[tuple[str, int]]:
    """``uno-actors run`` in a directory; the URL of its store, and the id of its process."""
    file = place / "offers.toml"
    file.write_text(FILE, encoding="utf-8")
    process = await asyncio.create_subprocess_exec(
        COMMAND, "run", file, *options, env=environment() | {"PYTHONPATH": str(ROOT)}
    )
    try:
        yield f"lmdb:{place}/store", process.pid
    finally:
        process.send_signal(signal.SIGTERM)
        await process.wait()


@dataclass(frozen=True)
class Served:
    """Commands per second, and the seconds of processor that one took the service and the clients."""

    rate: float
    service: float
    clients: float

    def __str__(self) -> str:
        return f"{self.rate:,.0f}/s ({1000 * self.service:.2f} + {1000 * self.clients:.2f} ms)"


async def quoted(*options: str, nodes: int) -> Served:
    """What clients in this process, which owns no aggregates, have answered."""
    client = Cluster(roles=("handlers",))
    with directory() as place:
        async with (
            service(place, *options) as (url, process),
            ActorSystem(url, aggregates=[Offer], handlers=[], cluster=client) as system,
        ):
            while len(system.cluster.members()) != nodes + 1:  # noqa: ASYNC110 - it has many causes
                await asyncio.sleep(0.01)

            async def ask(number: int) -> None:
                await system.aggregate(Offer, f"offer-{number % OFFERS}").ask(Price(amount=number))

            await in_flight(COMMANDS // 4, CLIENTS, ask)
            served, asked = processor_seconds(process), time.process_time()
            rate = await in_flight(COMMANDS, CLIENTS, ask)
            asked = time.process_time() - asked
            return Served(rate, (processor_seconds(process) - served) / COMMANDS, asked / COMMANDS)


async def two_cores() -> list[Measured]:
    """Commands of clients outside, served by two workers and by one process."""
    one, two = [], []
    for _ in range(ROUNDS):
        one.append(await quoted(nodes=1))
        two.append(await quoted("--workers", "2", nodes=2))
        allowed = 2 * one[-1].service / (two[-1].service + two[-1].clients)
        print(
            f"one process {one[-1]}, two workers {two[-1]}, ratio allowed by two cores {allowed:.2f},"
            f" load {os.getloadavg()[0]:.1f}",
            flush=True,
        )
    what = "commands/s, LMDB, --workers 2, clients outside"
    rates = [statistics.median(each.rate for each in measured) for measured in (two, one)]
    return [Measured(what, rates[0], "one process", rates[1], 1.5)]


async def flown(url: str, *nodes: tuple[Sequence[Role], bool]) -> list[dict[str, Any]]:
    """What each node has measured; a node has roles, and may send commands."""
    processes = []
    for roles, sends in nodes:
        work = json.dumps({"url": url, "roles": roles, "sends": sends, "nodes": len(nodes)})
        processes.append(
            await asyncio.create_subprocess_exec(
                sys.executable, FLIGHTS_PROGRAM, work, stdout=asyncio.subprocess.PIPE, env=environment()
            )
        )
    return [json.loads((await process.communicate())[0]) for process in processes]


async def handlers_apart() -> list[Measured]:
    """Events of the flights for a plain function: beside a busy event loop, and in a process of its own."""
    beside, apart, recorded = [], [], []
    for _ in range(ROUNDS):
        with directory() as place:
            (both,) = await flown(f"lmdb:{place}/store", (("aggregates", "handlers"), True))
        with directory() as place:
            serving, handling = await flown(
                f"lmdb:{place}/store", (("aggregates",), True), (("handlers",), False)
            )
        beside.append(both["handled"])
        apart.append(handling["handled"])
        recorded.append(serving["recorded"])
        print(
            f"beside {both['recorded']:,.0f} recorded/s {both['handled']:,.0f} handled/s; apart"
            f" {serving['recorded']:,.0f} recorded/s {handling['handled']:,.0f} handled/s",
            flush=True,
        )
    own, busy, commands = map(statistics.median, (apart, beside, recorded))
    keeps_up = own >= 0.95 * commands
    return [
        Measured("events/s, flights, plain handler in a process of its own", own, "all recorded", commands,
                 0.95 if keeps_up else None),
        Measured("  the same", own, "beside a busy loop", busy, None if keeps_up else 10),
    ]  # fmt: skip
