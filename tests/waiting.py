"""Waiting in tests for conditions."""

import asyncio
from collections.abc import Callable

from uno_actors.testing import ManualClock

__all__ = ["ManualClock", "soon", "turns", "until"]


async def until(condition: Callable[[], object]) -> None:
    """Return when ``condition()`` holds; the deadline is that of the test."""
    while not condition():  # noqa: ASYNC110 - conditions have many causes
        await asyncio.sleep(0.001)


async def soon(condition: Callable[[], object]) -> None:
    """As `until`, looking at each turn of the loop: for what may be over within a millisecond."""
    while not condition():  # noqa: ASYNC110 - conditions have many causes
        await asyncio.sleep(0)


async def turns(count: int = 20) -> None:
    """Let everything that is ready on the loop run, and what it makes ready too."""
    for _ in range(count):
        await asyncio.sleep(0)
