"""From a directory to an LMDB environment: its files are made or checked before they are read."""

import errno
import os
from pathlib import Path

import lmdb
from lmdb.verify import VerifyError, verify

from uno_actors.errors import StoreFormatError, StoreFull, StoreUnavailable
from uno_stores.guards import WriteTurn, reserve_lock_file
from uno_stores.lmdb.errors import cannot_open, meaning
from uno_stores.lmdb.options import Options
from uno_stores.lmdb.searching import NAMES, Databases
from uno_stores.locks import WRITER

FORMAT = b"1"
PROGRAM = b"uno_actors"
MAX_READERS = 1024
LEASES = "leases.lock"
NODES = "nodes"
LINKS = "links"


def turn_at(path: Path) -> WriteTurn:
    """The turn to write in the directory ``path``, which is made if it is missing.

    Raises:
        StoreFull, StoreUnavailable: It cannot be made or read.
    """
    name = f"lmdb:{path}"
    try:
        path.mkdir(parents=True, exist_ok=True)
        return WriteTurn(path)
    except OSError as error:
        raise cannot_open(name, error) from error


def open_environment(path: Path, options: Options) -> tuple[lmdb.Environment, Databases]:
    """The environment in the directory ``path``, made if there is none, and its databases.

    Raises:
        StoreFull, StoreUnavailable: Its files cannot be made, read or written.
        StoreFormatError: They belong to another program, are damaged, or have a newer format.
    """
    name = f"lmdb:{path}"
    data = path / "data.mdb"
    try:
        ours = ("lock.mdb", LEASES, NODES, LINKS, WRITER)
        if not data.exists() and (
            others := sorted(
                entry.name
                for entry in path.iterdir()
                if entry.name not in ours and not entry.is_socket()  # one that a killed process has left
            )
        ):
            raise StoreFormatError(
                path, f"the directory holds other files ({', '.join(others[:3])}); name an empty one"
            )
        env = _opened_to_read(path, options) if options.read_only else _opened(path, options)
    except OSError as error:
        raise cannot_open(name, error) from error
    except lmdb.Error as error:
        if isinstance(error, (lmdb.InvalidError, lmdb.VersionMismatchError, lmdb.CorruptedError)):
            raise StoreFormatError(path, f"data.mdb is not an LMDB file ({error})") from error
        full = meaning(path, error)
        if isinstance(full, StoreFull):
            raise full from error
        raise StoreUnavailable(name, f"{error}; {_remedy(error)}") from error
    try:
        _check_whole(env, path)
        _check_format(env, path, read_only=options.read_only)
        if not options.read_only:
            env.reader_check()
        return env, Databases.opened(env)
    except lmdb.Error as error:
        env.close()
        raise meaning(path, error) from error
    except BaseException:
        env.close()
        raise


def _opened(path: Path, options: Options) -> lmdb.Environment:
    reserve_lock_file(path, MAX_READERS)
    return lmdb.open(
        str(path),
        map_size=options.map_size,
        max_dbs=8,
        max_readers=MAX_READERS,
        metasync=options.durability == "fsync",
    )


def _opened_to_read(path: Path, options: Options) -> lmdb.Environment:
    """An environment that changes no file but the list of readers, which only a store in use needs.

    A backup has no list. In a directory that this user cannot write to, only other users can write meanwhile.
    """
    for lock in (True, False) if (path / "lock.mdb").exists() else (False,):
        try:
            return lmdb.open(
                str(path),
                map_size=options.map_size,
                readonly=True,
                create=False,
                lock=lock,
                max_dbs=8,
                max_readers=MAX_READERS,
            )
        except lmdb.Error as error:
            if not lock or getattr(error, "code", None) not in (errno.EACCES, errno.EPERM, errno.EROFS):
                raise
    raise AssertionError


def _remedy(error: lmdb.Error) -> str:
    """The remedy when LMDB refuses to open a store."""
    if "already open" in str(error):
        return "share the store that has it open"
    if getattr(error, "code", None) == errno.EAGAIN:  # its lock for the number of this process is another's
        return (
            f"another process that has the number {os.getpid()} too, as the first ones of two containers do, has the"
            " store open, and LMDB tells its readers apart by their numbers: run both in one PID namespace (with"
            " Docker `--pid=container:NAME`, in a pod `shareProcessNamespace: true`), or move to a PostgreSQL store"
        )
    return "it needs a directory that it may write"


def _check_whole(env: lmdb.Environment, path: Path) -> None:
    """Refuse a truncated file: reading the missing pages would kill the process (SIGBUS)."""
    pages = env.info()["last_pgno"] + 1  # before the size, which another process may make grow
    missing = pages * env.stat()["psize"] - (path / "data.mdb").stat().st_size
    # LMDB may leave out free pages at the end, so a short file is examined closely before it is refused.
    if missing > 0 and _damaged(path):
        raise StoreFormatError(path, f"data.mdb was cut off, {missing:,} bytes are missing; restore a backup")


def _damaged(path: Path) -> bool:
    try:
        return bool(verify(str(path)))  # type: ignore[no-untyped-call]
    except VerifyError:
        return True


def _check_format(env: lmdb.Environment, path: Path, *, read_only: bool) -> None:
    """Claim an empty environment, and refuse one that belongs to another program or has a newer format."""
    with env.begin(write=not read_only) as txn:
        if not txn.stat()["entries"] and not read_only:
            meta = env.open_db(b"meta", txn)
            txn.put(b"program", PROGRAM, db=meta)
            txn.put(b"format", FORMAT, db=meta)
        try:
            meta = env.open_db(b"meta", txn, create=False)
            program, found = txn.get(b"program", db=meta), txn.get(b"format", db=meta)
            with txn.cursor() as cursor:
                unknown = sorted(set(map(bytes, cursor.iternext(values=False))).difference(NAMES))
        except (lmdb.NotFoundError, lmdb.IncompatibleError):
            program = None
    if program != PROGRAM:
        raise StoreFormatError(path, "another program's LMDB environment is there; it was left as it was")
    if found != FORMAT:
        shown = (found or b"none").decode(errors="replace")
        raise StoreFormatError(
            path,
            f"its format is {shown}, this version of uno_actors reads {FORMAT.decode()}; use the version that"
            " wrote it",
        )
    if unknown:  # else a new one would be made, empty, beside the one whose name is damaged
        raise StoreFormatError(
            path, f"its pages are damaged: a database is named {unknown[0]!r}; restore a backup"
        )
