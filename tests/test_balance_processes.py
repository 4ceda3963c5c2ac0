"""Real processes on one store share its handlers; when one is killed, the others run them."""

import asyncio
import sys
from asyncio.subprocess import PIPE, Process
from collections import Counter
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.balance_worker import Balanced
from tests.new_stores import new_store_url
from uno_actors import EventStore
from uno_actors.handlers.control import HandlerControl
from uno_actors.store.opening import open_store

HANDLERS = 6
ROOT = Path(__file__).parent.parent


@pytest.fixture(params=["lmdb", "postgres"])
async def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    return await new_store_url(request.param, tmp_path)


@pytest.fixture
async def store(url: str) -> AsyncIterator[EventStore]:
    async with open_store(url) as opened:
        await opened.append(Balanced(number=0))
        yield opened


class Worker:
    """One process, and what it has said of the events that its handlers handled."""

    def __init__(self, process: Process) -> None:
        self.process = process
        self.handled: list[tuple[str, int]] = []
        self.running = asyncio.Event()
        self._reading = asyncio.create_task(self._read())

    async def _read(self) -> None:
        assert self.process.stdout is not None
        async for line in self.process.stdout:
            said = line.decode().split()
            if said == ["running"]:
                self.running.set()
            else:
                self.handled.append((said[0], int(said[1])))

    async def end(self) -> None:
        assert self.process.stdin is not None
        self.process.stdin.close()
        await self.process.wait()
        await self._reading

    async def kill(self) -> None:
        self.process.kill()
        await self.process.wait()
        await self._reading


async def started(url: str, kind: str) -> Worker:
    command = [sys.executable, "-m", "tests.balance_worker", url, str(HANDLERS), kind]
    worker = Worker(await asyncio.create_subprocess_exec(*command, stdin=PIPE, stdout=PIPE, cwd=ROOT))
    await worker.running.wait()
    return worker


async def shares_are(store: EventStore, workers: list[Worker]) -> None:
    """Wait until the handlers are shared evenly by these processes, as operators see it."""
    even = Counter([HANDLERS // len(workers)] * len(workers))
    pids = {str(worker.process.pid) for worker in workers}
    while True:
        infos = await HandlerControl(store).handlers(partitions=True)
        live = [info for info in infos if info.state == "live"]
        if len(workers) == 1 and len(live) == HANDLERS:
            return  # no node is named where there is one
        shares = Counter(info.node.rpartition(":")[2] for info in live if info.node)
        if set(shares) == pids and Counter(shares.values()) == even:
            return
        await asyncio.sleep(0.1)


@pytest.mark.timeout(240)
@pytest.mark.parametrize("kind", ["handlers", "partitions"])
async def test_processes_share_the_handlers_and_those_of_a_killed_one_continue_elsewhere(
    url: str, store: EventStore, kind: str
) -> None:
    workers: list[Worker] = []
    numbers = iter(range(1, 10_000))
    recorded = 1

    async def record(count: int) -> None:
        nonlocal recorded
        for _ in range(count):
            await store.append(Balanced(number=next(numbers)))
            recorded += 1
            await asyncio.sleep(0.002)

    for _ in range(3):
        workers.append(await started(url, kind))
        recording = asyncio.create_task(record(100))
        await shares_are(store, workers)
        await recording
    recording = asyncio.create_task(record(100))
    await asyncio.sleep(0.05)
    await workers[0].kill()
    await shares_are(store, workers[1:])
    await recording
    while sum(each.lag for each in await HandlerControl(store).handlers(partitions=True)):  # noqa: ASYNC110 - others move it
        await asyncio.sleep(0.05)
    for worker in workers[1:]:
        await worker.end()
    every = set(range(1, recorded + 1))
    handled: set[int] = set()
    for number in range(HANDLERS):
        name = f"h{number}" if kind == "handlers" else f"h@{number + 1}of{HANDLERS}"
        by_worker = [
            [position for handler, position in worker.handled if handler == name] for worker in workers
        ]
        if kind == "handlers":
            assert set().union(*by_worker) == every  # none lost
        handled |= set().union(*by_worker)
        for positions in by_worker:
            assert positions == sorted(set(positions))  # in order, and each at most once in one process
        graceful = by_worker[1] + by_worker[2]
        assert len(graceful) == len(set(graceful))  # a handler that is given up leaves its checkpoint
    assert handled == every
