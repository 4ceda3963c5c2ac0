"""A process that runs handlers and says what they handle, for tests with several processes on one store.

Usage: balance_worker.py URL COUNT handlers|partitions; lines: ``running``, ``HANDLER POSITION``. It ends when its input
is closed.
"""

import asyncio
import sys

from uno_actors import ActorSystem, DomainEvent, HandlerContext
from uno_actors.handlers.spec import HandlerSpec


class Balanced(DomainEvent):
    number: int


async def say(event: Balanced, context: HandlerContext) -> None:
    print(context.handler, context.position, flush=True)


async def main(url: str, count: int, kind: str) -> None:
    specs = [HandlerSpec("h", say, start="earliest", partitioned=count)]
    if kind == "handlers":
        specs = [HandlerSpec(f"h{number}", say, start="earliest") for number in range(count)]
    async with ActorSystem(url, aggregates=[], handlers=specs, name="worker"):
        print("running", flush=True)
        await asyncio.to_thread(sys.stdin.read)


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1], int(sys.argv[2]), sys.argv[3]))
