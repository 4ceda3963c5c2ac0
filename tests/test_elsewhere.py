"""The program starts, and keeps its promises, on systems that lack what Linux has; see `tests.elsewhere`.

None of these systems was ever seen by this project: the names that they lack are taken away, nothing more.
"""

import asyncio
import os
import struct
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.machine import patience
from uno_actors import local_sockets
from uno_actors.system import control_socket

ROOT = Path(__file__).parent.parent

USE = """
import sys
from tests import elsewhere
elsewhere.SYSTEMS[sys.argv[1]]()
from uno_actors import ActorSystem, StoreUnavailable, subscribe
from tests.smoke import Greet, Greeted, Guest

heard = []

@subscribe(event_type=Greeted, start="earliest", name="hear")
async def hear(event: Greeted) -> None:
    heard.append(event.name)

try:
    for count in (1, 2):
        with ActorSystem(sys.argv[2], aggregates=[Guest], handlers=[hear]) as system:
            greeted = system.aggregate(Guest, "ada").ask(Greet(name=f"Ada {count}")).get(timeout=30)
            assert greeted == (1 if sys.argv[2] == "memory:" else count), greeted
            system.run(system.settled())
except StoreUnavailable as error:
    print(error)
else:
    print(*heard, sep=", ")
"""


def on(system: str, program: str, *arguments: str) -> str:
    run = subprocess.run(
        [sys.executable, "-c", program, system, *arguments],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=patience(60),
        check=False,
    )
    assert run.returncode == 0, run.stderr
    assert run.stderr == ""
    return run.stdout.strip()


@pytest.mark.parametrize("system", ["windows", "macos", "neither"])
def test_program_in_memory_runs_on_every_system(system: str) -> None:
    assert on(system, USE, "memory:") == "Ada 1, Ada 2"


@pytest.mark.parametrize("system", ["windows", "macos"])
def test_lmdb_store_works_on_every_system_with_locks_of_files(system: str, tmp_path: Path) -> None:
    assert on(system, USE, f"lmdb:{tmp_path}/guests") == "Ada 1, Ada 2"
    found = {path.name for path in (tmp_path / "guests").iterdir()}
    assert found - {"writer.lock"} == {"data.mdb", "lock.mdb", "leases.lock", "nodes"}
    lock = (tmp_path / "guests" / "lock.mdb").stat()
    assert lock.st_blocks * 512 >= lock.st_size  # it has its room on the disk


def test_sqlite_store_works_on_windows(tmp_path: Path) -> None:
    assert on("windows", USE, f"sqlite+aiosqlite:///{tmp_path}/guests.db") == "Ada 1, Ada 2"


@pytest.mark.parametrize("url", ["lmdb:{}/guests", "sqlite+aiosqlite:///{}/guests.db"])
def test_where_files_cannot_be_locked_a_store_on_disk_is_refused_with_what_works(
    tmp_path: Path, url: str
) -> None:
    text = on("neither", USE, url.format(tmp_path))
    assert "this system has no locks of files; a store in memory (memory:) or a PostgreSQL store" in text
    assert not (tmp_path / "guests" / "data.mdb").exists()


IMPORT_ALL = """
import importlib, pkgutil, sys
from tests import elsewhere
elsewhere.SYSTEMS[sys.argv[1]]()
import uno_actors, uno_stores
for package in (uno_actors, uno_stores):
    for module in pkgutil.walk_packages(package.__path__, f"{package.__name__}."):
        if module.name != "uno_actors.testing.plugin":  # which imports pytest
            importlib.import_module(module.name)
print(uno_actors.ActorSystem.__name__)
"""


@pytest.mark.parametrize("system", ["windows", "macos", "neither"])
def test_every_module_can_be_imported(system: str) -> None:
    assert on(system, IMPORT_ALL) == "ActorSystem"


# --- locks between processes, by the stand-in for Windows ----------------------------------------------------

HOLD = """
import asyncio, sys
from tests import elsewhere
elsewhere.windows()
from uno_actors import open_store

async def main():
    async with open_store(sys.argv[1]) as store:
        lease = await store.lease("mail")
        print("has it" if lease else "taken", flush=True)
        for line in sys.stdin:
            if line == "release\\n":
                await lease.release()
                print("released", flush=True)
            else:
                from tests.smoke import Greeted
                for number in range(int(line)):
                    await store.append(Greeted(name=str(number), aggregate_id="ada", aggregate_type="Guest"))
                print(await store.last_position(), flush=True)

asyncio.run(main())
"""


async def hold(url: str) -> asyncio.subprocess.Process:
    pipe = asyncio.subprocess.PIPE
    return await asyncio.create_subprocess_exec(
        sys.executable, "-c", HOLD, url, cwd=ROOT, stdin=pipe, stdout=pipe
    )


async def answer(process: asyncio.subprocess.Process, line: str = "") -> str:
    assert process.stdin is not None
    assert process.stdout is not None
    if line:
        process.stdin.write(f"{line}\n".encode())
    found = await asyncio.wait_for(process.stdout.readline(), patience(30))
    return found.decode().strip()


@pytest.mark.parametrize("url", ["lmdb:{}/store", "sqlite+aiosqlite:///{}/store.db"])
async def test_a_name_is_leased_once_and_freed_by_release_and_by_death(tmp_path: Path, url: str) -> None:
    url = url.format(tmp_path)
    first = await hold(url)
    assert await answer(first) == "has it"
    second = await hold(url)
    assert await answer(second) == "taken"
    second.kill()
    await second.wait()
    assert await answer(first, "release") == "released"
    third = await hold(url)
    assert await answer(third) == "has it"
    third.kill()
    await third.wait()
    last = await hold(url)
    assert await answer(last) == "has it"
    for each in (first, last):
        each.kill()
        await each.wait()


async def test_two_processes_write_in_turn(tmp_path: Path) -> None:
    both = [await hold(f"lmdb:{tmp_path}/store") for _ in range(2)]
    assert {await answer(each) for each in both} == {"has it", "taken"}
    await asyncio.gather(*(answer(each, "25") for each in both))
    assert await answer(both[0], "0") == "50"
    for each in both:
        each.kill()
        await each.wait()


# --- processes that are asked from another --------------------------------------------------------------------


class Peer:
    """A connection whose peer is a user, as a system reports it."""

    def __init__(self, level: int, option: int, value: bytes) -> None:
        self._wanted = level, option
        self._value = value

    def getsockopt(self, level: int, option: int, size: int) -> bytes:
        assert (level, option) == self._wanted
        return self._value[:size]


def test_the_peer_is_identified_on_macos_too(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr("socket.SO_PEERCRED")
    monkeypatch.setattr("socket.LOCAL_PEERCRED", 1, raising=False)
    xucred = struct.pack("=2Ih2x16I", 0, 501, 1, 20, *[0] * 15)  # version, user, number of groups, groups
    assert local_sockets.peer_user(Peer(0, 1, xucred)) == 501
    control_socket.check_sockets()


@pytest.mark.parametrize(
    ("missing", "reason"),
    [("AF_UNIX", "no Unix sockets"), ("SO_PEERCRED", "does not tell which user")],
)
def test_where_a_process_cannot_be_asked_the_error_says_what_works(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, missing: str, reason: str
) -> None:
    monkeypatch.delattr(f"socket.{missing}")
    uses: list[Any] = [control_socket.control_directory, control_socket.control_directories]
    for use in uses:
        with pytest.raises(
            control_socket.ControlRefused, match=rf"{reason}.*`tree\(\)` and `statistics\(\)`"
        ):
            use("memory:", str(tmp_path))


SERVE = """
import os, signal, sys, threading
from tests import elsewhere
elsewhere.windows()
from uno_actors.cli.app import main
threading.Timer(2, os.kill, (os.getpid(), signal.SIGTERM)).start()
sys.argv = ["uno-actors", "run", sys.argv[2]]
main()
"""


def test_service_stops_on_signals_where_event_loops_handle_none(tmp_path: Path) -> None:
    file = tmp_path / "bank.toml"
    file.write_text('[system]\nname = "bank"\nstore = "memory:"\n', "utf-8")
    run = subprocess.run(
        [sys.executable, "-c", SERVE, "windows", str(file)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=patience(60),
        check=False,
        env={**os.environ, "NO_COLOR": "1"},
    )
    assert run.returncode == 0, run.stderr
    assert "other processes cannot ask for the state of the system" in run.stderr
    assert "no Unix sockets" in run.stderr
    assert "stopping on signal" in run.stderr
