"""Speed beside peers and beside a hand-written floor, measured in one run: `make bench`.

Ratios are what counts: absolute figures differ from machine to machine. The floor does the same input and
output (pydantic, msgpack, LMDB, fsync in groups) with no framework around it. Each section runs in a process of
its own; what is compared is measured in turn, several times, and the medians are shown. Run a part of it by
naming sections: `python tests/benchmarks/run.py durable replay`.
"""

import asyncio
import gc
import itertools
import logging
import multiprocessing
import queue
import resource
import statistics
import sys
import tempfile
import threading
import time
from collections import deque
from collections.abc import Awaitable, Callable, Iterator
from concurrent.futures import Future, ProcessPoolExecutor, ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import bubus
import eventsourcing.application
import eventsourcing.domain
import lmdb
import msgpack
import pykka
from rich.console import Console
from rich.table import Table

from tests.postgres import PostgresServer
from uno_actors import (
    Actor,
    ActorSystem,
    AggregateRoot,
    Command,
    DomainEvent,
    EventBus,
    EventPriority,
    handles,
    open_store,
    subscribe,
)
from uno_actors.actors.mailbox import MailboxPolicy
from uno_actors.store.codec import Record, StreamId
from uno_actors.store.port import EventStore
from uno_actors.topics import TopicPattern, TopicTrie
from uno_stores import LmdbEventStore

METADATA_FIELDS = [name for name in Record._fields if name in DomainEvent.model_fields]
IN_FLIGHT = 1000
COMMANDS = 20_000


class Deposit(Command[int]):
    amount: int


class Deposited(DomainEvent):
    amount: int
    topic: str | None = "accounts.deposited"


class Account(AggregateRoot):
    def __init__(self, id: str) -> None:
        super().__init__(id=id)
        self.balance = 0

    @handles
    def deposit(self, command: Deposit) -> int:
        self.register_event(Deposited(amount=command.amount))
        return self.balance

    def apply_deposited(self, event: Deposited) -> None:
        self.balance += event.amount


class PeerAccount(eventsourcing.domain.Aggregate):
    """The same account in the `eventsourcing` package."""

    def __init__(self) -> None:
        self.balance = 0

    @eventsourcing.domain.event("Deposited")
    def deposit(self, amount: int) -> None:
        self.balance += amount


@dataclass(frozen=True)
class Measured:
    """One comparison; rates in operations per second, so that more is better."""

    what: str
    ours: float
    other: str
    theirs: float
    wanted: float | None = None

    @property
    def ratio(self) -> float:
        return self.ours / self.theirs


@contextmanager
def directory() -> Iterator[Path]:
    with tempfile.TemporaryDirectory(
        prefix=".bench-", dir=Path.cwd()
    ) as path:  # on the disk of the project, not in memory
        yield Path(path)


def rate(count: int, started: float) -> float:
    return count / (time.perf_counter() - started)


async def in_flight(count: int, clients: int, one: Callable[[int], Awaitable[object]]) -> float:
    numbers = iter(range(count))

    async def client() -> None:
        for number in numbers:
            await one(number)

    started = time.perf_counter()
    await asyncio.gather(*(client() for _ in range(clients)))
    return rate(count, started)


async def in_turn(*works: Callable[[], Awaitable[float]], rounds: int = 3) -> list[float]:
    """The medians of several measurements, taken in turn, because disks and thread switches vary."""
    measured = [[await work() for work in works] for _ in range(rounds)]
    return [statistics.median(figures) for figures in zip(*measured, strict=True)]


def on_a_thread(work: Callable[[], float]) -> Callable[[], Awaitable[float]]:
    """``work`` for `in_turn`."""
    return partial(asyncio.to_thread, work)


# --- durable commands --------------------------------------------------------------------------------------


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
        application = _peer(path)
        account = PeerAccount()
        application.save(account)
        started = time.perf_counter()
        for _ in range(count):
            loaded = application.repository.get(account.id)
            loaded.deposit(1)
            application.save(loaded)
        return rate(count, started)


def _peer(path: Path) -> eventsourcing.application.Application:
    env = {
        "PERSISTENCE_MODULE": "eventsourcing.sqlite",
        "SQLITE_DBNAME": str(path / "db"),
        "AGGREGATE_CACHE_MAXSIZE": "1000",
    }
    return eventsourcing.application.Application(env)


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


# --- reading -----------------------------------------------------------------------------------------------


async def replayed(store: EventStore, events: int) -> float:
    """The rate at which the account "alice" is rebuilt from its events."""
    started = time.perf_counter()
    account = Account("alice")
    async for event in store.stream_events(StreamId("Account", "alice")):
        account.replay([event])
    assert account.balance == events
    return rate(events, started)


def peer_replayed(
    application: eventsourcing.application.Application, peer: PeerAccount, events: int
) -> float:
    """The same of `eventsourcing`."""
    started = time.perf_counter()
    assert application.repository.get(peer.id).balance == events
    return rate(events, started)


async def replay(events: int = 10_000) -> list[Measured]:
    with directory() as path:
        async with LmdbEventStore(path / "store") as store:
            made = [
                Deposited(amount=1, aggregate_id="alice", aggregate_type="Account") for _ in range(events)
            ]
            await store.append(*made)

            copy = path / "copy"
            await store.backup(str(copy))
            env = lmdb.open(str(copy), readonly=True, max_dbs=8)
            log = env.open_db(b"log", create=False)

            async def floor() -> float:
                started = time.perf_counter()
                with env.begin() as txn, txn.cursor(log) as cursor:
                    for _, data in cursor:
                        *header, payload = msgpack.unpackb(data[:-4], timestamp=3)  # its check sum aside
                        fields = dict(zip(METADATA_FIELDS, header, strict=False))
                        Deposited.model_validate(fields | msgpack.unpackb(payload))
                return rate(events, started)

            application = _peer(path)
            peer = PeerAccount()
            for _ in range(events):
                peer.deposit(1)
            application.save(peer)
            application.repository.cache = None

            ours, least, others = await in_turn(
                partial(replayed, store, events),
                floor,
                on_a_thread(partial(peer_replayed, application, peer, events)),
                rounds=5,
            )
            env.close()
    return [
        Measured("events/s replayed of one stream", ours, "eventsourcing on SQLite", others, 5),
        Measured("  the same beside the floor", ours, "floor", least, 0.75),
    ]


# --- on PostgreSQL -----------------------------------------------------------------------------------------

SQL_IN_FLIGHT = 100


async def sql_commands(url: str, number: int, count: int = 6_000) -> float:
    async with ActorSystem(url, handlers=[]) as system:
        refs = [system.aggregate(Account, f"account-{number}-{n}") for n in range(SQL_IN_FLIGHT)]
        return await in_flight(count, SQL_IN_FLIGHT, lambda n: refs[n % SQL_IN_FLIGHT].ask(Deposit(amount=1)))


def peer_sql(server: PostgresServer) -> eventsourcing.application.Application:
    env = {
        "PERSISTENCE_MODULE": "eventsourcing.postgres",
        "POSTGRES_HOST": str(server.directory),
        "POSTGRES_PORT": "5432",
        "POSTGRES_DBNAME": "postgres",
        "POSTGRES_USER": "postgres",
        "POSTGRES_PASSWORD": "none",
        "AGGREGATE_CACHE_MAXSIZE": "1000",
    }
    return eventsourcing.application.Application(env)


def peer_sql_commands(application: eventsourcing.application.Application, threads: int) -> float:
    """As many threads, each with the next command of one of 100 aggregates."""
    accounts = [PeerAccount() for _ in range(SQL_IN_FLIGHT)]
    application.save(*accounts)

    def command(number: int) -> None:
        account = application.repository.get(accounts[number % SQL_IN_FLIGHT].id)
        account.deposit(1)
        application.save(account)

    with ThreadPoolExecutor(threads) as pool:
        started = time.perf_counter()
        deque(pool.map(command, range(1000)), maxlen=0)
        return rate(1000, started)


async def sql(events: int = 10_000) -> list[Measured]:
    """Beside `eventsourcing` on the same server, which syncs to disk for both."""
    server = PostgresServer()
    application = peer_sql(server)
    try:
        url = await server.new_url()
        rounds = itertools.count()
        ours, alone, threads = await in_turn(
            lambda: sql_commands(url, next(rounds)),
            on_a_thread(partial(peer_sql_commands, application, 1)),
            on_a_thread(partial(peer_sql_commands, application, 4)),
        )
        peer = PeerAccount()
        for _ in range(events // 500):  # its driver hangs on many more at once
            for _ in range(500):
                peer.deposit(1)
            application.save(peer)
        application.repository.cache = None

        async with open_store(await server.new_url()) as store:
            made = [Deposited(amount=1, aggregate_id="alice", aggregate_type="Account")] * events
            await store.append(*made)
            read, others = await in_turn(
                partial(replayed, store, events),
                on_a_thread(partial(peer_replayed, application, peer, events)),
                rounds=5,
            )
    finally:
        application.close()
        server.remove()
    return [
        Measured(
            "durable commands/s on PostgreSQL, 100 in flight", ours, "eventsourcing, one at a time", alone, 5
        ),
        Measured("  the same", ours, "eventsourcing, 4 threads", threads, 5),
        Measured(
            "events/s replayed of one stream on PostgreSQL", read, "eventsourcing on PostgreSQL", others, 3
        ),
    ]


async def delivery(events: int = 20_000) -> list[Measured]:
    count = 0

    def handler(name: str, priority: EventPriority) -> Any:
        @subscribe(topic_pattern="accounts.*", priority=priority, name=name, start="earliest")
        async def handle(event: Deposited) -> None:
            nonlocal count
            count += 1

        return handle

    three = [handler(priority.name, priority) for priority in EventPriority]

    async def end_to_end() -> float:
        with directory() as path:
            async with ActorSystem(f"lmdb:{path / 'store'}", handlers=three) as system:
                refs = [system.aggregate(Account, f"account-{n}") for n in range(1000)]
                started = time.perf_counter()
                await in_flight(events, IN_FLIGHT, lambda n: refs[n % 1000].ask(Deposit(amount=1)))
                await system.settled()
                return rate(events, started)

    handled, alone = await in_turn(end_to_end, partial(our_commands, 1000))
    with directory() as path:
        async with LmdbEventStore(path / "store") as store:
            made = [Deposited(amount=1, aggregate_id=f"account-{n % 1000}") for n in range(events)]
            await store.append(*made)
            names = iter(range(1000))

            async def catch_up() -> float:
                late = handler(f"late-{next(names)}", EventPriority.NORMAL)
                async with ActorSystem(store, handlers=[late]) as system:
                    started = time.perf_counter()
                    await system.settled()
                    return rate(events, started)

            async def reading() -> float:
                started = time.perf_counter()
                async for _ in store.read_all():
                    pass
                return rate(events, started)

            caught_up, read = await in_turn(catch_up, reading)
    return [
        Measured("durable commands/s until three handlers are done", handled, "commands alone", alone, 0.7),
        Measured(
            "events/s of one handler catching up", caught_up, "reading and decoding alone", read, 75 / 180
        ),
    ]


# --- actors ------------------------------------------------------------------------------------------------


class OurActor(Actor):
    mailbox = MailboxPolicy(capacity=1_000_000)

    async def on_receive(self, message: Any) -> Any:
        return message


class OurPlainActor(Actor):
    def on_receive(self, message: Any) -> Any:
        return message


class PykkaActor(pykka.ThreadingActor):
    def on_receive(self, message: Any) -> Any:
        return message


class FloorActor:
    """What an actor costs at least: a deque, and a bare coroutine that takes messages from it in turn."""

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._mailbox: deque[tuple[Any, asyncio.Future[Any] | None]] = deque()
        self._wake = self._loop.create_future()
        self._task = self._loop.create_task(self._run())

    async def on_receive(self, message: Any) -> Any:
        return message

    def tell(self, message: Any, reply_to: asyncio.Future[Any] | None = None) -> None:
        self._mailbox.append((message, reply_to))
        if not self._wake.done():
            self._wake.set_result(None)

    def ask(self, message: Any) -> asyncio.Future[Any]:
        reply: asyncio.Future[Any] = self._loop.create_future()
        self.tell(message, reply)
        return reply

    async def stop(self) -> None:
        self._task.cancel()
        with suppress(asyncio.CancelledError):
            await self._task

    async def _run(self) -> None:
        while True:
            await self._wake
            while self._mailbox:
                message, reply_to = self._mailbox.popleft()
                answer = await self.on_receive(message)
                if reply_to is not None and not reply_to.done():
                    reply_to.set_result(answer)
            self._wake = self._loop.create_future()


async def floor_tell(count: int) -> float:
    actor = FloorActor()
    started = time.perf_counter()
    for number in range(count):
        actor.tell(number)
    await actor.ask("last")
    measured = rate(count, started)
    await actor.stop()
    return measured


async def floor_ask(count: int) -> float:
    actor = FloorActor()
    started = time.perf_counter()
    for number in range(count):
        await actor.ask(number)
    measured = rate(count, started)
    await actor.stop()
    return measured


async def floor_spawn_and_stop(count: int) -> float:
    started = time.perf_counter()
    floors = [FloorActor() for _ in range(count)]
    await asyncio.sleep(0)  # each has started
    for floor in floors:
        await floor.stop()
    return rate(count, started)


async def floor_one_to_each(crowd: int) -> float:
    floors = [FloorActor() for _ in range(crowd)]
    started = time.perf_counter()
    for reply in [floor.ask("hello") for floor in floors]:
        await reply
    measured = rate(crowd, started)
    for floor in floors:
        await floor.stop()
    return measured


def floor_asks_of_a_thread(count: int) -> float:
    """A thread that answers another through a queue: two switches of threads for each ask, and nothing else."""
    mailbox: queue.SimpleQueue[Future[int] | None] = queue.SimpleQueue()

    def run() -> None:
        while (reply := mailbox.get()) is not None:
            reply.set_result(0)

    thread = threading.Thread(target=run)
    thread.start()
    started = time.perf_counter()
    for _ in range(count):
        reply: Future[int] = Future()
        mailbox.put(reply)
        reply.result()
    measured = rate(count, started)
    mailbox.put(None)
    thread.join()
    return measured


def floor_asks_of_a_loop(count: int) -> float:
    """A coroutine that answers another thread: the way of ``asyncio.run_coroutine_threadsafe``."""
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever)
    thread.start()

    async def on_receive(message: int) -> int:
        return message

    started = time.perf_counter()
    for number in range(count):
        asyncio.run_coroutine_threadsafe(on_receive(number), loop).result()
    measured = rate(count, started)
    loop.call_soon_threadsafe(loop.stop)
    thread.join()
    loop.close()
    return measured


async def actors(count: int = 20_000) -> list[Measured]:
    async def tell() -> float:
        async with ActorSystem(handlers=[]) as system:
            ref = await system.spawn(OurActor)
            started = time.perf_counter()
            for number in range(count):
                ref.tell(number)
            await ref.ask("last")
            return rate(count, started)

    def their_tell() -> float:
        ref = PykkaActor.start()
        started = time.perf_counter()
        for number in range(count):
            ref.tell(number)
        ref.ask("last")
        return _stopped(rate(count, started))

    async def ask() -> float:
        async with ActorSystem(handlers=[]) as system:
            ref = await system.spawn(OurActor)
            started = time.perf_counter()
            for number in range(count):
                await ref.ask(number)
            return rate(count, started)

    def their_ask() -> float:
        ref = PykkaActor.start()
        started = time.perf_counter()
        for number in range(count // 4):
            ref.ask(number)
        return _stopped(rate(count // 4, started))

    def asks_from_a_thread(kind: type[Actor]) -> float:
        with ActorSystem(handlers=[]) as system:
            ref = system.spawn(kind).get()
            started = time.perf_counter()
            for number in range(count // 4):
                ref.ask(number).get()
            return rate(count // 4, started)

    some = count // 4
    tells = await in_turn(tell, on_a_thread(their_tell), partial(floor_tell, count), rounds=5)
    asks = await in_turn(ask, on_a_thread(their_ask), partial(floor_ask, count), rounds=5)
    plain = await in_turn(
        on_a_thread(partial(asks_from_a_thread, OurPlainActor)),
        on_a_thread(their_ask),
        on_a_thread(partial(floor_asks_of_a_thread, some)),
        rounds=5,
    )
    coroutine = await in_turn(
        on_a_thread(partial(asks_from_a_thread, OurActor)),
        on_a_thread(their_ask),
        on_a_thread(partial(floor_asks_of_a_loop, some)),
        rounds=5,
    )
    return [
        Measured("tell/s, one actor", tells[0], "pykka.ThreadingActor", tells[1], 5),
        Measured("tell/s, one actor", tells[0], "a deque and a bare coroutine", tells[2], 0.25),
        Measured("ask/s from async code, one client", asks[0], "pykka's blocking ask", asks[1], 3),
        Measured(
            "ask/s from async code, one client", asks[0], "an asyncio mailbox and a future", asks[2], 0.7
        ),
        Measured("ask/s from a thread, plain function", plain[0], "pykka's blocking ask", plain[1], 1),
        Measured("ask/s from a thread, plain function", plain[0], "a queue and a thread", plain[2]),
        Measured("ask/s from a thread, coroutine", coroutine[0], "pykka's blocking ask", coroutine[1], 1),
        Measured("ask/s from a thread, coroutine", coroutine[0], "run_coroutine_threadsafe", coroutine[2]),
    ]


async def many(count: int = 10_000, crowd: int = 20_000) -> list[Measured]:
    async def spawn_and_stop() -> float:
        async with ActorSystem(handlers=[]) as system:
            started = time.perf_counter()
            refs = [await system.spawn(OurActor) for _ in range(count)]
            for stopped in [ref.stop(block=False) for ref in refs]:
                await stopped
            return rate(count, started)

    def their_spawn_and_stop() -> float:
        started = time.perf_counter()
        refs = [PykkaActor.start() for _ in range(count)]
        for stopped in [ref.stop(block=False) for ref in refs]:
            stopped.get()
        return rate(count, started)

    async def one_to_each() -> float:
        async with ActorSystem(handlers=[]) as system:
            refs = [await system.spawn(OurActor) for _ in range(crowd)]
            started = time.perf_counter()
            for reply in [ref.ask("hello") for ref in refs]:
                await reply
            return rate(crowd, started)

    def their_one_to_each() -> float:
        refs = [PykkaActor.start() for _ in range(crowd)]
        started = time.perf_counter()
        for reply in [ref.ask("hello", block=False) for ref in refs]:
            reply.get()
        return _stopped(rate(crowd, started))

    spawned = await in_turn(
        spawn_and_stop, on_a_thread(their_spawn_and_stop), partial(floor_spawn_and_stop, count), rounds=1
    )
    greeted = await in_turn(
        one_to_each, on_a_thread(their_one_to_each), partial(floor_one_to_each, crowd), rounds=1
    )
    spawning, greeting = f"spawn and stop/s of {count:,}", f"one ask to each of {crowd:,}, per second"
    return [
        Measured(spawning, spawned[0], "pykka.ThreadingActor", spawned[1], 50),
        Measured(spawning, spawned[0], "a deque and a bare coroutine", spawned[2]),
        Measured(greeting, greeted[0], "pykka.ThreadingActor", greeted[1], 50),
        Measured(greeting, greeted[0], "a deque and a bare coroutine", greeted[2]),
    ]


def _stopped(measured: float) -> float:
    pykka.ActorRegistry.stop_all()
    return measured


class Look(Command[int]):
    """A query: it activates an aggregate and records nothing."""


async def million(count: int = 1_000_000, clients: int = 500) -> list[Measured]:
    """Active aggregates in one process, and their memory beside that of the bare instances."""

    class Lean(Account):
        aggregate_type = "Account"

        @handles
        def look(self, command: Look) -> int:
            return self.balance

    names = [f"account-{number}" for number in range(count)]
    before = _resident()
    bare = [Lean(name) for name in names]
    own = _resident() - before
    bare.clear()
    gc.collect()
    before = _resident()
    async with ActorSystem(handlers=[], aggregates=[Lean], max_active=count, passivate_after=3600) as system:
        question = Look()
        activated = await in_flight(count, clients, lambda n: system.aggregate(Lean, names[n]).ask(question))
        active = system.statistics().active_aggregates
        used = _resident() - before
    print(
        f"{active:,} active aggregates: {used / 2**20:,.0f} MiB, {used / active:,.0f} bytes each, of which their"
        f" instances are {own / count:,.0f}; activated at {activated:,.0f}/s"
    )
    return [
        Measured("bytes of an active aggregate (to stay below)", used / active, "bare instance", own / count)
    ]


def _resident() -> int:
    """Bytes of this process in memory."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize()


async def topics(count: int = 50_000) -> list[Measured]:
    def matches(patterns: int) -> float:
        trie: TopicTrie[int] = TopicTrie()
        for number in range(patterns):
            trie.add(TopicPattern(f"a{number}.*.done"), number)
        started = time.perf_counter()
        for number in range(count):
            trie.match(f"a{number % patterns}.x.done")
        return rate(count, started)

    return [Measured("topics/s matched against 10,000 patterns", matches(10_000), "against 10", matches(10))]


# --- the event bus -----------------------------------------------------------------------------------------


class PeerDeposited(bubus.BaseEvent[None]):
    """The same event for `bubus`."""

    amount: int


async def bus(events: int = 50_000, peer_events: int = 500) -> list[Measured]:
    """One event after the other, each created and awaited until its handlers have run."""
    handled = 0

    async def handle(event: object) -> None:
        nonlocal handled
        handled += 1

    async def ours(handlers: int) -> float:
        events_bus = EventBus()
        for number in range(handlers):
            events_bus.subscribe(partial(handle), Deposited, name=f"handler-{number}")
        started = time.perf_counter()
        for _ in range(events):
            await events_bus.publish(Deposited(amount=1))
        return rate(events, started)

    async def theirs(handlers: int) -> float:
        peer = bubus.EventBus(name=f"peer_{handlers}")
        for number in range(handlers):

            async def named(event: PeerDeposited) -> None:
                await handle(event)

            named.__name__ = f"handler_{number}"
            peer.on(PeerDeposited, named)
        started = time.perf_counter()
        for _ in range(peer_events):
            await peer.dispatch(PeerDeposited(amount=1))
        measured = rate(peer_events, started)
        await peer.stop()
        return measured

    logging.getLogger("bubus").setLevel(logging.CRITICAL)
    measured = [
        Measured("events/s published to one async handler", await ours(1), "bubus", await theirs(1), 100),
        Measured("  to three async handlers", await ours(3), "bubus", await theirs(3)),
    ]
    assert handled == 4 * (events + peer_events)
    return measured


SECTIONS = {
    "durable": durable,
    "latency": latency,
    "replay": replay,
    "sql": sql,
    "delivery": delivery,
    "actors": actors,
    "many": many,
    "million": million,
    "bus": bus,
    "topics": topics,
}


def section(name: str) -> list[Measured]:
    return asyncio.run(SECTIONS[name]())


def main(names: list[str]) -> None:
    if unknown := [name for name in names if name not in SECTIONS]:
        sys.exit(f"unknown sections: {', '.join(unknown)}; there are: {', '.join(SECTIONS)}")
    table = Table(
        "work", "ours", "beside", "theirs", "ratio", "to reach", title="uno_actors beside others, one run"
    )
    for name in names or SECTIONS:
        with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as process:
            figures = process.submit(section, name).result()
        for measured in figures:
            met = measured.wanted is None or measured.ratio >= measured.wanted
            wanted = "" if measured.wanted is None else f"{measured.wanted:.2g} x"
            ratio = f"[{'green' if met else 'red'}]{measured.ratio:.2f} x[/]"
            table.add_row(
                measured.what,
                f"{measured.ours:,.0f}",
                measured.other,
                f"{measured.theirs:,.0f}",
                ratio,
                wanted,
            )
    Console(width=130).print(table)


if __name__ == "__main__":
    main(sys.argv[1:])
