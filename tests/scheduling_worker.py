"""A service that schedules three commands and sends them, and that ends itself at one of its writes."""

import asyncio
import os
import signal
from collections.abc import Awaitable, Callable
from multiprocessing import get_context
from typing import Any

from tests.scheduling import CancelLater, CancelNow, Deadline
from uno_actors import ActorSystem
from uno_stores import LmdbEventStore


class Mortal(LmdbEventStore):
    """Ends the process at its ``last`` write, before or after it; 0 for never."""

    def __init__(self, path: str, last: int, *, after: bool) -> None:
        super().__init__(path)
        self._writes = 0
        self._last = last
        self._after = after

    async def commit(self, *args: Any) -> Any:
        return await self._write(super().commit, *args)

    async def save_progress(self, *args: Any, **options: Any) -> Any:
        return await self._write(super().save_progress, *args, **options)

    async def _write(self, write: Callable[..., Awaitable[Any]], *args: Any, **options: Any) -> Any:
        self._writes += 1
        is_last = self._writes == self._last
        if is_last and not self._after:
            os.kill(os.getpid(), signal.SIGKILL)
        result = await write(*args, **options)
        if is_last:
            os.kill(os.getpid(), signal.SIGKILL)
        return result


async def main(path: str, last: int, *, after: bool) -> None:
    async with (
        Mortal(path, last, after=after) as store,
        ActorSystem(store, aggregates=[Deadline], handlers=[]) as system,
    ):
        for name in ("a", "b"):
            order = system.aggregate(Deadline, name)
            await order.ask(CancelLater(command_id=f"place {name}", minutes=0, note=name), since=0)
        at_once: Any = {"to": (Deadline, "c"), "every": "0 0 1 1 *", "key": "yearly"}
        await system.schedule(CancelNow(note="c"), **at_once)
        await system.settled()


def run(path: str, last: int, after: bool) -> None:
    asyncio.run(main(path, last, after=after))


def run_in_process(path: str, last: int = 0, *, after: bool = False) -> int | None:
    """Run the service; return the exit code of its process."""
    context = get_context("forkserver")
    context.set_forkserver_preload([run.__module__])
    process = context.Process(target=run, args=(path, last, after), daemon=True)
    process.start()
    process.join(60)
    return process.exitcode
