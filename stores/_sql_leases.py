"""Names that one process has: how they are held beside an SQLite file, in memory, and in PostgreSQL."""

import os
from collections.abc import Awaitable, Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

from sqlalchemy import select, text
from sqlalchemy.ext.asyncio import AsyncConnection

from stores._guards import LeaseFile
from stores._sql_schema import leases

# --- SQLite ------------------------------------------------------------------------------------------------

_files: dict[str, "SharedLeaseFile"] = {}
"""Those of this process by their real paths: to close a second descriptor of a file would free its locks."""


class SharedLeaseFile:
    """The names that the stores of this process hold in one `LeaseFile`, which closes with the last of them.

    Args:
        path: Of the file; ``None`` for a database in memory, whose names are this process's alone.
    """

    def __init__(self, path: Path | None) -> None:
        self._file = None if path is None else LeaseFile(path)
        self._held: set[str] = set()
        self._users = 0
        self._key = "" if path is None else os.path.realpath(path)
        self._pid = os.getpid()

    @classmethod
    def at(cls, path: Path) -> "SharedLeaseFile":
        """That of the file ``path``."""
        found = _files.get(os.path.realpath(path))
        if found is None or found._pid != os.getpid():
            found = _files[os.path.realpath(path)] = cls(path)
        return found

    def join(self) -> None:
        """One more store uses it; `leave` must follow."""
        self._users += 1

    def take(self, name: str) -> bool:
        """Whether ``name`` is ours now and was nobody's before.

        Raises:
            OSError: The file cannot be made or locked.
        """
        if name in self._held or (self._file is not None and not self._file.take(name)):
            return False
        self._held.add(name)
        return True

    def release(self, name: str) -> None:
        """Let go of ``name``."""
        self._held.discard(name)
        if self._file is not None:
            self._file.release(name)

    def leave(self) -> None:
        """One store less uses it."""
        self._users -= 1
        if not self._users and self._file is not None:
            self._file.close()
            if _files.get(self._key) is self:
                del _files[self._key]


# --- PostgreSQL --------------------------------------------------------------------------------------------

_KEY = "hashtextextended('uno_actors lease ' || current_schema() || ' ' || :name, 0)"
_LOCK = text(f"SELECT pg_try_advisory_lock({_KEY})")
_UNLOCK = text(f"SELECT pg_advisory_unlock({_KEY})")
_TAKE = text(
    # In one statement, lest the connection is lost between: a lock that was lost would be counted as had.
    f"WITH tried AS MATERIALIZED (SELECT pg_try_advisory_lock({_KEY}) AS locked)"  # noqa: S608 - constants
    " INSERT INTO uno_leases AS known (name, taken) SELECT CAST(:name AS text), 1 FROM tried WHERE locked"
    " ON CONFLICT (name) DO UPDATE SET taken = known.taken + 1 RETURNING taken"
)
_TAKEN = select(leases.c.taken).where(leases.c.name == text(":name"))


class AdvisoryLeases:
    """Names held by advisory locks of PostgreSQL, which the server frees when their connection ends.

    A connection can end while its process lives on, and then others may take its names. So each taking is
    counted in ``uno_leases``, and whoever writes under a name makes sure, in the same transaction, that it was
    not taken since: see `lost_among`. A name that nobody has taken meanwhile is locked again by `renew`.

    Args:
        ask: Executes a statement on the connection that holds the locks, each by itself, and returns one value.
    """

    def __init__(self, ask: Callable[[Any, dict[str, Any]], Awaitable[Any]]) -> None:
        self._ask = ask
        self.held: dict[str, int] = {}
        self._unlocked: set[str] = set()
        self._taking: set[str] = set()

    async def take(self, name: str) -> bool:
        """Whether ``name`` is ours now and was nobody's before."""
        if name in self.held or name in self._taking:
            return False
        self._taking.add(name)  # the lock of one connection is had by all of its users
        try:
            taken = await self._ask(_TAKE, {"name": name})
        finally:
            self._taking.discard(name)
        if taken is None:
            return False
        self.held[name] = taken
        return True

    async def release(self, name: str) -> None:
        """Let go of ``name``."""
        if self.held.pop(name, None) is not None:
            self._unlocked.discard(name)
            await self._ask(_UNLOCK, {"name": name})

    def unlocked(self) -> None:
        """The connection has ended, and the locks with it."""
        self._unlocked = set(self.held)

    async def renew(self) -> None:
        """Lock again what was held, as far as nobody has it now or had it meanwhile."""
        for name in tuple(self._unlocked):
            if await self._ask(_LOCK, {"name": name}):
                if await self._ask(_TAKEN, {"name": name}) != self.held.get(name):  # or released meanwhile
                    await self._ask(_UNLOCK, {"name": name})
                self._unlocked.discard(name)


async def lost_among(
    connection: AsyncConnection, held: dict[str, int], names: Iterable[str]
) -> Sequence[str]:
    """Those of the ``names`` that are ``held`` and were taken by others since.

    The rest cannot be taken by others before the transaction ends.
    """
    ours = sorted(held.keys() & set(names))
    if not ours:
        return ()
    statement = (
        select(leases.c.name, leases.c.taken).where(leases.c.name.in_(ours)).with_for_update(read=True)
    )
    found = {row.name: row.taken for row in await connection.execute(statement)}
    return [name for name in ours if found.get(name) != held[name]]
