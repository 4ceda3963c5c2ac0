"""A running system answers other processes about its state, over a Unix socket that only its user may use.

The socket is in the store's directory or, for a store without one, in the user's runtime directory. A request is one
line of JSON, and so is the answer. A killed process leaves its socket behind; the next process that finds it removes
it.

Where there are no Unix sockets (Python on Windows), or where the system does not tell which user is at the other end, a
running system cannot be asked from another process. It runs all the same.
"""

import asyncio
import contextlib
import json
import os
import socket
from collections.abc import Awaitable, Callable, Iterable
from hashlib import sha256
from inspect import isawaitable
from pathlib import Path
from typing import Any, Self

from uno_actors.errors import CallerError, describe
from uno_actors.local_sockets import (
    LONGEST_PATH,
    OpenToOthers,
    above_users,
    is_private,
    missing,
    of_user,
    peer_user,
    private_directory,
    private_listener,
)
from uno_actors.store_urls import path_in
from uno_actors.tasks import begin

PREFIX = "uno-actors-"
LONGEST_REQUEST = 65_536
HUNG_UP = b'{"error": "it has hung up"}'
"""Stands for the answer of a process that gave none."""
PATIENCE = 5.0
"""Maximum seconds for an answer."""
HANDLED = "handled"
"""The question whether a handler has come to a position, which is answered when it has; see
`uno_actors.system.handlers_elsewhere`."""
WHY = "why"
"""The question of an inquiry, which is answered also while code of the program holds the event loop; see
`uno_actors.system.facts`."""
HELD_PATIENCE = 0.5
"""Maximum seconds for a question while the loop is held: the watchdog has other work too."""
NOT_KNOWN = "is not known here"
"""Part of the text of the `ValueError` for an unknown question, in all versions."""


class ControlRefused(CallerError):
    """There is no socket, or only one that other users could use."""


def check_sockets() -> None:
    """Check that processes of one user can ask each other on this system.

    Raises:
        ControlRefused: They cannot.
    """
    if (reason := missing()) is not None:
        raise ControlRefused(
            f"{reason}: call `tree()` and `statistics()` of the system within its process, and see its logs"
        )


def control_directory(store_url: str, key: str) -> Path:
    """The directory in which a process that runs a system puts its socket.

    Args:
        store_url: URL of its store. If it names a directory, the socket is there.
        key: Distinguishes systems whose stores have no directory.

    Raises:
        ControlRefused: The user's directory is not the user's own, or cannot be made; or see `check_sockets`.
    """
    check_sockets()
    if (directory := _of_store(store_url)) is not None and _is_short(directory):
        return directory
    try:
        return private_directory(_below_user(store_url, key), _is_short)
    except OpenToOthers as error:
        raise ControlRefused(str(error)) from error
    except OSError as error:
        raise ControlRefused(f"{describe(error)}: set XDG_RUNTIME_DIR") from error


def control_directories(store_url: str, key: str) -> list[Path]:
    """The directories that may have sockets of processes that run one system, whatever their environment.

    Args:
        store_url: As for `control_directory`.
        key: As for `control_directory`.

    Raises:
        ControlRefused: See `check_sockets`.
    """
    check_sockets()
    runtime = Path(f"/run/user/{os.getuid()}")
    names = [
        Path(of_user(), _below_user(store_url, each)) for each in dict.fromkeys((key, key_of(store_url)))
    ]
    places = [above / name for above in dict.fromkeys((*above_users(), runtime)) for name in names]
    found = [place for place in places if place.is_dir() and is_private(place.parent) and is_private(place)]
    directory = _of_store(store_url)
    return found if directory is None else [directory, *found]


def key_of(store_url: str) -> str:
    """Distinguishes the systems of programs, which have no file, by their stores."""
    path = path_in(store_url)
    return f"store {store_url if path is None else path.resolve()}"


def _of_store(store_url: str) -> Path | None:
    """The directory of a store that has one."""
    path = path_in(store_url)
    return path.resolve() if path is not None and path.is_dir() else None


def _below_user(store_url: str, key: str) -> str:
    return sha256(f"{store_url if _of_store(store_url) else ''}\0{key}".encode()).hexdigest()[:16]


def _is_short(directory: Path) -> bool:
    """Whether the path of a socket in this directory is short enough."""
    return len(os.fsencode(directory)) + 30 < LONGEST_PATH


_open: set[Path] = set()
"""The sockets of this process."""


class ControlServer:
    """Answers questions of other processes of the same user; ``async with``.

    Args:
        directory: The directory for its socket.
        answer: Called on the event loop with the question; returns a value for JSON, or an awaitable of one.
        wait: Called with a question whose answer may take long: `HANDLED`.
        explain: Called with the question `WHY`, from any thread; returns a value for JSON.
        when_held: Has a function called, on another thread, while code holds the event loop; returns what ends that.
    """

    def __init__(
        self,
        directory: Path,
        answer: Callable[[str], Any],
        wait: Callable[[dict[str, Any]], Awaitable[Any]] | None = None,
        *,
        explain: Callable[[dict[str, Any]], Any] | None = None,
        when_held: Callable[[Callable[[], object]], Callable[[], object]] | None = None,
    ) -> None:
        self._directory = directory
        self._wait = wait
        self._explain = explain
        self._when_held = when_held
        self._listener: socket.socket | None = None
        self._end_when_held: Callable[[], object] = lambda: None
        self.path = directory / f"{PREFIX}{os.getpid()}.sock"
        self._answer = answer
        self._server: asyncio.Server | None = None

    async def __aenter__(self) -> Self:
        number = 1
        while self.path in _open:  # of another system in this process
            number += 1
            self.path = self._directory / f"{PREFIX}{os.getpid()}-{number}.sock"
        _open.add(self.path)
        self.path.unlink(missing_ok=True)  # of a killed process that had the same id
        living(self.path.parent)
        listener: socket.socket | None = None
        try:
            try:
                listener = private_listener(self.path)
            except FileNotFoundError:  # another system has removed its directory when it stopped
                self._directory.mkdir(mode=0o700, exist_ok=True)
                listener = private_listener(self.path)
            self._server = await asyncio.start_unix_server(self._serve, sock=listener, limit=LONGEST_REQUEST)
        except BaseException:
            if listener is not None:
                listener.close()
            _open.discard(self.path)
            raise
        if self._when_held is not None:
            listener.setblocking(False)
            self._listener = listener
            self._end_when_held = self._when_held(self._answer_while_held)
        return self

    async def __aexit__(self, *_: object) -> None:
        self._end_when_held()
        if self._server is not None:
            self._server.close()
        self.path.unlink(missing_ok=True)
        _open.discard(self.path)
        if self._directory.parent.name == of_user():  # otherwise it is that of the store
            with contextlib.suppress(OSError):  # another system has its socket there
                self._directory.rmdir()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            async with asyncio.timeout(PATIENCE):
                if peer_user(writer.get_extra_info("socket")) not in (os.getuid(), 0):
                    return
                line = await reader.readline()
            answer = await self._answered_later(line, reader) or await self._answered(line)
            async with asyncio.timeout(PATIENCE):
                writer.write(json.dumps(answer, default=str).encode() + b"\n")
                await writer.drain()
        except (
            OSError,
            TimeoutError,
            ValueError,
            KeyError,
            TypeError,
        ):  # the client has gone, or its question is too long
            pass
        finally:
            writer.close()

    async def _answered_later(self, line: bytes, reader: asyncio.StreamReader) -> dict[str, Any] | None:
        """The answer to a question that takes until something happens here; ``None`` if it is another question.

        Raises:
            ValueError: The line is not a question.
            OSError: The client has gone.
        """
        question = json.loads(line)
        if self._wait is None or question["want"] != HANDLED:
            return None
        waiting = begin(asyncio.get_running_loop(), _value_of(self._wait(question)))
        gone = begin(asyncio.get_running_loop(), reader.read())
        try:
            await asyncio.wait({waiting, gone}, return_when=asyncio.FIRST_COMPLETED)
            if not waiting.done():
                raise ConnectionResetError("the client has gone")
            return {"answer": waiting.result()}
        except (KeyError, TypeError) as error:
            return {"error": describe(error)}
        finally:
            waiting.cancel()
            gone.cancel()

    def _answer_while_held(self) -> None:
        """Answer the processes that wait, on another thread than the loop's, which takes no connections now."""
        listener = self._listener
        while listener is not None:
            try:
                connection, _ = listener.accept()
            except OSError:  # no other process waits, or the system has stopped
                return
            with connection, contextlib.suppress(OSError):  # such as that the client has gone
                connection.settimeout(HELD_PATIENCE)
                if peer_user(connection) in (os.getuid(), 0):
                    with connection.makefile("rb") as questions:
                        line = questions.readline(LONGEST_REQUEST)
                    connection.sendall(json.dumps(self._answered_held(line), default=str).encode() + b"\n")

    def _answered_held(self, line: bytes) -> dict[str, Any]:
        try:
            question = json.loads(line)
            if self._explain is not None and question["want"] == WHY:
                return {"answer": self._explain(question)}
        except Exception as error:  # noqa: BLE001 - a question must never harm the system
            return {"error": describe(error)}
        return {"error": "code of the program holds its event loop; `uno-actors why ID` says at which line"}

    async def _answered(self, line: bytes) -> dict[str, Any]:
        try:
            question = json.loads(line)
            if self._explain is not None and question["want"] == WHY:
                return {"answer": self._explain(question)}
            found = self._answer(str(question["want"]))
            return {"answer": await found if isawaitable(found) else found}
        except Exception as error:  # noqa: BLE001 - a question must never harm the system
            return {"error": describe(error)}


async def _value_of(value: Awaitable[Any]) -> Any:
    return await value


async def asked(path: Path, question: dict[str, Any], longest: int = LONGEST_REQUEST) -> Any:
    """The answer of a process; the caller limits the time.

    Args:
        path: Path of its socket.
        question: Its key ``want`` says what it is about.
        longest: Bytes that the answer may have.

    Raises:
        OSError: The process has ended, or does not answer.
        ValueError: It refuses the question.
        KeyError: It is of another version.
    """
    reader, writer = await asyncio.open_unix_connection(str(path), limit=longest)
    try:
        writer.write(json.dumps(question).encode() + b"\n")
        await writer.drain()
        reply = json.loads(await reader.readline() or HUNG_UP)
    finally:
        writer.close()
    if "error" in reply:
        raise ValueError(reply["error"])
    return reply["answer"]


def process_of(path: Path) -> int:
    """The number of the process with the socket at ``path``, which may have several; 0 if it has another name."""
    number = path.stem.removeprefix(PREFIX).partition("-")[0]
    return int(number) if number.isdecimal() else 0


def other_sockets(directories: Iterable[Path]) -> list[Path]:
    """The sockets in ``directories`` of systems in other processes."""
    found = {path for directory in directories for path in directory.glob(f"{PREFIX}*.sock")}
    return sorted(found - _open)


def living(directory: Path) -> list[Path]:
    """The sockets in a directory, after removal of those of killed processes."""
    for path in directory.glob(f"{PREFIX}*.sock"):
        with contextlib.suppress(OSError), socket.socket(socket.AF_UNIX) as connection:
            connection.setblocking(False)
            try:
                connection.connect(str(path))
            except ConnectionRefusedError:
                path.unlink()
    return list(directory.glob(f"{PREFIX}*.sock"))
