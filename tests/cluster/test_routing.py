"""Commands go to the node that has the aggregate; their replies, errors and time are the same on every node."""

import asyncio
from typing import Any

import pytest

from tests.bank import Account, Balance, BankStore, Credit, CreditAndExit, CreditAndFail, Credited, Debit
from tests.cluster.faults import (
    aggregates_are_now,
    leave,
    members_seem,
    node,
    placement,
    requests_served,
    store_lags,
)
from tests.cluster.nodes import an_id_owned_by, id_of, ids_owned_by, nodes_on, system_on
from tests.waiting import ManualClock, turns, until
from uno_actors import (
    Actor,
    ActorSystem,
    AggregateRoot,
    AskTimeout,
    Command,
    CommandRejected,
    DomainEvent,
    EventHandler,
    ExitRaised,
    HandlerContext,
    InvalidCommand,
    MailboxFull,
    NoCluster,
    NotServed,
    OutcomeUnknown,
    ProcessManager,
    ReplyNotSent,
    handles,
    reacts,
    subscribe,
)
from uno_actors.cluster.links.memory import MemoryNetwork
from uno_actors.cluster.placement import Placement
from uno_actors.store.codec import StreamId


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
    async with ActorSystem(BankStore(), aggregates=[Account], handlers=[]) as alone:
        with pytest.raises(NoCluster, match="cluster=True"):
            _ = alone.cluster


async def test_what_is_told_is_handled_by_the_owner_and_fails_where_it_was_told() -> None:
    store, network = BankStore(), MemoryNetwork()
    async with nodes_on(store, network, "ab") as (a, b):
        account = a.aggregate(Account, an_id_owned_by(b))
        account.tell(Credit(amount=3))
        account.tell(Debit(amount=50))
        await until(a.dead_messages)
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


async def test_an_ask_that_is_late_names_node_and_hop_and_was_withdrawn_there() -> None:
    store, network, clock = BankStore(), MemoryNetwork(), ManualClock()
    async with nodes_on(store, network, "ab", clock=clock) as (a, b):
        account = a.aggregate(Account, an_id_owned_by(b))
        store.gate.clear()
        first = asyncio.ensure_future(account.ask(Credit(amount=1)))
        await until(lambda: store.commits_asked)
        blocked = asyncio.ensure_future(account.ask(Credit(amount=2), timeout=5))
        await until(lambda: b.statistics().commands_waiting == 2)
        await clock.advance_until(blocked.done)
        with pytest.raises(AskTimeout) as late:
            await blocked
        assert f"on node {b.cluster.name}" in late.value.actor
        assert f"one hop away from node {a.cluster.name}" in str(late.value)
        assert "within 5 s" in str(late.value)
        assert late.value.seconds == 5
        store.gate.set()
        assert await first == 1


async def test_an_owner_that_says_nothing_is_named_when_the_time_is_over() -> None:
    store, network, clock = BankStore(), MemoryNetwork(notice=1000), ManualClock()
    async with nodes_on(store, network, "ab", clock=clock) as (a, b):
        asked = asyncio.ensure_future(
            a.aggregate(Account, an_id_owned_by(b)).ask(Credit(amount=1), timeout=2)
        )
        network.hang(id_of(b))
        await clock.advance_until(asked.done)
        with pytest.raises(AskTimeout, match="may still take effect") as late:
            await asked
        assert f"on node {b.cluster.name}" in str(late.value)
        network.wake(id_of(b))


async def test_a_full_mailbox_of_the_owner_is_named_with_its_node() -> None:
    store, network = BankStore(), MemoryNetwork()
    async with nodes_on(store, network, "ab", clock=ManualClock()) as (a, b):  # no time to lend the account
        account = a.aggregate(Account, an_id_owned_by(b))
        store.gate.clear()
        asked = [asyncio.ensure_future(account.ask(Credit(amount=1))) for _ in range(1200)]
        await until(lambda: any(each.done() for each in asked))
        store.gate.set()
        outcomes = await asyncio.gather(*asked, return_exceptions=True)
        full = [each for each in outcomes if isinstance(each, MailboxFull)]
        assert full
        assert full[0].owner.endswith(f"on node {b.cluster.name}")
        assert len(full) + sum(isinstance(each, int) for each in outcomes) == 1200


class Rich(Command[None]):
    value: Any


class Give(Command[Any]):
    what: str


class Vault(AggregateRoot):
    @handles
    def take(self, command: Rich) -> None: ...

    @handles
    def give(self, command: Give) -> Any:
        return {"object": object, "plain": (1, {"a"})}[command.what]


async def test_a_command_or_a_reply_that_cannot_travel_is_refused_with_the_reason() -> None:
    network = MemoryNetwork()
    async with nodes_on(BankStore(), network, "ab", aggregates=[Account, Vault]) as (a, b):
        name = next(
            name for name in map(str, range(99)) if a.cluster.owner(Vault, name).name == b.cluster.name
        )
        vault = a.aggregate(Vault, name)
        with pytest.raises(InvalidCommand, match="Rich cannot be sent: value"):
            await vault.ask(Rich(value=object()))
        with pytest.raises(ReplyNotSent, match=f"node {b.cluster.name} has handled Give"):
            await vault.ask(Give(what="object"))
        assert await vault.ask(Give(what="plain")) == (1, {"a"})
        assert a.statistics().commands_waiting == 0


async def test_a_lost_answer_is_outcome_unknown_if_commands_are_not_remembered() -> None:
    store, network = BankStore(), MemoryNetwork()
    async with nodes_on(store, network, "ab", remember_commands=0) as (a, b):
        account = a.aggregate(Account, an_id_owned_by(b))
        await account.ask(Credit(amount=1))
        store.gate.clear()
        command = Credit(amount=2)
        asked = asyncio.ensure_future(account.ask(command))
        await until(lambda: store.commits_asked == 2)
        network.kill(id_of(b))
        with pytest.raises(OutcomeUnknown, match="the answer of node .* was lost") as unknown:
            await asked
        store.gate.set()
        assert unknown.value.command_id == command.command_id
        assert unknown.value.since is not None
        await until(lambda: len(store.versions()) == 2)
        assert await account.ask(command, since=unknown.value.since) == 3
        assert store.versions() == [1, 2]


@pytest.mark.parametrize("remember", [0, 1000])
async def test_a_slow_node_behind_a_link_that_may_lose_messages_handles_a_command_once(remember: int) -> None:
    """The command is sent again, more and more seldom, if a repetition is sure to be known; the node stays a member."""
    clock = ManualClock()
    store, network = BankStore(), MemoryNetwork(drop=1e-12, clock=clock)
    async with nodes_on(store, network, "ab", clock=clock, remember_commands=remember) as (a, b):
        name = an_id_owned_by(b)
        await clock.advance_until(asyncio.ensure_future(a.aggregate(Account, name).ask(Balance())).done)
        store.gate.clear()
        asked = asyncio.ensure_future(a.aggregate(Account, name).ask(Credit(amount=2), timeout=60))
        await until(lambda: store.commits_asked == 1)
        for _ in range(20):
            clock.advance(1)
            await turns()
        sent_again = a.cluster.statistics().sent_again
        assert sent_again == (4 if remember else 0)  # after 1, 3, 7 and 15 seconds
        assert len(a.cluster.members()) == 2
        store.gate.set()
        await clock.advance_until(asked.done)
        assert await asked == 2
        assert store.versions() == [1]


async def test_what_a_lost_node_may_have_handled_is_never_said_to_have_had_no_effect() -> None:
    store, network, clock = BankStore(), MemoryNetwork(), ManualClock()
    async with (
        system_on(store, network, "asks", clock=clock, cluster={"roles": ("handlers",)}) as asks,
        system_on(store, network, "serves", clock=clock) as serves,
    ):
        await until(lambda: len(asks.cluster.members()) == 2)
        store.gate.clear()
        command = Credit(amount=5)
        asked = asyncio.ensure_future(asks.aggregate(Account, "x").ask(command, timeout=2))
        await until(lambda: store.commits_asked)
        network.kill(id_of(serves))
        node(serves).announcement.close()
        await until(lambda: asks.cluster.statistics().homeless)
        await clock.advance_until(asked.done)
        with pytest.raises(OutcomeUnknown, match="the answer of a node was lost, then: NotServed") as unknown:
            await asked
        store.gate.set()
        await until(store.versions)
        async with system_on(store, network, "next", clock=clock):
            again = asks.aggregate(Account, "x").ask(command, since=unknown.value.since)
            assert await again == 5
            assert store.versions() == [1]


class Modern(Command[int]):
    """A command of the next version of the program."""


class OldShop(AggregateRoot):
    aggregate_type = "Shop"


class NewShop(AggregateRoot):
    aggregate_type = "Shop"

    @handles
    def modern(self, command: Modern) -> int:
        return 1


async def test_a_node_that_does_not_know_a_command_is_not_chosen() -> None:
    store, network = BankStore(), MemoryNetwork()
    async with (
        system_on(store, network, "old", aggregates=[OldShop]) as old,
        system_on(store, network, "new", aggregates=[NewShop]) as new,
    ):
        await until(lambda: len(old.cluster.members()) == len(new.cluster.members()) == 2)
        for number in range(20):
            assert await new.aggregate(NewShop, str(number)).ask(Modern()) == 1
        assert new.cluster.statistics().sent == 0


async def test_a_node_that_refuses_a_command_is_passed_over() -> None:
    """Its announcement says more than it can do, as when it lags."""
    store, network = BankStore(), MemoryNetwork()
    async with (
        system_on(store, network, "old", aggregates=[OldShop]) as old,
        system_on(store, network, "new", aggregates=[NewShop]) as new,
    ):
        node(old).announcement.change(commands=(("Shop", ("Modern",)),))
        await until(lambda: {m.commands for m in new.cluster.members()} == {(("Shop", ("Modern",)),)})
        for number in range(20):
            assert await new.aggregate(NewShop, str(number)).ask(Modern()) == 1
        assert new.cluster.statistics().sent > 0


async def test_a_node_for_handlers_alone_waits_for_one_that_serves_and_says_when_there_is_none() -> None:
    store, network, clock = BankStore(), MemoryNetwork(), ManualClock()
    only_handlers = {"cluster": {"roles": ("handlers",)}}
    async with system_on(store, network, "handlers", clock=clock, **only_handlers) as asks:
        account = asks.aggregate(Account, "a")
        late = asyncio.ensure_future(account.ask(Credit(amount=1), timeout=3))
        account.tell(Credit(amount=100))
        await clock.advance_until(late.done)
        with pytest.raises(NotServed, match="no node has served Credit of Account<a> within 3 s") as refused:
            await late
        assert refused.value.served == ()
        waits = asyncio.ensure_future(account.ask(Credit(amount=1), timeout=30))
        await until(lambda: asks.cluster.statistics().homeless == 2)
        async with system_on(store, network, "serves", clock=clock) as serves:
            assert await waits in (1, 101)
            await until(lambda: asks.cluster.statistics().waiting == 0)
            assert serves.cluster.statistics().served == 2
            assert asks.cluster.statistics().local == 0


async def test_what_is_told_and_no_node_serves_in_time_is_a_dead_message() -> None:
    store, network, clock = BankStore(), MemoryNetwork(), ManualClock()
    async with system_on(
        store, network, "handlers", clock=clock, ask_timeout=3.0, cluster={"roles": ("handlers",)}
    ) as asks:
        asks.aggregate(Account, "a").tell(Credit(amount=1))
        await clock.advance_until(asks.dead_messages)
        [dead] = asks.dead_messages()
        assert "no node has served Credit" in dead.reason


class Clerk(Actor):
    """Asks an aggregate on behalf of its own asker."""

    def __init__(self, system: ActorSystem, name: str) -> None:
        super().__init__()
        self.account = system.aggregate(Account, name)

    async def on_receive(self, message: Any) -> Any:
        return await self.account.ask(Credit(amount=1))


async def test_the_time_of_an_ask_continues_across_the_hop() -> None:
    store, network = BankStore(), MemoryNetwork()
    async with nodes_on(store, network, "ab") as (a, b):
        clerk = await a.spawn(Clerk, a, an_id_owned_by(b))
        requests = requests_served(b)
        assert await clerk.ask("go", block=False, timeout=29.0) == 1
        assert 0 < requests[0].seconds <= 29
        assert await a.aggregate(Account, an_id_owned_by(b)).ask(Credit(amount=1)) == 2
        assert requests[1].seconds == 30


async def test_a_command_that_is_sent_again_has_the_time_that_is_left() -> None:
    store, network, clock = BankStore(), MemoryNetwork(notice=1), ManualClock()
    async with nodes_on(store, network, "abc", clock=clock) as (a, b, c):
        requests = requests_served(c)
        account = next(
            name
            for name in ids_owned_by(b, 50)
            if Placement(each for each in a.cluster.members() if each.id != id_of(b))
            .owner(StreamId("Account", name), "Credit")
            .id
            == id_of(c)
        )
        network.cut(id_of(a), id_of(b))
        asked = asyncio.ensure_future(a.aggregate(Account, account).ask(Credit(amount=1)))
        await clock.advance_until(asked.done)
        assert await asked == 1
        assert 27 < requests[0].seconds < 29.5
        assert requests[0].since is not None


async def test_the_ids_of_a_cause_continue_across_the_hop() -> None:
    store, network = BankStore(), MemoryNetwork()

    @subscribe(event_type=Credited, name="follows", start="earliest")
    async def follow(event: Credited, context: HandlerContext) -> None:
        if event.aggregate_id == first and event.amount == 1:
            await context.system.aggregate(Account, second).ask(Credit(amount=2, command_id="second"))

    async with nodes_on(store, network, "a", handlers=[follow]) as (a,), system_on(store, network, "b") as b:
        await until(lambda: len(a.cluster.members()) == 2)
        first, second = an_id_owned_by(a), an_id_owned_by(b)
        await a.aggregate(Account, first).ask(Credit(amount=1, correlation_id="chain"))
        await a.settled()
        assert b.cluster.statistics().served == 1
        [cause], [effect] = [(await store.read_stream(StreamId("Account", name))) for name in (first, second)]
        assert effect.record.correlation_id == "chain"
        assert effect.record.causation_id == "second"
        assert effect.record.command_causation_id == cause.record.event_id


async def test_a_type_that_is_first_asked_for_later_is_announced_then() -> None:
    store, network = BankStore(), MemoryNetwork()
    async with nodes_on(store, network, "ab", aggregates=None) as (a, b):
        assert await a.aggregate(Account, "x").ask(Credit(amount=1)) == 1
        b.aggregate(Account, "x")
        await until(lambda: all(member.commands for system in (a, b) for member in system.cluster.members()))
        assert await b.aggregate(Account, an_id_owned_by(a)).ask(Credit(amount=1)) >= 1
        assert a.cluster.statistics().served + b.cluster.statistics().served >= 1


async def test_a_node_that_hangs_is_waited_for_until_it_is_no_member_any_more() -> None:
    """Its connections stay open, so only the members tell."""
    store, network, clock = BankStore(), MemoryNetwork(notice=1000), ManualClock()
    async with nodes_on(store, network, "ab", clock=clock) as (a, b):
        account = a.aggregate(Account, an_id_owned_by(b))
        network.hang(id_of(b))
        node(b).announcement.close()
        asked = asyncio.ensure_future(account.ask(Credit(amount=1)))
        begun = clock.now
        await clock.advance_until(asked.done)
        assert await asked == 1
        assert clock.now - begun < 5
        assert a.cluster.statistics().local == 1
        network.wake(id_of(b))


async def test_a_node_that_leaves_is_not_chosen_any_more_and_serves_those_who_have_not_heard() -> None:
    store, network = BankStore(), MemoryNetwork()
    async with nodes_on(store, network, "abc") as (a, b, c):
        account = an_id_owned_by(b)
        late = placement(c)
        await leave(b)
        assert [member.leaving for member in a.cluster.members()] == [False, True, False]
        assert (owner := a.cluster.owner(Account, account)) is not None
        assert owner.id != id_of(b)
        assert await a.aggregate(Account, account).ask(Credit(amount=1)) == 1
        assert b.cluster.statistics().served == 0
        members_seem(c, late)
        assert await c.aggregate(Account, account).ask(Credit(amount=1)) == 2
        assert b.cluster.statistics().served == 1


async def test_a_node_that_leaves_and_reaches_no_other_is_seen_to_leave_in_the_store() -> None:
    store, network, clock = BankStore(), MemoryNetwork(notice=1), ManualClock()
    async with nodes_on(store, network, "ab", clock=clock) as (a, b):
        network.cut(id_of(a), id_of(b))
        leaving = asyncio.ensure_future(leave(b))
        await until(lambda: [member.leaving for member in a.cluster.members()] == [False, True])
        begun = clock.now
        await clock.advance_until(leaving.done)
        assert clock.now - begun <= 2
        network.heal()


async def test_the_other_nodes_hear_from_a_leaving_node_itself_before_their_store_says_so() -> None:
    store, network, clock = BankStore(), MemoryNetwork(), ManualClock()
    async with nodes_on(store, network, "ab", clock=clock) as (a, b):
        with store_lags(node(b).announcement):
            await leave(b)
            node(a).announcement.refresh()
            await turns()
            assert [member.leaving for member in a.cluster.members()] == [False, True]


async def test_the_last_node_handles_its_own_commands_while_it_leaves() -> None:
    store, network = BankStore(), MemoryNetwork()

    @subscribe(event_type=Credited, name="follows_late", start="earliest")
    async def follow(event: Credited, context: HandlerContext) -> None:
        if event.aggregate_id == "first":
            await context.system.aggregate(Account, "second").ask(Credit(amount=2))

    async with nodes_on(store, network, "a", handlers=[follow]) as (a,):
        store.gate.clear()
        asked = asyncio.ensure_future(a.aggregate(Account, "first").ask(Credit(amount=1)))
        await until(lambda: store.commits_asked)
        found = node(a)
        stopping = asyncio.ensure_future(a.stop())
        await until(lambda: found.announcement.member.leaving)
        store.gate.set()
        assert await asked == 1
        await stopping
        assert [record.aggregate_id for _, record in await store.read_log()] == ["first", "second"]


async def test_what_a_node_cannot_finish_before_it_stops_is_answered_by_another() -> None:
    store, network = BankStore(), MemoryNetwork()
    async with nodes_on(store, network, "ab") as (a, b):
        account = a.aggregate(Account, an_id_owned_by(b))
        await account.ask(Credit(amount=1))
        store.gate.clear()
        asked = [asyncio.ensure_future(account.ask(Credit(amount=1))) for _ in range(5)]
        await until(lambda: store.commits_asked == 2)
        await b.stop(timeout=0.2)
        store.gate.set()
        assert sorted(await asyncio.gather(*asked)) == [2, 3, 4, 5, 6]
        assert store.versions() == [1, 2, 3, 4, 5, 6]


async def test_a_node_that_has_refused_a_command_is_asked_again_when_the_members_change() -> None:
    store, network = BankStore(), MemoryNetwork()
    async with (
        system_on(store, network, "old", aggregates=[OldShop]) as old,
        system_on(store, network, "new", aggregates=[NewShop], cluster={"roles": ("handlers",)}) as new,
    ):
        node(old).announcement.change(commands=(("Shop", ("Modern",)),))
        await until(lambda: [m for m in new.cluster.members() if m.commands == (("Shop", ("Modern",)),)])
        waits = asyncio.ensure_future(new.aggregate(NewShop, "x").ask(Modern()))
        await until(lambda: new.cluster.statistics().homeless == 1)
        assert new.cluster.statistics().sent == 1
        aggregates_are_now(old, "Shop", NewShop)
        node(old).announcement.change(capacity=2.0)
        assert await waits == 1


@subscribe(event_type=Credited, name="cannot_start")
class CannotStart(EventHandler):
    def __init__(self) -> None:
        raise RuntimeError("not today")

    async def handle(self, event: DomainEvent) -> None: ...


async def test_a_node_whose_start_fails_is_gone_for_the_others() -> None:
    store, network = BankStore(), MemoryNetwork()
    async with nodes_on(store, network, "a") as (a,):
        with pytest.raises(RuntimeError, match="not today"):
            await system_on(store, network, "b", handlers=[CannotStart]).start()
        assert network.nodes() == [id_of(a)]
        await until(lambda: [member.name for member in a.cluster.members()] == [a.cluster.name])


async def test_one_hot_aggregate_shows_no_conflict_also_while_the_nodes_start() -> None:
    store, network = BankStore(), MemoryNetwork()
    systems = [system_on(store, network, name, cluster={"loans": False}) for name in "abc"]

    async def client(system: ActorSystem) -> list[int]:
        await system.start()
        return [await system.aggregate(Account, "hot").ask(Credit(amount=1)) for _ in range(40)]

    balances = await asyncio.gather(*map(client, systems))
    assert sorted(balance for each in balances for balance in each) == list(range(1, 121))
    late = [system.statistics().activations for system in systems]
    await asyncio.gather(*[system.aggregate(Account, "hot").ask(Balance()) for system in systems])
    assert [system.statistics().activations for system in systems] == late
    for system in systems:
        await system.stop()


async def test_nodes_that_stop_all_at_once_answer_what_they_have_accepted() -> None:
    store, network = BankStore(), MemoryNetwork()
    async with nodes_on(store, network, "abc") as systems:
        accounts = [an_id_owned_by(system) for system in systems]
        asked = [
            asyncio.ensure_future(system.aggregate(Account, account).ask(Credit(amount=1)))
            for system in systems
            for account in accounts
        ]
        await turns(1)
        await asyncio.gather(*[system.stop() for system in systems])
        assert sorted(await asyncio.gather(*asked)) == [1, 1, 1, 2, 2, 2, 3, 3, 3]


class PaidHere(DomainEvent):
    account: str


class Thanks(ProcessManager):
    """Credits one for each payment."""

    sends_to = (Account,)

    @reacts
    def thank(self, event: PaidHere) -> None:
        self.send(Account, event.account, Credit(amount=1))


async def test_a_process_reacts_whichever_node_owns_it_and_runs_its_handler() -> None:
    store, network = BankStore(), MemoryNetwork()
    store.event_registry.register(PaidHere)
    options: dict[str, Any] = {
        "aggregates": [Account, Thanks],
        "handlers": [Thanks.handler(start="earliest")],
    }
    async with nodes_on(store, network, "ab", **options) as (a, b):
        processes = [f"process-{number}" for number in range(24)]
        owners = {name: a.cluster.owner(Thanks, name) for name in processes}
        assert len({owner.id for owner in owners.values() if owner is not None}) == 2
        for name in processes:
            await a.publisher.publish(PaidHere(account="x", correlation_id=name))
        await a.settled()
        await b.settled()
        assert await store.dead_letters() == []
        assert await a.aggregate(Account, "x").ask(Balance()) == len(processes)
