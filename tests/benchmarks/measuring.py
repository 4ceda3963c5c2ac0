"""How the measurements are made: each result is a rate beside another one, taken in turn."""

import asyncio
import contextlib
import os
import resource
import statistics
import tempfile
import time
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path


@dataclass(frozen=True)
class Measured:
    """One comparison; rates in operations per second, so that more is better."""

    what: str
    ours: float
    other: str
    theirs: float
    wanted: float | None = None

    @property
    def ratio(self) -> float:
        return self.ours / self.theirs


@contextmanager
def directory() -> Iterator[Path]:
    with tempfile.TemporaryDirectory(
        prefix=".bench-", dir=Path.cwd()
    ) as path:  # on the disk of the project, not in memory
        yield Path(path)


def rate(count: int, started: float) -> float:
    return count / (time.perf_counter() - started)


async def in_flight(count: int, clients: int, one: Callable[[int], Awaitable[object]]) -> float:
    numbers = iter(range(count))

    async def client() -> None:
        for number in numbers:
            await one(number)

    started = time.perf_counter()
    await asyncio.gather(*(client() for _ in range(clients)))
    return rate(count, started)


async def in_turn(*works: Callable[[], Awaitable[float]], rounds: int = 3) -> list[float]:
    """The medians of several measurements, taken in turn, because disks and thread switches vary."""
    measured = [[await work() for work in works] for _ in range(rounds)]
    return [statistics.median(figures) for figures in zip(*measured, strict=True)]


def on_a_thread(work: Callable[[], float]) -> Callable[[], Awaitable[float]]:
    """``work`` for `in_turn`."""
    return partial(asyncio.to_thread, work)


def resident() -> int:
    """Bytes of this process in memory."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize()


def processor_seconds(process: int) -> float:
    """Seconds of processor that a process and those below it, which still run, have used."""
    used: dict[int, int] = {}
    children: dict[int, list[int]] = {}
    for file in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):  # it has ended
            fields = file.read_text().rpartition(")")[2].split()
            number = int(file.parent.name)
            used[number] = int(fields[11]) + int(fields[12])
            children.setdefault(int(fields[1]), []).append(number)
    found = [process]
    for each in found:
        found += children.get(each, [])
    return sum(used.get(each, 0) for each in found) / os.sysconf("SC_CLK_TCK")
