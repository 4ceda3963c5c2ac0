"""The page Streams: find events and streams, and read one stream."""

import time
from collections.abc import Sequence
from contextlib import aclosing
from datetime import UTC, datetime
from typing import NamedTuple

from pydantic import Field

from uno_actors.domain.aggregate import check_aggregate_id
from uno_actors.ops.api.endpoint import Answered, Asked, Observed, Refused
from uno_actors.ops.api.records import LARGEST_ALONE, EventShown, shown
from uno_actors.store.backward import page_before
from uno_actors.store.codec import StreamId
from uno_actors.store.log_filter import EVERYTHING, LogFilter
from uno_actors.store.logs import is_position_in, log_of_position, starts_of_logs
from uno_actors.store.port import EventStore
from uno_actors.store.records import PAGE, StoredRecord

SEARCH_SECONDS = 1.5
"""Seconds after which a search of the log returns what it has found; the next request continues it."""


class StreamShown(Answered):
    """A stream.

    Attributes:
        type: Type of its aggregate.
        id: Id of its aggregate.
        version: Number of its events.
        state: Whether the state of the aggregate can be shown: its class is known here.
    """

    type: str
    id: str
    version: int
    state: bool


class Found(Answered):
    """Events and streams.

    Attributes:
        streams: The streams of the id that was asked for.
        events: The newest first.
        before: Where to search further; ``None`` if everything was searched.
        searched: Number of events that were looked at.
    """

    streams: list[StreamShown]
    events: list[EventShown]
    before: str | None
    searched: int


class AskedEvents(Asked):
    """Which events; all filters must match.

    Attributes:
        id: Id of the aggregate.
        type: Type of the aggregate.
        event: Type of the event.
        topic: Topic pattern, such as ``a.*`` or ``a.b.>``.
        correlation: Correlation id.
        since: Recorded at this time or later; a time without a zone is in UTC.
        until: Recorded at this time or earlier.
        before: From an earlier answer: search further.
        limit: At most so many.
    """

    id: str | None = None
    type: str | None = None
    event: str | None = None
    topic: str | None = None
    correlation: str | None = None
    since: datetime | None = None
    until: datetime | None = None
    before: str | None = Field(None, max_length=10_000)
    limit: int = Field(50, ge=1, le=200)


class _Wanted(NamedTuple):
    """Which records are wanted."""

    matching: LogFilter
    aggregate_id: str | None
    since: datetime | None
    until: datetime | None

    def matches(self, stored: StoredRecord) -> bool:
        record = stored.record
        return (
            (self.aggregate_id is None or record.aggregate_id == self.aggregate_id)
            and (self.since is None or record.timestamp >= self.since)
            and (self.until is None or record.timestamp <= self.until)
            and (self.matching is EVERYTHING or self.matching.matches(record))
        )


async def events(observed: Observed, asked: AskedEvents) -> Found:
    """Find events, the newest first. A search of a long log is answered in parts."""
    store = observed.source.store
    has_filter = any((asked.topic, asked.event, asked.type, asked.correlation))
    matching = (
        store.log_filter(
            asked.topic or None, asked.event or None, asked.type or None, asked.correlation or None
        )
        if has_filter
        else EVERYTHING
    )
    wanted = _Wanted(matching, asked.id or None, _aware(asked.since), _aware(asked.until))
    streams = await _streams(observed, asked) if asked.id else []
    if asked.id:
        found, more, searched = await _in_streams(store, streams, wanted, asked)
    else:
        found, more, searched = await _in_log(store, wanted, asked)
    return Found(streams=streams, events=[shown(each) for each in found], before=more, searched=searched)


def _aware(moment: datetime | None) -> datetime | None:
    return moment if moment is None or moment.tzinfo is not None else moment.replace(tzinfo=UTC)


async def _streams(observed: Observed, asked: AskedEvents) -> list[StreamShown]:
    store = observed.source.store
    check_aggregate_id(asked.id or "")
    types = await store.aggregate_types(asked.id or "")
    return [
        await _stream(observed, StreamId(name, asked.id or ""))
        for name in types
        if asked.type in (None, "", name)
    ]


async def _stream(observed: Observed, stream: StreamId) -> StreamShown:
    return StreamShown(
        type=stream.aggregate_type,
        id=stream.aggregate_id,
        version=await observed.source.store.last_version(stream),
        state=observed.source.aggregate_type(stream.aggregate_type) is not None,
    )


async def _in_streams(
    store: EventStore, streams: Sequence[StreamShown], wanted: _Wanted, asked: AskedEvents
) -> tuple[list[StoredRecord], str | None, int]:
    """The same of streams, which are read from their ends."""
    before = _positions(asked.before, 1)[0] if asked.before else None
    found: list[StoredRecord] = []
    reached, searched = 0, 0  # from there on all streams were searched
    deadline = time.monotonic() + SEARCH_SECONDS
    for stream in streams:
        count = 0
        async with aclosing(store.stream_records(StreamId(stream.type, stream.id), backward=True)) as records:
            async for stored in records:
                if before is not None and stored.position >= before:
                    continue
                searched += 1
                if wanted.matches(stored):
                    found.append(stored)
                    count += 1
                if count > asked.limit or (searched % PAGE == 0 and time.monotonic() > deadline):
                    reached = max(reached, stored.position)
                    break
    found = sorted((each for each in found if each.position >= reached), key=lambda each: -each.position)
    if len(found) > asked.limit:
        found = found[: asked.limit]
        reached = found[-1].position
    return found, f"{reached}" if reached else None, searched


def _positions(text: str, logs: int) -> list[int]:
    """The places in a ``before``."""
    try:
        found = [int(part) for part in text.split(",")]
    except ValueError:
        found = []
    if len(found) != logs or not all(0 <= place < 2**63 for place in found):
        raise Refused(422, "before: give what an earlier answer had there, or nothing")
    return found


async def _in_log(
    store: EventStore, wanted: _Wanted, asked: AskedEvents
) -> tuple[list[StoredRecord], str | None, int]:
    ends = await store.last_positions()
    starts = starts_of_logs(len(ends))
    places = _positions(asked.before, len(ends)) if asked.before else [end + 1 for end in ends]
    found: list[StoredRecord] = []
    searched, deadline = 0, time.monotonic() + SEARCH_SECONDS
    while any(place > start + 1 for place, start in zip(places, starts, strict=True)):
        pages = [
            await page_before(store, place, start, PAGE) for place, start in zip(places, starts, strict=True)
        ]
        merged = sorted(
            (stored for page in pages for stored in page),
            key=lambda stored: (
                (stored.record.timestamp, stored.position) if len(ends) > 1 else stored.position
            ),
            reverse=True,
        )
        for stored in merged:
            searched += 1
            places[log_of_position(stored.position)] = stored.position
            if wanted.matches(stored):
                found.append(stored)
                if len(found) == asked.limit:
                    return found, ",".join(map(str, places)), searched
        for log, start in enumerate(starts):
            if not pages[log]:
                places[log] = start + 1
        if time.monotonic() > deadline:
            return found, ",".join(map(str, places)), searched
    return found, None, searched


class AskedStream(Asked):
    """Part of a stream.

    Attributes:
        type: Type of the aggregate.
        id: Id of the aggregate.
        before: Only events before this version.
        limit: At most so many.
    """

    type: str
    id: str
    before: int | None = Field(None, ge=1, lt=2**63)
    limit: int = Field(100, ge=1, le=500)


class StreamPart(Answered):
    """Part of a stream.

    Attributes:
        stream: The stream.
        events: The newest first.
    """

    stream: StreamShown
    events: list[EventShown]


async def stream(observed: Observed, asked: AskedStream) -> StreamPart:
    """The events of one stream, the newest first."""
    store, name = observed.source.store, named_stream(asked.type, asked.id)
    found = await _stream(observed, name)
    if not found.version:
        raise Refused(404, f"there is no stream {name}")
    before = min(asked.before or found.version + 1, found.version + 1)
    after = max(0, before - 1 - asked.limit)
    records: list[StoredRecord] = []
    while after < before - 1 and (page := await store.read_stream(name, after, before - 1 - after)):
        records += page
        after = page[-1].record.aggregate_version or before
    return StreamPart(stream=found, events=[shown(stored) for stored in reversed(records)])


def named_stream(aggregate_type: str, aggregate_id: str) -> StreamId:
    """The name of a stream that was asked for.

    Raises:
        InvalidAggregateId: No aggregate can have this id.
    """
    return StreamId(aggregate_type, check_aggregate_id(aggregate_id))


class AskedEvent(Asked):
    """One event.

    Attributes:
        position: Its place in the log.
    """

    position: int = Field(ge=1, lt=2**63)


async def event(observed: Observed, asked: AskedEvent) -> EventShown:
    """The event at one position of the log, with its whole payload."""
    store = observed.source.store
    ends = await store.last_positions()
    page = await store.read_log(asked.position - 1, 1) if is_position_in(asked.position, len(ends)) else []
    if not page or page[0].position != asked.position:
        raise Refused(404, f"there is no event at position {asked.position}")
    return shown(page[0], LARGEST_ALONE)
