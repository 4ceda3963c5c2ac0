"""Runs the handlers of one event concurrently."""

import asyncio
import contextvars
from collections.abc import Coroutine
from typing import Any

from uno_actors.actors.carrier import Waiting
from uno_actors.actors.dispatcher import Dispatcher


class ConcurrentRuns:
    """Coroutines that run concurrently, each in its own task and context.

    A coroutine that finishes without waiting needs no new task: see `Dispatcher.run_turn`.
    """

    __slots__ = ("_all_done", "_dispatcher", "_waiting")

    def __init__(self, dispatcher: Dispatcher) -> None:
        self._dispatcher = dispatcher
        self._waiting: set[asyncio.Task[None]] = set()
        self._all_done: asyncio.Future[None] | None = None

    def start(self, coroutine: Coroutine[Any, Any, None]) -> None:
        """Run ``coroutine`` immediately, up to the first point where it waits."""
        task: asyncio.Task[None]

        def turn(carrier: asyncio.Task[None]) -> Waiting | None:
            nonlocal task
            task = carrier
            try:
                yielded = coroutine.send(None)
            except StopIteration:
                return None
            self._waiting.add(task)
            return coroutine, yielded

        def done() -> None:
            self._waiting.discard(task)
            if not self._waiting and self._all_done is not None and not self._all_done.done():
                self._all_done.set_result(None)

        self._dispatcher.run_turn(turn, done, contextvars.copy_context())

    async def end(self) -> None:
        """Wait for all coroutines. If the caller is cancelled, cancel them and wait until they have ended."""
        cancelled: asyncio.CancelledError | None = None
        while self._waiting:
            self._all_done = self._dispatcher.loop.create_future()
            try:
                await self._all_done
            except asyncio.CancelledError as error:
                cancelled = error
                for task in self._waiting:
                    task.cancel()
        if cancelled is not None:
            raise cancelled
