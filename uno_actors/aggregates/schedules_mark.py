"""The mark of a store whose log has, or is about to have, schedules: systems that open it run the scheduler.

It is made before the first schedule is recorded, so that no schedule is ever without it.
"""

from collections.abc import Iterable

from uno_actors.domain.events import DomainEvent
from uno_actors.domain.schedules import Scheduled
from uno_actors.store.port import EventStore
from uno_actors.store.records import Append, ViewChange

_VIEW = "uno_actors.scheduling"
_KEY = b"used"
"""Names on disk."""
_SCHEDULED = Scheduled.type_name()


async def has_schedules(store: EventStore) -> bool:
    """Whether the mark is there."""
    return bool(await store.read_view(_VIEW, _KEY, _KEY + b"\0", 1))


async def mark(store: EventStore) -> None:
    """Make the mark; durable when it returns."""
    if not await has_schedules(store):
        await store.save_progress({}, views=[ViewChange(_VIEW, _KEY, b"")])


def any_scheduled(events: Iterable[DomainEvent]) -> bool:
    """Whether one of ``events`` has a command sent later."""
    return any(isinstance(event, Scheduled) for event in events)


def has_scheduled(requests: Iterable[Append]) -> bool:
    """Whether one of the records has a command sent later. Asked before each commit, so it is written to be quick."""
    for request in requests:
        for record in request.records:
            if record.event_type == _SCHEDULED:
                return True
    return False
