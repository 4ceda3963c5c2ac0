"""The embedded default: events durable on local disk, in one LMDB environment; no server.

Read ``store`` first, then ``reader`` and ``maintenance``.
"""

from uno_stores.lmdb.store import LmdbEventStore, check_url, open_url

__all__ = ["LmdbEventStore", "check_url", "open_url"]
