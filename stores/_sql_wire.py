"""The one connection that a store keeps to PostgreSQL: it holds the leases and hears what others have recorded."""

import asyncio
import contextlib
from collections.abc import Callable
from typing import Any

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncSession

from stores._sql_errors import within
from stores._sql_leases import AdvisoryLeases
from stores._sql_log import CHANNEL
from uno_actors.errors import StoreUnavailable

_CHANNEL = text(f"SELECT {CHANNEL}")


class Wire:
    """A connection that is made when it is needed, and again after it was lost.

    Args:
        store: Whose it is, for errors.
        session_factory: Makes the session whose connection it keeps.
        heard: Told the last position of the log when it has grown.
        patience: Seconds that the server may take for an answer before the connection counts as lost.

    Attributes:
        leases: The names that are held by the connection.
        lost: Set when the connection ends.
    """

    def __init__(
        self,
        store: str,
        session_factory: Callable[[], AsyncSession],
        heard: Callable[[int], None],
        patience: float,
    ) -> None:
        self._store = store
        self._closed = False
        self.leases = AdvisoryLeases(self.ask)
        self.lost = asyncio.Event()
        self._session_factory = session_factory
        self._heard = heard
        self._patience = patience
        self._turn = asyncio.Lock()  # one statement at a time
        self._session: AsyncSession | None = None
        self._connection: AsyncConnection | None = None
        self._listens = False

    @property
    def listens(self) -> bool:
        """Whether it is told of what others record; only asyncpg can."""
        return self._listens and self._connection is not None

    async def ask(self, statement: Any, parameters: dict[str, Any] | None = None) -> Any:
        """The one value that ``statement`` gives; whatever fails, and to be cancelled, ends the connection."""
        async with self._turn:
            if self._closed:  # a connection would keep its locks for ever
                raise StoreUnavailable(self._store, "it was closed")
            try:
                async with within(self._patience):
                    if self.lost.is_set():
                        await self._drop()
                    connection = self._connection or await self._connect()
                    return (await connection.execute(statement, parameters)).scalar()
            except BaseException:
                await self._drop()
                raise

    async def close(self) -> None:
        """End the connection, and with it the leases, for good."""
        self._closed = True
        async with self._turn:
            await self._drop()

    async def _connect(self) -> AsyncConnection:
        self._session = session = self._session_factory()
        connection = await session.connection(execution_options={"isolation_level": "AUTOCOMMIT"})
        driver: Any = (await connection.get_raw_connection()).driver_connection
        self.lost.clear()
        self._connection = connection
        self._listens = hasattr(driver, "add_listener")
        if self._listens:
            channel = (await connection.execute(_CHANNEL)).scalar_one()
            driver.add_termination_listener(lambda _: self._terminated(connection))
            await driver.add_listener(channel, self._notified)
        return connection

    def _terminated(self, connection: AsyncConnection) -> None:
        if connection is self._connection:
            self.lost.set()

    def _notified(self, connection: object, process: int, channel: str, payload: object) -> None:
        self._heard(int(str(payload)))

    async def _drop(self) -> None:
        session, self._session, self._connection = self._session, None, None
        self.leases.unlocked()
        self.lost.set()
        if session is not None:
            with contextlib.suppress(Exception):  # it may be gone already
                await session.invalidate()  # back in the pool it would keep the locks
