"""Only the framework ends the transactions of a read model, and it tells an event's error from the database's."""

import asyncio
import socket
import sqlite3
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import StaticPool, create_engine, event, text
from sqlalchemy.exc import DBAPIError, OperationalError
from sqlalchemy.ext.asyncio import AsyncEngine, AsyncSession, async_sessionmaker, create_async_engine
from sqlalchemy.orm import Session, sessionmaker

from tests.new_stores import new_store_url
from uno_actors import ActorSystem, DomainEvent, InvalidHandler, Supervisor
from uno_actors.backoff import Backoff
from uno_actors.handlers.spec import HandlerSpec
from uno_actors.read_models import SqlProjection, SyncSqlProjection, create_schema, create_schema_sync
from uno_actors.read_models.database_errors import is_passing
from uno_actors.read_models.tables import (
    RUN_BYTES,
    NoReadModelTables,
    Place,
    TablesOfAnotherLog,
    TakenOver,
    advance,
    begin,
    claim,
)

LEND = text("INSERT INTO loans VALUES (:book)")


class BookLent(DomainEvent):
    book: str


@pytest.fixture(params=["sqlite", "postgres"])
async def library(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[AsyncEngine]:
    """A database with one table."""
    engine = create_async_engine(await new_store_url(request.param, tmp_path))
    async with engine.begin() as connection:
        await connection.execute(text("CREATE TABLE loans (book VARCHAR(20) PRIMARY KEY)"))
    await create_schema(engine)
    yield engine
    await engine.dispose()


class Loans(SqlProjection[BookLent]):
    """Lends, and then does what a test says."""

    def __init__(self, engine: AsyncEngine, then: Callable[[AsyncSession, BookLent], Any]) -> None:
        super().__init__(async_sessionmaker(engine))
        self.then = then

    async def handle(self, event: BookLent, session: AsyncSession) -> None:
        await session.execute(LEND, {"book": event.book})
        await self.then(session, event)


async def outcome(path: Path, model: Any, *books: str) -> dict[int, str]:
    """Lend books, and return the errors of the dead letters by position."""
    handler = HandlerSpec("loans", model, BookLent, max_attempts=2)
    async with ActorSystem(f"lmdb:{path}/log", aggregates=[], handlers=[handler]) as system:
        await system.publisher.publish(*[BookLent(book=book) for book in books])
        await system.settled()
        return {letter.position: letter.error for letter in await system.store.dead_letters("loans")}


async def lent(engine: AsyncEngine) -> list[str]:
    async with engine.connect() as connection:
        return [*(await connection.execute(text("SELECT book FROM loans ORDER BY book"))).scalars()]


async def test_a_read_model_that_commits_writes_nothing_twice_and_says_so(
    library: AsyncEngine, tmp_path: Path
) -> None:
    async def commit(session: AsyncSession, event: BookLent) -> None:
        if event.book == "b":
            await session.commit()

    letters = await outcome(tmp_path, Loans(library, commit), "a", "b", "c")
    assert [*letters] == [2]
    assert "must not commit" in letters[2]
    assert await lent(library) == ["a", "c"]


@pytest.mark.parametrize("end", ["rollback", "close"])
async def test_a_read_model_that_undoes_its_transaction_says_so(
    library: AsyncEngine, tmp_path: Path, end: str
) -> None:
    async def undo(session: AsyncSession, event: BookLent) -> None:
        if event.book == "b":
            await getattr(session, end)()

    letters = await outcome(tmp_path, Loans(library, undo), "a", "b", "c")
    assert [*letters] == [2]
    assert "must not end its transaction" in letters[2]
    assert await lent(library) == ["a", "c"]


async def test_a_plain_read_model_that_commits_writes_nothing_twice(tmp_path: Path) -> None:
    engine = create_engine(f"sqlite:///{tmp_path}/library.db")
    create_schema_sync(engine)
    with engine.begin() as connection:
        connection.execute(text("CREATE TABLE loans (book VARCHAR(20))"))

    class PlainLoans(SyncSqlProjection[BookLent]):
        def handle(self, event: BookLent, session: Session) -> None:
            session.execute(LEND, {"book": event.book})
            if event.book == "b":
                session.commit()

    letters = await outcome(tmp_path, PlainLoans(sessionmaker(engine)), "a", "b", "c")
    assert [*letters] == [2]
    assert "must not commit" in letters[2]
    with engine.begin() as connection:
        assert [*connection.execute(text("SELECT book FROM loans")).scalars()] == ["a", "c"]
    engine.dispose()


async def test_a_savepoint_may_be_committed_and_undone(library: AsyncEngine, tmp_path: Path) -> None:
    async def lend_again(session: AsyncSession, event: BookLent) -> None:
        with pytest.raises(DBAPIError):
            async with session.begin_nested():
                await session.execute(LEND, {"book": event.book})
        async with session.begin_nested():
            await session.execute(LEND, {"book": f"{event.book} 2"})

    assert await outcome(tmp_path, Loans(library, lend_again), "a") == {}
    assert await lent(library) == ["a", "a 2"]


@pytest.mark.parametrize(
    "statement", ["INSRT INTO loans VALUES (1)", "INSERT INTO loans (title) VALUES ('x')"]
)
async def test_a_misspelled_statement_is_an_error_of_its_event_and_not_of_the_database(
    library: AsyncEngine, tmp_path: Path, statement: str
) -> None:
    async def misspell(session: AsyncSession, event: BookLent) -> None:
        if event.book == "b":
            await session.execute(text(statement))

    letters = await outcome(tmp_path, Loans(library, misspell), "a", "b", "c")
    assert [*letters] == [2]
    assert await lent(library) == ["a", "c"]


async def test_a_failed_statement_whose_error_was_caught_does_not_hold_up_the_others(
    library: AsyncEngine, tmp_path: Path
) -> None:
    async def lend_again(session: AsyncSession, event: BookLent) -> None:
        if event.book == "b":
            with pytest.raises(DBAPIError):
                await session.execute(LEND, {"book": "b"})

    letters = await outcome(tmp_path, Loans(library, lend_again), "a", "b", "c")
    if library.dialect.name == "sqlite":  # it undoes the statement alone
        assert letters == {}
        assert await lent(library) == ["a", "b", "c"]
    else:
        assert [*letters] == [2]
        assert "begin_nested" in letters[2]
        assert await lent(library) == ["a", "c"]


def _of_sqlite(code: int) -> DBAPIError:
    error = sqlite3.OperationalError("cannot do it")
    error.sqlite_errorcode = code
    return OperationalError("INSERT", {}, error)


def _of_postgres(state: str, name: str = "sqlstate") -> DBAPIError:
    error = Exception("cannot do it")
    setattr(error, name, state)
    return DBAPIError("INSERT", {}, error)


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (_of_sqlite(sqlite3.SQLITE_BUSY), True),
        (_of_sqlite(sqlite3.SQLITE_BUSY_SNAPSHOT), True),  # an extended code
        (_of_sqlite(sqlite3.SQLITE_FULL), True),
        (_of_sqlite(sqlite3.SQLITE_CANTOPEN), True),
        (_of_sqlite(sqlite3.SQLITE_ERROR), False),  # as for a misspelled statement
        (_of_sqlite(sqlite3.SQLITE_CONSTRAINT_UNIQUE), False),
        (_of_postgres("57P01"), True),
        (_of_postgres("40001", "pgcode"), True),
        (_of_postgres("25006"), True),  # a standby
        (_of_postgres("25P02"), False),  # the program's own statement failed before
        (_of_postgres("42601"), False),
        (OperationalError("INSERT", {}, Exception(1213, "Deadlock found")), True),
        (OperationalError("INSERT", {}, Exception(2006, "MySQL server has gone away")), True),
        (OperationalError("INSERT", {}, Exception(1054, "Unknown column 'title'")), False),
        (
            OperationalError("INSERT", {}, Exception("no more connections")),
            True,
        ),  # of a driver that tells no more
        (ConnectionRefusedError(), True),
        (ValueError(), False),
    ],
    ids=str,
)
def test_which_errors_say_nothing_about_the_event(error: Exception, expected: bool) -> None:
    assert is_passing(error) is expected


@pytest.mark.parametrize("error", [FileNotFoundError(2, "No such file"), TimeoutError("too slow")], ids=str)
async def test_what_the_program_itself_cannot_reach_is_an_error_of_its_event(
    library: AsyncEngine, tmp_path: Path, error: OSError
) -> None:
    """A handler that waited for the database would try a missing file for ever."""

    async def ask_elsewhere(session: AsyncSession, event: BookLent) -> None:
        if event.book == "b":
            raise error

    letters = await outcome(tmp_path, Loans(library, ask_elsewhere), "a", "b", "c")
    assert [*letters] == [2]
    assert str(error) in letters[2]
    assert await lent(library) == ["a", "c"]


async def test_a_server_that_refuses_connections_is_no_error_of_the_event() -> None:
    with socket.socket() as without_listener:
        without_listener.bind(("127.0.0.1", 0))
        port = without_listener.getsockname()[1]
        engine = create_async_engine(f"postgresql+asyncpg://user@127.0.0.1:{port}/database")
        async with AsyncSession(engine) as session:
            with pytest.raises(ConnectionRefusedError) as refused:
                await session.execute(text("SELECT 1"))
    await engine.dispose()
    assert is_passing(refused.value, of_model=True)
    assert not is_passing(ConnectionRefusedError(), of_model=True)


async def test_a_missing_table_of_the_program_is_not_mistaken_for_those_of_progress(
    library: AsyncEngine, tmp_path: Path
) -> None:
    class Empties(Loans):
        async def on_rebuild(self, session: AsyncSession) -> None:
            await session.execute(text("DELETE FROM loan"))

    with pytest.raises(DBAPIError) as refused:
        await outcome(tmp_path, Empties(library, lambda *_: asyncio.sleep(0)), "a")
    assert not isinstance(refused.value, NoReadModelTables)


async def nothing(session: AsyncSession, event: BookLent) -> None:
    """Only lend."""


@pytest.mark.parametrize("partitions", [False, 2])
async def test_tables_that_are_ahead_of_the_log_are_not_filled_further(
    tmp_path: Path, partitions: bool | int
) -> None:
    """As after the log was removed, and the database was not: its first events would be passed over."""
    engine = create_async_engine(f"sqlite+aiosqlite:///{tmp_path}/library.db")
    await create_schema(engine)

    class Kept(Loans):
        async def on_rebuild(self, session: AsyncSession) -> None:
            await session.execute(text("DROP TABLE IF EXISTS loans"))
            await session.execute(text("CREATE TABLE loans (book TEXT)"))

    def system(log: str) -> ActorSystem:
        handler = HandlerSpec("loans", Kept(engine, nothing), BookLent, partitioned=partitions)
        return ActorSystem(f"lmdb:{tmp_path}/{log}", aggregates=[], handlers=[handler])

    async with system("first") as first:
        await first.publisher.publish(
            *[BookLent(book=book, aggregate_type="Book", aggregate_id=book) for book in "ab"]
        )
        await first.settled()
    with pytest.raises(TablesOfAnotherLog, match="handlers reset loans --to earliest"):
        async with system("second"):
            pass
    assert await lent(engine) == ["a", "b"]
    async with ActorSystem(f"lmdb:{tmp_path}/second", aggregates=[], handlers=[]) as idle:
        await idle.reset("loans", to="earliest")
    async with system("second") as second:
        await second.publisher.publish(BookLent(book="c", aggregate_type="Book", aggregate_id="c"))
        await second.settled()
    assert await lent(engine) == ["c"]
    await engine.dispose()


@pytest.mark.parametrize("partitions", [False, 2])
async def test_two_logs_do_not_fill_the_same_tables(
    library: AsyncEngine, tmp_path: Path, partitions: bool | int
) -> None:
    """As of two tenants: each would pass over as many events as the other has."""

    def system(log: str) -> ActorSystem:
        spec = HandlerSpec("loans", Loans(library, nothing), BookLent, partitioned=partitions)
        children = [Supervisor("models", [spec], max_restarts=3, backoff=Backoff(initial=0.01, max=0.01))]
        return ActorSystem(f"lmdb:{tmp_path}/{log}", aggregates=[], handlers=[], supervisors=children)

    async def lend(to: ActorSystem, *books: str) -> None:
        aggregate = {"aggregate_type": "Shelf", "aggregate_id": "one"}  # so that one partition has them all
        await to.publisher.publish(*[BookLent(book=book, **aggregate) for book in books])

    async with ActorSystem(f"lmdb:{tmp_path}/globex", aggregates=[], handlers=[]) as idle:
        await lend(idle, "g1", "g2", "g3")
    async with system("acme") as acme:
        await lend(acme, "a1")
        await acme.settled()
    with pytest.raises(TablesOfAnotherLog, match="of another log"):
        async with system("globex"):
            pass
    assert await lent(library) == ["a1"]


async def test_read_models_of_one_database_in_memory_do_not_undo_the_writes_of_each_other() -> None:
    """It has one connection for all, so each rollback is one of all that was not committed yet."""
    engine = create_async_engine("sqlite+aiosqlite://")
    await create_schema(engine)
    async with engine.begin() as connection:
        await connection.execute(text("CREATE TABLE loans (book TEXT)"))
    failed: set[str] = set()

    async def take_time(session: AsyncSession, event: BookLent) -> None:
        await asyncio.sleep(0)

    async def fail_once(session: AsyncSession, event: BookLent) -> None:
        await asyncio.sleep(0)
        if event.book not in failed:
            failed.add(event.book)
            raise ValueError

    models = {"steady": Loans(engine, take_time), "failing": Loans(engine, fail_once)}
    specs = [HandlerSpec(name, model, BookLent) for name, model in models.items()]
    quick = Supervisor("models", specs, max_restarts=None, backoff=Backoff(initial=0.001, max=0.001))
    async with ActorSystem("memory:", aggregates=[], handlers=[], supervisors=[quick]) as system:
        for number in range(10):
            await system.publisher.publish(BookLent(book=f"{number}"))
        await system.settled()
    assert await lent(engine) == [f"{number}" for number in range(10) for _ in models]
    await engine.dispose()


@pytest.mark.parametrize("shared", [False, True])
async def test_a_plain_read_model_needs_a_database_that_all_threads_see(shared: bool) -> None:
    options: Any = {"poolclass": StaticPool, "connect_args": {"check_same_thread": False}} if shared else {}
    engine = create_engine("sqlite://", **options)
    create_schema_sync(engine)
    with engine.begin() as connection:
        connection.execute(text("CREATE TABLE loans (book TEXT)"))

    class Threaded(SyncSqlProjection[BookLent]):
        def handle(self, event: BookLent, session: Session) -> None:
            session.execute(LEND, {"book": event.book})

    handlers = [HandlerSpec(name, Threaded(sessionmaker(engine)), BookLent) for name in ("first", "second")]
    system = ActorSystem("memory:", aggregates=[], handlers=handlers)
    if not shared:
        with pytest.raises(InvalidHandler, match="poolclass=StaticPool"):
            await system.start()
        return
    async with system:
        await system.publisher.publish(*[BookLent(book=f"{number}") for number in range(20)])
        await system.settled()
    with engine.begin() as connection:
        assert connection.execute(text("SELECT count(*) FROM loans")).scalar_one() == 40
    engine.dispose()


async def test_several_processes_may_make_the_tables_at_once(library: AsyncEngine) -> None:
    async with library.begin() as connection:
        await connection.execute(text("DROP TABLE uno_read_models"))
        await connection.execute(text("DROP TABLE uno_read_models_retried"))
    engines = [create_async_engine(library.url) for _ in range(6)]
    await asyncio.gather(*map(create_schema, engines))
    for engine in engines:
        await engine.dispose()
    async with library.connect() as connection:
        assert [*await connection.execute(text("SELECT * FROM uno_read_models"))] == []


@pytest.mark.parametrize("kind", ["sessions", "an engine", "a url"])
async def test_what_makes_no_sessions_for_it_is_refused_with_what_does(tmp_path: Path, kind: str) -> None:
    engine = create_engine(f"sqlite:///{tmp_path}/library.db")
    create_schema_sync(engine)
    given: Any = {"sessions": sessionmaker(engine), "an engine": engine, "a url": "sqlite://"}[kind]

    class Mistaken(SqlProjection[BookLent]):
        async def handle(self, event: BookLent, session: AsyncSession) -> None: ...

    with pytest.raises(InvalidHandler, match="async_sessionmaker"):
        async with ActorSystem("memory:", aggregates=[], handlers=[Mistaken(given)]):
            pass
    with pytest.raises(InvalidHandler, match="create_async_engine"):
        await create_schema(given)
    engine.dispose()


def test_of_two_processes_that_claim_the_tables_at_once_one_has_them(tmp_path: Path) -> None:
    """SQLite locks no row that is read: the other one writes between what this one has read and its own claim."""
    engine = create_engine(f"sqlite:///{tmp_path}/library.db")
    create_schema_sync(engine)
    first, faster, slower = (Place("loans", 1, name * 2 * RUN_BYTES) for name in "abc")
    with Session(engine) as session, session.begin():
        begin(session, first)
    others = [faster]

    def claim_in_between(connection: object, cursor: object, statement: str, *_: object) -> None:
        if others and statement.startswith("UPDATE"):
            place = others.pop()
            with Session(engine) as other, other.begin():
                assert claim(other, place) is not None

    event.listen(engine, "before_cursor_execute", claim_in_between)
    with Session(engine) as session, pytest.raises(TakenOver):
        claim(session, slower)
    assert not others
    with Session(engine) as session, session.begin():
        advance(session, faster, 1)
    with Session(engine) as session, pytest.raises(TakenOver):
        advance(session, slower, 1)
    engine.dispose()
