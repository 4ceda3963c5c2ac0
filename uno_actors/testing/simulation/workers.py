"""Worker threads of a simulated process: its plain functions run one at a time, at moments that the seed picks."""

import asyncio
import sys
from asyncio import events
from collections.abc import Callable
from contextlib import AbstractContextManager

from uno_actors.actors.worker_pool import WorkerStatistics
from uno_actors.actors.worker_pool import _worker as worker
from uno_actors.testing.simulation.core import Call, Place
from uno_actors.testing.simulation.escapes import BLOCKS

LONGEST_WAIT = 0.02
"""Maximum seconds until a worker takes a function."""


class SimulatedWorkers:
    """Stands in for a `WorkerPool`. A function runs whole, as a step between those of the loop.

    Args:
        place: The process, whose steps they are.
        loop: Its loop.
    """

    def __init__(self, place: Place, loop: asyncio.AbstractEventLoop) -> None:
        self._place = place
        self._loop = loop
        self._chance = place.core.source(f"workers of {place.name}")
        self._waiting = 0
        self.busy: dict[int, float] = {}

    def submit(self, function: Callable[[], object]) -> None:
        """Run ``function()`` as a worker thread would, at some moment soon."""
        core, chance = self._place.core, self._chance
        wait = 0.0 if chance.random() < 0.5 else chance.random() ** 3 * LONGEST_WAIT
        self._waiting += 1
        core.at(core.now + wait, self._place, Call(self._run, function), "worker")

    def _run(self, function: Callable[[], object]) -> None:
        self._waiting -= 1
        events._set_running_loop(None)
        before, worker.pool = getattr(worker, "pool", None), self
        try:
            function()
        except BaseException as error:  # noqa: BLE001 - one function must not end the run
            failed = {"message": "a function on a worker failed", "exception": error}
            self._loop.call_exception_handler(failed)
        finally:
            worker.pool = before
            events._set_running_loop(self._loop)

    def statistics(self) -> WorkerStatistics:
        """The current state, as of a pool of one thread."""
        return WorkerStatistics(1, int(not self._waiting), int(self._waiting > 0), 0, self._waiting)

    def blocked(self) -> AbstractContextManager[None]:
        """Where a function waits for another thread: it cannot, as there is only one.

        Raises:
            EscapesSimulation: Always.
        """
        raise self._place.core.guard.escapes(BLOCKS, sys._getframe(1))

    def relieve(self, held: int) -> None:
        """No function is held in a simulation."""

    def close(self) -> None:
        """Nothing to end."""
