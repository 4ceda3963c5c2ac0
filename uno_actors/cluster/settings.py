"""How a system joins a cluster: what a user writes as ``cluster=`` or in ``[cluster]``."""

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, TypeAlias

from uno_actors.cluster.addresses import Place, TcpPlace, place_of, tcp_place
from uno_actors.cluster.links.port import Network
from uno_actors.errors import InvalidCluster, shown
from uno_actors.quantities import check_duration, check_number
from uno_actors.store_urls import without_password

Role: TypeAlias = Literal["aggregates", "handlers"]
ROLES: tuple[Role, ...] = ("aggregates", "handlers")
SMALLEST_CAPACITY, LARGEST_CAPACITY = 0.001, 1000
"""What a node may have."""
LONGEST_NAME = 100
NODE_NAME = re.compile(rf"[\w.:/-]{{1,{LONGEST_NAME}}}")
"""Names of nodes are listed with commas between them, and come after an ``@``."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Cluster:
    """One node of a cluster: all systems over one store that have ``cluster=``.

    ``cluster=True`` stands for ``Cluster()``: the processes of one machine.

    Attributes:
        listen: Where this node accepts requests of others: ``HOST:PORT`` for TCP (port 0 for a free one),
            ``unix:DIRECTORY`` or ``nats://HOST:PORT``. Default is a Unix socket on this machine, for its owner only.
            In tests also a `MemoryNetwork`, for nodes of one process.
        advertise: The address that others use, where it differs from ``listen``, as behind NAT: ``HOST:PORT``. Port 0
            stands for the port that the node listens at.
        secret: Known to all nodes; they prove it to each other, and never send it. TCP off the loopback requires it.
        certificate: PEM file with the certificate of this node. TCP off the loopback requires it.
        key: PEM file with its key, not encrypted.
        authority: PEM file with the certificate that signed those of all nodes, and of nothing else.
        ttl: Seconds after which a node that hangs is no longer a member.
        roles: What this node is for: it serves commands of aggregates, runs handlers, or both.
        capacity: Its share of aggregates relative to the other nodes.
        loans: Whether it lends aggregates that one other node alone asks for, and borrows such of others.
        name: Names this node in logs and reports, after the name of its system: ``web-1`` for ``bank@web-1``. Default
            is its host and process, as in ``bank@host:4711``. Several nodes may have one name.

    Raises:
        InvalidCluster: A value is not allowed, or one that it requires is missing.
    """

    listen: str | Network | None = None
    advertise: str | None = None
    secret: str | None = None
    certificate: Path | None = None
    key: Path | None = None
    authority: Path | None = None
    ttl: float = 3.0
    roles: tuple[Role, ...] = ROLES
    capacity: float = 1.0
    loans: bool = True
    name: str | None = None

    def __post_init__(self) -> None:
        check_duration("ttl of a cluster", self.ttl)
        check_number("capacity of a cluster", self.capacity, SMALLEST_CAPACITY, LARGEST_CAPACITY)
        if not isinstance(self.loans, bool):
            raise InvalidCluster("loans", f"must be True or False; found {shown(self.loans, repr)}")
        self._check_roles()
        self._check_name()
        secret: object = self.secret
        if secret is not None and (not isinstance(secret, str) or not secret):
            raise InvalidCluster("secret", "must be a text that is not empty")
        for key in ("certificate", "key", "authority"):
            if isinstance(path := getattr(self, key), str):
                object.__setattr__(self, key, Path(path))
        place = self.place
        if isinstance(place, TcpPlace):
            self._check_tcp(place)
        elif self.advertise is not None:
            raise InvalidCluster("advertise", "is for TCP alone: give `listen` HOST:PORT, or leave it out")
        elif any(self.files.values()):
            names = ", ".join(name for name, path in self.files.items() if path)
            raise InvalidCluster(names, "is for TCP alone: give `listen` HOST:PORT, or leave it out")

    @property
    def place(self) -> Place | Network:
        """What `listen` means."""
        if self.listen is not None and not isinstance(self.listen, str):
            if not callable(getattr(self.listen, "link", None)):
                raise InvalidCluster("listen", f"must be a text; found {shown(self.listen, repr)}")
            return self.listen
        try:
            return place_of(self.listen)
        except ValueError as error:
            raise InvalidCluster("listen", f"{without_password(str(self.listen))!r} {error}") from None

    @property
    def advertised(self) -> TcpPlace | None:
        """What `advertise` means."""
        if self.advertise is None:
            return None
        try:
            return tcp_place(self.advertise)
        except ValueError as error:
            raise InvalidCluster("advertise", f"{self.advertise!r} {error}") from None

    @property
    def files(self) -> dict[str, Path | None]:
        """The files of certificates, by the names of the settings."""
        return {"certificate": self.certificate, "key": self.key, "authority": self.authority}

    def _check_roles(self) -> None:
        object.__setattr__(self, "roles", tuple(self.roles))  # of a file it is a list
        if not self.roles or any(role not in ROLES for role in self.roles):
            raise InvalidCluster(
                "roles", f"must be some of {', '.join(ROLES)}; found {shown(self.roles, repr)}"
            )

    def _check_name(self) -> None:
        name: object = self.name
        if name is None:
            return
        if not isinstance(name, str) or not NODE_NAME.fullmatch(name):
            raise InvalidCluster(
                "name",
                f"must be 1 to {LONGEST_NAME} letters, digits, '.', '_', '-', ':' and '/'; found {shown(name, repr)}",
            )

    def _check_tcp(self, place: TcpPlace) -> None:
        advertised = self.advertised or place
        if advertised.is_any:
            raise InvalidCluster(
                "listen" if self.advertise is None else "advertise",
                f"{str(advertised)!r} stands for every address of this machine: name the one that other nodes use in"
                " `advertise`",
            )
        missing = [name for name, path in self.files.items() if path is None]
        if 0 < len(missing) < 3:
            raise InvalidCluster(
                ", ".join(missing), "is missing: TLS needs `certificate`, `key` and `authority`"
            )
        if not place.is_loopback and (missing or self.secret is None):
            lacks = ", ".join([*(["secret"] if self.secret is None else []), *missing])
            raise InvalidCluster(
                lacks,
                f"is missing: {str(place)!r} can be reached from other machines, so it needs `secret`, `certificate`,"
                " `key` and `authority`. For nodes of one machine listen at 127.0.0.1 or leave `listen` out",
            )

    def __repr__(self) -> str:
        """All but the secrets."""
        listen = without_password(self.listen) if isinstance(self.listen, str) else self.listen
        secret = None if self.secret is None else "***"
        rest = {
            name: getattr(self, name)
            for name in ("certificate", "key", "authority", "ttl", "roles", "capacity")
        }
        rest |= {} if self.loans else {"loans": False}
        rest |= {"name": self.name} if self.name is not None else {}
        values = {"listen": listen, "advertise": self.advertise, "secret": secret} | rest
        return f"Cluster({', '.join(f'{name}={value!r}' for name, value in values.items())})"


def as_cluster(found: object) -> Cluster | None:
    """The options of a node, from what is written as ``cluster=``.

    Raises:
        InvalidCluster: It is neither `Cluster` nor a bool.
    """
    if found is None or found is False:
        return None
    if found is True:
        return Cluster()
    if not isinstance(found, Cluster):
        raise InvalidCluster("cluster", f"must be True or a Cluster(...); found {shown(found, repr)}")
    return found
