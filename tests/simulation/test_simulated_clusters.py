"""Clusters in virtual time: several nodes on one store, whose links and clocks fail."""

import asyncio
from collections import Counter

import pytest

from tests.bank import EVENTS, Account, Balance, Credit, Credited
from uno_actors import ActorSystem, AskTimeout, Cluster, Projection, subscribe
from uno_actors.cluster.loans import Terms
from uno_actors.testing.simulation import KINDS, InvariantBroken, Node, Simulation, World, simulate
from uno_actors.testing.simulation.control import controlled
from uno_actors.testing.simulation.faults import OF_LINKS

NODES = ("a", "b", "c")


@subscribe(name="paid-in")
class PaidIn(Projection[Credited, str]):
    async def handle(self, event: Credited) -> None:
        self.view.put("sum", event.amount + await self.view.get("sum", 0))


def clustered(node: Node) -> ActorSystem:
    return ActorSystem(
        node.store,
        aggregates=[Account],
        handlers=[PaidIn],
        cluster=Cluster(listen=node.network, name=node.name, ttl=3.0),
        name="bank",
    )


async def payments(world: World) -> None:
    await asyncio.gather(*(world.node(name, clustered) for name in NODES))
    paid = {f"account-{number}": 0 for number in range(3)}

    async def customer() -> None:
        for number in world.commands(6):
            account = f"account-{number % 3}"
            await world.ask(Account, account, Credit(amount=1))
            paid[account] += 1
            await asyncio.sleep(world.chance.random() * 0.3)

    await asyncio.gather(customer(), customer(), customer())
    await world.settled()
    for account, amount in paid.items():
        balance = await world.ask(Account, account, Balance())
        if balance != amount:
            raise InvariantBroken("what was paid is there", f"{account} has {balance} instead of {amount}")


def test_a_cluster_loses_and_doubles_nothing_whatever_goes_wrong() -> None:
    done = simulate(payments, range(12), event_registry=EVENTS)
    assert done.runs == 12


def test_aggregates_that_are_lent_lose_and_double_nothing_whatever_goes_wrong(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Each customer keeps to one node and account, and sometimes asks for that of another."""
    eager = Terms(commands=1, span=0.0, harder=1, seconds=1.0)
    monkeypatch.setattr("uno_actors.system.announcement.TERMS", eager)
    seen: Counter[str] = Counter()

    async def scenario(world: World) -> None:
        await asyncio.gather(*(world.node(name, clustered) for name in NODES))
        paid: Counter[str] = Counter()

        async def customer(number: int) -> None:
            for _ in world.commands(10):
                account = f"account-{number if world.chance.random() < 0.8 else world.chance.randrange(3)}"
                await world.ask(Account, account, Credit(amount=1), node=NODES[number])
                paid[account] += 1
                await asyncio.sleep(world.chance.random() * 0.3)
                if NODES[number] in world.running():
                    routed = world.system(NODES[number]).cluster.statistics()
                    seen.update(lent=routed.lent, borrowed=routed.borrowed, recalled=routed.recalled)

        await asyncio.gather(*map(customer, range(3)))
        await world.settled()
        for account, amount in paid.items():
            balance = await world.ask(Account, account, Balance())
            if balance != amount:
                raise InvariantBroken(
                    "what was paid is there", f"{account} has {balance} instead of {amount}"
                )

    assert simulate(scenario, range(12), event_registry=EVENTS).runs == 12
    assert min(seen[what] for what in ("lent", "borrowed", "recalled")) > 12


def test_nodes_that_are_cut_off_from_each_other_still_answer() -> None:
    async def scenario(world: World) -> None:
        await asyncio.gather(*(world.node(name, clustered) for name in NODES))
        world.cut("a", "b")
        await asyncio.gather(
            *(
                world.ask(Account, f"account-{number}", Credit(amount=1), node=name)
                for number in range(4)
                for name in "ab"
            )
        )
        world.heal()

    simulate(scenario, range(4), faults=0, event_registry=EVENTS)


@pytest.mark.parametrize("kind", sorted(OF_LINKS))
def test_bad_links_lose_and_double_nothing(kind: str) -> None:
    with controlled():
        simulation = Simulation(payments, kinds=[kind], event_registry=EVENTS)
        runs = [simulation.run(seed) for seed in range(4)]
    assert [run.error for run in runs] == [None] * 4
    told = [text for run in runs for _, _, of_kind, text in run.story if of_kind == "fault"]
    assert len(told) == sum(len(run.faults) for run in runs)


def test_links_fail_only_where_nodes_are_linked() -> None:
    async def alone(world: World) -> None:
        await world.node("a", lambda node: ActorSystem(node.store, aggregates=[Account], handlers=[]))
        await world.ask(Account, "x", Credit(amount=1))

    with controlled():
        planned = [fault for seed in range(20) for fault in Simulation(alone).plan(seed)]
    assert {fault.kind for fault in planned} == {*KINDS} - OF_LINKS
    with pytest.raises(
        ValueError, match="cut and slow links hit links between nodes, and the scenario has none"
    ):
        simulate(alone, [1], kinds=["cut", "slow links"], event_registry=EVENTS)


def test_a_cut_that_ends_joins_only_the_two_that_it_has_parted() -> None:
    async def scenario(world: World) -> None:
        await asyncio.gather(*(world.node(name, clustered) for name in NODES))
        world.cut("a", "c")
        heal = world.strikes.cut("a", "b")
        heal()
        with pytest.raises(AskTimeout):
            for number in range(9):  # one of them is c's
                await (
                    world.system("a")
                    .aggregate(Account, f"account-{number}")
                    .ask(Credit(amount=1), timeout=0.5)
                )
        world.heal()

    simulate(scenario, range(2), faults=0, event_registry=EVENTS)


def test_commands_travel_over_the_links_of_the_run() -> None:
    served: set[str] = set()

    async def scenario(world: World) -> None:
        await asyncio.gather(*(world.node(name, clustered) for name in NODES))
        await asyncio.sleep(3)
        for number in range(12):
            await world.ask(Account, f"account-{number}", Credit(amount=1), node="a")
        served.update(who for _, who, kind, _ in world.core.story if kind == "command")

    simulate(scenario, range(1), faults=0, event_registry=EVENTS)
    assert served == set(NODES)
