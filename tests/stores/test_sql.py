"""The SQL store beyond the contract: its order among writers, others' transactions, tables, URLs, and groups."""

import asyncio
import random
import subprocess
import sys
import threading
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncEngine, AsyncSession, create_async_engine

from tests.bank import Account, Credit
from tests.machine import patience
from tests.new_stores import new_store_url
from tests.postgres import postgres
from tests.stores.test_lmdb_processes import in_forked_child, in_new_loop, line, program, some_processes, tell
from tests.waiting import calls_of, until
from uno_actors import (
    ActorSystem,
    ConcurrencyConflict,
    EventNotSerializable,
    InvalidHandler,
    InvalidStoreUrl,
    StoreForked,
    StoreFormatError,
    StoreUnavailable,
    open_store,
)
from uno_actors.domain.events import DomainEvent, EventRegistry
from uno_actors.store.codec import StreamId, to_record
from uno_actors.store.opening import check_store_url
from uno_actors.store.records import Append, Appended
from uno_actors.testing.contract.events import Noted
from uno_stores.sql import METADATA, DatabaseEventStore, create_database_event_store
from uno_stores.sql.errors import InvalidSession
from uno_stores.sql.waiting import Patience

REGISTRY = EventRegistry([Noted])
MakeUrl = Callable[[], Any]


def noted(text: str = "", aggregate_id: str = "a", **metadata: Any) -> Noted:
    return Noted(aggregate_id=aggregate_id, aggregate_type="Account", text=text, **metadata)


async def texts(store: DatabaseEventStore) -> list[str]:
    return [event.text async for _, event in store.read_all() if isinstance(event, Noted)]


@pytest.fixture(params=["sqlite", "postgres"])
async def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    return await new_store_url(request.param, tmp_path)


@pytest.fixture
async def engine(url: str) -> AsyncIterator[AsyncEngine]:
    engine = create_async_engine(url)
    yield engine
    await engine.dispose()


@asynccontextmanager
async def opened(engine: AsyncEngine, **options: Any) -> AsyncIterator[DatabaseEventStore]:
    store = await create_database_event_store(
        session_factory=lambda: AsyncSession(engine), event_registry=REGISTRY, **options
    )
    async with store:
        yield store


# --- the order of the log among writers --------------------------------------------------------------------


@pytest.mark.parametrize("end", ["commit", "rollback"])
async def test_nobody_sees_an_event_before_one_that_has_a_lower_position_and_is_not_committed(
    end: str,
) -> None:
    """Two writers interleaved: the second has its place, and is seen, only when the first has ended."""
    engine = create_async_engine(await postgres().new_url())
    async with opened(engine) as store, opened(engine) as other, AsyncSession(engine) as session:
        (first,) = await store.append(noted("first"), session=session)
        assert first.position == 1
        second = asyncio.create_task(other.append(noted("second", "b")))
        assert await _waits_for_a_lock(second)
        assert await store.read_log() == []  # neither the first nor a hole before the second
        if end == "commit":
            await session.commit()
            assert [position for position, _ in await second] == [2]
            assert await texts(store) == ["first", "second"]
        else:
            await session.rollback()
            assert [position for position, _ in await second] == [1]
            assert await texts(store) == ["second"]
    await engine.dispose()


async def _waits_for_a_lock(task: asyncio.Task[Any]) -> bool:
    connection = await postgres().connect()
    waiting = (
        "SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock'"
        " AND (query LIKE '%FOR UPDATE%' OR query LIKE '%UPDATE uno_head%')"
    )
    while not task.done() and not await connection.fetchval(waiting):  # noqa: ASYNC110 - the server tells nobody
        await asyncio.sleep(0.005)
    await connection.close()
    return not task.done()


async def test_readers_beside_writers_of_several_stores_see_a_log_that_grows_at_its_end_only(
    url: str,
) -> None:
    engines = [create_async_engine(url) for _ in range(4)]
    stores = [
        await create_database_event_store(lambda engine=engine: AsyncSession(engine), event_registry=REGISTRY)
        for engine in engines
    ]
    *writers, reader = stores
    done = False

    async def write(store: DatabaseEventStore, number: int) -> None:
        for turn in range(25):
            await store.append(*[noted(f"{number}.{turn}", f"{number}")] * (1 + turn % 3))

    async def read() -> list[int]:
        seen: list[int] = []
        while not done or len(seen) < await reader.last_position():
            page = await reader.read_log(seen[-1] if seen else 0)
            seen += [position for position, _ in page]
        return seen

    reading = asyncio.create_task(read())
    await asyncio.gather(*[write(store, number) for number, store in enumerate(writers)])
    done = True
    assert await reading == list(range(1, 3 * 49 + 1))
    for store in stores:
        await store.close()
    for engine in engines:
        await engine.dispose()


# --- transactions of others --------------------------------------------------------------------------------


@pytest.fixture
async def orders(engine: AsyncEngine) -> AsyncEngine:
    async with engine.begin() as connection:
        await connection.execute(text("CREATE TABLE orders (name TEXT PRIMARY KEY)"))
    return engine


async def order_names(engine: AsyncEngine) -> list[str]:
    async with engine.connect() as connection:
        return [name for (name,) in await connection.execute(text("SELECT name FROM orders ORDER BY name"))]


@pytest.mark.parametrize("end", ["commit", "rollback"])
async def test_events_are_recorded_with_the_rest_of_a_callers_transaction_or_not_at_all(
    orders: AsyncEngine, end: str
) -> None:
    async with opened(orders) as store:
        heard: list[int] = []
        store.on_commit(lambda: heard.append(1))
        await store.append(noted("before"))
        async with AsyncSession(orders) as session:
            await session.execute(text("INSERT INTO orders VALUES ('o-1')"))
            recorded = await store.append(
                noted("ordered"), noted("paid"), expected_version=1, session=session
            )
            assert [(position, event.aggregate_version) for position, event in recorded] == [(2, 2), (3, 3)]
            assert await texts(store) == ["before"]
            await (session.commit() if end == "commit" else session.rollback())
        committed = end == "commit"
        assert await order_names(orders) == (["o-1"] if committed else [])
        assert await texts(store) == (["before", "ordered", "paid"] if committed else ["before"])
        if committed:
            await until(lambda: len(heard) == 2)
        await store.append(noted("after"), expected_version=3 if committed else 1)
        await until(lambda: len(heard) == (3 if committed else 2))


async def test_listeners_hear_of_a_callers_commit_in_a_database_in_memory() -> None:
    engine = create_async_engine("sqlite+aiosqlite://")
    async with opened(engine) as store:
        heard: list[int] = []
        store.on_commit(lambda: heard.append(1))
        async with AsyncSession(engine) as session:
            await store.append(noted("1"), session=session)
            await session.rollback()
            await session.execute(text("SELECT 1"))
            await session.commit()
        await store.append(noted("2"))
        assert heard == [1]
        async with AsyncSession(engine) as session:
            await store.append(noted("3"), session=session)
            await session.commit()
        await until(lambda: len(heard) == 2)
        assert await texts(store) == ["2", "3"]
    await engine.dispose()


@pytest.mark.parametrize("end", ["commit", "rollback"])
async def test_nobody_else_uses_the_one_connection_of_memory_during_a_callers_transaction(end: str) -> None:
    """To end another session on it would roll back the caller's."""
    engine = create_async_engine("sqlite+aiosqlite://")
    async with opened(engine) as store:
        async with AsyncSession(engine) as session:
            await store.append(noted("1"), session=session)
            await store.append(noted("2"), session=session)
            reading = asyncio.create_task(texts(store))
            writing = asyncio.create_task(store.append(noted("3", "b")))
            for _ in range(20):  # each is answered after what the others had sent on the one connection
                await session.execute(text("SELECT 1"))
            assert not reading.done()
            assert not writing.done()
            await (session.commit() if end == "commit" else session.rollback())
        await writing
        theirs = ["1", "2"] if end == "commit" else []
        assert (await reading)[: len(theirs)] == theirs
        assert await texts(store) == [*theirs, "3"]
    await engine.dispose()


async def test_a_callers_transaction_in_memory_that_does_not_end_is_told() -> None:
    engine = create_async_engine("sqlite+aiosqlite://")
    async with opened(engine, patience=0.05) as store, AsyncSession(engine) as session:
        await store.append(noted("1"), session=session)
        with pytest.raises(StoreUnavailable, match="commit or roll back the session"):
            await store.last_position()
        with pytest.raises(StoreUnavailable, match="commit or roll back the session"):
            await store.append(noted("2"))
        await session.commit()
        assert await texts(store) == ["1"]
    await engine.dispose()


async def test_sessions_that_commit_each_statement_are_refused(engine: AsyncEngine, url: str) -> None:
    async with opened(engine) as store, AsyncSession(engine) as session:
        await session.connection(execution_options={"isolation_level": "AUTOCOMMIT"})
        with pytest.raises(InvalidSession, match="without isolation_level"):
            await store.append(noted("1"), session=session)
        await session.rollback()
        assert await texts(store) == []
        careless = create_async_engine(url, isolation_level="AUTOCOMMIT")
        async with opened(careless) as other:
            with pytest.raises(InvalidSession, match="without isolation_level"):
                await other.append(noted("2"))
        await careless.dispose()
        await store.append(noted("3"), expected_version=0)
        assert await texts(store) == ["3"]


async def test_a_session_on_another_database_is_refused(engine: AsyncEngine, tmp_path: Path) -> None:
    for url in (f"sqlite+aiosqlite:///{tmp_path}/other.db", "sqlite+aiosqlite://"):
        elsewhere = create_async_engine(url)
        async with opened(engine) as store, opened(elsewhere) as other, AsyncSession(elsewhere) as session:
            with pytest.raises(InvalidSession, match="bind it to the database of the store"):
                await store.append(noted("1"), session=session)
            await session.commit()
            assert await other.last_position() == 0
        await elsewhere.dispose()


async def test_a_conflict_leaves_the_callers_transaction_as_it_was(orders: AsyncEngine) -> None:
    async with opened(orders) as store:
        await store.append(noted("1"))
        async with AsyncSession(orders) as session:
            await session.execute(text("INSERT INTO orders VALUES ('o-1')"))
            with pytest.raises(ConcurrencyConflict):
                await store.append(noted("lost"), expected_version=0, session=session)
            odd = {"version": 2**70} if orders.dialect.name == "sqlite" else {"correlation_id": "a\0b"}
            with pytest.raises(EventNotSerializable):
                await store.append(noted("lost"), noted("lost", **odd), session=session)
            await store.append(noted("2"), expected_version=1, session=session)
            await session.commit()
        assert await order_names(orders) == ["o-1"]
        assert await texts(store) == ["1", "2"]


async def test_a_system_waits_for_a_callers_transaction_and_then_goes_on(
    url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    on_sqlite = url.startswith("sqlite")
    engine = create_async_engine(url, connect_args={"timeout": 0.01} if on_sqlite else {})
    async with opened(engine) as store, ActorSystem(store, aggregates=[Account], handlers=[]) as system:
        async with AsyncSession(engine) as session:
            await store.append(noted("1", "x"), session=session)
            attempts = calls_of(monkeypatch, Patience, "again")
            reply = asyncio.ensure_future(_credit(system))
            if on_sqlite:
                await until(lambda: len(attempts) >= 2 or reply.done())
            else:
                await _waits_for_a_lock(reply)
            assert not reply.done()
            await session.commit()
        assert await reply == 5
        assert [position for position, _ in await store.read_log()] == [1, 2]
    await engine.dispose()


async def _credit(system: ActorSystem) -> int:
    return await system.aggregate(Account, "alice").ask(Credit(amount=5))


async def test_a_head_that_is_locked_for_too_long_is_told_and_nothing_is_recorded(url: str) -> None:
    limits = {"timeout": 0.1} if url.startswith("sqlite") else {}
    engine = create_async_engine(url, connect_args=limits)
    async with opened(engine, patience=patience(0.2)) as store, AsyncSession(engine) as session:
        await store.append(noted("1"), session=session)
        with pytest.raises(StoreUnavailable):
            await store.append(noted("2", "b"))
        await session.rollback()
        await store.append(noted("3", "b"), expected_version=0)
        assert await texts(store) == ["3"]
    await engine.dispose()


# --- groups ------------------------------------------------------------------------------------------------


async def test_what_waits_is_recorded_in_one_transaction(engine: AsyncEngine) -> None:
    begun = 0

    class Counting(AsyncSession):
        async def commit(self) -> None:
            nonlocal begun
            begun += 1
            await super().commit()

    store = DatabaseEventStore(lambda: Counting(engine), event_registry=REGISTRY)
    async with store:
        await store.create_schema()
        begun = 0
        await asyncio.gather(*[store.append(noted(f"{n}", f"s{n}")) for n in range(50)])
        assert begun == 1
        assert await texts(store) == [f"{n}" for n in range(50)]


async def test_a_request_that_the_database_cannot_take_fails_alone(engine: AsyncEngine) -> None:
    async with opened(engine, max_event_size=1000) as store:
        requests = [
            Append((to_record(noted("1")),), 0),
            Append((to_record(noted("x" * 2000)),)),
            Append((to_record(noted("2")), to_record(noted("odd", version=2**70)))),
            Append((to_record(noted("3")),), 1),
        ]
        progress = asyncio.create_task(store.save_progress({"mail": 7}))
        first, big, odd, last = await store.commit(requests)
        await progress
        assert isinstance(first, Appended)
        assert isinstance(big, EventNotSerializable)
        assert "max_event_size" in str(big)
        assert isinstance(odd, EventNotSerializable)
        assert isinstance(last, Appended)
        assert await texts(store) == ["1", "3"]
        assert await store.checkpoints() == {"mail": 7}


async def test_two_stores_of_one_process_agree_on_versions(engine: AsyncEngine) -> None:
    """What one remembers of a stream is forgotten when the other has written."""
    async with opened(engine) as one, opened(engine) as other:
        for number in range(3):
            await one.append(noted(f"one {number}"), expected_version=2 * number)
            await other.append(noted(f"other {number}"), expected_version=2 * number + 1)
        with pytest.raises(ConcurrencyConflict):
            await one.append(noted(), expected_version=5)
        assert await one.last_version(StreamId("Account", "a")) == 6


async def test_large_events_are_read_in_small_pages(engine: AsyncEngine) -> None:
    async with opened(engine) as store:
        await store.append(*[noted("x" * 1_500_000) for _ in range(5)], noted("last"))
        assert 2 <= len(await store.read_log()) < 5
        assert 2 <= len(await store.read_stream(StreamId("Account", "a"))) < 5
        assert [len(found) for found in await texts(store)] == [1_500_000] * 5 + [4]
        assert len(await store.get_events("a")) == 6


async def test_a_handler_that_no_table_can_hold_is_refused(engine: AsyncEngine) -> None:
    async with opened(engine) as store:
        for name in ("x" * 503, "a\0b"):
            with pytest.raises(InvalidHandler):
                await store.save_progress({name: 1})


# --- tables and URLs ---------------------------------------------------------------------------------------


async def test_missing_tables_are_told_with_the_remedy(engine: AsyncEngine) -> None:
    store = DatabaseEventStore(lambda: AsyncSession(engine), event_types={Noted})
    with pytest.raises(StoreUnavailable, match=r"await create_schema\(\)"):
        await store.append(noted())
    with pytest.raises(StoreUnavailable, match=r"await create_schema\(\)"):
        await store.last_position()
    await store.create_schema()
    await store.create_schema()
    await store.append(noted("1"))
    assert await texts(store) == ["1"]
    await store.close()


async def test_tables_of_a_newer_version_are_refused(engine: AsyncEngine, url: str) -> None:
    async with opened(engine):
        pass
    async with engine.begin() as connection:
        await connection.execute(text("UPDATE uno_head SET format = 2"))
    async with open_store(url, REGISTRY) as store:
        with pytest.raises(StoreFormatError, match="format of its tables is 2"):
            await store.append(noted())
        with pytest.raises(StoreFormatError):
            await store.last_position()


async def test_stores_may_make_the_tables_at_the_same_time(url: str) -> None:
    stores = [open_store(url, REGISTRY) for _ in range(5)]
    await asyncio.gather(*[store.append(noted(f"{number}")) for number, store in enumerate(stores)])
    assert await stores[0].last_position() == 5
    for store in stores:
        await store.close()


async def test_store_that_is_to_be_found_is_not_made(url: str, tmp_path: Path) -> None:
    with pytest.raises(StoreUnavailable):
        async with open_store(url, REGISTRY, create=False) as store:
            await store.last_position()
    assert not (tmp_path / "store.db").exists()


async def test_types_are_given_as_classes_or_by_their_recorded_names(engine: AsyncEngine) -> None:
    class Renamed(DomainEvent):
        event_type: str = "tests.sql.Renamed"
        text: str = ""

    async with opened(engine) as store:
        await store.append(noted("1"))
    by_name = DatabaseEventStore(
        session_factory=lambda: AsyncSession(engine), event_types={"uno_actors.testing.Noted": Renamed}
    )
    async with by_name:
        (event,) = await by_name.get_events("a")
        assert isinstance(event, Renamed)
    with pytest.raises(ValueError, match="not both"):
        DatabaseEventStore(lambda: AsyncSession(engine), event_types=[Noted], event_registry=REGISTRY)


@pytest.mark.parametrize("patience", ["0", "-1", "nan"])
def test_a_patience_of_no_time_is_refused(patience: str, tmp_path: Path) -> None:
    with pytest.raises(InvalidStoreUrl, match="patience must be a positive number of seconds"):
        open_store(f"sqlite+aiosqlite:///{tmp_path}/store.db?patience={patience}")


def test_sessions_without_engine_are_refused() -> None:
    with pytest.raises(ValueError, match=r"AsyncSession\(engine\)"):
        DatabaseEventStore(AsyncSession)


@pytest.mark.parametrize(
    "url",
    ["sqlite+aiosqlite", "sqlite+aiosqlite:store.db", "sqlite+aiosqlite:///x.db?patience=soon",
     "sqlite+aiosqlite:///x.db?max_event_size=0"],
)  # fmt: skip
@pytest.mark.parametrize("use", [open_store, check_store_url])
def test_impossible_urls_are_refused(url: str, use: Callable[[str], object]) -> None:
    with pytest.raises(InvalidStoreUrl):
        use(url)


def test_a_possible_url_is_checked_without_opening_anything(tmp_path: Path) -> None:
    check_store_url(f"sqlite+aiosqlite:///{tmp_path}/store.db?patience=2")
    check_store_url("postgresql+asyncpg://alice:secret@nowhere.example/db?max_event_size=7")
    assert list(tmp_path.iterdir()) == []


async def test_a_file_that_cannot_be_made_is_told_with_the_remedy(tmp_path: Path) -> None:
    async with open_store(f"sqlite+aiosqlite:///{tmp_path}/none/store.db") as store:
        with pytest.raises(
            StoreUnavailable, match="unable to open database file; the directory must be there"
        ):
            await store.append(noted())
    # The driver's thread of a failed connection ends by itself, and needs the loop for it.
    await until(lambda: not any("_connection_worker" in thread.name for thread in threading.enumerate()))


async def test_options_of_the_url_are_taken(tmp_path: Path) -> None:
    store = open_store(f"sqlite+aiosqlite:///{tmp_path}/store.db?patience=2.5&max_event_size=7")
    assert isinstance(store, DatabaseEventStore)
    assert (store.patience, store.max_event_size) == (2.5, 7)
    await store.close()


async def test_the_password_is_shown_to_nobody(tmp_path: Path) -> None:
    store = open_store(f"postgresql+asyncpg://alice:secret@/db?host={tmp_path}&patience=0.05")
    with pytest.raises(StoreUnavailable) as caught:
        await store.append(noted())
    assert "secret" not in f"{caught.value} {store!r}"
    assert "alice" in repr(store)
    await store.close()
    with pytest.raises(InvalidStoreUrl) as refused:
        open_store("postgresql+asyncpg://alice:secret@/db?patience=soon")
    assert "secret" not in str(refused.value)


def test_without_sqlalchemy_the_remedy_is_told() -> None:
    code = "import sys; sys.modules['sqlalchemy'] = None; import uno_stores; import uno_stores.sql"
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert "pip install 'uno-actors[sql]'" in run.stderr


def test_a_command_without_sqlalchemy_ends_with_the_remedy_in_one_line() -> None:
    code = """
import sys
sys.modules["sqlalchemy"] = None
sys.argv = ["uno-actors", "store", "events", "--store", "sqlite+aiosqlite:///store.db"]
from uno_actors.cli.app import main
main()
"""
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert run.returncode == 1
    assert run.stderr.startswith("error: store sqlite+aiosqlite is unavailable: ")
    assert run.stderr.endswith("needs `pip install 'uno-actors[sql]'`\n")


async def test_all_tables_can_be_made_by_a_migration_tool(engine: AsyncEngine) -> None:
    async with engine.begin() as connection:
        await connection.run_sync(METADATA.create_all)
    async with opened(engine) as store:
        await store.append(noted("1"))
        assert await texts(store) == ["1"]


async def test_forked_child_is_told(engine: AsyncEngine) -> None:
    async with opened(engine) as store:
        await store.append(noted("1"))

        async def use() -> str:
            with pytest.raises(StoreForked):
                await store.append(noted("child"))
            await store.close()
            return "refused"

        assert await asyncio.to_thread(in_forked_child, lambda: in_new_loop(use)) == "refused"
        await store.append(noted("2"))
        assert await texts(store) == ["1", "2"]


async def test_plans_use_the_indexes() -> None:
    """A stream's head and page are found by its index, whatever the plan is prepared for."""
    engine = create_async_engine(await postgres().new_url())
    async with opened(engine) as store:
        await store.append(*[noted(f"{n}", f"a{n % 50}") for n in range(3000)])
        async with engine.connect() as connection:
            await connection.execute(text("ANALYZE"))
            await connection.execute(text("SET plan_cache_mode = force_generic_plan"))
            await connection.execute(
                text(
                    "PREPARE page(text, text, bigint) AS SELECT * FROM uno_log WHERE aggregate_id = $1"
                    " AND coalesce(aggregate_type, '') = $2 AND aggregate_version > $3 ORDER BY aggregate_version"
                )
            )
            rows = await connection.execute(text("EXPLAIN EXECUTE page('a1', 'Account', 3)"))
            plan = "\n".join(row for (row,) in rows)
            assert "uno_log_stream" in plan, plan
    await engine.dispose()


# --- processes ---------------------------------------------------------------------------------------------

TAKE_LEASE = """
import asyncio, os, sys
from uno_actors import open_store

async def main():
    async with open_store(sys.argv[1]) as store:
        lease = await store.lease("mail")
        print("none" if lease is None else "taken", flush=True)
        loop = asyncio.get_running_loop()
        while command := await loop.run_in_executor(None, sys.stdin.readline):
            if command == "release\\n":
                await lease.release()
                print("released", flush=True)

asyncio.run(main())
"""


async def test_lease_is_had_by_one_process_and_dies_with_it(url: str) -> None:
    async with open_store(url, REGISTRY) as store, open_store(url, REGISTRY) as second:
        async with program(TAKE_LEASE, url) as other:
            assert await line(other) == "taken"
            assert await store.lease("mail") is None
            assert await store.lease("audit") is not None
            assert await second.lease("audit") is None  # of the same process, and yet another
            await tell(other, "release")
            assert await line(other) == "released"
            lease = await store.lease("mail")
            assert lease is not None
            await lease.release()
        async with program(TAKE_LEASE, url) as other:
            assert await line(other) == "taken"
            other.kill()
            await other.wait()
            await _taken_soon(second, "mail")
        await store.close()
        assert await second.lease("audit") is not None  # the first has let go of its own names
        async with program(TAKE_LEASE, url) as other:
            assert await line(other) == "none"  # and of those only


async def _taken_soon(store: Any, name: str) -> None:
    while await store.lease(name) is None:  # noqa: ASYNC110 - the server notices the end of a process in its time
        await asyncio.sleep(0.01)


APPEND_ON_DEMAND = """
import asyncio, sys
from uno_actors import open_store
from uno_actors.testing.contract.events import Noted

async def main():
    async with open_store(sys.argv[1]) as store:
        print("ready", flush=True)
        for text in sys.stdin:
            await store.append(Noted(aggregate_id="a", aggregate_type="Account", text=text.strip()))
            print("done", flush=True)

asyncio.run(main())
"""


async def test_events_of_another_process_are_heard_of(url: str) -> None:
    async with open_store(url, REGISTRY) as store, program(APPEND_ON_DEMAND, url) as other:
        assert await line(other) == "ready"
        heard: list[str] = []

        async def follow() -> None:
            async for _, event in store.subscribe():
                assert isinstance(event, Noted)
                heard.append(event.text)

        following = asyncio.create_task(follow())
        for number in range(5):
            await tell(other, f"{number}")
            assert await line(other) == "done"
            await asyncio.wait_for(until(lambda count=number + 1: len(heard) == count), patience(5))
        assert heard == [f"{number}" for number in range(5)]
        await store.close()
        await following


@pytest.mark.timeout(120)
async def test_two_processes_on_one_postgres_lose_and_double_nothing_though_killed() -> None:
    seed = random.randrange(2**32)
    print(f"seed {seed}")
    await some_processes(await postgres().new_url(), 2, 2, random.Random(seed))


@pytest.mark.soak
@pytest.mark.timeout(3600)
async def test_two_processes_on_one_database_survive_a_hundred_kills(url: str, tmp_path: Path) -> None:
    seed = random.randrange(2**32)
    print(f"seed {seed}")
    chance = random.Random(seed)
    for number in range(10):
        fresh = (
            f"sqlite+aiosqlite:///{tmp_path}/{number}.db" if "sqlite" in url else await postgres().new_url()
        )
        await some_processes(fresh, 2, 10, chance, commands=400)
