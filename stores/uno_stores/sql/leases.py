"""Leases: how names are held beside an SQLite file, in memory, and in PostgreSQL."""

import os
import secrets
import time
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from sqlalchemy import Executable, select, text, update
from sqlalchemy.dialects import sqlite
from sqlalchemy.ext.asyncio import AsyncConnection

from uno_stores.file_leases import Row
from uno_stores.guards import LeaseFile
from uno_stores.sql.log import IDLE_LIMIT
from uno_stores.sql.schema import leases

# --- SQLite ------------------------------------------------------------------------------------------------

_files: dict[str, "SharedLeaseFile"] = {}
"""Those of this process by their real paths: to close a second descriptor of a file would free its locks."""


class SharedLeaseFile:
    """The names that the stores of this process hold in one `LeaseFile`, which closes with the last store.

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
        """The one for the file ``path``."""
        found = _files.get(os.path.realpath(path))
        if found is None or found._pid != os.getpid():
            found = _files[os.path.realpath(path)] = cls(path)
        return found

    def join(self) -> None:
        """Note that one more store uses it; `leave` must follow."""
        self._users += 1

    def take(self, name: str) -> bool:
        """Take ``name``; return whether it was free.

        Raises:
            OSError: The file cannot be made or locked.
        """
        if name in self._held or (self._file is not None and not self._file.take(name)):
            return False
        self._held.add(name)
        return True

    def has(self, name: str) -> bool:
        """Whether a store of this process has ``name``."""
        return name in self._held

    def release(self, name: str) -> None:
        """Release ``name``."""
        self._held.discard(name)
        if self._file is not None:
            self._file.release(name)

    def leave(self) -> None:
        """Note that one store less uses it."""
        self._users -= 1
        if not self._users and self._file is not None:
            self._file.close()
            if _files.get(self._key) is self:
                del _files[self._key]


# --- PostgreSQL --------------------------------------------------------------------------------------------

_KEY = "hashtextextended('uno_actors lease ' || current_schema() || ' ' || :name, 0)"
_LOCK = text(f"SELECT pg_try_advisory_lock({_KEY})")
_UNLOCK = text(f"SELECT pg_advisory_unlock({_KEY})")
_END = "clock_timestamp() + make_interval(secs => CAST(:seconds AS double precision))"
_TAKE = text(
    # In one statement: if the connection were lost in between, a lost lock would be counted as held.
    f"""
    WITH tried AS MATERIALIZED (
        SELECT CASE WHEN :session THEN pg_try_advisory_lock({_KEY}) ELSE pg_try_advisory_xact_lock({_KEY}) END AS locked
    ), done AS (
        INSERT INTO uno_leases AS known (name, taken, ends, by_session, holder)
        SELECT CAST(:name AS text), 1, {_END}, :session AND locked, CAST(:holder AS text) FROM tried
        WHERE locked OR EXISTS (
            SELECT 1 FROM uno_leases
            WHERE name = :name AND (ends <= clock_timestamp() OR holder = :holder)
        )
        ON CONFLICT (name) DO UPDATE SET taken = known.taken + 1, ends = excluded.ends,
            by_session = excluded.by_session, holder = excluded.holder
        WHERE known.holder = excluded.holder OR known.ends <= clock_timestamp()
            OR ((known.ends IS NULL OR known.by_session) AND (SELECT locked FROM tried))
        RETURNING taken
    )
    SELECT ARRAY[coalesce((SELECT taken FROM done), 0), CAST((SELECT locked FROM tried) AS int)]
    """  # noqa: S608 - constants
)
_RENEW = text(
    # Locked in the order of their names, as every writer of progress locks them.
    f"""
    WITH ours AS (
        SELECT known.name, held.locked FROM uno_leases AS known
        JOIN unnest(CAST(:names AS text[]), CAST(:taken AS bigint[]), CAST(:locked AS boolean[]))
            AS held(name, taken, locked) ON known.name = held.name AND known.taken = held.taken
        ORDER BY known.name FOR UPDATE OF known
    ), renewed AS (
        UPDATE uno_leases SET ends = {_END}, by_session = ours.locked FROM ours
        WHERE uno_leases.name = ours.name RETURNING uno_leases.name
    )
    SELECT coalesce(array_agg(name), CAST(ARRAY[] AS text[])) FROM renewed
    """  # noqa: S608 - constants
)
_RELEASE = text(
    "UPDATE uno_leases SET ends = NULL, by_session = false, holder = NULL WHERE name = :name AND taken = :taken"
    " RETURNING taken"
)
_IS_LEASED = f"""
    CASE WHEN ends IS NULL OR (ends > clock_timestamp() AND by_session)
    THEN NOT pg_try_advisory_xact_lock({_KEY.replace(":name", "name")}) ELSE ends > clock_timestamp() END
"""
"""Whether a row has a holder. One without an end is of an earlier version, or is free: then the lock decides."""
IS_LEASED = text(f"SELECT coalesce((SELECT {_IS_LEASED} FROM uno_leases WHERE name = :name), false)")  # noqa: S608 - constants
LEASED_AMONG = text(
    f"SELECT name FROM uno_leases WHERE name = ANY(CAST(:names AS text[])) AND {_IS_LEASED}"  # noqa: S608 - constants
)


LOCK_AGAIN_AFTER = 1.0
"""Seconds in which others may take the names of a holder that was cut off: a standby asks once a second."""


class ServerLeases:
    """Names held in ``uno_leases`` of PostgreSQL until a time by the clock of the server, and renewed before it.

    A holder that hangs or is cut off loses them, and they need no session: they work through a pooler that gives each
    transaction another connection. On a direct connection a store also holds an advisory lock for each name, which the
    server frees when the connection ends, so the names of a dead process are free at once.

    The table counts how often each name was taken, and a write under a name checks in the same transaction that the
    count is unchanged: see `lost_among`. That count, not a clock, is the fence. A name whose end has passed and that no
    other process has taken is simply renewed.

    Args:
        ask: Executes a statement in its own transaction, and returns one value.
        seconds: Until a lease ends that is not renewed.
        lost: Called with each name that another process has taken over.
        renewed: Called with each name that is surely held until a time, by `time.monotonic`.

    Attributes:
        held: The names, each with the count of its taking.
        locked: The names that the session has locked.
        requested: The names that are being taken.
    """

    def __init__(
        self,
        ask: Callable[[Any, dict[str, Any]], Awaitable[Any]],
        seconds: float,
        lost: Callable[[str], None],
        renewed: Callable[[str, float], None],
    ) -> None:
        self._ask = ask
        self._seconds = seconds
        self._tell_lost = lost
        self._tell_renewed = renewed
        self._holder = secrets.token_hex(8)
        self.by_session = True
        self.held: dict[str, int] = {}
        self.locked: set[str] = set()
        self.requested: set[str] = set()
        self._renew_at = 0.0

    async def take(self, name: str) -> bool:
        """Take ``name``; return whether it was free."""
        if name in self.held or name in self.requested:
            return False
        self.requested.add(name)  # all users of a connection share its locks
        begun = time.monotonic()
        try:
            taken, locked = await self._ask(
                _TAKE, {"name": name, "session": self.by_session, **self._terms()}
            )
        finally:
            self.requested.discard(name)
        if locked and self.by_session:
            self.locked.add(name)
        if not taken:
            await self._unlock(name)
            return False
        if not self.held:
            self._renew_at = begun + self._seconds / 3
        self.held[name] = taken
        self._tell_renewed(name, begun + self._seconds)
        return True

    async def release(self, name: str) -> None:
        """Release ``name``."""
        taken = self.held.pop(name, None)
        if taken is not None:
            await self._ask(_RELEASE, {"name": name, "taken": taken})
            await self._unlock(name)

    def unlocked(self) -> None:
        """Note that the connection has ended, and the locks with it: others get time to take the names."""
        if self.locked:
            self._renew_at = time.monotonic() + LOCK_AGAIN_AFTER
        self.locked.clear()

    @property
    def due(self) -> float:
        """Seconds until they must be renewed; 0 or less means now. Without any, a third of the time of a lease."""
        return self._renew_at - time.monotonic() if self.held else self._seconds / 3

    async def renew(self) -> None:
        """Renew all held names, except those that another process has taken."""
        if not self.held:
            return
        begun = time.monotonic()
        for name in self.held.keys() - self.locked if self.by_session else ():
            if await self._ask(_LOCK, {"name": name}):
                self.locked.add(name)
        names = sorted(self.held)
        ours = {name: self.held[name] for name in names if name in self.held}
        found = await self._ask(
            _RENEW,
            {"names": list(ours), "taken": list(ours.values()), "locked": [n in self.locked for n in ours]}
            | self._terms(),
        )
        self._renew_at = begun + self._seconds / 3
        for name in found:
            self._tell_renewed(name, begun + self._seconds)
        for name in ours.keys() - set(found):
            if self.held.get(name) == ours[name]:  # otherwise it was released while the server was asked
                await self._unlock(name)
                self._tell_lost(name)
        for name in (
            self.locked - self.held.keys() - self.requested
        ):  # released while it was being locked again
            await self._unlock(name)

    async def _unlock(self, name: str) -> None:
        if name in self.locked:
            self.locked.discard(name)
            await self._ask(_UNLOCK, {"name": name})

    def _terms(self) -> dict[str, Any]:
        return {"seconds": self._seconds, "holder": self._holder}


# --- both --------------------------------------------------------------------------------------------------


def read_rows(names: Iterable[str]) -> Executable:
    """Selects the names that have a row in an SQLite file, how often each was taken, and its nodes."""
    return select(leases.c.name, leases.c.taken, leases.c.holder).where(leases.c.name.in_(sorted(names)))


def row_from(taken: int, nodes: str | None) -> Row:
    """The row of an SQLite file, whose column ``holder`` has the nodes of `Row` with a space between."""
    holder, _, keeper = (nodes or "").partition(" ")
    return Row(taken, holder, keeper)


def _nodes_of(row: Row) -> str | None:
    return f"{row.holder} {row.keeper}" if row.holder or row.keeper else None


async def swap_row(connection: AsyncConnection, name: str, old: Row, new: Row) -> bool:
    """See `uno_stores.file_leases.Rows.swap`."""
    values = {"taken": new.taken, "holder": _nodes_of(new)}
    same = (leases.c.taken == old.taken) & leases.c.holder.is_not_distinct_from(_nodes_of(old))
    changed = update(leases).where(leases.c.name == name, same).values(values).returning(leases.c.taken)
    # The first statement writes: a reader that became a writer could be refused at once.
    if (await connection.execute(changed)).first() is not None:
        return True
    if old != Row():
        return False
    made = sqlite.insert(leases).values(name=name, **values).on_conflict_do_nothing()
    return (await connection.execute(made.returning(leases.c.taken))).first() is not None


async def lost_among(
    connection: AsyncConnection, held: Mapping[str, int], names: Iterable[str]
) -> Sequence[str]:
    """The ``names`` that are ``held`` but that others have taken since.

    Others cannot take the rest before the transaction ends.
    """
    ours = sorted(held.keys() & set(names))
    if not ours:
        return ()
    wanted = leases.c.name.in_(ours)
    statement: Executable
    if connection.dialect.name == "postgresql":
        statement = (
            select(leases.c.name, leases.c.taken, IDLE_LIMIT)
            .where(wanted)
            .order_by(leases.c.name)
            .with_for_update(read=True)
        )
    else:  # a reader that became a writer could be refused at once; the first statement of a writer waits
        statement = (
            update(leases).where(wanted).values(taken=leases.c.taken).returning(leases.c.name, leases.c.taken)
        )
    found = {row.name: row.taken for row in await connection.execute(statement)}
    return [name for name in ours if found.get(name) != held[name]]
