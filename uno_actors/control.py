"""How a running system is asked about from another process: over a Unix socket that its owner alone may use.

The socket lies in the store's directory, or, for a store that has none, in a directory of the user's at run time. One
request is one line of JSON, and so is the answer. A process that was killed leaves its socket behind; whoever finds
nobody listening at one removes it.
"""

import asyncio
import contextlib
import json
import os
import socket
import stat
import struct
import tempfile
from collections.abc import Callable, Iterator
from hashlib import sha256
from pathlib import Path
from typing import Any, Self

from uno_actors.errors import CallerError, WorldError, describe
from uno_actors.store_urls import path_in

PREFIX = "uno-actors-"
LONGEST_PATH = 100
"""Bytes; Unix sockets have paths of at most 107."""
LONGEST_REQUEST = 65_536
PATIENCE = 5.0
"""Seconds that a process may take to answer."""


class ControlRefused(CallerError):
    """A directory for sockets in which somebody else could put them."""


def control_directory(store_url: str, key: str) -> Path:
    """Where the sockets of the processes lie that run one system.

    Args:
        store_url: Of its store. If it names a directory, they lie there.
        key: Tells those systems apart that have no such directory.

    Raises:
        ControlRefused: The user's directory is not the user's own.
    """
    path = path_in(store_url)
    in_directory = path is not None and path.is_dir()
    if path is not None and in_directory and len(os.fsencode(path.resolve())) + 30 < LONGEST_PATH:
        return path.resolve()
    above = Path(os.environ.get("XDG_RUNTIME_DIR") or tempfile.gettempdir())
    own = above / f"uno-actors-{os.getuid()}"
    name = sha256(f"{store_url if in_directory else ''}\0{key}".encode()).hexdigest()[:16]
    directory = own / name
    for made in (own, directory):
        made.mkdir(mode=0o700, exist_ok=True)
        found = made.lstat()
        if (
            found.st_uid != os.getuid()
            or stat.S_IMODE(found.st_mode) & 0o077
            or not stat.S_ISDIR(found.st_mode)
        ):
            raise ControlRefused(f"{made} is open to others: remove it, or set XDG_RUNTIME_DIR")
    return directory


class ControlServer:
    """Answers what other processes of the same user ask; ``async with``.

    Args:
        directory: Where the socket is to lie.
        answer: Called on the event loop with what is asked for; returns what JSON can say.
    """

    def __init__(self, directory: Path, answer: Callable[[str], Any]) -> None:
        self.path = directory / f"{PREFIX}{os.getpid()}.sock"
        self._answer = answer
        self._server: asyncio.Server | None = None

    async def __aenter__(self) -> Self:
        self.path.unlink(missing_ok=True)  # of a process that had our number and was killed
        remove_dead(self.path.parent)
        nameless = self.path.with_suffix(".new")  # nobody may find it before it listens, and take it for dead
        nameless.unlink(missing_ok=True)
        listener = socket.socket(socket.AF_UNIX)
        try:
            os.fchmod(listener.fileno(), 0o600)  # before it has a name, so that it is never open to others
            listener.bind(str(nameless))
            nameless.chmod(0o600)
            self._server = await asyncio.start_unix_server(self._serve, sock=listener, limit=LONGEST_REQUEST)
            nameless.rename(self.path)
        except BaseException:
            listener.close()
            raise
        return self

    async def __aexit__(self, *_: object) -> None:
        if self._server is not None:
            self._server.close()
        self.path.unlink(missing_ok=True)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            async with asyncio.timeout(PATIENCE):
                if _peer(writer) in (os.getuid(), 0):
                    answer = self._answered(await reader.readline())
                    writer.write(json.dumps(answer, default=str).encode() + b"\n")
                    await writer.drain()
        except (OSError, TimeoutError, ValueError):  # whoever asked has gone, or asks too much
            pass
        finally:
            writer.close()

    def _answered(self, line: bytes) -> dict[str, Any]:
        try:
            return {"answer": self._answer(str(json.loads(line)["want"]))}
        except Exception as error:  # noqa: BLE001 - a question must never hurt the system
            return {"error": describe(error)}


def _peer(writer: asyncio.StreamWriter) -> int:
    """The user at the other end."""
    found = writer.get_extra_info("socket").getsockopt(
        socket.SOL_SOCKET, socket.SO_PEERCRED, struct.calcsize("3i")
    )
    return int(struct.unpack("3i", found)[1])


class Unanswered(WorldError):
    """A process that cannot be asked.

    Attributes:
        path: Of its socket.
    """

    def __init__(self, path: Path, reason: str) -> None:
        self.path = path
        process = path.stem.removeprefix(PREFIX)
        super().__init__(f"process {process} does not answer at {path}: {reason}")


def remove_dead(directory: Path) -> None:
    """Remove the sockets of processes that were killed."""
    for path in directory.glob(f"{PREFIX}*.sock"):
        with contextlib.suppress(OSError), socket.socket(socket.AF_UNIX) as connection:
            connection.setblocking(False)
            try:
                connection.connect(str(path))
            except ConnectionRefusedError:
                path.unlink()


def ask_processes(directory: Path, want: str) -> Iterator[Any]:
    """What each process answers whose socket lies in ``directory``; `Unanswered` in place of what one does not."""
    remove_dead(directory)
    for path in sorted(directory.glob(f"{PREFIX}*.sock")):
        try:
            yield _ask(path, want)
        except (ConnectionRefusedError, FileNotFoundError):  # it has just ended
            pass
        except TimeoutError:
            yield Unanswered(path, f"nothing within {PATIENCE:g} s; it is busy, or was stopped")
        except (OSError, ValueError) as error:
            yield Unanswered(path, describe(error))


def _ask(path: Path, want: str) -> Any:
    with socket.socket(socket.AF_UNIX) as connection:
        connection.settimeout(PATIENCE)
        connection.connect(str(path))
        connection.sendall(json.dumps({"want": want}).encode() + b"\n")
        with connection.makefile("rb") as replies:
            reply = json.loads(replies.readline() or b'{"error": "it has hung up"}')
    if "error" in reply:
        raise ValueError(reply["error"])
    return reply["answer"]
