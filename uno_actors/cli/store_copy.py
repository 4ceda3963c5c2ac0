"""Copies a store to another of any kind: events, checkpoints, dead letters and views.

Events keep the versions in their streams. If both stores have the same number of logs, they keep their positions too.
Otherwise they are recorded in the order in which the source is read as one, each in its log of the target, and
`uno_actors.cli.moved_progress` says what becomes of checkpoints, dead letters and views.

Snapshots are not copied: the system takes new ones. The source must not grow during the copy: stop its systems.
"""

from collections.abc import AsyncGenerator, Callable, Sequence
from contextlib import AsyncExitStack, aclosing
from typing import NamedTuple

from uno_actors.aggregates.schedules_mark import has_schedules, mark
from uno_actors.cli.moved_progress import KeptProgress, MovedProgress, Progressed
from uno_actors.errors import CallerError, UnoError
from uno_actors.store.handler_names import DIRECTORY
from uno_actors.store.logs import log_of_position, log_of_record, starts_of_logs
from uno_actors.store.maintenance import Progress
from uno_actors.store.port import EventStore
from uno_actors.store.records import PAGE, Append, DeadLetter, StoredRecord, ViewChange

CHUNK = 1000
"""Maximum events of one commit."""
CHUNK_BYTES = 4 << 20
"""Bytes of payload after which a chunk is full, even with few events."""


class CopyRefused(CallerError):
    """The target is not a copy of the first events of the source, or cannot become one. Its contents are unchanged."""


class Copied(NamedTuple):
    """Numbers of a finished copy.

    Attributes:
        events: Events recorded in the target by this copy.
        known: Events that an interrupted copy had recorded before.
        views: Views of projections.
        rebuilt: Projections whose views the target rebuilds, since it has another number of logs.
    """

    events: int
    known: int
    views: int
    rebuilt: int = 0


async def copy_store(source: EventStore, target: EventStore, progress: Progress) -> Copied:
    """Copy ``source`` into ``target``, and read both to compare them.

    The target is empty, or has an interrupted copy, which is compared and resumed.

    Args:
        source: It must not be written to during the copy.
        target: It must not be used by others during the copy.
        progress: Called with the number of steps done: each event counts twice, when it is copied and when it is
            compared.

    Raises:
        CopyRefused: The target has events that the source lacks, or cannot give them the positions that they need.
        UnoError: A store failed.
    """
    ends, known_ends = await source.last_positions(), await target.last_positions()
    before = await Progressed.of(source)
    total, known = _number_of(ends), _number_of(known_ends)
    if known > total:
        raise CopyRefused(f"the target has {known:,} events and the source {total:,}: name an empty target")
    moved: KeptProgress | MovedProgress = KeptProgress(before)
    if is_moved := len(ends) != len(known_ends):
        moved = await MovedProgress.of(before, source, len(known_ends))
    copying = _Copying(
        target, len(known_ends), lambda done: progress(done, 2 * total), keeps_positions=not is_moved
    )
    async with aclosing(source.read_records()) as records:
        await copying.compare(records, known, moved.see)
        if copying.places != known_ends:
            raise CopyRefused(
                f"the target has {known:,} events, and not the first ones of the source: name an empty target"
            )
        await copying.record(records, total - known, moved.see)
    async with aclosing(source.read_records()) as records:
        await copying.compare_from(records, known, known_ends, total)
    found = moved.result(copying.places)
    views = await _copy_views(source, target, found)
    if await has_schedules(source):
        await mark(target)
    await target.save_progress(found.checkpoints, found.letters)
    if await source.last_positions() != ends:
        raise CopyRefused(
            "the source has grown during the copy: stop the systems that record in it, and run the command again"
        )
    if await source.checkpoints() != before.checkpoints:
        raise CopyRefused(
            "handlers have run on the source during the copy: stop its systems, and run the command again"
        )
    if await target.checkpoints() != found.checkpoints:
        raise CopyRefused("the target has checkpoints that the source lacks: name an empty target")
    if _named(await target.dead_letters()) != _named(found.letters):  # their texts may differ: SQL has no NUL
        raise CopyRefused("the target has dead letters that the source lacks: name an empty target")
    return Copied(total - known, known, views, found.rebuilt)


def _number_of(ends: Sequence[int]) -> int:
    """How many events there are in logs with these ends."""
    return sum(ends) - sum(starts_of_logs(len(ends)))


def _named(letters: Sequence[DeadLetter]) -> set[tuple[str, int]]:
    return {(letter.handler, letter.position) for letter in letters}


Seen = Callable[[StoredRecord, int], None]
"""Takes note of an event of the source and its position in the target."""


class _Copying:
    """Walks through the source in order and knows where each event belongs in the target.

    Args:
        target: The copy.
        logs: The number of logs of the target.
        done: Called with the number of steps done.
        keeps_positions: Whether each event has the same position in both.

    Attributes:
        places: The position of the last event met, in each log of the target.
    """

    def __init__(
        self, target: EventStore, logs: int, done: Callable[[int], None], *, keeps_positions: bool
    ) -> None:
        self._target = target
        self._logs = logs
        self._done = done
        self._keeps_positions = keeps_positions
        self._steps = 0
        self.places = starts_of_logs(logs)

    async def compare(
        self, records: AsyncGenerator[StoredRecord], count: int, seen: Seen | None = None
    ) -> None:
        """Compare the next ``count`` events with those in the target.

        Raises:
            CopyRefused: They differ.
        """
        async with AsyncExitStack() as stack:
            logs = [
                await stack.enter_async_context(aclosing(_log_of(self._target, place)))
                for place in self.places
            ]
            while count:
                stored = await anext(records, None)
                if stored is None:
                    return  # the source has lost events, or its positions have a gap, as is found elsewhere
                place = self._next(stored)
                other = await anext(logs[log_of_position(place)], None)
                if other != (place, stored.record):
                    raise CopyRefused(
                        f"the target has another event at position {place:,} than the source"
                        + f" at {stored.position:,}" * (place != stored.position)
                    )
                if seen is not None:
                    seen(stored, place)
                self._steps += 1
                count -= 1
                if self._steps % CHUNK == 0 or not count:
                    self._done(self._steps)

    async def record(self, records: AsyncGenerator[StoredRecord], count: int, seen: Seen) -> None:
        """Record the next ``count`` events.

        Raises:
            CopyRefused: The target refuses one, or gives it another position.
        """
        while count:
            chunk = await _chunk(records, count)
            if not chunk:
                return  # the source has fewer: the comparison of its ends says so
            wanted = [self._next(stored) for stored in chunk]
            found = await _record(self._target, chunk)
            for stored, place, position in zip(chunk, wanted, found, strict=True):
                if place != position:
                    raise CopyRefused(
                        f"the source's event at position {stored.position:,} was recorded at {position:,} instead of"
                        f" {place:,}: another process records in the target"
                    )
                seen(stored, place)
            count -= len(chunk)
            self._steps += len(chunk)
            self._done(self._steps)

    async def compare_from(
        self, records: AsyncGenerator[StoredRecord], known: int, places: Sequence[int], total: int
    ) -> None:
        """Compare the events after the first ``known``, which end at ``places``, up to the last of ``total``."""
        for _ in range(known):
            await anext(records)
        self.places = [*places]
        self._steps = total + known
        await self.compare(records, total - known)

    def _next(self, stored: StoredRecord) -> int:
        """The position of the next event in the target.

        Raises:
            CopyRefused: It should be that in the source, and is not.
        """
        log = log_of_record(stored.record, self._logs)
        self.places[log] += 1
        if self._keeps_positions and stored.position != self.places[log]:
            raise CopyRefused(
                f"the source's event at position {stored.position:,} would be recorded at {self.places[log]:,}: the"
                " positions of the source have a gap"
            )
        return self.places[log]


async def _log_of(store: EventStore, after: int) -> AsyncGenerator[StoredRecord]:
    """The records of one log after a position, as long as it has some."""
    while page := await store.read_log(after):
        for stored in page:
            yield stored
        after = page[-1].position


async def _record(target: EventStore, chunk: Sequence[StoredRecord]) -> list[int]:
    """Record ``chunk`` and return its positions in the target. Events before one that is refused stay recorded.

    Raises:
        CopyRefused: The target refuses an event, which the error names.
        UnoError: See `copy_store`.
    """
    (outcome,) = await target.commit([Append(tuple(record for _, record in chunk))])
    if not isinstance(outcome, UnoError):
        return list(outcome.positions)
    if not isinstance(outcome, CallerError):
        raise outcome
    if len(chunk) > 1:  # one of them
        half = len(chunk) // 2
        return [*await _record(target, chunk[:half]), *await _record(target, chunk[half:])]
    position, record = chunk[0]
    of = "" if record.stream is None else f" of {record.stream} version {record.aggregate_version}"
    raise CopyRefused(
        f"the target cannot record the source's event at position {position:,}, {record.event_type}{of}: {outcome}"
    ) from outcome


async def _chunk(records: AsyncGenerator[StoredRecord], limit: int) -> list[StoredRecord]:
    chunk: list[StoredRecord] = []
    size = 0
    while len(chunk) < min(CHUNK, limit) and size < CHUNK_BYTES:
        stored = await anext(records, None)
        if stored is None:
            break
        chunk.append(stored)
        size += len(stored.record.payload)
    return chunk


async def _copy_views(source: EventStore, target: EventStore, moved: Progressed) -> int:
    """Copy the views of all projections, their directory last, and return the number of views."""
    names = [view for entry in moved.entries.values() for view in entry.views]
    for name in names:
        await _copy_view(source, target, name, moved.key_of)
    await _copy_view(source, target, DIRECTORY, lambda key: key if moved.is_kept(key) else None)
    return len(names)


async def _copy_view(
    source: EventStore, target: EventStore, name: str, key_of: Callable[[bytes], bytes | None]
) -> None:
    """Copy one view, each entry under the key that ``key_of`` returns, or not at all.

    Raises:
        CopyRefused: The target has other entries.
    """
    start = b""
    wanted: list[tuple[bytes, bytes]] = []
    while page := await source.read_view(name, start, limit=PAGE):
        copied = [(new, value) for key, value in page if (new := key_of(key)) is not None]
        await target.save_progress({}, views=[ViewChange(name, key, value) for key, value in copied])
        wanted += copied
        start = page[-1][0] + b"\0"
    if await target.read_view(name, limit=None) != sorted(wanted):
        raise CopyRefused(f"the target has entries in the view {name!r} that the source lacks")
