"""PostgreSQL and SQLite through SQLAlchemy; with the extra ``sql``.

Read ``store`` first, then ``schema``, ``log`` and ``jobs``; ``leases`` and ``notifications`` are for several processes.
"""

from uno_stores.sql.store import (
    METADATA,
    DatabaseEventStore,
    check_url,
    create_database_event_store,
    open_url,
)

__all__ = ["METADATA", "DatabaseEventStore", "check_url", "create_database_event_store", "open_url"]
