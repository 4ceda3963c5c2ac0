"""PostgreSQL and SQLite through SQLAlchemy; with the extra ``sql``.

Read ``store`` first: it answers the port. Then, one concern each:

- ``schema``: the tables. ``tables``: makes and checks them. ``log``: how records are placed and read back.
- ``writer`` with ``jobs``, ``groups``, ``quick_append``, ``quick_statement`` and ``kept``: group commit.
  ``reader``: the queries.
- ``place``, ``engine``, ``connections``: where the database is, and the connections to it. ``life``: one process, one
  event loop at a time. ``errors`` and ``waiting``: what an error means, and how long an attempt is repeated.
- For several processes: ``announcements``, ``watcher`` and ``notifications``, ``held_leases`` and ``leases``.
- ``urls``: from a URL to a store, with ``options``. ``statistics``: what a store reports about itself.
"""

from uno_stores.sql.extra import needs_extra

try:
    import greenlet  # type: ignore[import-untyped,unused-ignore]  # noqa: F401 - imported first, so that one error names the extra
    import sqlalchemy  # noqa: F401 - likewise
except ModuleNotFoundError as missing:
    raise ModuleNotFoundError(needs_extra(missing), name=missing.name) from missing

from uno_stores.sql.schema import METADATA
from uno_stores.sql.store import DatabaseEventStore, create_database_event_store
from uno_stores.sql.urls import check_url, open_url

__all__ = ["METADATA", "DatabaseEventStore", "check_url", "create_database_event_store", "open_url"]
