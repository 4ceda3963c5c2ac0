"""The event store in an SQL database that is there already: PostgreSQL or SQLite, by SQLAlchemy's asyncio API.

The tables are described in `uno_stores.sql.schema`, the order of the log in `uno_stores.sql.log`. All writes of a store
go through one task, which takes everything that waits, writes it in one transaction, and answers; whatever arrives
during the commit forms the next transaction. If something in it cannot be written, its parts are written one by
one, so that it fails alone.

What a commit does not tell is found out. If the connection is lost before the commit was sent, nothing is recorded,
and it is tried again. If it is lost while the server commits, the store connects again, waits for the lock on the
head of the log, which a transaction that is still being committed would hold, and looks whether the records are
there. Only if the server does not come back in time `OutcomeUnknown` is told; `StoreUnavailable` says that surely
nothing was recorded.

Durability is the database's own: PostgreSQL's with ``synchronous_commit = on``, which is its default; SQLite's with
``synchronous = FULL``, which is its default too.

With PostgreSQL a store uses one connection for writing, up to `READERS` for reading, and one that it keeps for
``LISTEN`` and for the locks of leases, as long as somebody listens or has a lease. A pooler that gives each
transaction another session is found out at the first use: then every question is a transaction, news is looked for,
and leases end by the clock of the server alone.

A connection that leads to a server that only reads, as after a fail-over, is given up, and with it all that were
made before: what was asked is tried again on new ones.

A store may be used from one event loop after another. Its connections, if they are its own, end with their loop.
"""

import asyncio
import contextlib
import itertools
import os
import time
from collections.abc import AsyncGenerator, Awaitable, Callable, Coroutine, Iterable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, aclosing, asynccontextmanager
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any, TypeVar
from weakref import WeakKeyDictionary

from typing_extensions import override

try:
    from sqlalchemy import URL, Connection, Engine, Executable, Row, event, inspect, select, text
    from sqlalchemy.dialects import postgresql, sqlite
    from sqlalchemy.engine import make_url
    from sqlalchemy.exc import ArgumentError, UnboundExecutionError
    from sqlalchemy.ext.asyncio import AsyncConnection, AsyncSession
    from sqlalchemy.orm import Session, SessionTransaction
    from sqlalchemy.pool import StaticPool
    from sqlalchemy.schema import CreateIndex, CreateTable
except ModuleNotFoundError as missing:
    raise ModuleNotFoundError(
        f"{missing}: the SQL event store needs `pip install 'uno-actors[sql]'`", name=missing.name
    ) from missing

from uno_actors.domain.events import DomainEvent, EventRegistry, event_registry
from uno_actors.errors import (
    CorruptRecord,
    EventNotSerializable,
    InvalidStoreUrl,
    LeaseLost,
    OutcomeUnknown,
    StoreForked,
    StoreFormatError,
    StoreFull,
    StoreUnavailable,
    UnoError,
)
from uno_actors.logs import get_logger
from uno_actors.quantities import check_count, check_duration
from uno_actors.store.codec import StreamId
from uno_actors.store.limits import check_lease, check_progress
from uno_actors.store.log_filter import EVERYTHING, LogFilter
from uno_actors.store.port import (
    ANY,
    PAGE,
    Append,
    Appended,
    DeadLetter,
    EventStore,
    ExpectedVersion,
    Lease,
    RecordedEvent,
    Snapshot,
    StoredRecord,
    ViewChange,
)
from uno_actors.store_urls import without_password
from uno_actors.units import seconds, size
from uno_stores.files import Files
from uno_stores.sql import schema
from uno_stores.sql.connections import CLOSE_PATIENCE, OwnEngine, is_pooled, split_numbers, terminate
from uno_stores.sql.errors import InvalidSession, Trouble, reason, trouble, within
from uno_stores.sql.jobs import (
    Commit,
    CountLease,
    DropDeadLetter,
    DropSnapshots,
    DropView,
    Job,
    SaveProgress,
    SaveSnapshots,
    Work,
)
from uno_stores.sql.leases import IS_LEASED, SharedLeaseFile
from uno_stores.sql.log import (
    LAST_POSITION,
    LAST_VERSION,
    LOG_PAGE,
    STREAM_PAGE,
    Tail,
    in_transaction,
    insert_rows,
    lock_head,
    names,
    page_of,
    place_all,
    selecting,
    to_stored,
)
from uno_stores.sql.notifications import Wire

METADATA = schema.METADATA
PATIENCE = 10.0
"""Seconds that a store tries to reach a database that is away, unless it is told otherwise."""
LEASE_TIME = 10.0
"""Seconds until a lease ends that is not renewed, unless the store is told otherwise."""
MAX_EVENT_SIZE = 16 << 20
"""Bytes that the payload of an event may take, unless the store is told otherwise."""
SEARCH_PATIENCE = 60.0
"""Seconds that a read may take if it looks through all of the log, or reads a whole view; others have ``patience``."""
READERS = 4
"""Reads of one store that are under way at once; others wait, and the pool has connections for others."""
MAX_GROUP = 10_000
"""Jobs in one transaction at the most."""
LOOK_EVERY = 0.05
"""Seconds between two looks for what other processes have recorded, where the database does not tell."""
ASK_EVERY = 1.0
"""Seconds between two questions to a database that tells: whether it is there, and what was not heard."""

SessionFactory = Callable[[], AsyncSession]
T = TypeVar("T")


class DatabaseEventStore(EventStore):
    """Events in an SQL database, through sessions of the program's own making.

    The tables are made by `create_schema`, or by a migration tool from `METADATA`. A database in memory
    (``sqlite+aiosqlite://``) has one connection, on which one thing is done at a time.

    Args:
        session_factory: Makes an `AsyncSession` that is bound to an engine of PostgreSQL or SQLite.
        event_types: Classes, or a mapping of recorded names to classes, instead of an ``event_registry``.
        event_registry: Finds the classes of recorded events; default is the process-wide registry.
        max_event_size: Bytes that the payload of one event may take; a larger one is refused with
            `EventNotSerializable`.
        patience: Seconds that a call tries to reach a database that is away.
        lease_time: Seconds after which a process that hangs or is cut off from PostgreSQL loses its handlers to
            another. On an SQLite file the operating system holds the leases, until their process ends.

    Raises:
        ValueError: The sessions are bound to no engine, or to one of another database; or both ``event_types``
            and ``event_registry`` were given; or a number is not positive.
    """

    def __init__(
        self,
        session_factory: SessionFactory,
        event_types: Iterable[type[DomainEvent]] | Mapping[str, type[DomainEvent]] | None = None,
        event_registry: EventRegistry | None = None,
        *,
        max_event_size: int = MAX_EVENT_SIZE,
        patience: float = PATIENCE,
        lease_time: float = LEASE_TIME,
    ) -> None:
        if event_types is not None and event_registry is not None:
            raise ValueError("give event_types or event_registry, not both")
        super().__init__(_registry(event_types, event_registry))
        _check_options(max_event_size, patience, lease_time)
        self.max_event_size = max_event_size
        self.patience = patience
        self._session_factory = session_factory
        engine = _engine_of(session_factory)
        self._secret_url = engine.url.render_as_string(hide_password=False)
        self._url = without_password(self._secret_url)
        self._dialect = engine.dialect.name
        self._place = _Place.of(engine)
        self._place.leases.join()
        self.is_durable = not self._place.alone
        self._own_engine: OwnEngine | None = None  # made for a URL, and disposed of with the store
        self._create = False
        self._ready = False
        self._pooled = False  # known when it is ready
        self._trusted_from = 0  # connections with a lower number lead to a server that only reads
        self._tail = Tail()
        self._leases: dict[str, _Held] = {}  # had by this store, and lost or not
        self._wire = (
            Wire(
                self._url,
                session_factory,
                self._announce,
                patience=patience,
                lease_time=lease_time,
                lost_lease=self._lose,
            )
            if self._dialect == "postgresql"
            else None
        )
        self._counted: dict[str, int] = {}  # the taking of each lease, on SQLite
        self._announced = 0  # listeners have been told of everything up to here
        self._closed = False
        self._end: asyncio.Task[None] | None = None
        self._pid = os.getpid()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._begin_on(None)

    def _begin_on(self, loop: asyncio.AbstractEventLoop | None) -> None:
        """Nothing is under way on ``loop`` yet."""
        self._loop = loop
        self._opening = asyncio.Lock()
        self._readers = asyncio.Semaphore(READERS)
        self._reading: set[asyncio.Task[Any]] = set()
        self._sessions: set[AsyncSession] = set()
        self._waiting: list[_Asked] = []
        self._writer: asyncio.Task[None] | None = None
        self._watcher: asyncio.Task[None] | None = None
        self._errands: set[asyncio.Task[None]] = set()
        self._stay: AsyncGenerator[None] | None = None

    async def create_schema(self) -> None:
        """Make the tables, where they are missing; what is there stays as it is.

        Raises:
            StoreUnavailable: The database cannot be reached or written.
            StoreFormatError: The tables are those of a newer version of this program.
        """
        self._check_open()
        await self._again_if_lost(self._make_tables)

    async def _make_tables(self) -> None:
        await self._look_for_pooler()
        async with self._session() as session, self._within(self.patience):
            connection = await self._connection(session)
            if self._dialect == "sqlite":
                # Readers and the writer do not hinder each other then; it stays so in the file.
                await connection.execute(text("PRAGMA journal_mode = WAL"))
            else:
                await connection.execute(
                    text("SELECT pg_advisory_xact_lock(hashtextextended('uno_actors', 0))")
                )
            for table in METADATA.sorted_tables:
                await connection.execute(CreateTable(table, if_not_exists=True))
                for index in sorted(table.indexes, key=lambda index: str(index.name)):
                    await connection.execute(CreateIndex(index, if_not_exists=True))
            await self._add_columns(connection)
            insert = postgresql.insert if self._dialect == "postgresql" else sqlite.insert
            first = insert(schema.head).values(id=1, last_position=0, format=schema.FORMAT)
            await connection.execute(first.on_conflict_do_nothing())
            await self._check_format(connection)
            await session.commit()

    async def _add_columns(self, connection: AsyncConnection) -> None:
        """Give tables of an earlier version of this program what they lack."""
        for table, columns in schema.LATER.items():
            there = await connection.run_sync(_columns_of, table)
            for name in columns:
                if name not in there:
                    kind = METADATA.tables[table].c[name].type.compile(connection.dialect)
                    await connection.execute(text(f"ALTER TABLE {table} ADD COLUMN {name} {kind}"))

    async def _check_format(self, connection: AsyncConnection) -> None:
        found = (await connection.execute(select(schema.head.c.format))).scalar_one_or_none()
        if found is None:
            raise StoreUnavailable(self._url, "its tables are empty; make them with `await create_schema()`")
        if found != schema.FORMAT:
            raise StoreFormatError(
                Path(self._url),
                f"the format of its tables is {found}, this version of uno_actors reads {schema.FORMAT}; use the"
                " version that wrote it",
            )
        self._ready = True

    # --- the port: writing ---

    @override
    async def commit(self, requests: Sequence[Append]) -> list[Appended | UnoError]:
        if not requests:
            self._check_open()
            return []
        outcomes: list[Appended | UnoError] = await self._submit(Commit(requests))
        return outcomes

    @override
    async def save_progress(
        self,
        checkpoints: Mapping[str, int],
        dead_letters: Sequence[DeadLetter] = (),
        views: Sequence[ViewChange] = (),
        dropped: Sequence[tuple[str, int]] = (),
    ) -> None:
        letters = [(letter.handler, letter.position) for letter in dead_letters]
        check_progress(checkpoints, [*letters, *dropped], views)
        progress = SaveProgress(
            dict(checkpoints), tuple(dead_letters), tuple(views), tuple(dropped), self._held(), self._url
        )
        await self._submit_fenced(progress)

    @override
    async def drop_view(self, view: str) -> None:
        await self._submit_fenced(DropView(view, self._held(), self._url))

    def _held(self) -> dict[str, int]:
        """The number of the taking of each lease that this store has, be it lost or not."""
        return dict(self._counted if self._wire is None else self._wire.leases.held)

    async def _submit_fenced(self, job: Work[None]) -> None:
        try:
            await self._submit(job)
        except LeaseLost as lost:
            for name in lost.handlers:
                self._lose(name)
            raise

    def _lose(self, name: str) -> None:
        """Another has taken over a lease of this store."""
        if (lease := self._leases.get(name)) is not None:
            lease._lose()

    @override
    async def drop_dead_letter(self, handler: str, position: int) -> bool:
        dropped: bool = await self._submit(DropDeadLetter(handler, position))
        return dropped

    @override
    async def save_snapshots(self, snapshots: Sequence[Snapshot]) -> None:
        await self._submit(SaveSnapshots(tuple(snapshots)))

    @override
    async def drop_snapshots(self, aggregate_type: str | None = None) -> int:
        dropped: int = await self._submit(DropSnapshots(aggregate_type))
        return dropped

    @override
    async def append(
        self,
        *events: DomainEvent,
        expected_version: ExpectedVersion = ANY,
        session: AsyncSession | None = None,
    ) -> list[RecordedEvent]:
        """As `EventStore.append`; with a ``session`` the events become part of its transaction.

        They are recorded when the caller commits, together with whatever else the transaction holds, or not at
        all; until then nobody sees them, and their positions are theirs only if the commit succeeds. No other
        events are recorded meanwhile, by nobody: append last, commit soon, and wait for nothing between, least
        of all for an aggregate.

        A database in memory has one connection: until the caller's transaction ends, the store waits for it.

        Raises:
            StoreUnavailable, StoreFull: See there; roll back the transaction.
            InvalidSession: The session is bound to another database, or commits each statement by itself.
        """
        if session is None:
            return await super().append(*events, expected_version=expected_version)
        return await self._append(
            events, expected_version, lambda requests: self._commit_in(session, requests)
        )

    async def _commit_in(
        self, session: AsyncSession, requests: Sequence[Append]
    ) -> list[Appended | UnoError]:
        """Record in the transaction of ``session``, which the caller ends."""
        self._check_open()
        try:
            connection = await session.connection()
            self._check_place(connection)
            if self._place.alone:  # else the watcher sees it
                await self._place.lend(session.sync_session, self._url, self.patience, self._look_soon)
            outcomes, rows = await place_all(connection, requests, Tail(), self.max_event_size)
            self._check_transaction(connection)
            if rows:
                async with connection.begin_nested():  # what fails leaves the transaction as it was
                    await insert_rows(connection, rows)
        except UnoError:
            raise
        except Exception as error:
            raise self._refused(error, requests) from error
        return outcomes

    def _check_place(self, connection: AsyncConnection) -> None:
        """Refuse to record in another database than ours."""
        assert connection.sync_connection is not None
        engine = connection.sync_connection.engine
        if _Place.key_of(engine) != self._place.key:
            found = without_password(engine.url.render_as_string(hide_password=False))
            raise InvalidSession(self._url, f"it is bound to {found}; bind it to the database of the store")

    def _check_transaction(self, connection: AsyncConnection) -> None:
        """Refuse to record where nothing keeps the head of the log locked, as it must be by now."""
        if not in_transaction(connection):
            raise InvalidSession(
                self._url,
                "its connection commits each statement by itself; use an engine and sessions without"
                ' isolation_level="AUTOCOMMIT"',
            )

    async def _submit(self, job: Commit | Work[T]) -> Any:
        self._check_open()
        loop = asyncio.get_running_loop()
        asked = _Asked(job, loop.create_future())
        self._waiting.append(asked)
        if self._writer is None:
            self._writer = loop.create_task(self._write_all(), name=f"writer of {self._url}")
        # A caller that is cancelled abandons the future, and the work is done all the same.
        return await asked.future

    async def _write_all(self) -> None:
        group: list[_Asked] = []
        try:
            while self._waiting:
                group, self._waiting = self._waiting[:MAX_GROUP], self._waiting[MAX_GROUP:]
                results = await self._write([asked.job for asked in group])
                for asked, result in zip(group, results, strict=True):
                    asked.answer(result)
                group = []
                self._announce(self._tail.position)
        except asyncio.CancelledError:  # by the program as it ends, or underneath: no caller was
            self._tail.forget()
            unknown = OutcomeUnknown(f"store {self._url}", "its writer was cancelled")
            untouched = StoreUnavailable(self._url, "its writer was cancelled")
            waiting, self._waiting = self._waiting, []
            for asked in group:
                asked.answer(_answer_of(asked.job, unknown))
            for asked in waiting:
                asked.answer(_answer_of(asked.job, untouched))
            raise
        finally:
            self._writer = None

    async def _write(self, jobs: Sequence[Job]) -> list[Any]:
        """Do all jobs in one transaction and return the result of each, which may be an error."""
        patience = _Patience(self.patience)
        while True:
            attempt = _Attempt()
            try:
                await self._open()
                await self._transact(jobs, attempt)
            except UnoError as error:
                return [_answer_of(job, error) for job in jobs]
            except Exception as error:  # noqa: BLE001 - the writer must outlive whatever one group meets
                self._tail.forget()
                if attempt.committing and attempt.rows:
                    recorded = await self._is_recorded(attempt.rows)
                    if recorded is None:
                        unknown = OutcomeUnknown(f"store {self._url}", reason(error))
                        return [_answer_of(job, unknown) for job in jobs]
                    if recorded:
                        return attempt.results
                kind = trouble(error)
                if kind in _PASSING and await patience.again():
                    continue
                parts = _parts(jobs) if kind in _OF_ONE else []
                if len(parts) > 1:
                    return _joined(jobs, [result for part in parts for result in await self._write([part])])
                return [_answer_of(job, self._refused(error, _requests([job]))) for job in jobs]
            return attempt.results

    async def _transact(self, jobs: Sequence[Job], attempt: "_Attempt") -> None:
        async with self._session() as session:
            async with self._within(self.patience):  # others may hold the head, or the server not answer
                connection = await self._connection(session)
                for job in jobs:
                    try:
                        done = None if isinstance(job, Commit) else await job.write(connection)
                        attempt.results.append(done)
                    except UnoError as error:
                        attempt.results.append(error)
                requests = _requests(jobs)
                if requests:
                    outcomes, attempt.rows = await place_all(
                        connection, requests, self._tail, self.max_event_size
                    )
                    self._check_transaction(connection)
                    attempt.results = _with_outcomes(jobs, attempt.results, outcomes)
            async with self._within(self.patience + len(attempt.rows) / 1000):
                await insert_rows(connection, attempt.rows)
            attempt.committing = True
            async with self._within(self.patience):
                await session.commit()

    @asynccontextmanager
    async def _session(self) -> AsyncGenerator[AsyncSession]:
        if self._wire is None:
            if lost := self._place.lost():
                raise StoreUnavailable(
                    self._url, f"{lost} while it was open: put it back, or open the store again"
                )
            async with self._place.turn(self._url, self.patience), self._session_factory() as session:
                yield session
            return
        session = self._session_factory()
        self._sessions.add(session)
        try:
            yield session
            async with within(self.patience):
                await session.close()
        except BaseException as error:
            await self._part_with(session, error)
            raise
        finally:
            self._sessions.discard(session)

    async def _part_with(self, session: AsyncSession, error: BaseException) -> None:
        """End a session that has failed, without waiting for a server that may not answer."""
        kind = trouble(error) if isinstance(error, Exception) else Trouble.LOST  # cancelled in the middle
        if kind is Trouble.READ_ONLY:
            self._trusted_from = next(_numbers)
        try:
            if kind in (Trouble.LOST, Trouble.READ_ONLY):
                terminate(session.info.get(_DRIVER))
                await session.invalidate()
            else:
                async with within(self.patience):
                    await session.close()
        except Exception:  # noqa: BLE001 - what was to be done has failed before
            terminate(session.info.get(_DRIVER))

    async def _connection(self, session: AsyncSession, **options: Any) -> AsyncConnection:
        """The connection of ``session``, which is not known to lead to a server that only reads."""
        while True:
            connection = await session.connection(execution_options=options)
            assert connection.sync_connection is not None
            made = connection.sync_connection.connection
            session.info[_DRIVER] = made.driver_connection
            if made.info.setdefault(_NUMBER, next(_numbers)) >= self._trusted_from:
                return connection
            terminate(made.driver_connection)
            await session.invalidate()

    def _within(self, seconds: float) -> AbstractAsyncContextManager[None]:
        """A time limit, except where to give up would be to lose the database."""
        return within(None if self._place.alone else seconds)

    async def _is_recorded(self, rows: Sequence[dict[str, Any]]) -> bool | None:
        """Whether a commit that failed has recorded ``rows``; ``None`` if it cannot be found out.

        A transaction that is still being committed holds the head, so whoever has it locks sees what came of it.
        """
        places = schema.log.c.position.between(rows[0]["position"], rows[-1]["position"])
        statement = select(schema.log.c.event_id).where(places).order_by(schema.log.c.position)
        patience = _Patience(self.patience)
        while True:
            try:
                async with self._session() as session:
                    async with self._within(self.patience):
                        connection = await self._connection(session)
                        await lock_head(connection)
                        found = (await connection.execute(statement)).scalars().all()
                    return list(found) == [row["event_id"] for row in rows]
            except Exception as error:  # noqa: BLE001 - whatever it is, the outcome is not known
                if trouble(error) not in _PASSING or not await patience.again():
                    return None

    # --- the port: reading ---

    @override
    async def read_stream(
        self, stream: StreamId, after_version: int = 0, limit: int = PAGE
    ) -> list[StoredRecord]:
        parameters = {**names(stream), "after": after_version, "limit": limit}
        page = to_stored(await self._rows(STREAM_PAGE, parameters))
        for version, (_, record) in enumerate(page, start=after_version + 1):
            if record.aggregate_version != version:
                raise CorruptRecord(f"{stream} version {version} of {self._url}", "it is missing")
        return page

    @override
    async def read_log(self, after: int = 0, limit: int = PAGE) -> list[StoredRecord]:
        return to_stored(await self._rows(LOG_PAGE, {"after": after, "limit": limit}))

    @override
    async def read_records(
        self, after: int = 0, limit: int | None = None, matching: LogFilter = EVERYTHING
    ) -> AsyncGenerator[StoredRecord]:
        """As `EventStore.read_records`; the database selects what it can."""
        if matching == EVERYTHING:
            async with aclosing(super().read_records(after, limit)) as everything:
                async for stored in everything:
                    yield stored
            return
        statement = page_of(schema.log.c.position, *selecting(matching))
        left, end = limit, await self.last_position()
        while left is None or left > 0:
            rows = await self._rows(statement, {"after": after, "limit": PAGE}, SEARCH_PATIENCE)
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

    @override
    async def last_version(self, stream: StreamId) -> int:
        return await self._value(LAST_VERSION, names(stream)) or 0

    @override
    async def aggregate_types(self, aggregate_id: str) -> list[str]:
        statement = select(schema.stream_type).where(schema.log.c.aggregate_id == aggregate_id).distinct()
        return sorted([name for (name,) in await self._rows(statement)])

    @override
    async def last_position(self) -> int:
        return await self._value(LAST_POSITION) or 0

    @override
    async def checkpoints(self) -> dict[str, int]:
        return {row.handler: row.position for row in await self._rows(select(schema.checkpoints))}

    @override
    async def read_view(
        self, view: str, start: bytes = b"", end: bytes | None = None, limit: int | None = PAGE
    ) -> list[tuple[bytes, bytes]]:
        table = schema.views
        wanted = (table.c.view == view) & (table.c.key >= start)
        if end is not None:
            wanted &= table.c.key < end
        statement = select(table.c.key, table.c.value).where(wanted).order_by(table.c.key).limit(limit)
        rows = await self._rows(statement, patience=SEARCH_PATIENCE if limit is None else 0)
        return [(row.key, row.value) for row in rows]

    @override
    async def dead_letters(self, handler: str | None = None) -> list[DeadLetter]:
        letters = schema.dead_letters
        statement = select(letters).order_by(letters.c.handler, letters.c.position)
        if handler is not None:
            statement = statement.where(letters.c.handler == handler)
        return [DeadLetter._make(row) for row in await self._rows(statement)]

    @override
    async def read_snapshot(self, stream: StreamId) -> Snapshot | None:
        table = schema.snapshots
        columns = [table.c[name] for name in Snapshot._fields[1:]]
        wanted = (table.c.aggregate_id == stream.aggregate_id) & (
            table.c.aggregate_type == stream.aggregate_type
        )
        rows = await self._rows(select(*columns).where(wanted))
        return Snapshot._make((stream, *rows[0])) if rows else None

    @override
    async def _pages(
        self, stream: StreamId, after_version: int, size: int = PAGE
    ) -> AsyncGenerator[list[StoredRecord]]:
        """As `EventStore._pages`; the next page is on its way while the last one is looked at."""
        page = await self.read_stream(stream, after_version, size)
        end = await self.last_version(stream) if page else 0
        while page:
            after_version += len(page)
            if after_version >= end:
                yield page
                return
            following = asyncio.ensure_future(self.read_stream(stream, after_version, size))
            try:
                await asyncio.sleep(0)  # a long stream must not keep the event loop from others
                yield page
                page = await following
            finally:
                following.cancel()

    async def _value(self, statement: Executable, parameters: Mapping[str, Any] | None = None) -> Any:
        rows = await self._rows(statement, parameters)
        return rows[0][0] if rows else None

    async def _rows(
        self, statement: Executable, parameters: Mapping[str, Any] | None = None, patience: float = 0
    ) -> Sequence[Row[Any]]:
        """The rows of ``statement``, which may take the store's patience, or ``patience`` if that is more."""
        self._check_open()
        # A connection that is cancelled in the middle is lost, and with it a database in memory.
        reading = asyncio.get_running_loop().create_task(
            self._read_in_turn(statement, parameters, max(patience, self.patience))
        )
        self._reading.add(reading)
        reading.add_done_callback(self._has_read)
        await asyncio.wait([reading])
        if reading.cancelled():  # underneath: a caller who is cancelled does not come here
            raise StoreUnavailable(self._url, "it was closed" if self._closed else "the read was cancelled")
        return reading.result()

    def _has_read(self, reading: asyncio.Task[Any]) -> None:
        self._reading.discard(reading)
        if not reading.cancelled():
            reading.exception()  # one whose caller is gone is told to nobody

    async def _read_in_turn(
        self, statement: Executable, parameters: Mapping[str, Any] | None, seconds: float
    ) -> Sequence[Row[Any]]:
        async with self._readers:
            self._check_open()
            await self._open()
            return await self._again_if_lost(lambda: self._read(statement, parameters, seconds))

    async def _read(
        self, statement: Executable, parameters: Mapping[str, Any] | None, seconds: float
    ) -> Sequence[Row[Any]]:
        options = {} if self._wire is None or self._pooled else {"isolation_level": "AUTOCOMMIT"}
        async with self._session() as session, self._within(seconds):
            connection = await self._connection(session, **options)
            return (await connection.execute(statement, parameters)).all()

    # --- news and leases ---

    @override
    def on_commit(self, listener: Callable[[], None]) -> Callable[[], None]:
        """As `EventStore.on_commit`.

        Commits of other processes are heard of too: from PostgreSQL at once, of an SQLite file within `LOOK_EVERY`
        seconds.
        """
        stop = super().on_commit(listener)
        self._watch()
        return stop

    @override
    async def lease(self, name: str) -> Lease | None:
        self._check_open()
        check_lease(name)
        await self._open()
        taking = asyncio.ensure_future(self._take(name))
        try:
            await asyncio.wait([taking])  # to cancel it would end the connection, with all locks of leases
        except asyncio.CancelledError:
            self._run(self._give_back(name, taking))
            raise
        if taking.cancelled():
            raise StoreUnavailable(
                self._url, "it was closed" if self._closed else "what was asked was cancelled"
            )
        if not taking.result():
            return None
        self._leases[name] = lease = _Held(self, name)
        self._watch()
        return lease

    async def _take(self, name: str) -> bool:
        if (wire := self._wire) is not None:
            return await self._again_if_lost(lambda: wire.leases.take(name))
        try:
            if not self._place.leases.take(name):
                return False
        except OSError as error:
            raise self._no_lease_file(error) from error
        try:
            self._counted[name] = await self._submit(CountLease(name))
        except BaseException:
            self._place.leases.release(name)
            raise
        return True

    @override
    async def is_leased(self, name: str) -> bool:
        """As `EventStore.is_leased`; of PostgreSQL it is asked, and nothing is taken."""
        self._check_open()
        check_lease(name)
        if self._wire is not None:
            return bool(await self._value(IS_LEASED, {"name": name}))
        try:
            return self._place.leases.is_taken(name)
        except OSError as error:
            raise self._no_lease_file(error) from error

    def _no_lease_file(self, error: OSError) -> StoreUnavailable:
        return StoreUnavailable(self._url, f"its leases: {error.strerror or error}")

    async def _give_back(self, name: str, taking: asyncio.Task[bool]) -> None:
        """Release a lease that nobody waits for any more."""
        with contextlib.suppress(Exception):
            if await taking:
                await self._let_go_of(name)

    async def _release(self, lease: "_Held") -> None:
        if self._leases.get(lease.name) is not lease or self._closed:
            return
        del self._leases[lease.name]
        await self._let_go_of(lease.name)

    async def _let_go_of(self, name: str) -> None:
        if self._wire is None:
            self._counted.pop(name, None)
            self._place.leases.release(name)
        else:
            with contextlib.suppress(Exception):  # what cannot be released ends by itself
                await asyncio.shield(self._wire.leases.release(name))

    def _watch(self) -> None:
        """Have somebody look what others record, and whether the leases are held."""
        if self._closed or self._place.alone or not (self._watcher is None or self._watcher.done()):
            return
        work = self._look_often() if self._wire is None else self._listen(self._wire)
        self._watcher = asyncio.get_running_loop().create_task(work, name=f"watcher of {self._url}")

    async def _look_often(self) -> None:
        while self._commit_listeners:
            await self._look()
            await asyncio.sleep(LOOK_EVERY)

    async def _listen(self, wire: Wire) -> None:
        while self._commit_listeners or wire.leases.held:
            try:
                await self._open()
                if wire.leases.due <= 0:
                    await wire.leases.renew()
                self._announce(await wire.ask(LAST_POSITION) or 0)
            except Exception:  # noqa: BLE001 - whoever reads or writes is told; here it is tried again
                await asyncio.sleep(LOOK_EVERY)
                continue
            pause = LOOK_EVERY if self._commit_listeners and not wire.listens else ASK_EVERY
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(max(0.0, min(pause, wire.leases.due))):
                    await wire.lost.wait()

    async def _look(self) -> None:
        with contextlib.suppress(UnoError):  # whoever reads next is told
            self._announce(await self.last_position())

    def _look_soon(self) -> None:
        """A caller's transaction has ended."""
        if self._commit_listeners and not self._closed:
            self._run(self._look())

    def _run(self, errand: Coroutine[Any, Any, None]) -> None:
        """Do something that nobody waits for, unless the store is closed first."""
        self._errands.add(task := asyncio.get_running_loop().create_task(errand))
        task.add_done_callback(self._errands.discard)

    def _announce(self, end: int) -> None:
        if end > self._announced:
            self._announced = end
            self._committed()

    # --- opening and closing ---

    async def _open(self) -> None:
        """Make the tables, if it is for us to do, or see that they are ours."""
        if self._ready:
            return
        async with self._opening:
            if not self._ready:
                await self._again_if_lost(self._make_tables if self._create else self._find_tables)

    async def _find_tables(self) -> None:
        await self._look_for_pooler()
        async with self._session() as session, self._within(self.patience):
            await self._check_format(await self._connection(session))

    async def _look_for_pooler(self) -> None:
        """Learn whether there is one, and suit it."""
        if self._wire is None or self._pooled:
            return
        async with self._session() as session, self._within(self.patience):
            pooled = await is_pooled(await self._connection(session))
        if pooled:
            self._pooled = self._wire.pooled = True
            self._wire.leases.by_session = False
            _log.info(
                "PostgreSQL is reached through a pooler: leases end by its clock alone, news is looked for",
                store=self._url,
            )
            if self._own_engine is not None:
                await self._own_engine.suit_pooler()

    @override
    async def close(self) -> None:
        if self._pid != os.getpid():  # nothing of it is the child's
            return
        if self._end is None:
            self._come_to(asyncio.get_running_loop())
            self._closed = True
            self._end_subscriptions()
            self._end = asyncio.get_running_loop().create_task(self._let_go())
        try:
            # A second caller waits too: whoever sees close return may open it again.
            await asyncio.shield(self._end)
        except asyncio.CancelledError:  # there is no time to do it in good order
            self._cut()
            self._end.cancel()
            raise

    async def _let_go(self) -> None:
        try:
            await self._finish()
        except asyncio.CancelledError:
            self._cut()
        tasks = self._under_way()
        for task in tasks:
            task.cancel()
        for session in self._sessions:
            terminate(session.info.get(_DRIVER))
        try:
            await asyncio.gather(*tasks, return_exceptions=True)
            await self._end_connections()
        except asyncio.CancelledError:
            self._cut()
        for name in self._counted:
            self._place.leases.release(name)
        self._place.leases.leave()

    async def _finish(self) -> None:
        """Wait for what was accepted, as long as the database may take for it, and for reads that were begun."""
        if self._writer is not None:
            await asyncio.wait([self._writer], timeout=2 * self.patience)
        if self._reading:
            await asyncio.wait(self._reading, timeout=CLOSE_PATIENCE)

    def _under_way(self) -> list[asyncio.Task[Any]]:
        tasks = (self._writer, self._watcher, *self._errands, *self._reading)
        return [task for task in tasks if task is not None and not task.done()]

    async def _end_connections(self) -> None:
        """In good order, if they answer soon."""
        if self._wire is not None:
            with contextlib.suppress(Exception):  # what cannot be released ends by itself
                async with within(CLOSE_PATIENCE):
                    for name in tuple(self._wire.leases.held) if self._pooled else ():
                        await self._wire.leases.release(name)
            await self._wire.close()
        if self._own_engine is not None:
            await self._own_engine.dispose()
        if self._stay is not None:
            await self._stay.aclose()

    def _cut(self) -> None:
        """End all connections of the store at once."""
        if self._wire is not None:
            self._wire.cut()
        for session in self._sessions:
            terminate(session.info.get(_DRIVER))
        if self._own_engine is not None:
            self._own_engine.cut()

    def _check_open(self) -> None:
        if self._pid != os.getpid():
            raise StoreForked(self._url)
        if self._closed:
            raise StoreUnavailable(self._url, "it was closed")
        self._come_to(asyncio.get_running_loop())

    def _come_to(self, loop: asyncio.AbstractEventLoop) -> None:
        """Be used on ``loop`` from now on.

        Raises:
            StoreUnavailable: Another event loop uses it.
        """
        if loop is self._loop:
            return
        before = self._loop
        if before is not None and before.is_running():
            raise StoreUnavailable(
                self._url, "another event loop, which is running, uses it: open a store for each of them"
            )
        self._begin_on(loop)
        if before is not None:
            self._tail.forget()
            self._place.move()
            if self._wire is not None:
                self._wire.move()
                if self._own_engine is not None:
                    self._own_engine.renew()
        self._stay = self._stay_on()
        with contextlib.suppress(StopIteration):
            self._stay.__anext__().send(None)  # to where it waits for the end of the loop
        if before is not None and self._commit_listeners:
            self._watch()

    async def _stay_on(self) -> AsyncGenerator[None]:
        """Waits for the end of the event loop, which closes its generators, as that of `asyncio.run` does."""
        try:
            yield
        finally:
            # Those of SQLite belong to threads, and to no loop.
            if not self._closed and self._wire is not None and self._own_engine is not None:
                await self._wire.leave()
                await self._own_engine.dispose()

    async def _again_if_lost(self, work: Callable[[], Awaitable[T]]) -> T:
        patience = _Patience(self.patience)
        while True:
            try:
                return await work()
            except UnoError:
                raise
            except Exception as error:
                if trouble(error) not in _PASSING or self._closed or not await patience.again():
                    raise self._refused(error) from error

    def _refused(self, error: Exception, requests: Sequence[Append] = ()) -> UnoError:
        """What an error means that has left nothing recorded."""
        kind, text = trouble(error), reason(error)
        if kind is Trouble.FULL:
            return StoreFull(self._secret_url, f"{text}; make room on the disk")
        if kind is Trouble.UNFIT and requests:
            return EventNotSerializable(requests[0].records[0].event_type, text)
        remedy = _REMEDIES.get(kind)
        return StoreUnavailable(self._secret_url, f"{text}; {remedy}" if remedy else text)

    def __repr__(self) -> str:
        return f"DatabaseEventStore({self._url!r})"


async def create_database_event_store(
    session_factory: SessionFactory,
    event_types: Iterable[type[DomainEvent]] | Mapping[str, type[DomainEvent]] | None = None,
    event_registry: EventRegistry | None = None,
    *,
    max_event_size: int = MAX_EVENT_SIZE,
    patience: float = PATIENCE,
    lease_time: float = LEASE_TIME,
) -> DatabaseEventStore:
    """A `DatabaseEventStore` whose tables are there; arguments and errors are those of the class.

    Raises:
        StoreUnavailable, StoreFormatError: See `DatabaseEventStore.create_schema`.
    """
    store = DatabaseEventStore(
        session_factory,
        event_types,
        event_registry,
        max_event_size=max_event_size,
        patience=patience,
        lease_time=lease_time,
    )
    await store.create_schema()
    return store


class _Held(Lease):
    """A name that a store has."""

    def __init__(self, store: DatabaseEventStore, name: str) -> None:
        self._store = store
        self.name = name

    @override
    async def release(self) -> None:
        await self._store._release(self)


_log = get_logger()
_DRIVER, _NUMBER = "uno_actors driver", "uno_actors number"
_numbers = itertools.count(1)
"""Of connections, in the order in which stores of this process first meet them."""

_PASSING = {Trouble.LOST, Trouble.BUSY, Trouble.TAKEN, Trouble.READ_ONLY}
"""What may be over when it is tried again. Something has the key if a program records without locking the head."""
_REMEDIES = {
    Trouble.NO_TABLES: "make its tables once with `await create_schema()`",
    Trouble.NO_FILE: "the directory must be there and be writable, make it first",
    Trouble.READ_ONLY: "the server only reads, as one that stands by does: name the one that writes",
    Trouble.POOLED: (
        "behind a pooler statements must have no name: give the URL to open_store, or make the engine with"
        ' poolclass=NullPool and connect_args={"statement_cache_size": 0, "prepared_statement_cache_size": 0,'
        ' "prepared_statement_name_func": str}'
    ),
    Trouble.OTHER_LOOP: (
        "the engine has connections of an event loop that has ended: make it with poolclass=NullPool, or dispose of"
        " it before its loop ends"
    ),
}
_OF_ONE = {Trouble.UNFIT, Trouble.OTHER}
"""What may be the fault of one part of a group."""


@dataclass(slots=True)
class _Asked:
    job: Job
    future: asyncio.Future[Any]

    def answer(self, result: Any) -> None:
        if self.future.done():  # cancelled by its caller
            return
        if isinstance(result, Exception):
            self.future.set_exception(result)
        else:
            self.future.set_result(result)


@dataclass(slots=True)
class _Attempt:
    """How far a transaction came."""

    results: list[Any] = field(default_factory=list)
    rows: list[dict[str, Any]] = field(default_factory=list)
    committing: bool = False


class _Patience:
    """Tries again, ever less often, until the time is over."""

    def __init__(self, seconds: float) -> None:
        self._end = time.monotonic() + seconds
        self._pause = 0.01

    async def again(self) -> bool:
        """Wait a little; whether there is time to try again."""
        if time.monotonic() >= self._end:
            return False
        await asyncio.sleep(self._pause)
        self._pause = min(2 * self._pause, 0.5)
        return True


def _requests(jobs: Sequence[Job]) -> list[Append]:
    return [request for job in jobs if isinstance(job, Commit) for request in job.requests]


def _with_outcomes(
    jobs: Sequence[Job], results: list[Any], outcomes: Sequence[Appended | UnoError]
) -> list[Any]:
    """The results of all jobs, those of commits taken from ``outcomes``."""
    each = iter(outcomes)
    return [
        list(islice(each, len(job.requests))) if isinstance(job, Commit) else result
        for job, result in zip(jobs, results, strict=True)
    ]


def _answer_of(job: Job, error: UnoError) -> Any:
    """The result of a job of which ``error`` was all that came."""
    return [error] * len(job.requests) if isinstance(job, Commit) else error


def _parts(jobs: Sequence[Job]) -> list[Job]:
    """What can be written by itself."""
    return [
        part
        for job in jobs
        for part in ([Commit((request,)) for request in job.requests] if isinstance(job, Commit) else [job])
    ]


def _joined(jobs: Sequence[Job], results: Sequence[Any]) -> list[Any]:
    """The results of ``jobs`` from those of their `_parts`."""
    each = iter(results)
    return [
        [outcome for _ in job.requests for outcome in next(each)] if isinstance(job, Commit) else next(each)
        for job in jobs
    ]


def _registry(
    event_types: Iterable[type[DomainEvent]] | Mapping[str, type[DomainEvent]] | None,
    given: EventRegistry | None,
) -> EventRegistry:
    if event_types is not None:
        return EventRegistry(event_types)
    return event_registry if given is None else given


# --- where the database is ---------------------------------------------------------------------------------


class _Place:
    """What the stores of one process on one database share.

    Attributes:
        key: The same for all engines of one database, as far as their URLs tell.
        leases: Names held by the process, except in PostgreSQL.
        alone: Nobody else can write there.
    """

    def __init__(
        self,
        key: object,
        leases: SharedLeaseFile,
        *,
        alone: bool = False,
        one_connection: bool = False,
        file: Path | None = None,
    ) -> None:
        self.key = key
        self.leases = leases
        self.alone = alone
        self._file = file
        self._files = Files()
        self._turn = asyncio.Lock() if one_connection else None
        self._borrowers: WeakKeyDictionary[Session, Callable[[], None]] = WeakKeyDictionary()

    @classmethod
    def of(cls, engine: Engine) -> "_Place":
        """That of ``engine``."""
        key = cls.key_of(engine)
        if engine.dialect.name == "postgresql":
            return cls(key, SharedLeaseFile(None))
        if path := _file_of(engine.url):
            return cls(key, SharedLeaseFile.at(path.with_name(f"{path.name}-leases")), file=path)
        found = _in_memory.get(engine)
        if found is None:
            one = isinstance(engine.pool, StaticPool)
            found = _in_memory[engine] = cls(key, SharedLeaseFile(None), alone=True, one_connection=one)
        return found

    def move(self) -> None:
        """Its stores are used on another event loop from now on."""
        if self._turn is not None and not self._turn.locked():
            self._turn = asyncio.Lock()

    def lost(self) -> str:
        """What has become of a file of SQLite that was there and is not in its place; else empty."""
        if self._file is not None and self._file.exists():
            with contextlib.suppress(OSError):  # it goes in this moment: the next look tells
                self._files.watch(self._file)
            self._file = None
        return self._files.lost()

    @staticmethod
    def key_of(engine: Engine) -> object:
        """What `key` says. A server may have several addresses, so only the name of the database counts."""
        if engine.dialect.name == "sqlite":
            file = _file_of(engine.url)
            return id(engine.pool) if file is None else os.path.realpath(file)
        return engine.dialect.name, engine.url.database

    @asynccontextmanager
    async def turn(self, store: str, patience: float) -> AsyncGenerator[None]:
        """A database in memory has one connection, which sessions take in turn.

        Raises:
            StoreUnavailable: A caller's transaction did not end within ``patience`` seconds.
        """
        await self._take_turn(store, patience)
        try:
            yield
        finally:
            self._give_turn()

    async def lend(self, session: Session, store: str, patience: float, ended: Callable[[], None]) -> None:
        """Leave the turn to a caller's ``session`` until its transaction ends, and call ``ended`` then."""
        if session in self._borrowers:
            return
        await self._take_turn(store, patience)
        self._borrowers[session] = ended
        if not event.contains(session, "after_transaction_end", self._take_back):
            event.listen(session, "after_transaction_end", self._take_back)

    def _take_back(self, session: Session, transaction: SessionTransaction) -> None:
        if transaction.parent is None and (ended := self._borrowers.pop(session, None)) is not None:
            self._give_turn()
            ended()

    async def _take_turn(self, store: str, patience: float) -> None:
        if self._turn is None:
            return
        try:
            async with asyncio.timeout(patience):
                await self._turn.acquire()
        except TimeoutError:
            raise StoreUnavailable(
                store,
                f"the database is in memory and has one connection, which was in use for {patience:g} s: commit or"
                " roll back the session that was given to `append` before the store is asked for anything else",
            ) from None

    def _give_turn(self) -> None:
        if self._turn is not None:
            self._turn.release()


_in_memory: WeakKeyDictionary[Engine, _Place] = WeakKeyDictionary()


def _file_of(url: URL) -> Path | None:
    """The file of an SQLite database; ``None`` if it is in memory."""
    name = url.database or ":memory:"
    if name.startswith("file:"):
        name, _, query = name.removeprefix("file:").partition("?")
        if "mode=memory" in query:
            return None
    return None if name == ":memory:" or url.query.get("mode") == "memory" else Path(name)


def _engine_of(session_factory: SessionFactory) -> Engine:
    try:
        session = session_factory()
        bind = session.get_bind()
    except UnboundExecutionError as error:
        raise ValueError("the sessions are bound to no engine: write AsyncSession(engine)") from error
    engine = bind.engine
    if engine.dialect.name not in ("postgresql", "sqlite"):
        raise ValueError(f"a database of PostgreSQL or SQLite is needed; found {engine.dialect.name}")
    return engine


OPTIONS: dict[str, Callable[[str], Any]] = {
    "patience": seconds,
    "max_event_size": size,
    "lease_time": seconds,
}


def open_url(url: str, event_registry: EventRegistry, *, create: bool = True) -> DatabaseEventStore:
    """Open ``sqlite+aiosqlite:///PATH`` or ``postgresql+asyncpg://USER:PASSWORD@HOST/DATABASE``.

    The tables are made at the first use. The options ``patience``, ``max_event_size`` and ``lease_time`` of
    `DatabaseEventStore` may follow as ``?patience=...``; others are for the driver.

    Raises:
        InvalidStoreUrl: It is no URL of a database, or an option is none.
        StoreUnavailable: There is no file, and none was to be made.
    """
    parsed, options = _read_url(url)
    sqlite_file = _file_of(parsed) if parsed.get_backend_name() == "sqlite" else None
    if sqlite_file is not None and not create and not sqlite_file.exists():
        raise StoreUnavailable(url, f"there is no file {sqlite_file.absolute()}")
    try:
        own = OwnEngine(parsed, _sync_fully if parsed.get_backend_name() == "sqlite" else None)
    except (ArgumentError, ValueError) as error:
        raise InvalidStoreUrl(url, [], str(error)) from None  # its text may hold the password
    store = DatabaseEventStore(own.session, event_registry=event_registry, **options)
    store._own_engine = own
    store._create = create
    return store


def check_url(url: str) -> None:
    """Whether `open_url` understands ``url``; no connection is made.

    Raises:
        InvalidStoreUrl: As there.
    """
    _read_url(url)


def _read_url(url: str) -> tuple[URL, dict[str, Any]]:
    """The URL of the database, and the options of the store."""
    try:
        parsed = make_url(url)
        options = {
            name: kind(str(parsed.query[name])) for name, kind in OPTIONS.items() if name in parsed.query
        }
        _check_options(**options)
        split_numbers(parsed)
    except (ArgumentError, ValueError) as error:
        raise InvalidStoreUrl(url, [], str(error)) from None  # its text may hold the password
    return parsed.difference_update_query(OPTIONS), options


def _check_options(
    max_event_size: int = MAX_EVENT_SIZE, patience: float = PATIENCE, lease_time: float = LEASE_TIME
) -> None:
    check_count("max_event_size", max_event_size, 1)
    check_duration("patience", patience)
    check_duration("lease_time", lease_time)


def _columns_of(connection: Connection, table: str) -> set[str]:
    return {column["name"] for column in inspect(connection).get_columns(table)}


def _sync_fully(connection: Any) -> None:
    """Whatever SQLite was built with: what is acknowledged survives the machine."""
    cursor = connection.cursor()
    cursor.execute("PRAGMA synchronous = FULL")
    cursor.close()
