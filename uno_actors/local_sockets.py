"""Unix sockets between processes of one user: where they can be, and who is at the other end."""

import contextlib
import os
import socket
import stat
import struct
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

LONGEST_PATH = 100
"""Bytes; Unix sockets have paths of at most 107, on macOS 103."""


class OpenToOthers(Exception):
    """A directory for sockets that other users can use; the text names it and the remedy."""


def missing() -> str | None:
    """What this system lacks for sockets between processes of one user; ``None`` if it has all."""
    if not hasattr(socket, "AF_UNIX") or not hasattr(os, "getuid"):
        return "this system has no Unix sockets"
    if not hasattr(socket, "SO_PEERCRED") and _local_peercred() is None:
        return "this system does not tell which user is at the other end of a socket"
    return None


def peer_user(connection: Any) -> int:
    """The user at the other end of a Unix socket.

    Linux tells it by ``SO_PEERCRED`` in a struct ucred: process, user, group. macOS and the BSDs tell it by
    ``LOCAL_PEERCRED`` in a struct xucred, which begins with a version and the user; this is what their ``getpeereid``
    reads.
    """
    if hasattr(socket, "SO_PEERCRED"):
        found = connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, struct.calcsize("3i"))
        return int(struct.unpack("3i", found)[1])
    found = connection.getsockopt(_SOL_LOCAL, _local_peercred(), _XUCRED_BYTES)
    return int(struct.unpack_from("=2I", found)[1])


def _local_peercred() -> int | None:
    """The number of the option on this system, ``None`` if it has none."""
    found: int | None = getattr(socket, "LOCAL_PEERCRED", None)
    return found


_SOL_LOCAL = 0
_XUCRED_BYTES = struct.calcsize("=2Ih2x16I")


def above_users() -> list[Path]:
    """Directories that can have one for each user, the best first."""
    runtime = os.environ.get("XDG_RUNTIME_DIR", "")
    places = [Path(runtime), Path(tempfile.gettempdir()), Path("/tmp")]  # noqa: S108 - its owner and mode are checked
    return list(dict.fromkeys(place for place in places if place.is_absolute()))


def of_user() -> str:
    """The name of the directory of this user, below each of `above_users`."""
    return f"uno-actors-{os.getuid()}"


def is_private(directory: Path) -> bool:
    """Whether only this user can use a directory."""
    found = directory.lstat()
    is_open = found.st_uid != os.getuid() or stat.S_IMODE(found.st_mode) & 0o077
    return stat.S_ISDIR(found.st_mode) and not is_open


def private_directory(name: str, is_short: Callable[[Path], bool]) -> Path:
    """A directory of this user alone for sockets, made if it is missing.

    Args:
        name: Of the directory, which is below that of the user.
        is_short: Whether the path of a socket in a directory is short enough.

    Raises:
        OSError: It cannot be made.
        OpenToOthers: Other users can use it.
    """
    places = [above / of_user() / name for above in above_users()]
    directory = next(filter(is_short, places), places[-1])
    for made in (directory.parent, directory):
        made.mkdir(mode=0o700, exist_ok=True)
        if not is_private(made):
            raise OpenToOthers(f"{made} is open to others: remove it, or set XDG_RUNTIME_DIR")
    return directory


def private_listener(path: Path) -> socket.socket:
    """A Unix socket at ``path`` that listens, for this user alone.

    It has its name only when it listens: found before, it would be taken for that of a killed process.

    Raises:
        OSError: It cannot be made.
    """
    nameless = path.with_name(f"{path.name}.new")
    nameless.unlink(missing_ok=True)
    listener = socket.socket(socket.AF_UNIX)
    try:
        # Before it has a name, so that it is never open to others. macOS refuses: there only the user is checked.
        with contextlib.suppress(OSError):
            os.fchmod(listener.fileno(), 0o600)
        listener.bind(str(nameless))
        nameless.chmod(0o600)
        listener.listen(100)
        nameless.rename(path)
    except BaseException:
        listener.close()
        raise
    return listener
