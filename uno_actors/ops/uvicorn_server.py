"""uvicorn, as the live page uses it: in the loop of a running system, and without logs of requests."""

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import uvicorn
from typing_extensions import override
from uvicorn.protocols.http.h11_impl import H11Protocol

from uno_actors.ops.serving import is_own


class OwnerOnly(H11Protocol):
    """Hangs up on other users, even if the mode of the socket was changed."""

    @override
    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        if is_own(transport.get_extra_info("socket")):
            super().connection_made(transport)
        else:
            transport.abort()

    @override
    def connection_lost(self, exc: Exception | None) -> None:
        if self in self.connections:
            super().connection_lost(exc)

    @override
    def data_received(self, data: bytes) -> None:
        if self in self.connections:
            super().data_received(data)


class Server(uvicorn.Server):
    """Leaves the signals of the process alone: they are the service's."""

    @contextmanager
    @override
    def capture_signals(self) -> Iterator[None]:
        yield


def server_of(application: Any, stop_seconds: float, *, owner_only: bool) -> Server:
    """A server of an ASGI application.

    Args:
        application: The application.
        stop_seconds: Seconds that requests under way may take when it stops.
        owner_only: Whether it serves a Unix socket for this user alone.
    """
    config = uvicorn.Config(
        application,
        http=OwnerOnly if owner_only else H11Protocol,
        ws="none",
        lifespan="off",
        log_config=None,
        log_level="warning",
        access_log=False,
        server_header=False,
        proxy_headers=False,
        timeout_keep_alive=30,
        timeout_graceful_shutdown=int(stop_seconds),
        limit_concurrency=200,
    )
    return Server(config)
