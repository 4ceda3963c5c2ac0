"""The same account in the `eventsourcing` package, on SQLite and on PostgreSQL."""

import time
from pathlib import Path

import eventsourcing.application
import eventsourcing.domain

from tests.benchmarks.measuring import rate
from tests.postgres import PostgresServer


class PeerAccount(eventsourcing.domain.Aggregate):
    """The same account in the `eventsourcing` package."""

    def __init__(self) -> None:
        self.balance = 0

    @eventsourcing.domain.event("Deposited")
    def deposit(self, amount: int) -> None:
        self.balance += amount


def sqlite_peer(path: Path) -> eventsourcing.application.Application:
    env = {
        "PERSISTENCE_MODULE": "eventsourcing.sqlite",
        "SQLITE_DBNAME": str(path / "db"),
        "AGGREGATE_CACHE_MAXSIZE": "1000",
    }
    return eventsourcing.application.Application(env)


def postgres_peer(server: PostgresServer) -> eventsourcing.application.Application:
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


def peer_replayed(
    application: eventsourcing.application.Application, peer: PeerAccount, events: int
) -> float:
    """The same of `eventsourcing`."""
    started = time.perf_counter()
    assert application.repository.get(peer.id).balance == events
    return rate(events, started)
