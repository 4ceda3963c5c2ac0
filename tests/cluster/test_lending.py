"""An aggregate that only one node asks for lives there, until another node asks too, or one of the two is gone."""

import asyncio
import random

import pytest

from tests.bank import Account, Balance, BankStore, Credit
from tests.cluster.faults import is_of_a_version_without_loans, leave, lends, node, see_only_some
from tests.cluster.load import Load
from tests.cluster.nodes import all_see, an_id_owned_by, id_of, ids_owned_by, nodes_on, system_on
from tests.waiting import ManualClock, turns, until
from uno_actors import ActorSystem
from uno_actors.cluster.links.memory import MemoryNetwork
from uno_actors.cluster.placement import Placement
from uno_actors.store.codec import StreamId


async def credit(system: ActorSystem, name: str, times: int = 1) -> int:
    """The balance after some commands of one node, one after the other."""
    for _ in range(times):
        balance = await system.aggregate(Account, name).ask(Credit(amount=1))
    return balance


def loans(system: ActorSystem) -> tuple[int, int, int]:
    """Aggregates lent and borrowed now, and loans ended by their owner."""
    found = system.cluster.statistics()
    return found.lent, found.borrowed, found.recalled


async def lend(owner: ActorSystem, borrower: ActorSystem, name: str) -> None:
    """Have an aggregate lent, with a balance of 3."""
    lends([owner])
    assert await credit(borrower, name, 3) == 3
    assert loans(owner)[0] == loans(borrower)[1] == 1
    assert owner.statistics().active_aggregates == 0


async def test_an_aggregate_that_one_node_asks_for_is_lent_to_it() -> None:
    store, network, clock = BankStore(), MemoryNetwork(), ManualClock()
    async with nodes_on(store, network, "abc", clock=clock) as (a, b, c):
        name = an_id_owned_by(b)
        for number in range(20):
            assert await credit(a, name) == number + 1
            clock.advance(1 / 16)
        routed = [system.cluster.statistics() for system in (a, b, c)]
        assert (routed[0].sent, routed[1].served, routed[0].local) == (5, 4, 16)
        assert [(each.lent, each.borrowed) for each in routed] == [(0, 1), (1, 0), (0, 0)]
        assert [system.statistics().active_aggregates for system in (a, b, c)] == [1, 0, 0]
        assert a.cluster.owner(Account, name) == b.cluster.owner(Account, name) == node(a).announcement.member
        assert store.versions() == list(range(1, 21))


@pytest.mark.parametrize("asker", ["its owner", "a third node"])
async def test_a_loan_ends_when_another_node_asks(asker: str) -> None:
    store, network = BankStore(), MemoryNetwork()
    async with nodes_on(store, network, "abc") as (a, b, c):
        name = an_id_owned_by(b)
        await lend(b, a, name)
        assert await (b if asker == "its owner" else c).aggregate(Account, name).ask(Balance()) == 3
        assert (loans(a), loans(b)) == ((0, 0, 0), (0, 0, 1))
        assert [system.statistics().active_aggregates for system in (a, b, c)] == [0, 1, 0]
        assert a.cluster.owner(Account, name) == node(b).announcement.member
        assert await credit(a, name) == 4
        assert a.cluster.statistics().sent == 3


async def test_commands_that_are_under_way_when_an_aggregate_is_lent_keep_their_order() -> None:
    store, network = BankStore(), MemoryNetwork()
    async with nodes_on(store, network, "ab") as (a, b):
        name = an_id_owned_by(b)
        lends([b], commands=20)
        account = a.aggregate(Account, name)
        store.gate.clear()
        first = [asyncio.ensure_future(account.ask(Credit(amount=1))) for _ in range(50)]
        await until(lambda: loans(b)[0])
        later = [asyncio.ensure_future(account.ask(Credit(amount=1))) for _ in range(50)]
        account.tell(Credit(amount=1))
        last = asyncio.ensure_future(account.ask(Credit(amount=1)))
        await turns()
        assert a.statistics().commands_waiting == 102
        assert a.statistics().active_aggregates == 0
        store.gate.set()
        assert await asyncio.gather(*first, *later, last) == [*range(1, 101), 102]
        assert a.statistics().reruns == b.statistics().reruns == 0
        assert b.cluster.statistics().served == 20
        await until(lambda: b.statistics().active_aggregates == 0)
        assert a.statistics().commands_waiting == 0


async def test_an_aggregate_is_given_back_when_its_commands_are_recorded() -> None:
    store, network = BankStore(), MemoryNetwork()
    async with nodes_on(store, network, "abc") as (a, b, c):
        name = an_id_owned_by(b)
        await lend(b, a, name)
        store.gate.clear()
        there = [asyncio.ensure_future(credit(a, name)) for _ in range(3)]
        await until(lambda: a.statistics().commands_waiting == 3)
        here = [asyncio.ensure_future(credit(system, name)) for system in (c, b)]
        await until(lambda: loans(b)[2] == 1)
        there.append(asyncio.ensure_future(credit(a, name)))
        await turns()
        store.gate.set()
        assert await asyncio.gather(*there[:3]) == [4, 5, 6]
        assert sorted(await asyncio.gather(*here, there[3])) == [7, 8, 9]
        assert [system.statistics().reruns for system in (a, b, c)] == [0, 0, 0]


async def test_an_aggregate_that_several_nodes_ask_for_is_not_lent_back_and_forth() -> None:
    store, network, clock = BankStore(), MemoryNetwork(), ManualClock()
    async with nodes_on(store, network, "abc", clock=clock) as (a, b, c):
        lends([b], commands=4, harder=10)
        name = an_id_owned_by(b)
        for turn in range(40):
            await credit(c if turn % 2 else a, name, 10)
        assert loans(b)[2] <= 2
        assert await credit(b, name) == 401


async def test_a_loan_is_renewed_without_loading_the_aggregate_again() -> None:
    store, network, clock = BankStore(), MemoryNetwork(), ManualClock()
    async with nodes_on(store, network, "ab", clock=clock) as (a, b):
        name = an_id_owned_by(b)
        await lend(b, a, name)
        sent = a.cluster.statistics().sent
        for _ in range(50):
            await credit(a, name)
            clock.advance(1)
        assert a.cluster.statistics().sent - sent == 4  # each loan is for ten seconds
        assert b.cluster.statistics().served == 1
        assert a.statistics().activations == 1
        clock.advance(20)
        assert loans(a) == loans(b) == (0, 0, 0)


async def test_no_node_borrows_many_more_aggregates_than_it_lends() -> None:
    """Otherwise one node that all clients ask would have all aggregates of the cluster."""
    store, network = BankStore(), MemoryNetwork()
    async with nodes_on(store, network, "ab") as (a, b):
        lends([a, b], ahead=4)
        theirs, own = ids_owned_by(b, 12), ids_owned_by(a, 3)
        for name in theirs:
            await credit(a, name, 3)
        assert loans(a) == (0, 4, 0)
        for name in own:
            await credit(b, name, 3)
        for name in theirs:
            await credit(a, name, 3)
        assert loans(a) == (3, 7, 0)
        assert loans(b) == (7, 3, 0)


async def test_a_node_of_a_version_without_loans_is_never_sent_one() -> None:
    store, network = BankStore(), MemoryNetwork()
    async with nodes_on(store, network, "abc") as (a, b, c):
        name = an_id_owned_by(b)
        lends([b])
        is_of_a_version_without_loans(a)
        assert await credit(a, name, 20) == 20
        assert b.cluster.statistics().served == 20
        assert await credit(c, name, 3) == 23
        assert loans(b) == (1, 0, 0)
        assert await credit(a, name) == 24  # it is another node that asks, like any
        assert loans(b) == (0, 0, 1)


@pytest.mark.parametrize("without", ["the owner", "the borrower"])
async def test_a_node_without_loans_neither_lends_nor_borrows(without: str) -> None:
    store, network, clock = BankStore(), MemoryNetwork(), ManualClock()
    kept_out = {"loans": False}
    async with (
        system_on(
            store, network, "a", clock=clock, cluster=kept_out if without == "the borrower" else {}
        ) as a,
        system_on(store, network, "b", clock=clock, cluster=kept_out if without == "the owner" else {}) as b,
    ):
        await all_see([a, b])
        name = an_id_owned_by(b)
        for number in range(20):
            assert await credit(a, name) == number + 1
            clock.advance(1 / 16)
        assert b.cluster.statistics().served == 20
        assert await credit(b, name) == 21
        for _ in range(20):
            await credit(b, an_id_owned_by(a))
            clock.advance(1 / 16)
        assert (loans(a), loans(b)) == ((0, 0, 0), (0, 0, 0))


async def test_loans_end_when_the_owner_leaves_and_stay_when_another_node_joins() -> None:
    store, network = BankStore(), MemoryNetwork()
    async with nodes_on(store, network, "ab") as (a, b):
        names = ids_owned_by(b, 30)
        for name in names:
            lends([b])
            await credit(a, name, 3)
        assert (loans(a), loans(b)) == ((0, 30, 0), (30, 0, 0))
        async with system_on(store, network, "c") as c:
            await all_see([a, b, c])
            kept = [
                name for name in names if (owner := c.cluster.owner(Account, name)) and owner.id == id_of(b)
            ]
            assert 0 < len(kept) < 30
            assert (loans(a), loans(b)) == ((0, len(kept), 0), (len(kept), 0, 0))
            await leave(b)
            assert (loans(a), loans(b)) == ((0, 0, 0), (0, 0, 0))
            assert [await credit(system, names[0]) for system in (a, c, a)] == [4, 5, 6]


async def test_loans_end_when_the_borrower_leaves() -> None:
    store, network = BankStore(), MemoryNetwork()
    async with nodes_on(store, network, "abc") as (a, b, c):
        name = an_id_owned_by(b)
        await lend(b, a, name)
        await leave(a)
        assert (loans(a), loans(b)) == ((0, 0, 0), (0, 0, 0))
        assert [await credit(system, name) for system in (a, c, a, a, a)] == [4, 5, 6, 7, 8]
        assert (loans(a), loans(b)) == ((0, 0, 0), (0, 0, 0))


async def test_a_killed_borrower_keeps_no_command_of_another_node_waiting() -> None:
    store, network, clock = BankStore(), MemoryNetwork(), ManualClock()
    async with nodes_on(store, network, "abc", clock=clock) as (a, b, c):
        name = an_id_owned_by(b)
        await lend(b, a, name)
        network.kill(id_of(a))
        assert await credit(c, name) == 4
        assert loans(b) == (0, 0, 1)


async def test_a_borrower_continues_while_the_owner_is_gone() -> None:
    store, network, clock = BankStore(), MemoryNetwork(), ManualClock()
    async with nodes_on(store, network, "abc", clock=clock) as (a, b, c):
        name = an_id_owned_by(b)
        await lend(b, a, name)
        network.kill(id_of(b))
        node(b).announcement.close()
        assert await credit(a, name) == 4
        assert await credit(c, name) == 5
        await clock.advance_until(lambda: len(a.cluster.members()) == 2)
        assert loans(a) == (0, 0, 0)
        assert sorted([await credit(a, name), await credit(c, name)]) == [6, 7]


@pytest.mark.parametrize("how", ["hangs", "is cut off"])
async def test_a_borrower_that_does_not_answer_costs_others_a_moment(how: str) -> None:
    """And it learns from the log that it is not the only one any more."""
    store, clock = BankStore(), ManualClock()
    network = MemoryNetwork(clock=clock, notice=3)
    async with nodes_on(store, network, "abc", clock=clock) as (a, b, c):
        names = ids_owned_by(b, 2)
        for name in names:
            lends([b])
            await credit(a, name, 3)
        if how == "hangs":
            network.hang(id_of(a))
        else:
            network.cut(id_of(a), id_of(b))
        begun = clock.now
        for name in names:
            asked = asyncio.ensure_future(credit(c, name))
            await clock.advance_until(asked.done, 0.01)
            assert await asked == 4
        assert clock.now - begun < 2.2  # once, not for each aggregate
        assert loans(b) == (0, 0, 1)
        await until(lambda: loans(a) == (0, 0, 0))
        network.wake(id_of(a))
        network.heal()
        for name in names:
            asked = asyncio.ensure_future(credit(a, name))
            await clock.advance_until(asked.done)
            assert await asked == 5


async def test_a_command_that_waits_for_its_aggregate_is_not_late_for_that() -> None:
    store, clock = BankStore(), ManualClock()
    network = MemoryNetwork(clock=clock, notice=1000)
    async with nodes_on(store, network, "abc", clock=clock) as (a, b, c):
        name = an_id_owned_by(b)
        await lend(b, a, name)
        network.hang(id_of(a))
        asked = [
            asyncio.ensure_future(system.aggregate(Account, name).ask(Credit(amount=1), timeout=0.5))
            for system in (b, c)
        ]
        await clock.advance_until(lambda: all(each.done() for each in asked), 0.01)
        assert sorted(await asyncio.gather(*asked)) == [4, 5]
        network.wake(id_of(a))


async def test_a_node_that_stops_answers_what_waits_for_its_aggregate() -> None:
    store, network = BankStore(), MemoryNetwork(notice=1000)
    async with nodes_on(store, network, "abc") as (a, b, c):
        without_b = Placement(member for member in a.cluster.members() if member.id != id_of(b))
        name = next(
            name
            for name in ids_owned_by(b, 50)
            if without_b.owner(StreamId("Account", name), "Credit") == node(c).announcement.member
        )
        await lend(b, a, name)
        network.hang(id_of(a))
        asked = [asyncio.ensure_future(credit(system, name)) for system in (b, c)]
        await until(lambda: b.statistics().commands_waiting == 2)
        stopping = asyncio.ensure_future(b.stop())
        assert sorted(await asyncio.gather(*asked)) == [4, 5]
        network.wake(id_of(a))
        await stopping


@pytest.mark.parametrize("seed", range(6))
async def test_whatever_becomes_of_messages_about_loans_nothing_is_lost_or_doubled(seed: int) -> None:
    """Every second command in a row is answered with a loan, each node has another view of the members at each moment,
    and messages overtake each other and are lost."""
    store, clock, chance = BankStore(), ManualClock(), random.Random(seed)
    network = MemoryNetwork(seed=seed, delay=0.02, drop=0.05 * (seed % 3), clock=clock)
    async with nodes_on(store, network, "abc", clock=clock, ask_timeout=600) as systems:
        lends(systems, harder=1, seconds=0.5, handover=0.05)
        load = Load(lambda: systems, ["one", "two", "three"], seed)
        running = asyncio.ensure_future(load.run(clients=6, commands=20))
        lent = recalled = 0
        while not running.done():
            if chance.random() < 0.3:
                see_only_some(systems, chance)
            await asyncio.sleep(0.001)
            clock.advance(0.01)
            lent = max(lent, sum(loans(system)[0] for system in systems))
        await running
        recalled = sum(loans(system)[2] for system in systems)
        network.delay = 0.0
        assert load.errors == []
        assert len(load.acknowledged) == 120
        await load.check(store)
        assert lent
        assert recalled
