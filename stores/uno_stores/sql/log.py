"""The log in an SQL database: how records are placed at its end and read back, on a given connection.

Positions are assigned under a lock: a transaction that records first locks the one row of ``uno_head``, and holds
the lock until it ends. So positions become visible in order and without a gap, and no reader meets a gap that is
filled later; after a rollback the same positions are assigned again. (A sequence would commit out of order, and
readers would have to wait at its gaps for the oldest transaction of the whole database.) The price is that only one
transaction at a time records. Group commit makes up for it: requests that wait for the lock are recorded together.
"""

import json
from collections.abc import Iterable, Sequence
from typing import Any

from sqlalchemy import (
    Column,
    ColumnElement,
    Executable,
    Row,
    Select,
    bindparam,
    func,
    insert,
    select,
    text,
    update,
)
from sqlalchemy.ext.asyncio import AsyncConnection

from uno_actors.errors import EventNotSerializable, UnoError
from uno_actors.store.codec import Record, StreamId
from uno_actors.store.expected_version import place
from uno_actors.store.limits import is_recordable
from uno_actors.store.log_filter import LogFilter
from uno_actors.store.records import Append, Appended, Heading, StoredRecord
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
IDLE_LIMIT = func.set_config("idle_in_transaction_session_timeout", "3000", True)
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
_MOVE_HEAD: dict[str, Executable] = {
    "postgresql": text(
        "WITH moved AS (UPDATE uno_head SET last_position = :last RETURNING last_position)"  # noqa: S608 - constants
        f" SELECT pg_notify({CHANNEL}, CAST(last_position AS text)) FROM moved"
    ),
    "sqlite": text("UPDATE uno_head SET last_position = :last"),
}
_FIELDS = [log.c[name] for name in Record._fields]

LAST_POSITION = select(head.c.last_position)


class Tail:
    """What one writer remembers about the end of the log, until another process writes."""

    def __init__(self) -> None:
        self.position = -1
        self.heads: dict[StreamId, int] = {}

    def forget(self) -> None:
        """Forget everything: it may be wrong."""
        self.position = -1
        self.heads.clear()


async def lock_head(connection: AsyncConnection, *, briefly: bool = True) -> int:
    """The last position, which stays so until the transaction ends; ``briefly``: `IDLE_LIMIT` holds until then."""
    locks = _LOCK_HEAD_BRIEFLY if briefly else _LOCK_HEAD
    found = await connection.execute(locks[connection.dialect.name])
    return int(found.scalar_one())


def in_transaction(connection: AsyncConnection) -> bool:
    """Whether ``connection``, which has locked the head, keeps it locked and can roll back."""
    assert connection.sync_connection is not None
    driver: Any = connection.sync_connection.connection.driver_connection
    if hasattr(driver, "is_in_transaction"):  # asyncpg
        return bool(driver.is_in_transaction())
    return bool(getattr(driver, "in_transaction", True))  # aiosqlite


async def place_all(
    connection: AsyncConnection,
    requests: Sequence[Append],
    tail: Tail,
    max_event_size: int,
    *,
    briefly: bool = True,
) -> tuple[list[Appended | UnoError], list[dict[str, Any]]]:
    """Lock the head of the log and assign positions to the requests that can be recorded; `insert_rows` must follow.

    Args:
        connection: A connection with an open transaction.
        requests: The requests, in order.
        tail: The writer's memory of the end of the log; right after a commit, to be forgotten after a rollback.
        max_event_size: Maximum bytes of payload and reply.
        briefly: As for `lock_head`.

    Returns:
        The outcome of each request, and the rows to be inserted.
    """
    position = await lock_head(connection, briefly=briefly)
    if position != tail.position or len(tail.heads) > MAX_HEADS:
        tail.heads.clear()
    tail.position = position
    fit = (
        request.records for request in requests if is_recordable(request.records)
    )  # others are refused below
    streams = {record.stream for records in fit for record in records}
    await _learn_heads(connection, tail, [each for each in streams if each and each not in tail.heads])
    outcomes: list[Appended | UnoError] = []
    rows: list[dict[str, Any]] = []
    for request in requests:
        try:
            placed = place(request, tail.heads.__getitem__)
            for each in placed:
                _check_size(each, max_event_size)
        except UnoError as error:
            outcomes.append(error)
            continue
        first = tail.position + 1
        for each in placed:
            tail.position += 1
            rows.append({"position": tail.position, **each._asdict()})
            if each.stream is not None and each.aggregate_version is not None:
                tail.heads[each.stream] = each.aggregate_version
        outcomes.append(Appended(range(first, first + len(placed)), placed))
    return outcomes, rows


async def insert_rows(connection: AsyncConnection, rows: Sequence[dict[str, Any]]) -> None:
    """Write what `place_all` has placed, and move the head."""
    if rows:
        await connection.execute(insert(log), rows)
        await connection.execute(_MOVE_HEAD[connection.dialect.name], {"last": rows[-1]["position"]})


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
    tail.heads.update(
        (stream, version or 0) for stream, version in zip(streams, found.scalars(), strict=True)
    )


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


STREAM_PAGE = page_of(log.c.aggregate_version, IN_STREAM)
LOG_PAGE = page_of(log.c.position)
HEADINGS = (
    select(*(log.c[name] for name in Heading._fields))
    .where(log.c.position > bindparam("after"))
    .order_by(log.c.position)
    .limit(bindparam("limit"))
)
LAST_VERSION = select(func.max(log.c.aggregate_version)).where(IN_STREAM)


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
    if matching.topic is not None:
        tokens = matching.topic.tokens
        literal = next((at for at, each in enumerate(tokens) if each in ("*", ">")), len(tokens))
        prefix = ".".join(tokens[:literal])
        if literal == len(tokens):
            wanted.append(log.c.topic == prefix)
        elif literal:  # "/" follows "."
            wanted.append((log.c.topic > f"{prefix}.") & (log.c.topic < f"{prefix}/"))
        else:
            wanted.append(log.c.topic.is_not(None))
    return wanted
