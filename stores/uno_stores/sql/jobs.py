"""The jobs of a store, for events and all else: each is done in the transaction of its group."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, TypeVar

from sqlalchemy import Table, bindparam, delete, tuple_
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.ext.asyncio import AsyncConnection

from uno_actors.errors import LeaseLost
from uno_actors.store.codec import StreamId
from uno_actors.store.handler_names import handler_of, handlers_of
from uno_actors.store.records import Append, DeadLetter, Snapshot, ViewChange
from uno_stores.file_leases import Row
from uno_stores.sql.leases import lost_among, swap_row
from uno_stores.sql.schema import checkpoints, dead_letters, snapshots, views

T_co = TypeVar("T_co", covariant=True)


class Work(Protocol[T_co]):
    """A job for the writer."""

    async def write(self, connection: AsyncConnection) -> T_co:
        """Do it in the transaction of ``connection``."""


@dataclass(frozen=True, slots=True)
class Commit:
    """Records for the log; those of a whole group are placed and inserted at once.

    ``held`` are the names that the store has leased, if a request moves a checkpoint.
    """

    requests: Sequence[Append]
    held: Mapping[str, int] | None = None


@dataclass(frozen=True, slots=True)
class SaveProgress:
    """Checkpoints, dead letters, views, dropped dead letters; ``held`` are the names that the store has leased."""

    checkpoints: Mapping[str, int]
    dead_letters: Sequence[DeadLetter]
    views: Sequence[ViewChange]
    dropped: Sequence[tuple[str, int]]
    held: Mapping[str, int]
    store: str

    async def write(self, connection: AsyncConnection) -> None:
        """Write all, unless another process has taken over one of the handlers."""
        if self.held:
            names = {
                *self.checkpoints,
                *(letter.handler for letter in self.dead_letters),
                *(handler for handler, _ in self.dropped),
            }
            await _fence(
                connection, self.held, handlers_of(names, (each[:2] for each in self.views)), self.store
            )
        moved = [{"handler": name, "position": at} for name, at in sorted(self.checkpoints.items())]
        await upsert(connection, checkpoints, moved)
        letters = {(each.handler, each.position): _letter_row(each) for each in self.dead_letters}
        await upsert(connection, dead_letters, [letters[key] for key in sorted(letters)])
        await _change(connection, self.views)
        await _drop_letters(connection, self.dropped)


@dataclass(frozen=True, slots=True)
class DropDeadLetter:
    """The result is whether there was one."""

    handler: str
    position: int

    async def write(self, connection: AsyncConnection) -> bool:
        """Remove it."""
        return await _drop_letters(connection, [(self.handler, self.position)]) > 0


@dataclass(frozen=True, slots=True)
class DropView:
    """A view, and the checkpoint of the handler of its name."""

    view: str
    held: Mapping[str, int]
    store: str

    async def write(self, connection: AsyncConnection) -> None:
        """Remove both, unless another process has taken over the handler."""
        await _fence(connection, self.held, [handler_of(self.view)], self.store)
        await connection.execute(delete(checkpoints).where(checkpoints.c.handler == self.view))
        await connection.execute(delete(views).where(views.c.view == self.view))


@dataclass(frozen=True, slots=True)
class SwapRow:
    """Put one row of a lease in an SQLite file in the place of another; the result is whether that was there."""

    name: str
    old: Row
    new: Row

    async def write(self, connection: AsyncConnection) -> bool:
        """Do it."""
        return await swap_row(connection, self.name, self.old, self.new)


@dataclass(frozen=True, slots=True)
class SaveSnapshots:
    """One for each stream."""

    snapshots: Sequence[Snapshot]

    async def write(self, connection: AsyncConnection) -> None:
        """Put each in place of the one before it."""
        rows = {each.stream: {**each._asdict(), **each.stream._asdict()} for each in self.snapshots}
        for row in rows.values():
            del row["stream"]
        await upsert(connection, snapshots, [rows[stream] for stream in sorted(rows)])


@dataclass(frozen=True, slots=True)
class DropSnapshots:
    """The result is how many there were."""

    aggregate_type: str | None

    async def write(self, connection: AsyncConnection) -> int:
        """Remove them."""
        statement = delete(snapshots)
        if self.aggregate_type is not None:
            statement = statement.where(snapshots.c.aggregate_type == self.aggregate_type)
        return (await connection.execute(statement)).rowcount


@dataclass(frozen=True, slots=True)
class DropSnapshot:
    """The result is whether there was one."""

    stream: StreamId

    async def write(self, connection: AsyncConnection) -> bool:
        """Remove it."""
        id_, type_ = snapshots.c.aggregate_id, snapshots.c.aggregate_type
        of_stream = (id_ == self.stream.aggregate_id) & (type_ == self.stream.aggregate_type)
        return (await connection.execute(delete(snapshots).where(of_stream))).rowcount > 0


@dataclass(frozen=True, slots=True)
class DropProgress:
    """The checkpoint and the dead letters of one handler; the result is whether there were any."""

    handler: str
    held: Mapping[str, int]
    store: str

    async def write(self, connection: AsyncConnection) -> bool:
        """Remove them, unless another process has taken over the handler."""
        await _fence(connection, self.held, [handler_of(self.handler)], self.store)
        dropped = 0
        for table in (checkpoints, dead_letters):
            statement = delete(table).where(table.c.handler == self.handler)
            dropped += (await connection.execute(statement)).rowcount
        return dropped > 0


Job = Commit | Work[Any]


async def _fence(
    connection: AsyncConnection, held: Mapping[str, int], handlers: Iterable[str], store: str
) -> None:
    """Refuse to write for handlers that are ``held`` but that another process has taken over.

    Raises:
        LeaseLost: There are such handlers.
    """
    if lost := await lost_among(connection, held, handlers):
        raise LeaseLost(store, lost)


async def upsert(connection: AsyncConnection, table: Table, rows: Sequence[dict[str, Any]]) -> None:
    """Insert ``rows``, replacing those with the same keys, in an order that all writers share."""
    if not rows:
        return
    insert = postgresql.insert if connection.dialect.name == "postgresql" else sqlite.insert
    statement = insert(table)
    keys = [column.name for column in table.primary_key]
    new = {name: statement.excluded[name] for name in _names(table) if name not in keys}
    await connection.execute(statement.on_conflict_do_update(index_elements=keys, set_=new), rows)


async def _drop_letters(connection: AsyncConnection, dropped: Sequence[tuple[str, int]]) -> int:
    """Remove those dead letters; how many there were."""
    if not dropped:
        return 0
    wanted = tuple_(dead_letters.c.handler, dead_letters.c.position).in_(sorted(dropped))
    return (await connection.execute(delete(dead_letters).where(wanted))).rowcount


async def _change(connection: AsyncConnection, changes: Sequence[ViewChange]) -> None:
    """Apply the last change of each entry."""
    last = {change[:2]: change for change in changes}
    in_order = [last[entry] for entry in sorted(last)]
    removed = [{"of": view, "at": key} for view, key, value in in_order if value is None]
    if removed:
        entry = (views.c.view == bindparam("of")) & (views.c.key == bindparam("at"))
        await connection.execute(delete(views).where(entry), removed)
    await upsert(connection, views, [change._asdict() for change in in_order if change.value is not None])


def _names(table: Table) -> list[str]:
    return [column.name for column in table.c]


def _letter_row(letter: DeadLetter) -> dict[str, Any]:
    """PostgreSQL's texts have no NUL, which the text of an error may have."""
    return {
        name: value.replace("\0", "\N{SYMBOL FOR NULL}") if isinstance(value, str) else value
        for name, value in letter._asdict().items()
    }
