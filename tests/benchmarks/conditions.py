"""Appends under a condition beside plain ones, in a store with many events."""

import time
from collections.abc import Awaitable, Callable
from functools import partial
from typing import Annotated

import msgpack

from tests.benchmarks.measuring import Measured, directory, in_flight, in_turn, rate
from tests.postgres import PostgresServer
from uno_actors import DomainEvent, EventQuery, EventStore, Tag, open_store
from uno_actors.causality import new_id
from uno_actors.store.codec import to_record
from uno_actors.store.records import Append

EVENTS = 1_000_000
"""In the store before the measurement."""
SIZES = ((1, 300), (100, 3_000))
"""Clients at once, and appends."""


class NameTaken(DomainEvent):
    name: Annotated[str, Tag()]


def of(name: str) -> EventQuery:
    return EventQuery(NameTaken, tags={"name": name})


async def fill(store: EventStore, events: int) -> None:
    one = to_record(NameTaken(name=""))
    for start in range(0, events, 10_000):
        records = [
            one._replace(event_id=new_id(), payload=msgpack.packb({"name": f"n{number}"}))
            for number in range(start, start + 10_000)
        ]
        await store.commit([Append(tuple(records))])


def appends(store: EventStore, clients: int, how_many: int) -> list[Callable[[], Awaitable[float]]]:
    """Appends under a condition, and plain ones, by so many clients."""

    async def plain(_: int) -> None:
        await store.append(NameTaken(name=new_id()))

    async def conditional(_: int) -> None:
        name = new_id()
        await store.append(NameTaken(name=name), unless=of(name))

    return [partial(in_flight, how_many, clients, work) for work in (conditional, plain)]


async def measured(kind: str, url: str, events: int = EVENTS) -> list[Measured]:
    """The rates of both; the conditional one is wanted to be at least half of the plain one.

    Plain appends are measured before the store has an index, too: then nothing is done for conditions.
    """
    found: list[Measured] = []
    async with open_store(url) as store:
        await fill(store, events)
        untouched = [await in_turn(appends(store, *size)[1]) for size in SIZES]
        begun = time.perf_counter()
        assert (await store.select(of("n7"))).events
        indexed = rate(events, begun)
        for size, (before,) in zip(SIZES, untouched, strict=True):
            ours, theirs = await in_turn(*appends(store, *size))
            what = f"conditional appends/s on {kind}, {events:,} events, {size[0]} in flight"
            found.append(Measured(what, ours, "plain ones in turn", theirs, 0.5))
            found.append(Measured("  the same", ours, "plain ones before the first condition", before, 0.5))
    found.append(Measured(f"  events/s indexed at the first use on {kind}", indexed, "itself", indexed))
    return found


async def conditions(events: int = EVENTS) -> list[Measured]:
    """On LMDB, SQLite and PostgreSQL."""
    server = PostgresServer()
    try:
        with directory() as path:
            return [
                *await measured("LMDB", f"lmdb:{path}/store", events),
                *await measured("SQLite", f"sqlite+aiosqlite:///{path}/store.db", events),
                *await measured("PostgreSQL", await server.new_url(), events),
            ]
    finally:
        server.remove()
