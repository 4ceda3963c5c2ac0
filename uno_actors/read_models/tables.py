"""How far each read model has come: two tables in the program's database, and the statements for them.

All functions on a `Session` work in its transaction and leave its end to the caller. What concerns all partitions of a
read model is in `uno_actors.read_models.partitions`.
"""

import shlex
from dataclasses import dataclass

from sqlalchemy import (
    BigInteger,
    Boolean,
    Column,
    ColumnElement,
    Engine,
    Integer,
    MetaData,
    String,
    Table,
    bindparam,
    delete,
    insert,
    select,
    update,
)
from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.asyncio import AsyncEngine
from sqlalchemy.orm import Session

from uno_actors.errors import InvalidHandler, UnoError
from uno_actors.store.handler_names import MARK

RUN_BYTES = 8
"""Of the random name of one run, in ``writer``; what follows its hexadecimal digits is the mark of the log."""

METADATA = MetaData()
"""The two tables, for a migration tool such as Alembic; else `create_schema` makes them."""

read_models = Table(
    "uno_read_models",
    METADATA,
    Column("name", String(300), primary_key=True),
    Column("version", Integer, primary_key=True, autoincrement=False),
    # All events up to here are counted.
    Column("position", BigInteger, nullable=False),
    # Who fills it, and from which log: what another process still writes is undone.
    Column("writer", String(32), nullable=False),
    # Whether it has not reached the end of the log yet.
    Column("building", Boolean, nullable=False),
)
retried = Table(
    "uno_read_models_retried",
    METADATA,
    # Events that were set aside and have been counted later, or again from the beginning.
    Column("name", String(300), primary_key=True),
    Column("version", Integer, primary_key=True, autoincrement=False),
    Column("position", BigInteger, primary_key=True, autoincrement=False),
)


@dataclass(frozen=True, slots=True)
class Place:
    """Which read model is filled, and by whom.

    Attributes:
        name: The handler's name, or that of its partition.
        version: The version of its tables.
        writer: A random name, of one run of the handler, and the mark of its log if it has events.
        start: The position before the first event of its log.
        partitions: The number of its partitions; 0 if it has none.
        any_log: Whether it does not matter which log filled its tables, since they are to be emptied.
    """

    name: str
    version: int
    writer: str
    start: int = 0
    partitions: int = 0
    any_log: bool = False

    @property
    def whole(self) -> str:
        """The handler's name without the partition."""
        return self.name.partition(MARK)[0]


@dataclass(frozen=True, slots=True)
class Progress:
    """How far a read model has come.

    Attributes:
        position: All events up to here are counted.
        building: Whether it has not reached the end of the log yet.
        counted_later: Positions beyond ``position`` that are counted nevertheless.
        is_new: Whether it has just begun.
    """

    position: int
    building: bool
    counted_later: frozenset[int] = frozenset()
    is_new: bool = False


class TakenOver(Exception):
    """Another process fills the read model now."""


class NoReadModelTables(UnoError):
    """The tables that keep the progress of read models are missing. Nothing was written."""

    def __init__(self, problem: str) -> None:
        super().__init__(
            f"the tables for the progress of read models cannot be used ({problem}): make them once with"
            " `await create_schema(engine)`, or let your migration tool make those of"
            " `uno_actors.read_models.METADATA`"
        )


class TablesOfAnotherLog(UnoError):
    """A read model has counted the events of another log. Nothing was written.

    Attributes:
        handler: Name of the handler, or of the partition.
        position: All events up to here are counted.
    """

    def __init__(self, handler: str, position: int, reason: str) -> None:
        self.handler = handler
        self.position = position
        name = handler.partition(MARK)[0]
        super().__init__(
            f"read model {handler}: its tables have counted events up to position {position} of another log ({reason}),"
            " so events of this one would be left out. Was the log replaced, or restored from an earlier backup? Then"
            f" empty the tables and fill them anew by `uno-actors handlers reset {shlex.quote(name)} --to earliest`"
            " (which needs on_rebuild), or give the read model a new version. Do two stores, such as those of two"
            " tenants, fill the same tables? Then give each a database, or a handler name, of its own"
        )


_OF_NAME = (read_models.c.name == bindparam("name_")) & (read_models.c.version == bindparam("version_"))
_HELD = _OF_NAME & (read_models.c.writer == bindparam("writer_"))
_FIND = (
    select(read_models.c.position, read_models.c.building, read_models.c.writer)
    .where(_OF_NAME)
    .with_for_update()
)
_CLAIM = (
    update(read_models)
    .where(_OF_NAME, read_models.c.writer == bindparam("found"))  # SQLite has not locked the row
    .values(writer=bindparam("writer_"))
)
_ADVANCE = update(read_models).where(_HELD).values(position=bindparam("to"))
_REBUILD = update(read_models).where(_HELD).values(position=0, building=True)
_LIVE = update(read_models).where(_HELD).values(building=False, position=bindparam("to"))
_RETRIED = (retried.c.name == bindparam("name_")) & (retried.c.version == bindparam("version_"))
_LATER = select(retried.c.position).where(_RETRIED)
_FORGET = delete(retried).where(_RETRIED)
_IS_RETRIED = select(retried.c.position).where(_RETRIED, retried.c.position == bindparam("at"))


def claim(session: Session, place: Place, *, anew: bool = False) -> Progress | None:
    """The progress of a read model, which from now on only this writer can move.

    Args:
        session: In a transaction.
        place: Of the read model.
        anew: Whether to pay no heed to what is there: the log did not outlive the last process.

    Returns:
        ``None`` if it is new, or starts over: `begin` must follow.

    Raises:
        TablesOfAnotherLog: It was filled from a log that began with another event.
        TakenOver: Another process has just claimed it.
    """
    names = names_of(place)
    row = session.execute(_FIND, names).first()
    if row is None:
        return None
    counted, ours = (writer[2 * RUN_BYTES :] for writer in (row.writer, place.writer))
    if counted and counted != ours and not (anew or place.any_log):
        reason = "it began with another event" if ours else "this one has no event"
        raise TablesOfAnotherLog(place.name, row.position, reason)
    _one(session, _CLAIM, {**names, "found": row.writer})
    if anew:
        return None
    later = session.execute(_LATER, names).scalars()
    return Progress(row.position, row.building, frozenset(at for at in later if at > row.position))


def begin(session: Session, place: Place) -> None:
    """Let a read model start before the first event.

    Raises:
        TakenOver: Another process fills it.
        InvalidHandler: It has partitions that have counted events.
    """
    names = names_of(place)
    session.execute(_FORGET, names)
    if session.execute(_FIND, names).first() is None:
        refuse_other_layouts(session, place)
        insert_row(session, place, place.name, place.writer, place.start)
        return
    _one(session, _REBUILD, names)


def advance(session: Session, place: Place, position: int) -> None:
    """Note that all events up to ``position`` are counted.

    Raises:
        TakenOver: Another process fills it.
    """
    _one(session, _ADVANCE, {**names_of(place), "to": position})


def go_live(session: Session, place: Place, position: int) -> None:
    """Note that a read model has reached the end of the log: it replaces those of other versions.

    Raises:
        TakenOver: Another process fills it.
    """
    note_live(session, place, position)
    drop_other_versions(session, place)


def note_live(session: Session, place: Place, position: int) -> None:
    """Note that a read model, or a partition, has reached the end of its log.

    Raises:
        TakenOver: Another process fills it.
    """
    _one(session, _LIVE, {**names_of(place), "to": position})


def insert_row(session: Session, place: Place, name: str, writer: str, position: int) -> None:
    """Add the row of something that begins, in the version of ``place``."""
    row = {"name": name, "version": place.version, "writer": writer, "position": position, "building": True}
    session.execute(insert(read_models), row)


def drop_other_versions(session: Session, place: Place) -> None:
    """Remove what is kept of other versions of a read model, whatever partitions they had."""
    for table in (read_models, retried):
        session.execute(delete(table).where(_of_handler(table, place), table.c.version != place.version))


def refuse_other_layouts(session: Session, place: Place) -> None:
    """Refuse to begin with other partitions than those that have counted events into the same tables.

    Raises:
        InvalidHandler: There are some.
    """
    of_version = _of_handler(read_models, place), read_models.c.version == place.version
    names = session.execute(select(read_models.c.name).where(*of_version)).scalars()
    others = [name for name in names if layout_in(name) != place.partitions]
    if others:
        before, now = (
            f"{each} partitions" if each else "none" for each in (layout_in(others[0]), place.partitions)
        )
        raise InvalidHandler(
            f"handler {place.whole}: version {place.version} of its tables has counted events with {before}, and it has"
            f" {now} now, which cannot tell what those have counted: give it a new version, with on_rebuild to make"
            " the tables"
        )


def layout_in(name: str) -> int:
    """The number of partitions in a name that is kept in the tables; 0 for that of a whole read model."""
    return int(name.rpartition("of")[2]) if MARK in name else 0


def _of_handler(table: Table, place: Place) -> ColumnElement[bool]:
    """The rows of a read model, of all its partitions, and of what they share."""
    return (table.c.name == place.whole) | table.c.name.startswith(f"{place.whole}{MARK}", autoescape=True)


def count_later(session: Session, place: Place, position: int) -> bool:
    """Note that an event which was set aside is counted by this transaction; false if it was already."""
    if session.execute(_IS_RETRIED, {**names_of(place), "at": position}).first() is not None:
        return False
    session.execute(insert(retried), {"name": place.name, "version": place.version, "position": position})
    return True


def hold(session: Session, place: Place) -> None:
    """Keep the read model from other writers until the transaction ends.

    Raises:
        TakenOver: Another process fills it.
    """
    row = session.execute(_FIND, names_of(place)).first()
    if row is None or row.writer != place.writer:
        raise TakenOver


def _one(session: Session, statement: object, parameters: dict[str, object]) -> None:
    if session.execute(statement, parameters).rowcount != 1:  # type: ignore[call-overload]
        raise TakenOver


def names_of(place: Place) -> dict[str, object]:
    """The parameters of statements about its row."""
    return {"name_": place.name, "version_": place.version, "writer_": place.writer}


_AGAIN = (True, True, False)
"""Whether to look again for missing tables: each of the two may be made by another process at the same time."""


async def create_schema(engine: AsyncEngine) -> None:
    """Make the two tables in the program's database, where they are missing; several processes may do so at once.

    Raises:
        InvalidHandler: ``engine`` is not an engine of SQLAlchemy for coroutines.
    """
    if not isinstance(engine, AsyncEngine):
        raise InvalidHandler(
            f"create_schema takes what create_async_engine(url) returns, not {engine!r}; create_schema_sync takes what"
            " create_engine(url) returns"
        )

    for again in _AGAIN:
        try:
            async with engine.begin() as connection:
                await connection.run_sync(METADATA.create_all)
        except DBAPIError:  # another process may have made one of the tables in between
            if not again:
                raise
        else:
            return


def create_schema_sync(engine: Engine) -> None:
    """As `create_schema`, for a synchronous engine."""
    if not isinstance(engine, Engine):
        raise InvalidHandler(
            f"create_schema_sync takes what create_engine(url) returns, not {engine!r}; create_schema takes what"
            " create_async_engine(url) returns"
        )
    for again in _AGAIN:
        try:
            METADATA.create_all(engine)
        except DBAPIError:  # as above
            if not again:
                raise
        else:
            return
