"""Nodes of one process on a network in memory, for the tests of routing."""

from collections.abc import AsyncIterator, Iterable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any

from tests.bank import Account
from tests.cluster.faults import node
from tests.waiting import until
from uno_actors import ActorSystem, EventStore
from uno_actors.cluster.links.memory import MemoryNetwork
from uno_actors.cluster.settings import Cluster


def system_on(store: EventStore, network: MemoryNetwork, name: str, **options: Any) -> ActorSystem:
    settings = options.pop("cluster", {})
    chosen: dict[str, Any] = {"aggregates": [Account], "handlers": []} | options
    return ActorSystem(store, name=name, cluster=Cluster(listen=network, **settings), **chosen)


@asynccontextmanager
async def nodes_on(
    store: EventStore, network: MemoryNetwork, names: Iterable[str] = "abc", **options: Any
) -> AsyncIterator[list[ActorSystem]]:
    """Systems that have all seen each other."""
    async with AsyncExitStack() as stack:
        systems = [
            await stack.enter_async_context(system_on(store, network, name, **options)) for name in names
        ]
        await all_see(systems)
        yield systems


def id_of(system: ActorSystem) -> str:
    return node(system).announcement.member.id


def ids_owned_by(system: ActorSystem, count: int = 1, start: int = 0) -> list[str]:
    """Aggregate ids whose owner is this node, as it sees the members itself."""
    found: list[str] = []
    number = start
    while len(found) < count:
        name = f"account-{number}"
        owner = system.cluster.owner(Account, name)
        if owner is not None and owner.id == id_of(system):
            found.append(name)
        number += 1
    return found


def an_id_owned_by(system: ActorSystem) -> str:
    return ids_owned_by(system)[0]


async def all_see(systems: Sequence[ActorSystem]) -> None:
    """Wait until all nodes see each other, and no other."""
    ids = sorted(map(id_of, systems))
    await until(
        lambda: all(sorted(each.id for each in system.cluster.members()) == ids for system in systems)
    )
