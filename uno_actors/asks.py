"""Asks under way: what each actor is handling, until when, and whom it waits for meanwhile.

From this two things follow: an ask made while another is handled inherits its remaining time, and actors that
wait for each other in a circle get a `DeadlockError` at once instead of waiting until their time is over.

A wait counts while it lasts and no longer; it is noted only where the handling itself stands still: in its
own task, or on the worker thread that runs it. Waiting for the first of several replies is therefore never
mistaken for a deadlock.
"""

import asyncio
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Protocol

from uno_actors.errors import DeadlockError


class Handling:
    """One message being handled by an actor.

    Attributes:
        actor: Name of the actor.
        message: Class name of the message.
        since: When it began, on ``time.monotonic``'s clock.
        deadline: Until when somebody waits for the reply, on the same clock; ``None`` if nobody does, or
            without limit.
        task: The task that runs it; ``None`` on a worker thread.
        waits: The replies for which it stands still now.
        over: Whether it has ended; what it started and left behind no longer acts for it.
    """

    __slots__ = ("actor", "deadline", "message", "over", "since", "task", "waits")

    def __init__(
        self, actor: str, message: object, deadline: float | None, task: "asyncio.Task[None] | None"
    ) -> None:
        self.actor = actor
        self.message = type(message).__name__
        self.since = time.monotonic()
        self.deadline = deadline
        self.task = task
        self.waits: list[Awaited] = []
        self.over = False


class Answers(Protocol):
    """Who is asked: it answers when it has handled what it is handling now."""

    @property
    def handling(self) -> Handling | None:
        """What it is handling now."""


class Awaited(Protocol):
    """A reply that is to come."""

    @property
    def target(self) -> Answers | None:
        """Who was asked for it."""

    def done(self) -> bool:
        """Whether it is there."""


current_handling: ContextVar[Handling | None] = ContextVar("uno_actors.handling", default=None)

_lock = threading.Lock()


def time_left(seconds: float) -> float:
    """``seconds``, or what is left of the ask being handled if that is less."""
    handling = current_handling.get()
    if handling is None or handling.over or handling.deadline is None:
        return seconds
    return max(0.0, min(seconds, handling.deadline - time.monotonic()))


@contextmanager
def waiting_for(reply: Awaited) -> Iterator[None]:
    """Note, inside the block, that the message being handled stands still until ``reply`` is there.

    Raises:
        DeadlockError: It can never come, for whoever must give it waits for this message.
    """
    handling = current_handling.get()
    if handling is None or handling.over or not _runs(handling.task):
        yield
        return
    with _lock:
        cycle = _cycle(handling, reply)
        if cycle is not None:
            raise DeadlockError(cycle)
        handling.waits.append(reply)
    try:
        yield
    finally:
        with _lock:
            handling.waits.remove(reply)


def _runs(task: "asyncio.Task[None] | None") -> bool:
    """Whether the caller is ``task`` itself, or a worker thread."""
    return asyncio._get_running_loop() is None or (task is not None and asyncio.current_task() is task)


def _cycle(start: Handling, reply: Awaited) -> list[str] | None:
    """The names of those who would wait for each other, or ``None``."""
    path = [start.actor]
    seen: set[int] = set()
    found = _follow(start, reply, path, seen)
    return path if found else None


def _follow(start: Handling, reply: Awaited, path: list[str], seen: set[int]) -> bool:
    target = reply.target
    busy = None if target is None or reply.done() else target.handling
    if busy is None or id(busy) in seen:
        return False
    seen.add(id(busy))
    path.append(busy.actor)
    if busy is start or any(_follow(start, other, path, seen) for other in busy.waits):
        return True
    path.pop()
    return False
