"""Which nodes work on a database: rows with an end by the clock of PostgreSQL, or files beside an SQLite file."""

import asyncio
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any

from sqlalchemy import text
from typing_extensions import override

from uno_actors.clock import Clock
from uno_actors.errors import StoreUnavailable, UnoError
from uno_actors.store.member_codec import members_of, packed
from uno_actors.store.membership import Member, Membership
from uno_actors.tasks import begin
from uno_stores.file_nodes import FileMembership
from uno_stores.memory_nodes import MemoryMembership
from uno_stores.node_files import NodeDirectory
from uno_stores.sql import schema
from uno_stores.sql.connections import Connections
from uno_stores.sql.errors import PASSING, Trouble, trouble
from uno_stores.sql.notifications import NODES_CHANNEL, Wire
from uno_stores.sql.tables import Tables
from uno_stores.sql.waiting import Patience

REMOVED_AFTER = 60
"""Seconds after the end of an announcement until its row is removed."""

_ANNOUNCE = text(
    # Only a change notifies, not a renewal: a commit that notifies waits for all others that do. No commit waits
    # for the disk: a server that crashes ends announcements, and nodes renew them.
    f"""
    WITH quick AS (
        SELECT set_config('synchronous_commit', 'off', true)
    ), before AS (
        SELECT id FROM uno_nodes
        WHERE id = CAST(:id AS text) AND payload = CAST(:payload AS bytea) AND ends > clock_timestamp()
    ), announced AS (
        INSERT INTO uno_nodes AS known (id, payload, ends) VALUES (
            CAST(:id AS text), CAST(:payload AS bytea),
            clock_timestamp() + make_interval(secs => CAST(:seconds AS double precision))
        )
        ON CONFLICT (id) DO UPDATE SET payload = excluded.payload, ends = excluded.ends
    ), removed AS (
        DELETE FROM uno_nodes WHERE id IN (
            SELECT id FROM uno_nodes
            WHERE ends < clock_timestamp() - make_interval(secs => {REMOVED_AFTER}) AND id <> CAST(:id AS text)
            FOR UPDATE SKIP LOCKED
        )
    ), told AS (
        SELECT pg_notify({NODES_CHANNEL}, CAST(:id AS text)) WHERE NOT EXISTS (SELECT FROM before)
    ), present AS (
        SELECT payload FROM uno_nodes WHERE ends > clock_timestamp() AND id <> CAST(:id AS text)
        UNION ALL SELECT CAST(:payload AS bytea)
    )
    SELECT array_agg(payload) FROM present
    WHERE (SELECT count(*) FROM told) + (SELECT count(*) FROM quick) >= 0
    """  # noqa: S608 - constants
)
_WITHDRAW = text(
    f"""
    WITH gone AS (DELETE FROM uno_nodes WHERE id = CAST(:id AS text) RETURNING id)
    SELECT count(*) FROM (SELECT pg_notify({NODES_CHANNEL}, id) FROM gone) AS told
    """  # noqa: S608 - constants
)


class Nodes:
    """The memberships that one store has given out.

    Attributes:
        directory: With the files of nodes beside an SQLite file; ``None`` elsewhere.
    """

    def __init__(self, connections: Connections, tables: Tables) -> None:
        self._connections = connections
        self._tables = tables
        path = connections.place.nodes_path
        self.directory = None if path is None else NodeDirectory(path)
        self._given: list[Membership] = []
        self._tasks: set[asyncio.Task[Any]] = set()

    def membership(self, seconds: float, clock: Clock) -> Membership:
        """See `EventStore.membership`."""
        connections = self._connections
        made: Membership
        if connections.wire is not None:
            made = ServerMembership(connections, connections.wire, self._tables, seconds, self._kept)
        elif self.directory is not None:
            made = FileMembership(self.directory, seconds, self._check_file, connections.url)
        else:
            made = MemoryMembership(connections.place.nodes, seconds, clock, connections.life.check)
        self._given.append(made)
        return made

    def _check_file(self) -> None:
        connections = self._connections
        connections.life.check()
        connections.check_file()

    async def _kept(self, work: Coroutine[Any, Any, Any]) -> Any:
        """The result of ``work``, which is finished though its caller is cancelled.

        To cancel it would end the connection, with all locks of leases.
        """
        task = begin(asyncio.get_running_loop(), work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        await asyncio.wait([task])
        if task.cancelled():
            raise StoreUnavailable(self._connections.url, "it was closed")
        return task.result()

    def notified(self, member_id: str) -> None:
        """The node ``member_id`` has announced, changed or withdrawn itself."""
        for membership in tuple(self._given):
            if isinstance(membership, ServerMembership):
                membership.notified(member_id)

    async def withdraw(self) -> None:
        """End all announcements; for a store that is being closed."""
        for membership in tuple(self._given):
            await membership.withdraw()

    def leave(self) -> None:
        """Drop what is under way, and the files; for a store that is closed."""
        for task in tuple(self._tasks):
            task.cancel()
        if self.directory is not None:
            self.directory.close()


class ServerMembership(Membership):
    """The announcement of one node, in a row of ``uno_nodes``.

    Args:
        connections: Of the store.
        wire: The connection kept to PostgreSQL.
        tables: Of the store.
        seconds: Until an announcement ends, by the clock of the server, that is not renewed.
        kept: Finishes what its caller abandons.
    """

    def __init__(
        self,
        connections: Connections,
        wire: Wire,
        tables: Tables,
        seconds: float,
        kept: Callable[[Coroutine[Any, Any, Any]], Awaitable[Any]],
    ) -> None:
        self._connections = connections
        self._wire = wire
        self._tables = tables
        self._seconds = seconds
        self._kept = kept
        self._id: str | None = None
        self._listener: Callable[[], None] | None = None

    @override
    async def announce(self, member: Member) -> tuple[Member, ...]:
        self._connections.life.check()
        await self._tables.prepare()
        self._id = member.id
        terms = {"id": member.id, "payload": packed(member), "seconds": self._seconds}
        return members_of(await self._kept(self._announce(terms)))

    async def _announce(self, terms: dict[str, Any]) -> list[bytes]:
        connections = self._connections
        patience = Patience(min(connections.patience, self._seconds))
        made = False
        while True:
            try:
                found: list[bytes] = await self._wire.ask(_ANNOUNCE, terms)
            except UnoError:
                raise
            except Exception as error:
                kind = trouble(error)
                if kind is Trouble.NO_TABLES and not made:  # the store was made by an earlier version
                    made = True
                    await self._tables.add(schema.nodes)
                elif kind not in PASSING or connections.life.closed or not await patience.again():
                    raise connections.refused(error) from error
            else:
                return found

    @override
    async def withdraw(self) -> None:
        member_id, self._id = self._id, None
        if member_id is None:
            return
        try:
            await self._kept(self._wire.ask(_WITHDRAW, {"id": member_id}))
        except Exception:  # noqa: BLE001 - then it ends by itself
            return

    @override
    def when_changed(self, listener: Callable[[], None]) -> None:
        self._listener = listener

    def notified(self, member_id: str) -> None:
        """The node ``member_id`` has announced, changed or withdrawn itself."""
        if self._listener is not None and self._id is not None and member_id != self._id:
            self._listener()
