"""Time limits, and how long and how often an attempt is repeated."""

import asyncio
import time
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager


class Patience:
    """Allows more attempts, at growing intervals, until ``seconds`` have passed."""

    def __init__(self, seconds: float) -> None:
        self._end = time.monotonic() + seconds
        self._pause = 0.01

    async def again(self) -> bool:
        """Wait a little; return whether there is time for another attempt."""
        if time.monotonic() >= self._end:
            return False
        await asyncio.sleep(self._pause)
        self._pause = min(2 * self._pause, 0.5)
        return True


@asynccontextmanager
async def within(seconds: float | None) -> AsyncGenerator[None]:
    """A time limit whose error names the possible causes.

    Raises:
        TimeoutError: The body took more than ``seconds``.
    """
    try:
        async with asyncio.timeout(seconds):
            yield
    except TimeoutError as error:
        if str(error) or seconds is None:
            raise
        raise TimeoutError(
            f"no answer within {seconds:g} s: the way to the server is cut, a transaction that has recorded events"
            " does not end, or the engine's pool has no connection left (see its pool_size)"
        ) from error
