"""A store's sessions on its database: how each begins, ends and fails, and when another attempt is made."""

import asyncio
import itertools
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import Any, TypeVar

from sqlalchemy import Executable
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncSession

from uno_actors.errors import StoreUnavailable, UnoError
from uno_actors.logs import get_logger
from uno_actors.store_urls import without_password
from uno_stores.sql.engine import OwnEngine, is_pooled, terminate
from uno_stores.sql.errors import PASSING, Trouble, refused, trouble
from uno_stores.sql.life import Life
from uno_stores.sql.notifications import Wire
from uno_stores.sql.place import Place, SessionFactory
from uno_stores.sql.waiting import Patience, within

_DRIVER, _NUMBER = "uno_actors driver", "uno_actors number"
_numbers = itertools.count(1)
"""Numbers of connections, in the order in which stores of this process first meet them."""
_log = get_logger()

T = TypeVar("T")


class Connections:
    """The sessions of one store.

    A connection to a read-only server, as after a fail-over, is given up, together with all earlier connections.

    Args:
        secret_url: Of the database; errors show it without its password.
        session_factory: Makes the sessions.
        place: Where the database is.
        life: Of the store.
        wire: The connection kept to PostgreSQL; ``None`` for SQLite.
        patience: Seconds for which a call tries to reach a database that does not answer.

    Attributes:
        own_engine: The engine made for the store's URL, disposed of with the store; ``None`` if the program made it.
        pooled: Whether a pooler stands before PostgreSQL; known after `find_pooler`.
        trusted_from: Connections with a lower number lead to a read-only server.
    """

    def __init__(
        self,
        secret_url: str,
        session_factory: SessionFactory,
        place: Place,
        life: Life,
        *,
        wire: Wire | None,
        patience: float,
    ) -> None:
        self._secret_url = secret_url
        self.url = without_password(secret_url)
        self._session_factory = session_factory
        self.place = place
        self.life = life
        self.wire = wire
        self.patience = patience
        self.own_engine: OwnEngine | None = None
        self.pooled = False
        self.trusted_from = 0
        self._sessions: set[AsyncSession] = set()

    def move(self, *, had_loop: bool) -> None:
        """Start over on another event loop; existing connections belong to the one that has ended."""
        self._sessions = set()
        if had_loop:
            self.place.move()
            if self.wire is not None:
                self.wire.move()
                if self.own_engine is not None:
                    self.own_engine.renew()

    @asynccontextmanager
    async def session(self) -> AsyncGenerator[AsyncSession]:
        """A session for the body; a session that fails is ended without waiting for a server that may not answer.

        Raises:
            StoreUnavailable: The file of the database is gone, or its one connection is in use.
        """
        if self.wire is None:
            self.check_file()
            async with self.place.turn(self.url, self.patience), self._session_factory() as session:
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

    @property
    def may_keep(self) -> bool:
        """Whether a connection to PostgreSQL may be kept between statements: the pool is the store's own."""
        return self.wire is not None and self.own_engine is not None and not self.pooled

    def kept_session(self) -> AsyncSession:
        """A session with PostgreSQL that stays open until it is given to `end`."""
        session = self._session_factory()
        self._sessions.add(session)
        return session

    async def end(self, session: AsyncSession, error: BaseException | None) -> None:
        """End a `kept_session`, as `session` does. No generator takes part, for it may be the end of the event loop."""
        try:
            if error is None:
                async with asyncio.timeout(self.patience):
                    await session.close()
        except BaseException as failed:
            error = failed
            raise
        finally:
            self._sessions.discard(session)
            if error is not None:
                await self._part_with(session, error)

    def check_file(self) -> None:
        """Refuse to use a file that no other process can find.

        Raises:
            StoreUnavailable: It was removed, or another is in its place.
        """
        if lost := self.place.lost():
            raise StoreUnavailable(
                self.url, f"{lost} while it was open: put it back, or open the store again"
            )

    async def _part_with(self, session: AsyncSession, error: BaseException) -> None:
        kind = trouble(error) if isinstance(error, Exception) else Trouble.LOST  # cancelled in the middle
        if kind is Trouble.READ_ONLY:
            self.trusted_from = next(_numbers)
        try:
            if kind in (Trouble.LOST, Trouble.READ_ONLY):
                terminate(session.info.get(_DRIVER))
                await session.invalidate()
            else:
                async with within(self.patience):
                    await session.close()
        except Exception:  # noqa: BLE001 - the body has failed before, and its error is the one that counts
            terminate(session.info.get(_DRIVER))

    async def connection(self, session: AsyncSession, **options: Any) -> AsyncConnection:
        """The connection of ``session``, if it is not known to lead to a read-only server."""
        while True:
            connection = await session.connection(execution_options=options)
            assert connection.sync_connection is not None
            made = connection.sync_connection.connection
            session.info[_DRIVER] = made.driver_connection
            if made.info.setdefault(_NUMBER, next(_numbers)) >= self.trusted_from:
                return connection
            terminate(made.driver_connection)
            await session.invalidate()

    def within(self, seconds: float) -> AbstractAsyncContextManager[None]:
        """A time limit; none for a database in memory, which is lost with its connection."""
        return within(None if self.place.alone else seconds)

    async def again_if_lost(self, work: Callable[[], Awaitable[T]]) -> T:
        """The result of ``work``, which is tried again while the store's patience lasts.

        Raises:
            StoreUnavailable, StoreFull: It did not succeed.
        """
        patience = Patience(self.patience)
        while True:
            try:
                return await work()
            except UnoError:
                raise
            except Exception as error:
                if trouble(error) not in PASSING or self.life.closed or not await patience.again():
                    raise refused(self._secret_url, error) from error

    def refused(self, error: Exception, requests: Any = ()) -> UnoError:
        """See `uno_stores.sql.errors.refused`."""
        return refused(self._secret_url, error, requests)

    async def say(self, statement: Executable, parameters: dict[str, Any]) -> None:
        """Execute ``statement`` in a transaction of its own: on the connection kept to PostgreSQL, if there is one."""
        if self.wire is not None and self.wire.is_connected:
            await self.wire.ask(statement, parameters)
            return
        options = {} if self.pooled else {"isolation_level": "AUTOCOMMIT"}
        async with self.session() as session, self.within(self.patience):
            connection = await self.connection(session, **options)
            await connection.execute(statement, parameters)
            await session.commit()

    async def find_pooler(self) -> None:
        """Find out whether a pooler stands before PostgreSQL, and adapt to it."""
        if self.wire is None or self.pooled:
            return
        async with self.session() as session, self.within(self.patience):
            pooled = await is_pooled(await self.connection(session))
        if pooled:
            self.pooled = self.wire.pooled = True
            self.wire.leases.by_session = False
            _log.info(
                "PostgreSQL is reached through a pooler: leases end by its clock alone, and the store looks for"
                " commits of others",
                store=self.url,
            )
            if self.own_engine is not None:
                await self.own_engine.suit_pooler()

    async def loop_ended(self) -> None:
        """The event loop ends: end the connections that belong to it. Those of SQLite belong to threads."""
        if self.wire is not None and self.own_engine is not None:
            await self.wire.leave()
            await self.own_engine.dispose()

    def cut_sessions(self) -> None:
        """End the connections of all sessions under way at once."""
        for session in self._sessions:
            terminate(session.info.get(_DRIVER))

    def cut(self) -> None:
        """End all connections of the store at once."""
        if self.wire is not None:
            self.wire.cut()
        self.cut_sessions()
        if self.own_engine is not None:
            self.own_engine.cut()
