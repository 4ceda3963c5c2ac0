"""Addresses that users write for a node: `Cluster.listen` and `Cluster.advertise`; pure functions."""

import ipaddress
import re
from dataclasses import dataclass
from pathlib import Path
from typing import TypeAlias
from urllib.parse import urlsplit

ALLOWED = (
    "HOST:PORT such as '10.0.0.5:7411' (port 0 for a free one; IPv6 in brackets, '[::1]:7411'), 'unix:DIRECTORY' or"
    " 'nats://HOST:PORT'"
)


@dataclass(frozen=True, slots=True)
class UnixPlace:
    """A directory for Unix sockets; ``None`` for that of the store."""

    directory: Path | None = None


@dataclass(frozen=True, slots=True)
class TcpPlace:
    """Host and port; port 0 is a free one."""

    host: str
    port: int

    def __str__(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"

    @property
    def is_loopback(self) -> bool:
        """Whether only processes of this machine reach it; a name other than ``localhost`` may mean any address."""
        try:
            return ipaddress.ip_address(self.host).is_loopback
        except ValueError:
            return self.host.lower() == "localhost"

    @property
    def is_any(self) -> bool:
        """Whether it stands for all addresses of this machine, so that it names none to others."""
        try:
            return ipaddress.ip_address(self.host).is_unspecified
        except ValueError:
            return False


@dataclass(frozen=True, slots=True)
class NatsPlace:
    """URLs of NATS servers, separated by commas; they may have a user and a password."""

    url: str


Place: TypeAlias = UnixPlace | TcpPlace | NatsPlace


def place_of(listen: str | None) -> Place:
    """What ``listen`` means.

    Raises:
        ValueError: Nothing; the text says what is allowed.
    """
    if listen is None:
        return UnixPlace()
    if listen.startswith("unix:"):
        directory = listen.removeprefix("unix:")
        if not directory:
            raise ValueError("names no directory behind 'unix:'; leave `listen` out for that of the store")
        if directory.startswith("~"):
            raise ValueError("'~' stands for no directory here: write the whole path")
        if "\0" in directory:
            raise ValueError("a path has no zero bytes")
        return UnixPlace(Path(directory))
    if listen.startswith(("nats://", "tls://")):
        for url in listen.split(","):
            _check_nats(url)
        return NatsPlace(listen)
    return tcp_place(listen)


def tcp_place(text: str) -> TcpPlace:
    """Host and port.

    Raises:
        ValueError: It is something else; the text says what is allowed.
    """
    match = _HOST_AND_PORT.fullmatch(text)
    if match is None:
        raise ValueError(f"is not an address: write {ALLOWED}")
    inside, outside, port = match.groups()
    if inside is not None:
        try:
            ipaddress.IPv6Address(inside)
        except ValueError:
            raise ValueError(f"has no IPv6 address in its brackets: write {ALLOWED}") from None
    elif re.fullmatch(r"[\d.]+", outside):
        try:
            ipaddress.IPv4Address(outside)
        except ValueError:
            raise ValueError(f"has no IPv4 address before its port: write {ALLOWED}") from None
    if int(port) > 65_535:
        raise ValueError("has a port above 65535")
    return TcpPlace(inside or outside, int(port))


_HOST_AND_PORT = re.compile(
    r"(?:\[([0-9A-Fa-f:.]+(?:%[\w.-]+)?)\]|([A-Za-z0-9_][A-Za-z0-9_.-]*)):([0-9]{1,5})", re.ASCII
)


def _check_nats(url: str) -> None:
    try:
        parts = urlsplit(url)
        found = parts.scheme in ("nats", "tls") and parts.hostname and (parts.port is None or parts.port > 0)
    except ValueError:
        found = False
    if not found or parts.path not in ("", "/") or parts.query or parts.fragment:
        raise ValueError(
            "is not the URL of a NATS server: write 'nats://HOST:PORT', several separated by commas"
        )
