"""Asks running systems for their state; see `uno_actors.system.control_socket`."""

import json
import socket
from collections.abc import Collection, Iterable, Iterator
from pathlib import Path
from typing import Any

from uno_actors.errors import WorldError, describe
from uno_actors.system.control_socket import HUNG_UP, NOT_KNOWN, PATIENCE, PREFIX, living, process_of


class Unanswered(WorldError):
    """A process that does not answer.

    Attributes:
        path: Path of its socket.
        process: Number of the process.
        reason: Why it does not.
    """

    def __init__(self, path: Path, reason: str) -> None:
        self.path = path
        name = path.stem.removeprefix(PREFIX)
        self.process = process_of(path)
        self.reason = reason
        super().__init__(f"process {name} does not answer at {path}: {reason}")


class UnknownQuestion(ValueError):
    """A process does not know a question: it is of another version, or of another kind."""


def ask_processes(
    directories: Iterable[Path],
    want: str,
    processes: Collection[int] | None = None,
    *,
    otherwise: str | None = None,
) -> Iterator[Any]:
    """The answers of the processes with sockets there; `Unanswered` for one that does not answer.

    Args:
        directories: Where sockets may be.
        want: The question.
        processes: Numbers of the processes to ask; default is all.
        otherwise: The question for processes that do not know that one.
    """
    wanted = None if processes is None else {f"{PREFIX}{process}" for process in processes}
    for path in sorted(path for directory in directories for path in living(directory)):
        if wanted is not None and path.stem not in wanted:
            continue
        try:
            yield _ask(path, want, otherwise)
        except (ConnectionRefusedError, FileNotFoundError):  # it has just ended
            pass
        except TimeoutError:
            yield Unanswered(path, f"nothing within {PATIENCE:g} s; it is busy, or was stopped")
        except (OSError, ValueError) as error:
            yield Unanswered(path, describe(error))


def _ask(path: Path, want: str, otherwise: str | None) -> Any:
    try:
        return _asked(path, want)
    except UnknownQuestion:
        if otherwise is None:
            raise
        return _asked(path, otherwise)


def _asked(path: Path, want: str) -> Any:
    with socket.socket(socket.AF_UNIX) as connection:
        connection.settimeout(PATIENCE)
        connection.connect(str(path))
        connection.sendall(json.dumps({"want": want}).encode() + b"\n")
        with connection.makefile("rb") as replies:
            reply = json.loads(replies.readline() or HUNG_UP)
    if "error" in reply:
        kind = UnknownQuestion if NOT_KNOWN in reply["error"] else ValueError
        raise kind(reply["error"])
    return reply["answer"]
