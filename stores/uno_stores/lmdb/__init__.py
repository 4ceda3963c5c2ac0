"""The embedded default: events durable on local disk, in one LMDB environment; no server.

Read ``store`` first: it has the layout and answers the port. Then, one concern each:

- ``environment`` with ``opening`` and ``errors``: the environment: opening it, transactions, growth, reopening.
- ``writer`` with ``jobs``: the thread with group commit. ``watcher``: commits of other processes.
- ``reader`` with ``searching``: reading, and the checks that every value must pass.
- ``maintenance``: backup, verify, info. ``statistics``: what a store reports about itself.
- ``urls``: from a URL to a store, with ``options``.
"""

from uno_stores.lmdb.store import LmdbEventStore
from uno_stores.lmdb.urls import check_url, open_url

__all__ = ["LmdbEventStore", "check_url", "open_url"]
