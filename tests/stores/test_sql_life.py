"""The SQL store over its life: fail-overs, one event loop after another, cancellations, deadlines of its callers."""

import asyncio
import sqlite3
import threading
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from datetime import UTC, datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import event, text
from sqlalchemy.engine import make_url
from sqlalchemy.ext.asyncio import AsyncSession, create_async_engine

from tests.bank import Account, Credit, Credited, credited
from tests.faults import reads_are_cancelled, writer_is_cancelled
from tests.new_stores import new_store_url
from tests.postgres import postgres
from tests.stores.test_sql_faults import Proxy
from tests.waiting import calls_of, soon, turns, until
from uno_actors import (
    ActorSystem,
    InvalidStoreUrl,
    OutcomeUnknown,
    StoreUnavailable,
    UnoError,
    open_store,
    subscribe,
)
from uno_actors.store.codec import StreamId
from uno_actors.store.log_filter import LogFilter
from uno_actors.store.opening import check_store_url
from uno_actors.store.records import DeadLetter, Snapshot, ViewChange
from uno_stores.sql import DatabaseEventStore
from uno_stores.sql.closing import Closing
from uno_stores.sql.engine import OwnEngine
from uno_stores.sql.errors import Trouble, trouble
from uno_stores.sql.waiting import Patience

NOW = datetime(2024, 1, 1, tzinfo=UTC)


def opened(url: str) -> DatabaseEventStore:
    store = open_store(url)
    assert isinstance(store, DatabaseEventStore)
    return store


@pytest.fixture(params=["sqlite", "postgres"])
async def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    return await new_store_url(request.param, tmp_path)


def sync_url(kind: str, tmp_path: Path) -> str:
    return f"sqlite+aiosqlite:///{tmp_path}/s.db" if kind == "sqlite" else asyncio.run(postgres().new_url())


def user_of(url: str) -> str:
    return url.partition("//")[2].partition("@")[0]


# --- a fail-over -------------------------------------------------------------------------------------------


async def lead_to(url: str, kind: str) -> None:
    """Have the name of the server lead to one that only reads, or to the writer again, for new connections."""
    connection = await postgres().connect()
    await connection.execute(
        f"ALTER ROLE {user_of(url)} SET default_transaction_read_only = {'on' if kind == 'reader' else 'off'}"
    )
    await connection.close()


async def cut_all(url: str) -> None:
    connection = await postgres().connect()
    await connection.execute(
        "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = $1", user_of(url)
    )
    await connection.close()


@pytest.mark.parametrize("own_engine", [False, True])
async def test_after_a_fail_over_no_connection_to_the_reader_is_kept(own_engine: bool) -> None:
    url = await postgres().new_url()
    engine = create_async_engine(url)
    store = opened(f"{url}&patience=2")
    if own_engine:
        await store.append(*credited(0))  # which makes the tables
        await store.close()
        store = DatabaseEventStore(lambda: AsyncSession(engine), patience=2)
    async with store:
        await store.append(*credited(1))
        await lead_to(url, "reader")
        await cut_all(url)
        with pytest.raises(StoreUnavailable, match="only reads, as one that stands by does"):
            await store.append(*credited(2))
        for _ in range(3):  # several connections to the reader are in the pool now
            await asyncio.gather(*[store.last_position() for _ in range(4)])
        await lead_to(url, "writer")
        before = await store.last_position()
        await store.append(*credited(3))
        await store.save_progress({"mail": 1})
        assert await store.last_position() == before + 1
        assert await store.lease("mail") is not None
    await engine.dispose()


async def test_what_is_asked_of_a_reader_is_answered_when_the_writer_is_back(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    url = await postgres().new_url()
    async with opened(url) as store:
        await store.append(*credited(1))
        await lead_to(url, "reader")
        await cut_all(url)
        attempts = calls_of(monkeypatch, Patience, "again")
        writing = asyncio.create_task(store.append(*credited(2)))
        await until(lambda: len(attempts) >= 3)  # on a connection that was cut, and on ones to the reader
        assert not writing.done()
        await lead_to(url, "writer")
        assert [position for position, _ in await writing] == [2]


# --- one event loop after another --------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["sqlite", "postgres"])
def test_a_store_is_used_on_one_event_loop_after_another(kind: str, tmp_path: Path) -> None:
    store = opened(sync_url(kind, tmp_path))
    seen: list[int] = []

    @subscribe(event_type=Credited, name="mail", start="earliest")
    async def mail(event: Credited) -> None:
        seen.append(event.amount)

    async def use(number: int) -> None:
        async with ActorSystem(store, aggregates=[Account], handlers=[mail]) as system:
            assert await system.aggregate(Account, "alice").ask(Credit(amount=number)) == sum(
                range(number + 1)
            )
            await system.settled()

    for number in (1, 2, 3):
        asyncio.run(use(number))
    assert seen == [1, 2, 3]
    with ActorSystem(store, aggregates=[Account], handlers=[mail]) as system:  # on a thread of its own
        assert system.aggregate(Account, "alice").ask(Credit(amount=4)).get(timeout=30) == 10
    asyncio.run(store.close())


# A thread of aiosqlite that has ended its work just then finds the loop closed, and says so.
@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
@pytest.mark.parametrize("kind", ["sqlite", "postgres"])
def test_what_was_under_way_when_a_loop_ended_hinders_nothing_on_the_next(kind: str, tmp_path: Path) -> None:
    store = opened(sync_url(kind, tmp_path))

    async def leave_open() -> None:
        await store.append(*credited(1))
        await store.lease("mail")
        store.on_commit(lambda: None)
        for _ in range(3):
            asyncio.get_running_loop().create_task(store.append(*credited(2)))
            asyncio.get_running_loop().create_task(store.last_position())
        await asyncio.sleep(0)

    async def go_on() -> None:
        before = await store.last_position()
        await store.append(*credited(3))
        await store.save_progress({"mail": 1})  # the lease is ours as long as nobody has taken it
        assert await store.last_position() == before + 1

    asyncio.run(leave_open())
    asyncio.run(go_on())
    asyncio.run(store.close())


async def test_a_connection_that_rolls_back_while_the_loop_ends_goes_back_to_the_pool(tmp_path: Path) -> None:
    begun, may_end = threading.Event(), threading.Event()

    class Slow(sqlite3.Connection):
        def rollback(self) -> None:
            begun.set()
            may_end.wait(10)
            super().rollback()

    engine = OwnEngine(make_url(f"sqlite+aiosqlite:///{tmp_path}/s.db")).engine
    event.listen(engine.sync_engine, "do_connect", lambda *made: made[3].update(factory=Slow))
    connection = await engine.connect()
    before = asyncio.all_tasks()
    await connection.execute(text("SELECT 1"))
    closing = asyncio.ensure_future(connection.close())
    await asyncio.to_thread(begun.wait, 10)
    for _ in range(2):
        under_way = asyncio.all_tasks() - before
        for task in under_way:  # as `asyncio.run` does at the end
            task.cancel()
        await turns()
    assert closing in under_way
    assert engine.pool.checkedin() == 0  # type: ignore[attr-defined]
    may_end.set()
    await asyncio.wait(under_way)
    assert engine.pool.checkedin() == 1  # type: ignore[attr-defined]
    await engine.dispose()


async def test_a_connection_is_closed_when_its_caller_is_cancelled_while_it_is_made(tmp_path: Path) -> None:
    begun, may_connect, closed = threading.Event(), threading.Event(), threading.Event()

    class Slow(sqlite3.Connection):
        def __init__(self, *arguments: Any, **options: Any) -> None:
            super().__init__(*arguments, **options)
            begun.set()
            may_connect.wait(10)

        def close(self) -> None:
            super().close()
            closed.set()

    engine = OwnEngine(make_url(f"sqlite+aiosqlite:///{tmp_path}/s.db")).engine
    event.listen(engine.sync_engine, "do_connect", lambda *made: made[3].update(factory=Slow))
    connecting = asyncio.ensure_future(engine.connect().start())
    await asyncio.to_thread(begun.wait, 10)
    connecting.cancel()
    await asyncio.wait([connecting])
    may_connect.set()
    assert await asyncio.to_thread(closed.wait, 10)
    await engine.dispose()


async def test_a_store_that_another_running_loop_uses_is_refused(url: str) -> None:
    store = opened(url)
    await store.append(*credited(1))

    def elsewhere() -> None:
        with pytest.raises(StoreUnavailable, match="another event loop"):
            asyncio.run(store.last_position())

    await asyncio.to_thread(elsewhere)
    assert await store.last_position() == 1
    await store.close()


def test_connections_of_a_loop_that_has_ended_are_told_as_such() -> None:
    error = RuntimeError("Task <Task pending> got Future <Future pending> attached to a different loop")
    assert trouble(error) is Trouble.OTHER_LOOP


# --- cancelled underneath ----------------------------------------------------------------------------------


async def test_a_read_that_is_cancelled_underneath_is_an_error_and_no_cancellation_of_its_caller(
    url: str,
) -> None:
    async with opened(url) as store:
        await store.append(*credited(1))
        reading = asyncio.create_task(store.last_position())
        await soon(lambda: store.statistics().reading)
        reads_are_cancelled(store)
        with pytest.raises(StoreUnavailable, match="was cancelled"):
            await reading
        assert await store.last_position() == 1


async def test_a_commit_whose_writer_is_cancelled_is_an_error_and_the_store_goes_on(url: str) -> None:
    async with opened(url) as store:
        await store.append(*credited(1))
        writing = asyncio.create_task(store.append(*credited(2)))
        await soon(lambda: store.statistics().writing and not store.statistics().waiting)
        writer_is_cancelled(store)
        with pytest.raises(OutcomeUnknown, match="writer was cancelled"):
            await writing
        before = await store.last_position()
        await store.append(*credited(3))
        assert await store.last_position() == before + 1


async def test_who_is_cancelled_while_reading_is_cancelled(url: str) -> None:
    async with opened(url) as store:
        await store.append(*credited(1))
        reading = asyncio.create_task(store.last_position())
        await soon(lambda: store.statistics().reading)
        reading.cancel()
        with pytest.raises(asyncio.CancelledError):
            await reading
        assert await store.last_position() == 1


# --- deadlines of callers ----------------------------------------------------------------------------------


@asynccontextmanager
async def cut_off(options: str) -> AsyncIterator[tuple[Proxy, str]]:
    """A proxy, and the URL that leads through it."""
    proxy = Proxy(postgres())
    server = await asyncio.start_server(proxy.pass_on, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    user = user_of(await postgres().new_url())
    yield proxy, f"postgresql+asyncpg://{user}@127.0.0.1:{port}/postgres?ssl=disable&{options}"
    server.close()
    await until(lambda: not proxy.connections)


async def test_stopping_a_system_whose_way_to_the_server_is_cut_ends_in_its_time() -> None:
    @subscribe(event_type=Credited, name="mail", start="earliest")
    async def mail(event: Credited) -> None: ...

    async with cut_off("patience=60") as (proxy, url):
        system = ActorSystem(url, aggregates=[Account], handlers=[mail], stop_timeout=0.5)
        await system.start()
        await system.aggregate(Account, "alice").ask(Credit(amount=1))
        await system.settled()
        proxy.silent = True
        asks = [asyncio.ensure_future(_credit(system, n)) for n in range(3)]
        await asyncio.wait_for(system.stop(), 30)  # half of what the store has patience for
        assert all(isinstance(each, UnoError) for each in await asyncio.gather(*asks, return_exceptions=True))


async def _credit(system: ActorSystem, number: int) -> Any:
    return await system.aggregate(Account, f"a{number}").ask(Credit(amount=1))


async def test_a_start_that_is_cancelled_while_the_server_is_silent_ends_soon_and_leaves_nothing() -> None:
    async with cut_off("patience=60") as (proxy, url):
        proxy.silent = True
        starting = asyncio.create_task(ActorSystem(url, aggregates=[], handlers=[]).start())
        await until(lambda: proxy.connections)
        starting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await asyncio.wait_for(starting, 30)


async def test_closing_that_is_cancelled_cuts_off(monkeypatch: pytest.MonkeyPatch) -> None:
    async with cut_off("patience=60") as (proxy, url):
        store = opened(url)
        await store.append(*credited(1))
        proxy.silent = True
        writing = asyncio.create_task(store.append(*credited(2)))
        reading = asyncio.create_task(store.last_position())
        await soon(lambda: store.statistics().writing and not store.statistics().waiting)
        closes = calls_of(monkeypatch, Closing, "wait")
        closing = asyncio.create_task(store.close())
        await until(lambda: closes)
        closing.cancel()
        with pytest.raises(asyncio.CancelledError):
            await closing
        with pytest.raises((OutcomeUnknown, StoreUnavailable)):
            await asyncio.wait_for(writing, 30)
        with pytest.raises(StoreUnavailable):
            await asyncio.wait_for(reading, 30)
        await asyncio.wait_for(store.close(), 30)


# --- a file that goes away -------------------------------------------------------------------------------


async def test_a_file_of_sqlite_that_is_gone_is_noticed_and_nothing_is_acknowledged_into_it(
    tmp_path: Path,
) -> None:
    async with opened(f"sqlite+aiosqlite:///{tmp_path}/store.db") as store:
        await store.append(*credited(1))
        (tmp_path / "store.db").rename(tmp_path / "elsewhere")
        for use in (store.append(*credited(2)), store.last_position()):
            with pytest.raises(
                StoreUnavailable, match="store.db was removed .* put it back, or open the store again"
            ):
                await use
        (tmp_path / "store.db").write_bytes(b"")
        with pytest.raises(StoreUnavailable, match="was replaced by another file"):
            await store.append(*credited(2))
        (tmp_path / "elsewhere").rename(tmp_path / "store.db")
        await store.append(*credited(2))
        assert await store.last_position() == 2


# --- odd values --------------------------------------------------------------------------------------------

ODD_TIMES = [
    datetime.min.replace(tzinfo=timezone(timedelta(hours=5))),  # before the year 1, in UTC
    datetime.max.replace(tzinfo=timezone(timedelta(hours=-5))),  # after the year 9999
    datetime.min.replace(tzinfo=UTC),
    datetime.max.replace(tzinfo=UTC),
]
ODD: dict[str, Callable[[DatabaseEventStore, Any], Awaitable[Any]]] = {
    "dead letter": lambda store, when: store.save_progress(
        {}, [DeadLetter("h", 1, "E", 1, "", "", when, when)]
    ),
    "snapshot": lambda store, when: store.save_snapshots([Snapshot(StreamId("A", "a"), 1, 1, b"", when)]),
}


@pytest.mark.parametrize("what", ODD)
@pytest.mark.parametrize("when", ODD_TIMES, ids=str)
async def test_a_time_that_the_database_cannot_keep_is_refused_by_an_error_of_ours(
    url: str, what: str, when: datetime
) -> None:
    async with opened(url) as store:
        try:
            await ODD[what](store, when)
        except UnoError:
            pass
        else:
            assert all(letter.first_failed == when for letter in await store.dead_letters())
        await store.append(Credited(amount=1))


TEXTS = ["a\0b", "\ud800", "x" * 3000]
ASKED: dict[str, Callable[[DatabaseEventStore, str], Awaitable[Any]]] = {
    "correlation id": lambda store, text: store.append(Credited(amount=1, correlation_id=text)),
    "topic": lambda store, text: store.append(Credited(amount=1, topic=text)),
    "checkpoint": lambda store, text: store.save_progress({text: 1}),
    "view": lambda store, text: store.save_progress({}, views=[ViewChange(text, b"k", b"v")]),
    "lease": lambda store, text: store.lease(text),
    "whether it is leased": lambda store, text: store.is_leased(text),
    "dead letter": lambda store, text: store.save_progress(
        {}, [DeadLetter("h", 1, text, 1, "", "", NOW, NOW)]
    ),
    "dead letters": lambda store, text: store.dead_letters(text),
    "drop of a dead letter": lambda store, text: store.drop_dead_letter(text, 1),
    "drop of a view": lambda store, text: store.drop_view(text),
    "view read": lambda store, text: store.read_view(text),
    "last version": lambda store, text: store.last_version(StreamId("A", text)),
    "aggregate types": lambda store, text: store.aggregate_types(text),
    "snapshot": lambda store, text: store.read_snapshot(StreamId(text, "a")),
    "causal records": lambda store, text: store.causal_records(text),
    "records": lambda store, text: _all(store, LogFilter(aggregate_type=text)),
}


async def _all(store: DatabaseEventStore, matching: LogFilter) -> list[Any]:
    return [each async for each in store.read_records(matching=matching)]


@pytest.mark.parametrize("text", TEXTS, ids=["NUL", "surrogate", "long"])
@pytest.mark.parametrize("what", ASKED)
async def test_a_text_that_the_database_cannot_take_is_refused_by_an_error_of_ours(
    url: str, what: str, text: str
) -> None:
    async with opened(url) as store:
        with suppress(UnoError):
            await ASKED[what](store, text)
        await store.append(Credited(amount=1))


# --- URLs --------------------------------------------------------------------------------------------------


async def test_numbers_for_the_driver_are_read_from_the_url() -> None:
    url = await postgres().new_url()
    async with opened(f"{url}&statement_cache_size=0&command_timeout=30&lease_time=5") as store:
        await store.append(*credited(1))


@pytest.mark.parametrize(
    "options", ["statement_cache_size=many", "lease_time=0", "lease_time=nan", "patience=inf", "patience=-1"]
)
def test_numbers_that_are_none_are_refused(options: str) -> None:
    url = f"postgresql+asyncpg://u@h/d?{options}"
    with pytest.raises(InvalidStoreUrl):
        check_store_url(url)
    with pytest.raises(InvalidStoreUrl):
        open_store(url)
