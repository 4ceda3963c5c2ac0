"""Recordings as files: JSON lines, of which the first is about the node, and each other one is a step.

A file is complete or not there: it is written under another name, and renamed. Only its owner may read it.
"""

import json
import os
import platform
import re
import socket
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cache
from importlib.metadata import version
from pathlib import Path
from typing import Any, Final

from uno_actors.errors import RecordingNotReadable, describe
from uno_actors.flight_recorder.steps import Step
from uno_actors.printable import as_json

FORMAT: Final = 1
"""Version of the format."""
SUFFIX: Final = ".recording"
KEPT: Final = 20
"""Recordings that a directory keeps; the oldest ones are removed."""
_FORMAT_KEY = "uno_actors_recording"
_NODE = re.compile(r"[^A-Za-z0-9._@-]+")


@dataclass(frozen=True, slots=True, kw_only=True)
class Recording:
    """The latest steps of a node, at one moment.

    Attributes:
        node: Name of the node.
        system: Name of the system.
        process: Number of its process.
        host: Name of its machine.
        uno_actors: Version of uno_actors.
        python: Version of Python.
        written: When it was taken, in seconds since 1970.
        why: Why it was taken.
        steps: Ordered by time.
    """

    node: str
    system: str
    process: int
    host: str
    uno_actors: str
    python: str
    written: float
    why: str
    steps: tuple[Step, ...]

    @classmethod
    def now(cls, system: str, node: str, why: str, steps: Iterable[Step]) -> "Recording":
        """Of this process."""
        return cls(
            node=node,
            system=system,
            process=os.getpid(),
            host=socket.gethostname(),
            uno_actors=_own_version(),
            python=platform.python_version(),
            written=round(time.time(), 6),
            why=why,
            steps=tuple(steps),
        )


@cache
def _own_version() -> str:
    return version("uno-actors")


def lines_of(recording: Recording) -> Iterator[str]:
    """A recording as lines of JSON, without line ends."""
    head = {name: value for name, value in fields_of(recording).items() if name != "steps"}
    yield as_json({_FORMAT_KEY: FORMAT, **head, "steps": len(recording.steps)})
    for step in recording.steps:
        yield as_json(step.to_fields())


def fields_of(recording: Recording) -> dict[str, Any]:
    """The fields of a recording, without copies of its steps."""
    return {name: getattr(recording, name) for name in Recording.__slots__}


def write(recording: Recording, directory: Path) -> Path:
    """Write a recording to a new file in ``directory``, which is made if it is missing; return the path.

    Raises:
        OSError: It cannot be written.
    """
    directory.mkdir(mode=0o700, parents=True, exist_ok=True)
    moment = datetime.fromtimestamp(recording.written, UTC).strftime("%Y%m%dT%H%M%S.%f")
    node = _NODE.sub("-", recording.node)[:80]
    path = directory / f"{node}-{moment}Z-{recording.process}{SUFFIX}"
    new = path.with_suffix(".new")
    text = "\n".join(lines_of(recording)) + "\n"
    try:
        new.touch(mode=0o600)
        with new.open("w", encoding="ascii") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        new.rename(path)
    except BaseException:
        with suppress(OSError):
            new.unlink()
        raise
    _remove_old(directory)
    return path


def _remove_old(directory: Path) -> None:
    found = []
    for path in directory.glob(f"*{SUFFIX}"):
        with suppress(OSError):  # another process removes some, too
            found.append((path.stat().st_mtime, path))
    for _, path in sorted(found)[:-KEPT]:
        with suppress(OSError):
            path.unlink()


def read(path: Path) -> list[Recording]:
    """Read the recordings in a file: one that `write` has written, or those of several nodes one after the other.

    Raises:
        RecordingNotReadable: It cannot be read, is none, or is damaged.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise RecordingNotReadable(str(path), describe(error)) from error
    return of_lines(text.splitlines(), str(path))


def of_lines(lines: Sequence[str], name: str) -> list[Recording]:
    """The recordings in the lines of a file.

    Args:
        lines: Without line ends.
        name: Of the file, for errors.

    Raises:
        RecordingNotReadable: They are none, or are damaged.
    """
    found: list[Recording] = []
    at = 0
    while at < len(lines) or not found:
        recording = _next(lines, at, name)
        found.append(recording)
        at += 1 + len(recording.steps)
    return found


def _next(lines: Sequence[str], at: int, name: str) -> Recording:
    head = _table(lines[at], name, at + 1) if lines else {}
    if _FORMAT_KEY not in head:
        raise RecordingNotReadable(name, f"it is not a recording: line {at + 1} is not the header of one")
    if head[_FORMAT_KEY] != FORMAT:
        reason = (
            f"its format is {head[_FORMAT_KEY]!r}, and this version reads {FORMAT}: use a newer uno-actors"
        )
        raise RecordingNotReadable(name, reason)
    try:
        count = int(head["steps"])
        facts = {each: kind(head[each]) for each, kind in _KINDS.items()}
    except (KeyError, TypeError, ValueError) as error:
        raise RecordingNotReadable(
            name, f"the header in line {at + 1} is damaged: {describe(error)}"
        ) from None
    steps = []
    for number, line in enumerate(lines[at + 1 : at + 1 + count], at + 2):
        try:
            steps.append(Step.of_fields(_table(line, name, number)))
        except ValueError as error:
            raise RecordingNotReadable(name, f"line {number} is not a step: {error}") from None
    if len(steps) != count:
        raise RecordingNotReadable(name, f"it was cut off: it has {len(steps):,} of {count:,} steps")
    return Recording(**facts, steps=tuple(steps))


_KINDS: dict[str, Any] = dict.fromkeys(("node", "system", "host", "uno_actors", "python", "why"), str)
_KINDS |= {"process": int, "written": float}


def _table(line: str, name: str, number: int) -> dict[str, Any]:
    try:
        found = json.loads(line)
    except (ValueError, RecursionError) as error:
        raise RecordingNotReadable(name, f"line {number} is damaged: {error}") from None
    if not isinstance(found, dict):
        raise RecordingNotReadable(name, f"line {number} is not a JSON object")
    return found
