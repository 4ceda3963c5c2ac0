"""Reads that wait for future records, and the listeners that wake them."""

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import aclosing
from heapq import merge
from typing import Any, overload

from uno_actors.domain.aggregate import AggregateRoot
from uno_actors.errors import SeveralLogs, StoreUnavailable, shown
from uno_actors.store.codec import StreamId, to_event
from uno_actors.store.log_filter import EVERYTHING, EventTypes, LogFilter, TopicPatterns
from uno_actors.store.logs import log_of_position, starts_of_logs
from uno_actors.store.merging import page_of_each
from uno_actors.store.queries import READ_ALL_LOGS, EventQueries, check_number, selected
from uno_actors.store.records import E, RecordedEvent, StoredRecord


class EventFollowing(EventQueries):
    """The part of a store that follows its log as it grows."""

    def __init__(self) -> None:
        self._commit_listeners: list[Callable[[], None]] = []
        self._followers: set[asyncio.Event] = set()
        self._ending = False

    @property
    def listeners(self) -> int:
        """Number of listeners of `on_commit`; each subscription has one."""
        return len(self._commit_listeners)

    @property
    def subscriptions(self) -> int:
        """Number of subscriptions that have begun and not ended."""
        return len(self._followers)

    @overload
    def subscribe(
        self,
        after: int = 0,
        *,
        topic_pattern: TopicPatterns | None = None,
        event_type: type[E],
        aggregate_type: str | type[AggregateRoot] | None = None,
        correlation_id: str | None = None,
        aggregate_id: str | None = None,
    ) -> AsyncGenerator[RecordedEvent[E]]: ...
    @overload
    def subscribe(
        self,
        after: int = 0,
        *,
        topic_pattern: TopicPatterns | None = None,
        event_type: EventTypes | None = None,
        aggregate_type: str | type[AggregateRoot] | None = None,
        correlation_id: str | None = None,
        aggregate_id: str | None = None,
    ) -> AsyncGenerator[RecordedEvent]: ...

    async def subscribe(
        self,
        after: int = 0,
        *,
        topic_pattern: TopicPatterns | None = None,
        event_type: EventTypes | None = None,
        aggregate_type: str | type[AggregateRoot] | None = None,
        correlation_id: str | None = None,
        aggregate_id: str | None = None,
    ) -> AsyncGenerator[RecordedEvent[Any]]:
        """The events of the log after position ``after``, then each new one, without gaps or duplicates.

        It ends when the store is closed; until then it waits for more, and can be left or cancelled at any time.
        It reads the log at its own pace, so a slow consumer costs no memory. It keeps no checkpoint: to resume
        later, keep the position of the last event taken. Subclasses defined after the call are not among
        ``event_type``.

        Args:
            after: Exclusive; 0 for all, `last_position` for only those to come.
            topic_pattern: As of `read_all`, like the others.
            event_type: See there.
            aggregate_type: See there.
            correlation_id: See there.
            aggregate_id: See there; with ``aggregate_type`` only this stream is read, which need not exist yet.

        Raises:
            InvalidTopic: ``topic_pattern`` is not a topic pattern.
            InvalidAggregateId: No aggregate can have this id.
            SeveralLogs: ``after`` is not 0, and the store has several logs; of one stream, if it is in another one.
            ValueError: ``after`` is negative, or beyond 63 bits.
        """
        matching = self.log_filter(topic_pattern, event_type, aggregate_type, correlation_id, aggregate_id)
        async with aclosing(self.follow_records(after, matching)) as records:
            async for position, record in records:
                yield RecordedEvent(position, to_event(record, self.event_registry, position))

    async def follow_records(
        self, after: int = 0, matching: LogFilter = EVERYTHING
    ) -> AsyncGenerator[StoredRecord]:
        """As `subscribe`, but the records themselves: the classes of the events are not needed."""
        stream = matching.stream
        found = self.follow_pages(after) if stream is None else self._follow_stream(stream, after)
        async with aclosing(found) as pages:
            async for page in pages:
                async for stored in selected(page, matching):
                    yield stored

    async def follow_pages(self, after: int = 0) -> AsyncGenerator[list[StoredRecord]]:
        """As `follow_records`, but all records, in the pages in which they are read: a reader sees how far it is."""
        check_number("after", after)
        logs = len(await self.last_positions())  # refused by a store that is closed already
        if logs > 1 and after:
            raise SeveralLogs(shown(self, repr), logs, "following after a position", READ_ALL_LOGS)
        places = [after] if logs == 1 else starts_of_logs(logs)
        read = self._page_of_one if logs == 1 else self._page_of_several
        async with aclosing(self._follow(lambda: read(places))) as pages:
            async for page in pages:
                yield page

    async def _follow_stream(self, stream: StreamId, after: int) -> AsyncGenerator[list[StoredRecord]]:
        """The pages of one stream after a position of its log, as they grow."""
        check_number("after", after)
        version = await self.checked_version_at(stream, after)

        async def read() -> list[StoredRecord]:
            nonlocal version
            page = await self.read_stream(stream, version)
            version += len(page)
            return page

        async with aclosing(self._follow(read)) as pages:
            async for page in pages:
                yield page

    async def _follow(
        self, read: Callable[[], Awaitable[list[StoredRecord]]]
    ) -> AsyncGenerator[list[StoredRecord]]:
        """What ``read`` returns, each time that the store has grown, until it is closed."""
        grown = asyncio.Event()
        stop = self.on_commit(grown.set)
        self._followers.add(grown)
        try:
            while True:
                grown.clear()  # before reading: an append during the read sets it again
                page = await self._unless_ending(read)
                if page is None:
                    return
                if page:
                    yield page
                else:
                    await grown.wait()
        finally:
            stop()
            self._followers.discard(grown)

    async def _unless_ending(
        self, read: Callable[[], Awaitable[list[StoredRecord]]]
    ) -> list[StoredRecord] | None:
        """What ``read`` returns; ``None`` if the store is being closed."""
        try:
            return None if self._ending else await read()
        except StoreUnavailable:
            if self._ending:
                return None
            raise

    async def _page_of_one(self, places: list[int]) -> list[StoredRecord]:
        """The page after the one of ``places``, which it moves."""
        page = await self.read_log(places[0])
        if page:
            places[0] = page[-1].position
        return page

    async def _page_of_several(self, places: list[int]) -> list[StoredRecord]:
        """A page of each log after ``places``, a position in each, which it moves."""
        pages: dict[int, list[StoredRecord]] = {}
        for stored in await self.read_logs(places, page_of_each(len(places))):
            pages.setdefault(log_of_position(stored.position), []).append(stored)
        for number, page in pages.items():
            places[number] = page[-1].position
        return [*merge(*pages.values(), key=lambda stored: stored.record.timestamp)]

    def on_commit(self, listener: Callable[[], None]) -> Callable[[], None]:
        """Call ``listener`` on the event loop after each commit of this store; return a function that ends this."""
        self._commit_listeners.append(listener)
        return lambda: self._commit_listeners.remove(listener)

    def _committed(self) -> None:
        """For implementations: call the listeners, since the log has grown."""
        for listener in tuple(self._commit_listeners):
            listener()

    def _end_subscriptions(self) -> None:
        """For implementations: the store is being closed, so end every `subscribe` that waits for more events."""
        self._ending = True
        for follower in self._followers:
            follower.set()
