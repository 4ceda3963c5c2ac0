"""What routing is worth: several processes on one store, as a cluster and without one."""

from collections.abc import Awaitable, Callable

from tests.benchmarks.hop import hop
from tests.benchmarks.measuring import Measured
from tests.benchmarks.node_memory import node_memory
from tests.benchmarks.routed import hot, shared, sticky

PARTS: list[Callable[[], Awaitable[list[Measured]]]] = [shared, hot, sticky, node_memory, hop]


async def cluster() -> list[Measured]:
    """All parts, one after the other."""
    return [measured for part in PARTS for measured in await part()]
