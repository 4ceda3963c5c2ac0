"""Faults of nodes and of their links, by name. Like `tests.faults`, it may touch what is private to our classes."""

import random
from collections.abc import Awaitable, Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

from uno_actors import ActorSystem, AggregateRoot, Command
from uno_actors.cluster.announcement import Announcement
from uno_actors.cluster.links.connections import CallerConnection, HostConnection
from uno_actors.cluster.links.nats import NatsLink
from uno_actors.cluster.links.open_requests import OpenRequests
from uno_actors.cluster.links.port import Link
from uno_actors.cluster.links.streams import StreamLink
from uno_actors.cluster.node import Node
from uno_actors.cluster.placement import Placement
from uno_actors.cluster.wire import Request
from uno_actors.store.membership import Member

# --- nodes -------------------------------------------------------------------------------------------------


def node(system: ActorSystem) -> Node:
    """The node of a system that has started in a cluster."""
    found = system._running().node
    assert found is not None
    return found


def placement(system: ActorSystem) -> Placement:
    """Where a node sends commands, as it sees the members now."""
    return node(system)._outgoing.placement


def members_seem(system: ActorSystem, seen: Placement) -> None:
    """A node has not heard of the last changes of the members, or of some members."""
    its = node(system)
    its._outgoing.placement = seen
    its._owners.clear()


def see_only_some(systems: Sequence[ActorSystem], chance: random.Random) -> None:
    """Give each node another view of the members: any of them, but at least one."""
    for system in systems:
        members = node(system).announcement.members
        members_seem(system, Placement(chance.sample(members, chance.randint(1, len(members)))))


def lends(systems: Iterable[ActorSystem], **terms: Any) -> None:
    """The nodes lend aggregates on other terms, by default after the second command of one node in a row."""
    for system in systems:
        ledger = node(system).lending.ledger
        ledger.terms = replace(ledger.terms, **({"commands": 1, "span": 0.0} | terms))


def is_of_a_version_without_loans(system: ActorSystem) -> None:
    """What a node sends says nothing of loans, as that of versions which do not know them."""
    node(system).lending.borrower = lambda *_: None  # type: ignore[method-assign]


async def leave(system: ActorSystem) -> None:
    """The system begins to stop, and goes no further than the others hearing of it."""
    await system._running()._leave()


def requests_served(system: ActorSystem) -> list[Request]:
    """The requests for commands that reach a node from now on."""
    requests: list[Request] = []
    names = node(system)._names
    serve = names.command

    def noting(request: Request) -> Command[Any]:
        requests.append(request)
        return serve(request)

    names.command = noting  # type: ignore[method-assign]
    return requests


@contextmanager
def store_lags(announcement: Announcement) -> Iterator[None]:
    """Inside the block the store gives other nodes the announcement as it is now, whatever becomes of it."""
    membership, before = announcement._membership, announcement.member
    announce: Callable[[Member], Awaitable[tuple[Member, ...]]] = membership.announce
    membership.announce = lambda member: announce(before)  # type: ignore[method-assign, assignment, return-value]
    yield
    del membership.announce  # type: ignore[method-assign]


def aggregates_are_now(system: ActorSystem, name: str, kind: type[AggregateRoot]) -> None:
    """A program of another version, with another class for an aggregate type, runs in the place of the old one."""
    system._types[name] = kind


def runtime_ends(system: ActorSystem) -> None:
    """What the system has not recorded yet ends with its process."""
    system._running().close()


# --- links -------------------------------------------------------------------------------------------------


def deadlines_kept(requests: OpenRequests) -> int:
    """How many deadlines are in memory, those of requests that have ended included."""
    return len(requests._deadlines)


def hosts_of(link: Link) -> set[HostConnection]:
    """The connections that others have opened to the node of ``link``."""
    assert isinstance(link, StreamLink)
    return link._hosts


def caller_of(link: Link, address: str) -> CallerConnection:
    """The connection of ``link`` to the node at ``address``."""
    assert isinstance(link, StreamLink)
    connection = link._peers[address].connection
    assert connection is not None
    return connection


def has_published_all(link: Link, address: str) -> bool:
    """Whether no request of ``link`` to the node at ``address`` waits to be given to NATS."""
    assert isinstance(link, NatsLink)
    return not link._peers[address].waiting


def is_connected(link: Link) -> bool:
    """Whether ``link`` has its connection to NATS."""
    assert isinstance(link, NatsLink)
    return bool(link._client.is_connected)


def node_is_deaf(link: Link) -> None:
    """The node of ``link`` hangs: NATS delivers what it is sent, and it handles nothing."""
    assert isinstance(link, NatsLink)

    async def deaf(message: Any) -> None:
        pass

    for subscription in link._client._subs.values():
        subscription._cb = deaf
