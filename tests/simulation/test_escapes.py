"""What the simulation controls, and what it names because it cannot."""

import asyncio
import os
import random
import secrets
import socket
import subprocess
import sys
import threading
import time
import uuid
from collections.abc import Callable
from datetime import UTC, datetime

import pytest

from tests.bank import EVENTS, Account, Credit, Credited
from uno_actors import ActorSystem, HandlerContext, subscribe
from uno_actors.testing.simulation import EscapesSimulation, Node, Simulation, World, simulate
from uno_actors.testing.simulation.control import controlled

kept_clock = [time.time]
"""Under a name that the simulation does not find."""
kept_class = [datetime]


def drawn() -> list[object]:
    """Whatever code asks the machine for."""
    return [
        time.time(),
        time.monotonic(),
        time.perf_counter_ns(),
        datetime.now(UTC),
        random.random(),
        random.Random().random(),
        random.SystemRandom().random(),
        os.urandom(4),
        secrets.token_hex(4),
        uuid.uuid4(),
    ]


def test_clocks_and_chance_follow_from_the_seed() -> None:
    seen: list[list[object]] = []

    async def scenario(world: World) -> None:
        await asyncio.sleep(1)
        seen.append(drawn())

    with controlled():
        simulation = Simulation(scenario, faults=0)
        for seed in (1, 1, 2):
            assert simulation.run(seed).error is None
    assert seen[0] == seen[1]
    assert all(one != other for one, other in zip(seen[0], seen[2], strict=True))


def test_outside_of_a_run_they_are_the_machines() -> None:
    with controlled():
        assert drawn() != drawn()
        assert abs(datetime.now(UTC).timestamp() - time.time()) < 60
    assert type(datetime.now(UTC)) is datetime
    assert time.sleep.__module__ == "time" or time.sleep.__name__ == "sleep"


def a_thread() -> None:
    threading.Thread(target=print).start()


def a_sleep() -> None:
    time.sleep(0.001)


def a_socket() -> None:
    socket.socket()


def a_process() -> None:
    subprocess.run([sys.executable, "-c", ""], check=True)


def a_loop() -> None:
    asyncio.new_event_loop()


def a_clock() -> None:
    kept_clock[0]()


def a_time_of_day() -> None:
    kept_class[0].now(UTC)


@pytest.mark.parametrize(
    ("escape", "what"),
    [
        (a_thread, "a thread of its own"),
        (a_sleep, "time.sleep"),
        (a_socket, "a real socket"),
        (a_process, "a real process"),
        (a_loop, "an event loop of its own"),
        (a_clock, "the machine's clock"),
        (a_time_of_day, "the machine's clock"),
    ],
)
def test_code_that_escapes_is_named_at_its_line(escape: Callable[[], None], what: str) -> None:
    @subscribe(name="escapes", start="earliest")
    async def handler(event: Credited) -> None:
        escape()

    def make(node: Node) -> ActorSystem:
        return ActorSystem(node.store, aggregates=[Account], handlers=[handler])

    async def scenario(world: World) -> None:
        await world.node("a", make)
        await world.ask(Account, "x", Credit(amount=1))

    with pytest.raises(EscapesSimulation) as escaped:
        simulate(scenario, [1], faults=0, event_registry=EVENTS)
    line = escape.__code__.co_firstlineno + 1
    assert any(found.startswith(what) for found in escaped.value.lines)
    assert all(f"at {__file__}:{line} in {escape.__name__}" in found for found in escaped.value.lines)


def test_a_plain_function_that_blocks_for_a_reply_is_named() -> None:
    @subscribe(name="blocks", start="earliest")
    def handler(event: Credited, context: HandlerContext) -> None:
        if event.amount == 1:
            context.system.aggregate(Account, "y").ask(Credit(amount=2)).get()

    def make(node: Node) -> ActorSystem:
        return ActorSystem(node.store, aggregates=[Account], handlers=[handler])

    async def scenario(world: World) -> None:
        await world.node("a", make)
        await world.ask(Account, "x", Credit(amount=1))

    with pytest.raises(EscapesSimulation, match=f"a plain function that waits for a reply.*{__file__}:"):
        simulate(scenario, [1], faults=0, event_registry=EVENTS)


def test_a_plain_function_that_runs_a_loop_of_its_own_is_named() -> None:
    @subscribe(name="runs", start="earliest")
    def handler(event: Credited) -> None:
        asyncio.run(asyncio.sleep(0))

    def make(node: Node) -> ActorSystem:
        return ActorSystem(node.store, aggregates=[Account], handlers=[handler])

    async def scenario(world: World) -> None:
        await world.node("a", make)
        await world.ask(Account, "x", Credit(amount=1))

    with pytest.raises(EscapesSimulation, match=f"an event loop of its own.*{__file__}:"):
        simulate(scenario, [1], faults=0, event_registry=EVENTS)


def test_plain_functions_run_as_steps_of_the_run() -> None:
    seen: list[int] = []

    @subscribe(name="plain", start="earliest")
    def handler(event: Credited) -> None:
        seen.append(event.amount)

    def make(node: Node) -> ActorSystem:
        return ActorSystem(node.store, aggregates=[Account], handlers=[handler])

    async def scenario(world: World) -> None:
        seen.clear()
        await world.node("a", make)
        for amount in range(1, 6):
            await world.ask(Account, "x", Credit(amount=amount))
        await world.settled()
        assert seen == [1, 2, 3, 4, 5]
        assert await asyncio.to_thread(lambda: 1) == 1

    simulate(scenario, range(5), faults=0, event_registry=EVENTS)
