"""The page Cluster: nodes, shards and hops; ``uno-actors cluster`` uses the same functions."""

import time
from collections.abc import Collection, Sequence

from uno_actors.clock import SystemClock
from uno_actors.cluster.report import NodeReport, observe, shards_by_node, skew
from uno_actors.errors import InvalidCluster
from uno_actors.handlers.control import HandlerInfo
from uno_actors.ops.api.endpoint import Answered, Nothing, Observed
from uno_actors.system.announcement import CLUSTER


def held(name: str, handlers: Sequence[HandlerInfo]) -> list[str]:
    """The handlers that a node runs. A node that is alone does not name itself."""
    return [info.name for info in handlers if name in (info.node or "").split(", ")]


class PeerShown(Answered):
    """What a node has to do with another one; see `uno_actors.cluster.statistics.PeerStatistics`."""

    sent: int
    sent_again: int
    served: int
    seconds: float | None


class NodeShown(Answered):
    """A node.

    Attributes:
        name: Its name.
        address: Where its link accepts requests; ``None`` if it accepts none.
        state: ``up``, ``leaving`` or ``no answer``.
        unreachable: Why it does not answer.
        hop: Seconds until its answer came over the link.
        uptime: Seconds since it started.
        counters: ``local``, ``sent``, ``sent_again``, ``served``, ``waiting``, ``lent`` and ``borrowed``; ``None`` if
            it does not say.
        peers: What it has to do with each other node, by its name.
        shards: Number of shards that it owns, by the type of aggregates.
        handlers: Names of the handlers that it runs.
    """

    name: str
    address: str | None
    roles: list[str]
    state: str
    unreachable: str | None
    hop: float | None
    version: str
    uptime: float
    capacity: float
    counters: dict[str, int] | None
    peers: dict[str, PeerShown]
    shards: dict[str, int]
    handlers: list[str]


class ClusterShown(Answered):
    """The nodes that work on the store.

    Attributes:
        nodes: Sorted by name.
        skew: How much more than its share the fullest node owns, by the type of aggregates: 0.1 for 10 %.
        why_none: Why there are no nodes, if the store keeps no members.
    """

    nodes: list[NodeShown]
    skew: dict[str, float]
    why_none: str | None = None


async def cluster(observed: Observed, _: Nothing) -> ClusterShown:
    """The nodes that work on the store, and how the work is divided among them."""
    source = observed.source
    try:
        reports = await observe(source.store, source.cluster, SystemClock(), CLUSTER)
    except InvalidCluster as error:
        return ClusterShown(nodes=[], skew={}, why_none=str(error))
    handlers = await source.handlers()
    members = [report.member for report in reports]
    shards = shards_by_node(members)
    return ClusterShown(
        nodes=[
            _node(report, {kind: owned.get(report.member.id, 0) for kind, owned in shards.items()}, handlers)
            for report in reports
        ],
        skew={kind: skew(owned, members) for kind, owned in shards.items()},
    )


COUNTERS: Collection[str] = ("local", "sent", "sent_again", "served", "waiting", "lent", "borrowed")


def _node(report: NodeReport, shards: dict[str, int], handlers: Sequence[HandlerInfo]) -> NodeShown:
    member, found = report.member, report.statistics
    state = "no answer" if report.unreachable is not None else "leaving" if member.leaving else "up"
    peers = {} if found is None else found.peers
    return NodeShown(
        name=member.name,
        address=(member.address or "").partition("#")[0] or None,
        roles=list(member.roles),
        state=state,
        unreachable=report.unreachable,
        hop=report.hop,
        version=member.version,
        uptime=max(0.0, time.time() - member.started),
        capacity=member.capacity,
        counters=None if found is None else {name: getattr(found, name) for name in COUNTERS},
        peers={
            name: PeerShown(
                sent=each.sent, sent_again=each.sent_again, served=each.served, seconds=each.seconds
            )
            for name, each in peers.items()
        },
        shards=shards,
        handlers=held(member.name, handlers),
    )
