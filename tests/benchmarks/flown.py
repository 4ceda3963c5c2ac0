"""One process of the measured flights; `workers.flown` starts it.

Usage: flown.py JSON with ``url``, ``roles``, ``sends`` and ``nodes``. It prints what it has recorded and handled per
second, as JSON.
"""

import asyncio
import itertools
import json
import logging
import sys
import time
from collections import Counter
from contextlib import suppress
from pathlib import Path
from typing import Any

FLIGHTS = Path(__file__).parents[2] / "examples" / "flights"
sys.path.insert(0, str(FLIGHTS))

from aircraft import Aircraft, FlightArrived, FlightDeparted  # noqa: E402
from timetable import orders  # noqa: E402

from uno_actors import ActorSystem, Cluster, CommandRejected, subscribe  # noqa: E402

WINDOW = 1_000
WARM = 2.0
SECONDS = 8.0

delays: Counter[str] = Counter()
counts: Counter[str] = Counter()


@subscribe(name="delays", start="earliest")
def count_delays(event: FlightDeparted | FlightArrived) -> None:
    """A plain function: on a worker thread, it competes with the event loop for the interpreter."""
    delays[event.flight.carrier] += event.delay or 0
    counts["handled"] += 1


async def send(system: ActorSystem, until: float) -> None:
    """Keep many commands in flight: the week of flights, again and again with other aircraft."""
    week = [(order.aircraft, order.command) for order in orders(FLIGHTS / "flights_2013_week1.csv")]
    commands = ((f"{aircraft}-{again}", command) for again in itertools.count() for aircraft, command in week)

    async def client() -> None:
        for aircraft, command in commands:
            if time.perf_counter() >= until:
                return
            again = command.model_copy(update={"command_id": f"{command.command_id}-{aircraft}"})
            with suppress(CommandRejected):
                await system.aggregate(Aircraft, aircraft).ask(again)

    await asyncio.gather(*[client() for _ in range(WINDOW)])


async def main(work: dict[str, Any]) -> None:
    logging.disable(logging.WARNING)
    cluster = Cluster(roles=tuple(work["roles"]))
    async with ActorSystem(
        work["url"], aggregates=[Aircraft], handlers=[count_delays], cluster=cluster
    ) as system:
        while len(system.cluster.members()) != work["nodes"]:  # noqa: ASYNC110 - it has many causes
            await asyncio.sleep(0.01)
        begun = time.perf_counter()
        sending = asyncio.ensure_future(send(system, begun + WARM + SECONDS)) if work["sends"] else None
        await asyncio.sleep(WARM)
        began, first, events = time.perf_counter(), counts["handled"], system.statistics().events_recorded
        await asyncio.sleep(SECONDS)
        seconds = time.perf_counter() - began
        rates = {
            "handled": (counts["handled"] - first) / seconds,
            "recorded": (system.statistics().events_recorded - events) / seconds,
        }
        if sending is not None:
            await sending
    print(json.dumps(rates))


if __name__ == "__main__":
    asyncio.run(main(json.loads(sys.argv[1])))
