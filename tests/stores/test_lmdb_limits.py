"""The LMDB store at its limits: growth, full maps and disks, things too large, and writers that fail midway."""

import asyncio
import os
import shutil
import subprocess
import sys
import threading
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any

import lmdb
import pytest

import uno_stores.lmdb.environment
import uno_stores.lmdb.errors
import uno_stores.lmdb.writer
from tests.faults import environment_fails, writer_waits
from tests.machine import patience
from tests.waiting import turns, until
from uno_actors.domain.events import EventRegistry
from uno_actors.errors import (
    EventNotSerializable,
    InvalidHandler,
    InvalidStoreUrl,
    OutcomeUnknown,
    StoreFull,
    StoreUnavailable,
)
from uno_actors.store.opening import check_store_url, open_store
from uno_actors.store.records import DeadLetter
from uno_actors.testing.contract.events import Noted
from uno_stores.lmdb import LmdbEventStore, open_url

REGISTRY = EventRegistry([Noted])
MIB = 1 << 20


def noted(aggregate_id: str = "a", text: str = "") -> Noted:
    return Noted(aggregate_id=aggregate_id, aggregate_type="Account", text=text)


def open_at(path: Path, **options: Any) -> LmdbEventStore:
    return LmdbEventStore(path, REGISTRY, **options)


async def texts(store: LmdbEventStore, aggregate_id: str = "a") -> list[str]:
    return [event.text for event in await store.get_events(aggregate_id) if isinstance(event, Noted)]


def map_size(store: LmdbEventStore) -> int:
    return store.statistics().map_size


def run_program(program: str, *arguments: str | Path) -> str:
    command = [sys.executable, "-c", program, *map(str, arguments)]
    run = subprocess.run(command, check=False, capture_output=True, text=True)
    assert run.returncode == 0, (run.returncode, run.stderr)
    return run.stdout


# --- options -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("durability", "metasync"), [("fsync", True), ("relaxed", False)])
async def test_durability_is_that_of_lmdbs_flags(tmp_path: Path, durability: str, metasync: bool) -> None:
    async with open_url(f"lmdb:{tmp_path}?durability={durability}", REGISTRY) as store:
        flags = store.statistics().flags
        assert ("sync" in flags, "metasync" in flags, "writemap" in flags) == (True, metasync, False)
        await store.append(noted(text="kept"))
    async with open_at(tmp_path) as store:
        assert await texts(store) == ["kept"]


async def test_url_sets_the_limits(tmp_path: Path) -> None:
    url = f"lmdb:{tmp_path}?map_size={2 * MIB}&max_size={4 * MIB}&max_event_size=1000"
    async with open_url(url, REGISTRY) as store:
        assert map_size(store) == 2 * MIB
        with pytest.raises(EventNotSerializable, match=r"the limit is 1,000"):
            await store.append(noted(text="x" * 1000))
        with pytest.raises(StoreFull, match=r"its limit of 4,194,304 bytes"):
            for _ in range(10_000):
                await store.append(*[noted(text="x" * 800)] * 100)


WRONG = {
    # query: part of the message
    "durabilty=fsync": r"unknown option durabilty; options are durability, map_size, max_size, max_event_size",
    "durability=none": r"durability must be 'fsync' or 'relaxed'; found 'none'",
    "map_size=lots": r"a size is a number of bytes",
    "map_size=10": r"map_size must be at least 1,048,576 bytes; found 10",
    "max_size=10": r"max_size must be at least 1,048,576 bytes; found 10",
    "max_event_size=0": r"max_event_size must be a whole number, 1 or more",
    "map_size=2000000&map_size=3000000": r"an option is given twice",
}


@pytest.mark.parametrize(("query", "text"), WRONG.items(), ids=WRONG)
def test_wrong_option_is_refused_and_the_allowed_ones_are_named(
    tmp_path: Path, query: str, text: str
) -> None:
    with pytest.raises(InvalidStoreUrl, match=text):
        open_url(f"lmdb:{tmp_path}/store?{query}", REGISTRY)
    assert not (tmp_path / "store").exists()


# --- growth ------------------------------------------------------------------------------------------------


async def test_map_grows_while_readers_are_active(tmp_path: Path) -> None:
    async with open_at(tmp_path, map_size=MIB) as store:
        await store.append(noted(text="first"))
        stop = threading.Event()
        pages: list[int] = []
        errors: list[BaseException] = []

        async def read() -> None:
            while not stop.is_set():
                pages.append(len(await store.read_log()))

        def reader() -> None:
            try:
                asyncio.run(read())
            except BaseException as error:  # noqa: BLE001 - shown by the assertion below
                errors.append(error)

        threads = [threading.Thread(target=reader) for _ in range(3)]
        for thread in threads:
            thread.start()
        try:
            for number in range(100):
                await store.append(noted(text=f"{number} " + "x" * 100_000), expected_version=number + 1)
        finally:
            stop.set()
            for thread in threads:
                thread.join(patience(30))
        assert errors == []
        assert len(pages) > 3
        assert map_size(store) == 16 * MIB
        assert [text.split()[0] for text in await texts(store)] == ["first", *map(str, range(100))]


async def test_append_larger_than_the_map_makes_it_grow_at_once(tmp_path: Path) -> None:
    async with open_at(tmp_path, map_size=MIB) as store:
        await store.append(noted(text="x" * 5 * MIB))
        assert map_size(store) == 8 * MIB
        assert [len(text) for text in await texts(store)] == [5 * MIB]


GROW = """
import asyncio, sys
from uno_stores.lmdb import LmdbEventStore
from uno_actors.testing.contract.events import Noted

async def main():
    async with LmdbEventStore(sys.argv[1], map_size=1 << 20) as store:
        for number in range(3):
            event = Noted(aggregate_id="a", aggregate_type="Account", text=f"theirs {number}" + " " * 2_000_000)
            await store.append(event)

asyncio.run(main())
"""


async def test_map_that_another_process_makes_grow_while_it_is_read(tmp_path: Path) -> None:
    async with open_at(tmp_path, map_size=MIB) as store:
        await store.append(*[noted(text="ours") for _ in range(1_000)])
        found: list[int] = []

        async def read() -> None:
            while not found or found[-1] < 1_003:
                found.append(len(await store.read_log(limit=2_000)))

        readers = [asyncio.to_thread(asyncio.run, read()) for _ in range(4)]
        await asyncio.gather(asyncio.to_thread(run_program, GROW, tmp_path), *readers)
        assert set(found) <= {1_000, 1_001, 1_002, 1_003}


@pytest.mark.parametrize("first", ["read", "write"])
async def test_map_that_another_process_has_made_grow_is_read_and_written(tmp_path: Path, first: str) -> None:
    async with open_at(tmp_path, map_size=MIB) as store:
        await store.append(noted(text="ours"))
        await asyncio.to_thread(run_program, GROW, tmp_path)
        if first == "write":
            await store.append(noted(text="ours"), expected_version=4)
        found = [text.strip() for text in await texts(store)]
        assert found == ["ours", "theirs 0", "theirs 1", "theirs 2", *["ours"] * (first == "write")]


ADDRESS_SPACE = """
import asyncio, resource, sys
from uno_stores.lmdb import LmdbEventStore
from uno_actors.errors import StoreFull
from uno_actors.testing.contract.events import Noted

def noted(text):
    return Noted(aggregate_id="a", aggregate_type="Account", text=text)

async def main():
    async with LmdbEventStore(sys.argv[1], map_size=64 << 20, max_event_size=1 << 30) as store:
        await store.append(noted("small"))
        used = int(open("/proc/self/statm").read().split()[0]) * resource.getpagesize()
        resource.setrlimit(resource.RLIMIT_AS, (used + (400 << 20), resource.RLIM_INFINITY))
        try:
            for _ in range(16):
                await store.append(*[noted("x" * (1 << 20))] * 32)
        except StoreFull as error:
            print(error)
        await store.append(noted("small"))
        print(len(await store.get_events("a")) % 32)

asyncio.run(main())
"""


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_address_space_that_is_used_up_fills_the_store_and_nothing_else(tmp_path: Path) -> None:
    said = run_program(ADDRESS_SPACE, tmp_path)
    assert "there is no address space for more" in said
    assert said.endswith("\n2\n")


# --- full disks --------------------------------------------------------------------------------------------

FILE_LIMIT = """
import asyncio, os, resource, sys
from uno_stores.lmdb import LmdbEventStore
from uno_actors.errors import StoreFull
from uno_actors.testing.contract.events import Noted

def noted(aggregate_id, size):
    return Noted(aggregate_id=aggregate_id, aggregate_type="Account", text="x" * size)

def limit(size):
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, resource.RLIM_INFINITY))

async def main(path, size):
    async with LmdbEventStore(path) as store:
        await store.append(noted("a", 10), noted("b", 10))
        limit(int(size))
        refused = appended = 0
        while refused < 5:
            try:
                await store.append(noted("a", size=30_000), noted("b", 30_000))
                appended += 1
            except StoreFull as error:
                refused += 1
                print(error)
        assert len(await store.get_events("a")) == len(await store.get_events("b")) == appended + 1
        limit(resource.RLIM_INFINITY)
        await store.append(noted("a", 30_000), noted("b", 30_000), expected_version=None)
        assert await store.last_position() == 2 * appended + 4
        print(appended)

asyncio.run(main(*sys.argv[1:]))
"""


@pytest.mark.parametrize("size", [400_000, 1_234_567])
def test_largest_file_of_the_process_is_a_full_disk_until_it_may_be_larger(tmp_path: Path, size: int) -> None:
    said = run_program(FILE_LIMIT, tmp_path, str(size))
    assert "make room on the disk" in said
    assert int(said.split()[-1]) > 2


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 4 MiB."""
    path = tmp_path / "disk"
    path.mkdir()
    mount = shutil.which("mount")
    command = [mount or "mount", "-t", "tmpfs", "-o", "size=4m", "tmpfs", str(path)]
    if (
        mount is None
        or os.getuid() != 0
        or subprocess.run(command, check=False, capture_output=True).returncode
    ):
        pytest.skip("file systems cannot be mounted here")
    yield path
    subprocess.run([shutil.which("umount") or "umount", str(path)], check=True)


FULL_DISK = """
import asyncio, os, sys
from uno_stores.lmdb import LmdbEventStore
from uno_actors.errors import StoreFull
from uno_actors.testing.contract.events import Noted

def noted(aggregate_id, size):
    return Noted(aggregate_id=aggregate_id, aggregate_type="Account", text="x" * size)

def fill(path):
    file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    for size in (65536, 4096, 1):
        try:
            while True:
                os.write(file, bytes(size))
        except OSError as error:
            print(error)
    os.close(file)

async def main(disk):
    open(disk + "/others", "wb").write(bytes(1 << 20))
    async with LmdbEventStore(disk + "/store") as store:
        appended = 0
        try:
            while True:
                await store.append(noted("a", 3_000), noted("b", 9_000))
                appended += 1
        except StoreFull:
            pass
        fill(disk + "/others")
        for size in (1, 2_000, 300_000):
            try:
                await store.append(noted("a", size), noted("b", size))
            except StoreFull as error:
                print(error)
            else:
                appended += 1  # LMDB had pages of its own left
        readers = [store._environment.env.begin() for _ in range(1_000)]  # each takes a place in the lock file
        for reader in readers:
            reader.abort()
        assert len(await store.get_events("a")) == len(await store.get_events("b")) == appended
        os.remove(disk + "/others")
        await store.append(noted("a", 3_000), noted("b", 9_000))
    async with LmdbEventStore(disk + "/store") as store:
        assert len(await store.get_events("a")) == len(await store.get_events("b")) == appended + 1
    fill(disk + "/others")
    try:
        LmdbEventStore(disk + "/another")
    except StoreFull as error:
        print(error)

asyncio.run(main(*sys.argv[1:]))
"""


def test_full_disk_refuses_whole_appends_kills_nobody_and_works_again_when_there_is_room(
    small_disk: Path,
) -> None:
    said = run_program(FULL_DISK, small_disk)
    assert "No space left on device" in said
    assert said.count("make room on the disk") >= 2


# --- things too large --------------------------------------------------------------------------------------


async def test_event_beyond_the_limit_is_refused_alone(tmp_path: Path) -> None:
    async with open_at(tmp_path, max_event_size=10_000) as store:
        outcomes = await asyncio.gather(
            *[store.append(noted(text="x" * size)) for size in (1, 9_000, 10_000, 1)], return_exceptions=True
        )
        assert [type(outcome) for outcome in outcomes] == [list, list, EventNotSerializable, list]
        assert "the limit is 10,000 (the store's max_event_size)" in str(outcomes[2])
        assert [len(text) for text in await texts(store)] == [1, 9_000, 1]


async def test_event_of_sixteen_mebibytes_is_the_largest_unless_the_store_is_told_otherwise(
    tmp_path: Path,
) -> None:
    async with open_at(tmp_path) as store:
        with pytest.raises(EventNotSerializable, match="the limit is 16,777,216"):
            await store.append(noted(text="x" * 16 * MIB))
        assert await store.last_position() == 0


async def test_longest_handler_name_fits_and_a_longer_one_is_refused_with_the_limit(tmp_path: Path) -> None:
    async with open_at(tmp_path) as store:
        ((_, event),) = await store.append(noted())
        longest = "n" * 502
        letter = DeadLetter(longest, 1, "Noted", 1, "E", "T", event.timestamp, event.timestamp)
        await store.save_progress({longest: 1}, [letter])
        assert await store.checkpoints() == {longest: 1}
        assert await store.dead_letters(longest) == [letter]
        with pytest.raises(InvalidHandler, match="it has 503 bytes; at most 502 are allowed"):
            await store.save_progress({longest + "n": 1})


async def test_page_is_bounded_by_bytes_too(tmp_path: Path) -> None:
    async with open_at(tmp_path) as store:
        await store.append(*[noted(text="x" * MIB) for _ in range(10)])
        first = await store.read_log()
        assert 4 <= len(first) < 7
        assert [each.position for each in first] == list(range(1, len(first) + 1))
        assert len(await texts(store)) == 10
        assert len([event async for event in store.read_all()]) == 10
        assert await store.read_log(limit=0) == []


# --- readers that died -------------------------------------------------------------------------------------

DIE_READING = """
import os, sys, lmdb
env = lmdb.open(sys.argv[1], max_dbs=8)
reader = env.begin()
os.kill(os.getpid(), 9)
"""


async def test_reader_that_died_is_forgotten_after_a_while(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(uno_stores.lmdb.writer, "CHECK_READERS_EVERY", 0.05)
    async with open_at(tmp_path) as store:
        dead = await asyncio.create_subprocess_exec(sys.executable, "-c", DIE_READING, str(tmp_path))
        assert await dead.wait() == -9
        await until(lambda: store.statistics().readers == 0)


# --- writers that fail midway ------------------------------------------------------------------------------


class Faults:
    """Where the next write transaction fails, and how."""

    def __init__(self, step: str, error: Exception) -> None:
        self.step = step
        self.error = error
        self.panicked = False

    def at(self, step: str) -> None:
        if step == self.step:
            self.step = ""
            raise self.error


class FaultyEnvironment:
    def __init__(self, env: lmdb.Environment, faults: Faults) -> None:
        self._env = env
        self._faults = faults

    def __getattr__(self, name: str) -> Any:
        return getattr(self._env, name)

    def begin(self, *, write: bool = False) -> Any:
        if self._faults.panicked:
            raise lmdb.PanicError("mdb_txn_begin: MDB_PANIC: Update of meta page failed")
        if not write:
            return self._env.begin()
        self._faults.at("begin")
        return FaultyTransaction(self._env.begin(write=True), self._faults)


class FaultyTransaction:
    def __init__(self, txn: lmdb.Transaction, faults: Faults) -> None:
        self._txn = txn
        self._faults = faults
        self._cursors = 0

    def __getattr__(self, name: str) -> Any:
        return getattr(self._txn, name)

    def cursor(self, db: Any) -> "FaultyCursor":
        return FaultyCursor(self._txn.cursor(db), self._faults)

    def commit(self) -> None:
        if self._faults.step == "before commit":
            self._txn.abort()  # as LMDB does
        self._faults.at("before commit")
        if self._faults.step == "meta page":
            self._faults.panicked = True
            self._txn.abort()
            self._faults.at("meta page")
        self._txn.commit()
        self._faults.at("after commit")


class FaultyCursor:
    puts = 0

    def __init__(self, cursor: lmdb.Cursor, faults: Faults) -> None:
        self._cursor = cursor
        self._faults = faults

    def __getattr__(self, name: str) -> Any:
        return getattr(self._cursor, name)

    def __enter__(self) -> "FaultyCursor":
        return self

    def __exit__(self, *_: object) -> None:
        self._cursor.close()

    def putmulti(self, items: Any, **options: Any) -> None:
        self._faults.at("before put" if options else "between databases")
        half = len(items) // 2
        self._cursor.putmulti(items[:half], **options)
        self._faults.at("between puts")
        self._cursor.putmulti(items[half:], **options)


IO_ERROR = lmdb.Error("mdb_txn_commit: Input/output error")
FULL = lmdb.DiskError("mdb_txn_commit: No space left on device")
FULL.code = 28
FAULTS = {
    # name: (step, error, what each of the appends is told; None if it is recorded, at another attempt)
    "no transaction": ("begin", lmdb.Error("mdb_txn_begin: no"), None),
    "before put": ("before put", IO_ERROR, None),
    "between puts": ("between puts", IO_ERROR, None),
    "between databases": ("between databases", IO_ERROR, None),
    "no memory between puts": ("between puts", MemoryError(), None),
    "map full between puts": ("between puts", lmdb.MapFullError("mdb_put: MDB_MAP_FULL"), None),
    "map full at commit": ("before commit", lmdb.MapFullError("mdb_txn_commit: MDB_MAP_FULL"), None),
    "disk full at commit": ("before commit", FULL, StoreFull),
    "disk fails at commit": ("before commit", IO_ERROR, StoreUnavailable),
    "meta page fails": ("meta page", IO_ERROR, OutcomeUnknown),
    "no memory at commit": ("before commit", MemoryError(), OutcomeUnknown),
    "after commit": ("after commit", RuntimeError("struck by lightning"), OutcomeUnknown),
}


@pytest.mark.parametrize(("step", "error", "told"), FAULTS.values(), ids=FAULTS)
async def test_fault_of_the_writer_loses_nothing_halves_nothing_and_is_told_as_what_is_known(
    tmp_path: Path, step: str, error: Exception, told: type[Exception] | None
) -> None:
    async with open_at(tmp_path, map_size=MIB) as store:
        await store.append(noted("a", "first"), noted("b", "first"))
        faults = Faults(step, error)
        both = [store.append(noted("a", f"{n}"), noted("b", f"{n}")) for n in range(5)]
        outcomes = await _together(store, faults, both)
        assert faults.step == "", "the fault was not met"
        if told is None:
            assert [outcome for outcome in outcomes if isinstance(outcome, Exception)] == []
        else:
            assert {type(outcome) for outcome in outcomes if isinstance(outcome, Exception)} == {told}
        acknowledged = [f"{n}" for n, outcome in enumerate(outcomes) if not isinstance(outcome, Exception)]
        recorded = await texts(store)
        assert recorded == await texts(store, "b")
        assert recorded[0] == "first"
        assert set(acknowledged) <= set(recorded)
        if told is not OutcomeUnknown:
            assert set(recorded[1:]) == set(acknowledged)  # what was refused is not there
        assert len(recorded) == len(set(recorded))
        await store.append(noted("a", "last"), expected_version=len(recorded))  # the writer lives
        assert await store.last_position() == 2 * len(recorded) + 1
    async with open_at(tmp_path) as store:
        assert await texts(store) == [*recorded, "last"]


async def test_disk_that_is_gone_answers_each_append_and_the_writer_lives(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def gone(_: object) -> object:
        raise OSError(5, "Input/output error")

    async with open_at(tmp_path) as store:
        faults = Faults("before commit", IO_ERROR)
        environment_fails(store, lambda env: FaultyEnvironment(env, faults))
        with monkeypatch.context() as patch:
            patch.setattr(uno_stores.lmdb.errors, "is_full", gone)
            with pytest.raises(StoreUnavailable, match="Input/output error"):
                await asyncio.wait_for(store.append(noted("a", "first")), patience(5))
        await store.append(noted("a", "second"))
        assert await texts(store) == ["second"]


async def _together(store: LmdbEventStore, faults: Faults, work: list[Awaitable[Any]]) -> list[Any]:
    """Do it in one or two groups: the writer waits until all has been handed over."""
    with writer_waits(store):
        environment_fails(store, lambda env: FaultyEnvironment(env, faults))
        tasks = [asyncio.ensure_future(each) for each in work]
        await turns()
    return await asyncio.gather(*tasks, return_exceptions=True)


async def test_environment_that_cannot_be_opened_again_is_tried_at_each_use(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with open_at(tmp_path) as store:
        await store.append(noted("a", "first"))
        faults = Faults("meta page", IO_ERROR)
        environment_fails(store, lambda env: FaultyEnvironment(env, faults))
        with pytest.raises(OutcomeUnknown):
            await store.append(noted("a", "unknown"))

        def fails(*_: object) -> lmdb.Environment:
            raise StoreUnavailable("lmdb:", "the disk is away")

        with monkeypatch.context() as patch:
            patch.setattr(uno_stores.lmdb.environment, "open_environment", fails)
            uses: list[Callable[[], Awaitable[Any]]] = [
                lambda: store.append(noted()),
                store.last_position,
                store.last_position,
            ]
            for use in uses:
                with pytest.raises(StoreUnavailable, match="the disk is away"):
                    await use()
        assert await texts(store) == ["first"]
        await store.append(noted("a", "last"))


URLS = {
    # what stands behind the path: what the option is
    "max_size=64MiB": 64 * MIB,
    "max_size=67108864": 64 * MIB,
    "max_size=1.5GiB": 3 << 29,
    "max_event_size=2KB": 2000,
}


@pytest.mark.parametrize(("query", "wanted"), URLS.items(), ids=URLS)
async def test_size_in_a_url_is_written_as_in_a_configuration_file(
    tmp_path: Path, query: str, wanted: int
) -> None:
    async with open_url(f"lmdb:{tmp_path}/store?{query}", REGISTRY) as store:
        assert isinstance(store, LmdbEventStore)
        of_events = query.startswith("max_event_size")
        assert (store.max_event_size if of_events else store.statistics().max_size) == wanted


BAD_URLS = {
    "lmdb://data/x": "behind '//' a server is named.*write 'lmdb:data/x'.*or 'lmdb:/data/x'",
    "lmdb:~/bank": "'~' stands for no directory here",
    "lmdb:~": "'~' stands for no directory here",
    "sqlite+aiosqlite:///~/bank.db": "'~' stands for no directory here",
    "lmdb:x?max_size=64 parsecs": 'a size is a number of bytes, or one with a unit such as "64MiB"',
    "lmdb:x?max_size=-1": "a size is a number of bytes",
    "lmdb:x?max_size=٣": "a size is a number of bytes",
    "lmdb:": "a store URL is SCHEME:REST",
    "lmdb:?durability=fsync": "a store URL is SCHEME:REST",
    "sqlite+aiosqlite:///x.db?patience=soon": "a duration is a number of seconds, or such as",
    "sqlite+aiosqlite:///x.db?patience=nan": "patience must be a positive number of seconds",
    "sqlite+aiosqlite:///x.db?patience=inf": "patience must be a positive number of seconds",
    "sqlite+aiosqlite:///x.db?max_event_size=big": "a size is a number of bytes",
}


@pytest.mark.parametrize(("url", "text"), BAD_URLS.items(), ids=BAD_URLS)
def test_url_that_says_something_else_than_it_seems_is_refused_with_the_remedy(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, url: str, text: str
) -> None:
    monkeypatch.chdir(tmp_path)
    for use in (check_store_url, open_store):
        with pytest.raises(InvalidStoreUrl, match=text):
            use(url)
    assert list(tmp_path.iterdir()) == []


async def test_three_slashes_name_an_absolute_path(tmp_path: Path) -> None:
    async with open_store(f"lmdb://{tmp_path}/store") as store:
        assert await store.last_position() == 0
    assert (tmp_path / "store" / "data.mdb").exists()
