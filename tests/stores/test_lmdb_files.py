"""The files of an LMDB store: removed or replaced while it is open, their permissions, and two namespaces."""

import asyncio
import os
import shutil
import stat
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.faults import after_a_write_begins
from uno_actors.domain.events import EventRegistry
from uno_actors.errors import OutcomeUnknown, StoreUnavailable
from uno_actors.testing.contract.events import Noted
from uno_stores.guards import WriteTurn
from uno_stores.lmdb import LmdbEventStore
from uno_stores.lmdb.environment import LOOK_AT_FILES_EVERY

REGISTRY = EventRegistry([Noted])
ROOT = Path(__file__).parent.parent.parent


def noted(aggregate_id: str = "a", text: str = "") -> Noted:
    return Noted(aggregate_id=aggregate_id, aggregate_type="Box", text=text)


def remove_all(path: Path) -> None:
    shutil.rmtree(path)


def remove_data(path: Path) -> None:
    (path / "data.mdb").unlink()


def remove_locks(path: Path) -> None:
    (path / "lock.mdb").unlink()


def remove_leases(path: Path) -> None:
    (path / "leases.lock").unlink()


def replace_data(path: Path) -> None:
    """As one does who puts back a backup under a running program."""
    shutil.copy(path / "data.mdb", path / "copy")
    (path / "copy").rename(path / "data.mdb")


def move_away(path: Path) -> None:
    path.rename(path.with_name("elsewhere"))


LOSSES = [remove_all, remove_data, remove_locks, remove_leases, replace_data, move_away]


@pytest.mark.parametrize("lose", LOSSES, ids=lambda lose: lose.__name__)
async def test_nothing_is_acknowledged_into_files_that_are_gone(tmp_path: Path, lose: object) -> None:
    assert callable(lose)
    async with LmdbEventStore(tmp_path / "store", REGISTRY) as store:
        await store.append(noted())
        assert await store.lease("mail") is not None
        lose(tmp_path / "store")
        with pytest.raises(StoreUnavailable, match=r"was (removed|replaced).*put the store back, or open it"):
            await store.append(noted())
        with pytest.raises(StoreUnavailable, match="was (removed|replaced)"):
            await store.save_progress({"mail": 1})
        with pytest.raises(StoreUnavailable, match="was (removed|replaced)"):
            await store.lease("audit")
        with pytest.raises(StoreUnavailable, match="was (removed|replaced)"):
            await store.last_position()


async def test_reads_notice_within_a_second(tmp_path: Path) -> None:
    async with LmdbEventStore(tmp_path / "store", REGISTRY) as store:
        await store.append(noted())
        remove_all(tmp_path / "store")
        end = time.monotonic() + 1
        with pytest.raises(StoreUnavailable, match="was removed"):
            while time.monotonic() < end:
                await store.get_events("a")
                await asyncio.sleep(0.01)
        assert LOOK_AT_FILES_EVERY < 1


async def test_subscriber_that_waits_is_told_that_the_files_are_gone(tmp_path: Path) -> None:
    async with LmdbEventStore(tmp_path / "store", REGISTRY) as store:
        await store.append(noted())
        subscription = store.subscribe()
        await anext(subscription)
        waiting = asyncio.ensure_future(anext(subscription))
        await asyncio.sleep(0)
        remove_all(tmp_path / "store")
        async with asyncio.timeout(5):
            with pytest.raises(StoreUnavailable, match="was removed"):
                await waiting


async def test_commit_whose_file_is_removed_meanwhile_is_not_acknowledged(tmp_path: Path) -> None:
    async with LmdbEventStore(tmp_path / "store", REGISTRY) as store:
        await store.append(noted())
        after_a_write_begins(store, lambda: remove_all(tmp_path / "store"))
        with pytest.raises(OutcomeUnknown, match="was removed .*during the commit"):
            await store.append(noted())


async def test_store_that_is_put_back_works_again(tmp_path: Path) -> None:
    async with LmdbEventStore(tmp_path / "store", REGISTRY) as store:
        await store.append(noted(text="1"))
        move_away(tmp_path / "store")
        with pytest.raises(StoreUnavailable, match="was removed"):
            await store.append(noted())
        (tmp_path / "elsewhere").rename(tmp_path / "store")
        await store.append(noted(text="2"), expected_version=1)
    async with LmdbEventStore(tmp_path / "store", REGISTRY) as store:
        assert [event.text for event in await store.get_events("a") if isinstance(event, Noted)] == ["1", "2"]


# --- permissions -------------------------------------------------------------------------------------------

MODES = [
    # of the store's directory and file, umask, of the copy's directory and file
    (0o755, 0o644, 0o022, 0o755, 0o644),
    (0o755, 0o644, 0o077, 0o700, 0o600),
    (0o700, 0o600, 0o022, 0o700, 0o600),
    (0o770, 0o660, 0o027, 0o750, 0o640),
    (0o777, 0o666, 0o022, 0o755, 0o644),
]


@pytest.mark.parametrize(("directory", "file", "umask", "directory_then", "file_then"), MODES)
async def test_backup_has_the_permissions_of_the_store_less_the_umask(  # noqa: PLR0917 - a table
    tmp_path: Path, directory: int, file: int, umask: int, directory_then: int, file_then: int
) -> None:
    async with LmdbEventStore(tmp_path / "store", REGISTRY) as store:
        await store.append(noted())
        (tmp_path / "store").chmod(directory)
        (tmp_path / "store" / "data.mdb").chmod(file)
        before = os.umask(umask)
        try:
            await store.backup(str(tmp_path / "copy"))
        finally:
            os.umask(before)
    assert stat.S_IMODE((tmp_path / "copy").stat().st_mode) == directory_then
    assert stat.S_IMODE((tmp_path / "copy" / "data.mdb").stat().st_mode) == file_then
    async with LmdbEventStore(tmp_path / "copy", REGISTRY) as copy:
        assert await copy.last_position() == 1


# --- the turn to write -------------------------------------------------------------------------------------

TAKE = """
import sys, time
from pathlib import Path
from uno_stores.guards import WriteTurn
turn = WriteTurn(Path(sys.argv[1]))
turn.take()
print("taken", flush=True)
sys.stdin.read()
"""


def test_turn_is_taken_by_one_process_at_a_time_and_freed_when_it_is_killed(tmp_path: Path) -> None:
    turn = WriteTurn(tmp_path)
    with subprocess.Popen(
        [sys.executable, "-c", TAKE, str(tmp_path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, cwd=ROOT
    ) as other:
        assert other.stdout is not None
        assert other.stdout.readline() == b"taken\n"
        with pytest.raises(TimeoutError, match="another process had the turn to write for 0.05 s"):
            turn.take(0.05)
        other.kill()
        other.wait()
        turn.take(10)
    turn.release()
    turn.close()


async def test_store_that_another_process_does_not_let_open_is_unavailable(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("uno_stores.lmdb.environment.PATIENCE", 0.05)
    turn = WriteTurn(tmp_path)
    with turn.taken(1), pytest.raises(StoreUnavailable, match="another process had the turn to write"):
        LmdbEventStore(tmp_path, REGISTRY)
    turn.close()
    async with LmdbEventStore(tmp_path, REGISTRY) as store:
        await store.append(noted())


def descriptors() -> int:
    return len(list(Path("/proc/self/fd").iterdir()))


async def test_closed_store_and_one_that_was_refused_leave_no_descriptor(tmp_path: Path) -> None:
    async with LmdbEventStore(tmp_path, REGISTRY):
        pass
    before = descriptors()
    async with LmdbEventStore(tmp_path, REGISTRY):
        with pytest.raises(StoreUnavailable, match="already open"):
            LmdbEventStore(tmp_path, REGISTRY)
    assert descriptors() == before


# --- two namespaces of processes, as two containers have ---------------------------------------------------

APPEND = """
import asyncio, os, sys
from uno_stores.lmdb import LmdbEventStore
from uno_actors.errors import StoreUnavailable
from uno_actors.domain.events import EventRegistry
from uno_actors.testing.contract.events import Noted

async def main():
    path, name, count = sys.argv[1:]
    try:
        store = LmdbEventStore(path, EventRegistry([Noted]))
    except StoreUnavailable as error:
        print("refused", os.getpid(), error)
        return
    async with store:
        print("open", os.getpid(), flush=True)
        sys.stdin.readline()
        for number in range(int(count)):
            await store.append(Noted(aggregate_id=name, aggregate_type="Box"), expected_version=number)
            await store.get_events(name)
        print("done", flush=True)

asyncio.run(main())
"""
NAMESPACE = ["unshare", "--pid", "--fork", "--kill-child", "--mount-proc"]


def _has_namespaces() -> bool:
    try:
        return subprocess.run([*NAMESPACE, "true"], capture_output=True, check=False).returncode == 0
    except OSError:
        return False


in_namespaces = pytest.mark.skipif(not _has_namespaces(), reason="no right to make a namespace of processes")


def container(path: Path, name: str, *, first: bool, count: int = 30) -> subprocess.Popen[str]:
    """A program in a namespace of its own: process 1 there, or one behind a shell that is."""
    python = [sys.executable, "-c", APPEND, str(path), name, str(count)]
    behind = [] if first else ["sh", "-c", '"$@"; exit $?', "sh"]
    return subprocess.Popen(
        [*NAMESPACE, *behind, *python],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, cwd=ROOT,
    )  # fmt: skip


def said(process: subprocess.Popen[str]) -> str:
    assert process.stdout is not None
    return process.stdout.readline()


@in_namespaces
def test_second_container_whose_process_has_the_same_number_is_refused_and_the_first_unharmed(
    tmp_path: Path,
) -> None:
    with container(tmp_path, "one", first=True) as one:
        assert said(one) == "open 1\n"
        with container(tmp_path, "two", first=True) as two:
            told = said(two)
        assert told.startswith("refused 1 ")
        assert "another process that has the number 1 too" in told
        assert "--pid=container:NAME" in told
        out, _ = one.communicate("go\n", timeout=60)
        assert out == "done\n"


@in_namespaces
async def test_containers_whose_processes_have_other_numbers_share_a_store(tmp_path: Path) -> None:
    with container(tmp_path, "one", first=True) as one, container(tmp_path, "two", first=False) as two:
        assert said(one) == "open 1\n"
        assert said(two) not in ("open 1\n", "")
        for process in (one, two):
            assert process.stdin is not None
            process.stdin.write("go\n")
            process.stdin.flush()
        assert [process.communicate(timeout=60)[0] for process in (one, two)] == ["done\n", "done\n"]
    async with LmdbEventStore(tmp_path, REGISTRY) as store:
        assert [len(await store.get_events(name)) for name in ("one", "two")] == [30, 30]
        assert await store.last_position() == 60
