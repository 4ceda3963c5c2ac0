"""Waiting in tests for conditions."""

import asyncio
from collections.abc import Awaitable, Callable
from functools import wraps
from typing import Any

import pytest

from uno_actors.store.port import EventStore
from uno_actors.testing import ManualClock

__all__ = ["ManualClock", "calls_of", "checkpoint_is", "has_no_dead_letters", "soon", "turns", "until"]


async def until(condition: Callable[[], object]) -> None:
    """Return when ``condition()``, or what it returns to be awaited, is true; the deadline is that of the test."""
    while not await _value(condition()):  # noqa: ASYNC110 - conditions have many causes
        await asyncio.sleep(0.001)


async def _value(found: object) -> object:
    return await found if isinstance(found, Awaitable) else found


async def checkpoint_is(store: EventStore, name: str, position: int) -> bool:
    """Whether the checkpoint ``name`` is recorded at ``position``; for `until`."""
    return (await store.checkpoints()).get(name) == position


async def has_no_dead_letters(store: EventStore) -> bool:
    """Whether ``store`` has none; for `until`."""
    return not await store.dead_letters()


async def soon(condition: Callable[[], object]) -> None:
    """As `until`, but checking on every turn of the loop, for conditions that may last less than a millisecond."""
    while not condition():  # noqa: ASYNC110 - conditions have many causes
        await asyncio.sleep(0)


async def turns(count: int = 20) -> None:
    """Let everything that is ready on the loop run, and what it makes ready too."""
    for _ in range(count):
        await asyncio.sleep(0)


def calls_of(patch: pytest.MonkeyPatch, owner: object, name: str) -> list[object]:
    """A list that grows by one at each call of the method ``name`` of ``owner``, an object or a class.

    For tests that something is tried again, or looked at, and nothing comes of it: a call that begins shows that the
    one before has ended.
    """
    calls: list[object] = []
    method = getattr(owner, name)

    @wraps(method)
    def counted(*args: Any, **kwargs: Any) -> Any:
        calls.append(None)
        return method(*args, **kwargs)

    patch.setattr(owner, name, counted)
    return calls
