"""Time as a dependency: everything that waits asks a clock, so that tests can turn its hands."""

import asyncio
import time
from collections.abc import Callable
from typing import Protocol


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

    def monotonic(self) -> float:
        """Seconds of ``time.monotonic``."""
        return time.monotonic()

    def call_later(self, delay: float, callback: Callable[[], object]) -> Timer:
        """Call ``callback`` on the running event loop in ``delay`` seconds."""
        return asyncio.get_running_loop().call_later(delay, callback)
