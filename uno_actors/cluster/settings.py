"""How a system joins a cluster: what a user writes as ``cluster=`` or in ``[cluster]``."""

from dataclasses import dataclass
from pathlib import Path
from typing import Literal, TypeAlias

from uno_actors.quantities import check_duration

Role: TypeAlias = Literal["aggregates", "handlers"]
ROLES: tuple[Role, ...] = ("aggregates", "handlers")


@dataclass(frozen=True, slots=True, kw_only=True)
class Cluster:
    """One node of a cluster: all systems over one store that have ``cluster=``.

    ``cluster=True`` stands for ``Cluster()``: the processes of one machine.

    Attributes:
        listen: Where this node accepts requests of others: ``HOST:PORT`` for TCP (port 0 for a free one),
            ``unix:DIRECTORY`` or ``nats://HOST:PORT``. Default is a Unix socket on this machine, for its owner only.
        advertise: The address that others use, where it differs from ``listen``, as behind NAT: ``HOST:PORT``.
        secret: Known to all nodes. TCP off the loopback requires it.
        certificate: PEM file with the certificate of this node. TCP off the loopback requires it.
        key: PEM file with its key.
        authority: PEM file with the certificate that signed those of all nodes.
        ttl: Seconds after which a node that hangs is no longer a member.
        roles: What this node is for: it serves commands of aggregates, runs handlers, or both.
        capacity: Its share of aggregates relative to the other nodes.
    """

    listen: str | None = None
    advertise: str | None = None
    secret: str | None = None
    certificate: Path | None = None
    key: Path | None = None
    authority: Path | None = None
    ttl: float = 3.0
    roles: tuple[Role, ...] = ROLES
    capacity: float = 1.0

    def __post_init__(self) -> None:
        check_duration("ttl", self.ttl)
