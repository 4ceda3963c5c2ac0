"""A real PgBouncer for the tests, in front of their PostgreSQL: each transaction gets any free session."""

import asyncio
import os
import shutil
import subprocess
import tempfile
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from tests.postgres import PostgresServer

PORT = 6543


def program() -> str:
    """The path of the program; a test without it is skipped, and says so."""
    found = os.environ.get("PGBOUNCER") or shutil.which("pgbouncer", path=f"{os.environ['PATH']}:/usr/sbin")
    if found is None:
        pytest.skip("pgbouncer is not installed (Debian's package pgbouncer; or name it in $PGBOUNCER)")
    return found


class Pooler:
    """PgBouncer with three sessions, in a directory of its own.

    Args:
        server: What it stands before.
        user: As whom it logs in.
    """

    def __init__(self, server: PostgresServer, user: str) -> None:
        bouncer = program()
        self.directory = Path(tempfile.mkdtemp(prefix="pgbouncer-"))
        self.directory.chmod(0o777)
        (self.directory / "config.ini").write_text(
            f"[databases]\npostgres = host={server.directory} dbname=postgres user={user}\n[pgbouncer]\n"
            f"listen_port={PORT}\nlisten_addr=\nunix_socket_dir={self.directory}\nauth_type=any\n"
            "pool_mode=transaction\ndefault_pool_size=3\n"
        )
        as_nobody = ["-u", "nobody"] if os.geteuid() == 0 else []
        with (self.directory / "log").open("wb") as log:
            self._process = subprocess.Popen(
                [bouncer, *as_nobody, self.directory / "config.ini"], stdout=log, stderr=log
            )
        self.url = f"postgresql+asyncpg://{user}@/postgres?host={self.directory}&port={PORT}"

    def wait_until_ready(self) -> None:
        while not (self.directory / f".s.PGSQL.{PORT}").exists():
            assert self._process.poll() is None, (self.directory / "log").read_text()
            time.sleep(0.01)

    def remove(self) -> None:
        self._process.terminate()
        self._process.wait()
        shutil.rmtree(self.directory)


@asynccontextmanager
async def pooled(server: PostgresServer, url: str) -> AsyncIterator[str]:
    """The URL of the same database as ``url``, through a pooler."""
    pooler = Pooler(server, url.partition("//")[2].partition("@")[0])
    try:
        await asyncio.to_thread(pooler.wait_until_ready)
        yield pooler.url
    finally:
        await asyncio.to_thread(pooler.remove)
