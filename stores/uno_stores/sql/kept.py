"""A connection that a store keeps for single statements, each of which commits by itself.

To take a connection from the pool, begin, commit and give it back costs more than a small append. So the writer and the
announcements each keep one from one statement to the next. It goes back to the pool when it was not used for
`KEPT_FOR` seconds.
"""

import asyncio
import contextlib
from collections.abc import Callable, Mapping
from typing import Any

from sqlalchemy.ext.asyncio import AsyncConnection, AsyncSession

from uno_actors.tasks import begin
from uno_stores.sql.connections import Connections
from uno_stores.sql.engine import CLOSE_PATIENCE, driver_of
from uno_stores.sql.quick_statement import QuickStatement

KEPT_FOR = 1.0
"""Seconds without a statement after which the connection is given back."""
SERVER_SHARE = 0.8
"""Share of the store's patience after which the server ends a statement."""


def _ignore() -> None: ...


class KeptConnection:
    """One connection, for one statement at a time.

    It is taken from an engine that the store has made. That of a program may have a pool of one connection.

    Args:
        connections: The store's connections.
    """

    _connection: AsyncConnection | None = None

    def __init__(self, connections: Connections) -> None:
        self._connections = connections
        self.move()

    def drop(self) -> None:
        """End the connection at once if it was not given back: its event loop has ended, or the store is closed."""
        connection, self._connection = self._connection, None
        if connection is not None and connection.sync_connection is not None:
            with contextlib.suppress(Exception):  # it has ended already
                connection.sync_connection.invalidate()

    def move(self) -> None:
        """Start over on another event loop."""
        self.drop()
        self._turn = asyncio.Lock()
        self._session: AsyncSession | None = None
        self._connection: AsyncConnection | None = None
        self._used_at = 0.0
        self._giving_back: asyncio.TimerHandle | None = None
        self._task: asyncio.Task[None] | None = None

    async def value(
        self, statement: QuickStatement, terms: Mapping[str, Any], sending: Callable[[], None] = _ignore
    ) -> Any:
        """The value that ``statement`` returns; ``None`` if there is no row. An error ends the connection.

        Args:
            statement: It is a transaction of its own.
            terms: Its parameters.
            sending: Called right before it is sent: if an error follows, it may have been executed.
        """
        async with self._turn:
            try:
                async with self._connections.within(self._connections.patience):
                    connection = self._connection or await self._take()
                    sending()
                    found = await statement.by_driver(driver_of(connection), terms)
            except BaseException as error:
                await self._end(error)
                raise
            self._keep()
            return found

    async def _take(self) -> AsyncConnection:
        connections = self._connections
        self._session = session = connections.kept_session()
        connection = await connections.connection(session, isolation_level="AUTOCOMMIT")
        # The server gives up before the store does: then it is certain that the statement is not executed later.
        limit = max(1, round(SERVER_SHARE * 1000 * connections.patience))
        await driver_of(connection).execute(f"SET statement_timeout = {limit}")
        self._connection = connection
        return connection

    def _keep(self) -> None:
        loop = asyncio.get_running_loop()
        self._used_at = loop.time()
        if self._giving_back is None:
            self._giving_back = loop.call_later(KEPT_FOR, self._consider)

    def _consider(self) -> None:
        """Give the connection back if it was not used for long enough, else look again when that may be."""
        loop = asyncio.get_running_loop()
        self._giving_back = None
        left = self._used_at + KEPT_FOR - loop.time()
        if left > 0:
            self._giving_back = loop.call_later(left, self._consider)
        else:
            self._task = begin(loop, self.give_back(), name=f"idle connection of {self._connections.url}")

    async def give_back(self) -> None:
        """Return the connection to the pool, once it is free; it may take `CLOSE_PATIENCE`."""
        if self._giving_back is not None:
            self._giving_back.cancel()
            self._giving_back = None
        with contextlib.suppress(Exception):  # it is gone then, and the next statement takes another
            async with asyncio.timeout(CLOSE_PATIENCE), self._turn:
                try:
                    if self._connection is not None:
                        await driver_of(self._connection).execute("RESET statement_timeout")
                except BaseException as error:
                    await self._end(error)
                    raise
                await self._end()

    async def _end(self, error: BaseException | None = None) -> None:
        if error is not None:
            self.drop()  # with its time limit it is of no use to others
        session, self._session, self._connection = self._session, None, None
        if session is not None:
            await self._connections.end(session, error)
