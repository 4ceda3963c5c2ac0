"""What routing is worth: several processes on one store, as a cluster and without one."""

from collections.abc import Awaitable, Callable

from tests.benchmarks.hop import hop
from tests.benchmarks.logs import logs
from tests.benchmarks.measuring import Measured
from tests.benchmarks.node_memory import node_memory
from tests.benchmarks.routed import hot, shared, sticky
from tests.benchmarks.workers import handlers_apart, two_cores

PARTS: list[Callable[[], Awaitable[list[Measured]]]] = [
    shared,
    hot,
    sticky,
    two_cores,
    handlers_apart,
    node_memory,
    hop,
    logs,
]


async def cluster() -> list[Measured]:
    """All parts, one after the other."""
    return [measured for part in PARTS for measured in await part()]
