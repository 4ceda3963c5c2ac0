"""Faults of all kinds, by name: the one module of the tests that touches what is private to our classes.

Each function makes something go wrong that a test cannot bring about from outside: damage in a file, a session that the
server ends, a thread at the worst moment. A test that only looks has a seam: `InMemoryEventStore.records`,
`uno_actors.testing.inspect`, and ``statistics()`` of systems, actors and stores. `tests.test_house_rules` checks it.
"""

import asyncio
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from typing import Any

import lmdb

from uno_stores import InMemoryEventStore
from uno_stores.lmdb import LmdbEventStore
from uno_stores.sql import DatabaseEventStore
from uno_stores.sql.notifications import Wire

# --- the file of an LMDB store -----------------------------------------------------------------------------


@contextmanager
def file_changes(store: LmdbEventStore, database: str) -> Iterator[lmdb.Transaction]:
    """A write transaction of another: of a process that writes too, or of damage to the file.

    Args:
        store: It notices nothing until it reads.
        database: On which the transaction works unless told otherwise, by its name in the file.
    """
    env = store._environment.env
    with env.begin(write=True, db=env.open_db(database.encode(), create=False)) as transaction:
        yield transaction


def change_value(store: LmdbEventStore, database: str, key: bytes, value: bytes) -> None:
    """The file holds another value at ``key``."""
    with file_changes(store, database) as transaction:
        assert transaction.put(key, value)


def value_in_file(store: LmdbEventStore, database: str, key: bytes) -> bytes:
    """The value at ``key``, to be damaged; empty if there is none."""
    env = store._environment.env
    with env.begin(db=env.open_db(database.encode(), create=False)) as transaction:
        return bytes(transaction.get(key) or b"")


@contextmanager
def writer_waits(store: LmdbEventStore) -> Iterator[None]:
    """Another process writes: LMDB's lock for writers is held inside the block."""
    with store._environment.env.begin(write=True) as transaction:
        yield
        transaction.abort()


def environment_is_broken(store: LmdbEventStore) -> None:
    """LMDB refuses all use of the environment, as after a meta page that could not be written."""
    store._environment.broken = True


def environment_fails(store: LmdbEventStore, faulty: Callable[[lmdb.Environment], Any]) -> None:
    """Let the store use what ``faulty`` makes of its environment, until it is opened again."""
    store._environment.env = faulty(store._environment.env)


def after_a_write_begins(store: LmdbEventStore, happens: Callable[[], object]) -> None:
    """Each write transaction that begins is followed by what ``happens``."""
    environment, begun = store._environment, store._environment._begun

    def begin(write: bool) -> lmdb.Transaction:
        transaction = begun(write)
        if write:
            happens()
        return transaction

    environment._begun = begin  # type: ignore[method-assign]


# --- the database of an SQL store --------------------------------------------------------------------------


def _wire(store: DatabaseEventStore) -> Wire:
    wire = store._connections.wire
    assert wire is not None, "only PostgreSQL has one"
    return wire


async def kept_connection_is_lost(store: DatabaseEventStore) -> None:
    """The connection with the locks of leases ends, and the store does not notice until it uses it again."""
    assert store._watcher.task is not None
    store._watcher.task.cancel()  # it would connect again before others have taken the leases
    await _wire(store)._drop()


@asynccontextmanager
async def kept_connection_is_busy(store: DatabaseEventStore) -> AsyncIterator[None]:
    """The connection with the locks of leases does something else inside the block."""
    async with _wire(store)._turn:
        yield


async def notifications_end(store: DatabaseEventStore) -> None:
    """The server notifies the store of no commits, as behind a pooler that hands out other sessions."""
    wire = _wire(store)
    async with wire._turn:
        assert wire._connection is not None
        await wire._connection.exec_driver_sql("UNLISTEN *")


def lease_statements_overlap(store: DatabaseEventStore, begun: asyncio.Event) -> None:
    """Set ``begun`` while each statement about leases waits, so that the test runs in the middle of one."""
    wire = _wire(store)

    async def ask(statement: Any, parameters: dict[str, Any] | None = None) -> Any:
        async with wire._turn:
            begun.set()
        return await wire.ask(statement, parameters)

    wire.leases._ask = ask


async def leases_are_renewed(store: DatabaseEventStore) -> None:
    """The time to renew the leases has come."""
    await _wire(store).leases.renew()


def lease_file_is_forgotten(store: DatabaseEventStore, name: str) -> None:
    """This process believes that it does not hold ``name``, as another process would."""
    store._connections.place.leases.release(name)


def reads_are_cancelled(store: DatabaseEventStore) -> None:
    """The program cancels all tasks, those of reads too."""
    for task in tuple(store._reader.under_way):
        task.cancel()


def writer_is_cancelled(store: DatabaseEventStore) -> None:
    """The program cancels all tasks, the writer too."""
    assert store._writer.task is not None
    store._writer.task.cancel()


# --- a store in memory -------------------------------------------------------------------------------------


def payload_is_lost(store: InMemoryEventStore, position: int) -> None:
    """The record at ``position`` loses its payload: whoever reads it fails."""
    store._log[position - 1] = store._log[position - 1]._replace(payload=b"")
