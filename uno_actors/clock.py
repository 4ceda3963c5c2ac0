"""Time as a dependency: everything that waits asks a clock, so that tests can turn its hands."""

import asyncio
import time
from collections.abc import Callable
from typing import Generic, Protocol, TypeVar

W = TypeVar("W")


class Timer(Protocol):
    """A call that is to come."""

    def cancel(self) -> None:
        """Forget the call; without effect once it was made."""


class Clock(Protocol):
    """What the runtime needs to know of time."""

    def monotonic(self) -> float:
        """Seconds since some fixed moment; never runs backwards."""

    def call_later(self, delay: float, callback: Callable[[], object]) -> Timer:
        """Call ``callback`` on the running event loop in ``delay`` seconds."""


class SystemClock:
    """The machine's clock and the running event loop's timers."""

    monotonic = staticmethod(time.monotonic)  # asked for each command: as it is, without a call more

    def call_later(self, delay: float, callback: Callable[[], object]) -> Timer:
        """Call ``callback`` on the running event loop in ``delay`` seconds."""
        return asyncio.get_running_loop().call_later(delay, callback)


class Deadlines(Generic[W]):
    """Those who wait equally long, with one timer for all of them: the first to come is the first to be late.

    Args:
        clock: Whose time counts.
        seconds: How long each waits.
        late: Called on the event loop with one who has waited so long.
    """

    def __init__(self, clock: Clock, seconds: float, late: Callable[[W], object]) -> None:
        self._clock = clock
        self._seconds = seconds
        self._late = late
        self._waiting: dict[W, float] = {}  # until when; in the order of their coming
        self._timer: Timer | None = None

    def add(self, waiting: W) -> None:
        """From now on ``waiting`` waits."""
        self._waiting[waiting] = self._clock.monotonic() + self._seconds
        if self._timer is None:
            self._timer = self._clock.call_later(self._seconds, self._look)

    def discard(self, waiting: W) -> None:
        """It waits no longer."""
        self._waiting.pop(waiting, None)

    def longest(self) -> float | None:
        """Seconds for which the first of those who wait has waited; ``None`` if nobody waits."""
        until = next(iter(self._waiting.values()), None)
        return None if until is None else self._clock.monotonic() + self._seconds - until

    def close(self) -> None:
        """Nobody will be late any more."""
        self._waiting.clear()
        if self._timer is not None:
            self._timer.cancel()

    def _look(self) -> None:
        self._timer = None
        now = self._clock.monotonic()
        while self._waiting:
            waiting, until = next(iter(self._waiting.items()))
            if until > now:
                self._timer = self._clock.call_later(until - now, self._look)
                return
            del self._waiting[waiting]
            self._late(waiting)
