"""Names that one node of this machine has alone: rows in the database of a store, and the files of its nodes.

The row of a name says how often it was taken, which node holds it, and which node keeps the lock of earlier versions.
A name is free when its row has no holder, when the file of its holder shows that the holder is dead, or when the holder
hangs (see `uno_stores.node_files`). So the names of a killed process are free at once, and those of a process that was
stopped, or whose event loop is blocked, after their time. Each taking is counted, and what is written under a name
checks in the same transaction that it was not taken since. That count is the fence; the files only say when to take.

Earlier versions know no rows. They lock each name in a file, which the kernel unlocks when the process ends. So that
nodes of both versions may work side by side, a holder has that lock too, and no node takes a name that a process of an
earlier version has locked. A node that lost a name because it hung keeps the lock until it ends or has the name again:
the row names it as the keeper, and nodes of this version pass the lock over. When the keeper has ended, the holder
locks the name; if a process of an earlier version was faster, the holder gives up the name.
"""

import asyncio
import contextlib
import secrets
import time
from collections.abc import Callable, Coroutine, Iterable, Mapping
from typing import Any, NamedTuple, Protocol

from uno_actors.errors import UnoError
from uno_actors.tasks import begin
from uno_stores.node_files import NodeDirectory, State

LEASE_TIME = 10.0
"""Default number of seconds until a holder that hangs loses its names."""
BEATS = 3
"""How often a holder beats within the time of its leases."""


class Row(NamedTuple):
    """What is stored about one name.

    Attributes:
        taken: How often it was taken; 0 if it never was.
        holder: The file of the node that holds it; empty if none does.
        keeper: The file of the node that keeps the lock of earlier versions; empty if none does.
    """

    taken: int = 0
    holder: str = ""
    keeper: str = ""


def taken_by(ours: str, row: Row, state: Callable[[str], State], *, is_locked: bool) -> Row | None:
    """The row after the node ``ours`` has taken the name of ``row``; ``None`` if the name is not free.

    Args:
        ours: The file of the node.
        row: As it is.
        state: How the node of a file is.
        is_locked: Whether ``ours`` has the lock of earlier versions.
    """
    if row.holder not in ("", ours) and state(row.holder) == "works":
        return None
    if is_locked:
        return Row(row.taken + 1, ours, ours)
    if (
        row.keeper in ("", ours) or state(row.keeper) == "dead"
    ):  # a process of an earlier version has the lock
        return None
    return Row(row.taken + 1, ours, row.keeper)


class Rows(Protocol):
    """The rows in the database of a store. Errors are those of the store."""

    async def read(self, names: Iterable[str]) -> Mapping[str, Row]:
        """The rows of ``names``, of those that have one."""

    async def swap(self, name: str, old: Row, new: Row) -> bool:
        """Put ``new`` in the place of ``old``, durably; nothing is changed if ``old`` is not there any more."""


class NameLocks(Protocol):
    """The locks of earlier versions."""

    def take(self, name: str) -> bool:
        """Lock ``name``; whether it was unlocked."""

    def release(self, name: str) -> None:
        """Unlock ``name``."""


class FileLeases:
    """The names that one store holds.

    Args:
        rows: In the database of the store.
        nodes: The files of all nodes that work on it.
        locks: Those of earlier versions.
        lease_time: Seconds after which this holder loses its names when it hangs.
        lost: Called on the event loop with each name that another node has taken over.
        renewed: Called with each name that is surely held until a time, by `time.monotonic`.

    Attributes:
        held: How often each name that is held had been taken when it was. Lost names stay, until they are released.
    """

    def __init__(
        self,
        rows: Rows,
        nodes: NodeDirectory,
        locks: NameLocks,
        *,
        lease_time: float,
        lost: Callable[[str], None],
        renewed: Callable[[str, float], None],
    ) -> None:
        self._rows = rows
        self._nodes = nodes
        self._locks = locks
        self._lease_time = lease_time
        self._tell_lost = lost
        self._tell_renewed = renewed
        self._ours = f"holder-{secrets.token_hex(8)}"
        self.held: dict[str, int] = {}
        self._locked: set[str] = set()
        self._taking: set[str] = set()
        self._to_release: dict[str, int] = {}
        self._beating: tuple[asyncio.AbstractEventLoop, asyncio.TimerHandle] | None = None
        self._tasks: set[asyncio.Task[None]] = set()
        self._checking = False
        self._is_closed = False

    async def take(self, name: str) -> bool:
        """Take ``name``; whether it was free.

        Raises:
            OSError: The files cannot be made or locked.
        """
        if name in self.held or name in self._taking:
            return False
        self._taking.add(name)
        try:
            return await self._take(name)
        finally:
            self._taking.discard(name)

    async def _take(self, name: str) -> bool:
        row = (await self._rows.read([name])).get(name, Row())
        if row.holder not in ("", self._ours) and self._nodes.state(row.holder) == "works":
            return False  # without a lock for a moment, which would be in the way of another taker
        begun = time.monotonic()
        had_lock = name in self._locked
        is_locked = had_lock or self._locks.take(name)
        taken = False
        try:
            new = taken_by(self._ours, row, self._nodes.state, is_locked=is_locked)
            if new is None or self._is_closed:
                return False
            self._nodes.made(self._ours, self._lease_time).beat()  # before others find the row
            taken = await self._rows.swap(name, row, new)
        except BaseException:
            self._to_release[name] = row.taken + 1  # it may have been written all the same
            raise
        finally:
            if is_locked and not taken and not had_lock:
                self._locks.release(name)
        if taken:
            self._to_release.pop(name, None)
            self.held[name] = new.taken
            self._tell_renewed(name, begun + self._lease_time)
            if is_locked:
                self._locked.add(name)
            self.beat()
        return taken

    async def release(self, name: str) -> None:
        """Let go of ``name``, if it is held. What cannot be written now is tried again later."""
        taken = self.held.pop(name, None)
        if taken is None:
            return
        self._to_release[name] = taken
        with contextlib.suppress(UnoError, OSError):
            await self._write_release(name)

    async def _write_release(self, name: str) -> None:
        """Write that ``name`` is free, unless another node has it."""
        taken = self._to_release[name]
        row = (await self._rows.read([name])).get(name, Row())
        if row[:2] == (taken, self._ours):
            if row.keeper == self._ours:
                self._unlock(name)
            keeper = "" if row.keeper == self._ours else row.keeper
            await self._rows.swap(name, row, Row(taken, "", keeper))
        elif row.keeper != self._ours:  # else others count on the lock
            self._unlock(name)
        if self._to_release.get(name) == taken:
            del self._to_release[name]

    def _unlock(self, name: str) -> None:
        if name in self._locked:
            self._locked.remove(name)
            self._locks.release(name)

    async def is_taken(self, name: str) -> bool:
        """Whether a process has ``name``, even one that hangs; it is locked for a moment to find out.

        Raises:
            OSError: As `take`.
        """
        if name in self.held or name in self._taking:
            return True
        row = (await self._rows.read([name])).get(name, Row())
        if row.holder not in ("", self._ours) and self._nodes.state(row.holder) != "dead":
            return True
        if name in self._locked or self._locks.take(name):
            if name not in self._locked:
                self._locks.release(name)
            return False
        return row.keeper in ("", self._ours) or self._nodes.state(row.keeper) == "dead"

    # --- staying a holder ---

    def beat(self) -> None:
        """Show that this holder works, look what it has lost, and beat again in time, on the running event loop."""
        loop = asyncio.get_running_loop()
        if self._beating is not None:
            if self._beating[0] is loop:
                self._beating[1].cancel()
            else:  # that loop has ended, with the tasks on it
                self._checking = False
            self._beating = None
        if self._is_closed or not (self.held or self._to_release):
            if not self._locked and not self._taking:
                self._nodes.remove(self._ours)
            return
        self._beating = loop, loop.call_later(self._lease_time / BEATS, self.beat)
        if not self._checking:
            self._checking = True
            self.run(self._check())

    def run(self, errand: Coroutine[Any, Any, None]) -> None:
        """Run ``errand``, whose result has no caller, unless the leases are closed first."""
        task = begin(asyncio.get_running_loop(), errand, name="leases")
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _check(self) -> None:
        """Beat, and find out what was lost."""
        try:
            await self.confirm()
        except (UnoError, OSError):  # readers and writers report it; the next beat tries again
            return
        finally:
            self._checking = False

    async def confirm(self) -> None:
        """Beat, and find out what was lost.

        Raises:
            OSError: The files cannot be made or read.
        """
        begun = time.monotonic()
        self._nodes.made(self._ours, self._lease_time).beat()
        for name in tuple(self._to_release.keys() - self.held.keys() - self._taking):
            await self._write_release(name)
        ours = dict(self.held)
        rows = await self._rows.read(ours)
        for name, taken in ours.items():
            if self.held.get(name) != taken:  # released meanwhile
                continue
            row = rows.get(name, Row())
            if row[:2] == (taken, self._ours) and await self._has_lock(name, row):
                self._tell_renewed(name, begun + self._lease_time)
            else:
                self._tell_lost(name)

    async def _has_lock(self, name: str, row: Row) -> bool:
        """Lock ``name`` if its keeper has ended; false if a process of an earlier version has it now."""
        if name in self._locked or (row.keeper and self._nodes.state(row.keeper) != "dead"):
            return True
        if not self._locks.take(name):
            await self._rows.swap(
                name, row, Row(row.taken + 1)
            )  # from now on the fence refuses what is written
            return False
        self._locked.add(name)
        await self._rows.swap(name, row, row._replace(keeper=self._ours))
        return True

    # --- the end ---

    def stop(self) -> None:
        """Beat no more and take no more names; on the event loop."""
        self._is_closed = True
        if self._beating is not None:
            self._beating[1].cancel()
            self._beating = None
        for task in tuple(self._tasks):
            with contextlib.suppress(RuntimeError):  # its event loop is closed
                task.cancel()

    def close(self) -> None:
        """Let go of all names, with the file of this holder: they are free."""
        self._is_closed = True
        self.held.clear()
        self._nodes.remove(self._ours)
        for name in tuple(self._locked):
            self._unlock(name)
