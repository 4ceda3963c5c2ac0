"""The link over TCP, for nodes on several machines."""

import asyncio
import errno
import ssl
from collections.abc import Callable

from uno_actors.clock import Clock
from uno_actors.cluster.addresses import TcpPlace, tcp_place
from uno_actors.cluster.links.certificates import Certificates
from uno_actors.cluster.links.connections import LINGER
from uno_actors.cluster.links.streams import StreamLink
from uno_actors.errors import LinkUnavailable


class TcpLink(StreamLink):
    """A link over TCP.

    Args:
        place: Where to listen.
        advertise: The place that the other nodes use instead, or ``None``; port 0 stands for the one listened at.
        cluster: Name of the cluster, the same for all nodes of a store.
        secret: Known to all nodes, or ``None``.
        ttl: Seconds after which a node that says nothing is taken for gone.
        clock: Measures all times.
        certificates: For TLS; ``None`` without it, which only nodes on the loopback may do.
    """

    def __init__(
        self,
        place: TcpPlace,
        advertise: TcpPlace | None = None,
        *,
        cluster: str,
        secret: str | None,
        ttl: float,
        clock: Clock,
        certificates: Certificates | None = None,
    ) -> None:
        super().__init__(cluster, secret, ttl, clock)
        self._place = place
        self._advertise = advertise
        self._certificates = certificates
        self._tls: ssl.SSLContext | None = None

    async def listen(
        self, node: str, connection: Callable[[], asyncio.Protocol]
    ) -> tuple[asyncio.AbstractServer, str]:
        """See `StreamLink.listen`."""
        del node
        loop = asyncio.get_running_loop()
        accepting = None
        if self._certificates is not None:
            accepting, self._tls = self._certificates.contexts(str(self._place))
        elif not self._place.is_loopback:
            raise LinkUnavailable(str(self._place), "other machines can reach it, so it needs certificates")
        try:
            server = await loop.create_server(
                connection,
                self._place.host,
                self._place.port,
                ssl=accepting,
                ssl_handshake_timeout=None if accepting is None else self.ttl,
                ssl_shutdown_timeout=None if accepting is None else LINGER,
            )
        except OSError as error:
            raise LinkUnavailable(str(self._place), _remedy(error)) from error
        port = server.sockets[0].getsockname()[1]
        others = self._advertise or self._place
        return server, f"tcp://{TcpPlace(others.host, others.port or port)}"

    async def connect(self, place: str, connection: Callable[[], asyncio.Protocol]) -> None:
        """See `StreamLink.connect`."""
        if not place.startswith("tcp://"):
            raise ValueError(
                "this node has a link over TCP: give all nodes of a cluster the same kind of `listen`"
            )
        at = tcp_place(place.removeprefix("tcp://"))
        await asyncio.get_running_loop().create_connection(
            connection,
            at.host,
            at.port,
            ssl=self._tls,
            server_hostname=None if self._tls is None else "",
            ssl_handshake_timeout=None if self._tls is None else self.ttl,
            ssl_shutdown_timeout=None if self._tls is None else LINGER,
        )


def _remedy(error: OSError) -> str:
    if error.errno == errno.EADDRINUSE:
        return "the port is taken: choose another one, or 0 for a free one"
    if error.errno == errno.EADDRNOTAVAIL:
        return (
            "this machine has no such address: listen at one of its own, and name another one in `advertise`"
        )
    if error.errno in (errno.EACCES, errno.EPERM):
        return "this user may not listen there: choose a port from 1024 on"
    return str(error)
