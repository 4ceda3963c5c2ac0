"""Waiting in tests: for conditions, and on a clock whose hands the test turns."""

import asyncio
import heapq
import itertools
from collections.abc import Callable


async def until(condition: Callable[[], object]) -> None:
    """Return when ``condition()`` holds; the deadline is that of the test."""
    while not condition():  # noqa: ASYNC110 - conditions have many causes
        await asyncio.sleep(0.001)


async def turns(count: int = 20) -> None:
    """Let everything that is ready on the loop run, and what it makes ready too."""
    for _ in range(count):
        await asyncio.sleep(0)


class ManualTimer:
    def __init__(self, callback: Callable[[], object]) -> None:
        self.callback = callback
        self.cancelled = False

    def cancel(self) -> None:
        self.cancelled = True


class ManualClock:
    """Time passes when it is told to `advance`."""

    def __init__(self) -> None:
        self.now = 1000.0
        self._order = itertools.count()
        self._timers: list[tuple[float, int, ManualTimer]] = []

    def monotonic(self) -> float:
        return self.now

    def call_later(self, delay: float, callback: Callable[[], object]) -> ManualTimer:
        timer = ManualTimer(callback)
        heapq.heappush(self._timers, (self.now + delay, next(self._order), timer))
        return timer

    def pending(self) -> int:
        """How many calls are to come."""
        return sum(not timer.cancelled for _, _, timer in self._timers)

    def advance(self, seconds: float) -> None:
        """Make the calls that are due within the next ``seconds``, each at its time."""
        end = self.now + seconds
        while self._timers and self._timers[0][0] <= end:
            moment, _, timer = heapq.heappop(self._timers)
            self.now = max(self.now, moment)
            if not timer.cancelled:
                timer.callback()
        self.now = end

    async def advance_until(self, condition: Callable[[], object], step: float = 0.1) -> None:
        """Let time pass in small steps until ``condition()`` holds."""
        while not condition():
            self.advance(step)
            await asyncio.sleep(0.001)
