"""The transactions of a read model: only the framework ends them.

What the program writes and how far it has come are one transaction. If the program committed in between, its rows
would stay without the progress, and would be written again.

A database of SQLite in memory has one connection for all sessions of its engine (`sqlalchemy.pool.StaticPool`), so what
one rolls back or commits are the writes of all. There the read models write one after the other.
"""

import asyncio
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import (
    AbstractAsyncContextManager,
    AbstractContextManager,
    asynccontextmanager,
    contextmanager,
    nullcontext,
)
from typing import Any
from weakref import WeakKeyDictionary

from sqlalchemy import Pool, SingletonThreadPool, StaticPool, event
from sqlalchemy.ext.asyncio import AsyncSession
from sqlalchemy.orm import Session

from uno_actors.errors import InvalidHandler

_turns: WeakKeyDictionary[Pool, asyncio.Lock] = WeakKeyDictionary()
_turns_on_threads: WeakKeyDictionary[Pool, threading.Lock] = WeakKeyDictionary()

_COMPLETE = "uno_actors.read_models.complete"
"""In ``info`` of a session: whether its transaction has the progress too, and may be committed."""


@asynccontextmanager
async def begun(factory: Callable[[], Any]) -> AsyncIterator[AsyncSession]:
    """A session of ``factory`` with its transaction, which is committed at the end, and not before.

    What is done in the block includes the progress.

    Raises:
        InvalidHandler: It makes something else.
    """
    made = factory()
    if not isinstance(made, AsyncSession):
        raise InvalidHandler(_no_session(made, AsyncSession))
    async with _turn(made.sync_session), made as session, session.begin():
        _hold(session.sync_session)
        yield session
        session.sync_session.info[_COMPLETE] = True


@contextmanager
def begun_on_thread(factory: Callable[[], Any]) -> Iterator[Session]:
    """As `begun`, for plain sessions."""
    made = factory()
    if not isinstance(made, Session):
        raise InvalidHandler(_no_session(made, Session))
    if isinstance(getattr(made.bind, "pool", None), SingletonThreadPool):
        raise InvalidHandler(
            "a database of SQLite in memory is another one on each thread, and a SyncSqlProjection runs on several: use"
            ' a file, or create_engine("sqlite://", poolclass=StaticPool, connect_args={"check_same_thread": False})'
        )
    with _turn_on_thread(made), made as session, session.begin():
        _hold(session)
        yield session
        session.info[_COMPLETE] = True


def check_open(session: Session) -> None:
    """Check that the program has left the transaction open.

    Raises:
        InvalidHandler: It has undone it, or closed the session.
    """
    if not session.in_transaction():
        raise InvalidHandler(
            "a read model must not end its transaction, by rollback() or close(): to undo a part of what it writes, use"
            " a savepoint, as in `async with session.begin_nested():`"
        )


def _turn(session: Session) -> AbstractAsyncContextManager[object]:
    """Lasts while no other read model writes through the same connection."""
    pool = _shared_connection(session)
    return nullcontext() if pool is None else _turns.setdefault(pool, asyncio.Lock())


def _turn_on_thread(session: Session) -> AbstractContextManager[object]:
    pool = _shared_connection(session)
    return nullcontext() if pool is None else _turns_on_threads.setdefault(pool, threading.Lock())


def _shared_connection(session: Session) -> Pool | None:
    """What gives all sessions the same connection, if something does."""
    pool = getattr(session.bind, "pool", None)
    return pool if isinstance(pool, StaticPool) else None


def _hold(session: Session) -> None:
    session.info[_COMPLETE] = False
    if not event.contains(session, "before_commit", _refuse):  # a scoped session is the same each time
        event.listen(session, "before_commit", _refuse)


def _refuse(session: Session) -> None:
    if not session.info[_COMPLETE] and not session.in_nested_transaction():
        raise InvalidHandler(
            "a read model must not commit: what it writes is committed together with its progress when the method has"
            " returned. Use session.flush() to send what was written so far"
        )


def _no_session(made: object, kind: type) -> str:
    makers = {
        AsyncSession: "async_sessionmaker(create_async_engine(url))",
        Session: "sessionmaker(create_engine(url))",
    }
    names = {AsyncSession: "SqlProjection", Session: "SyncSqlProjection"}
    return (
        f"a {names[kind]} needs {kind.__name__} objects, as {makers[kind]} makes them; its session_factory has made"
        f" {made!r}"
    )
