"""Tasks that continue coroutines that must wait: to the coroutine it is one task from first step to last."""

import asyncio
import contextvars
import gc
import sys
import weakref
from collections.abc import AsyncIterator
from typing import Any

import pytest

from tests.waiting import turns, until
from uno_actors import Actor, ActorSystem

mark: contextvars.ContextVar[str] = contextvars.ContextVar("mark", default="none")


@pytest.fixture
async def system() -> AsyncIterator[ActorSystem]:
    async with ActorSystem(handlers=[], aggregates=[], stop_timeout=2) as running:
        yield running


class Runs(Actor):
    """Runs the coroutine function that it is sent."""

    async def on_receive(self, message: Any) -> Any:
        return await message()


async def test_the_task_is_the_same_before_and_after_waiting(system: ActorSystem) -> None:
    tasks: list[Any] = []

    async def look() -> None:
        for _ in range(3):
            tasks.append(asyncio.current_task())
            await asyncio.sleep(0)

    await (await system.spawn(Runs)).ask(look)
    assert len(set(tasks)) == 1
    assert tasks[0] is not asyncio.current_task()


async def test_a_handler_that_never_waits_has_a_task_too_and_the_caller_gets_its_own_back(
    system: ActorSystem,
) -> None:
    async def look() -> Any:
        return asyncio.current_task()

    runs, mine = await system.spawn(Runs), asyncio.current_task()
    for _ in range(3):
        theirs = await runs.ask(look)
        assert theirs is not None
        assert theirs is not mine
        assert asyncio.current_task() is mine


async def test_an_idle_task_keeps_no_actor_alive(system: ActorSystem) -> None:
    async def wait() -> None:
        await asyncio.sleep(0)

    runs = await system.spawn(Runs)
    await runs.ask(wait)
    actor = weakref.ref(runs.actor_inbox.cell.actor)  # type: ignore[union-attr]  # it has one
    await runs.stop(block=False)
    del runs
    gc.collect()
    assert actor() is None


async def test_a_timeout_in_a_handler_ends_its_own_block_and_nothing_else(system: ActorSystem) -> None:
    async def in_vain() -> str:
        try:
            async with asyncio.timeout(0.001):
                await asyncio.Event().wait()
        except TimeoutError:
            await asyncio.sleep(0)
            return "timed out"
        return "not reached"

    runs = await system.spawn(Runs)
    for _ in range(3):
        assert await runs.ask(in_vain) == "timed out"


async def test_a_timeout_of_zero_expires_before_the_handler_waits(system: ActorSystem) -> None:
    """The cancellation arrives while the coroutine is handed to the task that continues it."""
    inner_cancelled = asyncio.Event()

    async def inner() -> None:
        try:
            await asyncio.Event().wait()
        finally:
            inner_cancelled.set()

    async def in_vain() -> str:
        child = asyncio.ensure_future(inner())
        try:
            async with asyncio.timeout(0):
                await child
        except TimeoutError:
            return "timed out"
        return "not reached"

    assert await (await system.spawn(Runs)).ask(in_vain) == "timed out"
    await inner_cancelled.wait()


async def test_a_task_group_in_a_handler_works(system: ActorSystem) -> None:
    async def squares() -> list[int]:
        async def square(number: int) -> int:
            await asyncio.sleep(0)
            return number * number

        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(square(number)) for number in range(4)]
        return [task.result() for task in tasks]

    assert await (await system.spawn(Runs)).ask(squares) == [0, 1, 4, 9]


async def test_an_error_from_an_awaited_future_arrives_in_the_handler(system: ActorSystem) -> None:
    failing: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    async def catches() -> str:
        try:
            await failing
        except ValueError as error:
            await asyncio.sleep(0)
            return f"caught {error}"
        return "not reached"

    reply = (await system.spawn(Runs)).ask(catches)
    waiting = asyncio.ensure_future(_result(reply))
    await turns()
    failing.set_exception(ValueError("it"))
    assert await waiting == "caught it"


async def test_no_actor_sees_what_another_puts_into_its_context(system: ActorSystem) -> None:
    async def set_it() -> None:
        mark.set("mine")
        await asyncio.sleep(0)
        assert mark.get() == "mine"

    async def see() -> str:
        before = mark.get()
        await asyncio.sleep(0)
        return before + mark.get()

    one, two = await system.spawn(Runs), await system.spawn(Runs)
    mark.set("the asker's")
    for _ in range(3):
        await one.ask(set_it)
        assert await two.ask(see) == "the asker's" * 2
    assert mark.get() == "the asker's"


async def test_a_thousand_waiting_handlers_have_one_task_each_and_few_tasks_are_kept(
    system: ActorSystem,
) -> None:
    gate = asyncio.Event()
    tasks: set[Any] = set()

    async def wait() -> None:
        tasks.add(asyncio.current_task())
        await gate.wait()

    refs = [await system.spawn(Runs) for _ in range(1000)]
    replies = [ref.ask(wait) for ref in refs]
    await until(lambda: len(tasks) == 1000)
    gate.set()
    for reply in replies:
        await reply
    await turns()
    assert sum(not task.done() for task in tasks) <= 64


async def test_a_handler_cancelled_by_the_stop_of_its_system_harms_no_other() -> None:
    async def forever() -> None:
        await asyncio.Event().wait()

    async def answer() -> int:
        return 42

    async with ActorSystem(handlers=[], stop_timeout=2) as stays:
        runs = await stays.spawn(Runs)
        async with ActorSystem(handlers=[], stop_timeout=0.01) as stops:
            (await stops.spawn(Runs)).tell(forever)
        for _ in range(3):
            assert await runs.ask(answer) == 42


# --- running inside the task that waits ---


async def test_asking_in_a_loop_does_not_starve_the_event_loop(system: ActorSystem) -> None:
    """A task that asks again and again mostly gets its replies at once, and yet other tasks keep running."""
    ticks = 0
    done = False

    async def ticking() -> None:
        nonlocal ticks
        while not done:
            ticks += 1
            await asyncio.sleep(0)

    async def answer() -> int:
        return 1

    runs = await system.spawn(Runs)
    other = asyncio.ensure_future(ticking())
    total = 0
    for _ in range(20_000):
        total += await runs.ask(answer)
    done = True
    await other
    assert total == 20_000
    assert ticks > 10


async def test_tells_before_an_ask_are_handled_before_it(system: ActorSystem) -> None:
    heard: list[int] = []

    def note(number: int) -> Any:
        async def run() -> None:
            heard.append(number)

        return run

    runs = await system.spawn(Runs)
    for round_ in range(50):
        runs.tell(note(2 * round_))
        await runs.ask(note(2 * round_ + 1))
    assert heard == list(range(100))


async def test_an_actor_never_runs_inside_itself(system: ActorSystem) -> None:
    inside = 0
    most = 0

    async def once() -> None:
        nonlocal inside, most
        inside += 1
        most = max(most, inside)
        await asyncio.sleep(0)
        inside -= 1

    runs = await system.spawn(Runs)

    async def client() -> None:
        for _ in range(50):
            await runs.ask(once)

    await asyncio.gather(*(client() for _ in range(20)))
    assert most == 1


async def test_a_long_chain_of_asks_does_not_nest_without_bound(
    system: ActorSystem, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("uno_actors.actors.dispatcher.INLINE_SECONDS", 100)

    class Links(Actor):
        async def on_receive(self, message: list[Any]) -> int:
            return 1 + await message[0].ask(message[1:]) if message else 0

    refs = [await system.spawn(Links) for _ in range(300)]
    assert await refs[0].ask(refs[1:]) == 299


async def test_an_error_that_the_caller_is_handling_is_not_seen_by_the_actor(system: ActorSystem) -> None:
    """Otherwise errors of the actor would get it as their context."""

    async def look() -> Any:
        return sys.exc_info()[1]

    runs = await system.spawn(Runs)
    for _ in range(3):
        try:
            raise KeyError("the asker's")
        except KeyError:
            assert await runs.ask(look) is None


async def test_a_method_may_be_replaced_while_the_actor_runs(system: ActorSystem) -> None:
    """An actor changes its behaviour by giving its instance another ``on_receive``, which may be a plain function."""

    class Becomes(Actor):
        async def on_receive(self, message: Any) -> str:
            self.on_receive = self.second  # type: ignore[method-assign]
            return "first"

        async def second(self, message: Any) -> str:
            self.on_receive = lambda message: "third"  # type: ignore[method-assign]
            return "second"

    becomes = await system.spawn(Becomes)
    assert [await becomes.ask("?") for _ in range(4)] == ["first", "second", "third", "third"]


async def _result(awaitable: Any) -> Any:
    return await awaitable
