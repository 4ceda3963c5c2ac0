"""Readers whose log or stream grows faster than they read: each still comes to an end."""

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import aclosing
from typing import Any

import pytest

from tests.bank import Account, Balance, BankStore, Credit, Credited
from uno_actors import ActorSystem, AskTimeout, ConcurrencyConflict, EventSourcedRepository
from uno_actors.store.codec import StreamId, to_record
from uno_actors.store.port import EventStore
from uno_actors.store.records import PAGE, Append, StoredRecord
from uno_stores import InMemoryEventStore

ALICE = StreamId("Account", "alice")


class Growing(BankStore):
    """Whenever a page is read, another writer has recorded more than a page."""

    grows = True
    page = PAGE

    async def grow(self) -> None:
        if self.grows:
            event = Credited(aggregate_id="alice", aggregate_type="Account", amount=1, correlation_id="all")
            await InMemoryEventStore.commit(self, [Append((to_record(event),) * (self.page + 1))])

    async def read_stream(
        self, stream: StreamId, after_version: int = 0, limit: int = PAGE
    ) -> list[StoredRecord]:
        page = await super().read_stream(stream, after_version, min(limit, self.page))
        await self.grow()
        return page

    async def read_log(self, after: int = 0, limit: int = PAGE) -> list[StoredRecord]:
        page = await super().read_log(after, min(limit, self.page))
        await self.grow()
        return page


async def count_all(store: EventStore, **narrowed: Any) -> int:
    async with aclosing(store.read_all(**narrowed)) as events:
        return len([event async for event in events])


async def count_stream(store: EventStore, *, backward: bool) -> int:
    async with aclosing(store.stream_records(ALICE, backward=backward)) as records:
        return len([record async for record in records])


async def count_events(store: EventStore) -> int:
    return len([event async for event in store.stream_events(ALICE)])


async def count_loaded(store: EventStore) -> int:
    return (await EventSourcedRepository(Account, store).get_by_id("alice")).version


async def count_got(store: EventStore) -> int:
    return len(await store.get_events("alice"))


async def count_caused(store: EventStore) -> int:
    return len((await store.causal_records("all")).roots)


READS: dict[str, Callable[[EventStore], Awaitable[int]]] = {
    "read_all": count_all,
    "read_all of what there is not": lambda store: count_all(store, correlation_id="none"),
    "read_all of more than there is": lambda store: count_all(store, limit=10**6),
    "get_events": count_got,
    "stream_events": count_events,
    "stream_records": lambda store: count_stream(store, backward=False),
    "stream_records backward": lambda store: count_stream(store, backward=True),
    "a repository": count_loaded,
    "a causal tree": count_caused,
}


@pytest.mark.parametrize("read", READS.values(), ids=READS)
async def test_read_ends_where_the_log_ended_when_it_began(
    read: Callable[[EventStore], Awaitable[int]],
) -> None:
    store = Growing()
    for _ in range(3):
        await store.grow()
    begun = await store.last_position()
    async with asyncio.timeout(20):
        found = await read(store)
    assert found == 0 or begun <= found <= begun + 3 * (PAGE + 1)


async def test_ask_of_an_aggregate_whose_stream_grows_faster_than_it_is_read_is_answered() -> None:
    store = Growing()
    store.page = 1  # each load doubles the stream
    await store.grow()
    async with ActorSystem(store, aggregates=[Account], handlers=[]) as system:
        account = system.aggregate(Account, "alice")
        assert await account.ask(Balance(), timeout=20) >= 2
        try:
            await account.ask(Credit(amount=1), timeout=1)
        except (AskTimeout, ConcurrencyConflict) as error:
            assert "other" in str(error)  # noqa: PT017 - either is right
        store.grows = False
        end = await store.last_version(ALICE)
        assert await account.ask(Credit(amount=1)) >= end
