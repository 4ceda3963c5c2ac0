"""Durable commands on LMDB, beside a group commit by hand and beside `eventsourcing`."""

import asyncio
import queue
import statistics
import threading
import time
from functools import partial
from pathlib import Path

import lmdb
import msgpack

from tests.benchmarks.accounts import Account, Deposit, Deposited
from tests.benchmarks.measuring import Measured, directory, in_flight, in_turn, on_a_thread, rate
from tests.benchmarks.peers import PeerAccount, sqlite_peer
from uno_actors import (
    ActorSystem,
)

IN_FLIGHT = 1000
COMMANDS = 20_000


async def our_commands(aggregates: int) -> float:
    with directory() as path:
        async with ActorSystem(f"lmdb:{path / 'store'}", handlers=[]) as system:
            refs = [system.aggregate(Account, f"account-{n}") for n in range(aggregates)]
            return await in_flight(COMMANDS, IN_FLIGHT, lambda n: refs[n % aggregates].ask(Deposit(amount=1)))


class Floor:
    """Group commit by hand: one writer thread, one value and one index key per event, one wake-up per group."""

    def __init__(self, path: Path) -> None:
        self.env = lmdb.open(str(path), map_size=16 << 30, max_dbs=2)
        self.log, self.index = self.env.open_db(b"log"), self.env.open_db(b"index")
        self.waiting: queue.SimpleQueue[tuple[str, int, bytes, asyncio.Future[None]] | None] = (
            queue.SimpleQueue()
        )
        self.loop = asyncio.get_running_loop()
        self.versions: dict[str, int] = {}
        threading.Thread(target=self.write, daemon=True).start()

    def append(self, name: str, event: Deposited) -> asyncio.Future[None]:
        version = self.versions[name] = self.versions.get(name, 0) + 1
        done = self.loop.create_future()
        self.waiting.put((name, version, msgpack.packb(event.__dict__, datetime=True), done))
        return done

    def write(self) -> None:
        position = 0
        while (first := self.waiting.get()) is not None:
            group = [first]
            while not self.waiting.empty() and (other := self.waiting.get()) is not None:
                group.append(other)
            with self.env.begin(write=True) as txn:
                log, index = [], []
                for name, version, data, _ in group:
                    position += 1
                    key = position.to_bytes(8, "big")
                    log.append((key, data))
                    index.append((f"{name}\0".encode() + version.to_bytes(8, "big"), key))
                txn.cursor(self.log).putmulti(log, append=True)
                txn.cursor(self.index).putmulti(sorted(index))
            self.loop.call_soon_threadsafe(self.answer, [done for *_, done in group])

    def answer(self, group: list[asyncio.Future[None]]) -> None:
        for done in group:
            done.set_result(None)


async def floor_commands(aggregates: int) -> float:
    with directory() as path:
        floor = Floor(path)
        return await in_flight(
            COMMANDS,
            IN_FLIGHT,
            lambda n: floor.append(
                f"account-{n % aggregates}",
                Deposited(amount=1, aggregate_id=f"account-{n % aggregates}", aggregate_type="Account"),
            ),
        )


def peer_commands(count: int = 1000) -> float:
    with directory() as path:
        application = sqlite_peer(path)
        account = PeerAccount()
        application.save(account)
        started = time.perf_counter()
        for _ in range(count):
            loaded = application.repository.get(account.id)
            loaded.deposit(1)
            application.save(loaded)
        return rate(count, started)


async def durable() -> list[Measured]:
    many, floor, peer, hot = await in_turn(
        partial(our_commands, 1000),
        partial(floor_commands, 1000),
        on_a_thread(peer_commands),
        partial(our_commands, 1),
    )
    return [
        Measured(
            "durable commands/s, 1,000 aggregates, 1,000 in flight", many, "eventsourcing on SQLite", peer, 12
        ),
        Measured("  the same beside the floor", many, "floor", floor, 0.6),
        Measured("  all on one aggregate", hot, "1,000 aggregates", many, 0.7),
    ]


async def latency() -> list[Measured]:
    with directory() as path:
        async with ActorSystem(f"lmdb:{path / 'store'}", handlers=[]) as system:
            account = system.aggregate(Account, "alice")
            ours = []
            for _ in range(300):
                started = time.perf_counter()
                await account.ask(Deposit(amount=1))
                ours.append(time.perf_counter() - started)
        env = lmdb.open(str(path / "bare"), map_size=1 << 30)
        bare = []
        for number in range(300):
            started = time.perf_counter()
            with env.begin(write=True) as txn:
                txn.put(number.to_bytes(8, "big"), b"x" * 300)
            bare.append(time.perf_counter() - started)
        env.close()
    median, other = statistics.median(ours), statistics.median(bare)
    return [
        Measured(
            "one durable command at a time, per second (median)",
            1 / median,
            "bare LMDB commit",
            1 / other,
            1 / 1.5,
        )
    ]
