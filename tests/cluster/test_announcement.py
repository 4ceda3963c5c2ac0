"""The announcement of a node: renewed in time, changed at once, ended when the node ends."""

import asyncio
from collections.abc import Coroutine
from dataclasses import replace
from typing import Any

import pytest

from tests.faults import nodes_are_announced_by
from tests.waiting import until
from uno_actors.cluster.announcement import Announcement
from uno_actors.errors import StoreUnavailable
from uno_actors.store.membership import Member, Membership
from uno_actors.testing.clock import ManualClock
from uno_stores import InMemoryEventStore

TTL = 3.0
tasks: set[asyncio.Task[Any]] = set()


def begin(coroutine: Coroutine[Any, Any, None]) -> None:
    task = asyncio.ensure_future(coroutine)
    tasks.add(task)
    task.add_done_callback(tasks.discard)


def announcement(store: InMemoryEventStore, name: str, clock: ManualClock) -> Announcement:
    membership: Membership = store.membership(TTL, clock)
    return Announcement(membership, Member(id=name, name=name), TTL, clock, begin)


def names(of: Announcement) -> list[str]:
    return [member.id for member in of.members]


async def test_nodes_see_each_other_at_once() -> None:
    store, clock = InMemoryEventStore(), ManualClock()
    a, b = announcement(store, "a", clock), announcement(store, "b", clock)
    await a.start()
    assert names(a) == ["a"]
    await b.start()
    assert names(b) == ["a", "b"]
    await until(lambda: names(a) == ["a", "b"])


async def test_a_node_that_renews_stays_and_one_that_hangs_ends() -> None:
    store, clock = InMemoryEventStore(), ManualClock()
    hangs, lives = announcement(store, "hangs", clock), announcement(store, "lives", clock)
    await hangs.start()
    await lives.start()
    hangs.close()  # renews no more
    for _ in range(12):
        clock.advance(TTL / 4)
        await until(lambda: not tasks)
    assert names(lives) == ["lives"]
    assert [member.id for member in await store.membership(TTL, clock).announce(lives.member)] == ["lives"]


async def test_a_change_shows_here_at_once_and_elsewhere_soon() -> None:
    store, clock = InMemoryEventStore(), ManualClock()
    a, b = announcement(store, "a", clock), announcement(store, "b", clock)
    await a.start()
    await b.start()
    await until(lambda: names(a) == ["a", "b"])
    seen: list[bool] = []
    a.when_changed(lambda: seen.append(a.member.leaving))
    a.change(leaving=True)
    assert seen == [True]
    await until(lambda: [member.leaving for member in b.members] == [True, False])
    a.change(leaving=True)
    assert seen == [True]


async def test_a_node_that_withdraws_is_gone_elsewhere_at_once() -> None:
    store, clock = InMemoryEventStore(), ManualClock()
    a, b = announcement(store, "a", clock), announcement(store, "b", clock)
    await a.start()
    await b.start()
    await until(lambda: names(a) == ["a", "b"])
    await b.withdraw()
    await b.withdraw()
    await until(lambda: names(a) == ["a"])


async def test_a_store_that_fails_leaves_the_last_view_and_is_asked_again(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    store, clock = InMemoryEventStore(), ManualClock()
    a, b = announcement(store, "a", clock), announcement(store, "b", clock)
    await b.start()
    await a.start()

    async def fails(member: Member) -> tuple[Member, ...]:
        raise StoreUnavailable("memory", "cut off")

    with monkeypatch.context() as patched:
        nodes_are_announced_by(patched, a, fails)
        for _ in range(3):
            clock.advance(TTL / 3)
            await until(lambda: not tasks)
        assert names(a) == ["a", "b"]
    b.change(capacity=2.0)
    await until(lambda: [member.capacity for member in a.others] == [2.0])


async def test_a_change_while_the_store_is_asked_is_announced_after_it() -> None:
    store, clock = InMemoryEventStore(), ManualClock()
    a, b = announcement(store, "a", clock), announcement(store, "b", clock)
    await a.start()
    await b.start()
    a.refresh()
    a.change(roles=("handlers",))
    a.change(roles=("aggregates",))
    await until(lambda: b.others == (replace(a.member, roles=("aggregates",)),))


async def test_a_listener_that_fails_stops_no_other() -> None:
    store, clock = InMemoryEventStore(), ManualClock()
    a = announcement(store, "a", clock)
    await a.start()
    seen: list[str] = []
    a.when_changed(lambda: 1 / 0)
    a.when_changed(lambda: seen.append("told"))
    a.change(leaving=True)
    assert seen == ["told"]
