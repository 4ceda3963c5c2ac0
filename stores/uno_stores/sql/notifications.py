"""The one connection that a store keeps to PostgreSQL: it holds the leases and is notified of commits."""

import asyncio
import contextlib
from collections.abc import Awaitable, Callable, Mapping
from typing import Any, TypeVar

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncSession

from uno_actors.errors import StoreUnavailable
from uno_stores.sql.engine import driver_of, terminate
from uno_stores.sql.leases import ServerLeases
from uno_stores.sql.log import CHANNEL
from uno_stores.sql.quick_statement import QuickStatement
from uno_stores.sql.waiting import within

T = TypeVar("T")

NODES_CHANNEL = "'uno_nodes_' || md5(current_schema())"
"""The channel on which PostgreSQL tells of a node that has changed, by SQL; apart from that of the log."""

_CHANNELS = text(f"SELECT {CHANNEL}, {NODES_CHANNEL}")


class Wire:
    """A connection that is made when it is needed, and again after it was lost.

    Through a pooler that gives each transaction another session it gets no notifications and holds no locks: each
    query is its own transaction.

    Args:
        store: The URL of the store, for errors.
        session_factory: Makes the session whose connection it keeps.
        heard: Called with the last position of the log after it has grown.
        patience: Seconds that the server may take for an answer before the connection counts as lost.
        lease_time: Seconds until a lease ends that is not renewed.
        renewed_lease: Called with the name of each lease that is surely held until a time, by `time.monotonic`.
        lost_lease: Called with the name of each lease that another process has taken over.
        node_changed: Called with the id of each node that has announced, changed or withdrawn itself.

    Attributes:
        leases: The names that are held.
        connects: How often the connection was made.
        lost: Set when the connection ends.
        pooled: Whether a pooler stands between.
    """

    def __init__(
        self,
        store: str,
        session_factory: Callable[[], AsyncSession],
        heard: Callable[[int], None],
        *,
        patience: float,
        lease_time: float,
        lost_lease: Callable[[str], None],
        renewed_lease: Callable[[str, float], None],
        node_changed: Callable[[str], None],
    ) -> None:
        self._store = store
        self._closed = False
        self.leases = ServerLeases(self.ask, lease_time, lost_lease, renewed_lease)
        self._session_factory = session_factory
        self._heard = heard
        self._node_changed = node_changed
        self._patience = patience
        self.pooled = False
        self.connects = 0
        self.move()

    def move(self) -> None:
        """Start over on another event loop."""
        self.lost = asyncio.Event()
        self._turn = asyncio.Lock()  # one statement at a time
        self._session: AsyncSession | None = None
        self._connection: AsyncConnection | None = None
        self._driver: Any = None
        self._listens = False
        self.leases.unlocked()

    @property
    def listens(self) -> bool:
        """Whether it is notified of commits; only asyncpg can be."""
        return self._listens and self._connection is not None

    @property
    def is_connected(self) -> bool:
        """Whether there is a connection now."""
        return self._connection is not None and not self.lost.is_set()

    async def tell(self, statement: QuickStatement, terms: Mapping[str, Any]) -> None:
        """Execute ``statement`` by the driver, where it `listens`; errors as in `ask`."""

        async def work(connection: AsyncConnection) -> None:
            await statement.by_driver(driver_of(connection), terms)

        await self._use(work)

    async def ask(self, statement: Any, parameters: dict[str, Any] | None = None) -> Any:
        """The one value of ``statement``; any error, and a cancellation, ends the connection."""

        async def work(connection: AsyncConnection) -> Any:
            return (await connection.execute(statement, parameters)).scalar()

        return await self._use(work)

    async def _use(self, work: Callable[[AsyncConnection], Awaitable[T]]) -> T:
        async with self._turn:
            if self._closed:  # a new connection would keep its locks
                raise StoreUnavailable(self._store, "it was closed")
            try:
                async with within(self._patience):
                    if self.lost.is_set():
                        await self._drop()
                    connection = self._connection or await self._connect()
                    value = await work(connection)
                    if self.pooled and self._session is not None:
                        await self._session.commit()
                        self._connection = None  # the next transaction of the session gets another
                    return value
            except BaseException:
                terminate(self._driver)  # to end it in good order would wait for a server that is silent
                await self._drop()
                raise

    async def leave(self) -> None:
        """End the connection; it is made again, perhaps on another event loop."""
        await self._drop()

    async def close(self) -> None:
        """End the connection, and with it the locks of the leases, for good."""
        self._closed = True
        async with self._turn:
            await self._drop()

    def cut(self) -> None:
        """End it at once."""
        self._closed = True
        terminate(self._driver)

    async def _connect(self) -> AsyncConnection:
        self._session = session = self._session or self._session_factory()
        self.leases.by_session = not self.pooled
        options = {} if self.pooled else {"isolation_level": "AUTOCOMMIT"}
        connection = await session.connection(execution_options=options)
        self._driver = driver = driver_of(connection)
        self.lost.clear()
        self.connects += 1
        self._connection = connection
        self._listens = not self.pooled and hasattr(driver, "add_listener")
        if self._listens:
            channel, nodes_channel = (await connection.execute(_CHANNELS)).one()
            driver.add_termination_listener(lambda _: self._terminated(connection))
            await driver.add_listener(channel, self._notified)
            await driver.add_listener(nodes_channel, self._node_notified)
        return connection

    def _terminated(self, connection: AsyncConnection) -> None:
        if connection is self._connection:
            self.lost.set()

    def _notified(self, connection: object, process: int, channel: str, payload: object) -> None:
        self._heard(int(str(payload)))

    def _node_notified(self, connection: object, process: int, channel: str, payload: object) -> None:
        self._node_changed(str(payload))

    async def _drop(self) -> None:
        session, self._session, self._connection = self._session, None, None
        self._driver = None
        self.leases.unlocked()
        self.lost.set()
        if session is not None:
            with contextlib.suppress(Exception):  # it may be gone already
                await session.invalidate()  # back in the pool it would keep the locks
