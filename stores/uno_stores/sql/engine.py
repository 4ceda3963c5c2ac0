"""The engine of a store: with or without a pooler, which connections may still be used, and how they end."""

import asyncio
import contextlib
import uuid
from collections.abc import Callable
from typing import Any
from weakref import WeakSet

from sqlalchemy import URL, event, text
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine, AsyncSession, create_async_engine

from uno_stores.sql.place import file_of

CLOSE_PATIENCE = 1.0
"""Seconds in which connections may close gracefully; then they are cut off."""

_WHO = text("SELECT pg_backend_pid()")


def driver_of(connection: AsyncConnection) -> Any:
    """The driver's own connection."""
    assert connection.sync_connection is not None
    return connection.sync_connection.connection.driver_connection


def terminate(driver: Any) -> None:
    """End a connection at once, where the driver can: nothing is sent, and nothing awaited."""
    cut = getattr(driver, "terminate", None)  # asyncpg's
    if cut is not None:
        with contextlib.suppress(Exception):  # it is gone already, or its event loop is
            cut()


async def is_pooled(connection: AsyncConnection) -> bool:
    """Whether a pooler stands before PostgreSQL: the process that answers is not the one that accepted us.

    Args:
        connection: In a transaction, for a pooler may give each another session.
    """
    driver = driver_of(connection)
    if hasattr(driver, "get_server_pid"):  # asyncpg
        told = driver.get_server_pid()
    else:  # psycopg
        told = getattr(getattr(driver, "info", None), "backend_pid", None)
    return told is not None and told != (await connection.execute(_WHO)).scalar_one()


class OwnEngine:
    """The engine that a store makes for its URL.

    A pooler that gives each transaction another session loses prepared statements, or has those of others: through a
    pooler, statements are prepared each time and have no name. On a direct connection their names are unique, so the
    first query, which detects a pooler, works through one.

    Args:
        url: Of the database.
        connected: Called with each new connection of the driver.
        read_only: Whether transactions of PostgreSQL are read-only.

    Raises:
        ArgumentError, ValueError: No engine can be made for it.
    """

    def __init__(
        self, url: URL, connected: Callable[[Any], None] | None = None, *, read_only: bool = False
    ) -> None:
        self._url = url
        self._read_only = read_only
        self._connected = connected
        self._pooled = False
        self._drivers: WeakSet[Any] = WeakSet()
        self.engine = self._made()

    def session(self) -> AsyncSession:
        """A session on it."""
        return AsyncSession(self.engine)

    async def suit_pooler(self) -> None:
        """Adapt to a pooler."""
        if not self._pooled:
            self._pooled = True
            old, self.engine = self.engine, self._made()
            await _dispose(old, self._drivers)

    def renew(self) -> None:
        """Abandon all connections: they belong to an event loop that has ended."""
        for driver in tuple(self._drivers):
            terminate(driver)
        self._drivers = WeakSet()
        self.engine = self._made()

    def cut(self) -> None:
        """End all connections at once."""
        for driver in tuple(self._drivers):
            terminate(driver)

    async def dispose(self) -> None:
        """Close all connections gracefully, if they answer soon."""
        await _dispose(self.engine, self._drivers)

    def _made(self) -> AsyncEngine:
        url, options = split_numbers(self._url)
        if url.get_driver_name() == "asyncpg":
            options["prepared_statement_name_func"] = str if self._pooled else _unlike_any_other
            if self._pooled:
                options |= {"statement_cache_size": 0, "prepared_statement_cache_size": 0}
        if url.get_driver_name() == "aiosqlite":
            options["async_creator_fn"] = _connect_sqlite
        # The connection that was used last has what it needs in its cache. A database in memory has one alone.
        if url.get_backend_name() == "sqlite" and file_of(url) is not None:
            kinds: dict[str, Any] = {"pool_use_lifo": True}
        elif self._read_only and url.get_backend_name() == "postgresql":
            # by transaction, since a pooler gives the next one of this session to another client
            kinds = {"execution_options": {"postgresql_readonly": True}}
        else:
            kinds = {}
        engine = create_async_engine(url, connect_args=options, **kinds)
        event.listen(engine.sync_engine, "connect", self._made_connection)
        return engine

    def _made_connection(self, connection: Any, _: object) -> None:
        with contextlib.suppress(TypeError):  # of a driver whose connections cannot be referred to weakly
            self._drivers.add(connection.driver_connection)
        if self._connected is not None:
            self._connected(connection)


def split_numbers(url: URL) -> tuple[URL, dict[str, Any]]:
    """``url`` without those options of asyncpg that are numbers, and these, which SQLAlchemy would pass as texts.

    Raises:
        ValueError: One of them is not a number.
    """
    if url.get_driver_name() != "asyncpg":
        return url, {}
    found = {name: kind(str(url.query[name])) for name, kind in _NUMBERS.items() if name in url.query}
    return url.difference_update_query(found), found


_NUMBERS: dict[str, Callable[[str], Any]] = {
    "command_timeout": float,
    "max_cacheable_statement_size": int,
    "max_cached_statement_lifetime": int,
    "statement_cache_size": int,
    "timeout": float,
}


def _connect_sqlite(*arguments: Any, **options: Any) -> Any:
    from uno_stores.sql.sqlite import connect_sqlite  # noqa: PLC0415 - only one of the drivers may be installed

    return connect_sqlite(*arguments, **options)


async def _dispose(engine: AsyncEngine, drivers: WeakSet[Any]) -> None:
    try:
        async with asyncio.timeout(CLOSE_PATIENCE):  # no generator: it may be the loop's very end
            await engine.dispose()
    except TimeoutError:
        for driver in tuple(drivers):
            terminate(driver)
        await engine.dispose()


def _unlike_any_other() -> str:
    return f"__uno_{uuid.uuid4().hex}__"
