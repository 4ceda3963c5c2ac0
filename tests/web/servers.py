"""Real servers for the tests of web services, on a Unix socket: no port can be taken by another test."""

import os
import signal
import socket
import ssl
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import httpx

from tests.machine import patience

NO_AUTHORITIES = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
"""For plain HTTP: to read the certificates of all authorities takes longer than a request."""

ROOT = Path(__file__).parents[2]


@dataclass
class Running:
    """A server that answers.

    Attributes:
        process: The one that was started.
        client: A client of it.
        log: Where it writes its output and its errors.
    """

    process: "subprocess.Popen[bytes]"
    client: httpx.Client
    log: Path

    def new_client(self) -> httpx.Client:
        """Another client, with connections of its own."""
        return new_client(self.log.with_name("socket"))

    def ended(self, seconds: float = 20) -> int:
        """The exit code, once it has ended."""
        try:
            return self.process.wait(patience(seconds))
        except subprocess.TimeoutExpired:
            raise AssertionError(f"it does not end:\n{self.text}") from None

    def stop(self) -> int:
        """Stop it as a service manager does."""
        self.process.terminate()
        return self.ended()

    @property
    def text(self) -> str:
        """What it has written."""
        return self.log.read_text()

    def wait_until(self, condition: Callable[[], object]) -> None:
        """Return when ``condition()`` is true; fail if the server ends before."""
        while not condition():
            assert self.process.poll() is None, self.text
            time.sleep(0.02)

    def process_that_answers(self) -> int | None:
        """The process behind a new connection; ``None`` if there is none at the moment."""
        if not self._listens():
            return None
        with self.new_client() as client:
            try:
                answer = client.get("/process")
            except httpx.TransportError:
                return None
            return int(answer.text) if answer.is_success else None

    def _listens(self) -> bool:
        """Whether a connection is accepted; httpx leaves its socket open if not."""
        with socket.socket(socket.AF_UNIX) as tried:
            try:
                tried.connect(str(self.log.with_name("socket")))
            except OSError:
                return False
        return True


def new_client(path: Path) -> httpx.Client:
    return httpx.Client(
        transport=httpx.HTTPTransport(uds=str(path), verify=NO_AUTHORITIES),
        base_url="http://test",
        timeout=patience(30),
    )


@contextmanager
def started(words: list[str], directory: Path, **environment: str) -> Iterator[Running]:
    """A server as a process, that answers; it is killed at the end if it still runs."""
    log = directory / "log.txt"
    variables = {**os.environ, "PYTHONPATH": str(ROOT), **environment}
    with (
        log.open("wb") as output,
        subprocess.Popen(
            [sys.executable, *words],
            cwd=directory,
            env=variables,
            stdout=output,
            stderr=output,
            start_new_session=True,
        ) as process,
        new_client(directory / "socket") as client,
    ):
        running = Running(process, client, log)
        try:
            running.wait_until(running.process_that_answers)
            yield running
        finally:
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)  # the workers too


def uvicorn(directory: Path, *options: str) -> list[str]:
    return ["-m", "uvicorn", "tests.web.served:app", "--uds", str(directory / "socket"), *options]


def gunicorn(directory: Path, application: str, *options: str) -> list[str]:
    return [
        "-m",
        "gunicorn",
        application,
        "--bind",
        f"unix:{directory}/socket",
        "--no-control-socket",
        *options,
    ]
