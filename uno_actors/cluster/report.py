"""What an observer finds out about a cluster: its members, who owns how many shards, and how far away each node is.

An observer is announced for a moment as a node that leaves, serves nothing and runs nothing, so no work comes to it.
"""

import asyncio
import os
import socket
import time
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace

from uno_actors.causality import new_id
from uno_actors.clock import Clock
from uno_actors.cluster.addresses import TcpPlace
from uno_actors.cluster.links.handshake import own_version
from uno_actors.cluster.links.opening import open_link
from uno_actors.cluster.links.port import Answer, Link, LinkFailure
from uno_actors.cluster.placement import Placement
from uno_actors.cluster.settings import Cluster
from uno_actors.cluster.statistics import ClusterStatistics
from uno_actors.cluster.wire import STATE_REQUEST, not_served_answer, unpack_state
from uno_actors.errors import InvalidCluster, UnoError, describe, shown
from uno_actors.shards import SHARDS
from uno_actors.store.membership import Member
from uno_actors.store.port import EventStore
from uno_actors.tasks import begin, settle

PATIENCE = 2.0
"""Maximum seconds for the answer of a node."""


@dataclass(frozen=True, slots=True)
class NodeReport:
    """One node.

    Attributes:
        member: As it announces itself.
        hop: Seconds until its answer came over the link; ``None`` if there is none.
        statistics: What it has routed; ``None`` if it does not say.
        unreachable: Why there is no answer; ``None`` if there is one, or if it accepts no requests.
    """

    member: Member
    hop: float | None = None
    statistics: ClusterStatistics | None = None
    unreachable: str | None = None


def shards_by_node(members: Iterable[Member]) -> dict[str, dict[str, int]]:
    """How many shards of each aggregate type each node owns, by the type and the id of the node.

    For a type whose commands are not all served by the same nodes, it is the command that the fewest serve.
    """
    placement = Placement(members)
    tables = {
        (aggregate_type, command): placement.table(aggregate_type, command)
        for member in placement.members.values()
        for aggregate_type, commands in member.commands
        for command in commands
    }
    found: dict[str, dict[str, int]] = {}
    for (aggregate_type, _), table in sorted(tables.items()):
        owners = Counter(owner.id for shard in range(SHARDS) if (owner := table.owner(shard)) is not None)
        if aggregate_type not in found or len(owners) < len(found[aggregate_type]):
            found[aggregate_type] = dict(owners)
    return found


def skew(shards: Mapping[str, int], members: Iterable[Member]) -> float:
    """How much more than its share the fullest node owns: 0.1 for 10 %. Shares are by capacity.

    Args:
        shards: Number of shards by the id of the node.
        members: The members; those without shards do not count.
    """
    capacities = {member.id: member.capacity for member in members if member.id in shards}
    whole, count = sum(capacities.values()), sum(shards.values())
    if not whole or not count:
        return 0.0
    return max(shards[name] / (count * capacity / whole) for name, capacity in capacities.items()) - 1


async def observe(store: EventStore, cluster: Cluster, clock: Clock, name: str) -> list[NodeReport]:
    """The nodes that work on a store, sorted by name, each with its answer.

    Args:
        store: The store, open.
        cluster: What a node of this cluster is, for its secret and certificates.
        clock: Times the answers.
        name: Names the cluster to the links.

    Raises:
        InvalidCluster: The store keeps no members.
        StoreUnavailable: It cannot be reached.
    """
    membership = store.membership(cluster.ttl, clock)
    if membership is None:
        raise InvalidCluster("store", f"has no nodes: {shown(store, repr)} keeps no members")
    host = socket.gethostname()
    observer = Member(
        id=new_id(), name=f"observer@{host}:{os.getpid()}", version=own_version(), started=time.time(), leaving=True
    )  # fmt: skip
    try:
        members = [member for member in await membership.announce(observer) if member.id != observer.id]
    finally:
        await membership.withdraw()
    members = [member for member in members if not member.name.startswith("observer@")]
    link = open_link(_calling(cluster), cluster=name, directory=store.directory, clock=clock)
    try:
        await link.start(observer.id, _refuse)
        loop = asyncio.get_running_loop()
        reports = await asyncio.gather(*[begin(loop, _asked(link, member, clock)) for member in members])
    except UnoError as error:  # such as no certificate for this machine
        reports = [NodeReport(member, unreachable=describe(error)) for member in members]
    finally:
        await link.close()
    return sorted(reports, key=lambda report: (report.member.name, report.member.id))


def _calling(cluster: Cluster) -> Cluster:
    """The settings of an observer, which listens at a free port."""
    place = cluster.place
    if not isinstance(place, TcpPlace):
        return cluster
    advertised = cluster.advertised
    return replace(
        cluster,
        listen=str(TcpPlace(place.host, 0)),
        advertise=None if advertised is None else str(TcpPlace(advertised.host, 0)),
    )


def _refuse(_: bytes, answer: Answer) -> None:
    answer(not_served_answer("it only observes"))


async def _asked(link: Link, member: Member, clock: Clock) -> NodeReport:
    if member.address is None:
        return NodeReport(member)
    first = await _ask(link, member.address)  # it connects
    if isinstance(first, LinkFailure):
        return NodeReport(member, unreachable=first.reason)
    begun = clock.monotonic()
    found = await _ask(link, member.address)
    if isinstance(found, LinkFailure):
        return NodeReport(member, unreachable=found.reason)
    hop = clock.monotonic() - begun
    try:
        return NodeReport(member, hop, unpack_state(found))
    except Exception as error:  # noqa: BLE001 - a node of another version may answer anything
        return NodeReport(member, hop, unreachable=describe(error))


async def _ask(link: Link, address: str) -> bytes | LinkFailure:
    answered: asyncio.Future[bytes | LinkFailure] = asyncio.get_running_loop().create_future()
    link.request(address, STATE_REQUEST, PATIENCE, lambda found: settle(answered, found))
    return await answered
