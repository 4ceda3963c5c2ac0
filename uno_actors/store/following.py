"""Reads that wait for future records, and the listeners that wake them."""

import asyncio
from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing
from typing import Any, overload

from uno_actors.domain.aggregate import AggregateRoot
from uno_actors.errors import StoreUnavailable
from uno_actors.store.codec import to_event
from uno_actors.store.log_filter import EVERYTHING, EventTypes, LogFilter
from uno_actors.store.queries import EventQueries, check_number, selected
from uno_actors.store.records import E, RecordedEvent, StoredRecord
from uno_actors.topics import TopicPattern


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
        topic_pattern: TopicPattern | str | None = None,
        event_type: type[E],
        aggregate_type: str | type[AggregateRoot] | None = None,
        correlation_id: str | None = None,
    ) -> AsyncGenerator[RecordedEvent[E]]: ...
    @overload
    def subscribe(
        self,
        after: int = 0,
        *,
        topic_pattern: TopicPattern | str | None = None,
        event_type: EventTypes | None = None,
        aggregate_type: str | type[AggregateRoot] | None = None,
        correlation_id: str | None = None,
    ) -> AsyncGenerator[RecordedEvent]: ...

    async def subscribe(
        self,
        after: int = 0,
        *,
        topic_pattern: TopicPattern | str | None = None,
        event_type: EventTypes | None = None,
        aggregate_type: str | type[AggregateRoot] | None = None,
        correlation_id: str | None = None,
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

        Raises:
            InvalidTopic: ``topic_pattern`` is not a topic pattern.
            ValueError: ``after`` is negative, or beyond 63 bits.
        """
        matching = self.log_filter(topic_pattern, event_type, aggregate_type, correlation_id)
        async with aclosing(self.follow_records(after, matching)) as records:
            async for position, record in records:
                yield RecordedEvent(position, to_event(record, self.event_registry, position))

    async def follow_records(
        self, after: int = 0, matching: LogFilter = EVERYTHING
    ) -> AsyncGenerator[StoredRecord]:
        """As `subscribe`, but the records themselves: the classes of the events are not needed."""
        check_number("after", after)
        await self.last_position()  # refused by a store that is closed already
        grown = asyncio.Event()
        stop = self.on_commit(grown.set)
        self._followers.add(grown)
        try:
            while True:
                grown.clear()  # before reading: an append during the read sets it again
                page = await self._page_until_the_end(after)
                if page is None:
                    return
                async for stored in selected(page, matching):
                    yield stored
                if page:
                    after = page[-1].position
                else:
                    await grown.wait()
        finally:
            stop()
            self._followers.discard(grown)

    async def _page_until_the_end(self, after: int) -> list[StoredRecord] | None:
        """The page of the log after ``after``; ``None`` if the store is being closed."""
        try:
            return None if self._ending else await self.read_log(after)
        except StoreUnavailable:
            if self._ending:
                return None
            raise

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
