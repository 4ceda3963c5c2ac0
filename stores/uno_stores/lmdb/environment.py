"""The LMDB environment of a store: opening it, beginning transactions, growth, and reopening after a failure."""

import contextlib
import time
from collections.abc import Iterator
from pathlib import Path

import lmdb

from uno_actors.errors import (
    OutcomeUnknown,
    StoreForked,
    StoreFull,
    StoreUnavailable,
    UnoError,
)
from uno_stores.files import Files
from uno_stores.guards import PATIENCE, Gate, can_map
from uno_stores.lmdb.errors import meaning
from uno_stores.lmdb.opening import open_environment, turn_at
from uno_stores.lmdb.options import Options
from uno_stores.lmdb.reader import Reading

LOOK_AT_FILES_EVERY = 0.25
"""Seconds between two checks, by reads, that the files are still in place; every commit checks."""


class Environment:
    """One LMDB environment of this process.

    Args:
        path: Its directory, which is made if it is missing.
        options: How it is opened, and how large it may become.

    Raises:
        StoreFull, StoreUnavailable, StoreFormatError: See `LmdbEventStore`.

    Attributes:
        gate: Admits transactions; the map is replaced while none is open.
        files: The files of the environment, watched since they were opened.
        env: LMDB's environment; replaced when it is opened again.
        databases: Its databases.
        closed: Whether it is closed, or being closed.
        broken: Whether LMDB refuses all use of it, so it must be opened again.
    """

    def __init__(self, path: Path, options: Options) -> None:
        self.path = path
        self.options = options
        self.gate = Gate()
        self.files = Files()
        self.closed = False
        self.broken = False
        self._forked = False
        self._look_at_files_at = 0.0
        self._turn = turn_at(path)
        try:
            self._open()
        except BaseException:
            self._turn.close()
            raise

    def _open(self) -> None:
        try:
            with contextlib.nullcontext() if self.options.read_only else self._turn.taken(PATIENCE):
                self.env, self.databases = open_environment(self.path, self.options)
            lock = self.path / "lock.mdb"
            self.files.watch(self.path / "data.mdb", *[lock] * (lock.exists() or not self.options.read_only))
        except (OSError, TimeoutError) as error:
            raise StoreUnavailable(f"lmdb:{self.path}", str(error)) from error

    def check_open(self) -> None:
        """Check that it may be used.

        Raises:
            StoreForked: It belongs to the parent process.
            StoreUnavailable: It was closed.
        """
        if self._forked:
            raise StoreForked(f"lmdb:{self.path}")
        if self.closed:
            raise StoreUnavailable(f"lmdb:{self.path}", "it was closed")

    @property
    def is_inherited(self) -> bool:
        """Whether this process is a forked child of the one that opened it."""
        return self._forked

    def check_files(self) -> None:
        """Refuse to use files that no other process can find.

        Raises:
            StoreUnavailable: A file was removed or replaced.
        """
        if lost := self.files.lost():
            self._look_at_files_at = 0.0  # each read looks, until they are back
            raise StoreUnavailable(
                f"lmdb:{self.path}", f"{lost} while it was open: put the store back, or open it again"
            )
        self._look_at_files_at = time.monotonic() + LOOK_AT_FILES_EVERY

    def check_files_open(self) -> None:
        """See that it may be used, and that its files are in their place.

        Raises:
            StoreForked, StoreUnavailable: As `check_open` and `check_files`.
        """
        self.check_open()
        self.check_files()

    # --- transactions ---

    @contextlib.contextmanager
    def reading(self) -> Iterator[Reading]:
        """A read transaction; it must be short, because the map cannot grow while it is open."""
        self.check_open()
        try:
            txn = self.begin()
            try:
                yield Reading(txn, self.databases, self.path)
            finally:
                txn.abort()
                self.gate.leave()
        except (lmdb.Error, TimeoutError) as error:
            raise meaning(self.path, error) from error

    @contextlib.contextmanager
    def writing(self) -> Iterator[lmdb.Transaction]:
        """A write transaction, which the body commits.

        Raises:
            lmdb.Error, TimeoutError, StoreUnavailable: It cannot be started.
        """
        txn = self.begin(write=True)
        try:
            yield txn
        finally:
            txn.abort()  # does nothing after a commit
            self._turn.release()
            self.gate.leave()

    def begin(self, *, write: bool = False) -> lmdb.Transaction:
        """Begin a transaction on the whole map, even if another process has enlarged it.

        After its end call `Gate.leave` and, if it writes, `WriteTurn.release`.

        Raises:
            lmdb.Error, TimeoutError, StoreUnavailable: It cannot be started.
        """
        mended = False
        while True:
            self.gate.enter()
            try:
                if write or time.monotonic() >= self._look_at_files_at:
                    self.check_files()
                if not self.broken:
                    return self._begun(write)
            except lmdb.MapResizedError:  # another process has made it grow
                self.gate.leave()
                with self.gate.alone():
                    self.env.set_mapsize(0)
                continue
            except lmdb.PanicError:
                self.broken = True
                self.gate.leave()
                if mended:
                    raise
            except BaseException:
                self.gate.leave()
                raise
            else:
                self.gate.leave()
            self._open_again()
            mended = True

    def _begun(self, write: bool) -> lmdb.Transaction:
        if not write:
            return self.env.begin()
        if self.options.read_only:
            raise StoreUnavailable(f"lmdb:{self.path}", "it was opened for reading only")
        self._turn.take()
        try:
            return self.env.begin(write=True)
        except BaseException:
            self._turn.release()
            raise

    def _open_again(self) -> None:
        """Reopen it: LMDB refuses all use of an environment whose meta page it could not write."""
        with self.gate.alone():
            if self.broken:  # else another thread was faster
                self.check_files()  # else new ones would be made in their place
                self.env.close()
                try:
                    self._open()
                except UnoError as error:
                    raise lmdb.Error(f"it could not be opened again: {error}") from error
                self.broken = False

    # --- its size ---

    def grow(self) -> bool:
        """Double the map, within its limit; return whether it has grown."""
        try:
            with self.gate.alone():
                size = self.env.info()["map_size"]
                grown = 2 * size if self.options.max_size is None else min(2 * size, self.options.max_size)
                if grown <= size or not can_map(grown):
                    return False
                self.env.set_mapsize(grown)
        except TimeoutError:
            return False
        return True

    def used_up(self) -> StoreFull:
        """The error for a map that cannot grow."""
        name, limit = f"lmdb:{self.path}", self.options.max_size
        with self.gate:
            size = self.env.info()["map_size"]
        if limit is not None and size >= limit:
            return StoreFull(name, f"its limit of {size:,} bytes is reached; open it with a larger max_size")
        return StoreFull(name, f"its map of {size:,} bytes is used up and there is no address space for more")

    # --- failures ---

    def refused(self, error: Exception) -> Exception:
        """The error to raise for ``error`` when it is certain that nothing was recorded."""
        if isinstance(error, lmdb.MapFullError):
            return self.used_up()
        return meaning(self.path, error) if isinstance(error, (lmdb.Error, TimeoutError)) else error

    def undecided(self, error: Exception) -> Exception:
        """The error to raise for a failed commit: nothing was recorded, unless writing the meta page failed."""
        if isinstance(error, lmdb.Error):
            try:
                with self.gate, self._turn.taken(PATIENCE):
                    self.env.begin(write=True).abort()
            except (lmdb.Error, TimeoutError):
                self.broken = True
            else:
                return self.refused(error)
        return OutcomeUnknown(f"store lmdb:{self.path}", str(error))

    def check_readers(self) -> None:
        """Free the slots of dead readers: until then the pages that they read are kept, and the file grows."""
        with contextlib.suppress(lmdb.Error), self.gate:  # only the size of the file depends on it
            self.env.reader_check()

    # --- the end ---

    def close(self) -> None:
        """Close it once no transaction of this process is open."""
        while not self.gate.lock(PATIENCE):  # a copy is being made
            pass
        try:
            self.env.close()
        finally:
            self._turn.close()
            self.gate.unlock()

    def abandon(self, *, quiet: bool) -> None:
        """See `uno_stores.guards.Forkable`."""
        self._forked = self.closed = True
        self._turn.close()
        if quiet:
            self.env.close()
