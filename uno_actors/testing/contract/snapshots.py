"""Snapshots of aggregates."""

from typing import Any

from uno_actors.store.codec import StreamId
from uno_actors.store.records import Snapshot
from uno_actors.testing.contract.events import noted
from uno_actors.testing.contract.expectations import expect_empty, expect_equal, texts_of
from uno_actors.testing.contract.places import ODD_NAMES
from uno_actors.testing.contract.progress import MORNING
from uno_actors.testing.contract.store_place import MakeStore, opened


def snapshot_of(aggregate_id: str, version: int = 1, *, of: str = "Account", **changed: Any) -> Snapshot:
    """A snapshot of one aggregate, with some fields ``changed``."""
    snapshot = Snapshot(StreamId(of, aggregate_id), version, 1, bytes(range(256)), MORNING)
    return snapshot._replace(**changed)


async def snapshots_are_kept_one_for_each_stream(make_store: MakeStore) -> None:
    """The last snapshot saved of each stream is read back as it was, whatever the names; it is not an event."""
    async with opened(make_store) as store:
        expect_equal(await store.read_snapshot(StreamId("Account", "a")), None, "a snapshot of nothing")
        await store.save_snapshots([])
        kept = [snapshot_of(name, number) for number, name in enumerate(ODD_NAMES)]
        kept += [snapshot_of("x" * 255, of=of) for of in ("A", "AB", "T" * 200)]
        await store.save_snapshots([snapshot._replace(version=99, state=b"old") for snapshot in kept])
        await store.save_snapshots([kept[0]._replace(version=100), *kept])
        for snapshot in kept:
            expect_equal(await store.read_snapshot(snapshot.stream), snapshot, "a snapshot")
        changed = kept[0]._replace(version=2**60, schema_version=2**31, state=b"x" * 1_000_000)
        await store.save_snapshots([changed])
        expect_equal(await store.read_snapshot(changed.stream), changed, "a large one in place of another")
        await expect_empty(store)


async def snapshots_can_be_dropped(make_store: MakeStore) -> None:
    """Dropping removes the snapshots of one type or all, returns their number, and leaves the events."""
    async with opened(make_store) as store:
        await store.append(noted("a", "1"))
        expect_equal(await store.drop_snapshots(), 0, "dropping none")
        kept = [snapshot_of("a"), snapshot_of("b"), snapshot_of("a", of="User"), snapshot_of("a", of="count")]
        await store.save_snapshots(kept)
        expect_equal(await store.drop_snapshots("Nothing"), 0, "dropping those of a type that is not there")
        expect_equal(await store.drop_snapshots("Account"), 2, "dropping those of one type")
        found = [await store.read_snapshot(snapshot.stream) for snapshot in kept]
        expect_equal(found, [None, None, *kept[2:]], "the snapshots left")
        expect_equal(await store.drop_snapshots(), 2, "dropping all")
        found = [await store.read_snapshot(snapshot.stream) for snapshot in kept]
        expect_equal(found, [None] * 4, "the snapshots left after that")
        expect_equal(await texts_of(store, "a"), ["1"], "the stream")


async def one_snapshot_can_be_dropped(make_store: MakeStore) -> None:
    """Dropping the snapshot of one stream leaves those of all others, and tells whether there was one."""
    async with opened(make_store) as store:
        kept = [snapshot_of(name, of=of) for name in ("a", "ab", "a.b", "🚀") for of in ("A", "AB")]
        await store.save_snapshots(kept)
        expect_equal(await store.drop_snapshot(StreamId("B", "a")), False, "dropping what is not there")
        for number, snapshot in enumerate(kept):
            expect_equal(await store.drop_snapshot(snapshot.stream), True, "dropping one")
            expect_equal(await store.drop_snapshot(snapshot.stream), False, "dropping it again")
            found = [await store.read_snapshot(each.stream) for each in kept]
            expect_equal(found, [None] * (number + 1) + kept[number + 1 :], "the snapshots left")
