"""Links over streams of bytes: what Unix sockets and TCP have in common.

Each node has one connection to every node that it sends requests to; the answers come back on it. What is sent in one
turn of the event loop travels in one frame. Both sides write a heartbeat when they have nothing else to write, so
that a connection that was cut off without a word is noticed within ``ttl`` seconds.
"""

import asyncio
import os
import weakref
from abc import abstractmethod
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from pathlib import Path

from uno_actors.backoff import Backoff, chance
from uno_actors.clock import Clock, Timer
from uno_actors.cluster.links.connections import LINGER, CallerConnection, HostConnection
from uno_actors.cluster.links.frames import REQUESTS, batches
from uno_actors.cluster.links.handshake import Identity, own_version
from uno_actors.cluster.links.open_requests import OpenRequests, call_done
from uno_actors.cluster.links.port import Answer, Delivery, Done, Link, LinkFailure, Serve
from uno_actors.forks import on_fork
from uno_actors.tasks import begin

RECONNECTS = Backoff(initial=0.05, max=1.0, factor=2.0, jitter=0.5)
"""How long a node that cannot be connected to is left alone; requests to it fail at once in this time."""


class StreamLink(Link):
    """A link over streams; a subclass says how to listen and to connect.

    Args:
        cluster: Name of the cluster, the same for all nodes of a store.
        secret: Known to all nodes, or ``None``.
        ttl: Seconds after which a node that says nothing is taken for gone.
        clock: Measures all times.
    """

    def __init__(self, cluster: str, secret: str | None, ttl: float, clock: Clock) -> None:
        self.clock = clock
        self.ttl = ttl
        self.identity = Identity("", cluster, (secret or "").encode(), version=own_version())
        self.serve: Serve = _not_started
        self._loop: asyncio.AbstractEventLoop | None = None
        self._server: asyncio.AbstractServer | None = None
        self._peers: dict[str, _Peer] = {}
        self._hosts: set[HostConnection] = set()
        self._is_closed = False

    @abstractmethod
    async def listen(
        self, node: str, connection: Callable[[], asyncio.Protocol]
    ) -> tuple[asyncio.AbstractServer, str]:
        """Listen; returns the place where others connect, without the node's id.

        Raises:
            LinkUnavailable: It cannot.
        """

    @abstractmethod
    async def connect(self, place: str, connection: Callable[[], asyncio.Protocol]) -> None:
        """Connect to a place that another node's `listen` has returned.

        Raises:
            OSError: Nothing listens there.
            ValueError: It is not a place of this kind of link.
        """

    def distrust(self, transport: asyncio.BaseTransport) -> str | None:
        """Why the other end of a new connection must not be talked to, if so."""
        del transport
        return None

    async def start(self, node: str, serve: Serve) -> str:
        """See `Link.start`."""
        self._loop = asyncio.get_running_loop()
        own = self.identity
        self.identity = Identity(node, own.cluster, own.secret, own.protocol, own.version)
        self.serve = serve
        self._server, place = await self.listen(node, partial(HostConnection, self))
        _of_process.add(self)
        return f"{place}#{node}"

    def request(self, address: str, body: bytes, seconds: float, done: Done) -> None:
        """See `Link.request`."""
        if self._loop is None or self._is_closed:
            reason = "the link of this node is not open"
            asyncio.get_running_loop().call_soon(call_done, done, LinkFailure(Delivery.NEVER, reason))
            return
        peer = self._peers.get(address)
        if peer is None:
            peer = self._peers[address] = _Peer(self, self._loop, address)
        peer.request(body, seconds, done)

    def forget(self, address: str) -> None:
        """See `Link.forget`."""
        peer = self._peers.pop(address, None)
        if peer is not None and self._loop is not None:
            self._loop.call_soon(peer.close, f"{address} has left")

    async def close(self) -> None:
        """See `Link.close`."""
        if self._is_closed:
            return
        self._is_closed = True
        _of_process.discard(self)
        reason = "the link of this node was closed"
        callers = [peer.close(reason) for peer in self._peers.values()]
        self._peers.clear()
        if self._server is not None:
            await _stop_accepting(self._server)
            self._server.close()
        self.stopped_listening()
        hosts = list(self._hosts)
        for host in hosts:
            host.finish(reason)
        ends = [*hosts, *(caller for caller in callers if caller is not None)]
        with suppress(TimeoutError):
            async with asyncio.timeout(LINGER):
                for end in ends:
                    await end.ended.wait()
        for end in ends:
            end.abort()

    def stopped_listening(self) -> None:
        """Called once when the link is closed."""

    def connected(self, host: HostConnection) -> None:
        """Note a connection that another node has opened."""
        if self._is_closed:  # it was accepted before, and made just now
            host.lose("the link of this node was closed")
        else:
            self._hosts.add(host)

    def disconnected(self, host: HostConnection) -> None:
        """Note its end."""
        self._hosts.discard(host)

    def _let_go(self) -> None:
        """In a forked child: give up the parent's sockets.

        Otherwise they stay open when the parent dies, and the other nodes do not notice it at once.
        """
        transports = [host.transport for host in self._hosts]
        transports += [
            peer.connection.transport for peer in self._peers.values() if peer.connection is not None
        ]
        sockets = list(getattr(self._server, "sockets", ()))
        sockets += [each.get_extra_info("socket") for each in transports if each is not None]
        with Path(os.devnull).open("rb") as nothing:
            for each in sockets:
                # The number stays taken, because the parent's objects close it once more in the child.
                with suppress(OSError, AttributeError):
                    os.dup2(nothing.fileno(), each.fileno())


_of_process: "weakref.WeakSet[StreamLink]" = weakref.WeakSet()


def _let_go_of_all() -> None:
    for link in list(_of_process):
        link._let_go()
    _of_process.clear()


on_fork(after_in_child=_let_go_of_all)


async def _stop_accepting(server: asyncio.AbstractServer) -> None:
    """Accept no more, and let the connections that were accepted be made.

    Until Python 3.12 asyncio loses a socket that was accepted just before its server is closed (CPython's issue
    109564).
    """
    for each in getattr(server, "sockets", ()):
        with suppress(NotImplementedError, RuntimeError, ValueError):
            asyncio.get_running_loop().remove_reader(each.fileno())
    for _ in range(3):  # the accepting task begins, makes the connection, and tells it so
        await asyncio.sleep(0)


def _not_started(body: bytes, answer: Answer) -> None:
    del body, answer


class _Peer:
    """Another node, as this one sends requests to it: connects on demand, and again after a back-off.

    Attributes:
        node: Its id.
        open: The requests to it that are under way.
        connection: The connection to it, if there is one, or the one that is being made.
    """

    def __init__(self, link: StreamLink, loop: asyncio.AbstractEventLoop, address: str) -> None:
        self._link = link
        self._loop = loop
        self._place, _, self.node = address.rpartition("#")
        self._waiting: deque[tuple[int, bytes]] = deque()
        self._is_flushing = False
        self._failures = 0
        self._retry_at = 0.0
        self._ready_at = 0.0
        self._reason = ""
        self._connecting: asyncio.Task[None] | None = None
        self._limit: Timer | None = None
        self.open = OpenRequests(link.clock, f"node {self.node or address}")
        self.connection: CallerConnection | None = None

    def request(self, body: bytes, seconds: float, done: Done) -> None:
        """See `Link.request`."""
        failure = self.open.refusal(len(body)) or self._connected()
        if failure is not None:
            self._loop.call_soon(call_done, done, failure)
            return
        self._waiting.append((self.open.add(len(body), seconds, done), body))
        if not self._is_flushing and self.connection is not None and self.connection.is_ready:
            self._is_flushing = True
            self._loop.call_soon(self.flush)

    def _connected(self) -> LinkFailure | None:
        """Begin to connect, if there is no connection; returns why this must wait."""
        if self.connection is not None:
            return None
        wait = self._retry_at - self._link.clock.monotonic()
        if wait > 0:
            return LinkFailure(Delivery.NEVER, f"{self._reason}; the next attempt is due in {wait:.2g} s")
        self.connection = connection = CallerConnection(self._link, self)
        self._limit = self._link.clock.call_later(self._link.ttl, partial(self._too_late, connection))
        self._connecting = begin(self._loop, self._connect(connection), name=f"connect to {self.node}")
        return None

    async def _connect(self, connection: CallerConnection) -> None:
        try:
            await self._link.connect(self._place, lambda: connection)
        except (OSError, ValueError) as error:
            connection.lose(f"cannot connect to {self._place}: {error}")
        except asyncio.CancelledError:
            connection.lose("connecting was given up")
            raise

    def _too_late(self, connection: CallerConnection) -> None:
        if not connection.is_ready:
            self._give_up(connection, f"{self._place} has not answered within {self._link.ttl:g} s")

    def _give_up(self, connection: CallerConnection, reason: str) -> None:
        connection.lose(reason)
        if self._connecting is not None:
            self._connecting.cancel()

    def ready(self) -> None:
        """The connection can take requests."""
        self._ready_at = self._link.clock.monotonic()
        if self._limit is not None:
            self._limit.cancel()
        self.flush()

    def flush(self) -> None:
        """Write the requests that wait, as long as the other node reads fast enough."""
        self._is_flushing = False
        connection = self.connection
        if connection is None or not connection.is_ready or connection.is_paused:
            return
        sent = self.open.sent
        for numbers, bodies in batches(self._waiting):
            here = [at for at, number in enumerate(numbers) if sent(number)]
            if len(here) == len(numbers):
                may_write = connection.write([REQUESTS, numbers, bodies])
            else:  # some have ended already: they must not be served
                some = [numbers[at] for at in here], [bodies[at] for at in here]
                may_write = connection.write([REQUESTS, *some])
            if not may_write:
                return

    def lost(self, connection: CallerConnection, reason: str) -> None:
        """A connection has ended, or none could be made."""
        if connection is not self.connection:
            return
        self.connection = None
        if self._limit is not None:
            self._limit.cancel()
        now = self._link.clock.monotonic()
        if self._ready_at and now - self._ready_at > self._link.ttl:
            self._failures = 0  # it has worked for a while
        self._retry_at = now + RECONNECTS.delay(self._failures, chance())
        self._failures += 1
        self._ready_at = 0.0
        self._reason = reason
        self._waiting.clear()
        self.open.fail_all(reason)

    def close(self, reason: str) -> CallerConnection | None:
        """End the connection, which is returned, and all requests."""
        connection, self.connection = self.connection, None
        if self._limit is not None:
            self._limit.cancel()
        if connection is not None:
            self._give_up(connection, reason)
        self._waiting.clear()
        self.open.close(reason)
        return connection
