"""Fills a read model, and kills itself at one of its writes.

Usage: killed_worker.py DIRECTORY NUMBER: before the statement or commit of this number, counted from 1; 0 for never.
"""

import asyncio
import os
import signal
import sys
from itertools import count
from typing import Any

from sqlalchemy import event
from sqlalchemy.ext.asyncio import async_sessionmaker, create_async_engine

from tests.read_models.orders import OrderPlacedHere, Orders
from uno_actors import ActorSystem
from uno_actors.handlers.spec import HandlerSpec


async def main(directory: str, kill_at: int) -> None:
    numbers = count(1)

    def step(*_: Any) -> None:
        if next(numbers) == kill_at:
            os.kill(os.getpid(), signal.SIGKILL)

    engine = create_async_engine(f"sqlite+aiosqlite:///{directory}/store.db")
    for what in ("before_cursor_execute", "commit"):
        event.listen(engine.sync_engine, what, step)
    orders = Orders(async_sessionmaker(engine))
    spec = HandlerSpec("Orders", orders, OrderPlacedHere, max_attempts=2, batch=3)
    async with ActorSystem(f"lmdb:{directory}/log", aggregates=[], handlers=[spec]) as system:
        await system.settled()
    await engine.dispose()


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1], int(sys.argv[2])))
