"""The log in an SQL database: how records are placed at its end and read back, on a given connection.

Positions are assigned under a lock: a transaction that records first locks the one row of ``uno_head``, and holds
the lock until it ends. So positions become visible in order and without a gap, and no reader meets a gap that is
filled later; after a rollback the same positions are assigned again. (A sequence would commit out of order, and
readers would have to wait at its gaps for the oldest transaction of the whole database.) The price is that only one
transaction at a time records. Group commit makes up for it: requests that wait for the lock are recorded together.

A database in PostgreSQL may have several logs, each with its row in ``uno_head`` and so with its lock: see
`uno_actors.store.logs`. A transaction locks the rows of the logs to which it appends, in the order of their numbers, so
that two transactions never wait for each other.
"""

import json
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from typing import Any, Protocol

from sqlalchemy import (
    ARRAY,
    BigInteger,
    Column,
    ColumnElement,
    Integer,
    Row,
    Select,
    any_,
    bindparam,
    false,
    func,
    insert,
    literal_column,
    or_,
    select,
    text,
    true,
    update,
)
from sqlalchemy.ext.asyncio import AsyncConnection

from uno_actors.errors import EventNotSerializable, UnoError
from uno_actors.store.checkpoints import Moves
from uno_actors.store.codec import Record, StreamId
from uno_actors.store.conditions import Condition
from uno_actors.store.expected_version import place
from uno_actors.store.limits import is_recordable
from uno_actors.store.log_filter import LogFilter
from uno_actors.store.logs import log_of_position, log_of_record, log_of_stream
from uno_actors.store.records import Append, Appended, Heading, StoredRecord
from uno_actors.topics import TopicPattern
from uno_stores.sql.schema import head, log, stream_type

PAGE_BYTES = 4 << 20
"""Bytes after which a page of records is full, however few they are."""
MAX_HEADS = 100_000
"""Stream versions that are remembered between transactions."""
CHANNEL = "'uno_log_' || md5(current_schema())"
"""SQL for the channel on which PostgreSQL announces the new last position: one for each schema with these tables."""

_LOCK_HEAD = {
    "postgresql": select(head.c.last_position).with_for_update(),
    # A reader that became a writer could be refused at once; the first statement of a writer waits.
    "sqlite": update(head).values(last_position=head.c.last_position).returning(head.c.last_position),
}
IDLE_LIMIT_SQL = "set_config('idle_in_transaction_session_timeout', '3000', true)"
IDLE_LIMIT: ColumnElement[str] = literal_column(IDLE_LIMIT_SQL)
"""Has PostgreSQL end a transaction of ours whose process says nothing for three seconds while it holds locks.

A process that was stopped in the middle would else keep the head of the log, or its leases, from all others.
"""
_LOCK_HEAD_BRIEFLY = {
    **_LOCK_HEAD,
    "postgresql": select(head.c.last_position, IDLE_LIMIT).with_for_update(),
}
_HEADS = {
    "postgresql": text(
        "SELECT (SELECT aggregate_version FROM uno_log WHERE aggregate_id = wanted.id"
        " AND coalesce(aggregate_type, '') = wanted.type ORDER BY aggregate_version DESC LIMIT 1)"
        " FROM unnest(CAST(:ids AS text[]), CAST(:types AS text[])) WITH ORDINALITY AS wanted(id, type, number)"
        " ORDER BY wanted.number"
    ),
    "sqlite": text(
        "SELECT (SELECT aggregate_version FROM uno_log WHERE aggregate_id = json_extract(wanted.value, '$[0]')"
        " AND coalesce(aggregate_type, '') = json_extract(wanted.value, '$[1]')"
        " ORDER BY aggregate_version DESC LIMIT 1)"
        " FROM json_each(:streams) AS wanted ORDER BY wanted.key"
    ),
}
_THESE_HEADS = head.c.id == any_(bindparam("ids", type_=ARRAY(Integer)))
_LOCK_HEADS = select(head.c.last_position).where(_THESE_HEADS).order_by(head.c.id).with_for_update()
_LOCK_HEADS_BRIEFLY = (
    select(head.c.last_position, IDLE_LIMIT).where(_THESE_HEADS).order_by(head.c.id).with_for_update()
)
_MOVE_HEAD = text("UPDATE uno_head SET last_position = :last")
_MOVE_HEADS = text(
    "UPDATE uno_head SET last_position = ends.last"
    " FROM unnest(CAST(:ids AS integer[]), CAST(:lasts AS bigint[])) AS ends(id, last) WHERE uno_head.id = ends.id"
)
NOTIFY = text(
    f"""
    SELECT pg_notify({CHANNEL}, CAST(last AS text))
    FROM (SELECT set_config('synchronous_commit', 'off', true)) AS quick, unnest(CAST(:ends AS bigint[])) AS last
    """  # noqa: S608 - constants
)
"""Notifies of the new last positions ``ends``; the commit does not wait for the disk, since it writes nothing."""
_FIELDS = [log.c[name] for name in Record._fields]

LAST_POSITIONS = select(head.c.last_position).order_by(head.c.id)
LAST_POSITIONS_AT_ONCE = text("SELECT array_agg(last_position ORDER BY id) FROM uno_head")
"""For PostgreSQL: all as one value."""


class LogTail:
    """What one writer remembers about the end of one log, until another process writes there."""

    __slots__ = ("heads", "position")

    def __init__(self) -> None:
        self.position = -1
        self.heads: dict[StreamId, int] = {}

    def at(self, position: int, max_heads: int) -> None:
        """Forget the versions of the streams if another process has recorded since, or if they are too many."""
        if position != self.position or len(self.heads) > max_heads:
            self.heads.clear()
        self.position = position


class Tail:
    """What one writer remembers about the ends of the logs.

    Args:
        logs: Number of the logs.
    """

    def __init__(self, logs: int) -> None:
        self.logs = [LogTail() for _ in range(logs)]

    def of(self, stream: StreamId) -> dict[StreamId, int]:
        """The known versions of the streams in the log of ``stream``."""
        return self.logs[log_of_stream(stream, len(self.logs))].heads


async def lock_heads(
    connection: AsyncConnection, logs: Iterable[int], of: int, *, briefly: bool = True
) -> dict[int, int]:
    """The last position of each of the ``logs``, which stay so until the transaction ends.

    Args:
        connection: In a transaction.
        logs: Their numbers, at least one.
        of: How many logs the store has.
        briefly: Whether `IDLE_LIMIT` holds until the transaction ends.
    """
    if of == 1:
        locks = _LOCK_HEAD_BRIEFLY if briefly else _LOCK_HEAD
        found = await connection.execute(locks[connection.dialect.name])
        return {0: int(found.scalar_one())}
    numbers = sorted(logs)
    lock = _LOCK_HEADS_BRIEFLY if briefly else _LOCK_HEADS
    found = await connection.execute(lock, {"ids": [number + 1 for number in numbers]})
    return dict(zip(numbers, [row[0] for row in found], strict=True))


def in_transaction(connection: AsyncConnection) -> bool:
    """Whether ``connection``, which has locked the head, keeps it locked and can roll back."""
    assert connection.sync_connection is not None
    driver: Any = connection.sync_connection.connection.driver_connection
    if hasattr(driver, "is_in_transaction"):  # asyncpg
        return bool(driver.is_in_transaction())
    return bool(getattr(driver, "in_transaction", True))  # aiosqlite


class Bounds(Protocol):
    """The conditions of a group of requests; see `uno_stores.sql.terms.Boundary`."""

    def check(self, condition: Condition, end: int) -> None:
        """Refuse if an event stands against ``condition``; the log ends at ``end`` with the requests before it."""

    def add(self, position: int, record: Record) -> None:
        """Note a record of the group."""

    async def write(self) -> None:
        """Write what was noted, in the transaction that inserts the records."""


FindBounds = Callable[[AsyncConnection, Sequence[Append], int], Awaitable[Bounds | None]]
"""What the conditions of requests rest on, with the end of the log before them; ``None`` if there are none."""


async def place_all(
    connection: AsyncConnection,
    requests: Sequence[Append],
    tail: Tail,
    max_event_size: int,
    moves: Moves,
    *,
    find_bounds: FindBounds,
    briefly: bool = True,
) -> tuple[list[Appended | UnoError], list[dict[str, Any]], Bounds | None]:
    """Lock the heads of the logs and assign positions to the requests that can be recorded; `insert_rows` must follow.

    Args:
        connection: A connection with an open transaction.
        requests: The requests, in order.
        tail: The writer's memory of the ends of the logs; right after a commit, to be replaced after a rollback.
        max_event_size: Maximum bytes of payload and reply.
        moves: The checkpoints of the requests, locked.
        find_bounds: For their conditions; only a store with one log has some.
        briefly: As for `lock_head`.

    Returns:
        The outcome of each request, the rows to be inserted, and what is to be written for conditions.
    """
    number = len(tail.logs)
    # Others are refused below.
    fit = [request.records for request in requests if is_recordable(request.records)]
    growing = {0} if number == 1 else {log_of_record(record, number) for records in fit for record in records}
    found = await lock_heads(connection, growing or {0}, number, briefly=briefly)
    for log_number, position in found.items():
        tail.logs[log_number].at(position, MAX_HEADS // number)
    streams = {record.stream for records in fit for record in records}
    await _learn_heads(connection, tail, [each for each in streams if each and each not in tail.of(each)])
    bounds = await find_bounds(connection, requests, tail.logs[0].position)
    outcomes: list[Appended | UnoError] = []
    rows: list[dict[str, Any]] = []
    for request in requests:
        try:
            if request.checkpoint is not None:
                moves.check(request.checkpoint)
            placed = place(request, lambda stream: tail.of(stream)[stream])
            for each in placed:
                _check_size(each, max_event_size)
            if request.condition is not None and bounds is not None:
                bounds.check(request.condition, tail.logs[0].position)
        except UnoError as error:
            outcomes.append(error)
            continue
        if request.checkpoint is not None:
            moves.move(request.checkpoint)
        first = len(rows)
        for each in placed:
            end = tail.logs[log_of_record(each, number)]
            end.position += 1
            rows.append({"position": end.position, **each._asdict()})
            if each.stream is not None and each.aggregate_version is not None:
                end.heads[each.stream] = each.aggregate_version
            if bounds is not None:
                bounds.add(end.position, each)
        outcomes.append(Appended(as_range([row["position"] for row in rows[first:]]), placed))
    return outcomes, rows, bounds


def as_range(positions: Sequence[int]) -> range | tuple[int, ...]:
    """``positions``, as a range if they are those of one log."""
    if not positions:
        return range(0)
    if positions[-1] - positions[0] + 1 == len(positions):
        return range(positions[0], positions[-1] + 1)
    return tuple(positions)


async def insert_rows(connection: AsyncConnection, rows: Sequence[dict[str, Any]], logs: int) -> None:
    """Write what `place_all` has placed, and move the heads."""
    if not rows:
        return
    await connection.execute(insert(log), rows)
    if logs == 1:
        await connection.execute(_MOVE_HEAD, {"last": rows[-1]["position"]})
        return
    ends = ends_of(rows)
    moved = {"ids": [number + 1 for number in ends], "lasts": [*ends.values()]}
    await connection.execute(_MOVE_HEADS, moved)


def ends_of(rows: Iterable[Mapping[str, Any]]) -> dict[int, int]:
    """The new last position of each log that ``rows`` make longer; those of one log are in order."""
    return {log_of_position(row["position"]): row["position"] for row in rows}


async def _learn_heads(connection: AsyncConnection, tail: Tail, streams: Sequence[StreamId]) -> None:
    if not streams:
        return
    if connection.dialect.name == "sqlite":
        wanted: dict[str, Any] = {
            "streams": json.dumps([(s.aggregate_id, s.aggregate_type) for s in streams])
        }
    else:
        wanted = {"ids": [s.aggregate_id for s in streams], "types": [s.aggregate_type for s in streams]}
    found = await connection.execute(_HEADS[connection.dialect.name], wanted)
    for stream, version in zip(streams, found.scalars(), strict=True):
        tail.of(stream)[stream] = version or 0


def _check_size(record: Record, limit: int) -> None:
    size = len(record.payload) + len(record.reply or b"")
    if size > limit:
        reason = f"it takes {size:,} bytes, the limit is {limit:,} (the store's max_event_size)"
        raise EventNotSerializable(record.event_type, reason)


# --- reading -----------------------------------------------------------------------------------------------


IN_STREAM = (log.c.aggregate_id == bindparam("id")) & (stream_type == bindparam("type"))
"""Selects the records of one stream; see `names`."""


def names(stream: StreamId) -> dict[str, Any]:
    """The parameters of `IN_STREAM`."""
    return {"id": stream.aggregate_id, "type": stream.aggregate_type}


def page_of(order: Column[Any], *wanted: ColumnElement[bool]) -> Select[Any]:
    """At most ``limit`` records and not much more than `PAGE_BYTES`, but at least one, as `to_stored` reads them.

    Its parameters are ``after``, exclusive and by ``order``, and ``limit``.
    """
    size = func.length(log.c.payload) + func.coalesce(func.length(log.c.reply), 0)
    page = (
        select(*_FIELDS, log.c.position, size.label("size"))
        .where(*wanted, order > bindparam("after"))
        .order_by(order)
        .limit(bindparam("limit"))
        .subquery()
    )
    before = func.sum(page.c.size).over(order_by=page.c[order.name], rows=(None, -1))
    counted = select(page, func.coalesce(before, 0).label("before")).subquery()
    columns = [counted.c[column.name] for column in (*_FIELDS, log.c.position)]
    return select(*columns).where(counted.c.before < PAGE_BYTES).order_by(counted.c[order.name])


def _pages_of_several() -> Select[Any]:
    """At most ``limit`` records of each of several logs, and of each not much more than ``bytes``, but at least one.

    Its parameters are ``afters`` and ``lasts``, one of each log; the records of a log are together and in order.
    """
    wanted = (
        func.unnest(bindparam("afters", type_=ARRAY(BigInteger)), bindparam("lasts", type_=ARRAY(BigInteger)))
        .table_valued("after", "last", name="wanted")
        .render_derived()
    )
    size = func.length(log.c.payload) + func.coalesce(func.length(log.c.reply), 0)
    page = (
        select(*_FIELDS, log.c.position, size.label("size"))
        .where(log.c.position > wanted.c.after, log.c.position <= wanted.c.last)
        .order_by(log.c.position)
        .limit(bindparam("limit"))
        .lateral()
    )
    before = func.sum(page.c.size).over(
        partition_by=wanted.c.after, order_by=page.c.position, rows=(None, -1)
    )
    counted = (
        select(page, func.coalesce(before, 0).label("before"))
        .select_from(wanted.join(page, true()))
        .subquery()
    )
    columns = [counted.c[column.name] for column in (*_FIELDS, log.c.position)]
    return (
        select(*columns)
        .where(counted.c.before < bindparam("bytes", type_=BigInteger))
        .order_by(counted.c.position)
    )


STREAM_PAGE = page_of(log.c.aggregate_version, IN_STREAM)
LOG_PAGE = page_of(log.c.position)
LOG_PAGE_OF_SEVERAL = page_of(log.c.position, log.c.position <= bindparam("last"))
"""A page of the one log that has no position after ``last``."""
SEVERAL_PAGES = _pages_of_several()
HEADINGS = (
    select(*(log.c[name] for name in Heading._fields))
    .where(log.c.position > bindparam("after"), log.c.position <= bindparam("last"))
    .order_by(log.c.position)
    .limit(bindparam("limit"))
)
LAST_VERSION = select(func.max(log.c.aggregate_version)).where(IN_STREAM)
VERSION_AT = LAST_VERSION.where(log.c.position <= bindparam("position"))


def to_stored(rows: Iterable[Row[Any]]) -> list[StoredRecord]:
    """The rows of a page."""
    make, width = tuple.__new__, len(Record._fields)
    return [make(StoredRecord, (row[width], make(Record, row[:width]))) for row in rows]


def selecting(matching: LogFilter) -> list[ColumnElement[bool]]:
    """``matching`` as SQL, without the wildcards of its topic, which `LogFilter.matches` must check."""
    wanted: list[ColumnElement[bool]] = []
    if matching.event_types is not None:
        wanted.append(log.c.event_type.in_(sorted(matching.event_types)))
    if matching.aggregate_type is not None:
        wanted.append(log.c.aggregate_type == matching.aggregate_type)
    if matching.correlation_id is not None:
        wanted.append(log.c.correlation_id == matching.correlation_id)
    if matching.aggregate_id is not None:
        wanted.append(log.c.aggregate_id == matching.aggregate_id)
    if matching.topics is not None:
        wanted.append(or_(false(), *map(_has_topic, matching.topics)))
    return wanted


def _has_topic(pattern: TopicPattern) -> ColumnElement[bool]:
    """``pattern`` as SQL, without the wildcards."""
    literal = next((at for at, each in enumerate(pattern.tokens) if each in ("*", ">")), len(pattern.tokens))
    prefix = ".".join(pattern.tokens[:literal])
    if literal == len(pattern.tokens):
        return log.c.topic == prefix
    if literal:  # "/" follows "."
        return (log.c.topic > f"{prefix}.") & (log.c.topic < f"{prefix}/")
    return log.c.topic.is_not(None)
