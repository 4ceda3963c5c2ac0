"""Real processes of which one hangs while it handles an event: another continues, and the late one moves nothing."""

import asyncio
import signal
import time
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import NamedTuple

import pytest

from tests.killing import stop_between_writes
from tests.machine import patience
from tests.new_stores import new_store_url
from tests.stores.test_lmdb_processes import line, program, tell
from uno_actors import DomainEvent, open_store
from uno_actors.domain.events import EventRegistry
from uno_actors.store.port import EventStore

NODE = """
import asyncio, sys, time
from pathlib import Path
from uno_actors import ActorSystem, open_store, subscribe
from uno_actors.domain.events import EventRegistry
from tests.test_hung_nodes import BellRang

url, how, marker = sys.argv[1:]

@subscribe(name="bell", start="earliest")
async def bell(event: BellRang) -> None:
    if event.number == 2 and not Path(marker).exists():
        Path(marker).touch()
        print("begun 2", flush=True)
        if how == "blocked":
            time.sleep(8)
        while how == "stopped" and not Path(marker).read_text():
            await asyncio.sleep(0.01)
    print("handled", event.number, flush=True)

async def main():
    store = open_store(url, event_registry=EventRegistry([BellRang]))
    async with ActorSystem(store, aggregates=[], handlers=[bell]) as system:
        print("ready", flush=True)
        loop = asyncio.get_running_loop()
        while await loop.run_in_executor(None, sys.stdin.readline):
            print("state", system.statistics().handlers["bell"].state, flush=True)

asyncio.run(main())
"""


class BellRang(DomainEvent):
    number: int


class Said(NamedTuple):
    node: int
    text: str
    at: float


class Nodes:
    """Three processes and what they say."""

    def __init__(self, processes: list[asyncio.subprocess.Process]) -> None:
        self.processes = processes
        self.said: list[Said] = []
        self._more = asyncio.Event()
        self._tasks = [asyncio.ensure_future(self._listen(node)) for node in range(len(processes))]

    async def _listen(self, node: int) -> None:
        while text := await line(self.processes[node]):
            self.said.append(Said(node, text, time.monotonic()))
            self._more.set()

    async def heard(self, *texts: str, node: int | None = None, after: int = 0) -> Said:
        """Wait until a node says one of ``texts``; what was said first, from the ``after``-th word on."""
        async with asyncio.timeout(patience(30)):
            while True:
                self._more.clear()
                for said in self.said[after:]:
                    if said.text in texts and node in (None, said.node):
                        return said
                await self._more.wait()

    async def is_standing_by(self, node: int) -> None:
        """Wait until the handler of ``node`` stands by."""
        while True:
            after = len(self.said)
            await tell(self.processes[node], "state?")
            states = [f"state {state}" for state in ("standby", "live", "catching up", "handing over")]
            if (await self.heard(*states, node=node, after=after)).text == "state standby":
                return

    def handled(self, number: int) -> list[int]:
        """The nodes that have handled the event of this number."""
        return [said.node for said in self.said if said.text == f"handled {number}"]

    def leave(self) -> None:
        for task in self._tasks:
            task.cancel()


@asynccontextmanager
async def running(url: str, how: str, marker: Path) -> AsyncIterator[tuple[EventStore, Nodes]]:
    async with AsyncExitStack() as stack:
        store = await stack.enter_async_context(open_store(url, event_registry=EventRegistry([BellRang])))
        await store.last_position()
        started = [await stack.enter_async_context(program(NODE, url, how, marker)) for _ in range(3)]
        nodes = Nodes(started)
        stack.callback(nodes.leave)
        for node in range(3):
            await nodes.heard("ready", node=node)
        yield store, nodes


@pytest.mark.parametrize(
    ("engine", "how"), [("lmdb", "blocked"), ("sqlite", "stopped"), ("postgres", "stopped")]
)
async def test_a_handler_continues_elsewhere_and_the_node_that_hung_moves_nothing(
    engine: str, how: str, tmp_path: Path
) -> None:
    await one_hangs_and_moves_nothing(engine, how, 1.5, tmp_path)


async def one_hangs_and_moves_nothing(engine: str, how: str, lease_time: float, tmp_path: Path) -> None:
    """Of three processes on a store of ``engine`` the one that handles an event hangs, and comes back."""
    url, marker = await new_store_url(engine, tmp_path), tmp_path / "begun"
    url += f"{'&' if '?' in url else '?'}lease_time={lease_time}"
    async with running(url, how, marker) as (store, nodes):
        await store.append(BellRang(number=1))
        await nodes.heard("handled 1")
        await store.append(BellRang(number=2))
        hung = await nodes.heard("begun 2")
        process = nodes.processes[hung.node]
        if how == "stopped":
            stopped = await stop_between_writes(
                process, lambda: store.append(BellRang(number=3)), lambda: asyncio.sleep(0.1)
            )
            hung = hung._replace(at=stopped)
        else:
            await store.append(BellRang(number=3))
        other = await nodes.heard("handled 3")
        assert other.node != hung.node
        assert other.at - hung.at < patience(6.0)
        assert nodes.handled(2) == [other.node]  # from the checkpoint of the one that hangs
        if how == "stopped":
            marker.write_text("go on")
            process.send_signal(signal.SIGCONT)
        await nodes.heard("handled 2", node=hung.node)  # what was under way is finished, in vain
        await nodes.is_standing_by(hung.node)
        await store.append(BellRang(number=4), BellRang(number=5))
        await nodes.heard("handled 5")
        assert nodes.handled(3) == nodes.handled(4) == nodes.handled(5) == [other.node]
        async with asyncio.timeout(patience(30)):
            before = 0
            while before < 5:
                at = (await store.checkpoints())["bell"]
                assert at >= before, "the late one has moved the checkpoint back"
                before = at
                await asyncio.sleep(0.01)
