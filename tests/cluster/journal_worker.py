"""A node of a cluster to be killed: its clients keep journals on the disk, and its next process continues from them.

Usage: journal_worker.py URL NAME LISTEN DIRECTORY

Lines of its journal: ``meant ID ACCOUNT SINCE`` before a command is sent, ``acked ID VERSION TIME`` after its reply,
``error ID TEXT``, and ``started TIME``. A client continues when its line is on the disk. A new process first sends
again what was meant and not acknowledged, and prints ``ready``. SIGTERM ends its clients.
"""

import asyncio
import os
import signal
import sys
import threading
import time
from pathlib import Path
from queue import SimpleQueue

from tests.bank import EVENTS, Account, Credit
from uno_actors import ActorSystem, Cluster, open_store

ACCOUNTS = 40
CLIENTS = 8
TTL = 1.5
"""Seconds after which a node that hangs is no longer a member."""


class Journal:
    """Lines on the disk, synced in groups by a thread."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._file = os.open(path, os.O_CREAT | os.O_APPEND | os.O_WRONLY)
        self._waiting: SimpleQueue[tuple[str, asyncio.Future[None]]] = SimpleQueue()
        self._loop = asyncio.get_running_loop()
        threading.Thread(target=self._write, daemon=True).start()

    def put(self, line: str) -> asyncio.Future[None]:
        """Write a line; the future ends when it is on the disk."""
        written = self._loop.create_future()
        self._waiting.put((line, written))
        return written

    def _write(self) -> None:
        while True:
            group = [self._waiting.get()]
            while not self._waiting.empty():
                group.append(self._waiting.get())
            os.write(self._file, "".join(f"{line}\n" for line, _ in group).encode())
            os.fdatasync(self._file)
            self._loop.call_soon_threadsafe(self._end, [written for _, written in group])

    @staticmethod
    def _end(group: list[asyncio.Future[None]]) -> None:
        for written in group:
            if not written.done():
                written.set_result(None)


def lines(path: Path) -> list[list[str]]:
    """The lines of a journal, as words; without one that its process was killed in."""
    text = path.read_text() if path.exists() else ""
    return [line.split(" ") for line in text.splitlines(keepends=False)[: text.count("\n")]]


async def main(url: str, name: str, listen: str, directory: str) -> None:
    over = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, over.set)
    path = Path(directory) / name
    known = lines(path)
    acked = {words[1] for words in known if words[0] == "acked"}
    open_ones = [words for words in known if words[0] == "meant" and words[1] not in acked]
    journal = Journal(path)
    life = f"{time.time():.6f}"
    async with (
        open_store(url, EVENTS) as store,
        ActorSystem(
            store,
            aggregates=[Account],
            handlers=[],
            name=name,
            cluster=Cluster(listen=listen or None, ttl=TTL),
        ) as system,
    ):
        since = 0

        async def send(command_id: str, account: str, position: int | None) -> None:
            command = Credit(amount=1, command_id=command_id)
            try:
                version = await system.aggregate(Account, account).ask(command, since=position)
            except Exception as error:  # noqa: BLE001 - the test reads it
                await journal.put(f"error {command_id} {error!r}".replace("\n", " "))
            else:
                await journal.put(f"acked {command_id} {version} {time.time():.6f}")

        async def look() -> None:
            nonlocal since
            while True:
                since = await store.last_position()
                await asyncio.sleep(0.2)

        async def client(number: int) -> None:
            sent = 0
            while not over.is_set():
                sent += 1
                command_id = f"{name}-{life}-{number}-{sent}"
                account = f"account-{(number * 7 + sent) % ACCOUNTS}"
                await journal.put(f"meant {command_id} {account} {since}")
                await send(command_id, account, None)

        since = await store.last_position()
        await journal.put(f"started {time.time():.6f}")
        await asyncio.gather(*[send(words[1], words[2], int(words[3])) for words in open_ones])
        looking = asyncio.create_task(look())
        print("ready", flush=True)
        await asyncio.gather(*[client(number) for number in range(CLIENTS)])
        looking.cancel()


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))
