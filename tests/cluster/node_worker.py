"""A node of a cluster to be killed or stopped: its clients credit accounts, and it says what was acknowledged.

Usage: node_worker.py URL NAME LISTEN OPTIONS, the last as JSON, for `Cluster`; with ``sticky`` its clients keep to
accounts of their own, except for one command in fifty.

It waits for a line on standard input with the number of nodes, begins when it sees so many, and stops its clients at
the next line, or at SIGTERM, as a service does. Lines: ``ready``, ``begun``, ``ack ID ACCOUNT BALANCE``,
``error TEXT``, ``statistics JSON``.
"""

import asyncio
import json
import os
import signal
import sys
from dataclasses import asdict

from tests.bank import EVENTS, Account, Credit
from tests.machine import patience
from uno_actors import ActorSystem, Cluster

ACCOUNTS = 40
CLIENTS = 8


def say(*words: object) -> None:
    os.write(1, (" ".join(map(str, words)) + "\n").encode())


async def main(url: str, name: str, listen: str, options: str) -> None:
    over = asyncio.Event()
    loop = asyncio.get_running_loop()
    loop.add_signal_handler(signal.SIGTERM, over.set)
    lines = asyncio.StreamReader()
    await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(lines), sys.stdin)
    chosen = json.loads(options)
    is_sticky = chosen.pop("sticky", False)
    cluster = Cluster(listen=listen or None, ttl=1.5, **chosen)
    async with ActorSystem(
        url, aggregates=[Account], handlers=[], name=name, cluster=cluster, event_registry=EVENTS,
        ask_timeout=patience(60),  # longer than a test that stops a process holds up all writes
    ) as system:  # fmt: skip
        say("ready")
        count = int(await lines.readline())
        while len(system.cluster.members()) != count:  # noqa: ASYNC110 - it has many causes
            await asyncio.sleep(0.01)
        say("begun")

        async def client(number: int) -> None:
            sent = 0
            while not over.is_set():
                sent += 1
                command = Credit(amount=1, command_id=f"{name}-{number}-{sent}")
                account = f"account-{(number * 7 + sent) % ACCOUNTS}"
                if is_sticky:
                    account += f"-{'abc'[sent % 3] if sent % 50 == number else name}"
                try:
                    balance = await system.aggregate(Account, account).ask(command)
                except Exception as error:  # noqa: BLE001 - the test reads it
                    say("error", repr(error).replace("\n", " "))
                else:
                    say("ack", command.command_id, account, balance)

        clients = asyncio.gather(*[client(number) for number in range(CLIENTS)])
        reading = asyncio.ensure_future(lines.readline())
        ending = asyncio.ensure_future(over.wait())
        await asyncio.wait({reading, ending}, return_when=asyncio.FIRST_COMPLETED)
        over.set()
        await clients
        say("statistics", json.dumps(asdict(system.cluster.statistics())))


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))
