"""What an LMDB environment needs to be safe: in one process, across ``fork``, and between processes.

- `Gate`: the map is replaced or closed only while no transaction of this process uses it.
- `Forkable`: a forked child lets go of what it has inherited, so that it can open the store anew.
- `WriteTurn`: one process at a time writes, also where processes of two namespaces have the same number.
- `LeaseFile`: a name is held by one process at a time; the kernel frees what a dead process held.
- `reserve_lock_file` and `can_map`: no crash by a full disk, no loss of the map by a full address space.
"""

import contextlib
import fcntl
import mmap
import os
import threading
import time
import weakref
from collections.abc import Iterator
from hashlib import blake2b
from pathlib import Path
from typing import Protocol

PATIENCE = 10.0
"""Seconds to wait for the transactions of this process before the map may be replaced."""
FORK_PATIENCE = 5.0
"""Seconds that a fork waits for them, so that the child can close the environment it has inherited."""
READER_BYTES = 64
"""Bytes of one reader in LMDB's lock file."""


class Gate:
    """Transactions pass together; who replaces the map passes alone."""

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
        """Keep newcomers out and wait for those inside; whether they left in time. If so `unlock` must follow."""
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
        """Let transactions pass again."""
        with self._changed:
            self._locked = False
            self._changed.notify_all()

    @contextlib.contextmanager
    def alone(self) -> Iterator[None]:
        """Pass when no transaction is inside.

        Raises:
            TimeoutError: One did not end within `PATIENCE` seconds.
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
        """In the child: close what was inherited, if ``quiet``: no transaction was open; refuse all use."""


_forkables: "weakref.WeakSet[Forkable]" = weakref.WeakSet()
_locked: list[Forkable] = []


def guard_forks(forkable: Forkable) -> None:
    """Have ``forkable`` abandoned in each child that is forked from now on."""
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


os.register_at_fork(
    before=_before_fork, after_in_parent=_after_fork_in_parent, after_in_child=_after_fork_in_child
)


class WriteTurn:
    """The turn to write in one directory, which one thread of one process has at a time.

    LMDB's own lock is a robust mutex that knows its owner by the number of a thread. In two containers threads have
    the same numbers, and when one is killed while it waits for the other, the kernel takes the mutex for its own and
    lets a third write beside the second. So no writer here waits for that mutex: all wait for this turn, a ``flock`` of
    the directory, which the kernel frees when the process ends, however it ends.
    """

    def __init__(self, directory: Path) -> None:
        self._directory = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        self._thread = threading.Lock()

    def take(self, seconds: float | None = None) -> None:
        """Wait for the turn; `release` must follow.

        Raises:
            TimeoutError: It did not come within ``seconds``.
        """
        if not self._thread.acquire(timeout=-1 if seconds is None else seconds):
            raise TimeoutError(_NO_TURN.format(seconds))
        try:
            if seconds is None:
                fcntl.flock(self._directory, fcntl.LOCK_EX)
            else:
                self._take_within(seconds)
        except BaseException:
            self._thread.release()
            raise

    def _take_within(self, seconds: float) -> None:
        end, pause = time.monotonic() + seconds, 0.0001
        while True:
            try:
                fcntl.flock(self._directory, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                if time.monotonic() > end:
                    raise TimeoutError(_NO_TURN.format(seconds)) from None
            else:
                return
            time.sleep(pause)
            pause = min(2 * pause, 0.01)

    def release(self) -> None:
        """Let others have it."""
        if self._directory >= 0:
            fcntl.flock(self._directory, fcntl.LOCK_UN)
        self._thread.release()

    @contextlib.contextmanager
    def taken(self, seconds: float) -> Iterator[None]:
        """Have the turn.

        Raises:
            TimeoutError: It did not come within ``seconds``.
        """
        self.take(seconds)
        try:
            yield
        finally:
            self.release()

    def close(self) -> None:
        """Let go of the directory."""
        if self._directory >= 0:
            os.close(self._directory)
            self._directory = -1


_NO_TURN = "another process had the turn to write for {:g} s"


class LeaseFile:
    """Names held by this process: a locked byte each in one file.

    The locks are those of POSIX: no child inherits them, and the kernel frees them when the process ends,
    however it ends. They are also freed when any descriptor of the file is closed in this process, so nobody
    else here may open it.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._file: int | None = None
        self._held: set[str] = set()

    def take(self, name: str) -> bool:
        """Whether ``name`` is ours now and was nobody's before.

        Raises:
            OSError: The file cannot be made or locked.
        """
        if name in self._held:
            return False
        if self._file is None:
            self._file = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
        try:
            fcntl.lockf(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB, 1, _byte(name))
        except (BlockingIOError, PermissionError):  # EAGAIN or EACCES, as the system likes
            return False
        self._held.add(name)
        return True

    def release(self, name: str) -> None:
        """Let go of ``name``, if it is held."""
        if name in self._held and self._file is not None:
            self._held.remove(name)
            fcntl.lockf(self._file, fcntl.LOCK_UN, 1, _byte(name))

    def close(self) -> None:
        """Let go of all."""
        self._held.clear()
        if self._file is not None:
            os.close(self._file)
            self._file = None


def _byte(name: str) -> int:
    """The place of ``name`` in the file: 62 bits of its hash, so that no two names meet."""
    return int.from_bytes(blake2b(name.encode(), digest_size=8).digest()) >> 2


def reserve_lock_file(directory: Path, readers: int) -> None:
    """Give LMDB's lock file its room on the disk before LMDB maps it.

    LMDB leaves it sparse: on a full disk the next reader to register would be killed by SIGBUS. To be called
    before the environment is opened, for to close the file afterwards would free LMDB's locks on it.

    Raises:
        OSError: There is no room, or the directory may not be written.
    """
    path = directory / "lock.mdb"
    if path.exists() and (found := path.stat()).st_size and found.st_blocks * 512 >= found.st_size:
        return
    file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
    try:
        # One that exists keeps its size, which is the number of readers for all processes that have it open.
        os.posix_fallocate(file, 0, os.fstat(file).st_size or (readers + 16) * READER_BYTES)
    finally:
        os.close(file)


def can_map(size: int) -> bool:
    """Whether the process has so many bytes of address space left; LMDB loses its map if it tries in vain."""
    try:
        mmap.mmap(-1, size, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS, prot=mmap.PROT_READ).close()
    except (OSError, ValueError, OverflowError):
        return False
    return True
