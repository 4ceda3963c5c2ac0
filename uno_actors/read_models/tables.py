"""How far each read model has come: two tables in the program's database, and the statements for them.

All functions on a `Session` work in its transaction and leave its end to the caller.
"""

from dataclasses import dataclass

from sqlalchemy import (
    BigInteger,
    Boolean,
    Column,
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
from sqlalchemy.ext.asyncio import AsyncEngine
from sqlalchemy.orm import Session

from uno_actors.errors import UnoError

METADATA = MetaData()
"""The two tables, for a migration tool such as Alembic; else `create_schema` makes them."""

read_models = Table(
    "uno_read_models",
    METADATA,
    Column("name", String(300), primary_key=True),
    Column("version", Integer, primary_key=True, autoincrement=False),
    # All events up to here are counted.
    Column("position", BigInteger, nullable=False),
    # Who fills it: what another process still writes is undone.
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
        name: The handler's name.
        version: The version of its tables.
        writer: A random name, of one run of the handler.
    """

    name: str
    version: int
    writer: str


@dataclass(frozen=True, slots=True)
class Progress:
    """How far a read model has come.

    Attributes:
        position: All events up to here are counted.
        building: Whether it has not reached the end of the log yet.
        counted_later: Positions beyond ``position`` that are counted nevertheless.
    """

    position: int
    building: bool
    counted_later: frozenset[int] = frozenset()


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


_OF_NAME = (read_models.c.name == bindparam("name_")) & (read_models.c.version == bindparam("version_"))
_HELD = _OF_NAME & (read_models.c.writer == bindparam("writer_"))
_FIND = (
    select(read_models.c.position, read_models.c.building, read_models.c.writer)
    .where(_OF_NAME)
    .with_for_update()
)
_CLAIM = update(read_models).where(_OF_NAME).values(writer=bindparam("writer_"))
_ADVANCE = update(read_models).where(_HELD).values(position=bindparam("to"))
_REBUILD = update(read_models).where(_HELD).values(position=0, building=True)
_LIVE = update(read_models).where(_HELD).values(building=False, position=bindparam("to"))
_OTHERS = delete(read_models).where(
    read_models.c.name == bindparam("name_"), read_models.c.version != bindparam("version_")
)
_RETRIED = (retried.c.name == bindparam("name_")) & (retried.c.version == bindparam("version_"))
_LATER = select(retried.c.position).where(_RETRIED)
_FORGET = delete(retried).where(_RETRIED)
_OTHERS_RETRIED = delete(retried).where(
    retried.c.name == bindparam("name_"), retried.c.version != bindparam("version_")
)
_IS_RETRIED = select(retried.c.position).where(_RETRIED, retried.c.position == bindparam("at"))


def claim(session: Session, place: Place, *, anew: bool = False) -> Progress | None:
    """The progress of a read model, which from now on only this writer can move.

    Args:
        session: In a transaction.
        place: Of the read model.
        anew: Whether to pay no heed to what is there: the log did not outlive the last process.

    Returns:
        ``None`` if it is new, or starts over: `begin` must follow.
    """
    names = _names(place)
    row = session.execute(_FIND, names).first()
    if row is None:
        return None
    session.execute(_CLAIM, names)
    if anew:
        return None
    later = session.execute(_LATER, names).scalars()
    return Progress(row.position, row.building, frozenset(at for at in later if at > row.position))


def begin(session: Session, place: Place) -> None:
    """Let a read model start before the first event.

    Raises:
        TakenOver: Another process fills it.
    """
    names = _names(place)
    session.execute(_FORGET, names)
    if session.execute(_FIND, names).first() is None:
        values = {"name": place.name, "version": place.version, "writer": place.writer}
        session.execute(insert(read_models), {**values, "position": 0, "building": True})
        return
    _one(session, _REBUILD, names)


def advance(session: Session, place: Place, position: int) -> None:
    """Note that all events up to ``position`` are counted.

    Raises:
        TakenOver: Another process fills it.
    """
    _one(session, _ADVANCE, {**_names(place), "to": position})


def go_live(session: Session, place: Place, position: int) -> None:
    """Note that a read model has reached the end of the log: it replaces those of other versions.

    Raises:
        TakenOver: Another process fills it.
    """
    _one(session, _LIVE, {**_names(place), "to": position})
    session.execute(_OTHERS, _names(place))
    session.execute(_OTHERS_RETRIED, _names(place))


def count_later(session: Session, place: Place, position: int) -> bool:
    """Note that an event which was set aside is counted by this transaction; false if it was already."""
    if session.execute(_IS_RETRIED, {**_names(place), "at": position}).first() is not None:
        return False
    session.execute(insert(retried), {"name": place.name, "version": place.version, "position": position})
    return True


def hold(session: Session, place: Place) -> None:
    """Keep the read model from other writers until the transaction ends.

    Raises:
        TakenOver: Another process fills it.
    """
    row = session.execute(_FIND, _names(place)).first()
    if row is None or row.writer != place.writer:
        raise TakenOver


def _one(session: Session, statement: object, parameters: dict[str, object]) -> None:
    if session.execute(statement, parameters).rowcount != 1:  # type: ignore[call-overload]
        raise TakenOver


def _names(place: Place) -> dict[str, object]:
    return {"name_": place.name, "version_": place.version, "writer_": place.writer}


async def create_schema(engine: AsyncEngine) -> None:
    """Make the two tables in the program's database, where they are missing."""
    async with engine.begin() as connection:
        await connection.run_sync(METADATA.create_all)


def create_schema_sync(engine: Engine) -> None:
    """As `create_schema`, for a synchronous engine."""
    METADATA.create_all(engine)
