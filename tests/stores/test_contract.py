"""The contract of `uno_actors.testing`, each check on each store of this package as a test of its own."""

from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest

from stores import InMemoryEventStore, LmdbEventStore
from uno_actors.events import EventRegistry
from uno_actors.store import Append, Appended, EventStore
from uno_actors.errors import UnoError
from uno_actors.testing import CONTRACT, Check, MakeStore, StorePlace, check_event_store


@asynccontextmanager
async def in_memory() -> AsyncIterator[StorePlace]:
    async def open_store(event_registry: EventRegistry) -> EventStore:
        return InMemoryEventStore(event_registry)

    yield StorePlace(open_store, durable=False)


@asynccontextmanager
async def in_lmdb() -> AsyncIterator[StorePlace]:
    with TemporaryDirectory() as directory:

        async def open_store(event_registry: EventRegistry) -> EventStore:
            return LmdbEventStore(Path(directory) / "store", event_registry)

        yield StorePlace(open_store)


STORES = {"memory": in_memory, "lmdb": in_lmdb}


@pytest.mark.parametrize("make_store", STORES.values(), ids=STORES)
@pytest.mark.parametrize("check", CONTRACT, ids=lambda check: check.__name__)
async def test_store_keeps_its_promise(check: Check, make_store: MakeStore) -> None:
    await check(make_store)
