"""Commands go to the node that has the aggregate; their replies, errors and time are the same on every node."""

import asyncio

import pytest

from tests.bank import Account, Balance, BankStore, Credit, CreditAndExit, CreditAndFail, Debit
from tests.cluster.nodes import an_id_owned_by, node, nodes_on, system_on
from tests.waiting import until
from uno_actors import CommandRejected, ExitRaised, NoCluster
from uno_actors.cluster.links.memory import MemoryNetwork


async def test_a_command_is_handled_by_the_owner_of_its_aggregate() -> None:
    store, network = BankStore(), MemoryNetwork()
    async with nodes_on(store, network) as (a, b, c):
        there = an_id_owned_by(b)
        assert await a.aggregate(Account, there).ask(Credit(amount=3)) == 3
        assert await c.aggregate(Account, there).ask(Credit(amount=4)) == 7
        assert await b.aggregate(Account, there).ask(Balance()) == 7
        assert [system.statistics().active_aggregates for system in (a, b, c)] == [0, 1, 0]
        assert a.cluster.statistics().sent == 1
        assert b.cluster.statistics().served == 2
        assert b.cluster.statistics().local == 1
        assert b.cluster.statistics().peers[a.cluster.name].served == 1


async def test_errors_of_the_owner_arrive_as_the_same_classes_with_their_data() -> None:
    store, network = BankStore(), MemoryNetwork()
    async with nodes_on(store, network, "ab") as (a, b):
        account = a.aggregate(Account, an_id_owned_by(b))
        with pytest.raises(CommandRejected) as rejected:
            await account.ask(Debit(amount=5))
        assert rejected.value.reason == "the balance is 0"
        with pytest.raises(ZeroDivisionError, match="after the event") as failed:
            await account.ask(CreditAndFail(amount=1))
        assert f"On node {b.cluster.name}" in failed.value.__notes__[0]
        with pytest.raises(ExitRaised) as left:
            await account.ask(CreditAndExit(amount=1))
        assert isinstance(left.value.__cause__, SystemExit)
        assert await account.ask(Balance()) == 0


async def test_a_system_without_a_cluster_says_so() -> None:
    store, network = BankStore(), MemoryNetwork()
    async with nodes_on(store, network, "a") as (a,):
        assert [member.name for member in a.cluster.members()] == [a.cluster.name]
    from uno_actors import ActorSystem

    async with ActorSystem(BankStore(), aggregates=[Account], handlers=[]) as alone:
        with pytest.raises(NoCluster, match="cluster=True"):
            _ = alone.cluster


async def test_what_is_told_is_handled_by_the_owner_and_fails_where_it_was_told() -> None:
    store, network = BankStore(), MemoryNetwork()
    async with nodes_on(store, network, "ab") as (a, b):
        account = a.aggregate(Account, an_id_owned_by(b))
        account.tell(Credit(amount=3))
        account.tell(Debit(amount=50))
        await until(lambda: a.dead_messages())
        [dead] = a.dead_messages()
        assert "the balance is 3" in dead.reason
        assert not b.dead_messages()
        assert await account.ask(Balance()) == 3


async def test_a_node_that_joins_takes_its_share_and_one_that_stops_gives_it_back() -> None:
    store, network = BankStore(), MemoryNetwork()
    async with nodes_on(store, network, "a") as (a,):
        accounts = [f"account-{number}" for number in range(60)]
        for name in accounts:
            await a.aggregate(Account, name).ask(Credit(amount=1))
        async with system_on(store, network, "b") as b:
            await until(lambda: len(a.cluster.members()) == 2)
            for name in accounts:
                assert await a.aggregate(Account, name).ask(Credit(amount=1)) == 2
            assert 10 < b.cluster.statistics().served < 50
            await b.stop()
            assert [member.name for member in a.cluster.members()] == [a.cluster.name]
        for name in accounts:
            assert await a.aggregate(Account, name).ask(Credit(amount=1)) == 3


async def test_asks_from_threads_are_routed_too() -> None:
    store, network = BankStore(), MemoryNetwork()
    async with nodes_on(store, network, "ab") as (a, b):
        account = a.aggregate(Account, an_id_owned_by(b))
        assert await asyncio.to_thread(lambda: account.ask(Credit(amount=3)).get(timeout=5)) == 3


async def test_a_killed_owner_is_replaced_at_once() -> None:
    store, network = BankStore(), MemoryNetwork()
    async with nodes_on(store, network, "ab") as (a, b):
        account = a.aggregate(Account, an_id_owned_by(b))
        await account.ask(Credit(amount=3))
        store.gate.clear()
        waiting = [asyncio.ensure_future(account.ask(Credit(amount=1))) for _ in range(3)]
        await until(lambda: b.statistics().commands_waiting == 3)
        network.kill(node(b).announcement.member.id)
        await until(lambda: a.statistics().commands_waiting == 3)
        store.gate.set()
        assert sorted(await asyncio.gather(*waiting)) == [4, 5, 6]
        assert a.cluster.statistics().sent_again == 3
        assert len(store.versions()) == 4
