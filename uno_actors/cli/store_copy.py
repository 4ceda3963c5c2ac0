"""Copies a store to another of any kind: events, checkpoints, dead letters and views.

Records keep their positions and versions, so that checkpoints mean the same in both stores. So both have one log.
Snapshots are not copied: the system takes new ones. The source must not grow during the copy: stop its systems.
"""

from collections.abc import AsyncGenerator, Callable, Sequence
from contextlib import aclosing
from typing import NamedTuple

from uno_actors.errors import CallerError, UnoError
from uno_actors.handlers.view import entries
from uno_actors.printable import counted
from uno_actors.store.handler_names import DIRECTORY
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
    """

    events: int
    known: int
    views: int


async def copy_store(source: EventStore, target: EventStore, progress: Progress) -> Copied:
    """Copy ``source`` into ``target``, and read both to compare them.

    The target is empty, or has an interrupted copy, which is compared and resumed.

    Args:
        source: It must not be written to during the copy.
        target: It must not be used by others during the copy.
        progress: Called with the number of steps done: each event counts twice, when it is copied and when it is
            compared.

    Raises:
        CopyRefused: The target has events that the source lacks, or cannot give them the same positions.
        UnoError: A store failed.
    """
    ends, known_ends = await source.last_positions(), await target.last_positions()
    if len(ends) > 1 or len(known_ends) > 1:
        raise CopyRefused(
            f"the source has {counted(len(ends), 'log')} and the target {len(known_ends)}, and a copy keeps positions,"
            " which needs one log in both: use `store export` and `store import`, which carry the events alone"
        )
    end, known = ends[0], known_ends[0]
    if known > end:
        raise CopyRefused(f"the target has {known:,} events and the source {end:,}: name an empty target")
    await _compare(source, target, 0, known, lambda position: progress(position, 2 * end))
    after = known
    while after < end:
        chunk = await _chunk(source, after)
        wanted, found = [position for position, _ in chunk], await _record(target, chunk)
        if wanted != found:
            raise CopyRefused(
                f"the source's event at position {wanted[0]:,} was recorded at {found[0]:,}: the positions of the"
                " source have a gap, or another process records in the target"
            )
        after = wanted[-1]
        progress(after, 2 * end)
    await _compare(source, target, known, end, lambda position: progress(end + position, 2 * end))
    views = await _copy_views(source, target)
    checkpoints, letters = await source.checkpoints(), await source.dead_letters()
    await target.save_progress(checkpoints, letters)
    if await source.last_position() != end:
        raise CopyRefused(
            "the source has grown during the copy: stop the systems that record in it, and run the command again"
        )
    if await target.checkpoints() != checkpoints:
        raise CopyRefused("the target has checkpoints that the source lacks: name an empty target")
    if _named(await target.dead_letters()) != _named(letters):  # their texts may differ: SQL has no NUL
        raise CopyRefused("the target has dead letters that the source lacks: name an empty target")
    return Copied(end - known, known, views)


def _named(letters: Sequence[DeadLetter]) -> set[tuple[str, int]]:
    return {(letter.handler, letter.position) for letter in letters}


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


async def _chunk(source: EventStore, after: int) -> list[StoredRecord]:
    chunk: list[StoredRecord] = []
    size = 0
    while len(chunk) < CHUNK and size < CHUNK_BYTES and (page := await source.read_log(after, PAGE)):
        chunk += page
        size += sum(len(record.payload) for _, record in page)
        after = page[-1].position
    return chunk


async def _compare(
    source: EventStore, target: EventStore, after: int, end: int, equal: Callable[[int], None]
) -> None:
    """Compare the events after ``after`` up to ``end``; ``equal`` is called with the last position compared.

    Raises:
        CopyRefused: They differ.
    """
    async with aclosing(_until(source, after, end)) as wanted, aclosing(_until(target, after, end)) as found:
        async for each in wanted:
            other = await anext(found, None)
            if each != other:
                raise CopyRefused(
                    f"the target has another event at position {each.position:,} than the source"
                )
            if each.position % CHUNK == 0 or each.position == end:
                equal(each.position)


async def _until(store: EventStore, after: int, end: int) -> AsyncGenerator[StoredRecord]:
    async with aclosing(store.read_records(after)) as records:
        async for stored in records:
            if stored.position > end:
                return
            yield stored


async def _copy_views(source: EventStore, target: EventStore) -> int:
    """Copy the views of all projections, their directory last, and return the number of views."""
    names = [view for entry in (await entries(source)).values() for view in entry.views]
    for name in (*names, DIRECTORY):
        start = b""
        while page := await source.read_view(name, start):
            await target.save_progress({}, views=[ViewChange(name, key, value) for key, value in page])
            start = page[-1][0] + b"\0"
        if await target.read_view(name, limit=None) != await source.read_view(name, limit=None):
            raise CopyRefused(f"the target has entries in the view {name!r} that the source lacks")
    return len(names)
