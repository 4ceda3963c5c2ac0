"""Time as a dependency: everything that waits uses a clock, so that tests can advance it."""

import asyncio
import time
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Generic, Protocol, TypeVar

W = TypeVar("W")


class Timer(Protocol):
    """A pending call."""

    def cancel(self) -> None:
        """Cancel the call; has no effect once it was made."""


class Clock(Protocol):
    """What the runtime needs from a clock."""

    def monotonic(self) -> float:
        """Seconds since a fixed moment; never decreases."""

    def call_later(self, delay: float, callback: Callable[[], object]) -> Timer:
        """Call ``callback`` on the running event loop in ``delay`` seconds."""


class SystemClock:
    """The machine's clock and the running event loop's timers."""

    monotonic = staticmethod(time.monotonic)  # asked for each command: as it is, without a call more
    time = staticmethod(time.time)

    def call_later(self, delay: float, callback: Callable[[], object]) -> Timer:
        """Call ``callback`` on the running event loop in ``delay`` seconds."""
        return asyncio.get_running_loop().call_later(delay, callback)


def own_time(clock: Clock) -> Callable[[], float] | None:
    """The method of ``clock`` that tells the time of day, as `time.time`, unless that is the machine's own."""
    found: Callable[[], float] | None = getattr(clock, "time", None)
    return None if found is time.time else found


def now_by(clock: Clock) -> datetime:
    """The time of day by ``clock``, in UTC; the machine's if the clock tells none."""
    return datetime.fromtimestamp((own_time(clock) or time.time)(), UTC)


class Deadlines(Generic[W]):
    """Items that all wait equally long, with one timer for all: the first to arrive is the first to be late.

    Args:
        clock: Measures the time.
        seconds: How long each item waits.
        late: Called on the event loop with each item that has waited so long.
    """

    def __init__(self, clock: Clock, seconds: float, late: Callable[[W], object]) -> None:
        self._clock = clock
        self._seconds = seconds
        self._late = late
        self._waiting: dict[W, float] = {}  # until when; in order of arrival
        self._timer: Timer | None = None

    def add(self, waiting: W) -> None:
        """Let ``waiting`` wait from now on."""
        self._waiting[waiting] = self._clock.monotonic() + self._seconds
        if self._timer is None:
            self._timer = self._clock.call_later(self._seconds, self._look)

    def discard(self, waiting: W) -> None:
        """Stop waiting for ``waiting``."""
        self._waiting.pop(waiting, None)

    def longest(self) -> float | None:
        """Seconds for which the first item has waited; ``None`` if none waits."""
        until = next(iter(self._waiting.values()), None)
        return None if until is None else self._clock.monotonic() + self._seconds - until

    @property
    def first(self) -> W | None:
        """The item that has waited longest."""
        return next(iter(self._waiting), None)

    @property
    def items(self) -> tuple[W, ...]:
        """The items, in order of arrival; from any thread."""
        return tuple(self._waiting)

    def close(self) -> None:
        """Forget all items."""
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
