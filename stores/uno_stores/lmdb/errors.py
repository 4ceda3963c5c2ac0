"""From errors of LMDB and of the disk to the errors that a caller gets."""

import contextlib
import errno
import shutil
from pathlib import Path
from typing import Any

import lmdb

from uno_actors.errors import StoreFormatError, StoreFull, StoreUnavailable, UnoError, WorldError
from uno_stores.locks import NoFileLocks

resource: Any
try:
    import resource
except ModuleNotFoundError:  # Windows limits no files of a process
    resource = None

_DISK_FULL = {getattr(errno, name, errno.ENOSPC) for name in ("ENOSPC", "EDQUOT", "EFBIG")}
_NO_ROOM = 1 << 20
"""Bytes left on a disk that counts as full."""

_DAMAGED = (
    lmdb.CorruptedError,
    lmdb.PageNotFoundError,
    lmdb.BadTxnError,
    lmdb.CursorFullError,
    lmdb.PageFullError,
    lmdb.IncompatibleError,
    lmdb.InvalidError,
)
"""What LMDB raises about pages that it did not write."""


def meaning(path: Path, error: Exception) -> UnoError:
    """The error to raise for an error of LMDB when it is certain that nothing was recorded."""
    if isinstance(error, _DAMAGED):
        remedy = f"{error}; find the damage with `python -m lmdb verify {path}`, and restore a backup"
        return StoreFormatError(path, f"its pages are damaged: {remedy}")
    name, code = f"lmdb:{path}", getattr(error, "code", None)
    # LMDB reports a write of which the disk took only a part as EIO.
    with contextlib.suppress(OSError):  # a disk that is gone says no more
        if code in _DISK_FULL or ("Input/output error" in str(error) and is_full(path)):
            return StoreFull(name, f"{error}; make room on the disk")
    return StoreUnavailable(name, str(error))


def is_full(path: Path) -> bool:
    """Whether the disk, or the largest file that this process may write, has no room left."""
    room = shutil.disk_usage(path).free
    if resource is not None:
        largest, _ = resource.getrlimit(resource.RLIMIT_FSIZE)
        if largest != resource.RLIM_INFINITY:
            room = min(room, largest - (path / "data.mdb").stat().st_size)
    return room < _NO_ROOM


def cannot_open(name: str, error: OSError) -> WorldError:
    """The error to raise for a directory that cannot be opened, made or written."""
    if error.errno in _DISK_FULL:
        return StoreFull(name, f"{error.strerror}; make room on the disk")
    if isinstance(error, NoFileLocks):  # its text has the remedy
        return StoreUnavailable(name, str(error.strerror))
    return StoreUnavailable(name, f"{error.strerror or error}; it needs a directory that it may write")
