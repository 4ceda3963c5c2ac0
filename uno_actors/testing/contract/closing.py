"""Closing a store, and what a later opening finds."""

import asyncio
from collections.abc import Awaitable

from uno_actors.domain.events import EventRegistry
from uno_actors.errors import (
    ConcurrencyConflict,
    StoreUnavailable,
)
from uno_actors.store.codec import StreamId
from uno_actors.store.logs import log_of_position
from uno_actors.store.records import Checkpoint, ViewChange
from uno_actors.testing.contract.events import Measured, Noted, measured, noted
from uno_actors.testing.contract.expectations import (
    expect_equal,
    expect_error,
    in_place,
    log_of,
    request_of,
    texts_of,
    versions_of,
)
from uno_actors.testing.contract.progress import dead_letter
from uno_actors.testing.contract.snapshots import snapshot_of
from uno_actors.testing.contract.store_place import MakeStore, opened


async def a_closed_store_refuses(make_store: MakeStore) -> None:
    """Closing twice, or twice at once, does no harm; every later call raises `StoreUnavailable`."""
    async with opened(make_store) as store:
        await store.append(noted("a"))
        await asyncio.gather(store.close(), store.close())
        await store.close()
        calls: dict[str, Awaitable[object]] = {
            "append": store.append(noted("a")),
            "commit": store.commit([request_of(noted("a"))]),
            "get_events": store.get_events("a"),
            "get_events of a type": store.get_events("a", aggregate_type="Account"),
            "read_all": log_of(store),
            "read_stream": store.read_stream(StreamId("Account", "a")),
            "read_log": store.read_log(),
            "last_version": store.last_version(StreamId("Account", "a")),
            "aggregate_types": store.aggregate_types("a"),
            "causal_tree": store.causal_tree("c"),
            "last_position": store.last_position(),
            "checkpoints": store.checkpoints(),
            "save_progress": store.save_progress({"mail": 1}),
            "dead_letters": store.dead_letters(),
            "drop_dead_letter": store.drop_dead_letter("mail", 1),
            "read_view": store.read_view("v"),
            "drop_view": store.drop_view("v"),
            "save_snapshots": store.save_snapshots([snapshot_of("a")]),
            "read_snapshot": store.read_snapshot(StreamId("Account", "a")),
            "drop_snapshots": store.drop_snapshots(),
            "drop_snapshot": store.drop_snapshot(StreamId("Account", "a")),
            "drop_progress": store.drop_progress("mail"),
            "append of a checkpoint": store.append(checkpoint=Checkpoint("mail", 2)),
            "lease": store.lease("mail"),
        }
        for name, call in calls.items():
            await expect_error(StoreUnavailable, call, f"{name} after close")


async def closing_finishes_what_was_begun(make_store: MakeStore) -> None:
    """Appends under way when the store is closed are recorded, or end with `StoreUnavailable`; none hangs."""
    async with make_store() as place:
        store = await place.open(EventRegistry([Noted]))
        appends = [asyncio.ensure_future(store.append(noted("a"))) for _ in range(20)]
        await asyncio.sleep(0)
        await store.close()
        outcomes = await asyncio.gather(*appends, return_exceptions=True)
        recorded = [outcome[0] for outcome in outcomes if isinstance(outcome, list)]
        refused = [outcome for outcome in outcomes if isinstance(outcome, StoreUnavailable)]
        expect_equal(len(recorded) + len(refused), 20, "appends recorded or refused")
        if place.durable:
            async with await place.open(EventRegistry([Noted])) as store:
                expect_equal(await log_of(store), recorded, "the log after reopening")


async def leaving_the_store_closes_it(make_store: MakeStore) -> None:
    """`async with` closes the store at the end of the block."""
    async with make_store() as place:
        async with await place.open(EventRegistry([Noted])) as store:
            await store.append(noted("a"))
        await expect_error(StoreUnavailable, store.last_position(), "a call after the block")


async def durable_stores_survive_reopening(make_store: MakeStore) -> None:
    """When a durable store is closed and opened again, everything is there, and positions and versions continue."""
    async with make_store() as place:
        if not place.durable:
            return
        registry = EventRegistry([Noted, Measured])
        async with await place.open(registry) as store:
            recorded = in_place(await store.append(noted("a", "1"), measured(), noted("a", "2"), noted(None)))
            await store.save_progress(
                {"mail": 3, "audit": 1}, [dead_letter("mail", 2), dead_letter("mail", 3)]
            )
            await store.drop_dead_letter("mail", 2)
            await store.save_progress({"totals": 2}, views=[ViewChange("totals", b"k", b"1")])
            await store.save_snapshots([snapshot_of("a", 2), snapshot_of("a", of="User")])
            await store.drop_snapshots("User")
        async with await place.open(registry) as store:
            expect_equal(await log_of(store), recorded, "the log")
            expect_equal(await texts_of(store, "a"), ["1", "2"], "the stream")
            expect_equal(await store.aggregate_types("all"), ["Kinds"], "types of an id")
            expect_equal(await store.checkpoints(), {"mail": 3, "audit": 1, "totals": 2}, "the checkpoints")
            expect_equal(await store.read_view("totals"), [(b"k", b"1")], "the view")
            expect_equal(await store.dead_letters(), [dead_letter("mail", 3)], "the dead letters")
            found = await store.read_snapshot(StreamId("Account", "a"))
            expect_equal(found, snapshot_of("a", 2), "the snapshot")
            expect_equal(
                await store.read_snapshot(StreamId("User", "a")), None, "the snapshot that was dropped"
            )
            await expect_error(
                ConcurrencyConflict, store.append(noted("a"), expected_version=1), "an old expectation"
            )
            (next_one,) = await store.append(noted("a", "3"), expected_version=2)
            log = log_of_position(next_one.position)
            if next_one.position <= max(at for at, _ in recorded if log_of_position(at) == log):
                raise AssertionError(f"positions went back to {next_one.position}")
            expect_equal(await versions_of(store, "a"), [1, 2, 3], "the versions")
