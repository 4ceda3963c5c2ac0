"""Other systems, as far as they can be simulated here: names that they lack are removed before importing `uno_actors`.

``WINDOWS`` has a stand-in for `msvcrt` whose locks are real ones; ``MACOS`` has `fcntl`, and lacks what only Linux has;
``NEITHER`` has no locks of files at all.
"""

import asyncio  # the standard library has parts of its own for each system: those of this one are kept
import errno
import importlib
import mmap
import os
import signal
import socket
import sys
import types
from collections.abc import Callable

for name in (
    "subprocess",
    "tempfile",
    "multiprocessing.util",
    "lmdb",
    "pydantic",
    "structlog",
    "typer",
    "rich.console",
    "httpcore",  # with trio, which it imports where it is installed
):
    importlib.import_module(name)

MODULES = ("fcntl", "resource", "pwd", "grp", "termios", "tty", "pty", "posix_ipc", "uvloop")
NAMES: dict[object, tuple[str, ...]] = {
    os: (
        "O_CLOEXEC",
        "O_DIRECTORY",
        "O_NOCTTY",
        "O_NONBLOCK",
        "chown",
        "fchmod",
        "fchown",
        "fork",
        "geteuid",
        "getgid",
        "getpgid",
        "getuid",
        "nice",
        "posix_fallocate",
        "register_at_fork",
        "setsid",
        "statvfs",
        "sysconf",
        "uname",
    ),
    signal: (
        "SIGALRM",
        "SIGCHLD",
        "SIGHUP",
        "SIGKILL",
        "SIGPIPE",
        "SIGQUIT",
        "SIGUSR1",
        "SIGUSR2",
        "pthread_sigmask",
    ),
    socket: ("AF_UNIX", "SO_PEERCRED"),
    mmap: ("MAP_ANONYMOUS", "MAP_ANON", "MAP_PRIVATE", "MAP_SHARED", "PROT_READ", "PROT_WRITE"),
}
ONLY_LINUX: dict[object, tuple[str, ...]] = {
    os: ("posix_fallocate",),
    socket: ("SO_PEERCRED",),
}


def windows() -> None:
    """No POSIX, but locks of bytes in files."""
    sys.modules["msvcrt"] = _msvcrt()
    neither()


def neither() -> None:
    """No POSIX, and no substitute."""
    asyncio.SelectorEventLoop.add_signal_handler = _no_signal_handler  # type: ignore[assignment,method-assign]
    pair, unix = socket.socketpair, socket.AF_UNIX
    socket.socketpair = lambda *_: pair(unix)  # type: ignore[assignment,misc]
    for module in MODULES:
        sys.modules[module] = None  # type: ignore[assignment]
    _take_away(NAMES)


def macos() -> None:
    """POSIX without the functions that only Linux has."""
    _take_away(ONLY_LINUX)


def _take_away(names: dict[object, tuple[str, ...]]) -> None:
    for module, each in names.items():
        for name in each:
            if hasattr(module, name):
                delattr(module, name)


def _no_signal_handler(*_: object) -> None:
    raise NotImplementedError


def _msvcrt() -> types.ModuleType:
    """Locks as on Windows: they belong to the open file, and taking one that is held fails with EACCES."""
    import fcntl

    module = types.ModuleType("msvcrt")
    flock: Callable[[int, int], None] = fcntl.flock
    exclusive, free, busy = fcntl.LOCK_EX | fcntl.LOCK_NB, fcntl.LOCK_UN, errno.EACCES

    def locking(file: int, mode: int, count: int) -> None:
        assert os.lseek(file, 0, os.SEEK_CUR) in (0, 1 << 30)  # one lock for each file here
        assert count == 1
        try:
            flock(file, free if mode == 0 else exclusive)
        except BlockingIOError:
            raise PermissionError(busy, "Permission denied") from None

    module.LK_UNLCK, module.LK_NBLCK, module.locking = 0, 2, locking  # type: ignore[attr-defined]
    return module


SYSTEMS = {"windows": windows, "macos": macos, "neither": neither}
