"""The place of a database: which engines lead to the same one, and what the stores of one process share there."""

import asyncio
import contextlib
import os
from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from weakref import WeakKeyDictionary

from sqlalchemy import URL, Engine, event
from sqlalchemy.exc import UnboundExecutionError
from sqlalchemy.ext.asyncio import AsyncSession
from sqlalchemy.orm import Session, SessionTransaction
from sqlalchemy.pool import StaticPool

from uno_actors.errors import StoreUnavailable
from uno_stores.files import Files
from uno_stores.memory_nodes import MemoryNodes
from uno_stores.sql.leases import SharedLeaseFile

SessionFactory = Callable[[], AsyncSession]
"""Makes a session that is bound to an engine of PostgreSQL or SQLite."""


class Place:
    """What the stores of one process on one database share.

    Attributes:
        key: The same for all engines of one database, as far as their URLs tell.
        leases: Names held by the process, except in PostgreSQL.
        alone: No other process can write there.
        nodes: The nodes of this process that work on a database in memory.
        nodes_path: Directory with the files of the nodes that work on a file of SQLite; ``None`` elsewhere.
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
        self.nodes = MemoryNodes()
        self.nodes_path = None if file is None else file.absolute().with_name(f"{file.name}-nodes")
        self._file = file
        self._files = Files()
        self._turn = asyncio.Lock() if one_connection else None
        self._borrowers: WeakKeyDictionary[Session, Callable[[], None]] = WeakKeyDictionary()

    @classmethod
    def of(cls, engine: Engine) -> "Place":
        """The place to which ``engine`` leads."""
        key = cls.key_of(engine)
        if engine.dialect.name == "postgresql":
            return cls(key, SharedLeaseFile(None))
        if path := file_of(engine.url):
            return cls(key, SharedLeaseFile.at(path.with_name(f"{path.name}-leases")), file=path)
        found = _in_memory.get(engine)
        if found is None:
            one = isinstance(engine.pool, StaticPool)
            found = _in_memory[engine] = cls(key, SharedLeaseFile(None), alone=True, one_connection=one)
        return found

    def move(self) -> None:
        """Let its stores use another event loop from now on."""
        if self._turn is not None and not self._turn.locked():
            self._turn = asyncio.Lock()

    def lost(self) -> str:
        """What happened to an SQLite file that is no longer in its place; empty if it is."""
        if self._file is not None and self._file.exists():
            with contextlib.suppress(OSError):  # it is being removed: the next look sees it
                self._files.watch(self._file)
            self._file = None
        return self._files.lost()

    @staticmethod
    def key_of(engine: Engine) -> object:
        """See `key`. A server may have several addresses, so only the name of the database counts."""
        if engine.dialect.name == "sqlite":
            file = file_of(engine.url)
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
        """Give the turn to a caller's ``session`` until its transaction ends, and then call ``ended``."""
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
                " roll back the session that was given to `append` before any other use of the store",
            ) from None

    def _give_turn(self) -> None:
        if self._turn is not None:
            self._turn.release()


_in_memory: WeakKeyDictionary[Engine, Place] = WeakKeyDictionary()


def file_of(url: URL) -> Path | None:
    """The file of an SQLite database; ``None`` if it is in memory."""
    name = url.database or ":memory:"
    if name.startswith("file:"):
        name, _, query = name.removeprefix("file:").partition("?")
        if "mode=memory" in query:
            return None
    return None if name == ":memory:" or url.query.get("mode") == "memory" else Path(name)


def engine_of(session_factory: SessionFactory) -> Engine:
    """The engine to which the sessions are bound.

    Raises:
        ValueError: There is none, or it belongs to another kind of database.
    """
    try:
        session = session_factory()
        bind = session.get_bind()
    except UnboundExecutionError as error:
        raise ValueError("the sessions are bound to no engine: write AsyncSession(engine)") from error
    engine = bind.engine
    if engine.dialect.name not in ("postgresql", "sqlite"):
        raise ValueError(f"use a PostgreSQL or SQLite database; found {engine.dialect.name}")
    return engine
