import pytest

from tests.bank import EVENTS, Account, Balance, Credit, Credited
from uno_actors import ActorSystem, OutcomeUnknown, StoreFull, StoreUnavailable
from uno_actors.testing import failing
from uno_stores import InMemoryEventStore


def credited(amount: int) -> Credited:
    return Credited(amount=amount, aggregate_id="alice", aggregate_type="Account")


async def test_a_store_fails_for_the_length_of_the_block() -> None:
    store = InMemoryEventStore(EVENTS)
    with failing(store) as faults:
        for _ in range(2):
            with pytest.raises(StoreUnavailable, match="it was told to fail"):
                await store.append(credited(1))
    await store.append(credited(2))
    assert (faults.hits, await store.last_position()) == (2, 1)
    assert "commit" not in vars(store)


async def test_a_store_fails_the_given_number_of_times_with_the_given_error() -> None:
    store = InMemoryEventStore(EVENTS)
    with failing(store, "read_log", StoreFull("this one", "no room"), times=1) as faults:
        with pytest.raises(StoreFull):
            await store.read_log()
        assert await store.read_log() == []
    assert faults.hits == 1


async def test_a_store_that_fails_afterwards_has_recorded() -> None:
    store = InMemoryEventStore(EVENTS)
    with failing(store, after=True), pytest.raises(OutcomeUnknown):
        await store.append(credited(1))
    assert await store.last_position() == 1


async def test_blocks_may_be_nested() -> None:
    store = InMemoryEventStore(EVENTS)
    with failing(store, error=StoreFull("outer", "")):
        with failing(store), pytest.raises(StoreUnavailable):
            await store.append(credited(1))
        with pytest.raises(StoreFull):
            await store.append(credited(1))
    await store.append(credited(1))


async def test_a_command_whose_store_fails_leaves_no_trace() -> None:
    store = InMemoryEventStore(EVENTS)
    async with ActorSystem(store, aggregates=[Account], handlers=[]) as system:
        alice = system.aggregate(Account, "alice")
        with failing(store, times=1), pytest.raises(StoreUnavailable):
            await alice.ask(Credit(amount=5))
        assert await alice.ask(Balance()) == 0
        assert await alice.ask(Credit(amount=7)) == 7


def test_an_operation_that_no_store_has_is_refused() -> None:
    with (
        pytest.raises(ValueError, match="cannot fail at 'fly'; it can at .*commit.*read_log"),
        failing(InMemoryEventStore(EVENTS), "fly"),
    ):
        pass
