"""The SQL store when PostgreSQL or the way to it fails: cut connections, lost leases, restarts under load."""

import asyncio
import contextlib
import signal
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
from sqlalchemy.ext.asyncio import AsyncSession, create_async_engine

from tests.crash_worker import Account, Deposit, PartDeposited
from tests.faults import (
    kept_connection_is_busy,
    kept_connection_is_lost,
    lease_statements_overlap,
    leases_are_renewed,
    notifications_end,
)
from tests.machine import patience
from tests.postgres import PostgresServer, postgres
from tests.waiting import calls_of, until
from uno_actors import (
    ActorSystem,
    HandlerContext,
    LeaseLost,
    OutcomeUnknown,
    StoreUnavailable,
    open_store,
    subscribe,
)
from uno_actors.domain.events import EventRegistry
from uno_actors.errors import UnoError
from uno_actors.testing.contract.events import Noted
from uno_stores.sql import DatabaseEventStore
from uno_stores.sql.notifications import Wire
from uno_stores.sql.waiting import Patience

REGISTRY = EventRegistry([Noted])


def noted(text: str = "", aggregate_id: str = "a") -> Noted:
    return Noted(aggregate_id=aggregate_id, aggregate_type="Account", text=text)


async def texts(store: DatabaseEventStore) -> list[str]:
    return [event.text async for _, event in store.read_all() if isinstance(event, Noted)]


def opened(url: str) -> DatabaseEventStore:
    store = open_store(url, REGISTRY)
    assert isinstance(store, DatabaseEventStore)
    return store


# --- a connection that is cut at the worst moment ----------------------------------------------------------


class Proxy:
    """Stands between a store and the server, and cuts the connection when a commit is sent.

    Attributes:
        cut: ``before`` the server has the commit, or ``after``; ``None`` cuts nothing.
        refuses: Whether new connections are refused.
        silent: Whether what is sent is swallowed, as where a network drops it: nothing fails and nothing comes.
    """

    def __init__(self, server: PostgresServer) -> None:
        self._socket = server.directory / ".s.PGSQL.5432"
        self.cut: str | None = None
        self.refuses = False
        self.silent = False
        self.cuts = 0
        self.port = 0
        self.connections: set[asyncio.Task[None]] = set()

    async def pass_on(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if self.refuses:
            writer.close()
            return
        task = asyncio.current_task()
        assert task is not None
        self.connections.add(task)
        answers, requests = await asyncio.open_unix_connection(self._socket)
        back = asyncio.create_task(self._copy(answers, writer))
        try:
            while data := await reader.read(1 << 16):
                if self.silent:
                    continue
                if b"COMMIT" in data and self.cut is not None:
                    how, self.cut = self.cut, None
                    self.cuts += 1
                    back.cancel()
                    if how.startswith("after"):
                        requests.write(data)
                        await requests.drain()
                    self.refuses = how.endswith("for good")
                    break
                requests.write(data)
        finally:
            back.cancel()
            await asyncio.gather(back, return_exceptions=True)
            for each in (writer, requests):
                each.close()
                with contextlib.suppress(OSError):  # the other side has cut it
                    await each.wait_closed()
            self.connections.discard(task)

    async def _copy(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while data := await reader.read(1 << 16):
            writer.write(data)
            await writer.drain()
        writer.close()


@asynccontextmanager
async def proxied(
    patience: float = 10.0,
) -> AsyncIterator[tuple[Proxy, DatabaseEventStore, DatabaseEventStore]]:
    """The proxy, a store behind it, and one that has a way of its own."""
    url = await postgres().new_url()
    proxy = Proxy(postgres())
    server = await asyncio.start_server(proxy.pass_on, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    name = url.partition("//")[2].partition("@")[0]
    engine = create_async_engine(f"postgresql+asyncpg://{name}@127.0.0.1:{port}/postgres?ssl=disable")
    store = DatabaseEventStore(lambda: AsyncSession(engine), event_registry=REGISTRY, patience=patience)
    async with opened(url) as direct, store:
        await store.create_schema()
        await store.append(noted("first"))
        yield proxy, store, direct
    await engine.dispose()
    server.close()
    await until(lambda: not proxy.connections)
    await server.wait_closed()


@pytest.mark.parametrize("cut", ["before", "after"])
async def test_an_append_whose_connection_is_cut_at_the_commit_is_recorded_once(cut: str) -> None:
    async with proxied() as (proxy, store, direct):
        proxy.cut = cut
        outcomes = await asyncio.gather(
            store.append(noted("second"), expected_version=1), store.append(noted("other", "b"))
        )
        assert proxy.cuts == 1
        assert [recorded.position for (recorded,) in outcomes] == [2, 3]
        await store.append(noted("third"), expected_version=2)
        assert await texts(direct) == ["first", "second", "other", "third"]


@pytest.mark.parametrize("cut", ["before for good", "after for good"])
async def test_an_outcome_that_cannot_be_found_out_is_told_as_unknown(cut: str) -> None:
    async with proxied(patience=patience(0.3)) as (proxy, store, direct):
        proxy.cut = cut
        with pytest.raises(OutcomeUnknown):
            await store.append(noted("second"))
        assert await texts(direct) == ["first", "second"][: 1 + cut.startswith("after")]
        with pytest.raises(StoreUnavailable):  # surely not: there is no connection
            await store.append(noted("third"))
        with pytest.raises(StoreUnavailable):
            await store.last_position()
        proxy.refuses = False
        await store.append(noted("fourth"))
        assert "third" not in await texts(direct)
        assert (await texts(direct))[-1] == "fourth"


async def test_a_network_that_drops_everything_is_told_and_the_store_can_be_closed() -> None:
    seconds = patience(0.3)
    async with proxied(patience=seconds) as (proxy, store, direct):
        proxy.silent = True
        for attempt in (
            store.last_position,
            lambda: store.append(noted("lost")),
            lambda: store.lease("mail"),
        ):
            with pytest.raises(StoreUnavailable, match=f"no answer within {seconds:g} s"):
                await asyncio.wait_for(attempt(), patience(10) + seconds)
        reading = asyncio.create_task(texts(store))
        await asyncio.wait_for(store.close(), patience(10))
        with pytest.raises(StoreUnavailable):
            await reading
        assert await texts(direct) == ["first"]


async def test_progress_is_written_though_its_connection_is_cut_at_the_commit() -> None:
    async with proxied() as (proxy, store, direct):
        for number, cut in enumerate(("before", "after")):
            proxy.cut = cut
            await store.save_progress({"mail": number})
            assert await direct.checkpoints() == {"mail": number}
        assert proxy.cuts == 2


# --- the connection that listens and holds leases ----------------------------------------------------------


async def cut_connections(user: str, query: str) -> int:
    """End the connections of ``user`` whose last statement was like ``query``; how many they were."""
    connection = await postgres().connect()
    ended = await connection.fetchval(
        "SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity WHERE usename = $1 AND query LIKE $2",
        user,
        query,
    )
    await connection.close()
    return int(ended)


async def test_a_listener_that_was_cut_off_hears_of_everything_again() -> None:
    url = await postgres().new_url()
    user = url.partition("//")[2].partition("@")[0]
    async with opened(url) as store, opened(url) as other:
        heard: list[str] = []

        async def follow() -> None:
            async for _, event in store.subscribe():
                assert isinstance(event, Noted)
                heard.append(event.text)

        following = asyncio.create_task(follow())
        await other.append(noted("0"))
        await until(lambda: len(heard) == 1)
        await until(lambda: store.statistics().listens)
        assert await cut_connections(user, "%") >= 1
        await other.append(noted("1"))  # which is notified to nobody
        await asyncio.wait_for(until(lambda: len(heard) == 2), patience(5))
        await until(lambda: store.statistics().listens)
        await other.append(noted("2"))
        await asyncio.wait_for(until(lambda: len(heard) == 3), patience(5))
        await store.close()
        await following


async def test_where_nothing_is_notified_events_are_heard_of_by_looking(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """As behind a pooler that hands each transaction another connection."""
    monkeypatch.setattr("uno_stores.sql.watcher.ASK_EVERY", 0.05)
    url = await postgres().new_url()
    async with opened(url) as store, opened(url) as other:
        heard: list[int] = []
        store.on_commit(lambda: heard.append(1))
        await until(lambda: store.statistics().listens)
        await notifications_end(store)
        for count in (1, 2):
            await other.append(noted())
            await asyncio.wait_for(until(lambda count=count: len(heard) == count), patience(5))


async def test_a_lease_whose_connection_was_cut_is_kept_if_nobody_took_it() -> None:
    url = await postgres().new_url()
    user = url.partition("//")[2].partition("@")[0]
    async with opened(url) as store, opened(url) as other:
        assert await store.lease("mail") is not None
        before = store.statistics().connects
        assert await cut_connections(user, "%") >= 1
        await until(
            lambda: store.statistics().connects > before and store.statistics().locked == frozenset({"mail"})
        )
        assert await other.lease("mail") is None
        await store.save_progress({"mail": 5})


async def test_progress_under_a_lease_that_another_has_taken_is_refused() -> None:
    """Its holder was cut off, and another has taken over: what the first writes late must not count."""
    url = await postgres().new_url()
    async with opened(url) as store, opened(url) as other:
        lease = await store.lease("mail")
        assert lease is not None
        await kept_connection_is_lost(store)
        assert await other.lease("mail") is not None
        await other.save_progress({"mail": 7})
        with pytest.raises(LeaseLost, match="another process has taken over mail"):
            await store.save_progress({"mail": 3})
        assert lease.is_lost
        await store.save_progress({"audit": 4})  # other names are not concerned
        await lease.release()
        assert await other.checkpoints() == {"mail": 7, "audit": 4}
        assert await store.lease("mail") is None


async def test_who_asks_for_a_lease_in_vain_or_gives_up_takes_nobody_elses_and_leaves_none_behind() -> None:
    url = await postgres().new_url()
    async with opened(url) as store, opened(url) as other:
        assert await store.lease("mail") is not None
        before, asked = store.statistics().connects, asyncio.Event()
        lease_statements_overlap(store, asked)
        for name in ("audit", "search"):
            asked.clear()
            asking = asyncio.create_task(store.lease(name))
            await asked.wait()
            asking.cancel()
            with pytest.raises(asyncio.CancelledError):
                await asking
        assert await other.lease("mail") is None
        assert store.statistics().connects == before  # the same connection, which holds the other leases
        await until(lambda: not store.statistics().requested and store.statistics().leases == {"mail"})
        assert await other.lease("audit") is not None
        assert await other.lease("search") is not None


async def test_a_name_that_was_taken_and_given_back_meanwhile_is_not_kept_from_others() -> None:
    """Its first holder was cut off; what it believes to have is lost, so it must not lock it again."""
    url = await postgres().new_url()
    async with opened(url) as store, opened(url) as other, opened(url) as third:
        lease = await store.lease("mail")
        assert lease is not None
        await kept_connection_is_lost(store)
        taken = await other.lease("mail")
        assert taken is not None
        await taken.release()
        await leases_are_renewed(store)
        assert lease.is_lost
        with pytest.raises(LeaseLost, match="another process has taken over mail"):
            await store.save_progress({"mail": 3})
        assert await third.lease("mail") is not None


async def test_a_lease_that_is_requested_while_the_store_closes_is_not_taken(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    closes = calls_of(monkeypatch, Wire, "close")
    url = await postgres().new_url()
    async with opened(url) as other:
        engine = create_async_engine(url)
        store = DatabaseEventStore(lambda: AsyncSession(engine), event_registry=REGISTRY)
        await store.create_schema()
        async with kept_connection_is_busy(store):
            asking = asyncio.create_task(store.lease("mail"))
            await until(lambda: store.statistics().requested)
            closing = asyncio.create_task(store.close())
            await until(lambda: closes)  # and waits for its turn
        await closing
        with pytest.raises(StoreUnavailable):
            await asking
        assert await other.lease("mail") is not None
        await engine.dispose()


# --- a server that restarts under load ---------------------------------------------------------------------


@pytest.fixture(scope="module")
def own_server() -> Any:
    server = PostgresServer()
    yield server
    server.remove()


async def test_calls_while_the_server_is_away_are_answered_when_it_is_back(
    own_server: PostgresServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with opened(await own_server.new_url()) as store:
        await store.append(noted("1"))
        await asyncio.to_thread(own_server.stop)
        reading = asyncio.create_task(texts(store))
        writing = asyncio.create_task(store.append(noted("2"), expected_version=1))
        leasing = asyncio.create_task(store.lease("mail"))
        attempts = calls_of(monkeypatch, Patience, "again")
        await until(lambda: len(attempts) >= 6)  # each is tried again, one of them at least twice
        assert not any(task.done() for task in (reading, writing, leasing))
        await asyncio.to_thread(own_server.start)
        assert (await reading)[:1] == ["1"]
        assert [position for position, _ in await writing] == [2]
        assert await leasing is not None


@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGQUIT], ids=["fast", "crash"])
async def test_a_server_restarted_under_load_loses_nothing_acknowledged(
    own_server: PostgresServer, how: signal.Signals
) -> None:
    url = await own_server.new_url()
    acknowledged: dict[str, int] = {}
    failed: list[str] = []
    handled: list[int] = []
    stop = False

    @subscribe(event_type=PartDeposited, name="count", start="earliest")
    async def count(event: PartDeposited, context: HandlerContext) -> None:
        handled.append(context.position)

    async with ActorSystem(url, aggregates=[Account], handlers=[count]) as system:

        async def client(name: int) -> None:
            number = 0
            while not stop:
                number += 1
                token = f"{name}-{number}"
                account = system.aggregate(Account, f"account-{(name + number) % 7}")
                try:
                    acknowledged[token] = await account.ask(Deposit(token=token, parts=1 + number % 3))
                except UnoError as error:
                    failed.append(f"{type(error).__name__}: {error}")
                    await asyncio.sleep(0.05)

        clients = [asyncio.create_task(client(name)) for name in range(30)]
        for goal in (200, 600):
            await until(lambda goal=goal: len(acknowledged) >= goal)
            await own_server.restart(how)
        goal = len(acknowledged) + 300
        await until(lambda: len(acknowledged) >= goal)
        stop = True
        await asyncio.gather(*clients)
        await system.settled()
    print(f"{len(acknowledged)} acknowledged, {len(failed)} failed: {set(failed)}")
    parts: dict[str, list[int]] = {}
    positions = []
    async with open_store(url) as store:
        async for position, event in store.read_all():
            assert isinstance(event, PartDeposited)
            positions.append(position)
            parts.setdefault(event.token, []).append(event.part)
            assert event.parts > event.part
    assert acknowledged.keys() <= parts.keys()
    assert all(found == list(range(len(found))) for found in parts.values()), (
        "something is there twice or halved"
    )
    assert positions == list(range(1, len(positions) + 1))
    assert sorted(set(handled)) == positions
    assert len(failed) < 30 * 10
