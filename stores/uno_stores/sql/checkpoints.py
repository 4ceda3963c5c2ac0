"""Checkpoints that move in the transaction that records events: locked before the heads of the logs, then written.

All transactions lock leases, then checkpoints in the order of their names, then heads, so that no two wait for each
other. A checkpoint that does not exist cannot be locked: PostgreSQL gets a row at 0 for it, which is removed again in
the same transaction if the move is refused, so that no reader sees it. SQLite locks the file with the first write.
"""

from collections.abc import Mapping, Sequence
from typing import Self

from sqlalchemy import Executable, bindparam, delete, select, text, update
from sqlalchemy.ext.asyncio import AsyncConnection

from uno_actors.errors import InvalidHandler
from uno_actors.store.checkpoints import Moves, moves_of
from uno_actors.store.handler_names import handlers_of
from uno_actors.store.limits import check_handlers
from uno_actors.store.records import Append
from uno_stores.sql.jobs import upsert
from uno_stores.sql.leases import lost_among
from uno_stores.sql.schema import checkpoints

_THESE = checkpoints.c.handler.in_(bindparam("names", expanding=True))
_LOCK: dict[str, Executable] = {
    # A row that was there already has a transaction in xmax, the one that locks it.
    "postgresql": text(
        "INSERT INTO uno_checkpoints AS known (handler, position)"
        " SELECT name, 0 FROM unnest(CAST(:names AS text[])) AS wanted(name) ORDER BY name"
        " ON CONFLICT (handler) DO UPDATE SET position = known.position"
        " RETURNING handler, position, xmax = 0 AS made"
    ),
    "sqlite": update(checkpoints)
    .where(_THESE)
    .values(position=checkpoints.c.position)
    .returning(checkpoints.c.handler, checkpoints.c.position, text("false AS made")),
}


class LockedMoves(Moves):
    """The checkpoints that one transaction moves, locked until it ends.

    Args:
        found: As of `Moves`.
        made: The names of those that do not exist, and that have a row nevertheless.
        lost: As of `Moves`.
        store: As of `Moves`.
    """

    def __init__(
        self, found: Mapping[str, int], made: Sequence[str], lost: Sequence[str], store: str
    ) -> None:
        super().__init__(found, lost, store)
        self._made = made

    @classmethod
    async def locked(
        cls, connection: AsyncConnection, requests: Sequence[Append], held: Mapping[str, int], store: str
    ) -> Self:
        """Those of ``requests``, so that no other transaction moves them before this one ends.

        Args:
            connection: In a transaction, which has locked no head yet.
            requests: Of which some may move a checkpoint.
            held: The names that the store has leased.
            store: Its URL.
        """
        names = sorted({move.name for move in moves_of(requests) if _is_possible(move.name)})
        if not names:
            return cls({}, (), (), store)
        lost = await lost_among(connection, held, handlers_of(names)) if held else ()
        rows = (await connection.execute(_LOCK[connection.dialect.name], {"names": names})).all()
        found = {row.handler: row.position for row in rows if not row.made}
        return cls(found, [row.handler for row in rows if row.made], lost, store)

    async def write(self, connection: AsyncConnection) -> None:
        """Write what was moved, and remove the rows that only locked a name."""
        moved = [{"handler": name, "position": at} for name, at in sorted(self.moved.items())]
        await upsert(connection, checkpoints, moved)
        if unused := [name for name in self._made if name not in self.moved]:
            await connection.execute(delete(checkpoints).where(checkpoints.c.handler.in_(unused)))


async def are_moved(connection: AsyncConnection, moved: Mapping[str, int]) -> bool:
    """Whether these checkpoints have these positions."""
    wanted = checkpoints.c.handler.in_(sorted(moved))
    found = await connection.execute(select(checkpoints).where(wanted).with_for_update())
    return {row.handler: row.position for row in found} == dict(moved)


def _is_possible(name: str) -> bool:
    try:
        check_handlers([name])
    except InvalidHandler:
        return False
    return True
