"""Several logs read as one: each log in its order, and events of different logs by their time."""

from collections.abc import AsyncGenerator, Sequence
from contextlib import AsyncExitStack, aclosing
from heapq import heapify, heappop, heapreplace

from uno_actors.store.records import PAGE, StoredRecord

_AT_ONCE = 8 * PAGE
"""Records of all logs that one reader keeps in memory, where that leaves `_FEWEST` to each."""
_FEWEST = 32


def page_of_each(logs: int) -> int:
    """Records to be read at once from each of so many logs."""
    return min(PAGE, max(_FEWEST, _AT_ONCE // logs))


async def merged(logs: Sequence[AsyncGenerator[StoredRecord]]) -> AsyncGenerator[StoredRecord]:
    """The records of all ``logs``. The next one is always that of the earliest time among the first ones left.

    So the order of each log is kept, though the times in it need not grow.
    """
    async with AsyncExitStack() as stack:
        for log in logs:
            await stack.enter_async_context(aclosing(log))
        firsts = [
            (stored.record.timestamp, stored.position, stored, log)
            for log in logs
            if (stored := await anext(log, None)) is not None
        ]
        heapify(firsts)
        while firsts:
            _, _, stored, log = firsts[0]
            yield stored
            following = await anext(log, None)
            if following is None:
                heappop(firsts)
            else:
                heapreplace(firsts, (following.record.timestamp, following.position, following, log))
