"""Positions in the log, and versions in streams."""

import asyncio
from collections.abc import Sequence

from uno_actors.errors import (
    InvalidAggregateId,
)
from uno_actors.store.logs import log_of_position
from uno_actors.testing.contract.events import noted
from uno_actors.testing.contract.expectations import (
    expect_empty,
    expect_ends,
    expect_equal,
    expect_error,
    in_place,
    log_of,
    starts_of,
    texts_of,
    versions_of,
)
from uno_actors.testing.contract.store_place import MakeStore, opened


async def positions_only_grow(make_store: MakeStore) -> None:
    """Positions in a log grow, and the events of one append stand side by side in each log."""
    async with opened(make_store) as store:
        await expect_empty(store)
        expect_equal(await log_of(store), [], "an empty log")
        starts = await starts_of(store)
        last = dict(enumerate(starts))
        every: list[int] = []
        for events in ("aba", (None,), "ca"):
            recorded = await store.append(*(noted(name) for name in events))
            places: dict[int, list[int]] = {}
            for position, _ in recorded:
                places.setdefault(log_of_position(position), []).append(position)
            for number, positions in places.items():
                first = positions[0]
                expect_equal(positions, [*range(first, first + len(positions))], "places of one append")
                if first <= last[number]:
                    raise AssertionError(f"position {first} was given after {last[number]}")
                last[number] = positions[-1]
            every += [position for position, _ in recorded]
        found = [position for position, _ in await log_of(store)]
        expect_equal(len(found), 6, "the number of events in the log")
        expect_equal(found, sorted(every), "positions that append returned")
        await expect_ends(store, [last[number] for number in range(len(starts))])


async def append_returns_what_readers_read(make_store: MakeStore) -> None:
    """What `append` returns, with places filled in, is what the log and the stream hold."""
    async with opened(make_store) as store:
        sent = noted("a", "one", topic="accounts.noted", correlation_id="c", causation_id="k")
        recorded = await store.append(sent, noted("a", "two"))
        expect_equal(await log_of(store), recorded, "the log")
        expect_equal(await store.get_events("a"), [event for _, event in recorded], "the stream")
        expect_equal(recorded[0].event, sent.stamped(aggregate_version=1), "the first event")


async def appending_nothing_changes_nothing(make_store: MakeStore) -> None:
    """An append without events, and a commit without requests, leave no trace."""
    async with opened(make_store) as store:
        expect_equal(await store.append(), [], "append()")
        expect_equal(await store.commit([]), [], "commit([])")
        await expect_empty(store)


async def versions_count_each_stream(make_store: MakeStore) -> None:
    """Versions run 1, 2, 3 in each stream, however appends to several streams alternate."""
    async with opened(make_store) as store:
        await store.append(noted("a"), noted("b"), noted("a"))
        await store.append(noted("b"))
        await store.append(noted("a"), noted("b"))
        expect_equal(await versions_of(store, "a"), [1, 2, 3], "versions of a")
        expect_equal(await versions_of(store, "b"), [1, 2, 3], "versions of b")


async def streams_are_named_by_type_and_id(make_store: MakeStore) -> None:
    """Streams of one id and different aggregate types are kept apart."""
    async with opened(make_store) as store:
        await store.append(noted("alice", "account", of="Account"))
        await store.append(noted("alice", "user", of="User"), expected_version=0)
        await store.append(noted("alice", "account again", of="Account"), expected_version=1)
        expect_equal(
            await texts_of(store, "alice", of="Account"), ["account", "account again"], "the account"
        )
        expect_equal(await texts_of(store, "alice", of="User"), ["user"], "the user")
        expect_equal(await store.aggregate_types("alice"), ["Account", "User"], "types of alice")
        expect_equal(await store.aggregate_types("bob"), [], "types of an id without streams")


ODD_NAMES: Sequence[str] = (
    "a", "a.b", "a.b.c", "a/b", "/", "..", "a b", " ", "a\n", "a\x01", "A", "ab", "é", "e\u0301", "🚀",
    "🚀🚀", "%00", "x" * 254, "x" * 255, "🚀" * 63 + "abc", "\U0010ffff", "-1", "0",
    "'; drop table events; --",
)  # fmt: skip
"""Valid ids that a store may mix up: with separators, prefixes of others, the longest, and so on."""


async def odd_ids_never_meet(make_store: MakeStore) -> None:
    """Ids of dots, slashes, spaces, emoji, prefixes of others and the greatest length are kept apart."""
    async with opened(make_store) as store:
        for turn in range(2):
            for name in ODD_NAMES:
                await store.append(noted(name, f"{name} {turn}"), expected_version=turn)
        for name in ODD_NAMES:
            expect_equal(await texts_of(store, name), [f"{name} 0", f"{name} 1"], f"the stream of {name!r}")
            expect_equal(await store.aggregate_types(name), ["Account"], f"types of {name!r}")


async def odd_types_never_meet(make_store: MakeStore) -> None:
    """Aggregate types that are prefixes of each other, or as long as allowed, are kept apart."""
    async with opened(make_store) as store:
        types = sorted(["A", "AB", "A.B", "A B", "Ä", "🚀", "T" * 199, "T" * 200])
        for of in types:
            await store.append(noted("x" * 255, of, of=of), expected_version=0)
        for of in types:
            expect_equal(await texts_of(store, "x" * 255, of=of), [of], f"the stream of type {of!r}")
        expect_equal(await store.aggregate_types("x" * 255), types, "types of the id")


async def impossible_ids_are_refused(make_store: MakeStore) -> None:
    """An empty id, one of more than 255 bytes or one with a NUL is refused; nothing is recorded or searched."""
    async with opened(make_store) as store:
        for name in ("", "x" * 256, "é" * 128, "a\0b", "\ud800"):
            await expect_error(InvalidAggregateId, store.get_events(name), f"get_events of {name!r}")
            await expect_error(
                InvalidAggregateId, store.append(noted("fine"), noted(name)), f"append to {name!r}"
            )
        await expect_empty(store)


async def events_without_aggregate_stand_in_the_log_alone(make_store: MakeStore) -> None:
    """An event without aggregate id has a position and no version, and belongs to no stream."""
    async with opened(make_store) as store:
        recorded = await store.append(noted("a", "in a stream"), noted(None, "alone"))
        expect_equal([event.aggregate_version for _, event in recorded], [1, None], "versions")
        expect_equal(await log_of(store), in_place(recorded), "the log")
        expect_equal(await texts_of(store, "a"), ["in a stream"], "the stream")
        await expect_error(ValueError, store.append(noted(None), expected_version=0), "an expected version")


async def a_loop_of_appends_leaves_time_for_others(make_store: MakeStore) -> None:
    """A task that does nothing but append lets the other tasks of the loop run."""
    async with opened(make_store) as store:
        turns = 0

        async def count() -> None:
            nonlocal turns
            while True:
                turns += 1
                await asyncio.sleep(0)

        counting = asyncio.ensure_future(count())
        for _ in range(20):
            await store.append(noted("a"))
        after_appends = turns
        for number in range(20):
            await store.save_progress({"mail": number})
        counting.cancel()
        if after_appends < 20 or turns - after_appends < 20:
            raise AssertionError(
                f"another task had {after_appends} turns in 20 appends, and {turns} in 40 writes"
            )
