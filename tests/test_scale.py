"""Many aggregates in one process, and a log far larger than what is in flight."""

import asyncio
import threading
from pathlib import Path

import pytest

from uno_actors import ActorSystem, AggregateRoot, Command, DomainEvent, handles


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


async def test_ten_thousand_aggregates_are_active_with_no_thread_each(tmp_path: Path) -> None:
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


async def test_beyond_max_active_the_oldest_are_let_go_and_come_back_with_their_state(tmp_path: Path) -> None:
    async with ActorSystem(f"lmdb:{tmp_path / 'store'}", handlers=[], max_active=10) as system:
        for _ in range(3):
            for number in range(50):
                await system.aggregate(Counter, f"counter-{number}").ask(Count())
                assert system.statistics().active_aggregates <= 10
        assert await system.aggregate(Counter, "counter-7").ask(Count()) == 4
        assert system.statistics().passivations >= 140


def own_memory() -> int:
    """KiB of the process that no file backs: pages of the store's map are the kernel's to take away."""
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
