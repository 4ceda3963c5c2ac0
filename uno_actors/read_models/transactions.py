"""The transactions of a read model: only the framework ends them.

What the program writes and how far it has come are one transaction. If the program committed in between, its rows
would stay without the progress, and would be written again.
"""

from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from typing import Any

from sqlalchemy import event
from sqlalchemy.ext.asyncio import AsyncSession
from sqlalchemy.orm import Session

from uno_actors.errors import InvalidHandler

_COMPLETE = "uno_actors.read_models.complete"
"""In ``info`` of a session: whether its transaction has the progress too, and may be committed."""


@asynccontextmanager
async def begun(factory: Callable[[], Any]) -> AsyncIterator[AsyncSession]:
    """A session of ``factory`` with its transaction, which is committed at the end, after `may_commit`.

    Raises:
        InvalidHandler: It makes something else.
    """
    made = factory()
    if not isinstance(made, AsyncSession):
        raise InvalidHandler(_no_session(made, AsyncSession))
    async with made as session, session.begin():
        _hold(session.sync_session)
        yield session


@contextmanager
def begun_on_thread(factory: Callable[[], Any]) -> Iterator[Session]:
    """As `begun`, for plain sessions."""
    made = factory()
    if not isinstance(made, Session):
        raise InvalidHandler(_no_session(made, Session))
    with made as session, session.begin():
        _hold(session)
        yield session


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


def may_commit(session: Session) -> None:
    """Let the transaction be committed: it has the progress too."""
    session.info[_COMPLETE] = True


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
