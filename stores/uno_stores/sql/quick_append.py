"""The append of a group of requests to PostgreSQL in one statement that checks, locks, places and inserts.

`uno_stores.sql.log.place_all` locks the heads of the logs and then asks, inserts and moves the heads, one statement
after the other; all that time no other process records there. This statement holds the locks for its own time and the
commit. Where nothing else is written with it, it is a transaction of its own: one round trip in place of three or more.

With several logs it locks all their heads first, in the order of their numbers, as everything does that locks several.

With conditions it checks these too, and indexes what it records: see `uno_stores.sql.quick_conditions`.

It reads the versions of the streams before it has the lock. If another transaction appends to one of them in between,
the unique index of ``uno_log`` refuses the place, and the writer tries again with `place_all`. That also decides
whenever this statement inserts nothing.
"""

from collections import Counter
from collections.abc import Sequence
from typing import Any, NamedTuple

from sqlalchemy import bindparam, select, text
from sqlalchemy.ext.asyncio import AsyncConnection

from uno_actors.errors import UnoError
from uno_actors.store.codec import Record, StreamId
from uno_actors.store.expected_version import place
from uno_actors.store.limits import is_recordable
from uno_actors.store.logs import log_of_record
from uno_actors.store.records import Append, Appended
from uno_stores.sql.log import IDLE_LIMIT_SQL, IN_STREAM, as_range, names
from uno_stores.sql.quick_conditions import HOLDS, INDEXED, Unless, unless_of
from uno_stores.sql.quick_statement import QuickStatement
from uno_stores.sql.schema import log, terms

_TYPES = {
    "version": "bigint",
    "aggregate_version": "bigint",
    "timestamp": "timestamptz",
    "reply": "bytea",
    "payload": "bytea",
}
_COLUMNS = ", ".join(Record._fields)
_ARRAYS = ", ".join(f"CAST(:{name} AS {_TYPES.get(name, 'text')}[])" for name in Record._fields)


_AS_EXPECTED = """NOT EXISTS (
            SELECT FROM unnest(CAST(:ids AS text[]), CAST(:types AS text[]), CAST(:expected AS bigint[]))
                AS stream(id, type, version)
            WHERE stream.version <> coalesce((
                SELECT aggregate_version FROM uno_log
                WHERE aggregate_id = stream.id AND coalesce(aggregate_type, '') = stream.type
                ORDER BY aggregate_version DESC LIMIT 1), 0))"""


def _statement(holds: str = "", indexed: str = "") -> QuickStatement:
    """The statement, with further conditions and with what is written besides."""
    return QuickStatement(
        text(
            f"""
    WITH moved AS (
        UPDATE uno_head SET last_position = last_position + CAST(:count AS bigint)
        WHERE id = CAST(:head AS integer) AND {_AS_EXPECTED}{holds}
        RETURNING last_position
    ), inserted AS (
        INSERT INTO uno_log (position, {_COLUMNS})
        SELECT moved.last_position - CAST(:count AS bigint) + wanted.number, {_COLUMNS.replace(", ", ", wanted.")}
        FROM moved, unnest({_ARRAYS}) WITH ORDINALITY AS wanted({_COLUMNS}, number)
    ){indexed}
    SELECT last_position, {IDLE_LIMIT_SQL} FROM moved
    """  # noqa: S608 - constants
        )
    )


APPEND_SEVERAL = QuickStatement(
    text(
        f"""
    WITH locked AS MATERIALIZED (
        SELECT id FROM uno_head WHERE id = ANY(CAST(:heads AS integer[])) ORDER BY id FOR UPDATE
    ), moved AS (
        UPDATE uno_head SET last_position = last_position + growing.count
        FROM unnest(CAST(:heads AS integer[]), CAST(:counts AS bigint[])) AS growing(head, count)
        WHERE id = growing.head AND (SELECT count(*) FROM locked) > 0 AND {_AS_EXPECTED}
        RETURNING id, last_position, growing.count
    ), inserted AS (
        INSERT INTO uno_log (position, {_COLUMNS})
        SELECT moved.last_position - moved.count + wanted.number, {_COLUMNS.replace(", ", ", wanted.")}
        FROM moved JOIN unnest({_ARRAYS}, CAST(:places AS integer[]), CAST(:numbers AS bigint[]))
            AS wanted({_COLUMNS}, head, number) ON wanted.head = moved.id
    )
    SELECT array_agg(last_position ORDER BY id), {IDLE_LIMIT_SQL} FROM moved
    """  # noqa: S608 - constants
    )
)
"""Appends to several logs, and returns the last position of each, in the order of their numbers."""
APPEND = _statement()
APPEND_UNLESS = _statement(HOLDS, INDEXED)
_VALUES = ", ".join(f"CAST(:{name} AS {_TYPES.get(name, 'text')})" for name in Record._fields)
APPEND_ONE = QuickStatement(
    text(
        f"""
    WITH moved AS (
        UPDATE uno_head SET last_position = last_position + 1
        WHERE id = CAST(:head AS integer) AND CAST(:expected AS bigint) = coalesce((
            SELECT aggregate_version FROM uno_log
            WHERE aggregate_id = CAST(:aggregate_id AS text)
                AND coalesce(aggregate_type, '') = coalesce(CAST(:aggregate_type AS text), '')
            ORDER BY aggregate_version DESC LIMIT 1), 0)
        RETURNING last_position
    )
    INSERT INTO uno_log (position, {_COLUMNS}) SELECT last_position, {_VALUES} FROM moved
    RETURNING position, {IDLE_LIMIT_SQL}
    """  # noqa: S608 - constants
    )
)
"""`APPEND` for one record of a stream: without arrays it takes half of the time, here and in PostgreSQL."""


class Recorded(NamedTuple):
    """What was recorded: the outcome of each request, and the rows of the log."""

    outcomes: list[Appended]
    rows: list[dict[str, Any]]


class Placed(NamedTuple):
    """Requests whose records all have their versions.

    Attributes:
        records: Of each request.
        expected: The version of each stream before them.
        places: The number of the log of each record.
        logs: The numbers of these logs, in order.
        unless: The conditions, if there are any.
    """

    records: list[tuple[Record, ...]]
    expected: dict[StreamId, int]
    places: list[int]
    logs: list[int]
    unless: Unless | None = None

    @property
    def all_records(self) -> list[Record]:
        """The records of all requests, in order."""
        return [record for of_request in self.records for record in of_request]

    @property
    def can_be_found(self) -> bool:
        """Whether it can be found out that the group is recorded, and the group can be recorded once only."""
        if len(self.logs) == 1:
            return bool(self.expected) or (self.unless is not None and self.unless.place is not None)
        named = {its for its, record in zip(self.places, self.all_records, strict=True) if record.stream}
        return len(named) == len(self.logs)

    @property
    def statement(self) -> QuickStatement:
        """Records the group, or returns nothing."""
        if self.unless is not None:
            return APPEND_UNLESS
        if len(self.logs) > 1:
            return APPEND_SEVERAL
        return APPEND if self.single is None else APPEND_ONE

    @property
    def single(self) -> Record | None:
        """The only record of the group, if it belongs to a stream and there are no conditions."""
        if self.unless is not None or len(self.places) != 1 or not self.expected:
            return None
        return self.all_records[0]

    @property
    def terms(self) -> dict[str, Any]:
        """The parameters of `statement`."""
        if (single := self.single) is not None:
            (expected,) = self.expected.values()
            return {**single._asdict(), "head": self.places[0] + 1, "expected": expected}
        streams = self.expected
        return {
            **dict(zip(Record._fields, map(list, zip(*self.all_records, strict=True)), strict=True)),
            "ids": [stream.aggregate_id for stream in streams],
            "types": [stream.aggregate_type for stream in streams],
            "expected": [*streams.values()],
            **self._ends,
            **({} if self.unless is None else self.unless.parameters),
        }

    @property
    def _ends(self) -> dict[str, Any]:
        """How much each log grows, as parameters."""
        if len(self.logs) == 1:
            return {"head": self.logs[0] + 1, "count": len(self.places)}
        counts: Counter[int] = Counter()
        numbers: list[int] = []
        for its in self.places:
            counts[its] += 1
            numbers.append(counts[its])
        return {
            "heads": [its + 1 for its in counts],
            "counts": [*counts.values()],
            "places": [its + 1 for its in self.places],
            "numbers": numbers,
        }

    def up_to(self, *lasts: int) -> Recorded:
        """The outcome of each request and the rows of the log, if the last record of each log is at these positions."""
        counts = Counter(self.places) if len(self.logs) > 1 else {self.logs[0]: len(self.places)}
        places = iter(self.places)
        ends = {its: last - counts[its] for its, last in zip(self.logs, lasts, strict=True)}
        outcomes: list[Appended] = []
        rows: list[dict[str, Any]] = []
        for of_request in self.records:
            positions: list[int] = []
            for record in of_request:
                its = next(places)
                ends[its] = position = ends[its] + 1
                positions.append(position)
                rows.append({"position": position, **record._asdict()})
            outcomes.append(Appended(as_range(positions), of_request))
        return Recorded(outcomes, rows)

    def returned(self, found: int | Sequence[int]) -> Recorded:
        """As `up_to`, by what the `statement` has returned: one position, or one of each log."""
        return self.up_to(found) if isinstance(found, int) else self.up_to(*found)


def placed(requests: Sequence[Append], logs: int, max_event_size: int) -> Placed | None:
    """The records of ``requests`` as they are recorded if each stream is at the version that its request expects.

    Args:
        requests: The requests, in order.
        logs: Number of logs of the store.
        max_event_size: Maximum bytes of payload and reply.

    Returns:
        ``None`` if a request names no expected version, moves a checkpoint, cannot be recorded, or stands against the
        condition of another.
    """
    expected: dict[StreamId, int] = {}
    versions: dict[StreamId, int] = {}
    records: list[tuple[Record, ...]] = []
    places: list[int] = []
    for request in requests:
        if request.checkpoint is not None or not is_recordable(request.records):
            return None
        for record in request.records:
            if len(record.payload) + len(record.reply or b"") > max_event_size:
                return None
            stream = record.stream
            if stream is None:
                continue
            if not isinstance(request.expected_version, int):
                return None
            if stream not in versions:
                expected[stream] = versions[stream] = request.expected_version
        try:
            of_request = place(request, versions.__getitem__)
        except UnoError:
            return None
        for record in of_request:
            places.append(log_of_record(record, logs))
            if record.stream is not None and record.aggregate_version is not None:
                versions[record.stream] = record.aggregate_version
        records.append(of_request)
    return (
        _under_conditions(Placed(records, expected, places, sorted(set(places))), requests)
        if places
        else None
    )


def _under_conditions(group: Placed, requests: Sequence[Append]) -> Placed | None:
    """``group`` with the conditions of its ``requests``; ``None`` if one stands against that of another."""
    if all(request.condition is None for request in requests):
        return group
    unless = unless_of(requests, group.records)
    return None if unless is None else group._replace(unless=unless)


async def append_placed(connection: AsyncConnection, group: Placed) -> Recorded | None:
    """Record a group; ``None`` if a stream is at another version, and nothing was written.

    Args:
        connection: A connection to PostgreSQL with an open transaction.
        group: The records.

    Returns:
        The outcome of each request, and the rows that were inserted.
    """
    found = (await connection.execute(group.statement.statement, group.terms)).scalar()
    return None if found is None else group.returned(found)


_FIND = select(log.c.position).where(
    IN_STREAM, log.c.aggregate_version == bindparam("version"), log.c.event_id == bindparam("event_id")
)


_FIND_BY_TERM = select(log.c.position).where(
    log.c.position.in_(select(terms.c.position).where(terms.c.term == bindparam("term"))),
    log.c.event_id == bindparam("event_id"),
)


async def find_placed(connection: AsyncConnection, group: Placed) -> Recorded | None:
    """What `append_placed` would have returned, if it has recorded ``group``; ``None`` if it has not.

    Args:
        connection: A connection to PostgreSQL that has locked the heads of the logs of the group.
        group: The records; the group `can_be_found`.
    """
    lasts: list[int] = []
    for number_of_log in group.logs:
        records = [
            record
            for record, its in zip(group.all_records, group.places, strict=True)
            if its == number_of_log
        ]
        number, position = await _find_one(connection, group, records)
        if position is None:  # all are recorded together
            return None
        lasts.append(position + len(records) - 1 - number)
    return group.up_to(*lasts)


async def _find_one(
    connection: AsyncConnection, group: Placed, records: Sequence[Record]
) -> tuple[int, int | None]:
    """Which one of the ``records`` of a log of ``group`` was looked for, and its position if it is there."""
    if group.unless is not None and group.unless.place is not None and not group.expected:
        term, place_in_group = group.unless.place
        number = place_in_group - 1
        found = await connection.execute(_FIND_BY_TERM, {"term": term, "event_id": records[number].event_id})
        return number, found.scalar()
    number, stream = next((number, each.stream) for number, each in enumerate(records) if each.stream)
    record = records[number]
    sought = {**names(stream), "version": record.aggregate_version, "event_id": record.event_id}
    return number, (await connection.execute(_FIND, sought)).scalar()
