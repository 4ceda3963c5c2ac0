"""A process in which commands wait, for `tests.why_situations`.

Usage: why_worker.py URL WHAT

WHAT is ``held`` for a command that holds the event loop, ``blocked`` for other code that does so, or ``stopped`` for a
process that is stopped. It prints ``ready`` when that is so, and works until it is killed.
"""

import asyncio
import os
import signal
import sys
import threading
import time

from tests.bank import EVENTS, Account, Balance, Credit, Credited
from tests.waiting import checkpoint_is, until
from uno_actors import ActorSystem, handles
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
    system = ActorSystem(url, aggregates=[Patient], handlers=handlers, name="bank", event_registry=EVENTS)
    async with system:
        alice = system.aggregate(Patient, "alice")
        await alice.ask(Credit(amount=1, command_id="first"))
        await system.settled()
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
