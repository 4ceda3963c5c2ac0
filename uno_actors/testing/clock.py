"""A clock that the test moves: minutes of back-off or idleness pass at once, and the same way each time."""

import asyncio
import heapq
import itertools
import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta


class ManualTimer:
    """A call that is due when the clock reaches its time."""

    def __init__(self, callback: Callable[[], object]) -> None:
        self.callback = callback
        self.cancelled = False

    def cancel(self) -> None:
        """Cancel the call."""
        self.cancelled = True


class ManualClock:
    """Time that passes only when the test calls `advance`: ``ActorSystem(clock=ManualClock())``.

    It is not thread-safe: use it on the event loop that the system runs on.

    Args:
        at: The time of day when it begins; a naive one is in UTC. Default is now.

    Attributes:
        now: Seconds; where it begins has no meaning.
        stepped: Seconds by which the time of day was set forward, or back if negative, while no time passed.
    """

    def __init__(self, at: datetime | None = None) -> None:
        self.now = 1000.0
        self.stepped = 0.0
        aware = at if at is None or at.tzinfo is not None else at.replace(tzinfo=UTC)
        self._began = (time.time() if aware is None else aware.timestamp()) - self.now
        self._order = itertools.count()
        self._timers: list[tuple[float, int, ManualTimer]] = []

    def monotonic(self) -> float:
        """Seconds; see `uno_actors.clock.Clock`."""
        return self.now

    def time(self) -> float:
        """The time of day, as `time.time`. It passes with ``now``; change ``stepped`` to set it."""
        return self._began + self.now + self.stepped

    def call_later(self, delay: float, callback: Callable[[], object]) -> ManualTimer:
        """Call ``callback`` once ``delay`` seconds have been advanced."""
        timer = ManualTimer(callback)
        heapq.heappush(self._timers, (self.now + delay, next(self._order), timer))
        return timer

    def pending(self) -> int:
        """How many calls are scheduled."""
        return sum(not timer.cancelled for _, _, timer in self._timers)

    def advance(self, seconds: float | timedelta) -> None:
        """Make the calls due within the next ``seconds``, each at its time.

        Args:
            seconds: Seconds, or a ``timedelta``.

        Raises:
            ValueError: It is below 0: to set the time of day back, change ``stepped``.
        """
        end = self.now + _seconds(seconds)
        while self._timers and self._timers[0][0] <= end:
            moment, _, timer = heapq.heappop(self._timers)
            self.now = max(self.now, moment)
            if not timer.cancelled:
                timer.callback()
        self.now = end

    def leap(self, time: float | timedelta) -> None:
        """Let time pass at once, as while a machine is suspended: a month takes no longer than a minute.

        Each call that is due by then is made once, in their order, when the time has passed; what recurs within the
        time does not recur for it.

        Args:
            time: Seconds, or a ``timedelta``.

        Raises:
            ValueError: It is below 0: to set the time of day back, change ``stepped``.
        """
        self.now += _seconds(time)
        self.advance(0)

    async def advance_until(self, condition: Callable[[], object], step: float = 0.1) -> None:
        """Advance in steps of ``step`` seconds, and the event loop run between them, until ``condition()``."""
        while not condition():
            self.advance(step)
            await asyncio.sleep(0.001)


def _seconds(time: float | timedelta) -> float:
    seconds = time.total_seconds() if isinstance(time, timedelta) else time
    if seconds < 0:
        raise ValueError(
            f"time passes by 0 seconds or more; found {seconds}. To set the time of day back, use stepped"
        )
    return seconds
