"""The reader: the queries of a store, each on its own connection, a few at once."""

import asyncio
from collections.abc import AsyncGenerator, Iterable, Mapping, Sequence
from contextlib import aclosing
from typing import Any

from sqlalchemy import Executable, Row, bindparam, func, select, text

from uno_actors.errors import CorruptRecord, SeveralLogs, StoreUnavailable
from uno_actors.store.codec import StreamId
from uno_actors.store.log_filter import LogFilter
from uno_actors.store.logs import is_position_in, last_of_log, starts_of_logs
from uno_actors.store.merging import merged
from uno_actors.store.records import PAGE, DeadLetter, Heading, Snapshot, StoredRecord
from uno_actors.store.terms import Facet
from uno_actors.tasks import begin
from uno_stores.sql import schema
from uno_stores.sql.connections import Connections
from uno_stores.sql.leases import IS_LEASED, LEASED_AMONG
from uno_stores.sql.log import (
    HEADINGS,
    LAST_POSITIONS,
    LAST_VERSION,
    LOG_PAGE,
    LOG_PAGE_OF_SEVERAL,
    PAGE_BYTES,
    SEVERAL_PAGES,
    STREAM_PAGE,
    VERSION_AT,
    names,
    page_of,
    selecting,
    to_stored,
)
from uno_stores.sql.tables import Tables
from uno_stores.sql.terms import ENDS, FOUND, key_of, number_of, up_to_of

READERS = 4
"""Reads of one store that are under way at once. Others wait, so that the pool has connections for other users."""
SEARCH_PATIENCE = 60.0
"""Seconds that a read may take if it looks through the whole log, or reads a whole view; others have ``patience``."""

_SNAPSHOT = select(*(schema.snapshots.c[name] for name in Snapshot._fields[1:])).where(
    schema.snapshots.c.aggregate_id == bindparam("id"), schema.snapshots.c.aggregate_type == bindparam("type")
)

_LETTER_COUNTS = select(schema.dead_letters.c.handler, func.count().label("letters")).group_by(
    schema.dead_letters.c.handler
)
_FILE_SIZE = text("SELECT page_count * page_size FROM pragma_page_count(), pragma_page_size()")
_TABLES_SIZE = text(
    "SELECT coalesce(sum(pg_total_relation_size(to_regclass(name))), 0) FROM unnest(CAST(:tables AS text[])) AS name"
)


class Reader:
    """Reads of one store.

    Attributes:
        under_way: The tasks of the reads that have begun.
    """

    def __init__(self, connections: Connections, tables: Tables) -> None:
        self._connections = connections
        self._tables = tables
        self.move()

    def move(self) -> None:
        """Start over on another event loop."""
        self._places = asyncio.Semaphore(READERS)
        self.under_way: set[asyncio.Task[Any]] = set()

    async def stream_page(self, stream: StreamId, after_version: int, limit: int) -> list[StoredRecord]:
        """See `EventStore.read_stream`."""
        parameters = {**names(stream), "after": after_version, "limit": limit}
        page = to_stored(await self.rows(STREAM_PAGE, parameters))
        for version, (_, record) in enumerate(page, start=after_version + 1):
            if record.aggregate_version != version:
                raise CorruptRecord(f"{stream} version {version} of {self._connections.url}", "it is missing")
        return page

    async def log_page(self, after: int, limit: int) -> list[StoredRecord]:
        """See `EventStore.read_log`."""
        await self._check_position(after)
        if self._tables.logs == 1:
            return to_stored(await self.rows(LOG_PAGE, {"after": after, "limit": limit}))
        parameters = {"after": after, "limit": limit, "last": last_of_log(after)}
        return to_stored(await self.rows(LOG_PAGE_OF_SEVERAL, parameters))

    async def log_pages(self, afters: Sequence[int], limit: int) -> list[StoredRecord]:
        """See `EventStore.read_logs`."""
        if not afters:
            return []
        for after in afters:
            await self._check_position(after)
        if self._tables.logs == 1:
            return [stored for after in afters for stored in await self.log_page(after, limit)]
        parameters = {
            "afters": [*afters],
            "lasts": [*map(last_of_log, afters)],
            "limit": limit,
            "bytes": max(1, PAGE_BYTES // len(afters)),
        }
        return to_stored(await self.rows(SEVERAL_PAGES, parameters))

    async def _check_position(self, after: int) -> None:
        if not is_position_in(after, await self.logs()):
            raise self.refused(
                f"reading one log after position {after}", "name a position of one of its logs"
            )

    async def logs(self) -> int:
        """How many logs the store has."""
        self._connections.life.check()
        await self._tables.prepare()
        return self._tables.logs

    def refused(self, what: str, remedy: str) -> SeveralLogs:
        """The error of a call that needs one order of all events."""
        return SeveralLogs(self._connections.url, self._tables.logs, what, remedy)

    async def headings(self, after: int, limit: int) -> list[Heading]:
        """See `EventStore.read_headings`."""
        await self._check_position(after)
        rows = await self.rows(HEADINGS, {"after": after, "limit": limit, "last": last_of_log(after)})
        return [Heading._make(row) for row in rows]

    async def stream_pages(
        self, stream: StreamId, after_version: int, size: int
    ) -> AsyncGenerator[list[StoredRecord]]:
        """The pages of one stream; the next one is read ahead while the caller looks at the last one."""
        page = await self.stream_page(stream, after_version, size)
        end = await self.version(stream) if page else 0
        while page:
            after_version += len(page)
            if after_version >= end:
                yield page
                return
            following = begin(asyncio.get_running_loop(), self.stream_page(stream, after_version, size))
            try:
                await asyncio.sleep(0)  # a long stream must not block the event loop
                yield page
                page = await following
            finally:
                following.cancel()

    async def search(
        self,
        after: int,
        limit: int | None,
        matching: LogFilter,
        end: int,
        *,
        size: int = PAGE,
        until: int | None = None,
    ) -> AsyncGenerator[StoredRecord]:
        """The records of one log up to ``end``, or soon after it; the database selects what it can.

        Args:
            after: Exclusive.
            limit: Maximum number of records.
            matching: Selects records.
            end: The position of the last record of the log.
            size: Records read at once.
            until: No record after this position.
        """
        position = schema.log.c.position
        last = last_of_log(end) if until is None else until
        statement = page_of(position, *selecting(matching), position <= last)
        left = limit
        while left is None or left > 0:
            rows = await self.rows(statement, {"after": after, "limit": size}, SEARCH_PATIENCE)
            page = to_stored(rows)
            for stored in page:
                if matching.matches(stored.record):
                    yield stored
                    left = None if left is None else left - 1
                    if left == 0:
                        return
            if not page or page[-1].position >= end:
                return
            after = page[-1].position

    async def lag_of(self, facets: Iterable[Facet]) -> tuple[int, int]:
        """How many records the index of one of ``facets`` lacks at most, and the end of the log."""
        keys = [*map(key_of, facets)]
        rows = await self.rows(ENDS, {"keys": keys})
        (end,) = await self.ends()
        up_to = min((up_to_of(row.position, end) for row in rows), default=0) if len(rows) == len(keys) else 0
        return end - up_to, end

    async def found_by(self, term: bytes, after: int, up_to: int) -> list[StoredRecord]:
        """A page of the records from after ``after`` to ``up_to`` that have a term."""
        parameters = {"term": number_of(term), "after": after, "up_to": up_to, "limit": PAGE}
        return to_stored(await self.rows(FOUND, parameters))

    async def version(self, stream: StreamId) -> int:
        """See `EventStore.last_version`."""
        return await self._value(LAST_VERSION, names(stream)) or 0

    async def version_at(self, stream: StreamId, position: int) -> int:
        """See `EventStore.version_at`."""
        return await self._value(VERSION_AT, {**names(stream), "position": position}) or 0

    async def types(self, aggregate_id: str) -> list[str]:
        """See `EventStore.aggregate_types`."""
        statement = select(schema.stream_type).where(schema.log.c.aggregate_id == aggregate_id).distinct()
        return sorted([name for (name,) in await self.rows(statement)])

    async def search_all(
        self, limit: int | None, matching: LogFilter, size: int
    ) -> AsyncGenerator[StoredRecord]:
        """The records of several logs: each log in order, and those of different logs by their time."""
        found = (
            self.search(start, limit, matching, end, size=size)
            for start, end in zip(starts_of_logs(self._tables.logs), await self.ends(), strict=True)
            if end > start
        )
        async with aclosing(merged(list(found))) as records:
            number = 0
            async for stored in records:
                if number == limit:
                    return
                number += 1
                yield stored

    async def ends(self) -> list[int]:
        """See `EventStore.last_positions`."""
        return [row.last_position for row in await self.rows(LAST_POSITIONS)]

    async def checkpoints(self) -> dict[str, int]:
        """See `EventStore.checkpoints`."""
        return {row.handler: row.position for row in await self.rows(select(schema.checkpoints))}

    async def view(
        self, views: Sequence[str], start: bytes, end: bytes | None, limit: int | None
    ) -> list[tuple[bytes, bytes]]:
        """See `EventStore.read_view` and `EventStore.read_views`."""
        table = schema.views
        is_one = table.c.view == views[0] if len(views) == 1 else table.c.view.in_(views)
        wanted = is_one & (table.c.key >= start)
        if end is not None:
            wanted &= table.c.key < end
        statement = (
            select(table.c.key, table.c.value).where(wanted).order_by(table.c.key, table.c.value).limit(limit)
        )
        rows = await self.rows(statement, patience=SEARCH_PATIENCE if limit is None else 0)
        return [(row.key, row.value) for row in rows]

    async def dead_letters(self, handler: str | None) -> list[DeadLetter]:
        """See `EventStore.dead_letters`."""
        letters = schema.dead_letters
        statement = select(letters).order_by(letters.c.handler, letters.c.position)
        if handler is not None:
            statement = statement.where(letters.c.handler == handler)
        return [DeadLetter._make(row) for row in await self.rows(statement)]

    async def dead_letter_counts(self) -> dict[str, int]:
        """See `EventStore.dead_letter_counts`."""
        return {row.handler: row.letters for row in await self.rows(_LETTER_COUNTS)}

    async def size(self) -> int:
        """Bytes of the tables and their indexes; of an SQLite file, of all tables in it."""
        if self._connections.wire is None:
            return int(await self._value(_FILE_SIZE))
        return int(await self._value(_TABLES_SIZE, {"tables": [*schema.METADATA.tables]}))

    async def snapshot(self, stream: StreamId) -> Snapshot | None:
        """See `EventStore.read_snapshot`."""
        rows = await self.rows(_SNAPSHOT, names(stream))
        return Snapshot._make((stream, *rows[0])) if rows else None

    async def is_leased(self, name: str) -> bool:
        """Whether PostgreSQL has a holder of ``name``."""
        return bool(await self._value(IS_LEASED, {"name": name}))

    async def leased_among(self, names: Iterable[str]) -> set[str]:
        """Those of ``names`` that have a holder in PostgreSQL."""
        return {row.name for row in await self.rows(LEASED_AMONG, {"names": [*names]})}

    async def _value(self, statement: Executable, parameters: Mapping[str, Any] | None = None) -> Any:
        rows = await self.rows(statement, parameters)
        return rows[0][0] if rows else None

    async def rows(
        self, statement: Executable, parameters: Mapping[str, Any] | None = None, patience: float = 0
    ) -> Sequence[Row[Any]]:
        """The rows of ``statement``, which may take the store's patience, or ``patience`` seconds if that is longer.

        Raises:
            StoreUnavailable: They cannot be read.
        """
        connections = self._connections
        connections.life.check()
        # A connection that is cancelled in the middle is lost, and with it a database in memory.
        reading = begin(
            asyncio.get_running_loop(),
            self._read_in_turn(statement, parameters, max(patience, connections.patience)),
        )
        self.under_way.add(reading)
        reading.add_done_callback(self._has_read)
        await asyncio.wait([reading])
        if reading.cancelled():  # underneath: a caller who is cancelled does not come here
            reason = "it was closed" if connections.life.closed else "the read was cancelled"
            raise StoreUnavailable(connections.url, reason)
        return reading.result()

    def _has_read(self, reading: asyncio.Task[Any]) -> None:
        self.under_way.discard(reading)
        if not reading.cancelled():
            reading.exception()  # marks it as retrieved: the caller may be gone

    async def _read_in_turn(
        self, statement: Executable, parameters: Mapping[str, Any] | None, seconds: float
    ) -> Sequence[Row[Any]]:
        async with self._places:
            self._connections.life.check()
            await self._tables.prepare()
            return await self._connections.again_if_lost(lambda: self._read(statement, parameters, seconds))

    async def _read(
        self, statement: Executable, parameters: Mapping[str, Any] | None, seconds: float
    ) -> Sequence[Row[Any]]:
        connections = self._connections
        in_transaction = connections.wire is None or connections.pooled
        options = {} if in_transaction else {"isolation_level": "AUTOCOMMIT"}
        async with connections.session() as session, connections.within(seconds):
            connection = await connections.connection(session, **options)
            return (await connection.execute(statement, parameters)).all()
