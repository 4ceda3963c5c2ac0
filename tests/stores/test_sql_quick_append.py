"""PostgreSQL: a group of appends in one statement, and when it is left to several."""

import asyncio
from collections.abc import AsyncIterator, Iterable, Iterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager
from typing import Any

import pytest
from asyncpg.exceptions import UniqueViolationError
from sqlalchemy import event, make_url, text
from sqlalchemy.ext.asyncio import AsyncEngine, AsyncSession, create_async_engine

from tests.machine import patience
from tests.postgres import postgres
from tests.waiting import calls_of, until
from uno_actors import open_store
from uno_actors.domain.events import EventRegistry
from uno_actors.errors import ConcurrencyConflict, OutcomeUnknown, StoreUnavailable, UnoError
from uno_actors.store.codec import Record, to_record
from uno_actors.store.logs import log_of_position, starts_of_logs
from uno_actors.store.records import Append, Appended
from uno_actors.testing.contract.events import Noted
from uno_stores.sql import DatabaseEventStore, create_database_event_store, writer
from uno_stores.sql.announcements import Announcements
from uno_stores.sql.connections import Connections
from uno_stores.sql.kept import KeptConnection
from uno_stores.sql.quick_append import APPEND, APPEND_ONE, Placed, append_placed, find_placed, placed
from uno_stores.sql.quick_statement import QuickStatement

REGISTRY = EventRegistry([Noted])
LIMIT = 1_000_000


def record_of(what: str, aggregate_id: str | None = "a", **metadata: Any) -> Record:
    of = {"aggregate_id": aggregate_id, "aggregate_type": "Account"} if aggregate_id else {}
    return to_record(Noted(text=what, **of, **metadata))


def append(expected: int | None, *of: tuple[str, str | None]) -> Append:
    """A request to record these texts, each with its aggregate id."""
    return Append(tuple(record_of(what, id_) for what, id_ in of), expected)


@pytest.fixture
async def engine() -> AsyncIterator[AsyncEngine]:
    engine = create_async_engine(await postgres().new_url())
    yield engine
    await engine.dispose()


@asynccontextmanager
async def opened_by_url(url: str, seconds: float) -> AsyncIterator[DatabaseEventStore]:
    """A store with an engine of its own, which waits so long for the server."""
    async with open_store(f"{url}&patience={patience(seconds)}", REGISTRY) as opened:
        assert isinstance(opened, DatabaseEventStore)
        yield opened


@asynccontextmanager
async def opened(engine: AsyncEngine) -> AsyncIterator[DatabaseEventStore]:
    store = await create_database_event_store(
        session_factory=lambda: AsyncSession(engine), event_registry=REGISTRY
    )
    async with store:
        yield store


@asynccontextmanager
async def statements_of(engine: AsyncEngine) -> AsyncIterator[list[str]]:
    """The statements that read or write the log."""
    found: list[str] = []

    def note(connection: Any, cursor: Any, statement: str, *_: Any) -> None:
        if "pg_notify" not in statement and ("uno_log" in statement or "uno_head" in statement):
            found.append(statement)

    event.listen(engine.sync_engine, "before_cursor_execute", note)
    yield found
    event.remove(engine.sync_engine, "before_cursor_execute", note)


async def one_waits_for_the_lock() -> None:
    """Return when a statement that appends waits for the head of the log."""
    connection = await postgres().connect()
    waiting = "SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND query LIKE '%moved%'"
    while not await connection.fetchval(waiting):  # noqa: ASYNC110 - the server does not say when
        await asyncio.sleep(0.005)
    await connection.close()


async def streams_of(store: DatabaseEventStore) -> dict[str | None, list[tuple[int, int | None]]]:
    found: dict[str | None, list[tuple[int, int | None]]] = {}
    for position, record in await store.read_log():
        found.setdefault(record.aggregate_id, []).append((position, record.aggregate_version))
    return found


async def test_a_group_whose_versions_are_as_expected_takes_one_statement(engine: AsyncEngine) -> None:
    async with opened(engine) as store:
        await store.commit([append(0, ("first", "a"))])
        async with statements_of(engine) as statements:
            outcomes = await store.commit(
                [
                    append(1, ("second", "a"), ("third", "a")),
                    append(0, ("first", "b")),
                    append(3, ("fourth", "a")),
                    append(None, ("of no stream", None)),
                ]
            )
        assert len(statements) == 1
        assert [[*outcome.positions] for outcome in outcomes if isinstance(outcome, Appended)] == [
            [2, 3], [4], [5], [6],
        ]  # fmt: skip
        assert await streams_of(store) == {
            "a": [(1, 1), (2, 2), (3, 3), (5, 4)],
            "b": [(4, 1)],
            None: [(6, None)],
        }


@pytest.mark.parametrize(
    "wrong", [append(0, ("late", "a")), append(2, ("early", "a"))], ids=["behind", "ahead"]
)
async def test_a_wrong_version_is_refused_and_the_rest_of_its_group_is_recorded(
    engine: AsyncEngine, wrong: Append
) -> None:
    async with opened(engine) as store:
        await store.commit([append(0, ("first", "a"))])
        conflict, recorded = await store.commit([wrong, append(0, ("first", "b"))])
        assert isinstance(conflict, ConcurrencyConflict)
        assert conflict.actual == 1
        assert isinstance(recorded, Appended)
        assert await streams_of(store) == {"a": [(1, 1)], "b": [(2, 1)]}


async def test_after_a_conflict_the_next_group_is_not_tried_in_one_statement(engine: AsyncEngine) -> None:
    async with opened(engine) as store:
        await store.commit([append(0, ("first", "a"))])
        await store.commit([append(0, ("late", "a"))])
        counts: list[int] = []
        for version in (1, 2):
            async with statements_of(engine) as statements:
                await store.commit([append(version, ("next", "a"))])
            counts.append(len(statements))
        assert counts[0] > counts[1] == 1


async def test_a_stream_that_grows_while_the_statement_waits_for_the_lock_is_a_conflict(
    engine: AsyncEngine,
) -> None:
    """The statement has seen the stream before the other transaction ends."""
    async with opened(engine) as store, AsyncSession(engine) as session:
        await store.append(Noted(text="other", aggregate_id="a", aggregate_type="Account"), session=session)
        asked = asyncio.ensure_future(store.commit([append(0, ("mine", "a")), append(0, ("mine", "b"))]))
        await one_waits_for_the_lock()
        await session.commit()
        conflict, recorded = await asked
        assert isinstance(conflict, ConcurrencyConflict)
        assert isinstance(recorded, Appended)
        assert await streams_of(store) == {"a": [(1, 1)], "b": [(2, 1)]}


async def test_a_process_that_stops_before_the_commit_does_not_keep_the_lock(engine: AsyncEngine) -> None:
    async with opened(engine), engine.connect() as connection:
        group = placed([append(0, ("first", "a"))], 1, LIMIT)
        assert group is not None
        assert await append_placed(connection, group) is not None
        limit = await connection.execute(text("SHOW idle_in_transaction_session_timeout"))
        assert limit.scalar_one() == "3s"
        await connection.rollback()


def with_version(version: int) -> Append:
    return Append((record_of("placed", aggregate_version=version),), None)


@pytest.mark.parametrize(
    ("requests", "logs"),
    [
        ([append(None, ("any version", "a"))], 1),
        ([append(0, ("first", "a")), append(0, ("first again", "a"))], 1),
        ([with_version(4)], 1),
        ([append(0, ("x" * LIMIT, "a"))], 1),
        ([append(0, ("nul \0", "a"))._replace(records=(record_of("x")._replace(topic="\0"),))], 1),
    ],
    ids=[
        "no version",
        "one version twice",
        "a place of its own",
        "too large",
        "not recordable",
    ],
)
def test_what_one_statement_cannot_decide_is_left_to_several(requests: list[Append], logs: int) -> None:
    assert placed(requests, logs, LIMIT) is None


# --- in a transaction of its own ---------------------------------------------------------------------------


@pytest.fixture(params=["", "&logs=4"], ids=["one log", "4 logs"])
async def store(request: pytest.FixtureRequest) -> AsyncIterator[DatabaseEventStore]:
    """A store with an engine of its own."""
    async with opened_by_url(f"{await postgres().new_url()}{request.param}", 10.0) as opened:
        yield opened


@pytest.mark.parametrize("aggregate_type", ["Account", None], ids=["with a type", "without a type"])
async def test_one_record_of_a_stream_takes_a_statement_without_arrays(
    store: DatabaseEventStore, aggregate_type: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Announcements, "grown", lambda *_: None)
    statements: list[QuickStatement] = []
    whole = QuickStatement.by_driver

    async def by_driver(self: QuickStatement, driver: Any, terms: Mapping[str, Any]) -> Any:
        statements.append(self)
        return await whole(self, driver, terms)

    monkeypatch.setattr(QuickStatement, "by_driver", by_driver)
    names = {"topic": "a.b", "correlation_id": "c", "causation_id": "d"}
    record = to_record(Noted(text="ü", aggregate_id="a", aggregate_type=aggregate_type, **names))
    record = record._replace(command_id="e", reply=b"\0", command_causation_id="f", version=2)
    other = record._replace(aggregate_type="Other", event_id="g")
    outcomes = [
        (await store.commit([Append((each._replace(event_id=f"{number}"),), expected)]))[0]
        for number, (each, expected) in enumerate([(record, 0), (other, 0), (record, 1)])
    ]
    assert statements == [APPEND_ONE] * 3
    found = [each async for each in store.read_records()]
    placed_records = [outcome.records[0] for outcome in outcomes if isinstance(outcome, Appended)]
    assert sorted(each.record for each in found) == sorted(placed_records)
    assert [each.aggregate_version for each in placed_records] == [1, 1, 2]
    assert placed_records[0] == record._replace(event_id="0", aggregate_version=1)


@pytest.mark.parametrize("expected", [0, 1, 3], ids=["no events", "behind", "ahead"])
async def test_one_record_at_another_version_is_a_conflict(store: DatabaseEventStore, expected: int) -> None:
    await store.commit([append(0, ("first", "a"), ("second", "a"))])
    (outcome,) = await store.commit([append(expected, ("late", "a"))])
    assert isinstance(outcome, ConcurrencyConflict)
    assert outcome.actual == 2
    (outcome,) = await store.commit([append(2, ("third", "a"))])
    assert isinstance(outcome, Appended)
    (outcome,) = await store.commit([append(3, ("fourth", "a"))])  # again in one statement
    assert isinstance(outcome, Appended)


@contextmanager
def fails_once(patch: pytest.MonkeyPatch, *, executed: bool) -> Iterator[list[str]]:
    """Inside the block the connection is lost at the next append, before or after the server has executed it."""
    whole = QuickStatement.by_driver
    calls: list[str] = []

    async def by_driver(self: QuickStatement, driver: Any, terms: Mapping[str, Any]) -> Any:
        calls.append("notify" if "ends" in terms else "append")
        if calls.count("append") > 1 or calls[-1] == "notify":
            return await whole(self, driver, terms)
        if executed:
            await whole(self, driver, terms)
        raise ConnectionResetError("the way to the server was cut")

    with patch.context() as patched:
        patched.setattr(QuickStatement, "by_driver", by_driver)
        yield calls


@pytest.mark.parametrize("executed", [True, False], ids=["executed", "not executed"])
async def test_the_outcome_of_a_statement_whose_answer_was_lost_is_found(
    store: DatabaseEventStore, executed: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    await store.commit([append(0, ("first", "a"))])
    with fails_once(monkeypatch, executed=executed) as calls:
        outcomes = await store.commit(
            [append(1, ("second", "a"), ("third", "a")), append(3, ("fourth", "a"))]
        )
    assert calls.count("append") == 1, "another attempt is made in several statements"
    assert all(isinstance(outcome, Appended) for outcome in outcomes)
    found = await store.get_events("a", aggregate_type="Account")
    assert [event.text for event in found if isinstance(event, Noted)] == [
        "first",
        "second",
        "third",
        "fourth",
    ]
    positions = [at for outcome in outcomes if isinstance(outcome, Appended) for at in outcome.positions]
    recorded = [each.position async for each in store.read_all()]
    assert positions == recorded[1:]


async def test_a_statement_that_the_server_executes_late_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    """The connection is lost, the log is searched in vain, and only then the statement arrives."""
    url = await postgres().new_url()
    late: list[asyncio.Task[Any]] = []
    other = await postgres().connect(str(make_url(url).username))

    async def searched(connection: Any, group: Placed) -> Any:
        found = await find_placed(connection, group)
        if not late:  # it waits for the lock of the search, and has it before the next attempt
            assert found is None
            late.append(asyncio.ensure_future(APPEND.by_driver(other, group.terms)))
            await one_waits_for_the_lock()
        return found

    async with opened_by_url(url, 10.0) as store:
        await store.commit([append(0, ("first", "a"))])
        monkeypatch.setattr("uno_stores.sql.writer.find_placed", searched)
        with fails_once(monkeypatch, executed=False):
            outcomes = await store.commit([append(1, ("second", "a")), append(0, ("first", "b"))])
        assert [[*outcome.positions] for outcome in outcomes if isinstance(outcome, Appended)] == [[2], [3]]
        assert await late[0] == 3
        assert await streams_of(store) == {"a": [(1, 1), (2, 2)], "b": [(3, 1)]}
    await other.close()


async def test_a_statement_that_may_still_be_executed_has_an_unknown_outcome(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async def away(*_: Any, **__: Any) -> Any:
        raise ConnectionResetError("the way to the server is still cut")

    async with opened_by_url(await postgres().new_url(), 0.5) as store:
        await store.commit([append(0, ("first", "a"))])
        monkeypatch.setattr("uno_stores.sql.writer.place_all", away)
        with fails_once(monkeypatch, executed=False):
            (outcome,) = await store.commit([append(1, ("second", "a"))])
    assert isinstance(outcome, OutcomeUnknown)


async def test_the_server_gives_up_a_statement_before_the_store_does() -> None:
    """Else it might still execute the statement after the store has given up waiting for the lock."""
    url = await postgres().new_url()
    engine = create_async_engine(url)
    async with opened(engine) as holder, opened_by_url(url, 1.0) as store, AsyncSession(engine) as session:
        await store.commit([append(0, ("first", "a"))])
        await holder.append(Noted(text="holds the lock"), session=session)
        (outcome,) = await store.commit([append(1, ("second", "a"))])
        assert isinstance(outcome, StoreUnavailable)
        await session.rollback()
        assert await streams_of(store) == {"a": [(1, 1)]}
    await engine.dispose()


async def test_a_conflict_is_told_though_the_answer_was_lost(
    store: DatabaseEventStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    await store.commit([append(0, ("first", "a"))])
    with fails_once(monkeypatch, executed=True):
        (outcome,) = await store.commit([append(0, ("late", "a"))])
    assert isinstance(outcome, ConcurrencyConflict)
    assert outcome.actual == 1


async def test_the_connection_is_kept_between_appends_and_given_back_when_idle(
    store: DatabaseEventStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("uno_stores.sql.kept.KEPT_FOR", 0.05)
    monkeypatch.setattr(Announcements, "grown", lambda *_: None)  # they keep one of their own
    taken = calls_of(monkeypatch, Connections, "kept_session")
    given_back = calls_of(monkeypatch, KeptConnection, "give_back")
    for number in range(5):
        await store.commit([append(number, (f"{number}", "a"))])
    assert len(taken) == 1
    await until(lambda: given_back)
    await store.commit([append(5, ("5", "a"))])
    assert len(taken) == 2


async def test_a_kept_connection_whose_statement_failed_is_not_used_by_others(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """It has the time limit of a quick statement, and reads may take longer."""
    drivers: list[Any] = []

    async def taken(self: QuickStatement, driver: Any, terms: Mapping[str, Any]) -> Any:
        drivers.append(driver)
        raise UniqueViolationError("another was faster")

    async with opened_by_url(await postgres().new_url(), 10.0) as store:
        with monkeypatch.context() as patched:
            patched.setattr(QuickStatement, "by_driver", taken)
            (outcome,) = await store.commit([append(0, ("first", "a"))])
        assert isinstance(outcome, Appended)
        await until(drivers[0].is_closed)


async def test_an_engine_with_one_connection_serves_reads_and_writes_at_once() -> None:
    """The program chose the size of its pool: no connection of it is kept."""
    engine = create_async_engine(await postgres().new_url(), pool_size=1, max_overflow=0)
    async with opened(engine) as store:
        for number in range(10):
            await asyncio.wait_for(store.commit([append(number, (f"{number}", "a"))]), patience(5))
            assert await asyncio.wait_for(store.last_position(), patience(5)) == number + 1
    await engine.dispose()


async def test_an_event_without_a_stream_is_recorded_in_one_statement_too(engine: AsyncEngine) -> None:
    """It could not be found again by its stream, so its transaction is committed apart."""
    async with opened(engine) as store:
        async with statements_of(engine) as statements:
            await store.append(Noted(text="alone"))
        assert len(statements) == 1
        assert await streams_of(store) == {None: [(1, None)]}


# --- to several logs ---------------------------------------------------------------------------------------

STREAMS = [f"account-{n}" for n in range(8)]
"""Of four logs each has some."""


@asynccontextmanager
async def with_logs(url: str, logs: int = 4) -> AsyncIterator[DatabaseEventStore]:
    async with opened_by_url(f"{url}&logs={logs}", 10.0) as opened:
        yield opened


def logs_of(requests: list[Append]) -> list[int]:
    group = placed(requests, 4, LIMIT)
    assert group is not None
    return group.logs


def positions_in(outcomes: Iterable[Appended | UnoError]) -> list[int]:
    return [at for outcome in outcomes if isinstance(outcome, Appended) for at in outcome.positions]


@pytest.mark.parametrize("own", [True, False], ids=["own engine", "an engine of the program"])
async def test_a_group_for_several_logs_takes_one_statement(
    own: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    in_several = calls_of(monkeypatch, writer, "place_all")
    url = await postgres().new_url()
    engine = create_async_engine(url)
    async with with_logs(url) as made, AsyncExitStack() as stack:
        await made.last_positions()  # which makes the tables
        programs = await stack.enter_async_context(opened(engine))
        await programs.last_positions()
        statements = await stack.enter_async_context(statements_of(engine))
        statements.clear()
        requests = [append(0, (f"{id_} one", id_), (f"{id_} two", id_)) for id_ in STREAMS]
        requests += [append(2, ("three", STREAMS[0])), append(None, ("of no stream", None))]
        outcomes = await (made if own else programs).commit(requests)
        assert logs_of(requests) == [0, 1, 2, 3]
        assert not in_several
        assert len(statements) == (0 if own else 1)  # the own engine's goes by the driver
        positions = positions_in(outcomes)
        assert len(positions) == 18
        found = {each.position: each.record.aggregate_id async for each in made.read_records()}
        wanted = [id_ for id_ in STREAMS for _ in "12"] + [STREAMS[0], None]
        assert [found[at] for at in positions] == wanted
        counts = [
            last - start for last, start in zip(await made.last_positions(), starts_of_logs(4), strict=True)
        ]
        assert sum(counts) == 18
        assert min(counts) > 0
    await engine.dispose()


async def test_a_wrong_version_in_one_of_several_logs_is_refused_and_the_rest_is_recorded() -> None:
    async with with_logs(await postgres().new_url()) as store:
        await store.commit([append(0, ("first", STREAMS[0]))])
        conflict, *others = await store.commit([append(0, ("first", id_)) for id_ in STREAMS])
        assert isinstance(conflict, ConcurrencyConflict)
        assert len(positions_in(others)) == len(STREAMS) - 1
        assert sorted(await streams_in(store)) == sorted(STREAMS)


async def streams_in(store: DatabaseEventStore) -> list[str | None]:
    """The streams of all events."""
    return [each.record.aggregate_id async for each in store.read_records()]


@pytest.mark.parametrize("executed", [True, False], ids=["executed", "not executed"])
async def test_the_outcome_of_a_statement_for_several_logs_is_found_though_its_answer_was_lost(
    executed: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with with_logs(await postgres().new_url()) as store:
        await store.commit([append(0, ("first", STREAMS[0]))])
        with fails_once(monkeypatch, executed=executed) as calls:
            requests = [append(1, ("second", STREAMS[0]), ("third", STREAMS[0]))]
            requests += [append(0, ("first", id_), ("second", id_)) for id_ in STREAMS[1:]]
            outcomes = await store.commit(requests)
        assert calls.count("append") == 1
        found = {each.position: each.record.aggregate_id async for each in store.read_records()}
        assert len(found) == 17
        assert [found[at] for at in positions_in(outcomes)] == [id_ for id_ in STREAMS for _ in "12"]


@pytest.mark.parametrize(
    ("requests", "expected"),
    [
        ([append(0, ("x", id_)) for id_ in STREAMS], True),
        ([append(0, ("x", STREAMS[0])), append(None, ("alone", None))], False),
        ([append(None, ("alone", None))], False),
    ],
    ids=["streams in each log", "a log with an event of no stream", "no stream"],
)
def test_a_group_can_be_found_again_if_each_log_has_an_event_of_a_stream(
    requests: list[Append], expected: bool
) -> None:
    while True:
        group = placed(requests, 4, LIMIT)
        assert group is not None
        if expected or len(group.logs) == len(requests):
            break
        requests[-1] = append(None, ("alone", None))  # its log is one of four by chance
    assert group.can_be_found is expected


async def test_the_logs_of_a_group_are_locked_in_the_order_of_their_numbers() -> None:
    """Two writers that each hold a log for which the other waits would end in a deadlock."""
    url = await postgres().new_url()
    by_log = {log: id_ for id_ in STREAMS for log in logs_of([append(0, ("x", id_))])}
    async with with_logs(url) as store:
        await store.last_positions()
        other = await postgres().connect(str(make_url(url).username))
        async with other.transaction():
            await other.execute("SELECT FROM uno_head WHERE id = 1 FOR UPDATE")
            requests = [append(0, ("x", by_log[log])) for log in (3, 0, 2, 1)]
            asked = asyncio.ensure_future(store.commit(requests))
            await one_waits_for_the_lock()
            await other.execute("SELECT FROM uno_head WHERE id > 1 FOR UPDATE NOWAIT")
        assert [log_of_position(at) for at in positions_in(await asked)] == [3, 0, 2, 1]
        await other.close()
