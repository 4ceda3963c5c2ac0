"""Event stores for uno_actors, each behind the port `uno_actors.store.port.EventStore`.

- ``uno_stores.memory``: the reference implementation; read it first.
- ``uno_stores.lmdb``: the embedded default, durable on local disk.
- ``uno_stores.sql``: PostgreSQL and SQLite, with the extra ``sql``.
- ``uno_stores.eventsourcing``: these stores for applications of ``eventsourcing``, with the extra of that name.
- ``guards``, ``locks`` and ``files`` are shared: one process at a time, and files that were moved or deleted.

Each store is imported at its first use, so that none needs the packages of another.
"""

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from uno_stores.lmdb import LmdbEventStore
    from uno_stores.memory import InMemoryEventStore
    from uno_stores.sql import DatabaseEventStore, create_database_event_store
else:

    def __getattr__(name: str) -> object:
        if name not in _HOMES:
            raise AttributeError(f"module 'uno_stores' has no attribute {name!r}", name=name)
        globals()[name] = found = getattr(import_module(_HOMES[name]), name)
        return found

    def __dir__() -> list[str]:
        return sorted({*globals(), *__all__})


_HOMES = {
    "DatabaseEventStore": "uno_stores.sql",
    "InMemoryEventStore": "uno_stores.memory",
    "LmdbEventStore": "uno_stores.lmdb",
    "create_database_event_store": "uno_stores.sql",
}

__all__ = ["DatabaseEventStore", "InMemoryEventStore", "LmdbEventStore", "create_database_event_store"]
