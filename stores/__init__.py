"""Event stores for uno_actors, each behind the port `uno_actors.store.port.EventStore`.

- ``stores.memory``: the reference implementation; read it first.
- ``stores.lmdb``: the embedded default, durable on local disk.
- ``stores.sql``: PostgreSQL and SQLite, with the extra ``sql``; imported by itself, for it needs SQLAlchemy.
"""

from stores.lmdb import LmdbEventStore
from stores.memory import InMemoryEventStore

__all__ = ["InMemoryEventStore", "LmdbEventStore"]
