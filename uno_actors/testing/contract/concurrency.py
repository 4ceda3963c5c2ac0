"""Many tasks at once."""

import asyncio

from uno_actors.errors import (
    ConcurrencyConflict,
)
from uno_actors.store.records import RecordedEvent, StoredRecord
from uno_actors.testing.contract.events import Noted, noted
from uno_actors.testing.contract.expectations import expect_equal, log_of, starts_of, versions_of
from uno_actors.testing.contract.store_place import MakeStore, opened


async def one_of_many_wins(make_store: MakeStore) -> None:
    """Of many concurrent appends that expect the same version of a stream, exactly one is recorded."""
    async with opened(make_store) as store:
        for expected in range(3):
            outcomes = await asyncio.gather(
                *[store.append(noted("a", str(n)), expected_version=expected) for n in range(30)],
                return_exceptions=True,
            )
            winners = [outcome[0].event for outcome in outcomes if isinstance(outcome, list)]
            losers = [outcome for outcome in outcomes if isinstance(outcome, ConcurrencyConflict)]
            expect_equal((len(winners), len(losers)), (1, 29), "winners and losers")
            expect_equal(await store.get_events("a", since_version=expected), winners, "what was recorded")


async def many_appends_leave_no_gap(make_store: MakeStore) -> None:
    """Appends of many tasks produce versions and a log without gap or loss, each append in one piece."""
    async with opened(make_store) as store:

        async def write(task: int) -> list[RecordedEvent]:
            recorded: list[RecordedEvent] = []
            for turn in range(5):
                events = [noted(f"s{(task + turn) % 3}", f"{task}.{turn}.{part}") for part in range(2)]
                recorded += await store.append(*events)
            return recorded

        written = await asyncio.gather(*[write(task) for task in range(40)])
        log = await log_of(store)
        expect_equal(log, sorted(recorded for per_task in written for recorded in per_task), "the log")
        texts = [recorded.event.text for recorded in log if isinstance(recorded.event, Noted)]
        for first, second in zip(texts[::2], texts[1::2], strict=True):
            expect_equal(second, first.removesuffix("0") + "1", "what follows the first half of an append")
        versions = [await versions_of(store, f"s{number}") for number in range(3)]
        for found in versions:
            expect_equal(found, list(range(1, len(found) + 1)), "versions of a stream")
        expect_equal(sum(map(len, versions)), 400, "events in all streams")


async def readers_see_a_prefix(make_store: MakeStore) -> None:
    """Readers that run beside writers see each log grow only at its end, by whole appends."""
    async with opened(make_store) as store:
        done = asyncio.Event()
        starts = await starts_of(store)
        seen: list[tuple[int, list[StoredRecord]]] = []

        async def read() -> None:
            while not done.is_set():
                seen.extend([(start, await store.read_log(start, 10_000)) for start in starts])
                await store.last_positions()
                await asyncio.sleep(0)

        async def write(task: int) -> None:
            for _ in range(10):
                await store.append(*[noted(f"s{task % 2}") for _ in range(3)])

        reader = asyncio.ensure_future(read())
        try:
            await asyncio.gather(*[write(task) for task in range(8)])
        finally:
            done.set()
            await reader
        logs = {start: await store.read_log(start, 10_000) for start in starts}
        for start, prefix in seen:
            expect_equal(prefix, logs[start][: len(prefix)], "what a reader saw")
            expect_equal(len(prefix) % 3, 0, "events of halved appends")


async def a_cancelled_append_is_recorded_whole_or_not_at_all(make_store: MakeStore) -> None:
    """An append whose caller is cancelled is recorded whole or not at all, and harms no other."""
    async with opened(make_store) as store:
        doomed = [asyncio.ensure_future(store.append(noted(f"d{n}"), noted(f"d{n}"))) for n in range(10)]
        others = [asyncio.ensure_future(store.append(noted("a"), noted("a"))) for _ in range(10)]
        await asyncio.sleep(0)
        for task in doomed:
            task.cancel()
        await asyncio.gather(*doomed, return_exceptions=True)
        await asyncio.gather(*others)
        await store.append(noted("a"))
        expect_equal(
            await versions_of(store, "a"), list(range(1, 22)), "versions of the stream of the others"
        )
        for number in range(10):
            found = await versions_of(store, f"d{number}")
            if found not in ([], [1, 2]):
                raise AssertionError(f"a cancelled append left {found}")
