"""The writer: one task that writes all waiting jobs in one transaction and finds out what a lost commit recorded."""

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence, Set
from functools import partial
from time import monotonic
from typing import Any, TypeVar

from sqlalchemy import or_, select
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncSession

from uno_actors.errors import (
    AppendConditionFailed,
    ConcurrencyConflict,
    OutcomeUnknown,
    StoreUnavailable,
    UnoError,
)
from uno_actors.store.records import Append, Appended
from uno_actors.store.terms import Facet
from uno_actors.store_urls import without_password
from uno_actors.tasks import begin
from uno_stores.sql import schema
from uno_stores.sql.checkpoints import LockedMoves, are_moved
from uno_stores.sql.connections import Connections
from uno_stores.sql.errors import OF_ONE, PASSING, REFUSED, InvalidSession, Trouble, reason, trouble
from uno_stores.sql.groups import (
    Attempt,
    Waiting,
    failure_of,
    held_by,
    joined,
    parts_of,
    requests_of,
    with_outcomes,
)
from uno_stores.sql.jobs import Commit, Job, Work
from uno_stores.sql.kept import KeptConnection
from uno_stores.sql.log import NOTIFY, Tail, ends_of, in_transaction, insert_rows, lock_heads, place_all
from uno_stores.sql.place import Place
from uno_stores.sql.quick_append import Placed, append_placed, find_placed, placed
from uno_stores.sql.recent_terms import RecentTerms
from uno_stores.sql.tables import Tables
from uno_stores.sql.terms import boundary_of, facets_of, index_in
from uno_stores.sql.waiting import Patience

MAX_GROUP = 10_000
"""Maximum number of jobs in one transaction."""

Ends = Mapping[int, int]
"""The last position of each log, by its number."""

T = TypeVar("T")


class Writer:
    """Writes the jobs of one store in the order in which they were submitted.

    Args:
        connections: The store's connections.
        tables: The store's tables.
        kept: For groups that are recorded in one statement.
        grown: Called after each commit with the new last position of each log that has grown.
        max_event_size: Bytes that the payload of one event may take.

    Attributes:
        task: The task that writes; ``None`` while no job waits.
        waiting: Jobs that no transaction has taken yet.
        commits: Transactions that were committed.
        commit_seconds: Seconds that their commits took.
        recent: The end of the index of terms, for SQLite.
    """

    def __init__(
        self,
        connections: Connections,
        tables: Tables,
        kept: KeptConnection,
        grown: Callable[[Ends], None],
        max_event_size: int,
    ) -> None:
        self._connections = connections
        self._tables = tables
        self._grown = grown
        self._max_event_size = max_event_size
        self._kept = kept
        self.commits = 0
        self.commit_seconds = 0.0
        self.move()

    def move(self) -> None:
        """Start over on another event loop."""
        self._tail: Tail | None = None
        self.recent = RecentTerms() if self._connections.wire is None else None
        self._is_contended = False
        self._indexed: Set[Facet] = (
            frozenset()
        )  # up to the end of the log, if no other process has recorded since
        self.waiting: list[Waiting] = []
        self.task: asyncio.Task[None] | None = None

    async def submit(self, job: Commit | Work[T]) -> Any:
        """The result of ``job`` once it is durable."""
        connections = self._connections
        connections.life.check()
        loop = asyncio.get_running_loop()
        waiting = Waiting(job, loop.create_future())
        self.waiting.append(waiting)
        if self.task is None:
            self.task = begin(loop, self._write_all(), name=f"writer of {connections.url}")
        # A caller that is cancelled abandons the future, and the job is done all the same.
        return await waiting.future

    async def _write_all(self) -> None:
        group: list[Waiting] = []
        try:
            while self.waiting:
                group, self.waiting = self.waiting[:MAX_GROUP], self.waiting[MAX_GROUP:]
                results = await self._write([each.job for each in group])
                for each, result in zip(group, results, strict=True):
                    each.answer(result)
                group = []
                if self.waiting:
                    await asyncio.sleep(0)  # callers that were answered just now may join the next group
        except asyncio.CancelledError:  # by the program as it ends, or underneath: no caller was
            self._forget()
            url = self._connections.url
            unknown = OutcomeUnknown(f"store {url}", "its writer was cancelled")
            untouched = StoreUnavailable(url, "its writer was cancelled")
            waiting, self.waiting = self.waiting, []
            for each in group:
                each.answer(failure_of(each.job, unknown))
            for each in waiting:
                each.answer(failure_of(each.job, untouched))
            raise
        finally:
            self.task = None

    async def _write(self, jobs: Sequence[Job]) -> list[Any]:
        """Do all jobs in one transaction and return the result of each, which may be an error."""
        connections = self._connections
        patience = Patience(connections.patience)
        attempt = Attempt()
        while True:
            try:
                await self._tables.prepare()
                await self._transact(jobs, attempt)
            except UnoError as error:
                return (
                    self._unknown(jobs, error) if attempt.late else [failure_of(job, error) for job in jobs]
                )
            except Exception as error:  # noqa: BLE001 - the writer must survive any failure of one group
                self._forget()
                kind = trouble(error)
                recorded = await self._is_recorded(jobs, attempt, kind)
                if not recorded:
                    late = attempt.late if attempt.sent is None or kind in REFUSED else attempt.sent
                    if recorded is not None and kind in PASSING and await patience.again():
                        attempt = Attempt(is_first=False, late=late)
                        continue
                    return await self._given_up(
                        jobs, error, may_be_recorded=recorded is None or late is not None
                    )
            if self.recent is not None:
                self.recent.committed = self.recent.end
            if attempt.rows:
                self._indexed = facets_of(requests_of(jobs))
            self._grown(ends_of(attempt.rows))
            return attempt.results

    def _forget(self) -> None:
        """Forget the end of the log: the transaction was undone, or perhaps not."""
        self._tail = None
        if self.recent is not None:
            self.recent.forget()

    async def _given_up(self, jobs: Sequence[Job], error: Exception, *, may_be_recorded: bool) -> list[Any]:
        """The results of jobs that failed for good with ``error``; each by itself if it may be the fault of one."""
        if may_be_recorded:
            return self._unknown(jobs, error)
        parts = parts_of(jobs) if trouble(error) in OF_ONE else []
        if len(parts) > 1:
            return joined(jobs, [result for part in parts for result in await self._write([part])])
        return [failure_of(job, self._connections.refused(error, requests_of([job]))) for job in jobs]

    def _unknown(self, jobs: Sequence[Job], error: Exception) -> list[Any]:
        """The results of jobs of which it is not known whether they are done, or will still be."""
        unknown = OutcomeUnknown(f"store {self._connections.url}", reason(error))
        return [failure_of(job, unknown) for job in jobs]

    def _placed(self, requests: Sequence[Append], attempt: Attempt) -> Placed | None:
        """``requests`` for one statement, if one is to be tried and can record them."""
        if self._connections.wire is None or not attempt.is_first or self._is_contended:
            return None
        if not facets_of(requests) <= self._indexed:  # the statement would record nothing
            return None
        return placed(requests, self._tables.logs, self._max_event_size)

    def _stands_alone(self, jobs: Sequence[Job], group: Placed) -> bool:
        """Whether the statement for ``group`` is all that there is to do, and may commit by itself."""
        return (
            self._connections.may_keep
            and all(isinstance(job, Commit) for job in jobs)
            and group.can_be_found  # if the connection is lost
        )

    async def _append_at_once(self, jobs: Sequence[Job], group: Placed, attempt: Attempt) -> bool:
        """Record ``group`` in one statement that commits by itself; false if a stream is at another version."""

        def sending() -> None:
            attempt.sent = group  # until it is known what has become of it

        begun = monotonic()
        found = await self._kept.value(group.statement, group.terms, sending)
        attempt.sent = None
        if found is None:
            return False
        self.commit_seconds += monotonic() - begun
        self.commits += 1
        self._tail = None
        outcomes, attempt.rows = group.returned(found)
        attempt.results = with_outcomes(jobs, [None] * len(jobs), outcomes)
        return True

    async def _transact(self, jobs: Sequence[Job], attempt: Attempt) -> None:
        requests = requests_of(jobs)
        group = self._placed(requests, attempt)
        if group is not None and self._stands_alone(jobs, group):
            if await self._append_at_once(jobs, group, attempt):
                return
            group = None
        connections = self._connections
        async with connections.session() as session:
            # Others may hold the head of the log, or the server may not answer.
            async with connections.within(connections.patience):
                connection = await connections.connection(session)
                for job in jobs:
                    try:
                        done = None if isinstance(job, Commit) else await job.write(connection)
                        attempt.results.append(done)
                    except UnoError as error:
                        attempt.results.append(error)
                if requests:
                    outcomes = await self._append(connection, requests, group, attempt, held_by(jobs))
                    self._check_transaction(connection)
                    attempt.results = with_outcomes(jobs, attempt.results, outcomes)
            if not attempt.inserted:
                async with connections.within(connections.patience + len(attempt.rows) / 1000):
                    await insert_rows(connection, attempt.rows, self._tables.logs)
            attempt.committing = True
            begun = monotonic()
            async with connections.within(connections.patience):
                await session.commit()
            self.commit_seconds += monotonic() - begun
            self.commits += 1

    async def _append(
        self,
        connection: AsyncConnection,
        requests: Sequence[Append],
        group: Placed | None,
        attempt: Attempt,
        held: Mapping[str, int],
    ) -> Sequence[Appended | UnoError]:
        """Place the requests and return their outcomes; insert them too if they are a ``group`` for one statement."""
        logs = self._tables.logs
        outcomes: Sequence[Appended | UnoError]
        if (late := attempt.late) is not None:
            # With the heads locked it is either there, or finds its streams at other versions after this transaction.
            await lock_heads(connection, late.logs, logs)
            if (found := await find_placed(connection, late)) is not None:
                outcomes, attempt.rows = found
                attempt.inserted = True
                return outcomes
        if group is not None and (done := await append_placed(connection, group)) is not None:
            self._tail = None
            outcomes, attempt.rows = done
            attempt.inserted = True
            return outcomes
        if self._tail is None:
            self._tail = Tail(logs)
        moves = await LockedMoves.locked(connection, requests, held, self._connections.url)
        outcomes, attempt.rows, bounds = await place_all(
            connection,
            requests,
            self._tail,
            self._max_event_size,
            moves,
            find_bounds=partial(boundary_of, recent=self.recent),
        )
        await moves.write(connection)
        if bounds is not None:
            await bounds.write()
        attempt.moved = moves.moved
        # A group with a conflict takes one statement more if the quick way is tried first; one seldom comes alone.
        self._is_contended = any(
            isinstance(outcome, (ConcurrencyConflict, AppendConditionFailed)) for outcome in outcomes
        )
        return outcomes

    async def _is_recorded(self, jobs: Sequence[Job], attempt: Attempt, kind: Trouble) -> bool | None:
        """Whether an attempt that failed has recorded its events; ``None`` if it cannot be found out.

        A transaction that is still being committed holds the heads of its logs, so this one, which locks them first,
        sees the outcome. A statement that commits by itself may even arrive after that: see `Attempt.late`.
        """
        if attempt.committing and attempt.rows:
            return await self._look([*ends_of(attempt.rows)], lambda of: _are_there(of, attempt.rows))
        if attempt.committing and attempt.moved:
            return await self._look([0], lambda of: are_moved(of, attempt.moved))
        group = attempt.sent
        if group is None or kind in REFUSED:
            return False

        async def find(connection: AsyncConnection) -> bool:
            found = await find_placed(connection, group)
            if found is not None:
                outcomes, attempt.rows = found
                attempt.results = with_outcomes(jobs, [None] * len(jobs), outcomes)
            return found is not None

        return await self._look(group.logs, find)

    async def _look(
        self, logs: Sequence[int], find: Callable[[AsyncConnection], Awaitable[bool]]
    ) -> bool | None:
        """What ``find`` returns in a transaction that has locked the heads of these logs; ``None`` if it cannot be."""
        connections = self._connections
        patience = Patience(connections.patience)
        while True:
            try:
                async with connections.session() as session, connections.within(connections.patience):
                    connection = await connections.connection(session)
                    await lock_heads(connection, logs, self._tables.logs)
                    return await find(connection)
            except Exception as error:  # noqa: BLE001 - any error leaves the outcome unknown
                if trouble(error) not in PASSING or not await patience.again():
                    return None

    async def commit_in(
        self,
        session: AsyncSession,
        requests: Sequence[Append],
        held: Mapping[str, int],
        ended: Callable[[], None],
    ) -> list[Appended | UnoError]:
        """Record in the transaction of a caller's ``session``, which the caller ends.

        ``ended`` is called when it has ended, if the database is in memory. ``held`` are the names that the store has
        leased.

        Raises:
            InvalidSession: The session is bound to another database, or commits each statement by itself.
        """
        connections = self._connections
        connections.life.check()
        place = connections.place
        if connections.wire is not None:  # SQLite has one log
            await self._tables.prepare()
        logs = self._tables.logs
        try:
            connection = await session.connection()
            self._check_place(connection)
            if place.alone:  # else the watcher sees the end
                await place.lend(session.sync_session, connections.url, connections.patience, ended)
            moves = await LockedMoves.locked(connection, requests, held, connections.url)
            if facets_of(
                requests
            ):  # another transaction could not index: this one may hold what that waits for
                if connections.wire is None:
                    await self._tables.add_missing_in(connection, schema.facets, schema.terms)
                await index_in(connection, requests)
            outcomes, rows, bounds = await place_all(
                connection,
                requests,
                Tail(logs),
                self._max_event_size,
                moves,
                find_bounds=boundary_of,
                briefly=False,
            )
            self._check_transaction(connection)
            if not rows:
                await moves.write(connection)
            else:
                async with connection.begin_nested():  # what fails leaves the transaction as it was
                    await moves.write(connection)
                    if bounds is not None:
                        await bounds.write()
                    await insert_rows(connection, rows, logs)
                    if connections.wire is not None:
                        # The caller commits: listeners must not look before that.
                        await connection.execute(NOTIFY, {"ends": [*ends_of(rows).values()]})
        except UnoError:
            raise
        except Exception as error:
            raise connections.refused(error, requests) from error
        return outcomes

    def _check_place(self, connection: AsyncConnection) -> None:
        """Refuse to record in a database other than the store's."""
        assert connection.sync_connection is not None
        engine = connection.sync_connection.engine
        if Place.key_of(engine) != self._connections.place.key:
            found = without_password(engine.url.render_as_string(hide_password=False))
            raise InvalidSession(
                self._connections.url, f"it is bound to {found}; bind it to the database of the store"
            )

    def _check_transaction(self, connection: AsyncConnection) -> None:
        """Refuse to record where nothing keeps the head of the log locked, as it must be by now."""
        if not in_transaction(connection):
            raise InvalidSession(
                self._connections.url,
                "its connection commits each statement by itself; use an engine and sessions without"
                ' isolation_level="AUTOCOMMIT"',
            )


async def _are_there(connection: AsyncConnection, rows: Sequence[dict[str, Any]]) -> bool:
    """Whether the log has these rows, each at its position."""
    wanted = {row["position"]: row["event_id"] for row in rows}
    firsts, lasts = ends_of(reversed(rows)), ends_of(rows)
    position = schema.log.c.position
    places = or_(*(position.between(first, lasts[number]) for number, first in firsts.items()))
    found = (await connection.execute(select(position, schema.log.c.event_id).where(places))).all()
    return {row.position: row.event_id for row in found} == wanted
