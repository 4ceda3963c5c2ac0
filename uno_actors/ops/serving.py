"""Serves the live page: on a Unix socket that only its user can use, and on a TCP port that asks for a token.

The web framework is imported when the first browser comes, so that a service pays nothing until then.
"""

import asyncio
import contextlib
import os
import socket
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AsyncExitStack, asynccontextmanager
from importlib import import_module
from importlib.util import find_spec
from ipaddress import ip_address
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, Self

from uno_actors.errors import CallerError, MissingExtra, describe
from uno_actors.local_sockets import peer_user, private_listener
from uno_actors.logs import get_logger
from uno_actors.ops.access import TOKEN, Keys
from uno_actors.ops.sampling import Sampler
from uno_actors.ops.sources import Source, SystemSource
from uno_actors.system.system import ActorSystem
from uno_actors.tasks import begin

if TYPE_CHECKING:
    from uno_actors.ops.application import Page

PREFIX, SUFFIX = "uno-actors-", ".page"
"""Parts of the name of a Unix socket, around the number of its process."""
STOP_SECONDS = 1.0
"""Seconds that requests under way may take when the page stops."""


class InvalidAddress(CallerError, ValueError):
    """An address at which the page cannot be served."""

    def __init__(self, text: str, reason: str) -> None:
        super().__init__(f"the live page cannot be served at {text!r}: {reason}")


class NoPort(CallerError):
    """A link was asked for, and the page is not at a port."""

    def __init__(self) -> None:
        super().__init__("the live page is not at a port, and needs no link: open it at one by at_port()")


class Address(NamedTuple):
    """A TCP port.

    Attributes:
        host: Name or address of the interface.
        port: The port; 0 for a free one.
    """

    host: str
    port: int

    @classmethod
    def of(cls, text: str) -> Self:
        """Read ``127.0.0.1:8700`` or ``[::1]:8700``.

        Raises:
            InvalidAddress: It is something else.
        """
        host, colon, port = text.rpartition(":")
        if not colon or not host or not port.isdecimal() or int(port) > 65535:
            raise InvalidAddress(text, "expected HOST:PORT, such as 127.0.0.1:8700")
        return cls(host.removeprefix("[").removesuffix("]"), int(port))

    @property
    def is_local(self) -> bool:
        """Whether only this machine can reach it."""
        with contextlib.suppress(ValueError):
            return ip_address(self.host).is_loopback
        return self.host == "localhost"

    def listen(self) -> socket.socket:
        """A socket that listens there.

        Raises:
            InvalidAddress: It cannot.
        """
        try:
            found = socket.getaddrinfo(self.host, self.port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
            family, _, _, _, place = found[0]
            return socket.create_server(place[:2], family=family, backlog=100)
        except (OSError, OverflowError) as error:
            raise InvalidAddress(str(self), describe(error)) from error

    def __str__(self) -> str:
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{host}:{self.port}"


def has_page() -> bool:
    """Whether the libraries of the page are installed."""
    return find_spec("starlette") is not None and find_spec("uvicorn") is not None


def check_page() -> None:
    """Check that the libraries of the page are installed.

    Raises:
        MissingExtra: They are not.
    """
    for name in ("starlette", "uvicorn"):
        if find_spec(name) is None:
            error = ModuleNotFoundError(f"No module named {name!r}", name=name)
            raise MissingExtra("the live page", "page", error)


class PageServer:
    """Serves one page at one socket; ``async with``.

    Args:
        make: Makes the page when the first browser comes.
        listener: The socket, listening. It is closed in the end.
        owner_only: Whether to check that the user at the other end of a Unix socket is this one, or root.
    """

    def __init__(self, make: "Callable[[], Page]", listener: socket.socket, *, owner_only: bool) -> None:
        self._make = make
        self._listener = listener
        self._owner_only = owner_only
        self._page: Page | None = None
        self._server: Any = None
        self._serving: asyncio.Task[None] | None = None
        self._log = get_logger(actor="live page")

    async def __aenter__(self) -> Self:
        self._listener.setblocking(False)
        loop = asyncio.get_running_loop()
        try:
            loop.add_reader(self._listener.fileno(), self._first)
        except NotImplementedError:  # on Windows: serve from the start
            self._serving = begin(loop, self._serve())
        return self

    async def __aexit__(self, *_: object) -> None:
        if self._serving is None:
            asyncio.get_running_loop().remove_reader(self._listener.fileno())
            self._listener.close()
            return
        if self._page is not None:
            self._page.close()
        if self._server is not None:
            self._server.should_exit = True
        else:
            self._serving.cancel()
        await asyncio.wait({self._serving}, timeout=STOP_SECONDS + 1)
        self._serving.cancel()
        self._listener.close()

    def _first(self) -> None:
        """A browser has come."""
        loop = asyncio.get_running_loop()
        loop.remove_reader(self._listener.fileno())
        self._serving = begin(loop, self._serve())

    async def _serve(self) -> None:
        try:
            # On a thread: reading these modules would hold the loop of a running system.
            modules = await asyncio.to_thread(
                lambda: [
                    import_module(f"uno_actors.ops.{name}") for name in ("application", "uvicorn_server")
                ]
            )
            self._page = self._make()
            self._server = modules[1].server_of(self._page, STOP_SECONDS, owner_only=self._owner_only)
            await self._server.serve(sockets=[self._listener])
        except Exception as error:  # noqa: BLE001 - the system runs without its page
            self._log.error("the live page cannot be served", exc_info=error)


DEFAULT = Address("127.0.0.1", 8700)
"""Where the page is served unless another address is given; if another program is there, at a free port."""


@asynccontextmanager
async def serve_page(
    system: ActorSystem, address: str | None = None, *, token: str | None = None
) -> "AsyncIterator[Served]":
    """Serve the live page of a running system at a TCP port, on its event loop.

        async with ActorSystem("lmdb:bank") as system, serve_page(system) as page:
            print(page.link())

    Args:
        system: The system, running on this event loop.
        address: Such as ``127.0.0.1:8700``; default is this one or, if another program is there, a free port.
        token: Its token. Default is the variable ``UNO_ACTORS_PAGE_TOKEN``, or else a new one.

    Returns:
        Has the ``address`` and makes one-time links: ``link()``.

    Raises:
        InvalidAddress: The port cannot be used.
        InvalidToken: The token is too short.
        MissingExtra: The libraries of the page are not installed.
    """
    async with Served(SystemSource(system), token or os.environ.get(TOKEN)) as served:
        await served.at_any_port(None if address is None else Address.of(address))
        yield served


def is_own(connection: Any) -> bool:
    """Whether the user at the other end of a Unix socket may use the page of this one."""
    return peer_user(connection) in (os.getuid(), 0)


class Served:
    """The page of one source, at any number of sockets; ``async with``.

    Args:
        source: What is shown.
        token: The token for TCP ports; default is a new one.

    Attributes:
        keys: The token, and what is derived from it; ``None`` without a port.
        address: The TCP port; ``None`` without one.
    """

    def __init__(self, source: Source, token: str | None = None) -> None:
        self._token = token
        self.keys: Keys | None = None
        self.address: Address | None = None
        self._source = source
        self._sampler = Sampler(source)
        self._stack = AsyncExitStack()
        self._log = get_logger(actor="live page")

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._stack.aclose()

    async def at_socket(self, directory: Path) -> Path:
        """Serve it at a Unix socket in ``directory`` that only this user can use; return its path.

        Raises:
            OSError: It cannot be made.
        """
        for path in dead_sockets(directory):
            path.unlink(missing_ok=True)
        path = directory / f"{PREFIX}{os.getpid()}{SUFFIX}"
        path.unlink(missing_ok=True)  # of a killed process that had the same id
        listener = private_listener(path)
        self._stack.callback(path.unlink, missing_ok=True)
        await self._stack.enter_async_context(PageServer(self._page, listener, owner_only=True))
        return path

    async def at_port(self, address: Address) -> Address:
        """Serve it at a TCP port; return the address, with the port that was found.

        Raises:
            InvalidAddress: The port cannot be used.
            InvalidToken: The token is too short.
            MissingExtra: The libraries of the page are not installed.
        """
        check_page()
        self.keys = Keys(self._token)
        listener = address.listen()
        self.address = Address(address.host, listener.getsockname()[1])
        if not self.address.is_local:
            self._log.warning(
                "live page can be reached from other machines, without encryption: put a proxy with TLS in front of it",
                address=str(self.address),
            )
        await self._stack.enter_async_context(PageServer(self._page_with_login, listener, owner_only=False))
        await self._source.run(self._sampler.ensure())  # so that the first view shows what was before
        return self.address

    async def at_any_port(self, address: Address | None) -> Address:
        """As `at_port`; without an address at `DEFAULT`, or at a free port if another program is there."""
        if address is not None:
            return await self.at_port(address)
        try:
            return await self.at_port(DEFAULT)
        except InvalidAddress:
            return await self.at_port(Address(DEFAULT.host, 0))

    def link(self) -> str:
        """A link that logs a browser in once.

        Raises:
            NoPort: The page is not at a port.
        """
        if self.address is None or self.keys is None:
            raise NoPort
        return f"http://{self.address}/login#{self.keys.new_code()}"

    def _page(self) -> "Page":
        from uno_actors.ops.application import Page  # noqa: PLC0415 - when it is used

        def link() -> str | None:
            return None if self.address is None else self.link()

        return Page(self._source, links=link, sampler=self._sampler)

    def _page_with_login(self) -> "Page":
        from uno_actors.ops.application import Page  # noqa: PLC0415 - when it is used

        assert self.keys is not None  # without keys a page asks for no login
        return Page(self._source, self.keys, sampler=self._sampler)


def dead_sockets(directory: Path) -> Iterator[Path]:
    """The sockets in a directory that killed processes have left."""
    for path in directory.glob(f"{PREFIX}*{SUFFIX}"):
        number = path.stem.removeprefix(PREFIX)
        try:
            os.kill(int(number), 0)
        except ProcessLookupError:
            yield path
        except (ValueError, OSError):  # not one of ours, or of another user
            pass
