"""A process in which commands wait, for `tests.why_situations`.

Usage: why_worker.py URL WHAT

WHAT is ``held`` for a command that holds the event loop, ``blocked`` for other code that does so, ``stopped`` for a
process that is stopped, or ``node`` for a node of a cluster, which is stopped when it sees another one. It prints
``ready`` when that is so, and works until it is killed.
"""

import asyncio
import os
import signal
import sys
import threading
import time

from tests.bank import EVENTS, Account, Balance, Credit, Credited
from tests.waiting import checkpoint_is, until
from uno_actors import ActorSystem, Cluster, handles
from uno_actors.handlers.spec import HandlerSpec

LONG = 600.0


class Patient(Account):
    """An account whose balance is long in coming."""

    aggregate_type = "Account"

    @handles
    def tell_balance(self, command: Balance) -> int:
        time.sleep(LONG if command.command_id == "heavy" else 0)
        return self.balance


async def mail(event: Credited) -> None:
    """Does nothing."""


async def main(url: str, what: str) -> None:
    handlers = [HandlerSpec("mail", mail, Credited, start="earliest")]
    cluster = Cluster(name="second", ttl=60) if what == "node" else None
    async with ActorSystem(
        url, aggregates=[Patient], handlers=handlers, name="bank", cluster=cluster, event_registry=EVENTS
    ) as system:
        alice = system.aggregate(Patient, "alice")
        await alice.ask(Credit(amount=1, command_id="first"))
        await system.settled()
        if what == "node":
            await until(lambda: checkpoint_is(system.store, "mail", 1))
            print("ready", flush=True)
            await until(lambda: len(system.cluster.members()) == 2)
            await asyncio.sleep(1.0)  # its link answers, and its handler is reported with its name
            os.kill(os.getpid(), signal.SIGSTOP)
        ready = threading.Timer(0.2, print, ["ready"], {"flush": True})
        ready.daemon = True
        ready.start()
        if what == "stopped":
            await until(lambda: checkpoint_is(system.store, "mail", 1))  # it is not to hold the turn to write
            print("ready", flush=True)
            os.kill(os.getpid(), signal.SIGSTOP)
        asks = [Balance(command_id="heavy")] if what == "held" else []
        replies = [alice.ask(each) for each in (*asks, Credit(amount=2), Credit(amount=3, command_id="last"))]
        if what == "blocked":
            time.sleep(LONG)  # noqa: ASYNC251 - code that holds the loop is what the test is about
        await asyncio.gather(*replies)


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))
