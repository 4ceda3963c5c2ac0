"""How many processes run one system, and what each of them is for: pure functions of values.

``uno-actors run --workers`` starts them; see `uno_actors.cli.workers`. A program that makes a system is one process.
"""

import os
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal, Self, cast

from uno_actors.cluster.addresses import TcpPlace, tcp_place
from uno_actors.cluster.settings import ROLES, Cluster, Role
from uno_actors.errors import InvalidCluster

MOST_WORKERS = 256

ALLOWED = (
    f'a whole number from 1 to {MOST_WORKERS}, "cores", or numbers by role, such as aggregates=2,handlers=1'
)
"""What a user may write for the workers of a system."""

CPU_LIMIT = Path("/sys/fs/cgroup/cpu.max")
"""Where Linux says how much processor time a container may have: microseconds in each period, and the period."""


@dataclass(frozen=True, slots=True)
class Workers:
    """The worker processes of a system.

    Attributes:
        count: Those with the roles of ``[cluster]``; ``cores`` for one on each core that this process may use.
        aggregates: Those that serve commands and run no handlers.
        handlers: Those that run handlers and serve no commands.
    """

    count: int | Literal["cores"] = 0
    aggregates: int = 0
    handlers: int = 0

    @classmethod
    def of(cls, found: object) -> Self:
        """What a user has written: in a file, or as text on the command line.

        Raises:
            ValueError: It is something else; the text says what, and may be empty.
        """
        if isinstance(found, str):
            text = found.strip()
            if text == "cores":
                return cls("cores")
            found = _number(text) if "=" not in text else _by_role(text)
        if isinstance(found, Mapping):
            if unknown := found.keys() - {*ROLES}:
                raise ValueError(f"it has an unknown role, {', '.join(map(repr, sorted(unknown)))}")
            workers = cls(**found)
        else:
            workers = cls(cast("int", found))  # checked below
        workers._check()
        return workers

    def _check(self) -> None:
        if self.count == "cores":
            return
        counts = (self.count, self.aggregates, self.handlers)
        if any(type(count) is not int or count < 0 for count in counts):
            raise ValueError
        if not 1 <= sum(counts) <= MOST_WORKERS:
            raise ValueError

    @property
    def written(self) -> int | str | dict[str, int]:
        """As `of` reads it, in a file."""
        if self.count:
            return self.count
        return {role: getattr(self, role) for role in ROLES if getattr(self, role)}

    def roles(self, usual: tuple[Role, ...], cores: int) -> tuple[tuple[Role, ...], ...]:
        """The roles of each worker, in the order of their start.

        Args:
            usual: The roles of ``[cluster]``.
            cores: See `cores`.
        """
        count = max(1, min(cores, MOST_WORKERS)) if self.count == "cores" else self.count
        by_role = [(role,) for role in ROLES for _ in range(getattr(self, role))]
        return (*([usual] * count), *by_role)


def _number(text: str) -> int:
    if not (text.isascii() and text.isdecimal()):
        raise ValueError
    return int(text)


def _by_role(text: str) -> dict[str, int]:
    found: dict[str, int] = {}
    for part in text.split(","):
        role, _, count = part.partition("=")
        if role.strip() in found:
            raise ValueError(f"it has the role {role.strip()!r} twice")
        found[role.strip()] = _number(count.strip())
    return found


def cores(limit: Path = CPU_LIMIT) -> int:
    """How many cores this process may use: those of the machine that it may run on, and no more than its container.

    Args:
        limit: The file with the limit of the container, if there is one.
    """
    usable = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    try:
        quota, period = limit.read_text().split()
        share = int(quota) / int(period)
    except (OSError, ValueError, ZeroDivisionError):  # no container, or "max"
        return usable
    return max(1, min(usable, int(share)))


def of_worker(cluster: Cluster | None, index: int, roles: tuple[Role, ...]) -> Cluster:
    """What one worker is as a node. Each of several that listen at one TCP port takes the next one.

    Args:
        cluster: Of the file; ``None`` if it has no ``[cluster]``.
        index: Of the worker, from 1.
        roles: Of the worker.

    Raises:
        InvalidCluster: There is no such port.
    """
    cluster = Cluster() if cluster is None else cluster
    listen, advertise = cluster.listen, cluster.advertise
    if isinstance(listen, str) and isinstance(cluster.place, TcpPlace):
        listen = _next_port("listen", listen, index)
    if advertise is not None:
        advertise = _next_port("advertise", advertise, index)
    return replace(cluster, listen=listen, advertise=advertise, roles=roles)


def _next_port(key: str, address: str, index: int) -> str:
    """The address of the worker of this index; port 0 is a free one for each."""
    place = tcp_place(address)
    port = place.port + index - 1 if place.port else 0
    if port > 65_535:
        raise InvalidCluster(key, f"has no port for worker {index}: {port} is above 65535")
    return str(TcpPlace(place.host, port))
