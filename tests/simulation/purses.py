"""A small domain with everything that a broken runtime may lose, double or mix up; run by the tests of the mutants."""

import asyncio
from contextlib import suppress
from typing import Any

from uno_actors import (
    ActorSystem,
    AggregateRoot,
    Cluster,
    Command,
    CommandRejected,
    DomainEvent,
    EventRegistry,
    Projection,
    handles,
    subscribe,
)
from uno_actors.testing.simulation import InvariantBroken, Node, World

PURSES = ("red", "blue")


class CoinsAdded(DomainEvent):
    amount: int
    topic: str | None = "purses.filled"


REGISTRY = EventRegistry([CoinsAdded])


class Fill(Command[int]):
    amount: int = 1


class FillTwice(Command[int]):
    """Two events, together or not at all."""


class FillAndRefuse(Command[int]):
    """An event that must leave no trace."""


class HowMuch(Command[int]):
    pass


class Purse(AggregateRoot):
    def __init__(self, id: str) -> None:
        super().__init__(id)
        self.total = 0

    @handles
    def fill(self, command: Fill) -> int:
        self.register_event(CoinsAdded(amount=command.amount))
        return self.total

    @handles
    def fill_twice(self, command: FillTwice) -> int:
        self.register_event(CoinsAdded(amount=1))
        self.register_event(CoinsAdded(amount=1))
        return self.total

    @handles
    def fill_and_refuse(self, command: FillAndRefuse) -> int:
        self.register_event(CoinsAdded(amount=100))
        raise CommandRejected("never")

    @handles
    def how_much(self, command: HowMuch) -> int:
        return self.total

    def apply_coins_added(self, event: CoinsAdded) -> None:
        self.total += event.amount

    def to_snapshot(self) -> dict[str, Any]:
        return {"total": self.total}

    def restore_snapshot(self, state: dict[str, Any]) -> None:
        self.total = state["total"]


@subscribe(name="tally")
class Tally(Projection[CoinsAdded, str]):
    async def handle(self, event: CoinsAdded) -> None:
        purse = event.aggregate_id or ""
        self.view.put(purse, event.amount + await self.view.get(purse, 0))


@subscribe(name="spread", partitioned=3)
class Spread(Tally):
    """The same in three partitions, each on one of the nodes."""


def make_systems(world: World, *, is_cluster: bool = False) -> Any:
    failed: set[str] = set()

    @subscribe(name="flaky", start="earliest")
    async def flaky(event: CoinsAdded) -> None:
        await asyncio.sleep(0)
        if event.event_id not in failed and world.chance.random() < 0.3:
            failed.add(event.event_id)
            raise ConnectionError("the mail server is away")

    @subscribe(name="plain", start="earliest")
    def plain(event: CoinsAdded) -> None:
        assert event.amount

    @subscribe(name="side-by-side", start="earliest", concurrency=3)
    async def side_by_side(event: CoinsAdded) -> None:
        await asyncio.sleep(world.chance.random() ** 2 * 0.3)  # so that some overtake others for long

    def make(node: Node) -> ActorSystem:
        return ActorSystem(
            node.store,
            aggregates=[Purse],
            handlers=[Tally, Spread, flaky, plain, side_by_side]
            if is_cluster
            else [Tally, flaky, plain, side_by_side],
            name="purses",
            cluster=Cluster(listen=node.network, name=node.name, ttl=3.0) if is_cluster else None,
            passivate_after=0.05,
            max_active=1,
            snapshot_every=3,
        )

    return make


async def customers(world: World, nodes: tuple[str, ...], *, is_cluster: bool = False) -> None:
    await asyncio.gather(*(world.node(name, make_systems(world, is_cluster=is_cluster)) for name in nodes))
    paid = dict.fromkeys(PURSES, 0)
    replies: dict[str, list[int]] = {purse: [] for purse in PURSES}

    async def fill(purse: str) -> None:
        command = Fill()
        asks = [world.ask(Purse, purse, command) for _ in range(world.chance.choice((1, 1, 2)))]
        (reply, *others) = await asyncio.gather(*asks)
        paid[purse] += 1
        replies[purse].append(reply)
        if any(other != reply for other in others):
            raise InvariantBroken("a repeated command has its first reply", f"{others} instead of {reply}")

    async def one_command(purse: str) -> None:
        match world.chance.randrange(6):
            case 0:
                await world.ask(Purse, purse, FillTwice())
                paid[purse] += 2
            case 1:
                with suppress(CommandRejected):
                    await world.ask(Purse, purse, FillAndRefuse())
            case 2:
                if await world.ask(Purse, purse, HowMuch()) >= 100:
                    raise InvariantBroken("a refused command leaves no trace", purse)
            case _:
                await fill(purse)

    async def customer() -> None:
        for _ in world.commands(6):
            await one_command(world.chance.choice(PURSES))
            if world.chance.random() < 0.3:
                await asyncio.sleep(world.chance.random() * 0.2)

    await asyncio.gather(customer(), customer(), customer())
    await world.settled()
    for purse in PURSES:
        await check_purse(world, purse, paid[purse], replies[purse])


async def check_purse(world: World, purse: str, paid: int, replies: list[int]) -> None:
    total = await world.ask(Purse, purse, HowMuch())
    if total != paid:
        raise InvariantBroken("what was paid is there", f"{purse} has {total} instead of {paid}")
    if len(set(replies)) < len(replies):
        raise InvariantBroken("each command is decided on the state before it", f"{purse}: {replies}")


async def one_node(world: World) -> None:
    await customers(world, ("a",))


async def two_nodes(world: World) -> None:
    await customers(world, ("a", "b"))


async def three_nodes(world: World) -> None:
    """A cluster: commands travel to the node that has the purse, and partitions of a handler to one node each."""
    await customers(world, ("a", "b", "c"), is_cluster=True)
