"""Memory of a node that serves a third of all aggregates, beside that of one that serves all."""

from tests.benchmarks.measuring import Measured, directory
from tests.benchmarks.nodes import Work, measure

AGGREGATES = 300_000


async def node_memory(count: int = AGGREGATES) -> list[Measured]:
    """Each node asks a third of the aggregates, whose owners are all three."""
    found = []
    for nodes in (1, 3):
        with directory() as path:
            work = Work(
                url=f"lmdb:{path / 'store'}", routed=True, clients="once each", ids=count, in_flight=300,
                settled=True, nodes=nodes,
            )  # fmt: skip
            done = await measure(work)
        print(f"a node of {nodes}: {done.active:,.0f} aggregates, {done.memory / 2**20:,.0f} MiB", flush=True)
        found.append(done)
    alone, third = found
    # A tenth is left for what a node needs besides its aggregates, such as links to the others.
    return [
        Measured(f"MiB of one node for {count:,} aggregates", alone.memory / 2**20,
                 "of one of three", third.memory / 2**20, 2.7)
    ]  # fmt: skip
