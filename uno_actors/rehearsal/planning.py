"""What a rehearsal reads: the ends of the logs, and the streams that are chosen."""

from collections import defaultdict
from collections.abc import Sequence
from datetime import datetime
from hashlib import blake2b
from heapq import nsmallest
from typing import NamedTuple

from uno_actors.rehearsal.reading import pages
from uno_actors.store.codec import StreamId
from uno_actors.store.logs import starts_of_logs
from uno_actors.store.maintenance import HasInfo
from uno_actors.store.port import EventStore

STREAMS_AT_ONCE = 250_000
"""Aggregates that one process has in memory; more are loaded in several passes."""


class Plan(NamedTuple):
    """What is read.

    Attributes:
        ends: The last position of each log.
        events: Number of events up to there.
        parts: Number of parts into which the streams are divided.
        chosen: The streams to which the rehearsal is limited; ``None`` for all.
        has_snapshots: Whether there may be snapshots.
    """

    ends: tuple[int, ...]
    events: int
    parts: int
    chosen: tuple[StreamId, ...] | None
    has_snapshots: bool


async def plan(
    store: EventStore,
    workers: int,
    *,
    sample: int | None = None,
    since: datetime | None = None,
    until: datetime | None = None,
) -> Plan:
    """Plan a rehearsal.

    Args:
        store: Open.
        workers: Processes of each program.
        sample: Number of streams of each type of aggregates; the same ones each time.
        since: Only streams with an event at this time or later.
        until: No event from the first one that is later.
    """
    ends = tuple(await store.last_positions())
    info = await store.info() if isinstance(store, HasInfo) else None
    streams: set[StreamId] = set()
    if sample is not None or since is not None or until is not None:
        ends = await _chosen(store, ends, streams, since, until)
    chosen = None if sample is None and since is None else _sampled(streams, sample)
    count = len(chosen) if chosen is not None else info.streams if info is not None else 0
    return Plan(
        ends,
        sum(end - start for start, end in zip(starts_of_logs(len(ends)), ends, strict=True)),
        max(workers, -(-count // STREAMS_AT_ONCE)),
        chosen,
        info is None or info.snapshots > 0,
    )


async def _chosen(
    store: EventStore,
    ends: Sequence[int],
    streams: set[StreamId],
    since: datetime | None,
    until: datetime | None,
) -> tuple[int, ...]:
    """Add the streams of the period to ``streams``; the last positions that belong to it."""
    found = list(ends)
    for log, start in enumerate(starts_of_logs(len(ends))):
        only = [end if each == log else begin for each, (begin, end) in enumerate(
            zip(starts_of_logs(len(ends)), ends, strict=True)
        )]  # fmt: skip
        last = start
        async for page in pages(store, only):
            for position, record in page:
                if until is not None and record.timestamp > until:
                    break
                last = position
                if (since is None or record.timestamp >= since) and record.stream is not None:
                    streams.add(record.stream)
            if last != page[-1].position:
                break
        found[log] = last
    return tuple(found)


def _sampled(streams: set[StreamId], sample: int | None) -> tuple[StreamId, ...]:
    if sample is None:
        return tuple(sorted(streams))
    by_type: dict[str, list[StreamId]] = defaultdict(list)
    for stream in streams:
        by_type[stream.aggregate_type].append(stream)
    return tuple(each for of_type in by_type.values() for each in nsmallest(sample, of_type, key=_rank))


def _rank(stream: StreamId) -> bytes:
    return blake2b("\0".join(stream).encode(), digest_size=8).digest()
