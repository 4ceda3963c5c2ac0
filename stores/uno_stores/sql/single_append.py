"""The append of one event to a store with several logs: one statement that locks, checks and inserts.

Several logs are for many writers of single events. Then most of the cost is that of the statements, not of the disk.

The statement reads the version of the stream before it has the lock on the head of the log. If another transaction
appends to the stream in between, the version is taken: the unique index of ``uno_log`` refuses it, and the writer tries
again with `uno_stores.sql.log.place_all`. That also decides whenever this statement inserts nothing.
"""

from typing import Any

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection

from uno_actors.store.codec import Record
from uno_actors.store.limits import is_recordable
from uno_actors.store.logs import log_of_record
from uno_actors.store.records import Append, Appended

_TYPES = {"version": "bigint", "timestamp": "timestamptz", "reply": "bytea", "payload": "bytea"}
_VALUES = {
    name: "moved.version" if name == "aggregate_version" else f"CAST(:{name} AS {_TYPES.get(name, 'text')})"
    for name in Record._fields
}
_APPEND = text(
    f"""
    WITH stream AS MATERIALIZED (
        SELECT CASE WHEN CAST(:aggregate_id AS text) IS NOT NULL THEN coalesce(
            (SELECT aggregate_version FROM uno_log
             WHERE aggregate_id = CAST(:aggregate_id AS text)
                AND coalesce(aggregate_type, '') = coalesce(CAST(:aggregate_type AS text), '')
             ORDER BY aggregate_version DESC LIMIT 1), 0) END AS version
    ), moved AS (
        UPDATE uno_head SET last_position = last_position + 1 FROM stream
        WHERE id = CAST(:head AS integer)
            AND (CAST(:expected AS bigint) IS NULL OR stream.version = CAST(:expected AS bigint))
        RETURNING last_position, stream.version + 1 AS version
    )
    INSERT INTO uno_log (position, {", ".join(_VALUES)})
    SELECT moved.last_position, {", ".join(_VALUES.values())} FROM moved
    RETURNING position, aggregate_version
    """  # noqa: S608 - constants
)


async def append_one(
    connection: AsyncConnection, request: Append, logs: int, max_event_size: int
) -> tuple[Appended, dict[str, Any]] | None:
    """Record a request with one event; ``None`` if that must be decided otherwise, and nothing was written.

    Args:
        connection: A connection to PostgreSQL with an open transaction.
        request: The request.
        logs: Number of logs of the store.
        max_event_size: Maximum bytes of payload and reply.

    Returns:
        The outcome, and the row that was inserted.
    """
    if len(request.records) != 1 or not is_recordable(request.records):
        return None
    (record,) = request.records
    size = len(record.payload) + len(record.reply or b"")
    is_without_place = record.aggregate_id is None and request.expected_version is not None
    if record.aggregate_version is not None or size > max_event_size or is_without_place:
        return None
    values = record._asdict()
    del values["aggregate_version"]
    head = log_of_record(record, logs) + 1
    found = await connection.execute(_APPEND, {**values, "head": head, "expected": request.expected_version})
    inserted = found.first()
    if inserted is None:
        return None
    position, version = inserted
    placed = record._replace(aggregate_version=version)
    return Appended(range(position, position + 1), (placed,)), {"position": position, **placed._asdict()}
