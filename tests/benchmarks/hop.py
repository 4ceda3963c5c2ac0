"""What a hop costs: a query of an aggregate of another node, beside one of this node."""

import statistics

from tests.benchmarks.measuring import Measured, directory
from tests.benchmarks.nodes import Done, Work, measure


async def hop(rounds: int = 3) -> list[Measured]:
    """Two processes, linked by a Unix socket; one of them asks, and waits for each answer."""
    one = [await _asked("of others", 1) for _ in range(rounds)]
    own = [await _asked("own", 1) for _ in range(rounds)]
    many = [await _asked("of others", 100) for _ in range(rounds)]
    many_own = [await _asked("own", 100) for _ in range(rounds)]
    rates = [
        [1 / statistics.median(done.median for done in results) for results in (one, own)],
        [statistics.median(done.rate for done in results) for results in (many, many_own)],
    ]
    return [
        Measured(
            "queries/s of another node's aggregate, one after the other",
            rates[0][0],
            "own aggregate",
            rates[0][1],
        ),
        Measured("  100 in flight, both ways", rates[1][0], "own aggregates", rates[1][1]),
    ]


async def _asked(clients: str, in_flight: int) -> Done:
    with directory() as path:
        return await measure(
            Work(
                url=f"lmdb:{path / 'store'}", routed=True, clients=clients, ids=100, in_flight=in_flight,  # type: ignore[arg-type]
                queries=True, warm=0.5, seconds=1.5, settled=True, nodes=2,
            )
        )  # fmt: skip
