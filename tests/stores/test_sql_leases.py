"""Leases of the SQL store: what is fenced by them, when they end, and how they fare behind a pooler."""

import asyncio
import contextlib
import os
import signal
import subprocess
import sys
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncSession, create_async_engine
from sqlalchemy.pool import NullPool

from tests.bank import Account, Credit, Credited, credited
from tests.faults import (
    holder_stops_beating,
    is_a_session_of,
    kept_connection_is_lost,
    lease_file_is_forgotten,
    renews_no_more,
)
from tests.machine import patience
from tests.new_stores import new_store_url
from tests.pooler import pooled
from tests.postgres import postgres
from tests.stores.test_lmdb_processes import line, program
from tests.waiting import checkpoint_is, until
from uno_actors import (
    ActorSystem,
    Checkpoint,
    LeaseLost,
    Projection,
    StoreUnavailable,
    open_store,
    subscribe,
)
from uno_actors.handlers.requests import PAUSED, request_entry
from uno_actors.handlers.view import Entry
from uno_actors.store.handler_names import REPORTED
from uno_actors.store.port import Lease
from uno_actors.store.records import DeadLetter, ViewChange
from uno_stores.sql import DatabaseEventStore, create_database_event_store

NOW = datetime(2024, 1, 1, tzinfo=UTC)


def opened(url: str) -> DatabaseEventStore:
    store = open_store(url)
    assert isinstance(store, DatabaseEventStore)
    return store


def letter(handler: str) -> DeadLetter:
    return DeadLetter(handler, 1, "Credited", 5, "E", "", NOW, NOW)


async def leased(store: DatabaseEventStore, name: str) -> Lease:
    lease = await store.lease(name)
    assert lease is not None
    return lease


async def in_schema(url: str, statement: str) -> Any:
    """What the server says, asked beside the store."""
    user = url.partition("//")[2].partition("@")[0]
    connection = await postgres().connect(user)
    try:
        return await connection.fetchval(statement)
    finally:
        await connection.close()


# --- what is fenced ----------------------------------------------------------------------------------------

TAKE_AND_STAY = """
import asyncio, sys
from uno_actors import open_store

async def main():
    async with open_store(sys.argv[1]) as store:
        print("none" if await store.lease(sys.argv[2]) is None else "taken", flush=True)
        await asyncio.get_running_loop().run_in_executor(None, sys.stdin.readline)

asyncio.run(main())
"""


async def cut_off(store: DatabaseEventStore, url: str) -> None:
    """Have ``store`` lose what holds its leases, without its knowing."""
    if url.startswith("sqlite"):
        path = url.partition("///")[2]
        # As any code of the process does that reads the file: to close it ends the locks on it.
        await asyncio.to_thread(Path(path + "-leases").read_bytes)
        await asyncio.to_thread(Path(path + "-nodes", holder_stops_beating(store)).unlink)
    else:
        await kept_connection_is_lost(store)


@pytest.fixture(params=["sqlite", "postgres"])
async def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    return await new_store_url(request.param, tmp_path)


@pytest.fixture
async def store(url: str) -> AsyncIterator[DatabaseEventStore]:
    async with opened(url) as store:
        yield store


@pytest.fixture
async def lease(store: DatabaseEventStore) -> Lease:
    """The lease of ``sum``."""
    return await leased(store, "sum")


TAKE_IN_TURN = """
import asyncio, sys
from uno_actors import open_store

async def line():
    return (await asyncio.get_running_loop().run_in_executor(None, sys.stdin.readline)).split()

async def main():
    while given := await line():
        async with open_store(given[0]) as store:
            print("none" if await store.lease(given[1]) is None else "taken", flush=True)
            await line()

asyncio.run(main())
"""


@pytest.fixture(scope="module")
def taker() -> Iterator[Callable[[str], str]]:
    """Another process: given a URL and a name, it takes the lease; given "let go", it does."""
    with subprocess.Popen(
        [sys.executable, "-c", TAKE_IN_TURN],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, bufsize=1,
    ) as process:  # fmt: skip
        given, answers = process.stdin, process.stdout
        assert given is not None
        assert answers is not None

        def tell(what: str) -> str:
            given.write(f"{what}\n")
            return answers.readline().strip() if what != "let go" else ""

        yield tell
        process.kill()


@pytest.fixture
async def loser(
    store: DatabaseEventStore, lease: Lease, url: str, taker: Callable[[str], str]
) -> AsyncIterator[DatabaseEventStore]:
    """A store whose `lease` another process has taken over."""
    assert not lease.is_lost
    await cut_off(store, url)
    assert await asyncio.to_thread(taker, f"{url} sum") == "taken"
    yield store
    taker("let go")


WRITES: dict[str, Callable[[DatabaseEventStore], Awaitable[object]]] = {
    "checkpoint of the handler": lambda store: store.save_progress({"sum": 3}),
    "checkpoint of its view": lambda store: store.save_progress({"sum@1": 3}),
    "checkpoint of its view built anew": lambda store: store.save_progress({"sum@12.3": 3}),
    "checkpoint with events": lambda store: store.append(*credited(1), checkpoint=Checkpoint("sum", 3)),
    "checkpoint of its partition": lambda store: store.append(checkpoint=Checkpoint("sum@1", 3)),
    "checkpoint beside that of another": lambda store: store.save_progress({"audit": 1, "sum": 3}),
    "view": lambda store: store.save_progress({}, views=[ViewChange("sum@1", b"k", b"v")]),
    "entry of the view removed": lambda store: store.save_progress(
        {}, views=[ViewChange("sum@1", b"k", None)]
    ),
    "dead letter": lambda store: store.save_progress({}, [letter("sum")]),
    "dead letter dropped": lambda store: store.save_progress({}, dropped=[("sum", 1)]),
    "which view is read": lambda store: store.save_progress({}, views=[Entry("sum@1").of("sum")]),
    "what it reports": lambda store: store.save_progress(
        {}, views=[request_entry(["live", 0, 0], "sum", REPORTED)]
    ),
    "progress removed": lambda store: store.drop_progress("sum"),
    "view removed": lambda store: store.drop_view("sum@1"),
}


@pytest.mark.parametrize("what", WRITES)
async def test_all_that_is_written_for_a_handler_that_was_taken_over_is_refused(
    loser: DatabaseEventStore, lease: Lease, what: str
) -> None:
    with pytest.raises(LeaseLost, match="has taken over sum") as refused:
        await WRITES[what](loser)
    assert refused.value.handlers == ("sum",)
    assert lease.is_lost
    assert await loser.checkpoints() == {}
    assert await loser.dead_letters() == []
    assert await loser.last_position() == 0


async def test_what_is_written_for_other_handlers_and_asked_by_operators_is_not_refused(
    loser: DatabaseEventStore, lease: Lease
) -> None:
    await loser.save_progress(
        {"summary": 1, "audit@1": 2},
        [letter("sums")],
        [ViewChange("sum-2@1", b"k", b"v"), request_entry(True, "sum", PAUSED), Entry("audit@1").of("audit")],
        [("mail", 3)],
    )
    await loser.drop_view("audit@1")
    assert await loser.checkpoints() == {"summary": 1}
    assert not lease.is_lost  # it has not heard yet
    told: list[int] = []
    lease.when_lost(lambda: told.append(1))
    with pytest.raises(LeaseLost):
        await loser.save_progress({"sum": 3})
    await lease.release()
    assert told == [1]
    assert await loser.lease("sum") is None


async def test_who_has_let_go_of_a_lost_lease_can_have_it_again(url: str) -> None:
    async with opened(url) as store:
        lease = await leased(store, "sum")
        await cut_off(store, url)
        async with program(TAKE_AND_STAY, url, "sum") as other:
            assert await line(other) == "taken"
            assert await store.is_leased("sum")
        with pytest.raises(LeaseLost):
            await store.save_progress({"sum": 3})
        await lease.release()
        while (again := await store.lease("sum")) is None:  # noqa: ASYNC110 - the server notices the end in its time
            await asyncio.sleep(0.01)
        await store.save_progress({"sum": 4})
        assert not again.is_lost
        assert await store.checkpoints() == {"sum": 4}


async def test_a_projection_that_was_taken_over_counts_each_event_once_and_its_first_holder_stands_by(
    url: str,
) -> None:
    going_on, at_work = asyncio.Event(), asyncio.Event()

    class Sum(Projection[Credited]):
        holds_at = 0

        async def handle(self, event: Credited) -> None:
            if event.amount == self.holds_at:
                at_work.set()
                await going_on.wait()
            self.view.put("count", await self.view.get("count", 0) + 1)

    class HoldsUp(Sum):
        holds_at = 120

    def system(store: DatabaseEventStore, kind: type[Sum]) -> ActorSystem:
        return ActorSystem(store, aggregates=[Account], handlers=[subscribe(name="sum")(kind)])

    first_store, second_store = opened(url), opened(url)
    async with first_store, second_store, system(first_store, HoldsUp) as first:
        await first_store.append(*credited(*range(1, 201)))
        await at_work.wait()
        await cut_off(first_store, url)
        if url.startswith("sqlite"):  # the processes of these tests share one table of names
            lease_file_is_forgotten(first_store, "sum")
        async with system(second_store, Sum) as second:
            await second.settled()
            going_on.set()
            await until(lambda: first.statistics().handlers["sum"].state == "standby")
            await first_store.append(*credited(1, 2))
            await until(lambda: checkpoint_is(first_store, "sum@1", 202))
            assert await second.view(Sum).get("count") == 202
            assert await first_store.checkpoints() == {"sum@1": 202}
            # Which of them is to run it is the choice of both.
            await until(
                lambda: (
                    sorted(each.statistics().handlers["sum"].state for each in (first, second))
                    == ["live", "standby"]
                )
            )
        await first_store.append(*credited(3))
        await until(lambda: first.statistics().handlers["sum"].state == "live")
        await first.settled()
        assert await first.view(Sum).get("count") == 203


# --- when they end -----------------------------------------------------------------------------------------

HANGS = """
import asyncio, sys
from uno_actors import open_store

async def main():
    async with open_store(sys.argv[1]) as store:
        lease = await store.lease("mail")
        print("taken", flush=True)
        await asyncio.get_running_loop().run_in_executor(None, sys.stdin.readline)
        try:
            await store.save_progress({"mail": 3})
        except Exception as error:
            print(type(error).__name__, lease.is_lost, flush=True)
        else:
            print("written", flush=True)

asyncio.run(main())
"""


@pytest.mark.parametrize("engine", ["postgres", "sqlite", "lmdb"])
async def test_a_process_that_hangs_loses_its_lease_and_its_late_checkpoint_is_refused(
    engine: str, tmp_path: Path
) -> None:
    url = {
        "postgres": f"{await postgres().new_url()}&lease_time=1",
        "sqlite": f"sqlite+aiosqlite:///{tmp_path}/store.db?lease_time=1",
        "lmdb": f"lmdb:{tmp_path}/store?lease_time=1",
    }[engine]
    async with open_store(url) as store, program(HANGS, url) as other:
        assert await line(other) == "taken"
        assert await store.lease("mail") is None
        assert await store.is_leased("mail")
        os.kill(other.pid, signal.SIGSTOP)
        try:
            while await store.lease("mail") is None:  # noqa: ASYNC110 - the server does not notify
                await asyncio.sleep(0.05)
            await store.save_progress({"mail": 7})
        finally:
            os.kill(other.pid, signal.SIGCONT)
        assert other.stdin is not None
        other.stdin.write(b"\n")
        assert await line(other) == "LeaseLost True"
        assert await store.checkpoints() == {"mail": 7}


STOPS_WHILE = {
    "it records": lambda store: store.append(*credited(1)),
    "it saves a checkpoint": lambda store: store.save_progress({"mail": 3}),
}


@pytest.mark.parametrize("what", STOPS_WHILE)
async def test_a_process_that_is_stopped_in_a_transaction_keeps_its_locks_for_seconds_only(
    what: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    url = f"{await postgres().new_url()}&lease_time=1"
    in_the_middle, continues = asyncio.Event(), asyncio.Event()

    async with opened(f"{url}&patience=1000") as first, opened(url) as second:
        lease = await leased(first, "mail")
        commit = AsyncSession.commit

        async def stops(session: AsyncSession) -> None:
            if is_a_session_of(first, session) and not continues.is_set():
                in_the_middle.set()
                await continues.wait()
            await commit(session)

        monkeypatch.setattr(AsyncSession, "commit", stops)
        task = asyncio.ensure_future(STOPS_WHILE[what](first))
        await in_the_middle.wait()
        renews_no_more(first)
        async with asyncio.timeout(patience(8)):
            await second.append(*credited(2))
            while await second.lease("mail") is None:  # noqa: ASYNC110 - the server does not notify
                await asyncio.sleep(0.05)
        continues.set()
        if what == "it records":  # it fails before its commit, and is tried again
            assert (await task)[0].position == 2
        else:
            with pytest.raises(LeaseLost):
                await task
            assert lease.is_lost
            assert await second.checkpoints() == {}


async def test_a_lease_is_renewed_while_its_holder_lives() -> None:
    url = f"{await postgres().new_url()}&lease_time=0.3"
    async with opened(url) as store, opened(url) as other:
        lease = await leased(store, "mail")
        ends = "SELECT ends FROM uno_leases WHERE name = 'mail'"
        first = await in_schema(url, ends)
        while await in_schema(url, f"SELECT clock_timestamp() <= TIMESTAMPTZ '{first}' + interval '0.2 s'"):
            assert await other.lease("mail") is None
        assert await other.lease("mail") is None
        assert not lease.is_lost
        await lease.release()
        assert not await other.is_leased("mail")
        assert await other.lease("mail") is not None


async def test_the_lock_of_a_program_of_an_earlier_version_is_respected() -> None:
    """It has no end in the table; its session has the lock, and its taking is counted."""
    url = await postgres().new_url()
    user = url.partition("//")[2].partition("@")[0]
    async with opened(url) as store:
        await store.append(*credited(1))
        earlier = await postgres().connect(user)
        key = "hashtextextended('uno_actors lease ' || current_schema() || ' mail', 0)"
        assert await earlier.fetchval(f"SELECT pg_try_advisory_lock({key})")
        await earlier.execute("INSERT INTO uno_leases (name, taken) VALUES ('mail', 4)")
        assert await store.lease("mail") is None
        assert await store.is_leased("mail")
        await earlier.close()
        while await store.lease("mail") is None:  # noqa: ASYNC110 - the server does not notify
            await asyncio.sleep(0.01)
        assert await in_schema(url, "SELECT taken FROM uno_leases") == 5
        await store.save_progress({"mail": 1})


async def test_tables_of_an_earlier_version_are_read_and_get_what_they_lack(url: str) -> None:
    async with opened(url) as store:
        await store.append(*credited(1))
    engine = create_async_engine(url, poolclass=NullPool)
    async with engine.begin() as connection:
        for column in ("ends", "by_session", "holder"):
            await connection.execute(text(f"ALTER TABLE uno_leases DROP COLUMN {column}"))
    made = DatabaseEventStore(lambda: AsyncSession(engine))
    async with made:
        await made.append(*credited(2))
        await made.save_progress({"mail": 1})
        if url.startswith("postgresql"):
            with pytest.raises(StoreUnavailable, match="create_schema"):
                await made.lease("mail")
        await made.create_schema()
        await leased(made, "mail")
        assert await made.last_position() == 2
    async with opened(url) as store:
        await leased(store, "mail")


# --- behind a pooler ---------------------------------------------------------------------------------------


@pytest.fixture
async def way() -> AsyncIterator[str]:
    """The URL of an empty schema behind a pooler."""
    async with pooled(postgres(), await postgres().new_url()) as url:
        yield url


@pytest.mark.parametrize("options", ["", "&statement_cache_size=0&prepared_statement_cache_size=0"])
async def test_a_system_works_behind_a_pooler_that_gives_each_transaction_another_session(
    way: str, options: str
) -> None:
    seen: list[int] = []

    @subscribe(event_type=Credited, name="mail", start="earliest")
    async def mail(event: Credited) -> None:
        seen.append(event.amount)

    async with (
        opened(way + options) as store,
        opened(way) as other,
        ActorSystem(store, aggregates=[Account], handlers=[mail]) as system,
        ActorSystem(other, aggregates=[Account], handlers=[mail], name="other") as standby,
    ):
        amounts = range(1, 31)
        await asyncio.gather(
            *[(system, standby)[n % 2].aggregate(Account, f"a{n}").ask(Credit(amount=n)) for n in amounts]
        )
        await system.settled()
        assert sorted(seen) == list(amounts)  # those of the other system too, which it has looked for
        states = [each.statistics().handlers["mail"].state for each in (system, standby)]
        assert states == ["live", "standby"]


async def test_a_lease_behind_a_pooler_ends_by_the_clock_when_its_holder_is_gone(way: str) -> None:
    url = f"{way}&lease_time=1"
    async with opened(url) as store:
        async with program(TAKE_AND_STAY, url, "mail") as other:
            assert await line(other) == "taken"
            assert await store.lease("mail") is None
            assert await store.is_leased("mail")
            other.kill()
        while await store.lease("mail") is None:  # noqa: ASYNC110 - the server does not notify
            await asyncio.sleep(0.05)
        await store.save_progress({"mail": 1})


async def test_a_lease_behind_a_pooler_is_given_back_when_the_store_is_closed(way: str) -> None:
    async with opened(way) as store:
        async with opened(way) as other:
            await leased(other, "mail")
            assert await store.lease("mail") is None
        await leased(store, "mail")


@pytest.mark.parametrize("name", [str, lambda: f"__{uuid4()}__"], ids=["none", "unique"])
async def test_an_engine_of_the_programs_own_works_behind_a_pooler(way: str, name: Callable[[], str]) -> None:
    options = {"statement_cache_size": 0, "prepared_statement_name_func": name}
    engine = create_async_engine(
        f"{way}&prepared_statement_cache_size=0", poolclass=NullPool, connect_args=options
    )
    store = await create_database_event_store(lambda: AsyncSession(engine))
    async with store:
        await asyncio.gather(*[store.append(*credited(n)) for n in range(20)])
        await leased(store, "mail")
        await store.save_progress({"mail": 20})
        assert len(await store.read_log()) == 20
    await engine.dispose()


async def test_an_engine_whose_statements_have_names_is_told_the_remedy_behind_a_pooler(way: str) -> None:
    engines = [create_async_engine(way) for _ in range(8)]
    stores = [DatabaseEventStore(lambda engine=engine: AsyncSession(engine)) for engine in engines]
    try:
        with pytest.raises(StoreUnavailable, match="behind a pooler statements must have no name"):
            for store in stores:
                await store.create_schema()
                await asyncio.gather(*[store.append(*credited(n)) for n in range(20)])
                await asyncio.gather(*[store.read_log() for _ in range(20)])
    finally:
        for store, engine in zip(stores, engines, strict=True):
            with contextlib.suppress(StoreUnavailable):
                await store.close()
            await engine.dispose()
