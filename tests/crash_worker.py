"""A service to be killed: sends commands, and says on standard output what was acknowledged and handled.

Usage: crash_worker.py DIRECTORY_OR_URL_OF_STORE ROUND [finish]

It sends so many commands and then waits for its end: the work of a test is bounded however late the kill comes.

Lines: ``started``, ``ack TOKEN REPLY``, ``handled NAME POSITION``, ``together NAME COUNT POSITION`` (of so many
events, of which the last is at the position), ``settled``. With ``finish`` it sends nothing,
waits until all handlers have done with everything, and ends.
"""

import asyncio
import itertools
import os
import random
import sys
from multiprocessing import get_context
from multiprocessing.connection import Connection
from types import TracebackType
from typing import Self

from uno_actors import (
    ActorSystem,
    AggregateRoot,
    Backoff,
    Command,
    ConcurrencyConflict,
    DomainEvent,
    EventPriority,
    HandlerContext,
    ProcessManager,
    Projection,
    Supervisor,
    handles,
    reacts,
    subscribe,
)

ACCOUNTS = 7
CLIENTS = 20
COMMANDS = 800
"""Commands of all clients together: more than are acknowledged before any kill that a test waits for."""


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


class Thank(Command[None]):
    pass


class Thanked(DomainEvent):
    topic: str | None = "thanks"


class Thanks(AggregateRoot):
    """The aggregate to which the process manager sends commands: one for each tenth token."""

    @handles
    def thank(self, command: Thank) -> None:
        self.register_event(Thanked())

    def apply_thanked(self, event: Thanked) -> None: ...


class ThankProcess(ProcessManager):
    sends_to = (Thanks,)

    @classmethod
    def process_id(cls, event: DomainEvent) -> str | None:
        assert isinstance(event, PartDeposited)
        return event.token if event.part == 0 and event.token.endswith("0") else None

    @reacts
    def begin(self, event: PartDeposited) -> None:
        self.send(Thanks, event.token, Thank())


def say(line: str) -> None:
    os.write(1, f"{line}\n".encode())  # in the pipe at once: what was said outlives the process


@subscribe(topic_pattern="accounts.*", priority=EventPriority.HIGH, name="async", start="earliest")
async def handled_on_loop(event: PartDeposited, context: HandlerContext) -> None:
    say(f"handled async {context.position}")


@subscribe(event_type=PartDeposited, name="sync", start="earliest")
def handled_on_worker(event: PartDeposited, context: HandlerContext) -> None:
    say(f"handled sync {context.position}")


@subscribe(PartDeposited, ">", priority=EventPriority.LOW, name="flaky", start="earliest", max_attempts=2)
def handled_at_second_attempt(event: PartDeposited, context: HandlerContext) -> None:
    if context.position % 50 == 0 and context.attempt == 1:
        raise ConnectionError("not now")
    say(f"handled flaky {context.position}")


@subscribe(event_type=PartDeposited, name="batch", start="earliest", batch=16)
async def handled_together(events: list[PartDeposited], context: HandlerContext) -> None:
    await asyncio.sleep(0.001)
    say(f"together batch {len(events)} {context.position}")


@subscribe(event_type=PartDeposited, name="abreast", start="earliest", concurrency=4)
async def handled_abreast(event: PartDeposited, context: HandlerContext) -> None:
    await asyncio.sleep(random.random() / 1000)
    say(f"handled abreast {context.position}")


@subscribe(event_type=PartDeposited, name="counts", batch=16)
class Counts(Projection[PartDeposited]):
    """Counts how often it has seen each position and each account."""

    async def handle(self, event: PartDeposited, context: HandlerContext) -> None:
        for key in (("position", context.position), ("account", event.aggregate_id or "")):
            self.view.put(key, await self.view.get(key, 0) + 1)


HANDLERS = (
    handled_on_loop,
    handled_on_worker,
    handled_together,
    handled_abreast,
    Counts,
    ThankProcess.handler("thanks", start="earliest"),
)
FLAKY = Supervisor(
    "flaky", children=[handled_at_second_attempt], max_restarts=None, backoff=Backoff(initial=0.001, max=0.01)
)


def store_url(place: object) -> str:
    """``place`` as a URL; a directory means an LMDB store."""
    return f"{place}" if "://" in f"{place}" else f"lmdb:{place}"


async def main(place: str, number: str, *, finish: bool, commands: int = COMMANDS) -> None:
    system = ActorSystem(
        store_url(place),
        aggregates=[Account, Thanks, ThankProcess],
        handlers=HANDLERS,
        supervisors=[FLAKY],
    )
    async with system:
        say("started")
        if finish:
            await system.settled(timeout=600)
            say("settled")
            return

        async def client(name: int) -> None:
            acknowledged = 0
            for count in itertools.count():
                if acknowledged == commands // CLIENTS:
                    return
                token = f"{number}-{name}-{count}"
                account = system.aggregate(Account, f"account-{(name + count) % ACCOUNTS}")
                try:
                    reply = await account.ask(Deposit(command_id=token, token=token, parts=1 + count % 3))
                except ConcurrencyConflict:  # other processes were faster until the time was over
                    continue
                acknowledged += 1
                say(f"ack {token} {reply}")

        await asyncio.gather(*(client(name) for name in range(CLIENTS)))
        await asyncio.Event().wait()


def write_to(pipe: Connection, place: str, number: str, *, finish: bool, commands: int) -> None:
    """Run as the program does, in a forked process; its output goes to ``pipe``."""
    os.dup2(pipe.fileno(), 1)
    pipe.close()
    asyncio.run(main(place, number, finish=finish, commands=commands))


class Forked:
    """One run of the worker, with as much of ``Popen`` as the tests use.

    It is forked from a process that has imported this module already, so that it is at work at once.
    """

    def __init__(self, place: object, number: str, *, finish: bool = False, commands: int = COMMANDS) -> None:
        context = get_context("forkserver")
        context.set_forkserver_preload([write_to.__module__])
        reader, writer = context.Pipe(duplex=False)
        self._process = context.Process(
            target=write_to,
            args=(writer, str(place), number),
            kwargs={"finish": finish, "commands": commands},
            daemon=True,
        )
        self._process.start()
        writer.close()
        self.stdout = os.fdopen(os.dup(reader.fileno()))
        reader.close()

    @property
    def returncode(self) -> int | None:
        return self._process.exitcode

    def kill(self) -> None:
        self._process.kill()

    def wait(self) -> int | None:
        self._process.join()
        return self.returncode

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if error is not None:
            self.kill()
        self.stdout.close()
        self.wait()


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1], sys.argv[2], finish="finish" in sys.argv))
