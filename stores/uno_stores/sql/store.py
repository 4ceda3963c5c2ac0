"""The event store in an existing SQL database: PostgreSQL or SQLite, through SQLAlchemy's asyncio API.

The tables are described in `uno_stores.sql.schema`, the order of the log in `uno_stores.sql.log`. One task writes for
a store: it takes all waiting jobs, writes them in one transaction, and returns the results; jobs that arrive during
the commit form the next transaction. If a part of a transaction cannot be written, its parts are written one by one,
so that only this part fails.

The store finds out the outcome of a lost commit. If the connection is lost before the commit was sent, nothing is
recorded, and the transaction is tried again. If it is lost while the server commits, the store connects again, waits
for the lock on the head of the log, which a transaction that is still being committed would hold, and checks whether
the records are there. Only if the server does not come back in time does the caller get `OutcomeUnknown`;
`StoreUnavailable` means that certainly nothing was recorded.

Durability is the database's own: PostgreSQL's with ``synchronous_commit = on``, its default; SQLite's with
``synchronous = FULL``, its default too.

With PostgreSQL a store uses one connection for writing, up to `uno_stores.sql.reader.READERS` for reading, and one
that it keeps for ``LISTEN`` and for the locks of leases while it has listeners or leases. The store detects a pooler
that gives each transaction another session at the first use: then every query is a transaction, the store polls for
commits of others instead of being notified, and leases end by the server's clock alone.

A store may be used from one event loop after another. Connections that it made itself end with their loop.

The module is over 500 lines because the whole port is answered in one place, mostly in one line a method.
"""

import asyncio
from collections.abc import AsyncGenerator, Callable, Iterable, Mapping, Sequence
from contextlib import aclosing
from pathlib import Path

from sqlalchemy.ext.asyncio import AsyncSession
from typing_extensions import override

from uno_actors.clock import Clock
from uno_actors.domain.events import DomainEvent, EventRegistry, event_registry
from uno_actors.errors import UnoError
from uno_actors.resources import closed, opened
from uno_actors.store.checkpoints import losses_in, moves_of
from uno_actors.store.codec import StreamId
from uno_actors.store.conditions import Condition, Queries
from uno_actors.store.expected_version import ANY, ExpectedVersion
from uno_actors.store.limits import check_handlers, check_lease, check_progress
from uno_actors.store.log_filter import EVERYTHING, LogFilter
from uno_actors.store.maintenance import StoreUsage
from uno_actors.store.membership import Membership
from uno_actors.store.merging import page_of_each
from uno_actors.store.port import EventStore, Lease
from uno_actors.store.queries import READ_ALL_LOGS, check_number
from uno_actors.store.records import (
    PAGE,
    Append,
    Appended,
    Checkpoint,
    DeadLetter,
    Heading,
    RecordedEvent,
    Snapshot,
    StoredRecord,
    ViewChange,
)
from uno_actors.store_urls import without_password
from uno_stores.file_leases import LEASE_TIME
from uno_stores.sql.announcements import Announcements
from uno_stores.sql.closing import Closing
from uno_stores.sql.connections import Connections
from uno_stores.sql.engine import OwnEngine
from uno_stores.sql.held_leases import HeldLeases
from uno_stores.sql.indexing import Indexing
from uno_stores.sql.jobs import (
    Commit,
    DropDeadLetter,
    DropProgress,
    DropSnapshot,
    DropSnapshots,
    DropView,
    SaveProgress,
    SaveSnapshots,
)
from uno_stores.sql.kept import KeptConnection
from uno_stores.sql.life import Life
from uno_stores.sql.nodes import Nodes
from uno_stores.sql.notifications import Wire
from uno_stores.sql.options import MAX_EVENT_SIZE, PATIENCE, check_options
from uno_stores.sql.place import Place, SessionFactory, engine_of
from uno_stores.sql.reader import Reader
from uno_stores.sql.statistics import DatabaseStatistics, statistics
from uno_stores.sql.tables import Tables
from uno_stores.sql.watcher import Watcher
from uno_stores.sql.writer import Writer


class DatabaseEventStore(EventStore):
    """Events in an SQL database, through sessions that the program makes.

    The tables are made by `create_schema`, or by a migration tool from `METADATA`. A database in memory
    (``sqlite+aiosqlite://``) has one connection, which does one thing at a time.

    The class is long because it implements the whole port, mostly in one line a method; it owns start and end.
    `Connections`, `Tables`, `Writer`, `Reader`, `Watcher`, `HeldLeases` and `Closing` each own one concern.

    Args:
        session_factory: Makes an `AsyncSession` that is bound to an engine of PostgreSQL or SQLite.
        event_types: Classes, or a mapping of recorded names to classes, instead of an ``event_registry``.
        event_registry: Finds the classes of recorded events; default is the process-wide registry.
        max_event_size: Bytes that the payload of one event may take; a larger one is refused with
            `EventNotSerializable`.
        patience: Seconds for which a call tries to reach a database that does not answer.
        lease_time: Seconds after which a process that hangs, or is cut off from PostgreSQL, loses its handlers to
            another.
        logs: Number of logs of a store that is made in PostgreSQL, up to `uno_actors.store.logs.MAX_LOGS`; default is
            one. An existing store keeps its number: another one is refused at the first use with
            `OtherNumberOfLogs`.

    Raises:
        ValueError: The sessions are bound to no engine, or to one of another database; or both ``event_types``
            and ``event_registry`` were given; or a number is not positive.
    """

    checks_conditions = True

    def __init__(
        self,
        session_factory: SessionFactory,
        event_types: Iterable[type[DomainEvent]] | Mapping[str, type[DomainEvent]] | None = None,
        event_registry: EventRegistry | None = None,
        *,
        max_event_size: int = MAX_EVENT_SIZE,
        patience: float = PATIENCE,
        lease_time: float = LEASE_TIME,
        logs: int | None = None,
    ) -> None:
        if event_types is not None and event_registry is not None:
            raise ValueError("give event_types or event_registry, not both")
        super().__init__(_registry(event_types, event_registry))
        self.max_event_size = max_event_size
        self.patience = patience
        engine = engine_of(session_factory)
        is_server = engine.dialect.name == "postgresql"
        check_options(max_event_size, patience, lease_time, logs, is_server=is_server)
        secret_url = engine.url.render_as_string(hide_password=False)
        self._url = url = without_password(secret_url)
        place = Place.of(engine)
        place.leases.join()
        self.is_durable = not place.alone
        self._life = life = Life(url, self._move, self._loop_ended)
        wire = (
            Wire(
                url,
                session_factory,
                self._notified,
                patience=patience,
                lease_time=lease_time,
                lost_lease=self._lost_lease,
                renewed_lease=self._renewed_lease,
                node_changed=self._node_changed,
            )
            if is_server
            else None
        )
        self._connections = Connections(
            secret_url, session_factory, place, life, wire=wire, patience=patience
        )
        self._tables = Tables(self._connections, engine.dialect.name, logs)
        self._reader = Reader(self._connections, self._tables)
        self._watcher = Watcher(
            self._connections,
            self._tables,
            self._reader,
            lambda: bool(self._commit_listeners),
            self._committed,
        )
        self._kept = KeptConnection(self._connections)
        self._announcements = Announcements(self._connections)
        self._writer = Writer(self._connections, self._tables, self._kept, self._grown, max_event_size)
        self._indexing = Indexing(self._tables, self._reader, self._writer)
        self._nodes = Nodes(self._connections, self._tables)
        self._leases = HeldLeases(
            self._connections,
            self._tables,
            self._writer,
            self._reader,
            self._watcher,
            nodes=self._nodes.directory,
            lease_time=lease_time,
        )
        self._closing = Closing(
            self._connections,
            self._writer,
            self._reader,
            self._watcher,
            self._leases,
            nodes=self._nodes,
            announcements=self._announcements,
            kept=self._kept,
        )
        opened(self, f"store {url}", "await store.close()")

    def own(self, engine: OwnEngine, *, create: bool) -> None:
        """Use ``engine``, which made the sessions, and dispose of it when closed; ``create`` tables at first use."""
        self._connections.own_engine = engine
        self._tables.create = create

    async def create_schema(self) -> None:
        """Make missing tables; existing ones stay as they are.

        Raises:
            StoreUnavailable: The database cannot be reached or written.
            StoreFormatError: A newer version of this program made the tables.
        OtherNumberOfLogs: The tables have another number of logs than was given.
        """
        self._life.check()
        await self._tables.make()

    # --- the port: writing ---

    @override
    async def commit(self, requests: Sequence[Append]) -> list[Appended | UnoError]:
        if not requests:
            self._life.check()
            return []
        for request in requests:
            if request.condition is not None and not self._indexing.is_near(request.condition):
                await self._indexing.catch_up(request.condition)
        moves = moves_of(requests)
        commit = Commit(requests, self._leases.numbers()) if moves else Commit(requests)
        outcomes: list[Appended | UnoError] = await self._writer.submit(commit)
        if moves:
            self._leases.notice(losses_in(outcomes))
        return outcomes

    @override
    async def _find(self, condition: Condition) -> tuple[list[StoredRecord], int]:
        up_to = in_tables = await self._indexing.up_to(condition)
        found: dict[int, StoredRecord] = {}
        recent = self._writer.recent
        if recent is not None and recent.has(condition.facets) and recent.committed >= up_to:
            up_to = in_tables = recent.committed
            found.update((stored[0], StoredRecord(*stored)) for stored in recent.selected(condition))
        for wanted in condition.wanted:
            after = condition.after
            while after < in_tables and (page := await self._reader.found_by(wanted.term, after, in_tables)):
                for stored in page:
                    if wanted.matches(stored.record, condition.registry):
                        found[stored.position] = stored
                    after = stored.position
        return [found[position] for position in sorted(found)], max(condition.after, up_to)

    @override
    async def append(
        self,
        *events: DomainEvent,
        expected_version: ExpectedVersion = ANY,
        checkpoint: Checkpoint | None = None,
        unless: Queries | None = None,
        after: int = 0,
        session: AsyncSession | None = None,
    ) -> list[RecordedEvent]:
        """As `EventStore.append`; with a ``session`` the events become part of its transaction.

        They are recorded when the caller commits, together with everything else in the transaction, or not at all.
        Until then no reader sees them, and their positions are final only after the commit. Nothing else can be
        recorded in the database before the commit: append last, commit soon, and await nothing in between, least of
        all an aggregate.

        A database in memory has one connection: until the caller's transaction ends, the store waits for it.

        Raises:
            StoreUnavailable, StoreFull: As in `EventStore.append`; roll back the transaction.
            InvalidSession: The session is bound to another database, or commits each statement by itself.
        """
        if session is None:
            return await super().append(
                *events,
                expected_version=expected_version,
                checkpoint=checkpoint,
                unless=unless,
                after=after,
            )
        condition = self._condition(unless, after)
        if (
            condition is not None and self._connections.wire is not None
        ):  # SQLite: in the session, see `commit_in`
            await self._indexing.prepare()
        held = {} if checkpoint is None else self._leases.numbers()
        return await self._append(
            events,
            expected_version,
            lambda requests: self._writer.commit_in(session, requests, held, self._watcher.look_soon),
            checkpoint,
            condition,
        )

    @override
    async def save_progress(
        self,
        checkpoints: Mapping[str, int],
        dead_letters: Sequence[DeadLetter] = (),
        views: Sequence[ViewChange] = (),
        dropped: Sequence[tuple[str, int]] = (),
    ) -> None:
        check_progress(checkpoints, dead_letters, views, dropped)
        progress = SaveProgress(
            dict(checkpoints),
            tuple(dead_letters),
            tuple(views),
            tuple(dropped),
            self._leases.numbers(),
            self._url,
        )
        await self._leases.submit_fenced(progress)

    @override
    async def drop_view(self, view: str) -> None:
        await self._leases.submit_fenced(DropView(view, self._leases.numbers(), self._url))

    @override
    async def drop_dead_letter(self, handler: str, position: int) -> bool:
        dropped: bool = await self._writer.submit(DropDeadLetter(handler, position))
        return dropped

    @override
    async def save_snapshots(self, snapshots: Sequence[Snapshot]) -> None:
        await self._writer.submit(SaveSnapshots(tuple(snapshots)))

    @override
    async def drop_snapshots(self, aggregate_type: str | None = None) -> int:
        dropped: int = await self._writer.submit(DropSnapshots(aggregate_type))
        return dropped

    @override
    async def drop_snapshot(self, stream: StreamId) -> bool:
        dropped: bool = await self._writer.submit(DropSnapshot(stream))
        return dropped

    @override
    async def drop_progress(self, handler: str) -> bool:
        check_handlers([handler])
        return await self._leases.submit_fenced(DropProgress(handler, self._leases.numbers(), self._url))

    # --- the port: reading ---

    @override
    async def read_stream(
        self, stream: StreamId, after_version: int = 0, limit: int = PAGE
    ) -> list[StoredRecord]:
        return await self._reader.stream_page(stream, after_version, limit)

    @override
    async def read_log(self, after: int = 0, limit: int = PAGE) -> list[StoredRecord]:
        return await self._reader.log_page(after, limit)

    @override
    async def read_logs(self, afters: Sequence[int], limit: int = PAGE) -> list[StoredRecord]:
        return await self._reader.log_pages(afters, limit)

    @override
    async def read_headings(self, after: int = 0, limit: int = PAGE) -> list[Heading]:
        return await self._reader.headings(after, limit)

    @override
    async def read_records(
        self,
        after: int = 0,
        limit: int | None = None,
        matching: LogFilter = EVERYTHING,
        *,
        until: int | None = None,
    ) -> AsyncGenerator[StoredRecord]:
        """As `EventStore.read_records`; the database selects what it can."""
        check_number("after", after)
        check_number("limit", limit)
        check_number("until", until)
        logs = await self._reader.logs()
        if (matching == EVERYTHING and logs == 1) or await self._is_of_one_stream(matching):
            async with aclosing(super().read_records(after, limit, matching, until=until)) as everything:
                async for stored in everything:
                    yield stored
            return
        if logs > 1:
            if after or until is not None:
                raise self._reader.refused("reading after a position", READ_ALL_LOGS)
            size = page_of_each(self.logs)
            async with aclosing(self._reader.search_all(limit, matching, size)) as records:
                async for stored in records:
                    yield stored
            return
        end = await self.last_position()
        end = end if until is None else min(end, until)
        async with aclosing(self._reader.search(after, limit, matching, end, until=until)) as found:
            async for stored in found:
                yield stored

    async def _is_of_one_stream(self, matching: LogFilter) -> bool:
        """Whether all that ``matching`` selects belongs to one stream, or to none."""
        streams = await self._streams_meant(matching)
        return streams is not None and len(streams) <= 1

    @override
    def _pages(
        self, stream: StreamId, after_version: int, size: int = PAGE
    ) -> AsyncGenerator[list[StoredRecord]]:
        """As `EventStore._pages`; the next page is read ahead while the caller looks at the last one."""
        return self._reader.stream_pages(stream, after_version, size)

    @override
    async def last_version(self, stream: StreamId) -> int:
        return await self._reader.version(stream)

    @override
    async def version_at(self, stream: StreamId, position: int) -> int:
        return await self._reader.version_at(stream, position)

    @override
    async def aggregate_types(self, aggregate_id: str) -> list[str]:
        return await self._reader.types(aggregate_id)

    @property
    @override
    def logs(self) -> int:
        """As `EventStore.logs`; known once the store was used."""
        return self._tables.logs

    @override
    async def last_position(self) -> int:
        ends = await self._reader.ends()
        if len(ends) > 1:
            raise self._reader.refused("one last position", "ask for `last_positions`")
        return ends[0]

    @override
    async def last_positions(self) -> list[int]:
        return await self._reader.ends()

    @override
    async def checkpoints(self) -> dict[str, int]:
        return await self._reader.checkpoints()

    @override
    async def read_view(
        self, view: str, start: bytes = b"", end: bytes | None = None, limit: int | None = PAGE
    ) -> list[tuple[bytes, bytes]]:
        return await self._reader.view([view], start, end, limit)

    @override
    async def read_views(
        self, views: Sequence[str], start: bytes = b"", end: bytes | None = None, limit: int | None = PAGE
    ) -> list[tuple[bytes, bytes]]:
        return await self._reader.view(views, start, end, limit) if views else []

    @override
    async def dead_letters(self, handler: str | None = None) -> list[DeadLetter]:
        return await self._reader.dead_letters(handler)

    @override
    async def dead_letter_counts(self) -> dict[str, int]:
        return await self._reader.dead_letter_counts()

    @override
    async def read_snapshot(self, stream: StreamId) -> Snapshot | None:
        return await self._reader.snapshot(stream)

    # --- the port: listeners and leases ---

    @override
    def on_commit(self, listener: Callable[[], None]) -> Callable[[], None]:
        """As `EventStore.on_commit`.

        Commits of other processes count too: PostgreSQL notifies of them at once; an SQLite file is looked at every
        `uno_stores.sql.watcher.LOOK_EVERY` seconds.
        """
        stop = super().on_commit(listener)
        self._watcher.watch()
        return stop

    @override
    async def lease(self, name: str) -> Lease | None:
        self._life.check()
        check_lease(name)
        return await self._leases.take(name)

    @override
    async def is_leased(self, name: str) -> bool:
        """As `EventStore.is_leased`; this takes nothing."""
        self._life.check()
        check_lease(name)
        return await self._leases.is_taken(name)

    @override
    async def leased_among(self, names: Iterable[str]) -> set[str]:
        """As `EventStore.leased_among`; this takes nothing."""
        if self._connections.wire is None:
            return await super().leased_among(names)
        self._life.check()
        return await self._reader.leased_among(names)

    def _grown(self, ends: Mapping[int, int]) -> None:
        """A commit of this store has ended."""
        if ends:
            self._watcher.announce(ends.values())
            self._announcements.grown(ends)

    def _notified(self, end: int) -> None:
        self._watcher.announce((end,))

    def _renewed_lease(self, name: str, until: float) -> None:
        self._leases.given.renewed(name, until)

    def _lost_lease(self, name: str) -> None:
        self._leases.given.lose(name)

    @property
    @override
    def directory(self) -> Path | None:
        nodes = self._connections.place.nodes_path
        return None if nodes is None else nodes.with_name(f"{nodes.name.removesuffix('-nodes')}-links")

    @override
    def membership(self, seconds: float, clock: Clock) -> Membership:
        """As `EventStore.membership`.

        PostgreSQL keeps the announcements in rows that end by its clock. Beside an SQLite file each node has a file
        that its process has locked.
        """
        return self._nodes.membership(seconds, clock)

    def _node_changed(self, member_id: str) -> None:
        self._nodes.notified(member_id)

    # --- event loops, and the end ---

    def _move(self, had_loop: bool) -> None:
        """Nothing is under way yet on the event loop on which the store is used now."""
        self._connections.move(had_loop=had_loop)
        self._tables.move()
        self._reader.move()
        self._writer.move()
        self._indexing.move()
        self._kept.move()
        self._announcements.move()
        self._watcher.move(had_loop=had_loop)
        self._leases.move()

    async def _loop_ended(self) -> None:
        await self._kept.give_back()
        await self._announcements.give_back()
        await self._connections.loop_ended()

    @override
    async def close(self) -> None:
        if self._life.is_inherited:  # all of it belongs to the parent process
            return
        if not self._life.closed:
            self._life.enter(asyncio.get_running_loop())
            self._life.closed = True
            closed(self)
            self._end_subscriptions()
        await self._closing.wait()

    def statistics(self) -> DatabaseStatistics:
        """The current state of the store."""
        return statistics(self._connections, self._writer, self._reader)

    async def usage(self) -> StoreUsage:
        """Bytes of the tables, and the time that commits take."""
        return StoreUsage(await self._reader.size(), self._writer.commits, self._writer.commit_seconds)

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
    logs: int | None = None,
) -> DatabaseEventStore:
    """A `DatabaseEventStore` whose tables exist; arguments and errors are those of the class.

    Raises:
        StoreUnavailable, StoreFormatError, OtherNumberOfLogs: See `DatabaseEventStore.create_schema`.
    """
    store = DatabaseEventStore(
        session_factory,
        event_types,
        event_registry,
        max_event_size=max_event_size,
        patience=patience,
        lease_time=lease_time,
        logs=logs,
    )
    await store.create_schema()
    return store


def _registry(
    event_types: Iterable[type[DomainEvent]] | Mapping[str, type[DomainEvent]] | None,
    given: EventRegistry | None,
) -> EventRegistry:
    if event_types is not None:
        return EventRegistry(event_types)
    return event_registry if given is None else given
