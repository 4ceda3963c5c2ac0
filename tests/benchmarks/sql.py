"""Commands and replay on PostgreSQL, beside `eventsourcing` on the same server."""

import itertools
import time
from collections import deque
from concurrent.futures import ThreadPoolExecutor
from functools import partial

import eventsourcing.application
import eventsourcing.domain

from tests.benchmarks.accounts import Account, Deposit, Deposited
from tests.benchmarks.measuring import Measured, in_flight, in_turn, on_a_thread, rate
from tests.benchmarks.peers import PeerAccount, peer_replayed, postgres_peer
from tests.benchmarks.reading import replayed
from tests.postgres import PostgresServer
from uno_actors import (
    ActorSystem,
    open_store,
)

SQL_IN_FLIGHT = 100


async def sql_commands(url: str, number: int, count: int = 6_000) -> float:
    async with ActorSystem(url, handlers=[]) as system:
        refs = [system.aggregate(Account, f"account-{number}-{n}") for n in range(SQL_IN_FLIGHT)]
        return await in_flight(count, SQL_IN_FLIGHT, lambda n: refs[n % SQL_IN_FLIGHT].ask(Deposit(amount=1)))


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
    application = postgres_peer(server)
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
