"""What the log has of an id: the event, the events of the command, what they caused, and what caused them.

The newest events are searched first, because people ask for what has just happened, and for as long as there is time.
"""

import asyncio
from collections import deque
from collections.abc import Iterable, Sequence
from contextlib import aclosing
from dataclasses import dataclass, field
from time import monotonic

from uno_actors.inquiry.facts import LogFacts, Searched
from uno_actors.store.backward import pages_backward
from uno_actors.store.codec import Record
from uno_actors.store.logs import is_position_in, log_of_position, starts_of_logs
from uno_actors.store.port import EventStore
from uno_actors.store.records import StoredRecord

MOST = 200
"""Events that are kept of a correlation, and effects of one event or command."""
DEEPEST = 20
"""Causes that are looked for, one after the other."""
SHORTEST = 4
"""Characters from which on the beginning of an id is compared with others."""
NAMES = 20_000
"""Names of aggregates that are compared with one that is not found."""
LONGEST_POSITION = 18
"""Digits of a position, at most."""
SIMILAR = 3
"""Ids that are shown if one is not found."""


@dataclass(slots=True)
class _Seen:
    """What a search has seen so far.

    Attributes:
        wanted: The id.
        event: The event of this id.
        children: Events that name the id as their cause, the last first.
        answered: Position of the last event of the command of this id.
        correlated: The first events with this correlation id, the last of them first.
        total: Number of those.
        similar: Ids that begin with the one that is wanted.
        names: Ids and names of aggregates.
        searched: Number of records.
    """

    wanted: str
    event: StoredRecord | None = None
    children: list[StoredRecord] = field(default_factory=list)
    answered: int | None = None
    correlated: deque[StoredRecord] = field(default_factory=lambda: deque(maxlen=MOST))
    total: int = 0
    similar: dict[str, None] = field(default_factory=dict)
    names: dict[str, None] = field(default_factory=dict)
    searched: int = 0

    def take(self, stored: StoredRecord) -> bool:
        """Look at the next record; return whether no earlier one can matter."""
        self.searched += 1
        record, wanted = stored.record, self.wanted
        is_answer = record.answered == wanted
        if self.answered is not None and record.causation_id != wanted and not is_answer:
            return log_of_position(stored.position) == log_of_position(self.answered)
        if record.correlation_id == wanted:
            self.correlated.append(stored)
            self.total += 1
        if record.event_id == wanted:
            self.event = stored
            return True
        if is_answer:
            self.answered = stored.position
        if is_answer or record.causation_id == wanted:
            self.children.append(stored)
        elif not self.children:
            self._compare(record)
        return False

    def _compare(self, record: Record) -> None:
        if len(self.names) < NAMES and record.aggregate_id is not None:
            self.names[record.aggregate_id] = None
            self.names[f"{record.aggregate_type}/{record.aggregate_id}"] = None
        if len(self.wanted) >= SHORTEST and len(self.similar) < SIMILAR:
            for each in (record.event_id, record.answered, record.correlation_id):
                if each is not None and each != self.wanted and each.startswith(self.wanted):
                    self.similar[each] = None


@dataclass(frozen=True, slots=True)
class Found:
    """What a search has found.

    Attributes:
        log: The facts.
        names: Ids and names of aggregates that it has come across.
    """

    log: LogFacts
    names: tuple[str, ...] = ()


async def search(store: EventStore, wanted: str, seconds: float) -> Found:
    """Search the log for an id for at most so many seconds.

    Raises:
        StoreUnavailable, CorruptRecord: The log cannot be read.
    """
    deadline = monotonic() + seconds
    ends = await store.last_positions()
    total = sum(end - start for end, start in zip(ends, starts_of_logs(len(ends)), strict=True))
    seen, is_whole = _Seen(wanted), True
    async with aclosing(pages_backward(store, ends)) as pages:
        async for page in pages:
            if any(map(seen.take, page)):
                break
            if monotonic() > deadline:
                is_whole = False
                break
            await asyncio.sleep(0)
    searched = Searched(seen.searched, total, is_whole)
    of_command = tuple(reversed(seen.children)) if seen.event is None and seen.answered is not None else ()
    if seen.event is None and not of_command and not seen.total:
        seen.event = await _at_position(store, wanted, ends)
    first = seen.event or (of_command[0] if of_command else None)
    effects: Sequence[StoredRecord] = ()
    causes: Sequence[StoredRecord] = ()
    if first is not None:
        effects = await _effects(store, wanted, [first, *of_command], ends, deadline)
        causes = await _causes(store, first, ends, deadline)
    log = LogFacts(
        event=seen.event,
        of_command=of_command,
        effects=tuple(effects),
        causes=tuple(causes),
        correlated=tuple(reversed(seen.correlated)),
        correlated_total=seen.total,
        searched=searched,
        similar=tuple(seen.similar),
    )
    return Found(log, tuple(seen.names))


async def _at_position(store: EventStore, wanted: str, ends: Sequence[int]) -> StoredRecord | None:
    """The event at a position, if that is what people have instead of an id."""
    position = int(wanted) if wanted.isdecimal() and len(wanted) < LONGEST_POSITION else 0
    if not position or not is_position_in(position, len(ends)):
        return None
    page = await store.read_log(position - 1, 1)
    return page[0] if page and page[0].position == position else None


async def _effects(
    store: EventStore, wanted: str, firsts: Iterable[StoredRecord], ends: Sequence[int], deadline: float
) -> list[StoredRecord]:
    """The events after the first ones that they have caused, directly or not; at most `MOST`."""
    firsts = list(firsts)
    ids, found = {wanted, *(stored.record.event_id for stored in firsts)}, list[StoredRecord]()
    positions = {stored.position for stored in firsts}
    correlation = firsts[0].record.correlation_id
    log = log_of_position(firsts[0].position)
    starts = starts_of_logs(len(ends))
    for number, start in enumerate(starts):
        after = firsts[0].position if number == log else start
        while len(found) < MOST and monotonic() < deadline and (page := await store.read_log(after)):
            for stored in page:
                record = stored.record
                if (
                    record.correlation_id == correlation
                    and stored.position not in positions
                    and (record.causation_id in ids or record.command_causation_id in ids)
                ):
                    ids.add(record.event_id)
                    found.append(stored)
            after = page[-1].position
            await asyncio.sleep(0)
    return found[:MOST]


async def _causes(
    store: EventStore, first: StoredRecord, ends: Sequence[int], deadline: float
) -> list[StoredRecord]:
    """The events that have caused one, the nearest first, as far as there is time."""
    chain: list[StoredRecord] = []
    wanted = _ids_of_cause(first.record)
    places = [end + 1 for end in ends]
    places[log_of_position(first.position)] = first.position
    async with aclosing(pages_backward(store, ends, places)) as pages:
        async for page in pages:
            for stored in page:
                if stored.record.event_id in wanted:
                    chain.append(stored)
                    wanted = _ids_of_cause(stored.record)
            if not wanted or len(chain) >= DEEPEST or monotonic() > deadline:
                break
            await asyncio.sleep(0)
    return chain


def _ids_of_cause(record: Record) -> set[str]:
    """The ids that the event may have that has caused another one: directly, or by a command."""
    return {each for each in (record.causation_id, record.command_causation_id) if each is not None}
