"""Read models in SQL tables: each event is counted once, whatever fails and whichever process writes."""

from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import create_engine, select, text, update
from sqlalchemy.ext.asyncio import AsyncEngine, AsyncSession, async_sessionmaker, create_async_engine
from sqlalchemy.orm import sessionmaker

from tests.new_stores import new_store_url
from tests.read_models.orders import (
    Base,
    Events,
    Order,
    OrderPlacedHere,
    Orders,
    OrderShippedHere,
    PlainOrders,
    listed,
    placed,
)
from tests.waiting import until
from uno_actors import (
    ActorSystem,
    DomainEvent,
    EventBus,
    HandlerContext,
    InvalidHandler,
    UnoError,
    subscribe,
)
from uno_actors.handlers.spec import HandlerSpec
from uno_actors.read_models import SqlProjection, SyncSqlProjection, create_schema, create_schema_sync
from uno_actors.read_models.tables import read_models, retried

OPTIONS: dict[str, Any] = {"aggregates": []}


@pytest.fixture(params=["sqlite", "postgres", "plain functions"])
def kind(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
async def engine(kind: str, tmp_path: Path) -> AsyncIterator[AsyncEngine]:
    """Of the database with the shop's tables."""
    url = await new_store_url("postgres" if kind == "postgres" else "sqlite", tmp_path)
    engine = create_async_engine(url)
    async with engine.begin() as connection:
        await connection.run_sync(Base.metadata.create_all)
    await create_schema(engine)
    yield engine
    await engine.dispose()


def orders_in(engine: AsyncEngine, kind: str) -> Any:
    """A read model on these tables."""
    if kind == "plain functions":
        return PlainOrders(sessionmaker(create_engine(f"sqlite:///{engine.url.database}")))
    return Orders(async_sessionmaker(engine))


def spec_of(model: Any, **options: Any) -> HandlerSpec:
    return HandlerSpec("Orders", model, (OrderPlacedHere, OrderShippedHere), **options)


def system_with(path: Path, *handlers: Any) -> ActorSystem:
    return ActorSystem(f"lmdb:{path}/log", handlers=list(handlers), **OPTIONS)


async def progress_of(engine: AsyncEngine) -> list[tuple[int, int, bool]]:
    """Version, position and whether it is being built, of each row."""
    async with engine.connect() as connection:
        rows = await connection.execute(select(read_models).order_by(read_models.c.version))
        return [(row.version, row.position, row.building) for row in rows]


async def test_events_fill_the_tables_and_a_restart_continues(
    engine: AsyncEngine, kind: str, tmp_path: Path
) -> None:
    model = spec_of(orders_in(engine, kind))
    async with system_with(tmp_path, model) as system:
        for number in range(5):
            await system.publisher.publish(placed(number, amount=number))
        await system.publisher.publish(OrderShippedHere(aggregate_id="order-3", aggregate_type="Order"))
        await system.settled()
    assert await listed(engine) == {f"order-{number}": number for number in range(5)}
    assert await progress_of(engine) == [(1, 6, False)]
    async with engine.connect() as connection:
        shipped = await connection.execute(select(Order.id).where(Order.shipped))
        assert shipped.scalars().all() == ["order-3"]
    async with system_with(tmp_path, spec_of(orders_in(engine, kind))) as system:
        await system.publisher.publish(placed(5))
        await system.settled()
        assert system.statistics().handlers["Orders"].handled == 1
    assert len(await listed(engine)) == 6


async def test_an_event_that_fails_leaves_nothing_and_those_before_it_are_counted_once(
    engine: AsyncEngine, kind: str, tmp_path: Path
) -> None:
    model = orders_in(engine, kind)
    async with system_with(tmp_path) as system:  # so that all come in one batch
        await system.publisher.publish(*[placed(number, fails=number == 3) for number in range(6)])
    async with system_with(tmp_path, spec_of(model, max_attempts=2)) as system:
        await until(lambda: system.statistics().handlers["Orders"].dead_letters)
        await system.settled()
        assert [letter.position for letter in await system.store.dead_letters("Orders")] == [4]
        assert sorted(await listed(engine)) == [f"order-{number}" for number in (0, 1, 2, 4, 5)]
        # What was set aside is counted once, however often it is tried.
        model.failing = False
        await system.retry_dead_letters("Orders")
        await system.settled()
        assert await system.store.dead_letters("Orders") == []
        assert len(await listed(engine)) == 6
    async with system_with(tmp_path, spec_of(orders_in(engine, kind))) as system:
        await system.settled()
        assert system.statistics().handlers["Orders"].failures == 0


async def test_an_event_that_was_set_aside_before_a_crash_is_passed_over(
    engine: AsyncEngine, kind: str, tmp_path: Path
) -> None:
    """The store knows that it was, the tables do not."""
    async with system_with(tmp_path, spec_of(orders_in(engine, kind), max_attempts=1)) as system:
        await system.publisher.publish(placed(0), placed(1, fails=True), placed(2))
        await system.settled()
    async with engine.begin() as connection:  # as they were when it was set aside
        await connection.execute(text("DELETE FROM orders WHERE id = 'order-2'"))
        await connection.execute(update(read_models).values(position=1))
    async with system_with(tmp_path, spec_of(orders_in(engine, kind), max_attempts=1)) as system:
        await system.settled()
        assert system.statistics().handlers["Orders"].failures == 0
        assert len(await system.store.dead_letters("Orders")) == 1
    assert sorted(await listed(engine)) == ["order-0", "order-2"]


async def test_tables_that_were_restored_from_a_backup_are_filled_from_where_they_were(
    engine: AsyncEngine, kind: str, tmp_path: Path
) -> None:
    async with system_with(tmp_path, spec_of(orders_in(engine, kind))) as system:
        await system.publisher.publish(*[placed(number) for number in range(4)])
        await system.settled()
    async with engine.begin() as connection:
        await connection.execute(text("DELETE FROM orders WHERE id IN ('order-2', 'order-3')"))
        await connection.execute(update(read_models).values(position=2))
    async with system_with(tmp_path, spec_of(orders_in(engine, kind))) as system:
        await system.settled()
    assert len(await listed(engine)) == 4


async def test_what_a_process_still_writes_after_another_has_taken_over_is_undone(
    engine: AsyncEngine, kind: str, tmp_path: Path
) -> None:
    async with system_with(tmp_path, spec_of(orders_in(engine, kind))) as system:
        await system.publisher.publish(placed(0))
        await system.settled()
        async with engine.begin() as connection:  # a later holder of the lease has begun
            await connection.execute(update(read_models).values(writer="another"))
        await system.publisher.publish(placed(1))
        await until(lambda: system.statistics().handlers["Orders"].state == "standby")
        assert sorted(await listed(engine)) == ["order-0"]
        assert system.statistics().handlers["Orders"].failures == 0
        # It ended: this process takes the lease again.
        await until(lambda: system.statistics().handlers["Orders"].state == "live")
        await system.settled()
    assert sorted(await listed(engine)) == ["order-0", "order-1"]


async def test_a_reset_to_the_beginning_empties_the_tables_and_counts_all_again(
    engine: AsyncEngine, kind: str, tmp_path: Path
) -> None:
    model = orders_in(engine, kind)
    async with system_with(tmp_path, spec_of(model, max_attempts=1)) as system:
        await system.publisher.publish(placed(0), placed(1, fails=True), placed(2))
        await system.settled()
        model.failing = False
        await system.reset("Orders", to="earliest")
        await system.settled()
        assert len(await listed(engine)) == 3
        await system.retry_dead_letters("Orders")  # which was counted with the rest
        await system.settled()
        assert await system.store.dead_letters("Orders") == []
        assert len(await listed(engine)) == 3
        assert await progress_of(engine) == [(1, 3, False)]


class WithoutRebuild(SqlProjection[Events]):
    async def handle(self, event: Events, session: AsyncSession) -> None:
        if isinstance(event, OrderPlacedHere):
            session.add(Order(id=event.aggregate_id, amount=event.amount))


@pytest.mark.parametrize("kind", ["sqlite"], indirect=True)
async def test_a_reset_that_would_count_all_twice_is_refused(
    engine: AsyncEngine, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async with system_with(tmp_path, spec_of(WithoutRebuild(async_sessionmaker(engine)))) as system:
        await system.publisher.publish(placed(0))
        await system.settled()
        await system.reset("Orders", to="earliest")
        await system.settled()
        assert system.statistics().handlers["Orders"].failures == 0
        assert await progress_of(engine) == [(1, 1, False)]
        await system.publisher.publish(placed(1))
        await system.settled()
    assert len(await listed(engine)) == 2


def versioned(number: int, events: list[str]) -> type[SqlProjection[Any]]:
    class Versioned(SqlProjection[Events]):
        version = number

        async def handle(self, event: Events, session: AsyncSession, context: HandlerContext) -> None:
            assert context.position > 0
            insert = text(f"INSERT INTO listed_{number} VALUES (:id)")  # noqa: S608 - a number
            await session.execute(insert, {"id": event.aggregate_id})

        async def on_rebuild(self, session: AsyncSession) -> None:
            events.append(f"rebuild {number}")
            await session.execute(text(f"CREATE TABLE listed_{number} (id VARCHAR(50))"))

        async def on_live(self, session: AsyncSession) -> None:
            events.append(f"live {number}")
            await session.execute(text("DROP VIEW IF EXISTS listed"))
            await session.execute(text(f"CREATE VIEW listed AS SELECT id FROM listed_{number}"))  # noqa: S608

    return Versioned


@pytest.mark.parametrize("kind", ["sqlite", "postgres"], indirect=True)
async def test_a_new_version_is_built_beside_the_old_one_and_replaces_it_at_once(
    engine: AsyncEngine, tmp_path: Path
) -> None:
    events: list[str] = []
    sessions = async_sessionmaker(engine)

    async def readers_see() -> int:
        async with engine.connect() as connection:
            return int((await connection.execute(text("SELECT count(*) FROM listed"))).scalar_one())

    async with system_with(tmp_path, spec_of(versioned(1, events)(sessions))) as system:
        await system.publisher.publish(placed(0), placed(1))
        await system.settled()
        assert await readers_see() == 2
    async with system_with(tmp_path) as system:
        await system.publisher.publish(placed(2))
    async with system_with(tmp_path, spec_of(versioned(2, events)(sessions))) as system:
        await system.settled()
        assert await readers_see() == 3
    assert events == ["rebuild 1", "live 1", "rebuild 2", "live 2"]
    assert await progress_of(engine) == [(2, 3, False)]


@pytest.mark.parametrize("kind", ["sqlite"], indirect=True)
async def test_a_database_that_is_away_sets_no_event_aside(engine: AsyncEngine, tmp_path: Path) -> None:
    away = False
    tried = 0

    def sessions() -> AsyncSession:
        nonlocal tried
        if away:
            tried += 1
            raise ConnectionRefusedError("the database is away")
        return AsyncSession(engine)

    async with system_with(tmp_path, spec_of(Orders(sessions), max_attempts=1)) as system:
        await system.publisher.publish(placed(0))
        await system.settled()
        away = True
        await system.publisher.publish(placed(1))
        await until(lambda: tried >= 3)
        away = False
        await system.settled()
        assert await system.store.dead_letters("Orders") == []
    assert sorted(await listed(engine)) == ["order-0", "order-1"]


@pytest.mark.parametrize("kind", ["sqlite"], indirect=True)
async def test_without_the_tables_of_progress_the_error_says_how_to_make_them(
    engine: AsyncEngine, tmp_path: Path
) -> None:
    async with engine.begin() as connection:
        await connection.execute(text("DROP TABLE uno_read_models"))
    with pytest.raises(UnoError, match=r"make them once with `await create_schema\(engine\)`"):
        async with system_with(tmp_path, spec_of(Orders(async_sessionmaker(engine)))):
            pass


def test_the_tables_can_be_made_by_a_plain_engine(tmp_path: Path) -> None:
    engine = create_engine(f"sqlite:///{tmp_path}/plain.db")
    create_schema_sync(engine)
    create_schema_sync(engine)
    with engine.connect() as connection:
        assert (
            connection.execute(select(read_models)).all() == connection.execute(select(retried)).all() == []
        )
    engine.dispose()


class Async(SyncSqlProjection[Events]):
    async def handle(self, event: Events, session: Any) -> None: ...


class NotAsync(SqlProjection[Events]):
    def handle(self, event: Events, session: Any) -> None: ...


class SwitchesLater(PlainOrders):
    async def on_live(self, session: Any) -> None: ...  # type: ignore[override]


class SwitchesOnThread(Orders):
    def on_live(self, session: Any) -> None: ...  # type: ignore[override]


class EmptiesOnThread(Orders):
    def on_rebuild(self, session: Any) -> None: ...  # type: ignore[override]


class WithoutSession(SqlProjection[Events]):
    async def handle(self, event: Events) -> None: ...


class OfNoVersion(Orders):
    version = 0


def no_sessions() -> Any:
    raise AssertionError("no session is made")


@pytest.mark.parametrize(
    ("make", "why"),
    [
        (lambda: spec_of(Orders()), "needs sessions"),
        (lambda: spec_of(Async(no_sessions)), "must be a plain def"),
        (lambda: spec_of(NotAsync(no_sessions)), "must be async def"),
        (lambda: spec_of(SwitchesLater(no_sessions)), "on_live must be a plain def"),
        (lambda: spec_of(SwitchesOnThread(no_sessions)), "on_live must be async def"),
        (lambda: spec_of(EmptiesOnThread(no_sessions)), "on_rebuild must be async def"),
        (lambda: spec_of(WithoutSession(no_sessions)), "must take the event and the session"),
        (lambda: spec_of(OfNoVersion(no_sessions)), "version must be 1 or more"),
        (lambda: spec_of(Orders(no_sessions), concurrency=2), "no concurrency"),
        (lambda: spec_of(Orders(no_sessions), start=7), "no start"),
        (lambda: EventBus().subscribe(Orders(no_sessions)), "give it to an ActorSystem"),
    ],
    ids=[
        "sessions",
        "async",
        "plain",
        "async hook",
        "plain hook",
        "plain rebuild",
        "session",
        "version",
        "concurrency",
        "start",
        "bus",
    ],
)
def test_a_read_model_that_cannot_work_is_refused(make: Callable[[], Any], why: str) -> None:
    with pytest.raises(InvalidHandler, match=why):
        make()


async def test_a_plain_read_model_takes_no_timeout(tmp_path: Path) -> None:
    model = PlainOrders(no_sessions)
    with pytest.raises(UnoError, match="a plain function cannot be ended"):
        async with system_with(tmp_path, spec_of(model, timeout=1.0)):
            pass


@pytest.mark.parametrize("kind", ["sqlite"], indirect=True)
async def test_a_read_model_sees_the_events_of_its_type_argument(engine: AsyncEngine, tmp_path: Path) -> None:
    class OtherHere(DomainEvent):
        pass

    orders = subscribe(name="orders")(Orders(async_sessionmaker(engine)))
    async with system_with(tmp_path, orders) as system:
        await system.publisher.publish(OtherHere(), placed(0))
        await system.settled()
        (statistics,) = system.statistics().handlers.values()
        assert statistics.handled == 1


async def test_a_caller_waits_until_the_tables_show_what_was_recorded(engine: AsyncEngine, kind: str) -> None:
    model = orders_in(engine, kind)
    async with ActorSystem("memory:", handlers=[model], **OPTIONS) as system:
        for number in range(5):
            (recorded,) = await system.publisher.publish(placed(number))
            await system.wait_for(type(model), recorded.position)
            assert len(await listed(engine)) == number + 1
