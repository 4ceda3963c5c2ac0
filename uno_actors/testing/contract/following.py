"""Subscriptions and listeners."""

import asyncio
from collections.abc import AsyncIterator
from typing import Any

from uno_actors.errors import (
    SeveralLogs,
    StoreUnavailable,
)
from uno_actors.store.logs import log_of_position
from uno_actors.store.records import PAGE, RecordedEvent
from uno_actors.testing.contract.events import noted
from uno_actors.testing.contract.expectations import (
    expect_equal,
    expect_error,
    expect_in_log_order,
    in_place,
)
from uno_actors.testing.contract.reading import _WAYS, _scattered
from uno_actors.testing.contract.store_place import MakeStore, opened

PATIENCE = 10.0
"""Seconds within which a subscription must see a new event."""


async def subscriptions_go_from_history_to_live(make_store: MakeStore) -> None:
    """A subscription gives what was recorded and then what is being recorded, each once and in order."""
    async with opened(make_store) as store:
        history = await store.append(*_scattered(PAGE + 3))
        end = history[-1].position
        starts = [(0, *way) for way in _WAYS]
        if len(await store.last_positions()) == 1:
            starts += [(end, *_WAYS[0]), (end - 2, *_WAYS[0])]
        else:
            await expect_error(SeveralLogs, anext(store.subscribe(end)), "subscribing after a position")
        taken: list[list[RecordedEvent]] = [[] for _ in starts]

        async def take(into: list[RecordedEvent], after: int, way: dict[str, Any]) -> None:
            async for recorded in store.subscribe(after, **way):
                into.append(recorded)  # noqa: PERF401 - it is looked at meanwhile

        tasks = [
            asyncio.ensure_future(take(into, after, way))
            for into, (after, way, _) in zip(taken, starts, strict=True)
        ]
        for number in range(30):  # beside them, some before they have read the history, some after
            history += await store.append(*_scattered(12))
            if number % 5 == 0:
                await asyncio.sleep(0.01)
        try:
            for into, (after, way, is_wanted) in zip(taken, starts, strict=True):
                wanted = [each for each in history if each.position > after and is_wanted(each.event)]
                await _take(into, len(wanted))
                expect_in_log_order(into)
                expect_equal(
                    in_place(into), in_place(wanted), f"what a subscription after {after} to {way} gave"
                )
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
        await store.append(noted("a"))  # with no listener left


async def one_stream_is_followed(make_store: MakeStore) -> None:
    """A subscription to one stream gives its events after a position of its log, and ends with the store."""
    async with opened(make_store) as store:
        to_come: dict[str, Any] = {"aggregate_id": "b", "aggregate_type": "Account"}
        history = [each for n in range(6) for each in await store.append(noted("a", str(n)), noted("c"))]
        history += await store.append(*[noted("a", str(number)) for number in range(PAGE)])
        own = [each for each in history if each.event.aggregate_id == "a"]
        taken: list[list[RecordedEvent]] = [[], [], [], []]
        followed = [
            store.subscribe(aggregate_id="a", aggregate_type="Account"),
            store.subscribe(own[3].position, aggregate_id="a", aggregate_type="Account"),
            store.subscribe(own[-1].position, aggregate_id="a", aggregate_type="Account"),
            store.subscribe(**to_come),
        ]
        tasks = [
            asyncio.ensure_future(_take_all(each, into)) for each, into in zip(followed, taken, strict=True)
        ]
        try:
            for number in range(20):
                new = await store.append(noted("a", f"new {number}"), noted("b"), noted("b", of="User"))
                own += [each for each in new if each.event.aggregate_id == "a"]
                history += new
                if number % 5 == 0:
                    await asyncio.sleep(0.01)
            b = [
                each
                for each in history
                if (each.event.aggregate_id, each.event.aggregate_type) == ("b", "Account")
            ]
            wanted = [own, own[4:], own[-20:], b]
            for into, all_of_them in zip(taken, wanted, strict=True):
                await _take(into, len(all_of_them))
            await store.close()
            _, pending = await asyncio.wait(tasks, timeout=PATIENCE)
            expect_equal(len(pending), 0, "subscriptions that did not end with the store")
            for into, all_of_them, what in zip(
                taken, wanted, ("all", "after", "at the end", "new"), strict=True
            ):
                expect_equal(into, all_of_them, f"what a subscription to one stream gave: {what}")
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)


async def _take(events: list[RecordedEvent], count: int) -> None:
    """Wait until there are ``count``, or for `PATIENCE` seconds."""
    loop = asyncio.get_running_loop()
    deadline = loop.time() + PATIENCE
    while len(events) < count and loop.time() < deadline:  # noqa: ASYNC110 - stores wake readers in many ways
        await asyncio.sleep(0.001)


async def subscriptions_end_with_the_store(make_store: MakeStore) -> None:
    """Closing the store ends its subscriptions, those that wait and those in the middle; later ones refuse."""
    async with opened(make_store) as store:
        log = await store.append(*[noted("a", str(number)) for number in range(3)])
        found: list[list[RecordedEvent]] = [[], []]
        has_one = len(await store.last_positions()) == 1
        at_the_end = store.subscribe(log[-1].position) if has_one else store.subscribe(correlation_id="none")
        waiting = [
            asyncio.ensure_future(_take_all(store.subscribe(), found[0])),
            asyncio.ensure_future(_take_all(at_the_end, found[1])),
        ]
        middle = store.subscribe()
        expect_equal(await anext(middle), log[0], "the first of a subscription")
        await _take(found[0], len(log))
        await store.close()
        _, pending = await asyncio.wait(waiting, timeout=PATIENCE)
        for task in pending:
            task.cancel()
        expect_equal(len(pending), 0, "subscriptions that did not end")
        await asyncio.gather(*waiting)
        expect_equal(found, [log, []], "what subscriptions gave until the store was closed")
        rest = await asyncio.wait_for(_take_all(middle), PATIENCE)
        expect_equal(rest, log[1 : 1 + len(rest)], "what one in the middle gave then")
        await expect_error(StoreUnavailable, _take_all(store.subscribe()), "subscribing after close")


async def _take_all(
    subscription: AsyncIterator[RecordedEvent], taken: list[RecordedEvent] | None = None
) -> list[RecordedEvent]:
    """What a subscription gives until it ends; each event is in ``taken`` as soon as it is there."""
    taken = [] if taken is None else taken
    async for recorded in subscription:
        taken.append(recorded)
    return taken


async def listeners_hear_of_commits(make_store: MakeStore) -> None:
    """A listener is called when the log has grown and before `append` returns, until it is stopped."""
    async with opened(make_store) as store:
        loop = asyncio.get_running_loop()
        heard: list[str] = []
        on_loop: list[bool] = []

        def listen() -> None:
            heard.append("first")
            on_loop.append(asyncio.get_running_loop() is loop)

        stop = store.on_commit(listen)
        store.on_commit(lambda: heard.append("second"))
        await store.append(noted("a"))
        expect_equal(heard, ["first", "second"], "listeners called at the first append")
        stop()
        await store.append(noted("a"))
        expect_equal(heard, ["first", "second", "second"], "listeners called after one was stopped")
        expect_equal(on_loop, [True], "whether it was called on the event loop")


async def listeners_find_what_was_committed(make_store: MakeStore) -> None:
    """When a listener is called, a reader finds what was committed."""
    async with opened(make_store) as store:
        ends: list[asyncio.Task[list[int]]] = []
        store.on_commit(lambda: ends.append(asyncio.ensure_future(store.last_positions())))
        appended = [await store.append(noted("a"), noted("b")) for _ in range(3)]
        for recorded, found in zip(appended, await asyncio.gather(*ends), strict=True):
            for position, _ in recorded:
                end = found[log_of_position(position)]
                if end < position:
                    raise AssertionError(f"a listener found the log ending at {end}, before {position}")
