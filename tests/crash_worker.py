"""A service to be killed: sends commands, and says on standard output what was acknowledged and handled.

Usage: crash_worker.py STORE_DIRECTORY ROUND [finish]

Lines: ``started``, ``ack TOKEN REPLY``, ``handled NAME POSITION``, ``settled``. With ``finish`` it sends nothing,
waits until all handlers have done with everything, and ends.
"""

import asyncio
import os
import sys

from uno_actors import (
    ActorSystem,
    AggregateRoot,
    Backoff,
    Command,
    ConcurrencyConflict,
    DomainEvent,
    EventPriority,
    HandlerContext,
    Supervisor,
    handles,
    subscribe,
)

ACCOUNTS = 7
CLIENTS = 20


class Deposit(Command[int]):
    token: str
    parts: int = 1


class PartDeposited(DomainEvent):
    token: str
    part: int
    parts: int
    topic: str | None = "accounts.deposited"


class Account(AggregateRoot):
    def __init__(self, id: str) -> None:
        super().__init__(id=id)
        self.deposits = 0

    @handles
    def deposit(self, command: Deposit) -> int:
        for part in range(command.parts):
            self.register_event(PartDeposited(token=command.token, part=part, parts=command.parts))
        return self.deposits

    def apply_part_deposited(self, event: PartDeposited) -> None:
        self.deposits += 1


def say(line: str) -> None:
    os.write(1, f"{line}\n".encode())  # in the pipe at once: what was said outlives the process


@subscribe(topic_pattern="accounts.*", priority=EventPriority.HIGH, name="async", start="earliest")
async def handled_on_loop(event: PartDeposited, context: HandlerContext) -> None:
    say(f"handled async {context.position}")


@subscribe(event_type=PartDeposited, name="sync", start="earliest")
def handled_on_worker(event: PartDeposited, context: HandlerContext) -> None:
    say(f"handled sync {context.position}")


@subscribe(topic_pattern=">", priority=EventPriority.LOW, name="flaky", start="earliest", max_attempts=2)
def handled_at_second_attempt(event: PartDeposited, context: HandlerContext) -> None:
    if context.position % 50 == 0 and context.attempt == 1:
        raise ConnectionError("not now")
    say(f"handled flaky {context.position}")


HANDLERS = (handled_on_loop, handled_on_worker)
FLAKY = Supervisor(
    "flaky", children=[handled_at_second_attempt], max_restarts=None, backoff=Backoff(initial=0.001, max=0.01)
)


async def main(directory: str, number: str, *, finish: bool) -> None:
    system = ActorSystem(f"lmdb:{directory}", aggregates=[Account], handlers=HANDLERS, supervisors=[FLAKY])
    async with system:
        say("started")
        if finish:
            await system.settled(timeout=60)
            say("settled")
            return

        async def client(name: int) -> None:
            for count in range(1_000_000):
                token = f"{number}-{name}-{count}"
                account = system.aggregate(Account, f"account-{(name + count) % ACCOUNTS}")
                try:
                    reply = await account.ask(Deposit(command_id=token, token=token, parts=1 + count % 3))
                except ConcurrencyConflict:  # other processes were faster four times
                    continue
                say(f"ack {token} {reply}")

        await asyncio.gather(*(client(name) for name in range(CLIENTS)))


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1], sys.argv[2], finish="finish" in sys.argv))
