"""A node of a cluster is killed under load, again and again: journals on the disk judge what became of each command."""

import asyncio
import itertools
import os
import random
import signal
import statistics
import sys
import time
from pathlib import Path

import pytest

from tests.cluster.journal_worker import lines
from tests.cluster.workers import recorded_commands
from tests.postgres import PostgresServer

ROOT = Path(__file__).parent.parent.parent
WATCHED = 2.0
"""Seconds after a kill in which the longest silence is looked for."""


class Node:
    """A process that runs `tests.cluster.journal_worker`, and is started again after each kill."""

    def __init__(self, name: str, url: str, listen: str, directory: Path) -> None:
        self.name = name
        self.path = directory / name
        self._arguments = [url, name, listen, str(directory)]
        self.process: asyncio.subprocess.Process

    async def start(self) -> None:
        """Start it; return when it has sent again what was left open."""
        with self.path.with_suffix(".errors").open("ab") as errors:
            self.process = await asyncio.create_subprocess_exec(
                sys.executable, "-m", "tests.cluster.journal_worker", *self._arguments,
                stdout=asyncio.subprocess.PIPE, stderr=errors, cwd=ROOT,
            )  # fmt: skip
        assert self.process.stdout is not None
        said = await self.process.stdout.readline()
        assert said == b"ready\n", self.path.with_suffix(".errors").read_text()

    async def end(self, how: signal.Signals) -> None:
        """Send it a signal; return when it has ended."""
        self.process.send_signal(how)
        await self.process.wait()


def longest_silence(acknowledged: list[float], killed: float) -> float:
    """Seconds between two acknowledgements of a node that survived, at most, in the time after a kill.

    Args:
        acknowledged: Times of its acknowledgements, sorted.
        killed: When another node was killed.
    """
    before = [at for at in acknowledged if at <= killed][-1:] or [killed]
    within = [at for at in acknowledged if killed < at <= killed + WATCHED]
    after = [at for at in acknowledged if at > killed + WATCHED][:1]
    times = [*before, *within, *after]
    return max((later - earlier for earlier, later in itertools.pairwise(times)), default=WATCHED)


async def kill_again_and_again(
    place: tuple[str, str], directory: Path, kills: int
) -> list[tuple[float, str]]:
    """Kill nodes in turn, at moments of chance, and start each again; returns when each was killed, and which."""
    nodes = [Node(name, *place, directory) for name in "abc"]
    killed: list[tuple[float, str]] = []
    chance = random.Random(0)
    try:
        await asyncio.gather(*[node.start() for node in nodes])
        for number in range(kills):
            await asyncio.sleep(WATCHED / 2 + chance.random())
            node = nodes[number % len(nodes)]
            killed.append((time.time(), node.name))
            await node.end(signal.SIGKILL)
            await asyncio.sleep(WATCHED)  # alone: what starts uses the processors, too
            await node.start()
        for node in nodes:  # what it had open is sent again
            await node.end(signal.SIGKILL)
            await node.start()
        await asyncio.gather(*[node.end(signal.SIGTERM) for node in nodes])
        assert [node.process.returncode for node in nodes] == [0, 0, 0]
    finally:
        for node in nodes:
            if node.process.returncode is None:
                node.process.kill()
                await node.process.wait()
    return killed


@pytest.mark.soak
@pytest.mark.parametrize("engine", ["lmdb", "postgres"])
async def test_killed_nodes_lose_no_command_record_none_twice_and_leave_no_long_silence(
    engine: str, tmp_path: Path
) -> None:
    """0 lost, 0 recorded twice, no error, and the longest silence of a survivor is 0.5 s in the median."""
    kills = int(os.environ.get("UNO_ACTORS_KILLS", "300"))
    server = PostgresServer() if engine == "postgres" else None
    try:
        place = (f"lmdb:{tmp_path}/store", "")
        if server is not None:
            place = (await server.new_url(), "127.0.0.1:0")
        killed = await kill_again_and_again(place, tmp_path, kills)
        found = await recorded_commands(place[0])
        recorded = {command: [version for _, version in places] for command, places in found.items()}
    finally:
        if server is not None:
            server.remove()
    journals = {name: lines(tmp_path / name) for name in "abc"}
    everything = [words for journal in journals.values() for words in journal]
    meant = {words[1] for words in everything if words[0] == "meant"}
    acknowledged = {words[1]: int(words[2]) for words in everything if words[0] == "acked"}
    errors = [" ".join(words) for words in everything if words[0] == "error"]
    silences = [
        max(
            longest_silence([float(words[3]) for words in journal if words[0] == "acked"], at)
            for name, journal in journals.items()
            if name != dead
        )
        for at, dead in killed
    ]
    print(
        f"{engine}: {len(killed)} kills, {len(meant):,} commands, {len(acknowledged):,} acknowledged,"
        f" {len(acknowledged.keys() - recorded.keys())} lost,"
        f" {sum(len(versions) > 1 for versions in recorded.values())} recorded twice, {len(errors)} errors;"
        f" longest silence: median {statistics.median(silences):.3f} s, largest {max(silences):.3f} s;"
        f" load {os.getloadavg()[0]:.1f}"
    )
    assert errors == []
    assert {command: versions for command, versions in recorded.items() if len(versions) > 1} == {}
    assert {command: [version] for command, version in acknowledged.items()} == recorded
    assert acknowledged.keys() == meant
    assert statistics.median(silences) <= 0.5
