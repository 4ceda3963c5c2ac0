"""Restarts under way: stop the children one by one, wait for the back-off, then start them one by one.

Each restart is a task beside the supervisor's mailbox; a later one for the same children replaces it.
"""

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any, Protocol

from uno_actors.clock import Clock
from uno_actors.supervision.child import ChildHandle, ChildSignal, ChildStarted, StartFailed
from uno_actors.supervision.policy import RestartGroup


class Restarting(Protocol):
    """What restarts need from the supervisor."""

    children: dict[str, ChildHandle]

    def expect_restart(self, name: str) -> None:
        """Ignore signals from before the next start of a child."""

    def is_restarting(self, name: str) -> bool:
        """Whether a child is still to be started; it may have been stopped on request in the meantime."""

    async def terminate(self, child: ChildHandle) -> None:
        """Stop a child that is not restarted."""

    def send(self, signal: ChildSignal) -> None:
        """Put a signal into the supervisor's mailbox."""


class Restarts:
    """The restarts that are under way under one supervisor.

    Args:
        supervisor: Whose children are restarted.
        clock: For the back-off.
        start_task: Runs a coroutine as a task.

    Attributes:
        due: When the back-off of each child that waits for its restart ends, on the clock, by the child's name.
    """

    def __init__(
        self,
        supervisor: Restarting,
        clock: Clock,
        start_task: Callable[[Coroutine[Any, Any, Any]], "asyncio.Task[Any]"],
    ) -> None:
        self._supervisor = supervisor
        self._clock = clock
        self._start_task = start_task
        self._tasks: dict[str, asyncio.Task[Any]] = {}  # by the child that failed
        self.due: dict[str, float] = {}

    def begin(self, decision: RestartGroup, name: str, *, alone: bool) -> None:
        """Restart the group of the child ``name``; ``alone`` leaves restarts of other children under way."""
        self.cancel(*((name,) if alone else self._tasks))
        for child in decision.start:
            self._supervisor.expect_restart(child)
        self._tasks[name] = task = self._start_task(self._restart(decision))

        def over(task: asyncio.Task[Any]) -> None:
            if self._tasks.get(name) is not task:
                return  # it was cancelled here, or another restart has replaced it
            del self._tasks[name]
            # If the program has cancelled it (say, all tasks), the restart still has to be done.
            if task.cancelled():
                self.begin(decision, name, alone=alone)

        task.add_done_callback(over)

    def cancel(self, *names: str) -> None:
        """Cancel the restarts that the failures of these children caused."""
        for name in names:
            if (task := self._tasks.pop(name, None)) is not None:
                task.cancel()

    def cancel_all(self) -> None:
        """Cancel all restarts."""
        self.cancel(*self._tasks)

    async def _restart(self, decision: RestartGroup) -> None:
        supervisor = self._supervisor
        for name in decision.stop:
            if (child := supervisor.children.get(name)) is None:
                continue
            if name in decision.start:
                await child.halt()
            else:
                await supervisor.terminate(child)  # a temporary sibling is forgotten
        due = self._clock.monotonic() + decision.delay
        self.due.update(dict.fromkeys(decision.start, due))
        try:
            await self._wait(decision.delay)
        finally:
            for name in decision.start:
                if self.due.get(name) == due:  # otherwise another restart has replaced this one
                    del self.due[name]
        for name in decision.start:
            if not supervisor.is_restarting(name):
                continue
            child = supervisor.children[name]
            try:
                await child.start()
            except Exception as error:  # noqa: BLE001 - whatever its start raises
                if supervisor.is_restarting(name):
                    supervisor.send(StartFailed(child, child.incarnation, error))
                    return
            else:
                supervisor.send(ChildStarted(child, child.incarnation))

    async def _wait(self, delay: float) -> None:
        over = asyncio.Event()
        timer = self._clock.call_later(delay, over.set)
        try:
            await over.wait()
        finally:
            timer.cancel()
