"""Read models with partitions, on one log and on several: each event is counted once, and the tables are made once."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import create_engine, select, update
from sqlalchemy.ext.asyncio import AsyncEngine, AsyncSession, async_sessionmaker, create_async_engine
from sqlalchemy.orm import Session, sessionmaker

from tests.new_stores import new_store_url
from tests.postgres import postgres
from tests.read_models.orders import (
    Base,
    OrderPlacedHere,
    Orders,
    OrderShippedHere,
    PlainOrders,
    has_listed,
    listed,
    placed,
)
from tests.waiting import until
from uno_actors import ActorSystem, AggregateRoot, Command, InvalidHandler, handles
from uno_actors.handlers.spec import HandlerSpec
from uno_actors.read_models import create_schema
from uno_actors.read_models.tables import read_models, retried

LOGS = 4
ORDERS = range(24)
EVERY = {f"order-{number}": number for number in ORDERS}


class Noted:
    """How often the tables were made and shown."""

    rebuilds = 0
    shows = 0


class CountedOrders(Orders):
    def __init__(self, sessions: Any, noted: Noted) -> None:
        super().__init__(sessions)
        self.noted = noted

    async def on_rebuild(self, session: AsyncSession) -> None:
        self.noted.rebuilds += 1
        await super().on_rebuild(session)

    async def on_live(self, session: AsyncSession) -> None:
        self.noted.shows += 1


class CountedPlainOrders(PlainOrders):
    def __init__(self, sessions: Any, noted: Noted) -> None:
        super().__init__(sessions)
        self.noted = noted

    def on_rebuild(self, session: Session) -> None:
        self.noted.rebuilds += 1
        super().on_rebuild(session)

    def on_live(self, session: Session) -> None:
        self.noted.shows += 1


@pytest.fixture
def noted() -> Noted:
    return Noted()


@pytest.fixture(params=["postgres", "sqlite", "plain functions"])
def kind(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
async def engine(kind: str, tmp_path: Path) -> AsyncIterator[AsyncEngine]:
    """Of the database with the shop's tables."""
    engine = create_async_engine(
        await new_store_url("postgres" if kind == "postgres" else "sqlite", tmp_path)
    )
    async with engine.begin() as connection:
        await connection.run_sync(Base.metadata.create_all)
    await create_schema(engine)
    yield engine
    await engine.dispose()


@pytest.fixture(params=[1, LOGS])
async def log_url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """Of a store with one log, and of one with several."""
    return (
        f"sqlite+aiosqlite:///{tmp_path}/log.db"
        if request.param == 1
        else f"{await postgres().new_url()}&logs={LOGS}"
    )


def spec_of(engine: AsyncEngine, kind: str, noted: Noted, version: int = 1, **options: Any) -> HandlerSpec:
    model: Any
    if kind == "plain functions":
        model = CountedPlainOrders(sessionmaker(create_engine(f"sqlite:///{engine.url.database}")), noted)
    else:
        model = CountedOrders(async_sessionmaker(engine), noted)
    if version != 1:
        model.version = version
    options = {"partitioned": LOGS, **options}
    return HandlerSpec("Orders", model, (OrderPlacedHere, OrderShippedHere), **options)


def system_with(url: str, *handlers: Any, **options: Any) -> ActorSystem:
    return ActorSystem(url, aggregates=[], handlers=handlers, **options)


async def place_orders(system: ActorSystem, *, fails: int = -1) -> None:
    for number in ORDERS:
        await system.publisher.publish(placed(number, amount=number, fails=number == fails))


async def rows_of(engine: AsyncEngine) -> dict[str, bool]:
    """Whether each row, of a partition or of all, is building."""
    async with engine.connect() as connection:
        return {row.name: row.building for row in await connection.execute(select(read_models))}


async def test_partitions_count_each_event_once_and_continue_after_a_restart(
    engine: AsyncEngine, kind: str, log_url: str, noted: Noted
) -> None:
    async with system_with(log_url, spec_of(engine, kind, noted)) as system:
        await place_orders(system)
        await system.publisher.publish(OrderShippedHere(aggregate_id="order-3", aggregate_type="Order"))
        await system.settled()
        handled = [each.handled for each in system.statistics().handlers.values()]
        assert len(handled) == LOGS
        assert sum(handled) == len(ORDERS) + 1
        assert max(handled) < len(ORDERS)
    assert await listed(engine) == EVERY
    assert await rows_of(engine) == dict.fromkeys(
        ["Orders@of4", *(f"Orders@{number}of4" for number in range(1, LOGS + 1))], False
    )
    async with system_with(log_url, spec_of(engine, kind, noted)) as system:
        await system.publisher.publish(placed(100, amount=100))
        await system.settled()
        assert sum(each.handled for each in system.statistics().handlers.values()) == 1
    assert await listed(engine) == {**EVERY, "order-100": 100}
    assert (noted.rebuilds, noted.shows) == (1, 1)


async def test_a_reset_of_all_partitions_empties_the_tables_once(
    engine: AsyncEngine, kind: str, log_url: str, noted: Noted
) -> None:
    async with system_with(log_url, spec_of(engine, kind, noted)) as system:
        await place_orders(system)
        await system.settled()
        await system.reset("Orders", to="earliest")
        await until(lambda: noted.shows == 2)
        await system.settled()
        assert await listed(engine) == EVERY
        assert noted.rebuilds == 2
        assert not any((await rows_of(engine)).values())


async def test_a_reset_that_one_partition_carries_out_late_empties_nothing_again(
    engine: AsyncEngine, kind: str, log_url: str, noted: Noted
) -> None:
    """As on another node: it has still counted events when the others start over, and loses them with theirs."""
    async with system_with(log_url, spec_of(engine, kind, noted)) as system:
        await place_orders(system)
        await system.settled()
        await system.pause("Orders@2of4")
        await until(lambda: system.statistics().handlers["Orders@2of4"].state == "paused")
        await system.reset("Orders", to="earliest")
        await until(lambda: noted.rebuilds == 2)
        await system.publisher.publish(placed(100, amount=100))
        await system.resume("Orders@2of4")
        await until(lambda: noted.shows == 2)
        await system.settled()
        assert await listed(engine) == {**EVERY, "order-100": 100}
        assert noted.rebuilds == 2


async def test_what_was_set_aside_in_a_partition_is_counted_once_later(
    engine: AsyncEngine, kind: str, log_url: str, noted: Noted
) -> None:
    spec = spec_of(engine, kind, noted, max_attempts=1)
    spec.target.failing = True
    async with system_with(log_url, spec) as system:
        await place_orders(system, fails=5)
        await system.settled()
        assert await listed(engine) == {name: amount for name, amount in EVERY.items() if amount != 5}
    mended = spec_of(engine, kind, noted, max_attempts=1)
    mended.target.failing = False
    async with system_with(log_url, mended) as system:
        await system.retry_dead_letters("Orders")
        await system.settled()
        assert await listed(engine) == EVERY
        async with engine.connect() as connection:
            assert len((await connection.execute(select(retried))).all()) == 1


async def test_what_a_partition_still_writes_after_another_process_took_it_over_is_undone(
    engine: AsyncEngine, kind: str, log_url: str, noted: Noted
) -> None:
    async with system_with(log_url, spec_of(engine, kind, noted)) as system:
        await place_orders(system)
        await system.settled()
        async with engine.begin() as connection:  # later holders of the leases have begun
            await connection.execute(update(read_models).values(writer="another"))
        await system.publisher.publish(placed(100, amount=100))
        states = system.statistics
        await until(lambda: any(each.state == "standby" for each in states().handlers.values()))
        assert await listed(engine) == EVERY
        await until(lambda: all(each.state == "live" for each in states().handlers.values()))
        await system.settled()
    assert await listed(engine) == {**EVERY, "order-100": 100}
    assert (noted.rebuilds, noted.shows) == (1, 1)


async def test_two_systems_share_the_partitions(
    engine: AsyncEngine, kind: str, log_url: str, noted: Noted
) -> None:
    async with (
        system_with(log_url, spec_of(engine, kind, noted), name="a") as first,
        system_with(log_url, spec_of(engine, kind, noted), name="b") as second,
    ):
        await asyncio.gather(place_orders(first), second.publisher.publish(placed(100, amount=100)))
        # `settled` is about the partitions of one system.
        await until(lambda: has_listed(engine, {**EVERY, "order-100": 100}))
        await until(lambda: noted.shows == 1)
    assert await listed(engine) == {**EVERY, "order-100": 100}
    assert noted.rebuilds == 1


@pytest.mark.parametrize("log_url", [1], indirect=True)
async def test_another_number_of_partitions_needs_another_version(
    engine: AsyncEngine, kind: str, log_url: str, noted: Noted
) -> None:
    async with system_with(log_url, spec_of(engine, kind, noted)) as system:
        await place_orders(system)
        await system.settled()
    for partitioned, has in ((False, "none"), (2, "2 partitions")):
        changed = spec_of(engine, kind, noted, partitioned=partitioned)
        with pytest.raises(InvalidHandler, match=f"with 4 partitions, and it has {has} now.*new version"):
            async with system_with(log_url, changed):
                pass
    assert await listed(engine) == EVERY
    async with system_with(log_url, spec_of(engine, kind, noted, version=2, partitioned=False)) as system:
        await system.settled()
    assert await rows_of(engine) == {"Orders": False}
    with pytest.raises(InvalidHandler, match="with none, and it has 2 partitions now"):
        async with system_with(log_url, spec_of(engine, kind, noted, version=2, partitioned=2)):
            pass
    async with system_with(log_url, spec_of(engine, kind, noted, version=3, partitioned=2)) as system:
        await system.settled()
    assert sorted(await rows_of(engine)) == ["Orders@1of2", "Orders@2of2", "Orders@of2"]
    assert await listed(engine) == EVERY


@pytest.mark.parametrize("kind", ["sqlite", "plain functions"], indirect=True)
async def test_tables_that_outlived_a_log_in_memory_start_over_for_all_partitions(
    engine: AsyncEngine, kind: str, noted: Noted
) -> None:
    for rebuilds in (1, 2):
        async with system_with("memory:", spec_of(engine, kind, noted)) as system:
            await place_orders(system)
            await system.settled()
        assert await listed(engine) == EVERY
        assert (noted.rebuilds, noted.shows) == (rebuilds, rebuilds)


class PlaceOrderHere(Command[None]):
    amount: int


class OrderOfPartitions(AggregateRoot):
    aggregate_type = "Order"

    @handles
    def place(self, command: PlaceOrderHere) -> None:
        self.register_event(OrderPlacedHere(amount=command.amount))

    def apply_orderplacedhere(self, event: OrderPlacedHere) -> None: ...


@pytest.mark.parametrize("kind", ["postgres"], indirect=True)
async def test_a_caller_waits_for_the_partition_of_its_aggregate(
    engine: AsyncEngine, kind: str, log_url: str, noted: Noted
) -> None:
    spec = spec_of(engine, kind, noted)
    async with ActorSystem(log_url, aggregates=[OrderOfPartitions], handlers=[spec]) as system:
        for number in ORDERS:
            await system.aggregate(OrderOfPartitions, f"order-{number}").ask(
                PlaceOrderHere(amount=number), wait_for="Orders"
            )
            assert (await listed(engine))[f"order-{number}"] == number
