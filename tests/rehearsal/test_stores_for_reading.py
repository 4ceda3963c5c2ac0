"""Stores that are opened for reading only: everything is read, nothing is written."""

import subprocess
import sys
from collections.abc import AsyncIterator
from importlib.metadata import EntryPoint
from pathlib import Path

import pytest

from tests.new_stores import new_store_url
from tests.rehearsal.programs import contents, copied
from uno_actors import DomainEvent, EventRegistry, StoreUnavailable, UnoError, open_store
from uno_actors.store import opening
from uno_actors.store.port import EventStore


class KeptToRead(DomainEvent):
    n: int


REGISTRY = EventRegistry([KeptToRead])


async def filled(engine: str, directory: Path) -> str:
    url = await new_store_url(engine, directory)
    async with open_store(url, REGISTRY) as store:
        for n in (1, 2, 3):
            await store.append(KeptToRead(n=n, aggregate_type="Kept", aggregate_id="a"))
        await store.save_progress({"reader": 2})
    return url


async def read(store: EventStore) -> list[int]:
    found: AsyncIterator[object] = store.read_all()
    return [recorded.event.n async for recorded in found]  # type: ignore[attr-defined]


@pytest.mark.parametrize("engine", ["lmdb", "sqlite", "postgres"])
async def test_all_is_read_and_writes_are_refused(engine: str, tmp_path: Path) -> None:
    url = await filled(engine, tmp_path)
    async with open_store(url, REGISTRY, read_only=True) as store:
        assert await read(store) == [1, 2, 3]
        assert await store.checkpoints() == {"reader": 2}
        with pytest.raises(UnoError):
            await store.append(KeptToRead(n=4))
        with pytest.raises(UnoError):
            await store.save_progress({"reader": 3})
        assert await read(store) == [1, 2, 3]
    async with open_store(url, REGISTRY) as store:  # it is as it was, and can be written
        assert await store.checkpoints() == {"reader": 2}
        await store.append(KeptToRead(n=5))
        assert await read(store) == [1, 2, 3, 5]


@pytest.mark.parametrize("engine", ["lmdb", "sqlite"])
async def test_none_is_made_where_there_is_none(engine: str, tmp_path: Path) -> None:
    with pytest.raises(StoreUnavailable, match="there is no"):
        open_store(await new_store_url(engine, tmp_path), REGISTRY, read_only=True)
    assert not contents(tmp_path)


def test_one_in_memory_has_nothing_to_read() -> None:
    with pytest.raises(StoreUnavailable, match="its own process only"):
        open_store("memory:", read_only=True)


async def test_a_backup_keeps_its_files_and_gets_no_others(tmp_path: Path) -> None:
    await filled("lmdb", tmp_path)
    backup = copied(tmp_path / "store", tmp_path / "backup")
    before = contents(backup)
    async with open_store(f"lmdb:{backup}", REGISTRY, read_only=True) as store:
        assert await read(store) == [1, 2, 3]
    assert contents(backup) == before


READER = """\
import asyncio, sys
from uno_actors import open_store

async def main():
    async with open_store(sys.argv[1], read_only=True) as store:
        while sys.stdin.readline():
            print(*[record.event_type for _, record in await store.read_log()], flush=True)

asyncio.run(main())
"""


async def test_a_store_in_use_is_read_while_it_grows(tmp_path: Path) -> None:
    url = f"lmdb:{tmp_path / 'store'}"
    async with open_store(url, REGISTRY) as writing:
        command = [sys.executable, "-c", READER, url]
        with subprocess.Popen(  # noqa: ASYNC220 - the writer need not run meanwhile
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        ) as reading:
            assert reading.stdin
            assert reading.stdout
            for count in (1, 2):
                await writing.append(KeptToRead(n=count))
                print(file=reading.stdin, flush=True)
                assert reading.stdout.readline().split() == ["KeptToRead"] * count
            reading.stdin.close()
        assert reading.returncode == 0


def open_always(url: str, registry: EventRegistry, *, create: bool = True) -> EventStore:
    """Of a package that knows nothing of reading only."""
    raise AssertionError((url, registry, create))


def test_a_store_that_cannot_be_opened_so_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    entry = EntryPoint("other", f"{__name__}:open_always", "uno_actors.stores")
    monkeypatch.setattr(opening, "store_openers", lambda: {"other": entry})
    with pytest.raises(StoreUnavailable, match="cannot be opened for reading only"):
        open_store("other:x", read_only=True)
