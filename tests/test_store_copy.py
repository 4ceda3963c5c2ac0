"""Copies between stores: everything is copied, an interrupted copy resumes, and a difference is refused."""

import asyncio
import itertools
from collections.abc import AsyncIterator, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from tests.crash_worker import Account, Counts, Deposit
from tests.postgres import postgres
from uno_actors import ActorSystem, DeadLetter, StoreUnavailable, UnoError, open_store, published_view
from uno_actors.cli import app as cli
from uno_actors.cli.store_copy import CopyRefused, copy_store
from uno_actors.domain.events import EventRegistry
from uno_actors.store.port import EventStore
from uno_actors.store.records import Append, Appended, StoredRecord
from uno_actors.testing.contract.events import Noted

MOMENT = datetime(2024, 6, 1, tzinfo=UTC)
LETTER = DeadLetter("mail", 2, "PartDeposited", 3, "E: e", "Traceback\n", MOMENT, MOMENT)


def unheard(done: int, total: int) -> None:
    """Progress that is not shown."""


async def everything(store: EventStore) -> tuple[list[StoredRecord], dict[str, int], list[DeadLetter], Any]:
    records = [stored async for stored in store.read_records()]
    view = await published_view(store, Counts).range()
    return records, await store.checkpoints(), await store.dead_letters(), view


@pytest.fixture
async def source(tmp_path: Path) -> str:
    """The URL of an LMDB store with handled commands, a projection, and progress."""
    url = f"lmdb:{tmp_path}/source"
    async with ActorSystem(url, aggregates=[Account], handlers=[Counts]) as system:
        for number in range(40):
            account = system.aggregate(Account, f"account-{number % 3}")
            await account.ask(Deposit(command_id=f"c{number}", token=f"{number}", parts=1 + number % 3))
        await system.settled()
        await system.store.save_progress({"mail": 2}, [LETTER])
    return url


def copy(source: str, target: str, *, fails: bool = False) -> str:
    result = CliRunner().invoke(cli.app, ["store", "copy", source, target])
    assert bool(result.exit_code) == fails, result.output + repr(result.exception)
    return result.output if not fails else str(result.exception)


async def test_lmdb_to_postgres_to_sqlite_and_back_gives_the_same(source: str, tmp_path: Path) -> None:
    urls = [
        source,
        await postgres().new_url(),
        f"sqlite+aiosqlite:///{tmp_path}/copy.db",
        f"lmdb:{tmp_path}/back",
    ]
    async with open_store(source) as store:
        wanted = await everything(store)
        assert len(wanted[0]) == 79
        assert wanted[3]
    for before, after in itertools.pairwise(urls):
        said = await asyncio.to_thread(copy, before, after)
        assert said == "79 events copied; 1 view; all are equal\n"
        async with open_store(after) as store:
            assert await everything(store) == wanted
    async with ActorSystem(urls[-1], aggregates=[Account], handlers=[Counts]) as system:
        account = system.aggregate(Account, "account-0")
        reply = await account.ask(Deposit(command_id="c0", token="0", parts=1))  # noqa: S106
        assert reply == 1  # what was answered before is remembered
        assert system.statistics().handlers["counts"].handled == 0  # and nothing is counted again


async def test_an_interrupted_copy_resumes_where_it_was(source: str, tmp_path: Path) -> None:
    target = f"sqlite+aiosqlite:///{tmp_path}/copy.db"
    async with open_store(source) as store, open_store(target) as other:
        first = [stored.record for stored in await store.read_log(limit=30)]
        await other.commit([Append(tuple(first))])
    assert (
        await asyncio.to_thread(copy, source, target)
        == "49 events copied, 30 were there already; 1 view; all are equal\n"
    )
    assert (
        await asyncio.to_thread(copy, source, target)
        == "0 events copied, 79 were there already; 1 view; all are equal\n"
    )
    async with open_store(source) as store, open_store(target) as other:
        assert await everything(other) == await everything(store)


async def test_progress_is_reported_up_to_the_end(source: str) -> None:
    told: list[tuple[int, int]] = []
    async with open_store(source) as store, open_store("memory:") as other:
        await copy_store(store, other, lambda done, total: told.append((done, total)))
    assert told[-1] == (158, 158)
    assert told == sorted(told)


def noted(*texts: str) -> list[Noted]:
    return [Noted(aggregate_id="a", aggregate_type="Account", text=text) for text in texts]


@pytest.fixture
async def stores() -> AsyncIterator[tuple[EventStore, EventStore]]:
    registry = EventRegistry([Noted])
    async with open_store("memory:", registry) as source, open_store("memory:", registry) as target:
        yield source, target


Stores = tuple[EventStore, EventStore]


async def test_a_target_with_other_events_is_refused_and_left_as_it_was(stores: Stores) -> None:
    source, target = stores
    await source.append(*noted("1", "2", "3"))
    await target.append(*noted("1", "other"))
    before = await target.read_log()
    with pytest.raises(CopyRefused, match="another event at position 1"):
        await copy_store(source, target, unheard)
    assert await target.read_log() == before
    with pytest.raises(CopyRefused, match="the target has 3 events and the source 2"):
        await copy_store(target, source, unheard)


async def test_a_target_that_changes_events_is_detected(stores: Stores, monkeypatch: Any) -> None:
    source, target = stores
    await source.append(*noted("1", "2"))
    commit = target.commit

    async def changed(requests: Sequence[Append]) -> list[Appended | UnoError]:
        return await commit([Append(tuple(r._replace(topic="x") for r in each.records)) for each in requests])

    monkeypatch.setattr(target, "commit", changed)
    with pytest.raises(CopyRefused, match="another event at position 1"):
        await copy_store(source, target, unheard)


async def test_a_source_that_grows_is_reported_and_the_next_copy_resumes(stores: Stores) -> None:
    source, target = stores
    await source.append(*noted("1", "2"))
    read = source.checkpoints

    async def checkpoints() -> dict[str, int]:
        await source.append(*noted("3"))
        return await read()

    source.checkpoints = checkpoints  # type: ignore[method-assign]
    with pytest.raises(CopyRefused, match="has grown during the copy"):
        await copy_store(source, target, unheard)
    source.checkpoints = read  # type: ignore[method-assign]
    assert (await copy_store(source, target, unheard)).known == 2
    assert await target.read_log() == await source.read_log()


async def test_a_target_with_its_own_checkpoints_is_refused(stores: Stores) -> None:
    source, target = stores
    await source.append(*noted("1"))
    await target.save_progress({"audit": 1})
    with pytest.raises(CopyRefused, match="checkpoints"):
        await copy_store(source, target, unheard)


async def test_a_target_with_its_own_dead_letters_is_refused(stores: Stores) -> None:
    """As after an interrupted copy, if the source's was retried or dropped before the copy was resumed."""
    source, target = stores
    await source.append(*noted("1", "2"))
    await source.save_progress({}, [LETTER._replace(position=1)])
    await target.save_progress({}, [LETTER])
    with pytest.raises(CopyRefused, match="dead letters"):
        await copy_store(source, target, unheard)


def test_a_missing_source_is_reported(tmp_path: Path) -> None:
    result = CliRunner().invoke(cli.app, ["store", "copy", f"lmdb:{tmp_path}/none", f"lmdb:{tmp_path}/new"])
    assert isinstance(result.exception, StoreUnavailable)
    assert not (tmp_path / "new").exists()
