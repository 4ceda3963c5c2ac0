"""Whether a program reads the events of a log: every kind of them, by examples or all."""

from dataclasses import dataclass, replace

from uno_actors.rehearsal.comparison import remedy_for
from uno_actors.rehearsal.reading import Kind, pages, reason_of
from uno_actors.store.codec import to_event
from uno_actors.store.logs import starts_of_logs
from uno_actors.store.maintenance import Progress
from uno_actors.store.port import EventStore

EXAMPLES = 100
"""Events of each kind that are read if not all are."""


@dataclass(frozen=True, slots=True)
class KindRead:
    """The events of one type and version in a log.

    Attributes:
        event_type: The name under which they are recorded.
        version: The schema version.
        count: How many there are.
        read: How many of them were read.
        unreadable: How many of these cannot be read.
        position: Of the first that cannot, or else of the first.
        reason: Why that cannot be read; empty if all can.
        remedy: What makes it readable.
    """

    event_type: str
    version: int
    count: int
    read: int
    unreadable: int
    position: int
    reason: str = ""
    remedy: str = ""

    @property
    def name(self) -> str:
        """The name by which they are accepted."""
        return f"{self.event_type} v{self.version}"


async def kinds_read(store: EventStore, most: int | None, progress: Progress) -> list[KindRead]:
    """Read the events of each kind, by the classes that are loaded.

    Args:
        store: Open.
        most: Maximum number of events of each kind, the first ones; ``None`` for all.
        progress: Called with the number of events that were looked at, and of all.
    """
    ends = await store.last_positions()
    total = sum(end - start for start, end in zip(starts_of_logs(len(ends)), ends, strict=True))
    found: dict[Kind, KindRead] = {}
    done = 0
    async for page in pages(store, ends):
        for position, record in page:
            kind = record.event_type, record.version
            each = found.get(kind) or KindRead(*kind, 0, 0, 0, position)
            if most is not None and each.read >= most:
                found[kind] = replace(each, count=each.count + 1)
                continue
            each = replace(each, count=each.count + 1, read=each.read + 1)
            try:
                to_event(record, store.event_registry, position)
            except Exception as error:  # noqa: BLE001 - an upcast may raise anything
                if not each.unreadable:
                    remedy = remedy_for(*kind, type(error).__name__)
                    each = replace(each, position=position, reason=reason_of(error), remedy=remedy)
                each = replace(each, unreadable=each.unreadable + 1)
            found[kind] = each
        done += len(page)
        progress(done, total)
    return [found[kind] for kind in sorted(found)]
