"""Files that show which nodes on this machine work on a store, one for each node in a directory beside the store.

A dead node is distinguished from one that hangs, and both from one that works:

- The file is locked by the process of the node. The kernel frees the lock when the process ends, even if it is killed.
  The lock belongs to the open file and not to the number of a process, so it holds across PID namespaces.
- The file has a *beat*, a number that the node changes from its event loop. A node whose beat does not change hangs:
  it was stopped, or its event loop is blocked. An observer measures the time since it last saw the beat change, by its
  own clock. So no two clocks are compared: they may differ, and a machine may sleep.

A file holds the beat (64 bits), the seconds after which a node hangs whose beat does not change (a float of 64 bits)
and the CRC-32 of what follows (32 bits), all big-endian, then what the node announces.
"""

import contextlib
import os
import struct
import time
import weakref
import zlib
from collections.abc import Callable, Iterable
from hashlib import blake2b
from pathlib import Path
from typing import Literal, NamedTuple
from urllib.parse import quote

from uno_actors.forks import on_fork
from uno_stores import locks

State = Literal["works", "hangs", "dead"]

_HEAD = struct.Struct(">QdI")
_MAX_NAME = 200
"""Characters of the longest name of a file; a longer one is replaced by its hash."""
_ATTEMPTS = 20
"""Attempts to make a file that others remove, or to read one that is being written."""


class Found(NamedTuple):
    """What the file of a node held when it was read."""

    beat: int
    seconds: float
    announcement: bytes


class Beats:
    """The rule by which a node hangs: its beat was not seen to change for its seconds.

    Pure: each look is given its time, in seconds of any clock that only grows.
    """

    def __init__(self) -> None:
        self._seen: dict[str, tuple[int, float]] = {}  # the last beat of each, and when it was first seen

    def hangs(self, name: str, found: Found, now: float) -> bool:
        """Note what was ``found`` of the node ``name``; whether it hangs."""
        beat, since = self._seen.get(name, (None, now))
        if beat != found.beat:
            self._seen[name] = (found.beat, now)
            return False
        return now - since >= found.seconds

    def forget(self, name: str) -> None:
        """The node has ended."""
        self._seen.pop(name, None)


class NodeFile:
    """The file of one node of this process, locked from when it is made until it is closed.

    Args:
        path: Of the file, in a directory that exists.
        seconds: Until the node hangs whose beat does not change.

    Raises:
        OSError: It cannot be made.
    """

    def __init__(self, path: Path, seconds: float) -> None:
        self.path = path
        self._seconds = seconds
        self._announcement = b""
        self._beat = time.time_ns()
        self._file = _made_and_locked(path)
        _open_files.add(self)
        self._write()

    @property
    def is_in_place(self) -> bool:
        """Whether others can find it."""
        return self._file >= 0 and _is_at(self._file, self.path)

    def beat(self) -> None:
        """Show that the node works."""
        self._beat = max(self._beat + 1, time.time_ns())
        os.lseek(self._file, 0, os.SEEK_SET)
        os.write(self._file, _HEAD.pack(self._beat, self._seconds, zlib.crc32(self._announcement)))

    def announce(self, announcement: bytes) -> bool:
        """Beat, and change what the node announces; whether it was something else before."""
        if announcement == self._announcement:
            self.beat()
            return False
        self._announcement = announcement
        self._write()
        return True

    def _write(self) -> None:
        self._beat = max(self._beat + 1, time.time_ns())
        head = _HEAD.pack(self._beat, self._seconds, zlib.crc32(self._announcement))
        os.lseek(self._file, 0, os.SEEK_SET)
        os.write(self._file, head + self._announcement)
        os.ftruncate(self._file, len(head) + len(self._announcement))

    def close(self) -> None:
        """End the node: remove the file and let go of it; idempotent."""
        if self._file >= 0:
            if os.name == "nt":  # which removes no file that is open
                self.abandon()
            with contextlib.suppress(OSError):
                self.path.unlink()
            self.abandon()

    def abandon(self) -> None:
        """Let go of the file, and leave it to the process that has it too."""
        if self._file >= 0:
            os.close(self._file)
            self._file = -1


_open_files: "weakref.WeakSet[NodeFile]" = weakref.WeakSet()


def _after_fork_in_child() -> None:
    for each in tuple(_open_files):  # else the lock would outlive the parent
        each.abandon()
    _open_files.clear()


on_fork(after_in_child=_after_fork_in_child)


class NodeDirectory:
    """The files of all nodes that work on one store.

    Args:
        path: Of the directory, made when the first node announces itself; for the owner only.
        clock: In seconds; grows only.
    """

    def __init__(self, path: Path, clock: Callable[[], float] = time.monotonic) -> None:
        self.path = path
        self._clock = clock
        self._beats = Beats()
        self._ours: dict[str, NodeFile] = {}

    def made(self, name: str, seconds: float) -> NodeFile:
        """The file of our node ``name``; created again if it was moved away.

        Raises:
            OSError: It cannot be made.
        """
        found = self._ours.get(name)
        if found is not None:
            if found.is_in_place:
                return found
            found.abandon()
        self.path.mkdir(mode=0o700, exist_ok=True)
        self._ours[name] = made = NodeFile(self.path / name, seconds)
        return made

    def remove(self, name: str) -> None:
        """End our node ``name``."""
        if (found := self._ours.pop(name, None)) is not None:
            found.close()
        self._beats.forget(name)

    def close(self) -> None:
        """End all nodes of ours."""
        for name in tuple(self._ours):
            self.remove(name)

    def state(self, name: str) -> State:
        """How the node ``name`` is, as far as this directory has seen."""
        found = self._look_at(name)
        if found is None:
            return "dead"
        return "hangs" if self._beats.hangs(name, found, self._clock()) else "works"

    def working(self) -> dict[str, bytes]:
        """What each node announces that works; the files of dead ones are removed.

        Raises:
            OSError: The directory cannot be read.
        """
        found = {name: self._look_at(name) for name in self._names()}
        now = self._clock()
        return {
            name: each.announcement
            for name, each in found.items()
            if each is not None and not self._beats.hangs(name, each, now)
        }

    def signature(self) -> int:
        """Changes when a node has come, gone or changed its announcement.

        Raises:
            OSError: There is no directory.
        """
        return self.path.stat().st_mtime_ns

    def touch(self) -> None:
        """Change the signature, since a node of ours has changed its announcement."""
        with contextlib.suppress(OSError):  # others notice when they announce themselves
            os.utime(self.path)

    def _names(self) -> list[str]:
        try:
            with os.scandir(self.path) as entries:
                return [entry.name for entry in entries if entry.is_file(follow_symlinks=False)]
        except FileNotFoundError:
            return []

    def _look_at(self, name: str) -> Found | None:
        found = look_at(self.path / name)
        if found is None:
            self._beats.forget(name)
        return found


def look_at(path: Path) -> Found | None:
    """What the file of a node holds; ``None`` if the node is dead, and then the file is removed."""
    try:
        file = os.open(path, os.O_RDWR | getattr(os, "O_BINARY", 0))
    except FileNotFoundError:
        return None
    try:
        if locks.is_locked(file):
            return _read(file)
        if os.name != "nt":  # while it is locked by this observer: a node that is just making it sees that
            with contextlib.suppress(OSError):
                path.unlink()
    finally:
        os.close(file)
    if os.name == "nt":  # which removes no file that is open
        with contextlib.suppress(OSError):
            path.unlink()
    return None


def file_name(node: str) -> str:
    """The name of the file of a node by its id, which may be any text."""
    name = quote(node, safe=" @+=,")
    if not name or name.strip(". ") != name or len(name) > _MAX_NAME:
        return blake2b(node.encode(), digest_size=16).hexdigest()
    return name


def _made_and_locked(path: Path) -> int:
    flags = os.O_RDWR | os.O_CREAT | os.O_EXCL | getattr(os, "O_BINARY", 0)
    for _ in range(_ATTEMPTS):
        try:
            file = os.open(path, flags, 0o600)
        except FileExistsError:
            if look_at(path) is not None:
                raise
            continue
        # An observer that comes before the lock takes it for dead, and removes it.
        if locks.lock_file(file) and _is_at(file, path):
            return file
        os.close(file)
        with contextlib.suppress(OSError):
            path.unlink()
    raise FileExistsError(f"{path} was removed each time it was made")


def _is_at(file: int, path: Path) -> bool:
    try:
        return os.path.samestat(os.fstat(file), path.stat())
    except OSError:
        return False


def _read(file: int) -> Found:
    """What is in a file that its node may be writing: then the announcement may be empty."""
    for _ in range(_ATTEMPTS):
        content = b"".join(_blocks(file))
        if len(content) < _HEAD.size:
            continue
        beat, seconds, check = _HEAD.unpack_from(content)
        if zlib.crc32(content[_HEAD.size :]) == check:
            return Found(beat, seconds, content[_HEAD.size :])
    return Found(0, float("inf"), b"")


def _blocks(file: int) -> Iterable[bytes]:
    os.lseek(file, 0, os.SEEK_SET)
    while block := os.read(file, 1 << 16):
        yield block
