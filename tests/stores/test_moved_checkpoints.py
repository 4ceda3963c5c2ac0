"""Checkpoints that move with events: several processes, kills, lost leases, cut connections, a caller's transaction."""

import asyncio
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncEngine, AsyncSession, create_async_engine

from tests.faults import holder_stops_beating
from tests.new_stores import new_store_url
from tests.postgres import postgres
from tests.stores.test_lmdb_processes import line, program
from tests.stores.test_sql_faults import proxied
from tests.stores.test_sql_leases import TAKE_AND_STAY
from uno_actors import (
    Checkpoint,
    CheckpointConflict,
    ConcurrencyConflict,
    HandlerControl,
    LeaseLost,
    NoSuchStream,
    open_store,
)
from uno_actors.domain.events import EventRegistry
from uno_actors.store.expected_version import EXISTS
from uno_actors.testing.contract.events import Noted
from uno_stores.lmdb import LmdbEventStore
from uno_stores.sql import DatabaseEventStore, create_database_event_store

REGISTRY = EventRegistry([Noted])
UPSTREAM = 100


def noted(words: str = "") -> Noted:
    return Noted(aggregate_id="a", aggregate_type="Account", text=words)


# --- several processes -------------------------------------------------------------------------------------

CONSUMER = f"""
import asyncio, sys
from uno_actors import Checkpoint, CheckpointConflict, open_store
from uno_actors.testing.contract.events import Noted

async def main():
    async with open_store(sys.argv[1], create=False) as store:
        print("begins", flush=True)
        conflicts = 0
        while conflicts < 1000 and (done := (await store.checkpoints()).get("intake", 0)) < {UPSTREAM}:
            event = Noted(aggregate_id="log", aggregate_type="Intake", text=str(done + 1))
            try:
                await store.append(event, checkpoint=Checkpoint("intake", done + 1, was=done))
                print("recorded", done + 1, flush=True)
            except CheckpointConflict:
                conflicts += 1
        print("conflicts", conflicts, flush=True)

asyncio.run(main())
"""


@pytest.mark.parametrize("engine", ["lmdb", "sqlite", "postgres"])
async def test_processes_of_one_consumer_record_each_upstream_event_once_though_one_is_killed(
    engine: str, tmp_path: Path
) -> None:
    url = await new_store_url(engine, tmp_path)
    async with open_store(url, REGISTRY) as store:
        await store.append(checkpoint=Checkpoint("intake", 0))
        async with program(CONSUMER, url) as killed, program(CONSUMER, url) as other:
            for each in (killed, other):
                assert await line(each) == "begins"
            said = "begins"
            while said and not said.startswith("recorded"):  # the other one may have recorded all by then
                said = await line(killed)
            killed.kill()
            while not (said := await line(other)).startswith("conflicts"):
                assert said.startswith("recorded")
        recorded = [event.text async for _, event in store.read_all() if isinstance(event, Noted)]
        assert Counter(recorded) == {str(number): 1 for number in range(1, UPSTREAM + 1)}
        assert await store.checkpoints() == {"intake": UPSTREAM}


async def test_a_checkpoint_that_is_no_position_of_this_store_disturbs_no_list(tmp_path: Path) -> None:
    """Such as microseconds since 1970, or a position of a store with several logs."""
    async with open_store(f"lmdb:{tmp_path}/store", REGISTRY) as store:
        await store.append(noted("1"), checkpoint=Checkpoint("intake", 3 << 40))
        listed = await HandlerControl(store).handlers()
        assert [(each.name, each.position, each.lag) for each in listed] == [("intake", 3 << 40, 0)]
    run = await asyncio.to_thread(
        subprocess.run,
        [sys.executable, "-m", "uno_actors", "store", "info", "-s", f"lmdb:{tmp_path}/store"],
        capture_output=True,
        text=True,
        check=True,
    )
    assert "intake" in run.stdout


# --- leases ------------------------------------------------------------------------------------------------


async def test_events_with_the_checkpoint_of_a_handler_that_was_taken_over_are_refused(
    tmp_path: Path,
) -> None:
    """On LMDB; `test_sql_leases` has the same for databases."""
    url = f"lmdb:{tmp_path}/store"
    async with open_store(url, REGISTRY) as store:
        assert isinstance(store, LmdbEventStore)
        lease = await store.lease("sum")
        assert lease is not None
        await store.append(noted("1"), checkpoint=Checkpoint("sum", 1))
        # As any code of the process does that reads the file: to close it ends the locks on it.
        await asyncio.to_thread((store.path / "leases.lock").read_bytes)
        await asyncio.to_thread((store.path / "nodes" / holder_stops_beating(store)).unlink)
        async with program(TAKE_AND_STAY, url, "sum") as other:
            assert await line(other) == "taken"
            for name in ("sum", "sum@1"):
                with pytest.raises(LeaseLost, match="has taken over sum"):
                    await store.append(noted("late"), checkpoint=Checkpoint(name, 2))
            assert lease.is_lost
            await store.append(noted("2"), checkpoint=Checkpoint("audit", 2))
        assert await store.checkpoints() == {"sum": 1, "audit": 2}
        assert [event.text for event in await store.get_events("a") if isinstance(event, Noted)] == ["1", "2"]


# --- PostgreSQL --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("cut", ["before", "after"])
@pytest.mark.parametrize("events", [0, 1], ids=["alone", "with an event"])
async def test_a_move_whose_connection_is_cut_at_the_commit_is_done_once(cut: str, events: int) -> None:
    async with proxied() as (proxy, store, direct):
        await store.append(checkpoint=Checkpoint("intake", 1))
        proxy.cut = cut
        await store.append(*[noted("second")] * events, checkpoint=Checkpoint("intake", 2, was=1))
        assert proxy.cuts == 1
        assert await direct.checkpoints() == {"intake": 2}
        assert await direct.last_position() == 1 + events


async def test_a_refused_first_move_leaves_no_checkpoint_and_waits_for_the_transaction_that_made_one() -> (
    None
):
    """A checkpoint that does not exist yet cannot be locked, and two transactions want to make it."""
    url = await postgres().new_url()
    engine = create_async_engine(url)
    async with await _created(engine) as store, AsyncSession(engine) as session:
        with pytest.raises(NoSuchStream):
            await store.append(noted(), expected_version=EXISTS, checkpoint=Checkpoint("intake", 1))
        assert await store.checkpoints() == {}
        await store.append(noted("first"), checkpoint=Checkpoint("intake", 1, was=0), session=session)
        late = asyncio.create_task(store.append(noted("late"), checkpoint=Checkpoint("intake", 1, was=0)))
        await _one_waits_for_a_lock()
        assert await store.checkpoints() == {}
        await session.commit()
        with pytest.raises(CheckpointConflict, match="is at 1, not at 0"):
            await late
        assert await store.checkpoints() == {"intake": 1}
        assert await store.last_position() == 1
    await engine.dispose()


async def _created(engine: AsyncEngine) -> DatabaseEventStore:
    return await create_database_event_store(lambda: AsyncSession(engine), event_registry=REGISTRY)


async def _one_waits_for_a_lock() -> None:
    connection = await postgres().connect()
    waiting = (
        "SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND query LIKE '%checkpoints%'"
    )
    while not await connection.fetchval(waiting):  # noqa: ASYNC110 - the server does not say when
        await asyncio.sleep(0.005)
    await connection.close()


# --- in the caller's transaction ---------------------------------------------------------------------------


@pytest.fixture(params=["sqlite", "postgres"])
async def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    return await new_store_url(request.param, tmp_path)


async def test_a_checkpoint_moves_in_the_transaction_of_the_caller_or_not_at_all(url: str) -> None:
    engine = create_async_engine(url)
    async with await _created(engine) as store:
        async with AsyncSession(engine) as session:
            await store.append(noted("1"), checkpoint=Checkpoint("intake", 1), session=session)
            await session.rollback()
        assert await store.checkpoints() == {}
        async with AsyncSession(engine) as session:
            with pytest.raises(ConcurrencyConflict):
                await store.append(
                    noted(), expected_version=3, checkpoint=Checkpoint("intake", 1), session=session
                )
            await store.append(noted("1"), checkpoint=Checkpoint("intake", 1), session=session)
            with pytest.raises(CheckpointConflict):
                await store.append(noted("1"), checkpoint=Checkpoint("intake", 1), session=session)
            await session.execute(text("SELECT 1"))
            await store.append(checkpoint=Checkpoint("intake", 5, was=1), session=session)
            await session.commit()
        assert await store.checkpoints() == {"intake": 5}
        assert await store.last_position() == 1
    await engine.dispose()
