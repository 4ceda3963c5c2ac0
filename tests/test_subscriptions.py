"""Live subscriptions and long scans: they leave nothing behind, and other tasks run at the same time."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import aclosing
from pathlib import Path

import pytest
from waiting import turns, until

from tests.machine import patience
from uno_actors import DomainEvent, EventRegistry, EventStore, StoreUnavailable, UnknownEventType
from uno_actors.store.codec import to_record
from uno_actors.store.expected_version import ANY
from uno_actors.store.queries import STRIDE
from uno_actors.store.records import Append, StoredRecord
from uno_stores import InMemoryEventStore, LmdbEventStore


class Ticked(DomainEvent):
    number: int


@pytest.fixture(params=["memory", "lmdb"])
async def store(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[EventStore]:
    registry = EventRegistry([Ticked])
    store = InMemoryEventStore(registry) if request.param == "memory" else LmdbEventStore(tmp_path, registry)
    async with store:
        yield store


def ticks(count: int) -> list[Ticked]:
    return [Ticked(number=number) for number in range(count)]


async def take(store: EventStore, into: list[int]) -> None:
    async for _, event in store.subscribe():
        assert isinstance(event, Ticked)
        into.append(event.number)


async def test_a_cancelled_subscription_leaves_nothing_behind(store: EventStore) -> None:
    """Even if it is cancelled before it starts, in the middle of the history, or while it waits."""
    await store.append(*ticks(STRIDE * 3))
    for reached in (0, 1, STRIDE * 3):
        taken: list[int] = []
        task = asyncio.ensure_future(take(store, taken))
        await until(lambda taken=taken, reached=reached: len(taken) >= reached)  # type: ignore[misc]
        await turns()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert (store.listeners, store.subscriptions) == (0, 0)
        assert taken == list(range(len(taken)))
    await store.append(*ticks(1))


async def test_a_subscription_that_is_left_by_break_or_closed_leaves_nothing_behind(
    store: EventStore,
) -> None:
    await store.append(*ticks(3))
    async for _, event in store.subscribe():
        if event.number == 1:
            break
    await until(lambda: store.listeners == 0)
    async with aclosing(store.subscribe(after=3)) as subscription:
        waiting = asyncio.ensure_future(anext(subscription))
        await until(lambda: store.listeners)
        await store.append(*ticks(1))
        assert (await waiting).position == 4
    assert (store.listeners, store.subscriptions) == (0, 0)


async def test_many_subscriptions_notice_one_append(store: EventStore) -> None:
    takers: list[list[int]] = [[] for _ in range(50)]
    tasks = [asyncio.ensure_future(take(store, taken)) for taken in takers]
    await turns()
    await store.append(*ticks(3))
    await until(lambda: all(len(taken) == 3 for taken in takers))
    await store.close()
    await asyncio.wait_for(asyncio.gather(*tasks), patience(5))
    assert takers == [[0, 1, 2]] * 50


async def test_a_subscription_that_meets_an_unreadable_event_says_so_and_is_gone(store: EventStore) -> None:
    record = to_record(DomainEvent())._replace(event_type="NeverDefined")
    await store.commit([Append((record,), ANY)])
    with pytest.raises(UnknownEventType, match="NeverDefined"):
        await anext(store.subscribe())
    assert store.listeners == 0


class Failing(InMemoryEventStore):
    async def read_log(self, after: int = 0, limit: int = 512) -> list[StoredRecord]:
        raise StoreUnavailable("memory:", "the disk is gone")


async def test_a_store_that_fails_is_not_mistaken_for_one_that_was_closed() -> None:
    async with Failing() as store:
        with pytest.raises(StoreUnavailable, match="the disk is gone"):
            await anext(store.subscribe())


async def test_others_get_the_loop_while_a_long_log_is_searched(store: EventStore) -> None:
    """Also if nothing matches, and if the reader itself never waits."""
    count = STRIDE * 40
    await store.append(*ticks(count))
    rounds = 0

    async def go_round() -> None:
        nonlocal rounds
        while True:
            await asyncio.sleep(0)
            rounds += 1

    beside = asyncio.ensure_future(go_round())
    assert [each async for each in store.read_all(correlation_id="nothing")] == []
    assert rounds > count // STRIDE - 3
    rounds = 0
    assert len([each async for each in store.read_all()]) == count
    assert rounds > count // STRIDE - 3
    rounds = 0
    assert len(await store.causal_tree("nothing")) == 0
    assert rounds > count // STRIDE - 3
    beside.cancel()
    await asyncio.gather(beside, return_exceptions=True)
