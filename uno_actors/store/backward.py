"""Reading logs from their ends."""

from collections.abc import AsyncGenerator, Sequence

from uno_actors.store.logs import log_of_position, starts_of_logs
from uno_actors.store.port import EventStore
from uno_actors.store.records import PAGE, StoredRecord


async def page_before(store: EventStore, place: int, start: int, size: int = PAGE) -> list[StoredRecord]:
    """The records of a log just before position ``place``, in order; empty at its start. Positions may have gaps.

    Args:
        store: Holds the log.
        place: Exclusive.
        start: The position before the first event of the log.
        size: Number of records, as long as positions have no gaps.
    """
    while place > start + 1:
        after = max(start, place - 1 - size)
        page = [stored for stored in await store.read_log(after, PAGE) if stored.position < place]
        if page or after == start:
            return page
        size *= 4  # a long gap
    return []


async def pages_backward(
    store: EventStore, ends: Sequence[int], places: Sequence[int] | None = None
) -> AsyncGenerator[list[StoredRecord]]:
    """Pages of all logs from their ends to their starts, a page of each in turn; the last record of a page first.

    Args:
        store: Holds the logs.
        ends: The last position of each log.
        places: Where to begin in each log, exclusive; default is after the ends.
    """
    starts = starts_of_logs(len(ends))
    before = [end + 1 for end in ends] if places is None else list(places)
    open_logs = list(range(len(ends)))
    while open_logs:
        for log in tuple(open_logs):
            page = await page_before(store, before[log], starts[log])
            if not page:
                open_logs.remove(log)
                continue
            before[log_of_position(page[0].position)] = page[0].position
            yield page[::-1]
