"""Forwards a log to NATS, and kills itself at one of its steps.

Usage: killed_forwarder.py DIRECTORY URL NUMBER: at the step of this number, counted from 1; 0 for never. The steps are
before and after each message, and before and after each write to the store.
"""

import asyncio
import os
import signal
import sys
from collections.abc import Callable
from itertools import count
from typing import Any

from faststream.nats import NatsBroker

from tests.outside.shop import OrderSent  # noqa: F401 - to read the log
from uno_actors import ActorSystem, open_store
from uno_actors.outside import Outgoing, ToNats, forward


class Killed(ToNats):
    def __init__(self, url: str, step: Callable[[], None]) -> None:
        super().__init__(NatsBroker(url))
        self._step = step

    async def send(self, outgoing: Outgoing) -> None:
        self._step()
        await super().send(outgoing)
        self._step()


async def main(directory: str, url: str, kill_at: int) -> None:
    numbers = count(1)

    def step() -> None:
        if next(numbers) == kill_at:
            os.kill(os.getpid(), signal.SIGKILL)

    store = open_store(f"lmdb:{directory}/log")
    save = store.save_progress

    async def save_progress(*args: Any, **kwargs: Any) -> None:
        step()
        await save(*args, **kwargs)
        step()

    store.save_progress = save_progress  # type: ignore[method-assign]
    handlers = [forward("orders.>", to=Killed(url, step), start="earliest")]
    async with store, ActorSystem(store, aggregates=[], handlers=handlers) as system:
        await system.settled()


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1], sys.argv[2], int(sys.argv[3])))
