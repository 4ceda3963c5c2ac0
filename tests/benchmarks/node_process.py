"""One node of a measured cluster, a process of its own with its clients; `nodes.Nodes` starts it.

Usage: node_process.py JSON, the fields of `nodes.Work`. It prints ``ready``, begins at a line on standard input, and
prints the fields of `nodes.Done`.
"""

import asyncio
import json
import random
import sys
import time
from collections import Counter
from collections.abc import Iterator
from typing import Any

from tests.benchmarks.accounts import Deposit, Look, Seen
from tests.benchmarks.measuring import resident
from tests.cluster.faults import lends
from uno_actors import ActorSystem


def accounts(work: dict[str, Any], system: ActorSystem) -> Iterator[str]:
    """The ids that the clients ask, one after the other, for ever."""
    number, ids = work["number"], work["ids"]
    chance = random.Random(number)
    match work["clients"]:
        case "shared":
            found = [f"account-{n}" for n in range(ids)]
        case "sticky":
            found = [f"account-{number}-{n}" for n in range(ids)]
        case "of others" | "own":
            owner = system.cluster.name if work["clients"] == "own" else None
            named = (f"account-{n}" for n in range(10 * ids))
            found = [name for name in named if ((its := system.cluster.owner(Seen, name)) is not None)
                     and (its.name == owner) is (owner is not None)][:ids]  # fmt: skip
    while True:
        yield chance.choice(found)


async def load(work: dict[str, Any], system: ActorSystem) -> dict[str, Any]:
    """Clients that each ask again and again; what they saw after the start is measured."""
    names = accounts(work, system)
    begin = time.perf_counter() + work["warm"]
    end = begin + work["seconds"]
    seconds: list[float] = []
    errors: Counter[str] = Counter()
    query = Look()

    async def client() -> None:
        while (asked := time.perf_counter()) < end:
            command = query if work["queries"] else Deposit(amount=1)
            try:
                await system.aggregate(Seen, next(names)).ask(command)
            except Exception as error:  # noqa: BLE001 - it is counted
                errors[type(error).__name__] += 1
            else:
                if asked >= begin:
                    seconds.append(time.perf_counter() - asked)

    clients = asyncio.gather(*[client() for _ in range(work["in_flight"])])
    await asyncio.sleep(begin - time.perf_counter())
    used = time.process_time()
    await clients
    counters = system.statistics()
    return {
        "seconds": [round(one, 6) for one in seconds],
        "errors": errors,
        "cpu": time.process_time() - used,
        "reruns": counters.reruns,
        "commits": counters.commits,
    }


async def once_each(work: dict[str, Any], system: ActorSystem) -> dict[str, Any]:
    """A query to each account of this node's part; the memory that this process uses for those it serves."""
    query = Look()
    part = range(work["number"], work["ids"], work["nodes"])
    asked = iter(part)

    async def client() -> None:
        for n in asked:
            await system.aggregate(Seen, f"account-{n}").ask(query)

    before = resident()
    await asyncio.gather(*[client() for _ in range(work["in_flight"])])
    return {"before": before, "asked": len(part)}


async def main(work: dict[str, Any]) -> None:
    lines = asyncio.StreamReader()
    await asyncio.get_running_loop().connect_read_pipe(lambda: asyncio.StreamReaderProtocol(lines), sys.stdin)
    options: dict[str, Any] = {"cluster": True} if work["routed"] else {}
    async with ActorSystem(
        work["url"],
        aggregates=[Seen],
        handlers=[],
        name=f"node-{work['number']}",
        max_active=1_000_000,
        passivate_after=3600,
        **options,
    ) as system:
        print("ready", flush=True)
        await lines.readline()
        if work["settled"]:
            while len(system.cluster.members()) != work["nodes"]:  # noqa: ASYNC110 - it has many causes
                await asyncio.sleep(0.01)
        if work["clients"] == "of others":
            lends([system], commands=sys.maxsize)  # never: hops are measured
        done = await (once_each if work["clients"] == "once each" else load)(work, system)
        print("asked", flush=True)
        await lines.readline()  # the other nodes still ask this one
        if "before" in done:
            done |= {
                "memory": resident() - done.pop("before"),
                "active": system.statistics().active_aggregates,
            }
        print(json.dumps(done), flush=True)


if __name__ == "__main__":
    asyncio.run(main(json.loads(sys.argv[1])))
