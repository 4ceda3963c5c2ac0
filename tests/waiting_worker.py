"""A process that runs a handler for tests that wait for it from another one.

Usage: waiting_worker.py URL; lines: ``running``, ``began``, ``handled``. It handles an event when a line comes to its
input, and runs until it is killed.
"""

import asyncio
import sys

from uno_actors import ActorSystem, DomainEvent
from uno_actors.handlers.spec import HandlerSpec


class Awaited(DomainEvent):
    number: int


async def handle(event: Awaited) -> None:
    print("began", flush=True)
    await asyncio.to_thread(sys.stdin.readline)
    if event.number == 13:
        raise ValueError("poison")
    print("handled", flush=True)


SPEC = HandlerSpec("there", handle, event_type=Awaited, start="earliest", max_attempts=1)


async def main(url: str) -> None:
    async with ActorSystem(url, aggregates=[], handlers=[SPEC], name="worker"):
        print("running", flush=True)
        await asyncio.Event().wait()


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1]))
