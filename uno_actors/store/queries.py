"""The queries that every store answers with the few reads that it implements."""

import asyncio
from abc import ABC, abstractmethod
from bisect import bisect_right
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Sequence
from contextlib import aclosing
from datetime import UTC, datetime
from operator import itemgetter
from typing import Any, overload

from uno_actors.domain.aggregate import AggregateRoot, check_aggregate_id
from uno_actors.domain.events import DomainEvent, EventRegistry
from uno_actors.errors import AmbiguousStream, InvalidNumber, SeveralLogs, shown
from uno_actors.store.causal_tree import CausalTree, causal_tree
from uno_actors.store.codec import Record, StreamId, to_event
from uno_actors.store.log_filter import (
    EVERYTHING,
    EventTypes,
    LogFilter,
    TopicPatterns,
    recorded_names,
    topic_patterns,
)
from uno_actors.store.logs import log_of_position, log_of_stream
from uno_actors.store.records import PAGE, E, RecordedEvent, StoredRecord

READ_ALL_LOGS = "read all events (after=0), or each log by itself (`read_log`)"
"""The remedy where a position is given to a reader of several logs."""
STRIDE = 128
"""Records yielded before other tasks get the event loop: the consumer has work to do with each."""


class EventQueries(ABC):
    """Reads of events, from pages of records. The port, `uno_actors.store.port.EventStore`, says what these are."""

    event_registry: EventRegistry

    @property
    def logs(self) -> int:
        """The number of logs; for a store that reads it from a database, one until it was used."""
        return 1

    # --- what they rest on: see the port ---

    @abstractmethod
    async def read_stream(
        self, stream: StreamId, after_version: int = 0, limit: int = PAGE
    ) -> list[StoredRecord]:
        """See `EventStore.read_stream`."""

    @abstractmethod
    async def read_log(self, after: int = 0, limit: int = PAGE) -> list[StoredRecord]:
        """See `EventStore.read_log`."""

    @abstractmethod
    async def last_version(self, stream: StreamId) -> int:
        """See `EventStore.last_version`."""

    @abstractmethod
    async def aggregate_types(self, aggregate_id: str) -> list[str]:
        """See `EventStore.aggregate_types`."""

    @abstractmethod
    async def last_position(self) -> int:
        """See `EventStore.last_position`."""

    async def last_positions(self) -> list[int]:
        """The position of the last record of each log; that of its start if there is none."""
        return [await self.last_position()]

    # --- one stream ---

    async def get_events(
        self,
        aggregate_id: str,
        since_version: int | None = None,
        since_timestamp: datetime | None = None,
        limit: int | None = None,
        *,
        aggregate_type: str | None = None,
        backward: bool = False,
        until_version: int | None = None,
    ) -> list[DomainEvent]:
        """The events of one stream in order.

        Args:
            aggregate_id: The aggregate's id.
            since_version: Only events after this version: the last one that the caller has.
            since_timestamp: Only events of this time or later; a naive time is read as UTC.
            limit: Maximum number of events.
            aggregate_type: Needed if aggregates of several types have this id.
            backward: The newest first; ``limit`` then takes the newest.
            until_version: Only events up to this version, inclusive; it may be beyond the last one.

        Raises:
            AmbiguousStream: Aggregates of several types have this id, and ``aggregate_type`` was not given.
            InvalidAggregateId: No aggregate can have this id.
            ValueError: ``since_version``, ``until_version`` or ``limit`` is negative, or beyond 63 bits.
        """
        check_aggregate_id(aggregate_id)
        check_number("since_version", since_version)
        check_number("until_version", until_version)
        check_number("limit", limit)
        if aggregate_type is None:
            types = await self.aggregate_types(aggregate_id)
            if len(types) > 1:
                raise AmbiguousStream(aggregate_id, types)
            if not types:
                return []
            aggregate_type = types[0]
        if since_timestamp is not None and since_timestamp.tzinfo is None:
            since_timestamp = since_timestamp.replace(tzinfo=UTC)
        if limit == 0:
            return []
        size = PAGE if limit is None or since_timestamp is not None else min(limit, PAGE)
        events: list[DomainEvent] = []
        stream = StreamId(aggregate_type, aggregate_id)
        pages_ = self._pages_between(stream, since_version or 0, until_version, size, backward=backward)
        async with aclosing(pages_) as pages:
            async for page in pages:
                for position, record in page:
                    if since_timestamp is None or record.timestamp >= since_timestamp:
                        events.append(to_event(record, self.event_registry, position))
                        if len(events) == limit:
                            return events
        return events

    async def stream_events(self, stream: StreamId, after_version: int = 0) -> AsyncIterator[DomainEvent]:
        """The events of one stream after ``after_version``, read page by page."""
        async with aclosing(self._pages(stream, after_version)) as pages:
            async for page in pages:
                for position, record in page:
                    yield to_event(record, self.event_registry, position)

    async def stream_records(
        self,
        stream: StreamId,
        after_version: int = 0,
        *,
        backward: bool = False,
        until_version: int | None = None,
        limit: int | None = None,
    ) -> AsyncGenerator[StoredRecord]:
        """The records of one stream after ``after_version``, up to ``until_version``, in order or the newest first.

        At most ``limit`` records.
        """
        if limit == 0:
            return
        size = PAGE if limit is None else min(limit, PAGE)
        left = limit
        pages_ = self._pages_between(stream, after_version, until_version, size, backward=backward)
        async with aclosing(pages_) as pages:
            async for page in pages:
                for stored in page if left is None else page[:left]:
                    yield stored
                left = None if left is None else left - len(page)
                if left is not None and left <= 0:
                    return

    async def _pages_between(
        self,
        stream: StreamId,
        after_version: int,
        until_version: int | None,
        size: int = PAGE,
        *,
        backward: bool = False,
    ) -> AsyncGenerator[list[StoredRecord]]:
        """Pages of a stream after one version up to another, in order or the newest first."""
        if until_version is not None and until_version <= after_version:
            return
        if backward:
            pages_ = self._pages_backward(stream, after_version, size, until_version)
        else:
            wanted = size if until_version is None else min(size, until_version - after_version)
            pages_ = self._pages(stream, after_version, wanted)
        async with aclosing(pages_) as pages:
            async for page in pages:
                last = page[-1].record.aggregate_version or 0
                if backward or until_version is None or last < until_version:
                    yield page
                else:
                    yield page[: len(page) - (last - until_version)]
                    return

    def _pages(
        self, stream: StreamId, after_version: int, size: int = PAGE
    ) -> AsyncGenerator[list[StoredRecord]]:
        """Pages of a stream after ``after_version``, in order."""
        return pages_to_end(
            lambda after: self.read_stream(stream, after, size),
            lambda: self.last_version(stream),
            lambda stored: stored.record.aggregate_version or 0,
            after_version,
        )

    async def _pages_backward(
        self, stream: StreamId, after_version: int, size: int, until_version: int | None = None
    ) -> AsyncGenerator[list[StoredRecord]]:
        """Pages of a stream from its end, or ``until_version``, down to ``after_version``, the last record first."""
        end = await self.last_version(stream)
        end = end if until_version is None else min(end, until_version)
        while end > after_version:
            start = at = max(after_version, end - size)
            page: list[StoredRecord] = []
            while at < end and (part := await self.read_stream(stream, at, end - at)):
                page += part  # a store may return fewer records than asked for, where they are large
                at += len(part)
            yield page[::-1]
            end = start
            await asyncio.sleep(0)

    # --- the log ---

    @overload
    def read_all(
        self,
        after: int = 0,
        limit: int | None = None,
        *,
        topic_pattern: TopicPatterns | None = None,
        event_type: type[E],
        aggregate_type: str | type[AggregateRoot] | None = None,
        correlation_id: str | None = None,
        aggregate_id: str | None = None,
        until: int | None = None,
    ) -> AsyncGenerator[RecordedEvent[E]]: ...
    @overload
    def read_all(
        self,
        after: int = 0,
        limit: int | None = None,
        *,
        topic_pattern: TopicPatterns | None = None,
        event_type: EventTypes | None = None,
        aggregate_type: str | type[AggregateRoot] | None = None,
        correlation_id: str | None = None,
        aggregate_id: str | None = None,
        until: int | None = None,
    ) -> AsyncGenerator[RecordedEvent]: ...

    async def read_all(
        self,
        after: int = 0,
        limit: int | None = None,
        *,
        topic_pattern: TopicPatterns | None = None,
        event_type: EventTypes | None = None,
        aggregate_type: str | type[AggregateRoot] | None = None,
        correlation_id: str | None = None,
        aggregate_id: str | None = None,
        until: int | None = None,
    ) -> AsyncGenerator[RecordedEvent[Any]]:
        """The events of the log after position ``after``, in global order, read page by page.

        It ends where the log ended when the first page was read, or soon after; `subscribe` waits for further events.
        In a store with several logs each log comes in its order, and events of different logs by their time.
        Only events that all the given filters select are decoded.

        Args:
            after: Exclusive; 0 for all.
            limit: Maximum number of events.
            topic_pattern: Only events with a topic that it matches, or one of several patterns.
            event_type: Only events of this class and its subclasses, or recorded under this name; or several.
            aggregate_type: Only events of aggregates of this type.
            correlation_id: Only events caused by one first message, directly or not.
            aggregate_id: Only events of aggregates of this id. If one type has it, or with ``aggregate_type``, its
                stream is read and not the log.
            until: The last position, inclusive; it may be beyond the end.

        Raises:
            InvalidTopic: ``topic_pattern`` is not a topic pattern.
            InvalidAggregateId: No aggregate can have this id.
            SeveralLogs: ``after`` or ``until`` was given, and the store has several logs; of one stream, if it is
                in another of them.
            ValueError: ``after``, ``limit`` or ``until`` is negative, or beyond 63 bits.
        """
        matching = self.log_filter(topic_pattern, event_type, aggregate_type, correlation_id, aggregate_id)
        async with aclosing(self.read_records(after, limit, matching, until=until)) as records:
            async for position, record in records:
                yield RecordedEvent(position, to_event(record, self.event_registry, position))

    async def read_records(
        self,
        after: int = 0,
        limit: int | None = None,
        matching: LogFilter = EVERYTHING,
        *,
        until: int | None = None,
    ) -> AsyncGenerator[StoredRecord]:
        """As `read_all`, but the records themselves: the classes of the events are not needed."""
        check_number("after", after)
        check_number("limit", limit)
        check_number("until", until)
        if limit == 0:
            return
        left = limit

        def read(after: int) -> Awaitable[list[StoredRecord]]:
            return self.read_log(after, min(left, PAGE) if left and matching == EVERYTHING else PAGE)

        async def last() -> int:
            end = await self.last_position()
            return end if until is None else min(end, until)

        streams = await self._streams_meant(matching)
        if streams is not None and not streams:
            return
        pages = (
            pages_to_end(read, last, itemgetter(0), after)
            if streams is None or len(streams) > 1
            else self._pages(streams[0], await self.checked_version_at(streams[0], after, until))
        )
        async with aclosing(pages):
            async for page in pages:
                async for stored in selected(up_to(page, until), matching):
                    yield stored
                    left = None if left is None else left - 1
                    if left == 0:
                        return
                if until is not None and page[-1].position >= until:
                    return

    async def _streams_meant(self, matching: LogFilter) -> list[StreamId] | None:
        """The streams to which all belong that ``matching`` selects; ``None`` if they may be any."""
        if matching.aggregate_id is None:
            return None
        if matching.stream is not None:
            return [matching.stream]
        types = await self.aggregate_types(matching.aggregate_id)
        return [StreamId(each, matching.aggregate_id) for each in types]

    async def checked_version_at(self, stream: StreamId, after: int, until: int | None = None) -> int:
        """The version that ``stream`` had at position ``after``.

        Raises:
            SeveralLogs: A position is given, and it is of another log than the stream's.
        """
        version = await self.version_at(stream, after) if after else 0
        given = [position for position in (after, until) if position]
        logs = len(await self.last_positions()) if given else 1
        if any(log_of_position(each) != log_of_stream(stream, logs) for each in given if logs > 1):
            where = f"reading {stream} between positions of another log"
            raise SeveralLogs(shown(self, repr), logs, where, "give positions of the log of that stream")
        return version

    async def version_at(self, stream: StreamId, position: int) -> int:
        """The version that ``stream`` had when the log ended at ``position``, which is in its log."""
        below, above = 0, await self.last_version(stream)
        while below < above:  # its versions stand in the log in their order
            middle = (below + above + 1) // 2
            found = await self.read_stream(stream, middle - 1, 1)
            below, above = (middle, above) if found[0].position <= position else (below, middle - 1)
        return below

    async def read_logs(self, afters: Sequence[int], limit: int = PAGE) -> list[StoredRecord]:
        """At most ``limit`` records of each of several logs, those of one log together and in order.

        A store that can reads them at once.

        Args:
            afters: A position in each of these logs; see `EventStore.read_log`.
            limit: Maximum number of records of one log.
        """
        return [stored for after in afters for stored in await self.read_log(after, limit)]

    async def record_at(self, position: int) -> StoredRecord:
        """The record at one position of the log, which must have one."""
        (stored,) = await self.read_log(position - 1, 1)
        return stored

    def log_filter(
        self,
        topic_pattern: TopicPatterns | None = None,
        event_type: EventTypes | None = None,
        aggregate_type: str | type[AggregateRoot] | None = None,
        correlation_id: str | None = None,
        aggregate_id: str | None = None,
    ) -> LogFilter:
        """The filters of `read_all` as one value; classes stand for the names that the registry has for them now."""
        patterns = None if topic_pattern is None else topic_patterns(topic_pattern)
        if isinstance(aggregate_type, type):
            aggregate_type = aggregate_type.aggregate_type
        if aggregate_id is not None:
            check_aggregate_id(aggregate_id)
        names = None if event_type is None else recorded_names(event_type, self.event_registry)
        return LogFilter(patterns, names, aggregate_type, correlation_id, aggregate_id)

    async def causal_tree(self, correlation_id: str, after: int = 0) -> CausalTree[DomainEvent]:
        """Everything recorded for one ``correlation_id``, as a tree by cause; ``print`` shows it.

        Reads the whole log after position ``after``, page by page, at about 200,000 events/s.
        """
        stored = await self._following_from(correlation_id, after)
        return causal_tree(correlation_id, stored, lambda record: to_event(record, self.event_registry))

    async def causal_records(self, correlation_id: str, after: int = 0) -> CausalTree[Record]:
        """As `causal_tree`, but of the records themselves: the classes of the events are not needed."""
        return causal_tree(
            correlation_id, await self._following_from(correlation_id, after), lambda record: record
        )

    async def _following_from(self, correlation_id: str, after: int) -> list[StoredRecord]:
        matching = LogFilter(correlation_id=correlation_id)
        async with aclosing(self.read_records(after, matching=matching)) as records:
            return [each async for each in records]


def check_number(name: str, value: int | None) -> None:
    """Refuse numbers beyond the range of all stores: each store would treat them differently."""
    try:
        is_allowed = value is None or 0 <= value < 2**63
    except TypeError:
        raise InvalidNumber(name, "a whole number, 0 or more", value) from None
    if not is_allowed:
        raise ValueError(f"{name} must be 0 or more, and below 2**63; found {value}")


def check_position(name: str, value: Any) -> None:
    """Refuse what is not a position, or 0: a store compares it in its own way, and some would take ``True`` or 1.0."""
    if not isinstance(value, int) or isinstance(value, bool):
        raise InvalidNumber(name, "a whole number, 0 or more", value)
    check_number(name, value)


async def pages_to_end(
    read: Callable[[int], Awaitable[list[StoredRecord]]],
    last: Callable[[], Awaitable[int]],
    place: Callable[[StoredRecord], int],
    after: int,
) -> AsyncGenerator[list[StoredRecord]]:
    """Pages of records up to the end that there was when the first page was read, or soon after.

    This is the rule for every read that ends: a reader that follows a moving end never reaches it where others
    append faster than it reads. What is recorded meanwhile may be among the records, since pages are read whole.

    Args:
        read: Reads the page after a place; an empty one at the end.
        last: Tells the last place.
        place: The place of a record: its version in a stream, its position in the log.
        after: Exclusive.
    """
    end: int | None = None
    while page := await read(after):
        yield page
        after = place(page[-1])
        if end is None:
            end = await last()
        if after >= end:
            return
        await asyncio.sleep(0)  # a long read must not block the event loop


def up_to(page: list[StoredRecord], until: int | None) -> list[StoredRecord]:
    """The records of ``page``, which is in order, up to the position ``until``."""
    if until is None or not page or page[-1].position <= until:
        return page
    return page[: bisect_right(page, until, key=itemgetter(0))]


async def selected(page: list[StoredRecord], matching: LogFilter) -> AsyncIterator[StoredRecord]:
    """The records of ``page`` that match, with pauses in which other tasks get the event loop."""
    for start in range(0, len(page), STRIDE):
        for stored in page[start : start + STRIDE]:
            if matching.matches(stored.record):
                yield stored
        await asyncio.sleep(0)
