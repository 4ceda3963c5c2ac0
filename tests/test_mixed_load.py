"""Slow and blocking actors and handlers, asks in circles, failures and cancellations, and a stop in the middle.

Nothing of a system may be left when it has stopped: no thread, no task, no object, and no memory.
"""

import asyncio
import ctypes
import gc
import random
import threading
import time
from collections import Counter
from collections.abc import Collection
from pathlib import Path
from typing import Any

import pytest

from tests.faults import seems_to_run
from tests.waiting import until
from uno_actors import (
    Actor,
    ActorSystem,
    AggregateRoot,
    Backoff,
    Command,
    CommandRejected,
    DomainEvent,
    EventRegistry,
    Future,
    Supervisor,
    SystemNotRunning,
    UnoError,
    handles,
)
from uno_actors.actors.actor import ActorDeadError
from uno_actors.handlers.spec import HandlerSpec
from uno_actors.testing import inspect

ACTORS = 5
CLIENTS = 60
GROWTH = 4 * 2**20
"""Bytes by which the memory of a process may differ from one round to the next."""


class Pay(Command[int]):
    amount: int


class Paid(DomainEvent):
    amount: int


class Till(AggregateRoot):
    def __init__(self, id: str) -> None:
        super().__init__(id=id)
        self.sum = 0

    @handles
    def pay(self, command: Pay) -> int:
        if command.amount < 0:
            raise CommandRejected("negative")
        self.register_event(Paid(amount=command.amount))
        return self.sum

    def apply_paid(self, event: Paid) -> None:
        self.sum += event.amount


class Slow(Actor):
    async def on_receive(self, seconds: float) -> float:
        await asyncio.sleep(seconds)
        return seconds


class Blocks(Actor):
    def on_receive(self, seconds: float) -> float:
        time.sleep(seconds)
        return seconds


def named(system: ActorSystem, name: str) -> Any:
    """The actor of this name, while there is one."""
    actor = system.actor(name)
    if actor is None:
        raise SystemNotRunning(system.name, "stopping")
    return actor


class Passes(Actor):
    """Asks the first of the named actors, which asks the next; a name may occur twice."""

    async def on_receive(self, path: tuple[ActorSystem, list[str]]) -> str:
        system, names = path
        if not names:
            return "end"
        return str(await named(system, names[0]).ask((system, names[1:]), timeout=1))


class PassesPlainly(Passes):
    def on_receive(self, path: tuple[ActorSystem, list[str]]) -> str:  # type: ignore[override]
        system, names = path
        if not names:
            return "end"
        return str(named(system, names[0]).ask((system, names[1:]), timeout=1).get())


async def slow(event: Paid) -> None:
    await asyncio.sleep(0.001)


def blocks(event: Paid) -> None:
    time.sleep(0.002)


async def fails(event: Paid) -> None:
    if event.amount % 7 == 0:
        raise ValueError("seven")


async def exits(event: Paid) -> None:
    if event.amount % 50 == 0:
        raise SystemExit(1)


class Load:
    """One system under the load of many clients, from its start to its end."""

    def __init__(self, url: str, chance: random.Random) -> None:
        self.ends: Counter[str] = Counter()
        self._chance = chance
        handlers = [
            HandlerSpec("slow", slow),
            HandlerSpec("blocks", blocks, concurrency=4),
            HandlerSpec("fails", fails, max_attempts=1),
            HandlerSpec("exits", exits, max_attempts=1, timeout=1),
        ]
        quick = Supervisor(
            "quick", children=handlers, max_restarts=None, backoff=Backoff(initial=0.001, max=0.01)
        )
        self.system = ActorSystem(
            url,
            aggregates=[Till],
            handlers=[],
            supervisors=[quick],
            event_registry=EventRegistry([Paid]),
            stop_timeout=2,
            passivate_after=1,
            snapshot_every=20,
        )

    async def run(self, seconds: float) -> None:
        """Stop the system while the clients go on asking."""
        system = self.system
        await system.start()
        for number in range(ACTORS):
            for kind in (Slow, Blocks, Passes, PassesPlainly):
                await system.spawn(kind, name=f"{kind.__name__}{number}")
        clients = [asyncio.ensure_future(self._client()) for _ in range(CLIENTS)]
        await asyncio.sleep(seconds)
        await system.stop()
        await asyncio.gather(*clients)

    async def _client(self) -> None:
        while inspect(self.system).state in ("running", "stopping"):
            asking = asyncio.ensure_future(self._end_of_one())
            if self._chance.random() < 0.2:
                await asyncio.sleep(self._chance.random() * 0.003)
                asking.cancel()
            await asyncio.wait({asking})
            self.ends["cancelled" if asking.cancelled() else asking.result()] += 1

    async def _end_of_one(self) -> str:
        try:
            await self._ask()
        except (UnoError, ActorDeadError) as error:
            return type(error).__name__
        return "answered"

    async def _ask(self) -> None:
        system, chance = self.system, self._chance
        number = chance.randrange(ACTORS)
        match chance.randrange(6):
            case 0:
                await named(system, f"Slow{number}").ask(chance.random() * 0.02, timeout=0.05)
            case 1:
                await named(system, f"Blocks{number}").ask(chance.random() * 0.01, timeout=0.05)
            case 2:
                names = [
                    f"{chance.choice(('Passes', 'PassesPlainly'))}{chance.randrange(ACTORS)}"
                    for _ in range(4)
                ]
                await named(system, f"Passes{number}").ask((system, names))
            case 3:
                passing = await system.spawn(Slow)
                await passing.ask(0)
                await passing.stop(block=False)
            case _:
                amount = chance.randrange(-1, 100)
                await system.aggregate(Till, f"t{chance.randrange(300)}").ask(Pay(amount=amount))


def threads(before: Collection[threading.Thread] = ()) -> list[str]:
    """Our worker threads and loop threads that did not exist ``before``, in another test."""
    return [
        thread.name
        for thread in threading.enumerate()
        if thread.name.startswith("uno-") and thread not in before
    ]


async def test_a_system_that_stops_under_load_answers_every_ask_and_leaves_no_thread_and_no_task() -> None:
    before = threading.enumerate()
    load = Load("memory:", random.Random(7))
    await asyncio.wait_for(load.run(0.7), 30)
    assert load.ends["answered"]
    assert load.ends["cancelled"]
    await until(lambda: threads(before) == [])
    await until(lambda: asyncio.all_tasks() == {asyncio.current_task()})


async def test_a_command_sent_after_the_end_by_abandoned_code_is_answered_at_once() -> None:
    """An abandoned thread of a handler may keep asking: it must not wait for the timeout of another ask."""
    load = Load("memory:", random.Random(1))
    await load.system.start()
    system = load.system
    account = system.aggregate(Till, "t")
    await system.stop()
    seems_to_run(system)  # as the thread saw it just before
    reply: Future[int] = account.ask(Pay(amount=1))
    with pytest.raises(SystemNotRunning):
        await asyncio.wait_for(_awaited(reply), 5)


async def _awaited(reply: Future[int]) -> int:
    return await reply


@pytest.mark.soak
@pytest.mark.timeout(600)
@pytest.mark.parametrize("url", ["memory:", "lmdb:{}"])
def test_memory_is_the_same_after_each_of_many_systems_in_one_process(
    url: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Anonymous memory is compared: the pages of an LMDB file are the file's, which the kernel takes back."""
    caplog.set_level("CRITICAL", logger="uno_actors")  # what pytest keeps of the log would count
    chance = random.Random(2026)
    left: list[int] = []
    objects: list[Counter[str]] = []
    before = threading.enumerate()
    for number in range(7):
        load = Load(url.format(tmp_path / f"store{number}"), chance)
        asyncio.run(load.run(8))
        del load
        deadline = time.monotonic() + 5
        while threads(before) and time.monotonic() < deadline:
            time.sleep(0.01)
        assert threads(before) == []
        gc.collect()
        objects.append(Counter(type(each).__name__ for each in gc.get_objects()))
        left.append(anonymous_memory())
    grown = {name: count for name in objects[-1] if (count := objects[-1][name] - objects[2][name]) > 100}
    assert not grown, f"objects were left: {grown}"
    assert max(left[2:]) - min(left[2:]) < GROWTH, f"memory after each round: {left}"


def anonymous_memory() -> int:
    """Bytes that belong to this process alone, after the allocator has returned its free memory."""
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)  # glibc's
    if trim is not None:
        trim(0)
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("RssAnon:"):
            return int(line.split()[1]) * 1024
    pytest.skip("this system does not tell")
