"""The events of one command, found from the last of them, and the dead letters among them."""

from collections.abc import Set as AbstractSet

from uno_actors.store.logs import start_of_log
from uno_actors.store.port import EventStore
from uno_actors.store.records import StoredRecord

MOST_EVENTS = 64
"""Events of one command that are looked for."""


async def events_of_command(store: EventStore, position: int) -> list[StoredRecord]:
    """The events of the command that has recorded the one at ``position`` as its last, in order.

    They lie side by side, are of one stream and name the command as their cause; only its last event holds a reply.
    """
    start = max(position - MOST_EVENTS, start_of_log(position))
    *before, last = await store.read_log(start, position - start)
    events = [last]
    for stored in reversed(before if last.record.aggregate_id is not None else []):
        record = stored.record
        is_same = record.stream == last.record.stream and record.causation_id == last.record.causation_id
        if not is_same or record.answered:
            break
        events.insert(0, stored)
    return events


def are_near(letters: AbstractSet[int], position: int) -> bool:
    """Whether one of ``letters`` may be of the command that ends at ``position``; costs the same for any number."""
    return bool(letters) and not letters.isdisjoint(range(position - MOST_EVENTS + 1, position + 1))


async def letter_among(store: EventStore, letters: AbstractSet[int], position: int) -> int | None:
    """The first event of the command that ends at ``position`` whose position is among ``letters``."""
    if not are_near(letters, position):
        return None
    events = await events_of_command(store, position)
    return next((stored.position for stored in events if stored.position in letters), None)
