"""What worker processes are worth on a machine of two cores: commands on both, and handlers out of their way."""

import asyncio
import json
import os
import signal
import statistics
import sys
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from tests.benchmarks.measuring import Measured, directory, in_flight
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
async def service(place: Path, *options: str) -> AsyncIterator[str]:
    """``uno-actors run`` in a directory; the URL of its store."""
    file = place / "offers.toml"
    file.write_text(FILE, encoding="utf-8")
    process = await asyncio.create_subprocess_exec(
        COMMAND, "run", file, *options, env=environment() | {"PYTHONPATH": str(ROOT)}
    )
    try:
        yield f"lmdb:{place}/store"
    finally:
        process.send_signal(signal.SIGTERM)
        await process.wait()


async def quoted(*options: str, nodes: int) -> float:
    """Commands per second that clients in this process, which owns no aggregates, have answered."""
    client = Cluster(roles=("handlers",))
    with directory() as place:
        async with (
            service(place, *options) as url,
            ActorSystem(url, aggregates=[Offer], handlers=[], cluster=client) as system,
        ):
            while len(system.cluster.members()) != nodes + 1:  # noqa: ASYNC110 - it has many causes
                await asyncio.sleep(0.01)

            async def ask(number: int) -> None:
                await system.aggregate(Offer, f"offer-{number % OFFERS}").ask(Price(amount=number))

            await in_flight(COMMANDS // 4, CLIENTS, ask)
            return await in_flight(COMMANDS, CLIENTS, ask)


async def two_cores() -> list[Measured]:
    """Commands of clients outside, served by two workers and by one process."""
    one, two = [], []
    for _ in range(ROUNDS):
        one.append(await quoted(nodes=1))
        two.append(await quoted("--workers", "2", nodes=2))
        print(
            f"one process {one[-1]:,.0f}/s, two workers {two[-1]:,.0f}/s, load {os.getloadavg()[0]:.1f}",
            flush=True,
        )
    what = "commands/s, LMDB, --workers 2, clients outside"
    return [Measured(what, statistics.median(two), "one process", statistics.median(one), 1.5)]


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
