"""Connections to public addresses alone, so that the URL of a webhook cannot reach into one's own network.

The rule: the name of the host is resolved once for each connection, every address that is not public is left out, and
the connection goes to an address that was checked. So neither a name that stands for a private address nor one whose
answer changes in between (DNS rebinding) leads inside.
"""

import asyncio
import socket
from collections.abc import Iterable
from ipaddress import IPv4Address, IPv6Address, IPv6Network, ip_address
from typing import Any

import httpcore
from typing_extensions import override

from uno_actors.errors import RetryLater

_NAT64 = IPv6Network("64:ff9b::/96")


def is_public(address: str) -> bool:
    """Whether ``address`` is one of the internet, also where an IPv6 address stands for an IPv4 one."""
    found: IPv4Address | IPv6Address = ip_address(address.partition("%")[0])
    if isinstance(found, IPv6Address):
        inner = found.ipv4_mapped or found.sixtofour
        if found in _NAT64:
            inner = IPv4Address(int(found) & 0xFFFFFFFF)
        if inner is not None:
            found = inner
    return found.is_global and not found.is_multicast


class PublicAddresses(httpcore.AsyncNetworkBackend):
    """Connects to public addresses alone."""

    def __init__(self) -> None:
        self._inner = httpcore.AnyIOBackend()

    @override
    async def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,
        local_address: str | None = None,
        socket_options: Iterable[Any] | None = None,
    ) -> httpcore.AsyncNetworkStream:
        loop = asyncio.get_running_loop()
        try:
            found = await loop.getaddrinfo(host, port, type=socket.SOCK_STREAM)
        except OSError as error:
            raise httpcore.ConnectError(f"the name of the host cannot be resolved: {error}") from error
        addresses = [str(address[4][0]) for address in found]
        public = [address for address in addresses if is_public(address)]
        if not public:
            raise RetryLater(
                f"{host} stands for {', '.join(sorted(set(addresses)))}, which is not a public address: give"
                " Webhook(..., internal=True) if it is an endpoint of your own"
            )
        return await self._inner.connect_tcp(
            public[0], port, timeout=timeout, local_address=local_address, socket_options=socket_options
        )

    @override
    async def sleep(self, seconds: float) -> None:
        await asyncio.sleep(seconds)
