"""The tables of a database: made, brought up to date, and checked before the first use."""

import asyncio
from collections.abc import Sequence
from pathlib import Path

from sqlalchemy import Connection, Table, inspect, select, text
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.ext.asyncio import AsyncConnection
from sqlalchemy.schema import CreateIndex, CreateTable

from uno_actors.errors import OtherNumberOfLogs, StoreFormatError, StoreUnavailable
from uno_actors.store.logs import starts_of_logs
from uno_stores.sql import schema
from uno_stores.sql.connections import Connections

_ONE_MAKES_TABLES = text("SELECT pg_advisory_xact_lock(hashtextextended('uno_actors', 0))")
"""Two that make a table at once would fail, even if each makes it only where it is missing."""


class Tables:
    """Decides whether the tables of a store are ready for use.

    Args:
        connections: The store's connections.
        dialect: ``postgresql`` or ``sqlite``.
        logs: The number of logs that new tables get and that others must have; ``None`` for one, and for any.

    Attributes:
        logs: The number of logs, once the tables are ready.
        create: Whether the first use makes missing tables; otherwise it only checks those that are there.
    """

    def __init__(self, connections: Connections, dialect: str, logs: int | None) -> None:
        self._connections = connections
        self._dialect = dialect
        self._ready = False
        self.create = False
        self.logs = 1
        self._wanted_logs = logs
        self.move()

    def move(self) -> None:
        """Start over on another event loop."""
        self._opening = asyncio.Lock()

    async def prepare(self) -> None:
        """Before each use: make the tables, if ``create`` is set, or check that they belong to this program.

        Raises:
            StoreUnavailable: The database cannot be reached, or has no tables.
            StoreFormatError: A newer version of this program made the tables.
        """
        if self._ready:
            return
        async with self._opening:
            if not self._ready:
                await self._connections.again_if_lost(self._make_needed if self.create else self._find)

    async def make(self) -> None:
        """Make the tables that are missing; see `DatabaseEventStore.create_schema`."""
        await self._connections.again_if_lost(lambda: self._make(schema.METADATA.sorted_tables))

    async def add(self, table: Table) -> None:
        """Make a table that a database made by an earlier version lacks.

        Raises:
            StoreUnavailable: It cannot be made, perhaps for want of the permission.
        """
        await self._connections.again_if_lost(lambda: self._add(table))

    async def _add(self, table: Table) -> None:
        connections = self._connections
        async with connections.session() as session, connections.within(connections.patience):
            connection = await connections.connection(session)
            await self._create(connection, table)
            await session.commit()

    async def _create(self, connection: AsyncConnection, table: Table) -> None:
        if self._dialect == "postgresql":
            await connection.execute(_ONE_MAKES_TABLES)
        await connection.execute(CreateTable(table, if_not_exists=True))

    async def add_missing_in(self, connection: AsyncConnection, *tables: Table) -> None:
        """As `add_missing`, in a caller's transaction."""
        known = await connection.run_sync(_table_names)
        for table in tables:
            if table.name not in known:
                await self._create(connection, table)

    async def add_missing(self, *tables: Table) -> None:
        """As `add`, for those tables that are missing; no permission is needed if there are none.

        Raises:
            StoreUnavailable: As there, and if it cannot be found out.
        """
        await self.prepare()
        known: set[str] = set()

        async def look() -> None:
            connections = self._connections
            async with connections.session() as session, connections.within(connections.patience):
                connection = await connections.connection(session)
                known.update(await connection.run_sync(_table_names))

        await self._connections.again_if_lost(look)
        for table in tables:
            if table.name not in known:
                await self.add(table)

    async def _make_needed(self) -> None:
        """Make the tables that every store needs; see `add_missing` for the others."""
        await self._make([table for table in schema.METADATA.sorted_tables if not table.info.get("at_need")])

    async def _make(self, tables: Sequence[Table]) -> None:
        connections = self._connections
        await connections.find_pooler()
        async with connections.session() as session, connections.within(connections.patience):
            connection = await connections.connection(session)
            if self._dialect == "sqlite":
                # Readers and the writer do not hinder each other then; the file keeps this mode.
                await connection.execute(text("PRAGMA journal_mode = WAL"))
            else:
                await connection.execute(_ONE_MAKES_TABLES)
            for table in tables:
                if table.info.get("dialect", self._dialect) != self._dialect:
                    continue
                await connection.execute(CreateTable(table, if_not_exists=True))
                for index in sorted(table.indexes, key=lambda index: str(index.name)):
                    await connection.execute(CreateIndex(index, if_not_exists=True))
            await _add_columns(connection)
            await self._make_heads(connection)
            await self._check_format(connection)
            await session.commit()

    async def _make_heads(self, connection: AsyncConnection) -> None:
        """Make the logs of a store that has none yet."""
        if (await connection.execute(select(schema.head.c.id).limit(1))).first() is not None:
            return
        logs = self._wanted_logs or 1
        form = schema.FORMAT if logs == 1 else schema.FORMAT_OF_SEVERAL_LOGS
        rows = [
            {"id": log + 1, "last_position": start, "format": form}
            for log, start in enumerate(starts_of_logs(logs))
        ]
        insert = postgresql.insert if self._dialect == "postgresql" else sqlite.insert
        await connection.execute(insert(schema.head).on_conflict_do_nothing(), rows)

    async def _find(self) -> None:
        connections = self._connections
        await connections.find_pooler()
        async with connections.session() as session, connections.within(connections.patience):
            await self._check_format(await connections.connection(session))

    async def _check_format(self, connection: AsyncConnection) -> None:
        url = self._connections.url
        formats = (await connection.execute(select(schema.head.c.format))).scalars().all()
        if not formats:
            raise StoreUnavailable(url, "its tables are empty; make them with `await create_schema()`")
        found, logs = max(formats), len(formats)
        if found != (schema.FORMAT if logs == 1 else schema.FORMAT_OF_SEVERAL_LOGS):
            raise StoreFormatError(
                Path(url),
                f"the format of its tables is {found}, this version of uno_actors reads {schema.FORMAT}; use the"
                " version that wrote it",
            )
        if self._wanted_logs not in (None, logs):
            raise OtherNumberOfLogs(url, logs, self._wanted_logs)
        self.logs = logs
        self._ready = True


async def _add_columns(connection: AsyncConnection) -> None:
    """Add the columns that tables made by an earlier version of this program lack."""
    for table, columns in schema.LATER.items():
        there = await connection.run_sync(_columns_of, table)
        for name in columns:
            if name not in there:
                kind = schema.METADATA.tables[table].c[name].type.compile(connection.dialect)
                await connection.execute(text(f"ALTER TABLE {table} ADD COLUMN {name} {kind}"))


def _columns_of(connection: Connection, table: str) -> set[str]:
    return {column["name"] for column in inspect(connection).get_columns(table)}


def _table_names(connection: Connection) -> list[str]:
    return inspect(connection).get_table_names()
