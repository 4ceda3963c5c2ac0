"""What an LMDB environment needs to be safe: in one process, across ``fork``, and between processes.

- `Gate`: the map is replaced or closed only while no transaction of this process uses it.
- `Forkable`: a forked child drops what it has inherited, so it can open the store again.
- `WriteTurn`: one process at a time writes, even if processes in two namespaces have the same process id.
- `LeaseFile`: one process at a time holds a name; the kernel frees the names of a dead process.
- `reserve_lock_file` and `can_map`: a full disk causes no crash, and a full address space does not lose the map.

The locks between processes are those of `uno_stores.locks`, which has them for POSIX and for Windows.
"""

import contextlib
import mmap
import os
import sys
import threading
import weakref
from collections.abc import Iterator
from pathlib import Path
from typing import Protocol

from uno_actors.forks import on_fork
from uno_stores import locks

PATIENCE = 10.0
"""Seconds to wait for the transactions of this process before the map may be replaced."""
FORK_PATIENCE = 5.0
"""Seconds that a fork waits for them, so the child can close the environment that it has inherited."""
READER_BYTES = 64
"""Bytes of one reader in LMDB's lock file."""


class Gate:
    """Lets any number of transactions run at once, and replaces the map only while none runs."""

    def __init__(self) -> None:
        self._changed = threading.Condition(threading.Lock())
        self._inside = 0
        self._locked = False

    def enter(self) -> None:
        """Begin a transaction; `leave` must follow."""
        with self._changed:
            while self._locked:
                self._changed.wait()
            self._inside += 1

    def leave(self) -> None:
        """The transaction has ended."""
        with self._changed:
            self._inside -= 1
            if not self._inside:
                self._changed.notify_all()

    def __enter__(self) -> None:
        self.enter()

    def __exit__(self, *_: object) -> None:
        self.leave()

    def lock(self, seconds: float) -> bool:
        """Admit no new transactions and wait for the open ones; return whether they ended in time.

        If they did, the caller must call `unlock`.
        """
        with self._changed:
            if not self._changed.wait_for(lambda: not self._locked, seconds):
                return False
            self._locked = True
            if self._changed.wait_for(lambda: not self._inside, seconds):
                return True
            self._locked = False
            self._changed.notify_all()
            return False

    def unlock(self) -> None:
        """Admit transactions again."""
        with self._changed:
            self._locked = False
            self._changed.notify_all()

    @contextlib.contextmanager
    def alone(self) -> Iterator[None]:
        """Run the body while no transaction is open.

        Raises:
            TimeoutError: A transaction did not end within `PATIENCE` seconds.
        """
        if not self.lock(PATIENCE):
            raise TimeoutError(f"a transaction of this process did not end within {PATIENCE:g} s")
        try:
            yield
        finally:
            self.unlock()


class Forkable(Protocol):
    """Something that a forked child must not use."""

    gate: Gate

    def abandon(self, *, quiet: bool) -> None:
        """In the child: refuse all use, and, if ``quiet`` (no transaction was open), close what was inherited."""


_forkables: "weakref.WeakSet[Forkable]" = weakref.WeakSet()
_locked: list[Forkable] = []


def guard_forks(forkable: Forkable) -> None:
    """Abandon ``forkable`` in each child process that is forked from now on."""
    _forkables.add(forkable)


def _before_fork() -> None:
    # LMDB must not be closed in the child while a write transaction of a thread that the child lacks is open.
    _locked.extend(each for each in tuple(_forkables) if each.gate.lock(FORK_PATIENCE))


def _after_fork_in_parent() -> None:
    while _locked:
        _locked.pop().gate.unlock()


def _after_fork_in_child() -> None:
    for each in tuple(_forkables):
        each.abandon(quiet=each in _locked)
    _locked.clear()
    _forkables.clear()


on_fork(before=_before_fork, after_in_parent=_after_fork_in_parent, after_in_child=_after_fork_in_child)


class WriteTurn:
    """The turn to write in one directory, which one thread of one process has at a time.

    LMDB's own lock is a robust mutex that identifies its owner by a thread id. Threads in two containers may have the
    same id. If one of them is killed while it waits for the other, the kernel takes it for the owner of the mutex, and
    lets a third thread write beside the second. So no writer here waits for that mutex: all wait for this turn, a lock
    on the directory, which the kernel frees when the process ends, even if it is killed.

    Raises:
        OSError: The directory cannot be opened, or this system has no locks.
    """

    def __init__(self, directory: Path) -> None:
        self._lock = locks.DirectoryLock(directory)
        self._thread = threading.Lock()

    def take(self, seconds: float | None = None) -> None:
        """Wait for the turn; `release` must follow.

        Raises:
            TimeoutError: It did not come within ``seconds``.
        """
        if not self._thread.acquire(timeout=-1 if seconds is None else seconds):
            raise TimeoutError(_NO_TURN.format(seconds))
        taken = False
        try:
            taken = self._lock.take(seconds)
        finally:
            if not taken:
                self._thread.release()
        if not taken:
            raise TimeoutError(_NO_TURN.format(seconds))

    def release(self) -> None:
        """Release the turn."""
        self._lock.release()
        self._thread.release()

    @contextlib.contextmanager
    def taken(self, seconds: float) -> Iterator[None]:
        """Run the body while holding the turn.

        Raises:
            TimeoutError: It did not come within ``seconds``.
        """
        self.take(seconds)
        try:
            yield
        finally:
            self.release()

    def close(self) -> None:
        """Close the directory."""
        self._lock.close()


_NO_TURN = "another process had the turn to write for {:g} s"


class LeaseFile:
    """Names held by this process, by locks that the kernel frees when the process ends, even if it is killed.

    On POSIX no child inherits them. They are also freed when any descriptor of the file is closed in this process, so
    nothing else here may open it.
    """

    def __init__(self, path: Path) -> None:
        self._names = locks.NameLocks(path)
        self._held: set[str] = set()

    def take(self, name: str) -> bool:
        """Take ``name``; return whether it was free.

        Raises:
            OSError: The file cannot be made or locked.
        """
        if name in self._held or not self._names.take(name):
            return False
        self._held.add(name)
        return True

    def release(self, name: str) -> None:
        """Release ``name``, if it is held."""
        if name in self._held:
            self._held.remove(name)
            self._names.release(name)

    def close(self) -> None:
        """Release all names."""
        self._held.clear()
        self._names.close()


def reserve_lock_file(directory: Path, readers: int) -> None:
    """Allocate the disk space of LMDB's lock file before LMDB maps it.

    LMDB leaves the file sparse: on a full disk the next reader to register would be killed by SIGBUS. Call this before
    the environment is opened, because closing the file afterwards would free LMDB's locks on it.

    Where the system cannot reserve disk space (macOS and Windows have no ``posix_fallocate``), a new lock file is
    filled with zeros; an existing one is left alone, since others may use it.

    Raises:
        OSError: There is no room, or the directory may not be written.
    """
    path = directory / "lock.mdb"
    if path.exists() and (found := path.stat()).st_size and bytes_on_disk(found) >= found.st_size:
        return
    file = os.open(path, os.O_RDWR | os.O_CREAT | getattr(os, "O_BINARY", 0), 0o644)
    try:
        # An existing file keeps its size, which sets the number of readers for all processes that have it open.
        size = os.fstat(file).st_size
        if hasattr(os, "posix_fallocate"):
            os.posix_fallocate(file, 0, size or (readers + 16) * READER_BYTES)
        elif not size:
            os.write(file, bytes((readers + 16) * READER_BYTES))
    finally:
        os.close(file)


def bytes_on_disk(found: os.stat_result) -> int:
    """The disk space that a file takes; its size where the system does not report blocks."""
    blocks: int | None = getattr(found, "st_blocks", None)
    return found.st_size if blocks is None else blocks * 512


def can_map(size: int) -> bool:
    """Whether ``size`` bytes of address space are left; LMDB loses its map if an attempt to grow it fails."""
    if not hasattr(mmap, "MAP_ANONYMOUS"):  # Windows would have to find the memory for it
        return sys.maxsize > 2**32
    try:
        mmap.mmap(-1, size, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS, prot=mmap.PROT_READ).close()
    except (OSError, ValueError, OverflowError):
        return False
    return True
