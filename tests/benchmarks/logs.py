"""Single appends of many writers to PostgreSQL: to one log, where each waits for the others, and to 64.

Each writer has a store of its own, as a process has: none of them can record its events together with those of others.
They run in two processes, so that one core of Python is not the limit. Beside that, the writers of each process have
one store, which records their events in groups.

The single appends are shown beside the least that does the same on the same server: one prepared statement of asyncpg
that moves one head and inserts one narrow row. That floor itself is at most two to three times as fast with 64 heads as
with one where the server and the writers share two cores: since an append is one statement, a head is locked for little
more than the commit. So the ratio of 64 logs to one says what the machine is worth, and the share of the floor is what
has a target. The floor prepares no event, finds no conflict, announces nothing, and has half of the columns and
indexes.
"""

import asyncio
import itertools
import json
import sys
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

from sqlalchemy import make_url

from tests.benchmarks.measuring import Measured, in_turn, processor_seconds
from tests.benchmarks.nodes import environment
from tests.postgres import PostgresServer

PROGRAM = Path(__file__).with_name("log_writers.py")
PROCESSES = 2
WRITERS = 16
LOGS = 64
SECONDS = 3.0
BARE_TABLES = f"""
    CREATE TABLE bare_head (id integer PRIMARY KEY, last bigint NOT NULL) WITH (fillfactor = 10);
    INSERT INTO bare_head SELECT id, 0 FROM generate_series(0, {LOGS - 1}) AS id;
    CREATE TABLE bare_log (
        head integer, position bigint, stream text COLLATE "C", version bigint, payload bytea,
        PRIMARY KEY (head, position), UNIQUE (stream, version)
    );
"""  # noqa: S608 - constants


async def appended(server: PostgresServer, **writing: Any) -> float:
    """Appends per second of all writers, in processes as a service has several.

    Args:
        server: Where they record.
        writing: The arguments of `log_writers.main`, except those that a process has of its own.
    """
    processes = []
    try:
        for number in range(PROCESSES):
            work = writing | {"writers": WRITERS // PROCESSES, "seconds": SECONDS}
            work["number"] = f"{writing['number']}-{number}"
            processes.append(
                await asyncio.create_subprocess_exec(
                    sys.executable, PROGRAM, json.dumps(work), env=environment(),
                    stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE,
                )
            )  # fmt: skip
        for said in await _lines(processes):
            assert said == "ready"
        first = int((server.directory / "data" / "postmaster.pid").read_text().split()[0])
        used = processor_seconds(first)
        await _go_on(processes)
        done = [json.loads(line) for line in await _lines(processes)]
        used = processor_seconds(first) - used
        await _go_on(processes)
        await asyncio.gather(*(process.wait() for process in processes))
    finally:
        for process in processes:
            if process.returncode is None:
                process.kill()
                await process.wait()
    count = sum(each["count"] for each in done)
    by_writers = sum(each["cpu"] for each in done)
    print(
        f"{writing['way']}, {writing['heads']} heads: {count / SECONDS:,.0f} appends/s; processor time of an append:"
        f" writers {1000 * by_writers / count:.2f} ms, server {1000 * used / count:.2f} ms",
        flush=True,
    )
    return count / SECONDS


async def _lines(processes: list[asyncio.subprocess.Process]) -> list[str]:
    """The next line that each has written."""

    async def line(process: asyncio.subprocess.Process) -> str:
        assert process.stdout is not None
        return (await process.stdout.readline()).decode().strip()

    return await asyncio.gather(*map(line, processes))


async def _go_on(processes: list[asyncio.subprocess.Process]) -> None:
    for process in processes:
        assert process.stdin is not None
        process.stdin.write(b"go on\n")


async def logs() -> list[Measured]:
    """64 logs and one, beside 64 heads and one in bare SQL, on one server, which syncs to disk for all."""
    server = PostgresServer()
    try:
        one, many = await server.new_url(), f"{await server.new_url()}&logs={LOGS}"
        bare = await server.new_url()
        user = make_url(bare).username
        assert user is not None
        connection = await server.connect(user)
        await connection.execute(BARE_TABLES)
        await connection.close()
        rounds = itertools.count()

        def work(way: str, url: str, heads: int) -> Callable[[], Awaitable[float]]:
            return lambda: appended(server, way=way, url=url, heads=heads, number=next(rounds))

        alone_64, alone_1, bare_64, bare_1, together_64, together_1 = await in_turn(
            work("alone", many, LOGS),
            work("alone", one, 1),
            work("bare", bare, LOGS),
            work("bare", bare, 1),
            work("together", many, LOGS),
            work("together", one, 1),
        )
    finally:
        server.remove()
    return [
        Measured("single appends/s, 16 writers, 64 logs", alone_64, "bare SQL, 64 heads", bare_64, 0.25),
        Measured("  one log", alone_1, "bare SQL, one head", bare_1, 0.25),
        Measured("  64 logs", alone_64, "one log", alone_1),
        Measured("  bare SQL, 64 heads", bare_64, "one head", bare_1),
        Measured("appends/s, 2 processes of 8 at a time, 64 logs", together_64, "one log", together_1),
    ]
