"""From the settings of a node to its link."""

from pathlib import Path

from uno_actors.clock import Clock
from uno_actors.cluster.addresses import NatsPlace, TcpPlace, UnixPlace
from uno_actors.cluster.links.certificates import Certificates
from uno_actors.cluster.links.nats import NatsLink
from uno_actors.cluster.links.port import Link
from uno_actors.cluster.links.tcp import TcpLink
from uno_actors.cluster.links.unix import UnixLink
from uno_actors.cluster.settings import Cluster


def open_link(settings: Cluster, *, cluster: str, directory: Path | None, clock: Clock) -> Link:
    """The link of a node; `Link.start` opens it.

    Args:
        settings: Of the node.
        cluster: The same for all nodes of a store and different for other stores: letters, digits, ``-`` and ``_``,
            at most 32.
        directory: That of the store, for its Unix sockets; ``None`` if it has none.
        clock: Measures all times.
    """
    place = settings.place
    match place:
        case UnixPlace(own):
            return UnixLink(
                own or directory, cluster=cluster, secret=settings.secret, ttl=settings.ttl, clock=clock
            )
        case TcpPlace():
            return TcpLink(
                place,
                settings.advertised,
                cluster=cluster,
                secret=settings.secret,
                ttl=settings.ttl,
                clock=clock,
                certificates=_certificates(settings),
            )
        case NatsPlace(url):
            return NatsLink(url, cluster=cluster, secret=settings.secret, ttl=settings.ttl, clock=clock)
        case network:
            return network.link(clock)


def _certificates(settings: Cluster) -> Certificates | None:
    if settings.certificate is None or settings.key is None or settings.authority is None:
        return None
    return Certificates(settings.certificate, settings.key, settings.authority)
