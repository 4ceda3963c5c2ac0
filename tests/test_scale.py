"""Many aggregates in one process, and a log far larger than what is in flight."""

import asyncio
import gc
import threading
import tracemalloc
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.waiting import ManualClock, until
from uno_actors import Actor, ActorSystem, AggregateRoot, Command, DomainEvent, handles, subscribe


class Count(Command[int]):
    pass


class Counted(DomainEvent):
    pass


class Counter(AggregateRoot):
    def __init__(self, id: str) -> None:
        super().__init__(id=id)
        self.count = 0

    @handles
    def increment(self, command: Count) -> int:
        self.register_event(Counted())
        return self.count

    def apply_counted(self, event: Counted) -> None:
        self.count += 1


async def test_ten_thousand_active_aggregates_need_no_threads_of_their_own(tmp_path: Path) -> None:
    async with ActorSystem(f"lmdb:{tmp_path / 'store'}", handlers=[]) as system:
        await system.aggregate(Counter, "first").ask(Count())
        threads = set(threading.enumerate())
        names = [f"counter-{number}" for number in range(10_000)]
        replies = [
            await asyncio.gather(*(system.aggregate(Counter, name).ask(Count()) for name in names))
            for _ in (1, 2)
        ]
        assert replies == [[1] * 10_000, [2] * 10_000]
        statistics = system.statistics()
        assert statistics.active_aggregates == 10_001
        assert statistics.activations == 10_001, "each was loaded once and stayed active"
        assert set(threading.enumerate()) <= threads


async def test_beyond_max_active_the_oldest_are_passivated_and_come_back_with_their_state(
    tmp_path: Path,
) -> None:
    async with ActorSystem(f"lmdb:{tmp_path / 'store'}", handlers=[], max_active=10) as system:
        for _ in range(3):
            for number in range(50):
                await system.aggregate(Counter, f"counter-{number}").ask(Count())
                assert system.statistics().active_aggregates <= 10
        assert await system.aggregate(Counter, "counter-7").ask(Count()) == 4
        assert system.statistics().passivations >= 140


class Echo(Actor):
    async def on_receive(self, message: object) -> object:
        return message


async def test_an_actor_costs_little_memory_and_little_garbage_collection() -> None:
    """What it seldom needs is made when it is needed: every further object costs each full garbage collection time."""
    count = 2000

    def used() -> tuple[float, float]:
        gc.collect()
        return tracemalloc.get_traced_memory()[0] / count, len(gc.get_objects()) / count

    async with ActorSystem(handlers=[]) as system:
        await (await system.spawn(Echo)).ask("what is made once")
        tracemalloc.start()
        try:
            empty_bytes, empty_objects = used()
            refs = [await system.spawn(Echo) for _ in range(count)]
            idle_bytes, idle_objects = used()
            for ref in refs:
                await ref.ask("hello")
            asked_bytes, asked_objects = used()
        finally:
            tracemalloc.stop()
    assert idle_bytes - empty_bytes <= 900
    assert idle_objects - empty_objects <= 7.5
    assert asked_bytes - empty_bytes <= 1800, "its queue of messages, once it has had one, takes 760"
    assert asked_objects - empty_objects <= 8.5


async def test_an_idle_aggregate_costs_little_and_passivation_gives_everything_back(tmp_path: Path) -> None:
    """At most 1.5 KB beyond its own state: no mailbox, no task, no timer while it gets no command."""
    count = 2000
    names = [f"counter-{number}" for number in range(count)]
    clock = ManualClock()
    tracemalloc.start()
    try:
        async with ActorSystem(
            f"lmdb:{tmp_path / 'store'}",
            handlers=[],
            clock=clock,
            passivate_after=60,
            recorder=False,  # keeps the latest steps, of whatever aggregates
        ) as system:

            async def ask_all() -> None:
                for first in range(0, count, 500):
                    some = names[first : first + 500]
                    await asyncio.gather(*(system.aggregate(Counter, name).ask(Count()) for name in some))

            async def passivated() -> int:
                clock.advance(200)
                await until(lambda: system.statistics().active_aggregates == 0)
                gc.collect()
                return tracemalloc.get_traced_memory()[0]

            await ask_all()  # whatever is made once is there from here on
            empty = await passivated()
            instances = [Counter(name) for name in names]
            for instance in instances:
                instance.handle(Count())
                instance.take_pending_events()
            gc.collect()
            own = tracemalloc.get_traced_memory()[0] - empty
            del instances, instance
            empty = await passivated()
            await ask_all()
            clock.advance(31)  # it keeps timers that were cancelled until their time is over
            gc.collect()
            active = tracemalloc.get_traced_memory()[0] - empty
            assert system.statistics().active_aggregates == count
            assert (active - own) / count <= 1500
            growths = [await passivated() - empty]
            while (
                growths[-1] / count >= 150 and len(growths) < 3
            ):  # tables and caches grow once, a leak each time
                empty += growths[-1]
                await ask_all()
                growths.append(await passivated() - empty)
            assert growths[-1] / count < 150
    finally:
        tracemalloc.stop()


def own_memory() -> int:
    """KiB of the process that no file backs: the kernel may drop pages of the store's map."""
    lines = Path("/proc/self/smaps_rollup").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("Anonymous:"))


@pytest.mark.soak
@pytest.mark.timeout(900)
async def test_memory_stays_flat_over_a_million_commands(tmp_path: Path) -> None:
    """The writer's memory of stream versions fills and is emptied; beyond that the second half needs no more."""
    seen: list[int] = []
    async with ActorSystem(f"lmdb:{tmp_path / 'store'}", handlers=[], max_active=2000) as system:
        numbers = iter(range(1_000_000))

        async def client() -> None:
            for number in numbers:
                await system.aggregate(Counter, f"counter-{number // 5000}-{number % 1000}").ask(Count())
                if number % 100_000 == 99_999:
                    seen.append(own_memory())

        await asyncio.gather(*(client() for _ in range(500)))
    print("MiB of its own after each 100,000 commands:", [kib // 1024 for kib in seen])
    assert len(seen) == 10
    assert max(seen[5:]) < max(seen[:5]) * 1.1


async def fall_behind(directory: Path, count: int, memory: Callable[[], int]) -> tuple[list[int], list[int]]:
    """``memory()`` ten times while one handler falls behind by ``count`` events, and ten times as it catches up."""
    go_on, seen, live = asyncio.Event(), 0, 0
    falling, catching_up = list[int](), list[int]()

    @subscribe(name="behind", event_type=Counted)
    async def behind(event: Counted) -> None:
        nonlocal seen
        await go_on.wait()
        seen += 1
        if seen % (count // 10) == 0:
            catching_up.append(memory())

    @subscribe(name="live", event_type=Counted)
    async def live_one(event: Counted) -> None:
        nonlocal live
        live += 1

    async with ActorSystem(f"lmdb:{directory}", aggregates=[], handlers=[behind, live_one]) as system:
        for number in range(100, count + 1, 100):
            await system.store.append(*(Counted() for _ in range(100)))
            if number % (count // 10) == 0:
                await until(lambda: live == number)  # noqa: B023 - awaited at once
                falling.append(memory())
        behind_now = system.statistics().handlers["behind"]
        assert (behind_now.state, behind_now.position, behind_now.waiting) == ("catching up", 0, 0)
        go_on.set()
        await system.settled(timeout=600)
        assert (seen, live) == (count, count)
    return falling, catching_up


async def test_a_handler_that_is_far_behind_costs_no_memory(tmp_path: Path) -> None:
    def memory() -> int:
        gc.collect()
        return tracemalloc.get_traced_memory()[0]

    tracemalloc.start()
    try:
        falling, catching_up = await fall_behind(tmp_path / "store", 10_000, memory)
    finally:
        tracemalloc.stop()
    assert max(falling[5:]) < max(falling[:5]) + 300_000, falling
    assert max(catching_up) < max(falling) + 1_500_000, "a page of the log at a time"


@pytest.mark.soak
@pytest.mark.timeout(900)
async def test_memory_stays_flat_with_a_handler_a_million_events_behind(tmp_path: Path) -> None:
    falling, catching_up = await fall_behind(tmp_path / "store", 1_000_000, own_memory)
    print("MiB of its own, falling behind and catching up:", [kib // 1024 for kib in falling + catching_up])
    assert max(falling[5:]) < max(falling[:5]) * 1.1
    assert max(catching_up) < max(falling) * 1.1
