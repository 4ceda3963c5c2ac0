"""Questions to a system that may not be answered: by a store that hangs, or a loop that does not turn."""

import asyncio
import threading
from collections.abc import Callable, Coroutine
from time import monotonic
from typing import Any, Generic, TypeVar

from uno_actors.actors.dispatcher import Dispatcher
from uno_actors.actors.loop_thread import on_other_loop
from uno_actors.tasks import begin

T = TypeVar("T")


class Unanswered(Exception):
    """A question has no answer yet.

    Attributes:
        seconds: Since it was asked.
    """

    def __init__(self, seconds: float) -> None:
        self.seconds = seconds
        super().__init__(f"no answer for {seconds:.3g} s")


class Question(Generic[T]):
    """A question that is asked again and again, and only once at a time: what hangs does not pile up.

    Args:
        ask: Makes the coroutine that asks; it raises nothing.
        name: Of its tasks.
    """

    def __init__(self, ask: Callable[[], Coroutine[Any, Any, T]], name: str) -> None:
        self._ask = ask
        self._name = name
        self._task: asyncio.Task[T] | None = None
        self._begun = 0.0

    async def answer(self, within: float) -> T:
        """The answer to the question, or to the same one that was asked before and is still open.

        Raises:
            Unanswered: It took longer than ``within`` seconds, or was cancelled.
        """
        loop = asyncio.get_running_loop()
        task = self._task
        if task is None or task.done() or task.get_loop() is not loop:
            task = self._task = begin(loop, self._ask(), name=self._name)
            self._begun = monotonic()
        await asyncio.wait({task}, timeout=within)
        if not task.done() or task.cancelled():
            raise Unanswered(monotonic() - self._begun)
        return task.result()


async def on_loop_of(dispatcher: Dispatcher, coroutine: Coroutine[Any, Any, T]) -> T:
    """Await a coroutine on a dispatcher's loop, which may be this one."""
    if dispatcher.is_current():
        return await coroutine
    return await on_other_loop(dispatcher.loop, coroutine)


def from_thread(
    dispatcher: Dispatcher, make: Callable[[], Coroutine[Any, Any, T]], within: float
) -> T | None:
    """The result of a coroutine that runs on a dispatcher's loop, for another thread; it raises nothing.

    ``None`` if it takes longer than ``within`` seconds.
    """
    done = threading.Event()
    results: list[T] = []
    tasks: list[asyncio.Task[None]] = []  # so that it is not garbage-collected

    async def run() -> None:
        try:
            results.append(await make())
        finally:
            done.set()

    if dispatcher.post(lambda: tasks.append(begin(dispatcher.loop, run()))):
        done.wait(within)
    return results[0] if results else None
