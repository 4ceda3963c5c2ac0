"""How far a handler is behind the end of the log, in events and in seconds.

The end is that of the store, not that of the router: a router that has stopped makes no handler look current. A
position is read before the end, so that a lag is never negative; events that are recorded in between count.
"""

from collections.abc import Callable, Iterable, Sequence
from datetime import UTC, datetime
from typing import NamedTuple

from uno_actors.store.logs import log_of_position
from uno_actors.store.port import EventStore
from uno_actors.store.records import StoredRecord

LOOK_AHEAD = 128
"""Records read to find the next event that a handler wants; if all are of no interest to it, the last one counts."""

Wanted = Callable[[Iterable[StoredRecord]], Iterable[StoredRecord]]
"""Those of some records that a handler subscribes to."""


class Lag(NamedTuple):
    """How far a handler is behind.

    Attributes:
        events: Log positions after its own, including events that it does not subscribe to.
        seconds: Age of the next event that it must handle, by the timestamp of the event; 0 if it has handled all.
    """

    events: int
    seconds: float


def events_behind(position: int, ends: Sequence[int]) -> int:
    """The log positions after ``position`` up to the end of its log, which is one of ``ends``."""
    log = log_of_position(position)
    return max(0, ends[log] - position) if log < len(ends) else 0


async def lag_at(
    store: EventStore, position: int, ends: Sequence[int], wanted: Wanted = iter, now: datetime | None = None
) -> Lag:
    """The lag of a handler at ``position``.

    A page of the log is read if the handler is behind. Where none of its events is wanted, the age of the last one is
    reported: the next wanted event is not older.

    Args:
        store: Holds the log.
        position: The handler has finished every event up to here.
        ends: The last position of each log, read after ``position``.
        wanted: Picks the events that the handler subscribes to; by default all are wanted.
        now: The time to compare with; default is the present.

    Raises:
        StoreUnavailable, CorruptRecord: The log cannot be read.
    """
    events = events_behind(position, ends)
    if not events:
        return Lag(0, 0.0)
    page = await store.read_log(position, LOOK_AHEAD)
    due = next(iter(wanted(page)), None)
    if due is None:
        if not page or page[-1].position >= ends[log_of_position(position)]:
            return Lag(events, 0.0)  # nothing that it wants waits
        due = page[-1]
    return Lag(events, age_of(due.record.timestamp, now))


def age_of(timestamp: datetime, now: datetime | None = None) -> float:
    """Seconds since ``timestamp``; 0 if it lies in the future, as of an event of a machine whose clock is fast."""
    return max(0.0, ((now or datetime.now(UTC)) - timestamp).total_seconds())
