"""The live page at sockets and ports: of a service, of a program, and of a store."""

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
from collections.abc import Callable, Iterator
from contextlib import AsyncExitStack, contextmanager
from pathlib import Path

import httpx
import pytest

from tests.bank import EVENTS, Account
from tests.commands import run_command
from tests.machine import patience
from uno_actors import ActorSystem, MissingExtra
from uno_actors.cli.run import PageOfWorkers
from uno_actors.ops import serve_page, serving
from uno_actors.ops.serving import (
    DEFAULT,
    PREFIX,
    SUFFIX,
    Address,
    InvalidAddress,
    NoPort,
    Served,
    check_page,
)
from uno_actors.ops.sources import SystemSource

COMMAND = Path(sys.executable).with_name("uno-actors")
HERE = Path(__file__).parents[1]
TOKEN = "0123456789abcdef" * 2
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


class Program:
    """A program in a directory that other users could enter, and what it has written."""

    def __init__(self) -> None:
        self.directory = Path(tempfile.mkdtemp())
        self.directory.chmod(0o755)
        self.file = self.directory / "shop.toml"
        self.file.write_text(FILE)
        self.log = self.directory / "log"
        self.environment = os.environ | {
            "PYTHONPATH": str(HERE),
            "DATA": str(self.directory / "data"),
            "NOTES": str(self.directory / "notes"),
            "UNO_ACTORS_PAGE_TOKEN": TOKEN,
        }
        self.process: subprocess.Popen[bytes] | None = None

    def run(self, *command: str | Path, until: str = "system started") -> None:
        """Start a command, and return when it has written this text."""
        with self.log.open("wb") as log:
            self.process = subprocess.Popen(
                command, env=self.environment, stdout=log, stderr=log, cwd=self.directory
            )
        self.wait(lambda: until in self.written())

    def wait(self, condition: Callable[[], object]) -> None:
        while not condition():
            assert self.process is not None
            if self.process.poll() is not None:
                pytest.fail(f"it ended with {self.process.returncode}: {self.written()}")
            time.sleep(0.01)

    def written(self) -> str:
        return self.log.read_text()

    def line(self, text: str) -> str:
        """The first written line with a text."""
        return next(line for line in self.written().splitlines() if text in line)

    @property
    def page(self) -> Path:
        assert self.process is not None
        return self.directory / "data" / f"{PREFIX}{self.process.pid}{SUFFIX}"

    def end(self, number: signal.Signals = signal.SIGTERM) -> int:
        assert self.process is not None
        self.process.send_signal(number)
        return self.process.wait(patience(30))

    def close(self) -> None:
        if self.process is not None and self.process.poll() is None:
            self.process.kill()
            self.process.wait()
        shutil.rmtree(self.directory)


@pytest.fixture
def program() -> Iterator[Program]:
    running = Program()
    yield running
    running.close()


def at_socket(path: Path) -> httpx.Client:
    return httpx.Client(transport=httpx.HTTPTransport(uds=str(path)), base_url="http://page.test")


@contextmanager
def logged_in(link: str) -> Iterator[httpx.Client]:
    """A browser that has followed a link."""
    base, _, code = link.partition("/login#")
    with httpx.Client(base_url=base) as client:
        answer = client.post("/api/login", json={"code": code}, headers={"X-Uno-Actors": "test"})
        assert answer.status_code == 200, answer.text
        yield client


# --- the private socket of a service -------------------------------------------------------------------------


def test_a_service_has_the_page_at_a_socket_of_its_user_alone(program: Program) -> None:
    program.run(COMMAND, "run", program.file)
    program.wait(program.page.exists)
    assert stat.S_IMODE(program.page.stat().st_mode) == 0o600
    with at_socket(program.page) as client:
        assert client.get("/api/about").json()["name"] == "shop"
        assert "<!doctype html>" in client.get("/").text
        assert 'uno_system_running{system="shop"} 1.0' in client.get("/metrics").text
        assert client.post("/api/handlers/pause", json={"name": "note"}).status_code == 403
        answer = client.post("/api/handlers/pause", json={"name": "note"}, headers={"X-Uno-Actors": "1"})
        assert answer.json() == {"count": 1}
    assert program.end() == 0
    assert not program.page.exists()


OTHER_USER = """\
import socket, sys
connection = socket.socket(socket.AF_UNIX)
connection.settimeout(10)
try:
    connection.connect(sys.argv[1])
    connection.sendall(b"GET /api/about HTTP/1.1\\r\\nHost: x\\r\\nConnection: close\\r\\n\\r\\n")
    print(repr(connection.recv(1000)))
except OSError as error:
    print(type(error).__name__)
"""


@pytest.mark.skipif(os.getuid() != 0, reason="only root can become another user")
def test_another_user_cannot_use_the_socket_even_if_its_mode_is_changed(program: Program) -> None:
    program.run(COMMAND, "run", program.file)
    program.wait(program.page.exists)
    command = ["/usr/bin/env", "-i", sys.executable, "-c", OTHER_USER, str(program.page)]
    python = Path(sys.executable).resolve()
    if not os.access(python, os.X_OK) or not all(
        stat.S_IMODE(each.stat().st_mode) & 0o001 for each in python.parents
    ):
        command[2] = shutil.which("python3", path="/usr/bin:/bin") or pytest.skip(
            "another user has no Python here"
        )

    def as_other() -> str:
        run = subprocess.run(
            command, user=65534, group=65534, extra_groups=[], capture_output=True, text=True, check=False
        )
        return run.stdout.strip() or run.stderr

    assert as_other() == "PermissionError"
    program.page.chmod(0o666)
    (program.directory / "data").chmod(0o755)
    assert as_other() in ("ConnectionResetError", "b''", "BrokenPipeError")
    with at_socket(program.page) as client:
        assert client.get("/api/about").status_code == 200


def test_the_socket_of_a_killed_process_is_removed_by_the_next(program: Program) -> None:
    program.run(COMMAND, "run", program.file)
    program.wait(program.page.exists)
    program.end(signal.SIGKILL)
    dead = program.page
    assert dead.exists()
    program.run(COMMAND, "run", program.file)
    program.wait(program.page.exists)
    assert not dead.exists()


# --- a port --------------------------------------------------------------------------------------------------


def test_a_service_has_the_page_at_a_port_if_asked(program: Program) -> None:
    program.run(COMMAND, "run", program.file, "--page", "127.0.0.1:0", until='"live page"')
    place = json.loads(program.line('"live page"'))["address"]
    assert httpx.get(f"{place}/api/about").status_code == 401
    assert httpx.get(f"{place}/api/about", headers={"Authorization": "Bearer wrong"}).status_code == 401
    assert httpx.get(f"{place}/metrics").status_code == 401
    assert httpx.get(f"{place}/metrics", headers={"Authorization": f"Bearer {TOKEN}"}).status_code == 200
    assert httpx.get(f"{place}/readyz").status_code == 200
    assert (
        httpx.get(f"{place}/api/about", headers={"Authorization": f"Bearer {TOKEN}"}).json()["name"] == "shop"
    )
    link = run_command(
        "dashboard", str(program.file), "--link", environment=program.environment, directory=program.directory
    )
    assert link.returncode == 0, link.stderr
    assert link.stdout.startswith(f"{place}/login#")
    with logged_in(link.stdout.strip()) as browser:
        assert browser.get("/api/about").json()["name"] == "shop"
    with pytest.raises(AssertionError, match="the link was used before"), logged_in(link.stdout.strip()):
        pass
    assert TOKEN not in program.written()
    assert link.stdout.strip().partition("#")[2] not in program.written()


def test_an_open_stream_does_not_keep_a_service_from_stopping(program: Program) -> None:
    program.run(COMMAND, "run", program.file, "--page", "127.0.0.1:0", until='"live page"')
    place = json.loads(program.line('"live page"'))["address"]
    with httpx.stream(
        "GET", f"{place}/api/now/events", headers={"Authorization": f"Bearer {TOKEN}"}
    ) as stream:
        lines = stream.iter_lines()
        assert next(lines).startswith("data: {")
        begun = time.monotonic()
        assert program.end() == 0
        assert time.monotonic() - begun < patience(8)
        assert "event: end" in list(lines)


def test_a_port_that_is_taken_ends_the_service_with_the_reason(program: Program) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        with pytest.raises(
            pytest.fail.Exception, match=f"(?s)it ended with 1: .*cannot be served at '{address}'"
        ):
            program.run(COMMAND, "run", program.file, "--page", address, until='"live page"')


def test_a_token_that_is_too_short_matters_where_it_is_used(program: Program) -> None:
    program.environment["UNO_ACTORS_PAGE_TOKEN"] = TOKEN[:5]
    with pytest.raises(pytest.fail.Exception, match="(?s)it ended with 1: .*16 characters or more; found 5"):
        program.run(COMMAND, "run", program.file, "--page", "127.0.0.1:0", until='"live page"')
    program.run(COMMAND, "run", program.file)
    program.wait(program.page.exists)
    assert program.end() == 0


@pytest.mark.parametrize(
    "text", ["8700", "127.0.0.1", "127.0.0.1:", ":8700", "127.0.0.1:65536", "127.0.0.1:x"]
)
def test_an_address_must_have_a_host_and_a_port(program: Program, text: str) -> None:
    ended = run_command(
        "run", str(program.file), "--page", text, environment=program.environment, directory=program.directory
    )
    assert ended.returncode == 2
    assert "HOST:PORT, such as 127.0.0.1:8700" in " ".join(ended.stderr.split())


@pytest.mark.parametrize(
    ("text", "host", "port", "is_local"),
    [
        ("127.0.0.1:8700", "127.0.0.1", 8700, True),
        ("[::1]:80", "::1", 80, True),
        ("localhost:0", "localhost", 0, True),
        ("0.0.0.0:1", "0.0.0.0", 1, False),  # noqa: S104
        ("example.org:1", "example.org", 1, False),
    ],
)
def test_an_address_is_read_and_written(text: str, host: str, port: int, *, is_local: bool) -> None:
    address = Address.of(text)
    assert (address.host, address.port, address.is_local, str(address)) == (host, port, is_local, text)


def test_a_port_is_for_one_process(program: Program) -> None:
    ended = run_command(
        "run", str(program.file), "--workers", "2", "--page", "127.0.0.1:0",
        environment=program.environment, directory=program.directory,
    )  # fmt: skip
    assert ended.returncode == 1
    assert str(PageOfWorkers(program.file)) in " ".join(ended.stderr.split())


def test_without_a_page_at_a_port_there_is_no_link(program: Program) -> None:
    program.run(COMMAND, "run", program.file)
    ended = run_command(
        "dashboard", str(program.file), "--link", environment=program.environment, directory=program.directory
    )
    assert ended.returncode == 1
    assert "serves the live page at a port" in " ".join(ended.stderr.split())


# --- a store -------------------------------------------------------------------------------------------------


def test_a_dashboard_shows_a_store_that_nothing_has_open(program: Program) -> None:
    program.run(COMMAND, "run", program.file)
    program.end()
    url = f"lmdb:{program.directory / 'data'}"
    program.run(COMMAND, "dashboard", url, "--page", "127.0.0.1:0", until="login#")
    with logged_in(program.line("login#").rpartition(" ")[2]) as browser:
        assert browser.get("/api/about").json() | {"version": ""} == {
            "name": url,
            "store": url,
            "is_live": False,
            "version": "",
        }
        assert browser.get("/api/handlers").json()["handlers"][0]["state"] == "not running"
    assert program.end(signal.SIGINT) == 0


def test_a_dashboard_of_a_file_shows_the_running_service(program: Program) -> None:
    program.run(COMMAND, "run", program.file)
    service, program.process = program.process, None
    assert service is not None
    try:
        program.run(COMMAND, "dashboard", program.file, "--page", "127.0.0.1:0", until="login#")
        with logged_in(program.line("login#").rpartition(" ")[2]) as browser:
            (process,) = browser.get("/api/now").json()["processes"]
            assert (process["system"], process["process"]) == ("shop", service.pid)
            names = [child["name"] for child in browser.get("/api/tree").json()["processes"][0]["children"]]
            assert names == ["handlers"]
    finally:
        service.kill()
        service.wait()


def test_a_dashboard_makes_no_store(program: Program) -> None:
    ended = run_command(
        "dashboard", "lmdb:none", environment=program.environment, directory=program.directory
    )
    assert ended.returncode == 1
    assert not (program.directory / "none").exists()


# --- a program -----------------------------------------------------------------------------------------------


async def test_a_program_serves_its_page() -> None:
    async with ActorSystem(aggregates=[Account], handlers=[], event_registry=EVENTS, name="bank") as system:
        async with serve_page(system, "127.0.0.1:0", token=TOKEN) as page:
            place = f"http://{page.address}"
            async with httpx.AsyncClient() as client:
                answer = await client.get(f"{place}/api/about", headers={"Authorization": f"Bearer {TOKEN}"})
                assert answer.json()["name"] == "bank"
                assert (await client.get(f"{place}/api/about")).status_code == 401
        with pytest.raises(ConnectionRefusedError):
            await asyncio.open_connection(*page.address or DEFAULT)


async def test_an_open_stream_ends_with_the_page_while_the_system_runs_on() -> None:
    async with ActorSystem(aggregates=[], handlers=[]) as system, httpx.AsyncClient() as client:
        async with AsyncExitStack() as stack:
            page = await stack.enter_async_context(serve_page(system, "127.0.0.1:0", token=TOKEN))
            asked = client.stream(
                "GET", f"http://{page.address}/api/tree/events", headers={"Authorization": f"Bearer {TOKEN}"}
            )
            async with asked as stream:
                lines = stream.aiter_lines()
                assert (await anext(lines)).startswith("data: {")
                await stack.aclose()
                assert "event: end" in [line async for line in lines]
        assert system.statistics().commands == 0


async def test_where_the_usual_port_is_taken_a_free_one_is_used() -> None:
    with socket.socket() as taken:
        taken.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            taken.bind(DEFAULT)
            taken.listen()
        except OSError:
            pass  # it is taken already
        async with ActorSystem(handlers=[], aggregates=[]) as system, serve_page(system) as page:
            assert page.address is not None
            assert page.address.port not in (0, DEFAULT.port)
        async with ActorSystem(handlers=[], aggregates=[]) as system:
            with pytest.raises(InvalidAddress, match="Address already in use"):
                async with serve_page(system, str(DEFAULT)):
                    pass


async def test_a_port_that_other_machines_reach_is_warned_of(caplog: pytest.LogCaptureFixture) -> None:
    async with ActorSystem(handlers=[], aggregates=[]) as system, serve_page(system, "0.0.0.0:0"):
        pass
    assert "without encryption" in caplog.text


LAZY = """\
import asyncio, http.client, socket, sys, tempfile
from pathlib import Path
from uno_actors import ActorSystem
from uno_actors.ops.serving import Served
from uno_actors.ops.sources import SystemSource

def ask(path):
    with socket.socket(socket.AF_UNIX) as connection:
        connection.connect(str(path))
        connection.sendall(b"GET /api/about HTTP/1.1\\r\\nHost: x\\r\\nConnection: close\\r\\n\\r\\n")
        return connection.makefile("rb").read()

async def main():
    async with ActorSystem(handlers=[], aggregates=[]) as system, Served(SystemSource(system)) as served:
        path = await served.at_socket(Path(tempfile.mkdtemp()))
        print([name for name in ("starlette", "uvicorn", "h11") if name in sys.modules])
        print((await asyncio.to_thread(ask, path)).split()[1])
        print([name for name in ("starlette", "uvicorn", "h11") if name in sys.modules])

asyncio.run(main())
"""


def test_the_web_framework_is_imported_when_the_first_browser_comes() -> None:
    run = subprocess.run([sys.executable, "-c", LAZY], capture_output=True, text=True, check=True)
    assert run.stdout.splitlines() == ["[]", "b'200'", "['starlette', 'uvicorn', 'h11']"]


def test_a_missing_library_is_named_with_its_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(serving, "find_spec", lambda name: None if name == "uvicorn" else object())
    assert not serving.has_page()
    with pytest.raises(
        MissingExtra, match=r"the live page needs `pip install 'uno-actors\[page\]'`: .*'uvicorn'"
    ):
        check_page()


async def test_a_page_that_no_browser_has_opened_stops_at_once(tmp_path: Path) -> None:
    async with ActorSystem(handlers=[], aggregates=[]) as system:
        async with Served(SystemSource(system)) as served:
            path = await served.at_socket(tmp_path)
            with pytest.raises(NoPort):
                served.link()
        assert not path.exists()


MOUNTED = """\
import contextlib, sys
import uvicorn
from starlette.applications import Starlette
from starlette.routing import Mount
from uno_actors import ActorSystem, ops

system = ActorSystem(handlers=[], aggregates=[], name="mounted")

@contextlib.asynccontextmanager
async def lifespan(app):
    async with system:
        yield

app = Starlette(lifespan=lifespan, routes=[Mount("/ops", ops.app(system))])

if __name__ == "__main__":
    uvicorn.run(app, port=int(sys.argv[1]), log_level="info")
"""


def test_a_page_mounted_in_a_program_ends_its_streams_when_the_server_stops(program: Program) -> None:
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    script = program.directory / "mounted.py"
    script.write_text(MOUNTED)
    program.run(sys.executable, script, str(port), until="Uvicorn running")
    place, headers = f"http://127.0.0.1:{port}", {"Authorization": f"Bearer {TOKEN}"}
    assert httpx.get(f"{place}/ops", follow_redirects=False).headers["location"].endswith("/ops/")
    assert httpx.get(f"{place}/ops/", follow_redirects=False).headers["location"] == "login"
    assert httpx.get(f"{place}/ops/login").status_code == 200
    assert httpx.get(f"{place}/ops/static/main.js").headers["content-type"].startswith("text/javascript")
    with httpx.stream("GET", f"{place}/ops/api/tree/events", headers=headers) as stream:
        lines = stream.iter_lines()
        assert '"mounted"' in next(lines)
        assert program.end() in (0, -signal.SIGTERM)
        assert "event: end" in list(lines)
    assert TOKEN not in program.written()


def test_another_protocol_at_the_port_harms_nothing(program: Program) -> None:
    program.run(COMMAND, "run", program.file, "--page", "127.0.0.1:0", until='"live page"')
    place = json.loads(program.line('"live page"'))["address"]
    host, port = place.removeprefix("http://").split(":")
    for sent in (
        b"\x16\x03\x01\x02\x00",
        b"GET / HTTP/9.9\r\n\r\n",
        b"x" * 100_000 + b"\r\n\r\n",
        b"\r\n" * 10,
    ):
        with socket.create_connection((host, int(port)), timeout=10) as connection:
            connection.sendall(sent)
            connection.shutdown(socket.SHUT_WR)
            try:
                while connection.recv(1000):
                    pass
            except ConnectionResetError:
                pass
    assert httpx.get(f"{place}/api/about", headers={"Authorization": f"Bearer {TOKEN}"}).status_code == 200
