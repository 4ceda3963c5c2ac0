"""How a system announces itself among the nodes that work on its store, and joins them as a node of a cluster."""

import os
import socket
import time
from collections.abc import Callable, Coroutine
from typing import Any

from uno_actors.actors.dead_messages import DeadMessages
from uno_actors.aggregates.directory import Aggregates
from uno_actors.causality import new_id
from uno_actors.cluster.announcement import Announcement
from uno_actors.cluster.links.handshake import own_version
from uno_actors.cluster.links.opening import open_link
from uno_actors.cluster.loans import NO_LOANS, TERMS
from uno_actors.cluster.node import Node
from uno_actors.cluster.served import CommandNames
from uno_actors.cluster.settings import Cluster
from uno_actors.errors import InvalidCluster, shown
from uno_actors.logs import Logger
from uno_actors.settings import Settings
from uno_actors.store.codec import StreamId
from uno_actors.store.membership import Member
from uno_actors.store.port import EventStore

CLUSTER = "uno"
"""Names the cluster to the links. It need not tell stores apart: addresses come from the store and name the node."""


def announcement_of(
    settings: Settings,
    cluster: Cluster,
    store: EventStore,
    start_task: Callable[[Coroutine[Any, Any, None]], object],
    log: Logger,
) -> Announcement | None:
    """The one announcement of a running system; ``None`` if the store keeps no members.

    Args:
        settings: The options of the system.
        cluster: Its options as a node; a system that is not a node of a cluster has no address and serves no commands.
        store: Keeps the members.
        start_task: Starts a coroutine as a task of the system.
        log: Has the names of the system bound.
    """
    membership = store.membership(cluster.ttl, settings.clock)
    if membership is None:
        return None
    member = Member(
        id=new_id(),
        name=node_name(settings.name, cluster),
        roles=tuple(sorted(cluster.roles)),
        version=own_version(),
        started=time.time(),
        capacity=cluster.capacity,
        host=socket.gethostname(),
        process=os.getpid(),
    )
    return Announcement(membership, member, cluster.ttl, settings.clock, start_task, log=log)


def node_name(system: str, cluster: Cluster | None) -> str:
    """The name of this process among those that work on the store, in logs and reports: ``bank@host:4711``.

    Args:
        system: Name of the system.
        cluster: Its options as a node, which may name it; ``None`` if it is none.
    """
    own = None if cluster is None else cluster.name
    return f"{system}@{own or f'{socket.gethostname()}:{os.getpid()}'}"


def node_of(
    settings: Settings,
    cluster: Cluster,
    announcement: Announcement | None,
    names: CommandNames,
    aggregates: Aggregates,
    *,
    known_position: Callable[[StreamId], int],
    dead: DeadMessages,
) -> Node:
    """The node that a running system is; for the arguments see `announcement_of` and `Node`.

    Raises:
        InvalidCluster: The store keeps no members, or one of the options is not valid.
    """
    if announcement is None:
        reason = f"cannot be of several nodes: {shown(aggregates.store, repr)} keeps no members"
        raise InvalidCluster("store", reason)
    link = open_link(cluster, cluster=CLUSTER, directory=aggregates.store.directory, clock=settings.clock)
    link.log = aggregates.dispatcher.log.bind(actor="link")
    return Node(
        link,
        announcement,
        names,
        aggregates,
        known_position=known_position,
        dead=dead,
        clock=settings.clock,
        ttl=cluster.ttl,
        system=settings.name,
        terms=TERMS if cluster.loans else NO_LOANS,
        log=aggregates.dispatcher.log,
    )
