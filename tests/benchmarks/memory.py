"""Memory of active aggregates."""

import gc

from tests.benchmarks.accounts import Look, Seen
from tests.benchmarks.measuring import Measured, in_flight, resident
from uno_actors import (
    ActorSystem,
)


async def million(count: int = 1_000_000, clients: int = 500) -> list[Measured]:
    """Active aggregates in one process, and their memory beside that of the bare instances."""

    names = [f"account-{number}" for number in range(count)]
    before = resident()
    bare = [Seen(name) for name in names]
    own = resident() - before
    bare.clear()
    gc.collect()
    before = resident()
    async with ActorSystem(handlers=[], aggregates=[Seen], max_active=count, passivate_after=3600) as system:
        question = Look()
        activated = await in_flight(count, clients, lambda n: system.aggregate(Seen, names[n]).ask(question))
        active = system.statistics().active_aggregates
        used = resident() - before
    print(
        f"{active:,} active aggregates: {used / 2**20:,.0f} MiB, {used / active:,.0f} bytes each, of which their"
        f" instances are {own / count:,.0f}; activated at {activated:,.0f}/s"
    )
    return [
        Measured("bytes of an active aggregate (to stay below)", used / active, "bare instance", own / count)
    ]
