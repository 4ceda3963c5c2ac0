"""Starts the processes of a measured cluster, and gathers what they have measured."""

import asyncio
import json
import os
import statistics
import sys
from collections import Counter
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, Literal, TypeAlias

PROGRAM = Path(__file__).with_name("node_process.py")
LONGEST_LINE = 1 << 26

Clients: TypeAlias = Literal["shared", "sticky", "own", "of others", "once each"]


@dataclass(frozen=True, kw_only=True)
class Work:
    """What each node does.

    Attributes:
        url: Of the store.
        routed: Whether the nodes are a cluster.
        clients: Whom they ask: aggregates shared by all nodes, those of their own node, those that it owns, those
            that others own, or each aggregate once.
        ids: Number of aggregates, of each node if they are not shared.
        in_flight: Number of clients of each node.
        queries: Whether they record nothing.
        warm: Seconds before the measurement.
        seconds: Of the measurement.
        settled: Whether they begin when all nodes have seen each other; otherwise at once.
        nodes: Number of nodes.
        number: Of this node.
    """

    url: str
    routed: bool
    clients: Clients
    ids: int
    in_flight: int
    queries: bool = False
    warm: float = 3.0
    seconds: float = 5.0
    settled: bool = False
    nodes: int = 3
    number: int = 0


@dataclass
class Done:
    """What all nodes have measured together.

    Attributes:
        rate: Commands per second.
        median: Seconds until an answer.
        slow: The same of the slowest hundredth.
        errors: Names of errors that clients saw, also while starting, with their numbers.
        reruns: Commands run again after a conflict.
        cpu: Seconds of processors.
        count: Commands answered.
        commits: Of the store.
        memory: Bytes that a node used for its aggregates, the mean of all nodes.
        active: Aggregates of a node, the mean of all nodes.
    """

    rate: float = 0.0
    median: float = 0.0
    slow: float = 0.0
    errors: Counter[str] = field(default_factory=Counter)
    reruns: int = 0
    cpu: float = 0.0
    count: int = 0
    commits: int = 0
    memory: float = 0.0
    active: float = 0.0


async def measure(work: Work) -> Done:
    """Run the work on all nodes at once."""
    processes: list[asyncio.subprocess.Process] = []
    try:
        for number in range(work.nodes):
            arguments = json.dumps(asdict(replace(work, number=number)))
            processes.append(
                await asyncio.create_subprocess_exec(
                    sys.executable, PROGRAM, arguments, limit=LONGEST_LINE, env=environment(),
                    stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE,
                )
            )  # fmt: skip
        for expected in ("ready", "asked"):
            for said in await asyncio.gather(*[_line(process) for process in processes]):
                assert said == expected
            for process in processes:
                assert process.stdin is not None
                process.stdin.write(b"go on\n")
        found = [json.loads(line) for line in await asyncio.gather(*[_line(one) for one in processes])]
        await asyncio.gather(*[process.wait() for process in processes])
    finally:
        for process in processes:
            if process.returncode is None:
                process.kill()
                await process.wait()
    return together(work, found)


def environment() -> dict[str, str]:
    """Of a node: with bytecode, so that starting takes no longer than necessary."""
    return {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}


async def _line(process: asyncio.subprocess.Process) -> str:
    assert process.stdout is not None
    return (await process.stdout.readline()).decode().strip()


def together(work: Work, found: list[dict[str, Any]]) -> Done:
    """The sum of what the nodes have measured."""
    done = Done()
    seconds = sorted(one for node in found for one in node.get("seconds", ()))
    if seconds:
        done.rate = len(seconds) / work.seconds
        done.median = statistics.median(seconds)
        done.slow = seconds[int(0.99 * len(seconds))]
    for node in found:
        done.errors.update(node.get("errors", {}))
        done.reruns += node.get("reruns", 0)
        done.cpu += node.get("cpu", 0.0)
        done.count += len(node.get("seconds", ()))
        done.commits += node.get("commits", 0)
    done.memory = statistics.mean(node.get("memory", 0) for node in found)
    done.active = statistics.mean(node.get("active", 0) for node in found)
    return done
