"""Processes that run `tests.cluster.node_worker`, and what must be true of the log that they have written."""

import asyncio
import json
import sys
from collections import defaultdict
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from tests.bank import EVENTS
from tests.killing import stop_between_writes
from tests.machine import patience
from tests.waiting import until
from uno_actors import open_store

ROOT = Path(__file__).parent.parent.parent


class Worker:
    """A process that runs `tests.cluster.node_worker`.

    Args:
        name: Of the node.
        before: Words before its command line, such as those that enter a network.
        options: Of `tests.cluster.node_worker`.
    """

    def __init__(self, name: str, before: Sequence[str] = (), options: dict[str, Any] | None = None) -> None:
        self.name = name
        self._before = before
        self._options = json.dumps(options or {})
        self.acknowledged: dict[str, tuple[str, int]] = {}
        self.errors: list[str] = []
        self.statistics: dict[str, Any] = {}
        self.said: set[str] = set()
        self.process: asyncio.subprocess.Process

    async def start(self, url: str, listen: str) -> None:
        self.process = await asyncio.create_subprocess_exec(
            *self._before, sys.executable, "-m", "tests.cluster.node_worker", url, self.name, listen, self._options,
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


@asynccontextmanager
async def workers(
    place: tuple[str, str], options: dict[str, Any] | None = None
) -> AsyncIterator[Callable[[str], Any]]:
    """Starts workers; kills those that are left in the end."""
    started: list[Worker] = []

    async def start(name: str) -> Worker:
        worker = Worker(name, options=options)
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


async def recorded_commands(url: str) -> dict[str, list[tuple[str, int]]]:
    """Id and version of the aggregate after each event of a command, by the id of the command."""
    recorded: dict[str, list[tuple[str, int]]] = defaultdict(list)
    async with open_store(url, EVENTS) as store:
        async for _, record in store.read_records():
            assert record.answered is not None
            assert record.aggregate_version is not None
            recorded[record.answered].append((record.aggregate_id or "", record.aggregate_version))
    return recorded


async def check(url: str, all_workers: list[Worker]) -> None:
    """What was acknowledged is recorded once, as the version that the balance shows; nothing is recorded twice."""
    found = await recorded_commands(url)
    assert all(len(places) == 1 for places in found.values()), "recorded twice"
    recorded = {command: place for command, (place,) in found.items()}
    for worker in all_workers:
        assert worker.acknowledged.items() <= recorded.items()


async def stop(worker: Worker, others: Sequence[Worker]) -> None:
    """Stop a process by SIGSTOP while it holds up no writes of the others."""

    async def others_write() -> None:
        async with asyncio.timeout(patience(8.0)):  # longer than commands to it wait before they go to others
            await asyncio.gather(*[more(other, 20) for other in others])

    await stop_between_writes(worker.process, others_write, lambda: more(worker, 1))


async def more(worker: Worker, count: int) -> None:
    goal = len(worker.acknowledged) + count
    await until(lambda: len(worker.acknowledged) >= goal or worker.process.returncode is not None)
    assert worker.process.returncode is None
