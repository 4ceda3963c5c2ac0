"""Clusters of real processes, on LMDB with Unix sockets and on PostgreSQL with TCP: killed, stopped, replaced."""

import asyncio
import json
import signal
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from tests.bank import EVENTS
from tests.postgres import postgres
from tests.waiting import until
from uno_actors import open_store

ROOT = Path(__file__).parent.parent.parent


class Worker:
    """A process that runs `tests.cluster.node_worker`."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.acknowledged: dict[str, tuple[str, int]] = {}
        self.errors: list[str] = []
        self.statistics: dict[str, Any] = {}
        self.said: set[str] = set()
        self.process: asyncio.subprocess.Process

    async def start(self, url: str, listen: str) -> None:
        self.process = await asyncio.create_subprocess_exec(
            sys.executable, "-m", "tests.cluster.node_worker", url, self.name, listen,
            stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE, cwd=ROOT, limit=1 << 20,
        )  # fmt: skip
        self._reading = asyncio.ensure_future(self._read())
        await until(lambda: "ready" in self.said or self.process.returncode is not None)

    def write(self, line: object) -> None:
        assert self.process.stdin is not None
        self.process.stdin.write(f"{line}\n".encode())

    async def _read(self) -> None:
        assert self.process.stdout is not None
        async for line in self.process.stdout:
            word, _, rest = line.decode().strip().partition(" ")
            self.said.add(word)
            if word == "ack":
                command, account, balance = rest.split()
                self.acknowledged[command] = (account, int(balance))
            elif word == "error":
                self.errors.append(rest)
            elif word == "statistics":
                self.statistics = json.loads(rest)

    async def end(self, signal_number: int | None = None) -> None:
        """Stop its clients and end it, or send it a signal; return when it has ended."""
        if self.process.returncode is None:
            if signal_number is None:
                self.write("over")
            else:
                self.process.send_signal(signal_number)
        await self.process.wait()
        await self._reading


@pytest.fixture(params=["lmdb", "postgres"])
async def place(request: pytest.FixtureRequest, tmp_path: Path) -> tuple[str, str]:
    """URL of the store, and where nodes listen."""
    if request.param == "lmdb":
        return f"lmdb:{tmp_path}/store", ""
    return await postgres().new_url(), "127.0.0.1:0"


@asynccontextmanager
async def workers(place: tuple[str, str], names: str = "abc") -> AsyncIterator[Callable[[str], Any]]:
    """Starts workers; kills those that are left in the end."""
    started: list[Worker] = []

    async def start(name: str) -> Worker:
        worker = Worker(name)
        started.append(worker)
        await worker.start(*place)
        return worker

    try:
        yield start
    finally:
        for worker in started:
            if worker.process.returncode is None:
                worker.process.kill()
            await worker.process.wait()


async def check(url: str, all_workers: list[Worker]) -> None:
    """What was acknowledged is recorded once, as the version that the balance shows; nothing is recorded twice."""
    recorded: dict[str, tuple[str, int]] = {}
    async with open_store(url, EVENTS) as store:
        position = 0
        while page := await store.read_log(position):
            position = page[-1].position
            for _, record in page:
                assert record.answered is not None
                assert record.answered not in recorded, "recorded twice"
                recorded[record.answered] = (record.aggregate_id or "", record.aggregate_version or 0)
    for worker in all_workers:
        assert worker.acknowledged.items() <= recorded.items()


async def more(worker: Worker, count: int) -> None:
    goal = len(worker.acknowledged) + count
    await until(lambda: len(worker.acknowledged) >= goal or worker.process.returncode is not None)
    assert worker.process.returncode is None


@pytest.mark.timeout(180)
async def test_a_killed_node_loses_nothing_and_no_other_client_sees_an_error(place: tuple[str, str]) -> None:
    async with workers(place) as start:
        a, b, c = await asyncio.gather(*map(start, "abc"))
        for worker in (a, b, c):
            worker.write(3)
        await asyncio.gather(*[more(worker, 60) for worker in (a, b, c)])
        await b.end(signal.SIGKILL)
        await asyncio.gather(*[more(worker, 60) for worker in (a, c)])
        d = await start("d")
        d.write(3)
        await asyncio.gather(*[more(worker, 60) for worker in (a, c, d)])
        await asyncio.gather(a.end(), c.end(), d.end())
        assert (a.errors, c.errors, d.errors) == ([], [], [])
        assert all(worker.statistics["served"] and worker.statistics["sent"] for worker in (a, c, d))
        await check(place[0], [a, b, c, d])


@pytest.mark.timeout(180)
async def test_a_rolling_restart_of_all_processes_shows_no_client_an_error(place: tuple[str, str]) -> None:
    async with workers(place) as start:
        running: list[Worker] = list(await asyncio.gather(*map(start, "abc")))
        everyone = [*running]
        for worker in running:
            worker.write(3)
        await asyncio.gather(*[more(worker, 40) for worker in running])
        for name in "def":
            old = running.pop(0)
            _, new = await asyncio.gather(old.end(signal.SIGTERM), start(name))
            assert old.process.returncode == 0
            new.write(3)
            running.append(new)
            everyone.append(new)
            await asyncio.gather(*[more(worker, 40) for worker in running])
        await asyncio.gather(*[worker.end() for worker in running])
        assert [worker.errors for worker in everyone] == [[]] * 6
        await check(place[0], everyone)
