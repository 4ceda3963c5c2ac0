"""Locks between processes, which the operating system frees when their holder ends, even if it is killed.

POSIX has them in `fcntl`, Windows in `msvcrt`. Where there is neither, as in WebAssembly, each use raises
`NoFileLocks`: a lock that is only a file would outlive a killed process.

`DirectoryLock` is one lock for a directory, `NameLocks` is one lock for each name. `lock_file` locks an open file until
it is closed, and `is_locked` finds out whether another has it locked, in this process or in another.
"""

import errno
import os
import time
from collections.abc import Callable
from hashlib import blake2b
from pathlib import Path
from typing import Any, Protocol

fcntl: Any
msvcrt: Any
try:
    import fcntl
except ModuleNotFoundError:
    fcntl = None
try:
    import msvcrt
except ModuleNotFoundError:
    msvcrt = None


class _DirectoryLock(Protocol):
    def take(self, seconds: float | None) -> bool:
        """Wait for the lock, at most ``seconds``; return whether it was acquired."""

    def release(self) -> None:
        """Release the lock."""

    def close(self) -> None:
        """Close the directory; idempotent."""


class _NameLocks(Protocol):
    def take(self, name: str) -> bool:
        """Lock ``name``, which this process has not locked; return whether it was free."""

    def release(self, name: str) -> None:
        """Unlock ``name``, which this process has locked."""

    def close(self) -> None:
        """Unlock all; idempotent."""


def _within(attempt: Callable[[], bool], seconds: float | None) -> bool:
    """Try until it succeeds, at growing intervals, for at most ``seconds``."""
    end, pause = None if seconds is None else time.monotonic() + seconds, 0.0001
    while not attempt():
        if end is not None and time.monotonic() > end:
            return False
        time.sleep(pause)
        pause = min(2 * pause, 0.01)
    return True


def _digest(name: str) -> bytes:
    return blake2b(name.encode(), digest_size=8).digest()


# --- POSIX -------------------------------------------------------------------------------------------------


class PosixDirectoryLock:
    """A ``flock`` of the directory itself."""

    def __init__(self, directory: Path) -> None:
        self._file = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)

    def take(self, seconds: float | None) -> bool:
        """See `_DirectoryLock`."""
        if seconds is not None:
            return _within(self._try, seconds)
        fcntl.flock(self._file, fcntl.LOCK_EX)
        return True

    def _try(self) -> bool:
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        return True

    def release(self) -> None:
        """See `_DirectoryLock`."""
        if self._file >= 0:
            fcntl.flock(self._file, fcntl.LOCK_UN)

    def close(self) -> None:
        """See `_DirectoryLock`."""
        if self._file >= 0:
            os.close(self._file)
            self._file = -1


class PosixNameLocks:
    """A locked byte for each name in one file: its offset is 62 bits of the name's hash, so no two names collide."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._file: int | None = None

    def take(self, name: str) -> bool:
        """See `_NameLocks`."""
        if self._file is None:
            self._file = os.open(self._path, os.O_RDWR | os.O_CREAT, 0o644)
        try:
            fcntl.lockf(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB, 1, self._byte(name))
        except (BlockingIOError, PermissionError):  # EAGAIN or EACCES, as the system likes
            return False
        return True

    def release(self, name: str) -> None:
        """See `_NameLocks`."""
        if self._file is not None:
            fcntl.lockf(self._file, fcntl.LOCK_UN, 1, self._byte(name))

    def close(self) -> None:
        """See `_NameLocks`."""
        if self._file is not None:
            os.close(self._file)
            self._file = None

    @staticmethod
    def _byte(name: str) -> int:
        return int.from_bytes(_digest(name)) >> 2


def _posix_lock_file(file: int) -> bool:
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _posix_is_locked(file: int) -> bool:
    try:
        fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)  # shared: two observers are not in each other's way
    except BlockingIOError:
        return True
    return False


# --- Windows -----------------------------------------------------------------------------------------------

_FAR = 1 << 30
"""The byte that is locked, behind all contents: what is locked can be read by its owner only."""


def _windows_lock_file(file: int) -> bool:
    os.lseek(file, _FAR, os.SEEK_SET)
    try:
        msvcrt.locking(file, msvcrt.LK_NBLCK, 1)
    except OSError:
        return False
    return True


def _windows_is_locked(file: int) -> bool:
    if not _windows_lock_file(file):
        return True
    os.lseek(file, _FAR, os.SEEK_SET)
    msvcrt.locking(file, msvcrt.LK_UNLCK, 1)
    return False


_OPEN = os.O_RDWR | os.O_CREAT | getattr(os, "O_BINARY", 0)


class WindowsFileLock:
    """A lock on the first byte of a file, which may be empty; the file is made if it is missing."""

    def __init__(self, path: Path) -> None:
        self._file = os.open(path, _OPEN, 0o644)

    def take(self) -> bool:
        """Lock it; return whether it was free."""
        os.lseek(self._file, 0, os.SEEK_SET)
        try:
            msvcrt.locking(self._file, msvcrt.LK_NBLCK, 1)
        except OSError as error:
            if error.errno not in (
                errno.EACCES,
                errno.EDEADLOCK,
            ):  # what Windows says of a byte that is locked
                raise
            return False
        return True

    def release(self) -> None:
        """Release the lock."""
        if self._file >= 0:
            os.lseek(self._file, 0, os.SEEK_SET)
            msvcrt.locking(self._file, msvcrt.LK_UNLCK, 1)

    def close(self) -> None:
        """Close the file; idempotent."""
        if self._file >= 0:
            os.close(self._file)
            self._file = -1


class WindowsDirectoryLock:
    """The lock of a file in the directory, since Windows locks no directories."""

    def __init__(self, directory: Path) -> None:
        self._lock = WindowsFileLock(directory / WRITER)

    def take(self, seconds: float | None) -> bool:
        """See `_DirectoryLock`."""
        return _within(self._lock.take, seconds)

    def release(self) -> None:
        """See `_DirectoryLock`."""
        self._lock.release()

    def close(self) -> None:
        """See `_DirectoryLock`."""
        self._lock.close()


class WindowsNameLocks:
    """A file for each name in one directory: file offsets on Windows have too few bits for a hash of the name."""

    def __init__(self, path: Path) -> None:
        self._directory = path
        self._held: dict[str, WindowsFileLock] = {}

    def take(self, name: str) -> bool:
        """See `_NameLocks`."""
        self._directory.mkdir(exist_ok=True)
        lock = WindowsFileLock(self._directory / _digest(name).hex())
        if not lock.take():
            lock.close()
            return False
        self._held[name] = lock
        return True

    def release(self, name: str) -> None:
        """See `_NameLocks`."""
        if (lock := self._held.pop(name, None)) is not None:
            lock.release()
            lock.close()

    def close(self) -> None:
        """See `_NameLocks`."""
        for name in tuple(self._held):
            self.release(name)


# --- neither -----------------------------------------------------------------------------------------------


class NoFileLocks(OSError):
    """This system has no locks of files."""

    def __init__(self) -> None:
        text = (
            "this system has no locks of files; a store in memory (memory:) or a PostgreSQL store needs none"
        )
        super().__init__(errno.ENOTSUP, text)


class _NoNameLocks:
    def __init__(self, path: Path) -> None:
        self._path = path

    def take(self, name: str) -> bool:
        raise NoFileLocks

    def release(self, name: str) -> None:
        pass

    def close(self) -> None:
        pass


def _no_file_lock(file: int) -> Any:
    raise NoFileLocks


def _no_directory_lock(directory: Path) -> _DirectoryLock:
    raise NoFileLocks


WRITER = "writer.lock"
"""The file of the lock for a directory on Windows."""

DirectoryLock: Callable[[Path], _DirectoryLock]
NameLocks: Callable[[Path], _NameLocks]
lock_file: Callable[[int], bool]
"""Lock an open file until it is closed, in this process and in its children; whether no other had it."""
is_locked: Callable[[int], bool]
"""Whether another has the file locked; if not, no other can lock it until ``file`` is closed (except on Windows)."""
if fcntl is not None:
    DirectoryLock, NameLocks = PosixDirectoryLock, PosixNameLocks
    lock_file, is_locked = _posix_lock_file, _posix_is_locked
elif msvcrt is not None:
    DirectoryLock, NameLocks = WindowsDirectoryLock, WindowsNameLocks
    lock_file, is_locked = _windows_lock_file, _windows_is_locked
else:
    DirectoryLock, NameLocks = _no_directory_lock, _NoNameLocks
    lock_file, is_locked = _no_file_lock, _no_file_lock
