"""What the LMDB store does beyond the contract of all stores: its files, its groups, and places that are none."""

import asyncio
import contextlib
import json
import socket
import struct
import subprocess
import sys
import threading
import zlib
from datetime import UTC, datetime
from pathlib import Path
from tempfile import TemporaryDirectory

import lmdb
import msgpack
import pytest

from tests.faults import change_value, environment_is_broken, file_changes, value_in_file, writer_waits
from tests.machine import patience
from tests.waiting import calls_of, until
from uno_actors.domain.events import EventRegistry
from uno_actors.errors import (
    ConcurrencyConflict,
    CorruptRecord,
    EventNotSerializable,
    InvalidHandler,
    InvalidStoreUrl,
    StoreFormatError,
    StoreFull,
    StoreUnavailable,
)
from uno_actors.store.codec import StreamId, pack, to_record, unpack
from uno_actors.store.opening import open_store
from uno_actors.store.records import Append, DeadLetter, Snapshot
from uno_actors.testing.contract.events import Noted
from uno_stores.lmdb import LmdbEventStore, open_url
from uno_stores.lmdb.opening import FORMAT

REGISTRY = EventRegistry([Noted])
MIB = 1 << 20


def noted(aggregate_id: str | None = "a", text: str = "", of: str = "Account") -> Noted:
    return Noted(aggregate_id=aggregate_id, aggregate_type=aggregate_id and of, text=text)


def open_at(path: Path, **options: int) -> LmdbEventStore:
    return LmdbEventStore(path, REGISTRY, **options)


def u64(number: int) -> bytes:
    return struct.pack(">Q", number)


def sealed(key: bytes, value: bytes) -> bytes:
    """A value as it stands in the file: with the CRC-32 of key and value behind it."""
    return value + struct.pack("<I", zlib.crc32(key + value))


async def versions(store: LmdbEventStore, aggregate_id: str = "a") -> list[int | None]:
    return [event.aggregate_version for event in await store.get_events(aggregate_id)]


def transactions(store: LmdbEventStore) -> int:
    """How many write transactions the environment has seen."""
    return store.statistics().transactions


def run_program(program: str, *arguments: str | Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-c", program, *arguments]
    return subprocess.run(command, check=False, capture_output=True, text=True)


def start_program(program: str, *arguments: str | Path) -> subprocess.Popen[str]:
    command = [sys.executable, "-c", program, *arguments]
    return subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)


# --- the layout --------------------------------------------------------------------------------------------


async def test_layout_on_disk_is_as_documented(tmp_path: Path) -> None:
    first = datetime(2024, 6, 1, 8, tzinfo=UTC)
    letter = DeadLetter("mail", 3, "Noted", 2, "ValueError: no", "Traceback", first, first)
    async with open_at(tmp_path) as store:
        recorded = await store.append(noted("alice"), noted(None), noted("alice"), noted("ünì", of="User"))
        await store.save_progress({"mail": 3}, [letter])
        await store.save_snapshots([Snapshot(StreamId("User", "ünì"), 7, 2, b"state", first)])

    env = lmdb.open(str(tmp_path), readonly=True, max_dbs=8, create=False)
    names = [b"checkpoints", b"dead_letters", b"log", b"meta", b"snapshots", b"streams", b"views"]

    def rows(name: bytes | None) -> dict[bytes, bytes]:
        db = env.open_db(name, create=False)
        with env.begin(db=db) as txn:
            return {bytes(key): bytes(value) for key, value in txn.cursor()}

    try:
        assert sorted(rows(None)) == names
        assert rows(b"meta") == {b"program": b"uno_actors", b"format": b"1"}
        log = rows(b"log")
        assert list(log) == [u64(1), u64(2), u64(3), u64(4)]
        assert list(log.values()) == [sealed(u64(at), pack(to_record(event))) for at, event in recorded]
        assert rows(b"streams") == {
            b"alice\0Account\0" + u64(1): u64(1),
            b"alice\0Account\0" + u64(2): u64(3),
            "ünì".encode() + b"\0User\0" + u64(1): u64(4),
        }
        assert rows(b"checkpoints") == {b"mail": sealed(b"mail", u64(3))}
        (key,) = letters = rows(b"dead_letters")
        assert key == b"mail\0" + u64(3)
        assert letters[key] == sealed(key, msgpack.packb(letter, datetime=True))
        (key,) = snapshots = rows(b"snapshots")
        assert key == "ünì".encode() + b"\0User\0"
        packed = msgpack.packb([7, 2, b"state", first], datetime=True)
        assert snapshots[key] == sealed(key, packed)
        flags = env.flags()
        assert (flags["sync"], flags["metasync"], flags["writemap"]) == (True, True, False)
    finally:
        env.close()


async def test_commit_is_synced_by_default(tmp_path: Path) -> None:
    async with open_at(tmp_path) as store:
        assert store.statistics().flags & {"sync", "metasync", "writemap"} == {"sync", "metasync"}


async def test_record_is_msgpack_whose_header_can_be_read_alone(tmp_path: Path) -> None:
    async with open_at(tmp_path) as store:
        await store.append(noted("alice", "hello"))
        data = value_in_file(store, "log", u64(1))[:-4]
    *header, payload = msgpack.unpackb(data, timestamp=3)
    assert header[1:6] == ["uno_actors.testing.Noted", 1, "Account", "alice", 1]
    assert msgpack.unpackb(payload) == {"text": "hello"}
    assert unpack(data, "a test").aggregate_id == "alice"


async def test_longest_names_fit_into_a_key(tmp_path: Path) -> None:
    async with open_at(tmp_path) as store:
        await store.append(noted("x" * 255, of="T" * 200))
    with lmdb.open(str(tmp_path), readonly=True) as env:
        assert env.max_key_size() >= 255 + 1 + 200 + 1 + 8


async def test_damaged_record_is_told_with_its_place_and_harms_no_other(tmp_path: Path) -> None:
    async with open_at(tmp_path) as store:
        await store.append(noted("a"), noted("b"))
        change_value(store, "log", u64(1), sealed(u64(1), b"\xc1 no record"))
        with pytest.raises(CorruptRecord, match="position 1 of"):
            await store.get_events("a")
        assert await versions(store, "b") == [1]
        with file_changes(store, "log") as txn:
            txn.delete(u64(1))
        with pytest.raises(CorruptRecord, match="an index names it but it is not in the log"):
            await store.get_events("a")


# --- group commit ------------------------------------------------------------------------------------------


async def test_appends_that_wait_share_a_transaction(tmp_path: Path) -> None:
    async with open_at(tmp_path) as store:
        await store.append(noted("first"))
        before = transactions(store)
        with writer_waits(store):
            appends = [asyncio.ensure_future(store.append(noted(f"a{n % 10}"))) for n in range(200)]
            await asyncio.sleep(0)  # each has been handed to the writer, which waits
        await asyncio.gather(*appends)
        # One for what the writer had taken when it met the lock, one for all the others.
        assert 1 <= transactions(store) - before <= 2
        assert await store.last_position() == 201


async def test_conflicts_checkpoints_and_appends_share_a_transaction(tmp_path: Path) -> None:
    async with open_at(tmp_path) as store:
        before = transactions(store)
        with writer_waits(store):
            work = [
                asyncio.ensure_future(each)
                for each in (
                    store.append(noted("a")),
                    store.append(noted("a"), expected_version=1),
                    store.append(noted("a"), expected_version=1),
                    store.save_progress({"mail": 2}),
                    store.drop_dead_letter("mail", 1),
                    store.append(noted("a"), expected_version=2),
                )
            ]
            await asyncio.sleep(0)
        outcomes = await asyncio.gather(*work, return_exceptions=True)
        assert transactions(store) - before <= 2
        assert isinstance(outcomes[2], ConcurrencyConflict)
        assert [type(outcome) for outcome in outcomes] == [
            list, list, ConcurrencyConflict, type(None), bool, list,
        ]  # fmt: skip
        assert await versions(store) == [1, 2, 3]


async def test_one_that_cannot_be_written_does_not_fail_those_that_wait_with_it(tmp_path: Path) -> None:
    async with open_at(tmp_path) as store:
        with writer_waits(store):
            work = [
                asyncio.ensure_future(each)
                for each in (
                    store.append(noted("a")),
                    store.append(noted("a").stamped(correlation_id="\ud800")),
                    store.save_progress({"longer than a key" * 100: 1}),
                    store.append(noted("a")),
                    store.append(noted("b"), expected_version=0),
                )
            ]
            await asyncio.sleep(0)
        outcomes = await asyncio.gather(*work, return_exceptions=True)
        assert [type(outcome) for outcome in outcomes] == [
            list, EventNotSerializable, InvalidHandler, list, list,
        ]  # fmt: skip
        assert await versions(store, "a") == [1, 2]
        assert await versions(store, "b") == [1]
        assert await store.checkpoints() == {}


async def test_cancelled_append_that_was_handed_over_is_recorded_and_listeners_hear_of_it(
    tmp_path: Path,
) -> None:
    async with open_at(tmp_path) as store:
        heard = asyncio.Event()
        store.on_commit(heard.set)
        with writer_waits(store):
            append = asyncio.ensure_future(store.append(noted("a"), noted("a")))
            await asyncio.sleep(0)
            append.cancel()
            with pytest.raises(asyncio.CancelledError):
                await append
        await asyncio.wait_for(heard.wait(), patience(30))
        assert await versions(store) == [1, 2]
        await store.append(noted("a"), expected_version=2)


async def test_close_waits_for_what_was_handed_over(tmp_path: Path) -> None:
    store = open_at(tmp_path)
    with writer_waits(store):
        appends = [asyncio.ensure_future(store.append(noted("a"))) for _ in range(3)]
        await asyncio.sleep(0)
        closing = [asyncio.ensure_future(store.close()) for _ in range(2)]
        await asyncio.sleep(0)
        with pytest.raises(StoreUnavailable, match="it was closed"):
            await store.append(noted("a"))
    await asyncio.wait(closing, return_when=asyncio.FIRST_COMPLETED)
    async with open_at(tmp_path) as store:  # whichever close came back first, the place is free
        assert len(await asyncio.gather(*appends)) == 3
        assert await versions(store) == [1, 2, 3]
    await asyncio.gather(*closing)


async def test_closing_ends_the_writer_thread(tmp_path: Path) -> None:
    store = open_at(tmp_path)
    (writer,) = (thread for thread in threading.enumerate() if thread.name == f"lmdb-writer {tmp_path}")
    assert writer.is_alive()
    await store.close()
    assert not writer.is_alive()


async def test_versions_are_read_again_when_another_has_written(tmp_path: Path) -> None:
    async with open_at(tmp_path) as store:
        await store.append(noted("a"))  # the writer remembers version 1
        record = pack(to_record(noted("a").stamped(aggregate_version=2)))
        change_value(store, "log", u64(2), sealed(u64(2), record))
        change_value(store, "streams", b"a\0Account\0" + u64(2), u64(2))
        with pytest.raises(ConcurrencyConflict, match="at version 2, not at 1"):
            await store.append(noted("a"), expected_version=1)
        await store.append(noted("a"), expected_version=2)
        assert await versions(store) == [1, 2, 3]


def test_two_event_loops_in_two_threads_append_to_one_stream(tmp_path: Path) -> None:
    store = open_at(tmp_path)
    start = threading.Barrier(2)
    errors: list[BaseException] = []

    async def append_many() -> None:
        start.wait(30)
        for _ in range(10):
            await asyncio.gather(*[store.append(noted("a")) for _ in range(10)])

    def run() -> None:
        try:
            asyncio.run(append_many())
        except BaseException as error:  # noqa: BLE001 - shown by the assertion below
            errors.append(error)

    threads = [threading.Thread(target=run) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(patience(30))
    assert errors == []

    async def look() -> list[int | None]:
        async with store:
            return await versions(store)

    assert asyncio.run(look()) == list(range(1, 201))


async def test_answer_to_a_loop_that_is_gone_harms_nobody(tmp_path: Path) -> None:
    store = open_at(tmp_path)

    def abandon() -> None:
        loop = asyncio.new_event_loop()
        task = loop.create_task(store.append(noted("gone")))
        loop.run_until_complete(asyncio.sleep(0))
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            loop.run_until_complete(task)
        loop.close()

    with writer_waits(store):
        thread = threading.Thread(target=abandon)
        thread.start()
        thread.join(patience(30))
    async with store:
        await store.append(noted("a"))
        assert await versions(store, "gone") == [1]


# --- a limit --------------------------------------------------------------------------------------------


async def test_reached_limit_refuses_whole_appends_and_a_larger_one_takes_them(tmp_path: Path) -> None:
    async def append_to_both(store: LmdbEventStore, times: int) -> int:
        """How often both streams took an event."""
        for done in range(times):
            try:
                await store.append(noted("a", "x" * 20_000), noted("b", "y" * 20_000))
            except StoreFull as error:
                assert "its limit of 1,048,576 bytes is reached; open it with a larger max_size" in str(error)  # noqa: PT017
                return done
        return times

    async with open_at(tmp_path, max_size=MIB) as store:
        fitted = await append_to_both(store, 100)
        assert 3 < fitted < 30
        assert await versions(store, "a") == await versions(store, "b") == list(range(1, fitted + 1))
        assert await store.last_position() == 2 * fitted
        with pytest.raises(StoreFull):
            await store.append(noted("b", "y" * 200_000))
        assert await store.last_position() == 2 * fitted

    async with open_at(tmp_path, max_size=16 * MIB) as store:
        assert await versions(store, "a") == list(range(1, fitted + 1))
        await store.append(noted("a", "x" * 200_000), expected_version=fitted)
        assert await store.last_position() == 2 * fitted + 1


async def test_append_too_big_for_the_limit_does_not_fail_those_that_wait_with_it(tmp_path: Path) -> None:
    async with open_at(tmp_path, max_size=MIB) as store:
        with writer_waits(store):
            work = [
                asyncio.ensure_future(store.append(noted("a", "x" * size)))
                for size in (10, 2_000_000, 10, 10)
            ]
            await asyncio.sleep(0)
        outcomes = await asyncio.gather(*work, return_exceptions=True)
        assert [type(outcome) for outcome in outcomes] == [list, StoreFull, list, list]
        assert await versions(store) == [1, 2, 3]


async def test_reached_limit_is_an_outcome_of_each_request_of_a_commit(tmp_path: Path) -> None:
    async with open_at(tmp_path, max_size=MIB) as store:
        outcomes = await store.commit([Append((to_record(noted("a", "x" * 2_000_000)),))] * 2)
        assert [type(outcome) for outcome in outcomes] == [StoreFull, StoreFull]


# --- places that are no store ------------------------------------------------------------------------------


def data_of(path: Path) -> dict[str, bytes]:
    return {file.name: file.read_bytes() for file in path.iterdir() if file.name != "lock.mdb"}


def refused(path: Path, error: type[Exception], text: str) -> None:
    """Opening ``path`` fails, says so, leaves it as it was, and leaves nothing open."""
    before = data_of(path) if path.is_dir() else path.read_bytes()
    for _ in range(2):
        with pytest.raises(error, match=text) as caught:
            open_at(path)
        assert str(path) in str(caught.value)
    assert (data_of(path) if path.is_dir() else path.read_bytes()) == before


def test_file_in_place_of_the_directory_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "store"
    path.write_text("precious")
    refused(path, StoreUnavailable, "it needs a directory that it may write")


def test_file_on_the_way_to_the_directory_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("precious")
    with pytest.raises(StoreUnavailable, match="Not a directory; it needs a directory that it may write"):
        open_at(tmp_path / "file" / "store")


def test_directory_with_other_files_is_refused(tmp_path: Path) -> None:
    for name in ("thesis.tex", "photo.jpg", "a.txt", "b.txt"):
        (tmp_path / name).write_text("precious")
    refused(tmp_path, StoreFormatError, r"holds other files \(a.txt, b.txt, photo.jpg\); name an empty one")
    assert not (tmp_path / "data.mdb").exists()


async def test_a_directory_with_nothing_but_the_socket_of_a_killed_process_is_taken() -> None:
    with TemporaryDirectory() as directory, socket.socket(socket.AF_UNIX) as left:
        left.bind(f"{directory}/uno-actors-1.sock")
        async with open_at(Path(directory)) as store:
            await store.append(noted("a"))
            assert await versions(store) == [1]


async def test_missing_and_empty_directories_are_taken(tmp_path: Path) -> None:
    for path in (tmp_path / "deep" / "down", tmp_path / "empty"):
        if path.name == "empty":
            path.mkdir()
        async with open_at(path) as store:
            await store.append(noted("a"))
        async with open_at(path) as store:
            assert await versions(store) == [1]


async def test_environment_that_was_made_and_never_claimed_is_taken(tmp_path: Path) -> None:
    lmdb.open(str(tmp_path)).close()
    async with open_at(tmp_path) as store:
        await store.append(noted("a"))


FOREIGN = {
    # name: (named database, key, value)
    "plain keys": (None, b"key", b"value"),
    "a plain key named as our database": (None, b"meta", b"value"),
    "a named database": (b"theirs", b"key", b"value"),
    "a named database called as ours": (b"meta", b"key", b"value"),
    "another program in a database called as ours": (b"meta", b"program", b"another"),
}


@pytest.mark.parametrize(("database", "key", "value"), FOREIGN.values(), ids=FOREIGN)
def test_environment_of_another_program_is_refused(
    tmp_path: Path, database: bytes | None, key: bytes, value: bytes
) -> None:
    env = lmdb.open(str(tmp_path), max_dbs=2)
    with env.begin(write=True, db=env.open_db(database)) as txn:
        txn.put(key, value)
    env.close()
    refused(tmp_path, StoreFormatError, "another program's LMDB environment is there; it was left as it was")


@pytest.mark.parametrize(
    ("found", "text"), [(b"2", "its format is 2"), (b"10", "its format is 10"), (None, "its format is none")]
)
async def test_store_of_another_format_is_refused_and_the_remedy_is_told(
    tmp_path: Path, found: bytes | None, text: str
) -> None:
    async with open_at(tmp_path) as store:
        with file_changes(store, "meta") as txn:
            if found is None:
                txn.delete(b"format")
            else:
                txn.put(b"format", found)
    reads = f"this version of uno_actors reads {FORMAT.decode()}; use the version that wrote it"
    refused(tmp_path, StoreFormatError, f"{text}, {reads}")


@pytest.mark.parametrize(
    "content", [b"x", b"\xde\xad" * 50_000, bytes(100_000)], ids=["short", "random", "zero"]
)
def test_data_file_that_is_no_lmdb_file_is_refused(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "data.mdb").write_bytes(content)
    refused(tmp_path, StoreFormatError, r"data.mdb is not an LMDB file")


READ_ALL = """
import asyncio, sys
from uno_stores.lmdb import LmdbEventStore
from uno_actors.errors import StoreFormatError

async def main():
    try:
        store = LmdbEventStore(sys.argv[1])
    except StoreFormatError as error:
        sys.exit(f"refused: {error}")
    async with store:
        print(len([position async for position in positions(store)]))

async def positions(store):
    after = 0
    while page := await store.read_log(after):
        for position, _ in page:
            yield position
            after = position

asyncio.run(main())
"""


async def test_file_that_lost_its_end_is_refused_before_it_can_kill_the_process(tmp_path: Path) -> None:
    whole = tmp_path / "whole"
    async with open_at(whole) as store:
        for number in range(20):
            await store.append(*[noted(f"a{number}", "x" * 500) for _ in range(20)])
    data = (whole / "data.mdb").read_bytes()
    for size in (100, 4096 + 904, 8192, len(data) // 2):
        cut = tmp_path / str(size)
        cut.mkdir()
        (cut / "data.mdb").write_bytes(data[:size])
        # In a process of its own, for reading beyond the end of a mapped file ends the process that does it.
        run = run_program(READ_ALL, cut)
        assert (run.returncode, run.stderr.split(":")[0]) == (1, "refused"), (
            size,
            run.returncode,
            run.stderr,
        )
        assert "was cut off" in run.stderr or "not an LMDB file" in run.stderr
        assert data_of(cut) == {"data.mdb": data[:size]}


@pytest.mark.skipif(sys.platform == "win32", reason="permissions of POSIX")
@pytest.mark.parametrize("exists", [True, False], ids=["with a store in it", "empty"])
async def test_directory_that_may_not_be_written_is_refused(tmp_path: Path, exists: bool) -> None:
    path = tmp_path / "store"
    path.mkdir()
    if exists:
        async with open_at(path) as store:
            await store.append(noted("a"))
        for file in path.iterdir():
            file.chmod(0o444)
    path.chmod(0o555)
    program = f"""
import os, sys
from uno_stores.lmdb import LmdbEventStore  # before the privileges go, which may be needed to find it
from uno_actors.errors import StoreUnavailable
fd = os.open({str(path)!r}, os.O_RDONLY)
os.fchdir(fd)  # a directory on the way may be closed to others
if os.getuid() == 0:
    os.setgid(65534)
    os.setuid(65534)
try:
    LmdbEventStore(".")
except StoreUnavailable as error:
    print(error)
"""
    try:
        run = run_program(program)
    finally:
        path.chmod(0o755)
    assert run.returncode == 0, run.stderr
    assert "it needs a directory that it may write" in run.stdout
    assert "Permission denied" in run.stdout


async def test_path_that_is_open_in_this_process_is_refused(tmp_path: Path) -> None:
    async with open_at(tmp_path / "store") as store:
        for same in (tmp_path / "store", tmp_path / "x" / ".." / "store"):
            with pytest.raises(
                StoreUnavailable, match=r"already open in this process.*share the store that has it open"
            ):
                open_at(same)
        await store.append(noted("a"))
    async with open_at(tmp_path / "store") as store:
        assert await versions(store) == [1]


# --- URLs --------------------------------------------------------------------------------------------------


async def test_url_names_the_directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    async with open_store("lmdb:data/bank", REGISTRY) as store:
        assert isinstance(store, LmdbEventStore)
        assert repr(store) == f"LmdbEventStore('{tmp_path}/data/bank')"
    assert (tmp_path / "data" / "bank" / "data.mdb").exists()
    async with open_store(f"lmdb:{tmp_path}/data/bank", REGISTRY):
        pass


async def test_relative_path_is_that_of_the_working_directory_in_which_it_was_opened(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path)
    async with open_at(Path("store")) as store:
        await store.append(noted("a"))
        monkeypatch.chdir(tmp_path / "elsewhere")
        environment_is_broken(store)  # and so it is opened again
        assert await store.last_position() == 1
        assert await store.lease("mail") is not None
        assert (await store.info()).events == 1
    assert {entry.name for entry in (tmp_path / "store").iterdir()} == {
        "data.mdb",
        "lock.mdb",
        "leases.lock",
        "nodes",
    }
    assert list((tmp_path / "elsewhere").iterdir()) == []


async def test_closing_waits_for_a_copy_however_long_it_takes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for module in ("uno_stores.lmdb.environment", "uno_stores.guards"):
        monkeypatch.setattr(f"{module}.PATIENCE", 0.02)
    store = open_at(tmp_path / "store")
    await store.append(noted("a"))
    attempts = calls_of(monkeypatch, store.gate, "lock")
    with store.gate:  # as during a copy
        closing = asyncio.ensure_future(store.close())
        await until(lambda: len(attempts) >= 3 or closing.done())
        assert not closing.done()
    await asyncio.wait_for(closing, patience(5))
    async with open_at(tmp_path / "store") as again:
        assert await versions(again) == [1]


async def test_closed_store_cannot_be_looked_after(tmp_path: Path) -> None:
    store = open_at(tmp_path / "store")
    await store.close()
    for use in (store.info(), store.verify(), store.backup(str(tmp_path / "copy"))):
        with pytest.raises(StoreUnavailable, match="it was closed"):
            await use


def test_url_without_a_path_is_refused() -> None:
    with pytest.raises(InvalidStoreUrl, match="lmdb:PATH"):
        open_url("lmdb:", REGISTRY)


# --- two processes -----------------------------------------------------------------------------------------

COMPETE = """
import asyncio, json, sys
from uno_stores.lmdb import LmdbEventStore
from uno_actors.errors import ConcurrencyConflict
from uno_actors.testing.contract.events import Noted

async def main(path, name, goal):
    written = conflicts = 0
    async with LmdbEventStore(path) as store:
        print("ready", flush=True)
        sys.stdin.readline()
        while written < goal:
            version = len(await store.get_events("a", aggregate_type="Account"))
            try:
                await store.append(
                    Noted(aggregate_id="a", aggregate_type="Account", text=name), expected_version=version)
                written += 1
            except ConcurrencyConflict:
                conflicts += 1
        await store.save_progress({name: written})
    print(json.dumps([written, conflicts]), flush=True)

asyncio.run(main(sys.argv[1], sys.argv[2], int(sys.argv[3])))
"""


async def test_two_processes_append_to_one_stream_without_gap_or_loss(tmp_path: Path) -> None:
    goal = 100
    workers = [start_program(COMPETE, tmp_path / "store", name, str(goal)) for name in "ab"]
    try:
        for worker in workers:
            assert worker.stdout is not None
            assert worker.stdout.readline() == "ready\n"
        ends = [worker.stdin for worker in workers]
        for end in ends:
            assert end is not None
            end.write("go\n")
            end.flush()
        counts = [json.loads(worker.communicate(timeout=patience(50))[0]) for worker in workers]
    finally:
        for worker in workers:
            worker.kill()
            worker.wait()
    assert [written for written, _ in counts] == [goal, goal]
    async with open_at(tmp_path / "store") as store:
        events = await store.get_events("a")
        assert [event.aggregate_version for event in events] == list(range(1, 2 * goal + 1))
        texts = [event.text for event in events if isinstance(event, Noted)]
        assert sorted(texts) == ["a"] * goal + ["b"] * goal
        assert await store.checkpoints() == {"a": goal, "b": goal}
        assert len(await store.read_stream(StreamId("Account", "a"), limit=1_000)) == 2 * goal
