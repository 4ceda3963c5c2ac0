"""A read model with partitions: what they share, so that its tables are made once, and shown once all have filled them.

Each partition has a row of its own, under its name. One more row stands for the read model as a whole, under a name
such as ``Orders@of16``: ``writer`` is the last request to start over that was carried out, and ``building`` is false
once all partitions have reached the ends of their logs. Transactions lock that row before those of partitions.
"""

from typing import NamedTuple

from sqlalchemy import bindparam, delete, func, select, update
from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import Session

from uno_actors.read_models.tables import (
    Place,
    Progress,
    TakenOver,
    claim,
    drop_other_versions,
    insert_row,
    note_live,
    read_models,
    refuse_other_layouts,
    retried,
)
from uno_actors.store.handler_names import MARK, partition_name

_SHARED = (read_models.c.name == bindparam("shared")) & (read_models.c.version == bindparam("of_version"))
_LOCK = update(read_models).where(_SHARED).values(position=0)  # a database without row locks locks more
_FIND = select(read_models.c.writer, read_models.c.building).where(_SHARED)
_BEGIN = update(read_models).where(_SHARED).values(writer=bindparam("request"), building=True)
_SHOW = update(read_models).where(_SHARED).values(building=False)


class _Shared(NamedTuple):
    """What the row of the read model as a whole says."""

    writer: str
    building: bool


def must_rebuild(session: Session, place: Place, request: str | None) -> bool:
    """Lock what the partitions share; whether the tables are to be made or emptied now, as all partitions start over.

    What other partitions have written is not counted then: they find out at their next commit, and start over too.

    Args:
        session: In a transaction.
        place: Of one of the partitions.
        request: Identifies a request to start over, which one of the partitions carries out for all; ``None`` without
            one.

    Raises:
        InvalidHandler: The read model had another number of partitions.
    """
    names = _names(place)
    shared = _lock(session, place, request or "")
    if shared is None:
        return True
    if request is None or shared.writer == request:
        return False
    for table in (read_models, retried):
        its = table.c.name.in_(_parts(place)), table.c.version == place.version
        session.execute(delete(table).where(*its))
    session.execute(_BEGIN, {**names, "request": request})
    return True


def enter(session: Session, place: Place) -> Progress:
    """The progress of a partition, which from now on only this writer can move; it begins if it is new."""
    found = claim(session, place)
    if found is None:
        insert_row(session, place, place.name, place.writer, place.start)
        return Progress(place.start, building=True, is_new=True)
    return found


def reaches_end(session: Session, place: Place, position: int) -> bool:
    """Note that a partition has reached the end of its log; whether it is the last one, and the tables are filled now.

    Raises:
        TakenOver: Another process fills it.
    """
    shared = _find_locked(session, place)
    if shared is None:
        raise TakenOver
    note_live(session, place, position)
    live = select(func.count()).where(
        read_models.c.name.in_(_parts(place)),
        read_models.c.version == place.version,
        read_models.c.building.is_(False),
    )
    if not shared.building or session.execute(live).scalar_one() < place.partitions:
        return False
    session.execute(_SHOW, _names(place))
    drop_other_versions(session, place)
    return True


def _lock(session: Session, place: Place, request: str) -> _Shared | None:
    """The locked row that the partitions share; ``None`` if this has just made it."""
    found = _find_locked(session, place)
    if found is not None:
        return found
    refuse_other_layouts(session, place)
    try:
        with session.begin_nested():
            insert_row(session, place, _shared_name(place), request, 0)
    except IntegrityError:  # another partition has just made it
        return _find_locked(session, place)
    return None


def _find_locked(session: Session, place: Place) -> _Shared | None:
    session.execute(_LOCK, _names(place))
    row = session.execute(_FIND, _names(place)).first()
    return None if row is None else _Shared(row.writer, row.building)


def _shared_name(place: Place) -> str:
    return f"{place.whole}{MARK}of{place.partitions}"


def _names(place: Place) -> dict[str, object]:
    return {"shared": _shared_name(place), "of_version": place.version}


def _parts(place: Place) -> list[str]:
    return [
        partition_name(place.whole, number, place.partitions) for number in range(1, place.partitions + 1)
    ]
