"""Aggregates without actors: load, decide, save, with the same guarantees."""

import asyncio
from collections.abc import Sequence
from enum import Enum
from pathlib import Path

import pytest

from tests.bank import EVENTS, Account, BankStore, Credit, Credited, Debit, Noted, credited
from tests.faults import record_changes
from tests.waiting import turns, until
from uno_actors import (
    ActorSystem,
    AggregateNotFound,
    CommandRejected,
    ConcurrencyConflict,
    EventSourcedRepository,
    InvalidAggregateId,
    Snapshot,
    StoreFull,
    UnoError,
)
from uno_actors.store.codec import StreamId
from uno_stores import InMemoryEventStore, LmdbEventStore

ALICE = StreamId("Account", "alice")


def alice(*amounts: int) -> Account:
    account = Account("alice")
    for amount in amounts:
        account.handle(Credit(amount=amount))
    return account


async def test_a_saved_aggregate_can_be_loaded(tmp_path: Path) -> None:
    async with LmdbEventStore(tmp_path / "store", EVENTS) as store:
        recorded = await EventSourcedRepository(Account, store).save(alice(5, 7))
        assert [event.aggregate_version for _, event in recorded] == [1, 2]
        assert recorded == [each async for each in store.read_all()]
    async with LmdbEventStore(tmp_path / "store", EVENTS) as store:
        repository = EventSourcedRepository(Account, store)
        account = await repository.get_by_id("alice")
        assert (repr(account), account.balance) == ("Account<alice@2>", 12)
        account.handle(Debit(amount=2))
        assert [position for position, _ in await repository.save(account)] == [3]
        assert (await repository.get_by_id("alice")).balance == 10


async def test_an_id_without_events_is_an_error_with_the_remedy() -> None:
    repository = EventSourcedRepository(Account, BankStore())
    with pytest.raises(AggregateNotFound, match="Account<alice> has no events: create it with its class"):
        await repository.get_by_id("alice")
    with pytest.raises(LookupError):
        await repository.get_by_id("alice")
    with pytest.raises(InvalidAggregateId):
        await repository.get_by_id("")


async def test_pending_events_are_cleared_when_they_are_recorded_and_nothing_is_recorded_twice() -> None:
    store = BankStore()
    repository = EventSourcedRepository(Account, store)
    account = alice(5)
    await repository.save(account)
    assert account.pending_events == ()
    assert await repository.save(account) == []
    account.handle(Credit(amount=1))
    await repository.save(account)
    assert store.versions() == [1, 2]


async def test_the_slower_of_two_writers_gets_a_conflict_and_its_aggregate_is_unchanged() -> None:
    store = BankStore()
    repository = EventSourcedRepository(Account, store)
    await repository.save(alice(10))
    one, other = await repository.get_by_id("alice"), await repository.get_by_id("alice")
    for account in (one, other):
        account.handle(Debit(amount=8))
    await repository.save(one)
    before = (dict(vars(other)), other.pending_events)
    with pytest.raises(ConcurrencyConflict) as raised:
        await repository.save(other)
    assert (raised.value.expected, raised.value.actual) == (1, 2)
    assert (dict(vars(other)), other.pending_events) == before
    again = await repository.get_by_id("alice")
    with pytest.raises(CommandRejected):
        again.handle(Debit(amount=8))
    with pytest.raises(ConcurrencyConflict):
        await repository.save(alice(1))
    assert store.versions() == [1, 2]


@pytest.mark.parametrize("error", [StoreFull("memory:", "no room"), OSError("no")])
async def test_after_a_failure_it_can_be_saved_again(error: BaseException) -> None:
    store = BankStore()
    repository = EventSourcedRepository(Account, store)
    account = alice(1, 2)
    store.commit_errors.append(error)
    with pytest.raises((UnoError, OSError)):
        await repository.save(account)
    assert len(account.pending_events) == 2
    assert len(await repository.save(account)) == 2


async def test_events_decided_while_it_is_being_saved_stay_pending() -> None:
    store = BankStore()
    repository = EventSourcedRepository(Account, store, snapshot_every=1)
    account = alice(1)
    store.gate.clear()
    saving = asyncio.ensure_future(repository.save(account))
    await until(lambda: store.commits_asked)
    account.handle(Credit(amount=2))
    store.gate.set()
    await saving
    assert [event.amount for event in account.pending_events if isinstance(event, Credited)] == [2]
    assert await store.read_snapshot(ALICE) is None, "its state is ahead of what is recorded"
    await repository.save(account)
    assert (await repository.get_by_id("alice")).balance == 3


async def test_snapshots_are_taken_and_used() -> None:
    store = BankStore()
    repository = EventSourcedRepository(Account, store, snapshot_every=3)
    await repository.save(alice(1, 1))
    assert await store.read_snapshot(ALICE) is None
    account = await repository.get_by_id("alice")
    account.handle(Credit(amount=1))
    await repository.save(account)
    snapshot = await store.read_snapshot(ALICE)
    assert snapshot is not None
    assert snapshot.version == 3
    record_changes(store, 1, payload=b"")  # what is in the snapshot is not read again
    assert (await repository.get_by_id("alice")).balance == 3
    with pytest.raises(ValueError, match="snapshot_every"):
        EventSourcedRepository(Account, store, snapshot_every=-1)


async def test_a_snapshot_that_fails_does_not_fail_the_save() -> None:
    class Refusing(BankStore):
        async def save_snapshots(self, snapshots: Sequence[Snapshot]) -> None:
            raise OSError("no")

    repository = EventSourcedRepository(Account, Refusing(), snapshot_every=1)
    account = alice(1)
    assert len(await repository.save(account)) == 1
    assert account.pending_events == ()


async def test_a_repository_and_an_actor_system_can_share_a_store() -> None:
    store = BankStore()
    repository = EventSourcedRepository(Account, store)
    async with ActorSystem(store, aggregates=[Account], handlers=[]) as system:
        actor = system.aggregate(Account, "alice")
        assert await actor.ask(Credit(amount=1)) == 1
        account = await repository.get_by_id("alice")
        account.handle(Credit(amount=10))
        await repository.save(account)
        assert await actor.ask(Credit(amount=100)) == 111
        account.handle(Credit(amount=1000))
        with pytest.raises(ConcurrencyConflict):
            await repository.save(account)


class Customer(str, Enum):  # noqa: UP042 - a StrEnum is written as its value anyway
    ALICE = "alice"


async def test_an_id_that_is_a_member_of_an_enum_of_strings_is_its_value_everywhere() -> None:
    store = BankStore()
    repository = EventSourcedRepository(Account, store)
    account = Account(Customer.ALICE)
    account.handle(Credit(amount=1))
    await repository.save(account)

    async def has_received_all() -> bool:
        return (await repository.get_by_id(Customer.ALICE)).balance == 10

    async with ActorSystem(store, aggregates=[Account], handlers=[]) as system:
        assert await system.aggregate(Account, Customer.ALICE).ask(Credit(amount=2)) == 3
        assert await system.aggregate(Account, "alice").ask(Credit(amount=3)) == 6
        await system.schedule(Credit(amount=4), to=(Account, Customer.ALICE), after=0.01)
        await until(has_received_all)
    assert {type(each.event.aggregate_id) async for each in store.read_all()} == {str}


async def test_only_its_own_type_is_saved_and_aggregates_of_two_types_may_share_an_id() -> None:
    class Other(Account):
        pass

    store = InMemoryEventStore(EVENTS)
    await store.append(
        *credited(1, aggregate_id="alice"), Noted(text="", aggregate_id="alice", aggregate_type="X")
    )
    with pytest.raises(TypeError, match="this repository saves Account"):
        await EventSourcedRepository(Account, store).save(Other("alice"))
    with pytest.raises(AggregateNotFound):
        await EventSourcedRepository(Other, store).get_by_id("alice")
    assert (await EventSourcedRepository(Account, store).get_by_id("alice")).balance == 1


async def test_a_save_that_is_cancelled_leaves_the_events_pending() -> None:
    store = BankStore()
    repository = EventSourcedRepository(Account, store)
    account = alice(1)
    store.gate.clear()
    saving = asyncio.ensure_future(repository.save(account))
    await turns()
    saving.cancel()
    with pytest.raises(asyncio.CancelledError):
        await saving
    assert len(account.pending_events) == 1
