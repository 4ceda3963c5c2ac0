"""The link over Unix sockets, for the nodes of one machine that run as one user.

Each node has a socket in a directory that all share: that of the store, as a rule. Its file is named for the node's
id, not for its process, and an address has the file's name only. So containers that share the directory do not confuse
two nodes, even if it has another path in each. A killed node leaves its socket behind; the next node that starts
removes it.
"""

import asyncio
import contextlib
import os
import socket
import stat
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from uno_actors.clock import Clock
from uno_actors.cluster.links.streams import StreamLink
from uno_actors.errors import LinkUnavailable, describe
from uno_actors.local_sockets import LONGEST_PATH, OpenToOthers, missing, peer_user, private_directory

PREFIX = "node-"
SUFFIX = ".sock"


class UnixLink(StreamLink):
    """A link over Unix sockets.

    Args:
        directory: For the sockets of all nodes; made if it is missing. ``None`` is one of this user, by ``cluster``.
        cluster: Name of the cluster, the same for all nodes of a store.
        secret: Known to all nodes, or ``None``.
        ttl: Seconds after which a node that says nothing is taken for gone.
        clock: Measures all times.
    """

    def __init__(
        self, directory: Path | None, *, cluster: str, secret: str | None, ttl: float, clock: Clock
    ) -> None:
        super().__init__(cluster, secret, ttl, clock)
        self._directory = directory
        self._path: Path | None = None

    async def listen(
        self, node: str, connection: Callable[[], asyncio.Protocol]
    ) -> tuple[asyncio.AbstractServer, str]:
        """See `StreamLink.listen`."""
        if (reason := missing()) is not None:
            raise LinkUnavailable("unix:", f"{reason}: listen at HOST:PORT instead")
        name = f"{PREFIX}{node}{SUFFIX}"
        shown = f"unix:{self._directory or ''}"
        try:
            if self._directory is not None:
                self._directory.mkdir(mode=0o700, parents=True, exist_ok=True)
                try:
                    return await self._listen_in(self._directory, name, connection), f"unix:{name}"
                except OSError as error:  # the path is too long, or the file system has no sockets
                    first = error
            else:
                first = None
            directory = private_directory(f"cluster-{self.identity.cluster}", _is_short)
            if first is not None and directory == self._directory:
                raise first
            return await self._listen_in(directory, name, connection), f"unix:{directory / name}"
        except OpenToOthers as error:
            raise LinkUnavailable(shown, str(error)) from error
        except OSError as error:
            raise LinkUnavailable(
                shown, f'{describe(error)}: name a directory of this user with listen="unix:DIRECTORY"'
            ) from error

    async def _listen_in(
        self, directory: Path, name: str, connection: Callable[[], asyncio.Protocol]
    ) -> asyncio.AbstractServer:
        remove_dead(directory)
        path = directory / name
        nameless = path.with_suffix(".new")  # found before it listens, it would be taken for dead
        nameless.unlink(missing_ok=True)
        listener = socket.socket(socket.AF_UNIX)
        try:
            # Before it has a name, so that it is never open to others. macOS refuses: there only the user is checked.
            with contextlib.suppress(OSError):
                os.fchmod(listener.fileno(), 0o600)
            with reachable(nameless) as short:
                listener.bind(short)
            nameless.chmod(0o600)
            server = await asyncio.get_running_loop().create_unix_server(
                connection, sock=listener, backlog=512
            )
            nameless.rename(path)
        except BaseException:
            listener.close()
            nameless.unlink(missing_ok=True)
            raise
        self._path = path
        return server

    async def connect(self, place: str, connection: Callable[[], asyncio.Protocol]) -> None:
        """See `StreamLink.connect`."""
        if not place.startswith("unix:"):
            raise ValueError(
                "this node has a link over Unix sockets: give all nodes of a cluster the same kind of `listen`"
            )
        path = (self._directory or Path()) / place.removeprefix("unix:")
        stream = socket.socket(socket.AF_UNIX)
        try:
            stream.setblocking(False)
            with reachable(path) as short:
                await asyncio.get_running_loop().sock_connect(stream, short)
            await asyncio.get_running_loop().create_unix_connection(connection, sock=stream)
        except BaseException:
            stream.close()
            raise

    def distrust(self, transport: asyncio.BaseTransport) -> str | None:
        """See `StreamLink.distrust`."""
        user = peer_user(transport.get_extra_info("socket"))
        if user in (os.getuid(), 0):
            return None
        return (
            f"the other end belongs to user {user}, and this node to {os.getuid()}: run all nodes as one user"
        )

    def stopped_listening(self) -> None:
        """See `StreamLink.stopped_listening`."""
        if self._path is not None:
            with contextlib.suppress(OSError):
                self._path.unlink(missing_ok=True)


def remove_dead(directory: Path) -> None:
    """Remove the sockets of killed nodes from a directory."""
    for path in [*directory.glob(f"{PREFIX}*{SUFFIX}"), *directory.glob(f"{PREFIX}*.new")]:
        with contextlib.suppress(OSError), socket.socket(socket.AF_UNIX) as stream:
            found = path.lstat()
            if not stat.S_ISSOCK(found.st_mode):  # a file that is not a socket refuses connections, too
                continue
            if path.suffix == ".new" and time.time() - found.st_mtime < _STARTING:
                continue
            stream.setblocking(False)
            with reachable(path) as short:
                try:
                    stream.connect(short)
                except ConnectionRefusedError:
                    path.unlink()


_STARTING = 60.0
"""Seconds in which a socket without a name may belong to a node that is just starting."""


@contextlib.contextmanager
def reachable(path: Path) -> Iterator[str]:
    """A path that is short enough for a socket: on Linux by way of the open directory.

    Raises:
        OSError: There is none.
    """
    if len(os.fsencode(path)) <= LONGEST_PATH:
        yield str(path)
        return
    if sys.platform != "linux":
        raise OSError(f"{path} is too long for a socket")
    directory = os.open(path.parent, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        yield f"/proc/self/fd/{directory}/{path.name}"
    finally:
        os.close(directory)


def _is_short(directory: Path) -> bool:
    """Whether the path of a socket in this directory is short enough."""
    return len(os.fsencode(directory)) + 50 < LONGEST_PATH
