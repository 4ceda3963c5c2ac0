"""``uno-actors run`` and ``uno-actors tree``, as processes with real files and real signals."""

import asyncio
import json
import os
import shutil
import signal
import socket
import stat
import subprocess
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any, TypeVar

import pytest
from configured import Sold

from tests.commands import Ended, run_command
from tests.machine import patience
from uno_actors import EventRegistry, EventStore
from uno_actors.system.control_socket import ControlRefused, control_directories, control_directory
from uno_stores import LmdbEventStore

COMMAND = Path(sys.executable).with_name("uno-actors")
HERE = Path(__file__).parent

T = TypeVar("T")

FILE = """\
[system]
name = "shop"
store = "lmdb:${DATA}"
stop_timeout = "20s"
[logging]
format = "json"
[[handlers]]
name = "note"
handler = "configured:note"
"""


class Running:
    """A service in a directory: its file, its process, its logs."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.file = directory / "shop.toml"
        self.log = directory / "log"
        self.environment = os.environ | {
            "PYTHONPATH": str(HERE),
            "DATA": str(directory / "data"),
            "NOTES": str(directory / "notes"),
            "XDG_RUNTIME_DIR": tempfile.mkdtemp(),  # with a shorter path than that of the test
        }
        self.process: subprocess.Popen[bytes] | None = None

    def start(self, text: str = FILE, *options: str, **environment: str) -> None:
        """Start it, and return when it has started."""
        self.begin(text, *options, **environment)
        self.until(lambda: self.logged("system started") and self.sockets())

    def sockets(self) -> list[Path]:
        runtime = Path(self.environment["XDG_RUNTIME_DIR"])
        return [*self.directory.rglob("*.sock"), *runtime.rglob("*.sock")]

    def begin(self, text: str = FILE, *options: str, **environment: str) -> None:
        self.file.write_text(text)
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(
                [COMMAND, "run", self.file, *options],
                env=self.environment | environment,
                stdout=log,
                stderr=log,
                cwd=self.directory,
            )

    def until(self, condition: Callable[[], object]) -> None:
        """Wait; the deadline is that of the test."""
        while not condition():
            assert self.process is not None
            if self.process.poll() is not None and not condition():
                pytest.fail(f"it ended with {self.process.returncode}: {self.log.read_text()}")
            time.sleep(0.01)

    def logged(self, text: str) -> bool:
        return text in self.log.read_text()

    def notes(self) -> list[int]:
        path = self.directory / "notes"
        return [int(line) for line in path.read_text().splitlines()] if path.exists() else []

    def signal(self, number: signal.Signals) -> None:
        assert self.process is not None
        self.process.send_signal(number)

    def code(self) -> int:
        """The exit code, when it has ended."""
        assert self.process is not None
        return self.process.wait(patience(30))

    def sell(self, *prices: int) -> None:
        """Have another process, this one, record events in its store."""

        self.in_store(lambda store: store.append(*[Sold(price=price) for price in prices]))

    def in_store(self, work: Callable[[EventStore], Awaitable[T]]) -> T:
        """What ``work`` returns for its store, opened by this process."""

        async def run() -> T:
            async with LmdbEventStore(self.directory / "data", EventRegistry([Sold])) as store:
                return await work(store)

        return asyncio.run(run())

    def tree(self, *options: str, cwd: Path | None = None) -> Ended:
        return self.command("tree", *options, cwd=cwd)

    def command(self, name: str, *options: str, cwd: Path | None = None) -> Ended:
        """A command of uno-actors for the file, run to its end in this process."""
        arguments = name, str(self.file), *options
        return run_command(*arguments, environment=self.environment, directory=cwd or self.directory)


@pytest.fixture
def service(tmp_path: Path) -> Iterator[Running]:
    running = Running(tmp_path)
    yield running
    if running.process is not None and running.process.poll() is None:
        running.process.kill()
        running.process.wait()
    shutil.rmtree(running.environment["XDG_RUNTIME_DIR"])


# --- stopping ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_drains_and_ends_it_with_0(service: Running, number: signal.Signals) -> None:
    service.start(SECONDS_EACH="0.05")
    service.sell(*range(20))
    service.until(service.notes)
    service.signal(number)
    assert service.code() == 0
    assert service.notes() == list(range(20))
    lines = [json.loads(line) for line in service.log.read_text().splitlines()]
    assert [line["event"] for line in lines] == ["system started", "stopping on signal", "system stopped"]
    assert lines[1]["signal"] == number.name
    assert {line["system"] for line in lines} == {"shop"}
    assert service.sockets() == []


def test_a_second_signal_ends_it_at_once(service: Running) -> None:
    service.start(FILE.replace("configured:note", "configured:get_stuck").replace("20s", "1h"))
    service.sell(1)
    service.until(service.notes)
    service.signal(signal.SIGTERM)
    service.until(lambda: service.logged("stopping on signal"))
    service.signal(signal.SIGTERM)
    assert service.code() == 128 + signal.SIGTERM
    assert service.logged("second signal: ending at once")


def test_a_stuck_handler_delays_the_end_no_longer_than_the_deadline(service: Running) -> None:
    stuck = FILE.replace("configured:note", "configured:get_stuck").replace("20s", "500ms")
    service.start(stuck)
    service.sell(1)
    service.until(service.notes)
    service.signal(signal.SIGTERM)
    assert service.code() == 0


TELLS_INTERVAL = """
import os, sys
from pathlib import Path
from configured import Sold
from uno_actors import subscribe

@subscribe(event_type=Sold, name="note")
def note(event: Sold) -> None:
    Path(os.environ["NOTES"]).write_text(f"{sys.getswitchinterval() * 1_000_000:.0f}\\n")
"""


def test_threads_of_a_service_wait_a_fifth_of_the_usual_time_for_a_busy_event_loop(service: Running) -> None:
    (service.directory / "tells.py").write_text(TELLS_INTERVAL)
    path = os.pathsep.join([str(HERE), str(service.directory)])
    service.start(FILE.replace("configured:note", "tells:note"), PYTHONPATH=path)
    service.sell(1)
    service.until(service.notes)
    assert service.notes() == [1000]  # microseconds


def test_a_killed_service_resumes_where_it_was(service: Running) -> None:
    service.start(SECONDS_EACH="0.01")
    service.sell(*range(50))
    service.until(lambda: len(service.notes()) > 5)
    service.signal(signal.SIGKILL)
    assert service.code() == -signal.SIGKILL
    before = service.notes()
    assert len(before) < 50
    service.log.unlink()
    service.start()
    service.until(lambda: set(service.notes()) == set(range(50)))
    service.signal(signal.SIGTERM)
    assert service.code() == 0
    after = service.notes()[len(before) :]
    assert after == sorted(after)
    assert after[-1] == 49


# --- not starting, giving up -------------------------------------------------------------------------------


def test_an_invalid_file_is_refused_with_the_line_of_each_fault(service: Running) -> None:
    service.begin(FILE + "topik = 1\n")
    assert service.code() == 1
    lines = service.log.read_text().splitlines()
    assert lines[0] == f"error: {service.file} has 1 fault:"
    assert lines[1].startswith(f"{service.file}:10: handlers[0].topik: ")
    assert len(lines) == 2


def test_a_missing_file_is_a_wrong_command_line(service: Running) -> None:
    run = subprocess.run(
        [COMMAND, "run", "nowhere.toml"], cwd=service.directory, capture_output=True, text=True, check=False
    )
    assert (run.returncode, run.stdout) == (2, "")
    assert "nowhere.toml: it cannot be read: No such file or directory" in run.stderr


def test_a_store_that_cannot_be_opened_ends_it_with_1(service: Running) -> None:
    (service.directory / "data").write_text("no directory")
    service.begin()
    assert service.code() == 1
    (line,) = map(json.loads, service.log.read_text().splitlines())
    assert line["event"] == "system cannot start"
    assert "data" in line["error"]


def test_a_handler_that_cannot_be_instantiated_ends_it_with_1_and_its_traceback_in_the_log(
    service: Running,
) -> None:
    service.begin(FILE.replace("configured:note", "configured:Unmakable"))
    assert service.code() == 1
    line = json.loads(service.log.read_text().splitlines()[-1])
    assert line["event"] == "system cannot start"
    assert "no mail server" in line["exception"]


def test_supervisors_that_give_up_end_it_with_3(service: Running) -> None:
    rules = '[[supervisors]]\nname = "sales"\nmax_restarts = 1\nbackoff = { initial = "0s" }\n'
    failing = '[[supervisors.handlers]]\nname = "fail"\nhandler = "configured:fail"\n'
    service.start(FILE + rules + failing)
    service.sell(7)
    assert service.code() == 3
    events = [json.loads(line) for line in service.log.read_text().splitlines()]
    (contradiction,) = [line for line in events if line["event"] == "rules contradict each other"]
    assert "an event should get 5 attempts" in contradiction["finding"]
    assert f"{service.file}:" in contradiction["finding"]
    gave_up = events[-1]
    assert (gave_up["event"], gave_up["level"]) == ("system gave up", "critical")
    assert "7 is too much" in gave_up["error"]


def test_logs_for_people_are_lines_of_text(service: Running) -> None:
    service.start(FILE, "--log", "text")
    service.signal(signal.SIGTERM)
    assert service.code() == 0
    first = service.log.read_text().splitlines()[0]
    assert "[info     ] system started" in first
    assert "system=shop" in first


# --- the tree ----------------------------------------------------------------------------------------------


def test_the_tree_of_a_running_system_is_shown_to_its_owner_only(service: Running) -> None:
    service.start()
    (path,) = service.sockets()
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    service.sell(1)
    service.until(service.notes)
    shown = service.tree()
    assert shown.returncode == 0, shown.stderr
    assert service.process is not None
    first, *others = shown.stdout.splitlines()
    assert first.startswith(f"shop, process {service.process.pid}, up ")
    assert any("note  handler, live" in line for line in others)
    answer = json.loads(service.tree("--json").stdout)
    assert answer["system"] == "shop"
    assert "note" in json.dumps(answer["tree"])


def test_the_socket_of_a_killed_process_is_removed(service: Running) -> None:
    service.start()
    service.signal(signal.SIGKILL)
    service.code()
    assert service.sockets()
    asked = service.tree()
    assert (asked.returncode, asked.stdout) == (1, "")
    assert "no process runs the system of" in asked.stderr
    assert service.sockets() == []


def test_a_service_that_starts_removes_the_sockets_of_killed_ones(service: Running) -> None:
    service.start()
    service.signal(signal.SIGKILL)
    service.code()
    (dead,) = service.sockets()
    service.begin()
    service.until(lambda: service.sockets() not in ([dead], []))
    assert not dead.exists()


def test_a_system_in_memory_is_found_by_its_file(service: Running) -> None:
    service.start(FILE.replace("lmdb:${DATA}", "memory:"))
    assert "note  handler" in service.tree().stdout
    assert service.tree().returncode == 0


def test_a_running_system_is_found_from_any_directory(service: Running) -> None:
    service.start(FILE, DATA="data")
    assert (service.directory / "data" / "data.mdb").exists()
    service.environment["DATA"] = "data"
    assert "note  handler" in service.tree(cwd=Path("/")).stdout


def test_a_process_that_does_not_answer_hides_no_other(service: Running) -> None:
    service.start()
    stuck = service.process
    assert stuck is not None
    try:
        service.start()
        service.until(lambda: len(service.sockets()) == 2)
        (its_own,) = (path for path in service.sockets() if str(stuck.pid) in path.name)
        stuck.send_signal(signal.SIGSTOP)
        shown = service.tree()
        assert service.process is not None
        assert f"shop, process {service.process.pid}, up" in shown.stdout
        assert f"error: process {stuck.pid} does not answer at {its_own}" in shown.stderr
        assert shown.returncode == 1
    finally:
        stuck.kill()
        stuck.wait()


def test_malformed_requests_do_not_harm_the_system(service: Running) -> None:
    service.start()
    (path,) = service.sockets()
    for request in (b"", b"\n", b"{}\n", b'{"want": "secrets"}\n', b"[" * 100_000 + b"\n", b"\xff\n"):
        with socket.socket(socket.AF_UNIX) as connection:
            connection.connect(str(path))
            connection.sendall(request)
            connection.shutdown(socket.SHUT_WR)
            try:
                reply: Any = connection.makefile("rb").readline()
            except ConnectionResetError:
                reply = b""
        assert not reply or "error" in json.loads(reply)
    assert service.tree().returncode == 0


@pytest.fixture
def short(monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A directory for sockets, with a shorter path than that of the test."""
    with tempfile.TemporaryDirectory() as directory:
        monkeypatch.setattr(tempfile, "tempdir", directory)
        monkeypatch.setenv("XDG_RUNTIME_DIR", directory)
        yield Path(directory)


def test_a_directory_that_others_may_use_is_refused(short: Path) -> None:
    directory = control_directory("memory:", str(short))
    assert stat.S_IMODE(directory.stat().st_mode) == 0o700
    assert control_directories("memory:", str(short)) == [directory]
    directory.parent.chmod(0o755)
    with pytest.raises(ControlRefused, match="is open to others"):
        control_directory("memory:", str(short))
    assert control_directories("memory:", str(short)) == []


def test_long_paths_work(short: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    deep = tmp_path / ("x" * 90)
    deep.mkdir()
    directory = control_directory(f"lmdb:{deep}", str(short))
    assert directory.parent.parent == short
    assert (
        directory == control_directory(f"lmdb:{deep}", str(short)) != control_directory("memory:", str(short))
    )
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(deep))
    assert directory == control_directory(f"lmdb:{deep}", str(short))


@pytest.mark.parametrize("place", ["nowhere", "file"])
def test_a_directory_for_sockets_that_cannot_be_made_is_reported(
    short: Path, monkeypatch: pytest.MonkeyPatch, place: str
) -> None:
    (short / "file").touch()
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(short / place))
    assert control_directories("memory:", str(short)) == []
    with pytest.raises(ControlRefused, match="set XDG_RUNTIME_DIR"):
        control_directory("memory:", str(short))


def test_a_relative_directory_for_sockets_is_ignored(short: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_RUNTIME_DIR", "relative")
    assert control_directory("memory:", str(short)).parent.parent == short


def test_a_system_is_found_from_another_environment(service: Running) -> None:
    """A service manager has another environment than a login shell."""
    service.environment["TMPDIR"] = service.environment.pop("XDG_RUNTIME_DIR")
    service.begin(FILE.replace("lmdb:${DATA}", "memory:"))
    service.until(lambda: [*Path(service.environment["TMPDIR"]).rglob("*.sock")])
    service.environment["XDG_RUNTIME_DIR"] = str(service.directory)
    assert "note  handler" in service.tree().stdout
    service.environment["XDG_RUNTIME_DIR"] = service.environment["TMPDIR"]


# --- another file ------------------------------------------------------------------------------------------

SECOND = '[[handlers]]\nname = "second"\nhandler = "configured:note"\nstart = "earliest"\n'


def test_sighup_applies_the_difference(service: Running) -> None:
    service.start(SECONDS_EACH="0.01")
    service.sell(1, 2)
    service.until(lambda: service.notes() == [1, 2])
    service.file.write_text(FILE + SECOND)
    service.signal(signal.SIGHUP)
    service.until(lambda: service.logged("configuration applied"))
    line = json.loads(service.log.read_text().splitlines()[-1])
    assert (line["stopped"], line["started"]) == ([], ["second"])
    service.until(lambda: service.notes() == [1, 2, 1, 2])
    assert "second  handler, live" in service.tree().stdout
    service.signal(signal.SIGTERM)
    assert service.code() == 0


def test_sighup_with_an_invalid_file_changes_nothing(service: Running) -> None:
    service.start()
    before = json.loads(service.tree("--json").stdout)
    service.file.write_text(FILE + SECOND + "topik = 1\nbatch = 0\n")
    service.signal(signal.SIGHUP)
    service.until(lambda: service.log.read_text().count("configuration is wrong and nothing changes") == 2)
    lines = [json.loads(line) for line in service.log.read_text().splitlines()]
    assert f"{service.file}:14: handlers[1].topik" in lines[-2]["fault"]
    assert f"{service.file}:15: handlers[1].batch" in lines[-1]["fault"]
    assert json.loads(service.tree("--json").stdout)["tree"] == before["tree"]
    service.file.unlink()
    service.signal(signal.SIGHUP)
    service.until(lambda: service.logged("No such file"))
    service.signal(signal.SIGTERM)
    assert service.code() == 0


def test_sighup_reports_what_needs_a_restart_and_changes_the_logs(service: Running) -> None:
    service.start()
    service.file.write_text(FILE.replace("20s", "21s").replace('"json"', '"text"'))
    service.signal(signal.SIGHUP)
    service.until(lambda: service.logged("configuration applied"))
    last = service.log.read_text().splitlines()[-2:]
    assert "changes take effect at the next start" in last[0]
    assert "system.stop_timeout" in last[0]
    assert "[info     ] configuration applied" in last[1]


def test_hundreds_of_signals_end_in_the_last_file(service: Running) -> None:
    service.start()
    for number in range(200):
        service.file.write_text(FILE + SECOND * (number % 2))
        service.signal(signal.SIGHUP)
    service.until(lambda: "second" in service.tree().stdout)
    service.signal(signal.SIGTERM)
    assert service.code() == 0
    assert not service.logged("cannot be applied")


def test_a_signal_while_it_starts_ends_it_with_0(service: Running) -> None:
    slow = '[[supervisors]]\nname = "s"\n[[supervisors.actors]]\nactor = "configured:SlowToStart"\nshutdown = "kill"\n'
    service.begin(FILE + slow)
    service.until(service.notes)
    service.signal(signal.SIGTERM)
    assert service.code() == 0
    assert service.logged("system stopped before it had started")


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_while_modules_are_imported_ends_it_with_0(service: Running, number: signal.Signals) -> None:
    mark = service.directory / "mark"
    service.begin(IMPORT_MARK=str(mark))
    service.until(mark.exists)
    service.signal(number)
    assert service.code() == 0
    assert service.log.read_text() == ""


def test_sighup_while_modules_are_imported_is_carried_out_after_the_start(service: Running) -> None:
    mark = service.directory / "mark"
    service.begin(IMPORT_MARK=str(mark))
    service.until(mark.exists)
    service.file.write_text(FILE + SECOND)
    service.signal(signal.SIGHUP)
    mark.unlink()
    service.until(lambda: service.logged("configuration applied"))
    assert "second  handler" in service.tree().stdout
