"""Services in real servers: they stop in time, also with clients of event streams, and end with a code that tells."""

import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import pytest

from tests.machine import patience
from tests.web.servers import Running, gunicorn, started, uvicorn

# httpx does not close its socket if a server ends while it connects.
pytestmark = pytest.mark.filterwarnings("ignore:Exception ignored in. <socket")

WORKER = ("-k", "uvicorn_worker.UvicornWorker")
TOKEN = {"Authorization": "Bearer a token of the test"}

SHORT = 8
"""Seconds that no stop takes on a quiet machine, and that every wait for a client that stays takes."""


class Listener(threading.Thread):
    """A client of a stream that listens until it ends.

    Attributes:
        text: What it has got.
        is_whole: Whether the stream was ended by the server as HTTP wants it; ``None`` while it lasts.
    """

    def __init__(self, server: Running, path: str = "/events") -> None:
        super().__init__(daemon=True)
        self.text = ""
        self.is_whole: bool | None = None
        self._server, self._path = server, path
        self.start()
        server.wait_until(lambda: self.text)

    def run(self) -> None:
        try:
            with (
                self._server.new_client() as client,
                client.stream("GET", self._path, headers=TOKEN, timeout=None) as answer,
            ):
                for text in answer.iter_text():
                    self.text += text
            self.is_whole = True
        except httpx.TransportError:
            self.is_whole = False


def sell(server: Running) -> httpx.Response:
    return server.client.post("/theatres/a/sales", json={"seats": 1})


@contextmanager
def in_time(seconds: float = SHORT) -> Iterator[None]:
    began = time.monotonic()
    yield
    assert time.monotonic() - began < patience(seconds)


TERM, INT = signal.SIGTERM, signal.SIGINT


@pytest.mark.parametrize(
    ("options", "environment", "number"),
    [
        ([], {}, TERM),
        ([], {"MIDDLEWARE": "1"}, INT),
        (["--workers", "2"], {}, TERM),
        (["--http", "h11", "--loop", "asyncio"], {}, INT),
    ],
    ids=["one process", "behind middleware", "workers", "h11"],
)
def test_uvicorn_stops_in_time_with_a_client_of_a_stream(
    tmp_path: Path, options: list[str], environment: dict[str, str], number: signal.Signals
) -> None:
    with started(uvicorn(tmp_path, *options), tmp_path, STORE="lmdb:store", **environment) as server:
        listener = Listener(server)
        assert sell(server).json() == 99
        server.wait_until(lambda: "SeatsSold" in listener.text)
        with in_time():
            server.process.send_signal(number)
            server.ended()
        listener.join(patience(5))
        assert listener.is_whole, server.text
        assert "Traceback" not in server.text


def test_uvicorn_stops_in_time_with_a_browser_on_the_live_page(tmp_path: Path) -> None:
    with started(uvicorn(tmp_path, "--limit-max-requests", "5"), tmp_path) as server:
        listener = Listener(server, "/ops/api/now/events")
        with in_time():
            while server.process.poll() is None:
                server.process_that_answers()
            server.ended()
        listener.join(patience(5))
        assert "Traceback" not in server.text


def test_uvicorn_replaces_nothing_and_stops_in_time_at_its_limit_of_requests(tmp_path: Path) -> None:
    """No signal tells of this end."""
    with started(uvicorn(tmp_path, "--limit-max-requests", "5"), tmp_path) as server:
        listener = Listener(server)
        with in_time():
            while server.process.poll() is None:
                server.process_that_answers()
        listener.join(patience(5))
        assert listener.is_whole, server.text


def test_a_client_that_stops_reading_does_not_keep_uvicorn_from_stopping(tmp_path: Path) -> None:
    """uvicorn has to be given a limit: it waits for the bytes that it has taken until the client has them."""
    options = ["--timeout-graceful-shutdown", "1"]
    with started(uvicorn(tmp_path, *options), tmp_path) as server:
        for _ in range(60):
            sell(server)
        with server.new_client() as client, client.stream("GET", "/flood") as answer:
            next(answer.iter_text())
            with in_time():
                server.stop()


def test_a_service_whose_supervisors_give_up_ends_with_a_code_for_service_managers(tmp_path: Path) -> None:
    """Also with a client of a stream. The code is not that of a signal, which means to systemd that all is well."""
    with started(uvicorn(tmp_path), tmp_path, BREAKS="1") as server:
        listener = Listener(server)
        assert sell(server).json() == 99
        assert server.ended() == 70
        assert "supervisor 'all' gave up" in server.text
        listener.join(patience(5))
        assert listener.is_whole


def test_a_service_can_stay_when_its_supervisors_give_up(tmp_path: Path) -> None:
    with started(uvicorn(tmp_path), tmp_path, BREAKS="1", STAYS="1") as server:
        sell(server)
        server.wait_until(lambda: server.client.get("/theatres/a").status_code == 503)
        assert server.client.get("/theatres/a").json()["title"] == "Service is not running"
        server.process.terminate()
        server.ended()


@pytest.mark.parametrize("kind", ["uvicorn", "gunicorn"])
def test_a_worker_whose_supervisors_give_up_is_replaced(tmp_path: Path, kind: str) -> None:
    words = (
        uvicorn(tmp_path, "--workers", "1")
        if kind == "uvicorn"
        else gunicorn(tmp_path, "tests.web.served:app", *WORKER)
    )
    if kind == "uvicorn":
        words[-1] = "2"
    with started(words, tmp_path, BREAKS="1", STORE="memory:") as server:
        before = server.process_that_answers()
        seen = {before}
        sell(server)

        def another() -> bool:
            now = server.process_that_answers()
            if now is not None:
                seen.add(now)
            return len(seen) > (2 if kind == "uvicorn" else 1)

        server.wait_until(another)
        server.stop()


def test_a_service_that_cannot_start_ends_with_uvicorns_code(tmp_path: Path) -> None:
    (tmp_path / "store").write_text("no store")
    with pytest.raises(AssertionError) as failed, started(uvicorn(tmp_path), tmp_path, STORE="lmdb:store"):
        pass
    assert "Application startup failed" in str(failed.value)


# --- gunicorn ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("options", [[], ["--preload", "--workers", "2"]], ids=["one", "two with preload"])
def test_gunicorn_stops_in_time_with_a_client_of_a_stream(tmp_path: Path, options: list[str]) -> None:
    words = gunicorn(tmp_path, "tests.web.served:app", *WORKER, *options)
    with started(words, tmp_path, STORE="lmdb:store") as server:
        listener = Listener(server)
        assert sell(server).json() == 99
        server.wait_until(lambda: "SeatsSold" in listener.text)
        with in_time():
            assert server.stop() == 0
        listener.join(patience(5))
        assert listener.is_whole, server.text
        assert "Traceback" not in server.text


def test_gunicorn_reloads_without_a_lost_command(tmp_path: Path) -> None:
    words = gunicorn(tmp_path, "tests.web.served:app", *WORKER, "--preload")
    with started(words, tmp_path, STORE="lmdb:store") as server:
        first = server.process_that_answers()
        listener = Listener(server)
        assert sell(server).json() == 99
        server.process.send_signal(signal.SIGHUP)
        server.wait_until(lambda: (server.process_that_answers() or first) != first)
        with server.new_client() as client:
            assert client.get("/theatres/a").json() == 99
        listener.join(patience(10))
        assert listener.is_whole, server.text
        assert server.stop() == 0


def test_gunicorn_replaces_a_worker_at_its_limit_of_requests(tmp_path: Path) -> None:
    words = gunicorn(tmp_path, "tests.web.served:app", *WORKER, "--max-requests", "5")
    with started(words, tmp_path, STORE="lmdb:store") as server:
        first = server.process_that_answers()
        listener = Listener(server)
        server.wait_until(lambda: (server.process_that_answers() or first) != first)
        listener.join(patience(10))
        assert listener.is_whole, server.text
        assert server.stop() == 0


def test_each_worker_of_a_server_is_a_node_of_one_cluster(tmp_path: Path) -> None:
    with started(uvicorn(tmp_path, "--workers", "2"), tmp_path, STORE="lmdb:store") as server:
        replies = []
        for _ in range(20):
            with server.new_client() as client:
                replies.append(client.post("/theatres/a/sales", json={"seats": 1}).json())
        assert replies == list(range(99, 79, -1))
        server.stop()
