"""An empty place for a store, and a store opened there."""

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass

from uno_actors.domain.events import DomainEvent, EventRegistry
from uno_actors.store.port import EventStore
from uno_actors.testing.contract.events import Measured, Noted


@dataclass(frozen=True)
class StorePlace:
    """An empty place for a store.

    Attributes:
        open: Opens the store. Called again after the store was closed, it opens the same place.
        durable: Whether what was recorded is found there when it is opened again.
    """

    open: Callable[[EventRegistry], Awaitable[EventStore]]
    durable: bool = True


MakeStore = Callable[[], AbstractAsyncContextManager[StorePlace]]

Check = Callable[[MakeStore], Awaitable[None]]


@asynccontextmanager
async def opened(make_store: MakeStore, *event_types: type[DomainEvent]) -> AsyncIterator[EventStore]:
    """A fresh store that knows the event types of the checks, or those given; closed in the end."""
    async with make_store() as place:
        store = await place.open(EventRegistry(event_types or (Noted, Measured)))
        try:
            yield store
        finally:
            await store.close()
