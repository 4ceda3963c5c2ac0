"""What programs read and draw in a run, under whatever name, is the same again with the same seed."""

import asyncio
import os
import queue
import random
import threading
import time
import uuid
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from datetime import UTC, date, datetime
from functools import partial
from typing import Any

import pytest
from pydantic import BaseModel, Field

from uno_actors.testing.simulation import EscapesSimulation, World, simulate

own_generator = random.Random()
"""Seeded by the machine when this module is imported."""


class Receipt(BaseModel):
    """Its fields have default factories that pydantic calls itself."""

    at: float = Field(default_factory=time.time)
    day: datetime = Field(default_factory=partial(datetime.now, UTC))
    local: datetime = Field(default_factory=datetime.now)


class Envelope(BaseModel):
    """A model that pydantic has copied another one into."""

    receipts: list[Receipt | None]


@dataclass
class Stamp:
    at: float = field(default_factory=time.time)


async def numbered(number: int) -> int:
    await asyncio.sleep(0)
    return number


async def as_they_complete() -> list[int]:
    return [await each for each in asyncio.as_completed([numbered(number) for number in range(20)])]


async def those_that_are_done() -> list[int]:
    done, _ = await asyncio.wait([asyncio.create_task(numbered(number)) for number in range(20)])
    return [each.result() for each in done]


async def cancelled_by_their_group() -> list[int]:
    ended: list[int] = []

    async def member(number: int) -> None:
        try:
            await asyncio.sleep(60)
        finally:
            ended.append(number)

    async def fails() -> None:
        await asyncio.sleep(1)
        raise ValueError("one of them fails")

    try:
        async with asyncio.TaskGroup() as group:
            for number in range(20):
                group.create_task(member(number))
            group.create_task(fails())
    except* ValueError:
        ended.append(-1)
    return ended


async def names_of_all() -> list[str]:
    tasks = [asyncio.create_task(numbered(number)) for number in range(20)]
    names = [each.get_name() for each in asyncio.all_tasks()]
    await asyncio.gather(*tasks)
    return names


READ: dict[str, Callable[[], Any]] = {
    "the day": lambda: date.today().year,  # noqa: DTZ011
    "the local time": lambda: (time.localtime().tm_year, time.strftime("%Y"), time.ctime(), time.asctime()),
    "the time in UTC": lambda: time.gmtime().tm_year,
    "one of the clocks": lambda: (time.clock_gettime(time.CLOCK_REALTIME), time.clock_gettime_ns(1)),
    "the time of the processor": lambda: (time.process_time(), time.thread_time_ns()),
    "an id with the time": uuid.uuid1,
    "chance of the kernel": lambda: os.getrandom(8),
    "a generator of a module": own_generator.random,
    "defaults of a model": Receipt,
    "defaults of a model in another": lambda: Envelope.model_validate({"receipts": [{}]}),
    "tasks as they complete": as_they_complete,
    "tasks that are done": those_that_are_done,
    "tasks that a group cancels": cancelled_by_their_group,
    "all tasks": names_of_all,
}


def seen(read: Callable[[], Any], seeds: list[int]) -> list[str]:
    """What ``read`` returns in runs with these seeds; the first run is done twice."""
    found: list[str] = []

    async def scenario(world: World) -> None:
        value = read()
        found.append(repr(await value if isinstance(value, Awaitable) else value))

    simulate(scenario, seeds, faults=0)
    return found


@pytest.mark.parametrize("what", READ)
def test_it_is_the_same_again_with_the_same_seed(what: str) -> None:
    first, again = seen(READ[what], [3])
    third, _ = seen(READ[what], [3])
    assert first == again == third


@pytest.mark.parametrize(
    "what", ["the day", "the local time", "the time in UTC", "one of the clocks", "defaults of a model"]
)
def test_the_time_is_that_of_the_run(what: str) -> None:
    assert "2030" in seen(READ[what], [1])[0] or "1900001000" in seen(READ[what], [1])[0]


@pytest.mark.parametrize(
    "what",
    ["a generator of a module", "chance of the kernel", "tasks as they complete", "an id with the time"],
)
def test_another_seed_gives_something_else(what: str) -> None:
    found = seen(READ[what], [1, 2])
    assert found[0] != found[2]


def test_afterwards_all_is_the_machines_again() -> None:
    before = own_generator.getstate()
    seen(Receipt, [1])
    assert own_generator.getstate() == before
    assert abs(Receipt().at - time.time()) < 60
    assert (
        abs(Envelope.model_validate({"receipts": [{}]}).model_dump()["receipts"][0]["at"] - time.time()) < 60
    )
    assert time.localtime().tm_year == datetime.now().astimezone().year
    assert type(asyncio.run(a_task())) is asyncio.Task


async def a_task() -> "asyncio.Task[int]":
    return asyncio.create_task(numbered(1))


def test_a_time_that_is_given_is_kept() -> None:
    assert (
        seen(lambda: (time.gmtime(0).tm_year, time.strftime("%Y", time.gmtime(0))), [1])[0]
        == "(1970, '1970')"
    )


BLOCKED: dict[str, Callable[[], Any]] = {
    "an event": lambda: threading.Event().wait(),
    "an event with a timeout": lambda: threading.Event().wait(60),
    "a queue": lambda: queue.Queue[int]().get(timeout=60),
    "a semaphore": lambda: threading.Semaphore(0).acquire(),
    "another loop": lambda: asyncio.run_coroutine_threadsafe(
        numbered(1), asyncio.get_running_loop()
    ).result(),
}


@pytest.mark.parametrize("what", BLOCKED)
@pytest.mark.timeout(30)
def test_a_wait_for_another_thread_is_named_instead_of_hanging(what: str) -> None:
    with pytest.raises(EscapesSimulation, match=f"a wait for another thread.*, at {__file__}:"):
        seen(BLOCKED[what], [1])


def test_what_needs_no_wait_is_allowed() -> None:
    def without_a_wait() -> str:
        event, waiting = threading.Event(), queue.Queue[str]()
        event.set()
        waiting.put("there")
        return waiting.get() if event.wait() and not threading.Semaphore(0).acquire(timeout=0) else ""

    assert seen(without_a_wait, [1])[0] == "'there'"


def test_a_clock_that_a_made_method_reads_is_named_at_the_line_that_calls_it() -> None:
    with pytest.raises(EscapesSimulation) as escaped:
        seen(lambda: [Stamp()], [1])
    assert all(f" at {__file__}:" in line for line in escaped.value.lines)


def test_what_a_module_does_while_it_is_imported_is_no_part_of_a_run(
    tmp_path: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "looks_at_the_machine.py").write_text(
        "import subprocess, sys\nfound = subprocess.run([sys.executable, '-c', 'print(1)'], check=True)\n"
    )
    monkeypatch.syspath_prepend(tmp_path)

    def late_import() -> int:
        import looks_at_the_machine  # type: ignore[import-not-found]

        return int(looks_at_the_machine.found.returncode)

    assert seen(late_import, [1])[0] == "0"


async def test_a_coroutine_can_simulate_and_its_loop_runs_on() -> None:
    loop, task = asyncio.get_running_loop(), asyncio.current_task()
    seen(lambda: numbered(1), [1])
    assert asyncio.get_running_loop() is loop
    assert asyncio.current_task() is task
    async with asyncio.timeout(10):
        assert await asyncio.create_task(numbered(2)) == 2


def test_threads_simulate_one_after_the_other() -> None:
    found: list[list[str]] = []
    threads = [
        threading.Thread(target=lambda: found.append(seen(lambda: (time.time(), random.random()), [1])))
        for _ in range(3)
    ]
    for each in threads:
        each.start()
    for each in threads:
        each.join()
    assert len(found) == 3
    assert found[0] == found[1] == found[2]
