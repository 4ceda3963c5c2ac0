"""Snapshots shorten loading and change nothing else."""

import enum
import logging
from collections import defaultdict
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any

import msgpack
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pydantic import BaseModel

from tests.bank import EVENTS, Account, Balance, BankStore, Credit, CreditAndFail, credited
from tests.faults import change_value
from tests.waiting import turns, until
from uno_actors import (
    ActorSystem,
    AggregateRoot,
    Command,
    CorruptRecord,
    DomainEvent,
    EventRegistry,
    Snapshot,
    StoreFull,
    handles,
)
from uno_actors.aggregates.snapshots import restore, take
from uno_actors.store.codec import StreamId
from uno_actors.store.port import EventStore
from uno_actors.testing import inspect
from uno_stores import InMemoryEventStore, LmdbEventStore

ALICE = StreamId("Account", "alice")


@asynccontextmanager
async def running(store: EventStore | None = None, **changed: Any) -> AsyncIterator[tuple[ActorSystem, Any]]:
    store = store or BankStore()
    kinds = changed.pop("aggregates", [Account])
    async with ActorSystem(
        store, aggregates=kinds, handlers=[], **{"snapshot_every": 3, **changed}
    ) as system:
        yield system, store


async def credit(system: ActorSystem, times: int = 1) -> None:
    for _ in range(times):
        await system.aggregate(Account, "alice").ask(Credit(amount=1))


async def balance(store: EventStore, **changed: Any) -> tuple[int, int]:
    """The balance in a new system, and how many events were replayed for it."""
    async with running(store, **changed) as (system, _):
        found = await system.aggregate(Account, "alice").ask(Balance())
        return found, system.statistics().events_replayed


# --- when one is taken ---


async def test_one_is_taken_when_a_commit_passes_the_next_multiple_and_loading_starts_from_it() -> None:
    async with running() as (system, store):
        await credit(system, 2)
        assert await store.read_snapshot(ALICE) is None
        await credit(system)
        await until(lambda: system.statistics().snapshots == 1)
        await credit(system, 4)
        await until(lambda: system.statistics().snapshots == 2)
    snapshot = await store.read_snapshot(ALICE)
    assert (snapshot.stream, snapshot.version, snapshot.schema_version) == (ALICE, 6, 1)
    assert msgpack.unpackb(snapshot.state) == {"balance": 6}
    assert abs((datetime.now(UTC) - snapshot.taken_at).total_seconds()) < 60
    assert await balance(store) == (7, 1)


async def test_a_commit_of_several_events_may_pass_a_multiple_on_its_way() -> None:
    async with running(aggregates=[Basket]) as (system, store):
        await system.aggregate(Basket, "b").ask(Put(count=2))
        await system.aggregate(Basket, "b").ask(Put(count=3))
    assert (await store.read_snapshot(StreamId("Basket", "b"))).version == 5


@pytest.mark.parametrize("never", [0, None])
async def test_with_snapshots_off_none_is_taken_but_existing_ones_are_used(never: int | None) -> None:
    async with running(snapshot_every=never) as (system, store):
        await credit(system, 10)
        assert system.statistics().snapshots == 0
    assert await store.read_snapshot(ALICE) is None
    assert await balance(store) == (10, 10)
    assert await balance(store, snapshot_every=never) == (10, 0)
    with pytest.raises(ValueError, match="snapshot_every"):
        ActorSystem(handlers=[], snapshot_every=-1)


async def test_state_that_is_not_on_disk_yet_is_not_in_it() -> None:
    """The snapshot waits for the commit that makes it true, and is forgotten with a commit that fails."""
    async with running() as (system, store):
        await credit(system, 2)
        store.gate.clear()
        store.commit_errors.append(StoreFull("memory:", "no room"))
        alice = system.aggregate(Account, "alice")
        lost = alice.ask(Credit(amount=100))
        await until(lambda: store.commits_asked == 3)
        behind = alice.ask(Credit(amount=10))
        await turns()
        assert await store.read_snapshot(ALICE) is None
        store.gate.set()
        with pytest.raises(StoreFull):
            await lost
        assert await behind == 12
        await until(lambda: system.statistics().snapshots == 1)
        assert msgpack.unpackb((await store.read_snapshot(ALICE)).state) == {"balance": 12}


async def test_a_commit_that_fails_leaves_no_snapshot_behind() -> None:
    async with running() as (system, store):
        await credit(system, 2)
        store.commit_errors.append(StoreFull("memory:", "no room"))
        with pytest.raises(StoreFull):
            await system.aggregate(Account, "alice").ask(Credit(amount=100))
        await turns()
    assert await store.read_snapshot(ALICE) is None, "those that wait are saved at the end"


async def test_an_aggregate_that_is_always_busy_is_snapshotted_too(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("uno_actors.aggregates.snapshots.SAVE_AFTER", 0)
    async with running(snapshot_every=10) as (system, store):
        alice = system.aggregate(Account, "alice")
        replies = [alice.ask(Credit(amount=1)) for _ in range(500)]
        for number, reply in enumerate(replies, start=1):
            assert await reply == number
            if snapshot := await store.read_snapshot(ALICE):
                assert msgpack.unpackb(snapshot.state) == {"balance": snapshot.version}
                assert snapshot.version <= len(store.versions())
        assert system.statistics().snapshots >= 1


async def test_a_command_that_fails_after_its_event_leaves_no_trace_in_it() -> None:
    async with running() as (system, store):
        await credit(system, 2)
        for _ in range(3):
            with pytest.raises(ZeroDivisionError):
                await system.aggregate(Account, "alice").ask(CreditAndFail(amount=100))
        assert await store.read_snapshot(ALICE) is None
        await credit(system)
    assert await balance(store) == (3, 0)


async def test_a_command_is_remembered_though_a_snapshot_is_saved_after_it_while_another_system_loads() -> (
    None
):
    """The load has read the end of the stream, version 1, before the snapshot of version 3 is saved."""

    class Overtaken(BankStore):
        def __init__(self) -> None:
            super().__init__()
            self.meanwhile: list[Callable[[], Awaitable[None]]] = []

        async def read_snapshot(self, stream: StreamId) -> Snapshot | None:
            if self.meanwhile:
                await self.meanwhile.pop()()
            return await super().read_snapshot(stream)

    store, last = Overtaken(), Credit(amount=10)
    async with running(store) as (one, _), running(store, remember_commands=1) as (other, _):
        await credit(one)

        async def save_one() -> None:
            await credit(one)
            await one.aggregate(Account, "alice").ask(last)
            await until(lambda: one.statistics().snapshots == 1)

        store.meanwhile.append(save_one)
        assert await other.aggregate(Account, "alice").ask(last) == 12
        assert other.statistics().repeated == 1
    assert store.versions() == [1, 2, 3]


async def test_loading_a_long_stream_takes_one() -> None:
    store = BankStore()
    await store.append(*credited(*[1] * 7, aggregate_id="alice"))
    assert await balance(store) == (7, 7)
    assert await balance(store) == (7, 0)


async def test_many_are_saved_together_behind_the_commands() -> None:
    class Counting(BankStore):
        groups_saved: list[int]

        async def save_snapshots(self, snapshots: Sequence[Snapshot]) -> None:
            self.groups_saved = [*getattr(self, "groups_saved", ()), len(snapshots)]
            await turns()
            await super().save_snapshots(snapshots)

    store = Counting()
    async with running(store, snapshot_every=1) as (system, _):
        replies = [system.aggregate(Account, f"a{number}").ask(Credit(amount=1)) for number in range(50)]
        for reply in replies:
            await reply
    assert sum(store.groups_saved) == 50, "and stopping waits for them"
    assert len(store.groups_saved) <= 3


async def test_a_failure_to_save_is_logged_and_fails_no_command(caplog: pytest.LogCaptureFixture) -> None:
    class Refusing(BankStore):
        async def save_snapshots(self, snapshots: Sequence[Snapshot]) -> None:
            raise OSError("no")

    async with running(Refusing()) as (system, store):
        await credit(system, 7)
        assert await system.aggregate(Account, "alice").ask(Balance()) == 7
    assert "snapshots were not saved" in caplog.text
    assert await balance(store) == (7, 7)


# --- what cannot be used ---


@pytest.mark.parametrize(
    "changed",
    [
        {"schema_version": 0},
        {"schema_version": 2},
        {"state": b""},
        {"state": b"\xc1"},
        {"state": msgpack.packb([1])},
        {"state": msgpack.packb({})},
        {"version": 7},
        {"version": 1 << 60},
        {"version": 0},
        {"version": -3},
    ],
    ids=str,
)
async def test_one_that_does_not_fit_is_ignored_and_replaced(
    changed: dict[str, Any], caplog: pytest.LogCaptureFixture
) -> None:
    store = BankStore()
    await store.append(*credited(*[1] * 6, aggregate_id="alice"))
    assert await balance(store) == (6, 6)
    right = await store.read_snapshot(ALICE)
    assert right is not None
    await store.save_snapshots([right._replace(**changed)])
    assert await balance(store) == (6, 6)
    assert "snapshot is not used" in caplog.text
    assert await balance(store) == (6, 0)


async def test_a_damaged_one_in_lmdb_is_reported_with_its_stream_and_ignored(tmp_path: Path) -> None:
    async with LmdbEventStore(tmp_path / "store", EVENTS) as store:
        await store.append(*credited(*[1] * 6, aggregate_id="alice"))
        for damaged in (b"", b"\xc1", msgpack.packb([1, 2]), msgpack.packb(["6", 1, b"", 0])):
            assert (await balance(store))[0] == 6
            change_value(store, "snapshots", b"alice\0Account\0", damaged)
            with pytest.raises(CorruptRecord, match="Account<alice>"):
                await store.read_snapshot(ALICE)
            assert await balance(store) == (6, 6)
        assert await balance(store) == (6, 0)


async def test_a_read_that_fails_costs_only_time() -> None:
    class Unreadable(BankStore):
        async def read_snapshot(self, stream: StreamId) -> Snapshot | None:
            raise OSError("no")

    store = Unreadable()
    await store.append(*credited(*[1] * 6, aggregate_id="alice"))
    assert await balance(store) == (6, 6)


# --- the state ---


class Put(Command[int]):
    count: int = 1


class PutIn(DomainEvent):
    text: str


class Colour(enum.Enum):
    RED = 1


class Wrapping(BaseModel):
    colour: Colour
    ribbons: list[str] = []


@dataclass
class Thing:
    text: str
    price: Decimal


class Basket(AggregateRoot):
    things: list[Thing]
    wrapping: Wrapping | None

    def __init__(self, id: str) -> None:
        super().__init__(id=id)
        self.things = []
        self.wrapping = None
        self.texts: set[str] = set()
        self.last: tuple[datetime, Decimal] | None = None

    @handles
    def put(self, command: Put) -> int:
        for number in range(command.count):
            self.register_event(PutIn(text=f"{self.version}.{number}"))
        return len(self.things)

    def apply_put_in(self, event: PutIn) -> None:
        self.things.append(Thing(event.text, Decimal("0.10") * self.version))
        self.texts.add(event.text)
        self.last = (event.timestamp, Decimal(len(self.texts)))
        self.wrapping = Wrapping(colour=Colour.RED)
        self.wrapping.ribbons.append(event.text)


def test_state_of_annotated_classes_comes_back() -> None:
    basket = Basket("b")
    basket.put(Put(count=5))
    basket.take_pending_events()
    found = restore(Basket, take(basket))
    assert vars(found) == vars(basket)
    assert repr(found) == "Basket<b@5>"
    found.put(Put())
    assert [type(thing) for thing in found.things] == [Thing] * 6


class Shelf(AggregateRoot):
    """Its state cannot be restored without hooks."""

    def __init__(self, id: str) -> None:
        super().__init__(id=id)
        self.counts: defaultdict[str, int] = defaultdict(int)

    @handles
    def put(self, command: Put) -> int:
        self.register_event(PutIn(text="a"))
        return self.counts["a"]

    def apply_put_in(self, event: PutIn) -> None:
        self.counts[event.text] += 1


class HookedShelf(Shelf):
    def to_snapshot(self) -> Mapping[str, Any]:
        return {"counts": dict(self.counts)}

    def from_snapshot(self, state: Mapping[str, Any]) -> None:
        self.counts.update(state["counts"])


async def test_state_that_cannot_be_restored_is_not_saved_and_logged_once_with_the_remedy(
    caplog: pytest.LogCaptureFixture,
) -> None:
    store = InMemoryEventStore()
    async with running(store, aggregates=[Shelf], snapshot_every=1) as (system, _):
        for name in ("a", "b", "a"):
            await system.aggregate(Shelf, name).ask(Put())
        assert system.statistics().snapshots == 0
    (record,) = [record for record in caplog.records if record.levelno >= logging.WARNING]
    for text in ("Shelf<a@1>", "defaultdict", "to_snapshot and from_snapshot"):
        assert text in record.getMessage()
    async with running(store, aggregates=[Shelf]) as (system, _):
        assert await system.aggregate(Shelf, "a").ask(Put()) == 3


async def test_two_hooks_are_the_remedy() -> None:
    store = InMemoryEventStore()
    for count in (1, 2, 3):
        async with running(store, aggregates=[HookedShelf], snapshot_every=1) as (system, _):
            assert await system.aggregate(HookedShelf, "a").ask(Put()) == count
            assert system.statistics().events_replayed == 0


class Slotted(AggregateRoot):
    __slots__ = ("hidden",)


class Raising(AggregateRoot):
    def to_snapshot(self) -> Mapping[str, Any]:
        raise SystemError("no")


@pytest.mark.parametrize("kind", [Slotted, Raising])
def test_attributes_that_cannot_be_seen_or_hooks_that_raise_make_no_snapshot(
    kind: type[AggregateRoot],
) -> None:
    with pytest.raises((TypeError, SystemError)):
        take(kind("a"))


def test_shared_parts_of_a_state_are_noticed_because_they_would_be_duplicated() -> None:
    basket = Basket("b")
    basket.put(Put())
    basket.things.append(basket.things[0])
    with pytest.raises(ValueError, match="the same Thing occurs in two places"):
        take(basket)


def test_a_new_attribute_of_the_class_is_missed_even_if_the_version_was_not_raised() -> None:
    snapshot = take(Account("alice"))

    class Account2(Account):
        def __init__(self, id: str) -> None:
            super().__init__(id)
            self.limit = 0

    with pytest.raises(ValueError, match="it has no limit"):
        restore(Account2, snapshot)


# --- nothing but time ---

COMMANDS = st.lists(st.tuples(st.sampled_from(["a", "b"]), st.integers(1, 4), st.booleans()), max_size=25)


@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow])
@given(COMMANDS, st.integers(1, 6), st.sampled_from([0, 1, 5]))
async def test_loading_with_snapshots_gives_the_same_state_as_without(
    commands: list[tuple[str, int, bool]], every: int, remember: int
) -> None:
    store = InMemoryEventStore()

    async def states(every: int) -> dict[str, dict[str, Any]]:
        async with running(store, aggregates=[Basket], snapshot_every=every) as (system, _):
            for name in "ab":
                await system.aggregate(Basket, name).ask(Put(count=0))
            active = inspect(system).aggregates.items()
            return {stream.aggregate_id: vars(instance) for stream, instance in active}

    systems: list[ActorSystem] = []
    for name, count, restart in commands:
        if restart or not systems:
            for system in systems:
                await system.stop()
            systems = [
                ActorSystem(
                    store, aggregates=[Basket], handlers=[], snapshot_every=every, remember_commands=remember
                )
            ]
            await systems[0].start()
        await systems[0].aggregate(Basket, name).ask(Put(count=count))
    for system in systems:
        await system.stop()
    with_snapshots = await states(0)
    assert await store.drop_snapshots() == sum(state["version"] >= every for state in with_snapshots.values())
    assert await states(0) == with_snapshots


# --- older schemas ---


class MovedV1(DomainEvent):
    event_type: str = "SnapshotTestMoved"
    to: str


class MovedV2(DomainEvent):
    event_type: str = "SnapshotTestMoved"
    version: int = 2
    address: str


class MovedV3(DomainEvent):
    event_type: str = "SnapshotTestMoved"
    version: int = 3
    street: str
    town: str


def _to_2(payload: dict[str, Any]) -> dict[str, Any]:
    return {"address": payload["to"]}


def _to_3(payload: dict[str, Any]) -> dict[str, Any]:
    street, _, town = payload["address"].partition(", ")
    return {"street": street, "town": town}


class Look(Command[list[Any]]):
    pass


class PersonV1(AggregateRoot):
    aggregate_type = "Person"

    def __init__(self, id: str) -> None:
        super().__init__(id=id)
        self.homes: list[str] = []

    @handles
    def look(self, command: Look) -> list[Any]:
        return [*self.homes]

    def apply_movedv1(self, event: MovedV1) -> None:
        self.homes.append(event.to)


class PersonV2(PersonV1):
    aggregate_type = "Person"
    schema_version = 2

    def apply_movedv2(self, event: MovedV2) -> None:
        self.homes.append(event.address)


class PersonV3(PersonV1):
    aggregate_type = "Person"
    schema_version = 3

    def apply_movedv3(self, event: MovedV3) -> None:
        self.homes.append((event.street, event.town))  # type: ignore[arg-type]


async def test_a_stream_of_three_schemas_replays_into_todays_aggregate_past_snapshots_of_older_ones(
    tmp_path: Path,
) -> None:
    """Each program in turn reads the events of the older ones and leaves a snapshot of its own schema."""
    homes: list[Any] = []
    steps: list[tuple[type[AggregateRoot], type[DomainEvent], list[dict[str, str]]]] = [
        (PersonV1, MovedV1, [{"to": "Elm 1, Graz"}, {"to": "Oak 2, Linz"}]),
        (PersonV2, MovedV2, [{"address": "Ash 3, Wien"}]),
        (PersonV3, MovedV3, [{"street": "Fir 4", "town": "Wels"}]),
    ]
    for number, (kind, moved, payloads) in enumerate(steps, start=1):
        registry = EventRegistry([moved])
        registry.add_upcast("SnapshotTestMoved", 1, _to_2)
        registry.add_upcast("SnapshotTestMoved", 2, _to_3)
        async with LmdbEventStore(tmp_path / "store", registry) as store:
            events = [moved(aggregate_id="p", aggregate_type="Person", **payload) for payload in payloads]  # type: ignore[arg-type]
            await store.append(*events)
            for expected_replay in (await store.last_position(), 0):
                async with running(store, aggregates=[kind], snapshot_every=1) as (system, _):
                    homes = await system.aggregate(kind, "p").ask(Look())
                    assert system.statistics().events_replayed == expected_replay
            snapshot = await store.read_snapshot(StreamId("Person", "p"))
            assert snapshot is not None
            assert snapshot.schema_version == number
    assert homes == [("Elm 1", "Graz"), ("Oak 2", "Linz"), ("Ash 3", "Wien"), ("Fir 4", "Wels")]
