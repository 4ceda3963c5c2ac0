"""Replay of one stream."""

import time
from functools import partial

import lmdb
import msgpack

from tests.benchmarks.accounts import Account, Deposited
from tests.benchmarks.measuring import Measured, directory, in_turn, on_a_thread, rate
from tests.benchmarks.peers import PeerAccount, peer_replayed, sqlite_peer
from uno_actors import (
    DomainEvent,
)
from uno_actors.store.codec import Record, StreamId
from uno_actors.store.port import EventStore
from uno_stores import LmdbEventStore

METADATA_FIELDS = [name for name in Record._fields if name in DomainEvent.model_fields]


async def replayed(store: EventStore, events: int) -> float:
    """The rate at which the account "alice" is rebuilt from its events."""
    started = time.perf_counter()
    account = Account("alice")
    async for event in store.stream_events(StreamId("Account", "alice")):
        account.replay([event])
    assert account.balance == events
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

            application = sqlite_peer(path)
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
