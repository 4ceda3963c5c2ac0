"""Our stores for applications of the package ``eventsourcing``; with the extra ``eventsourcing``.

An application uses them without a change of its code, by two environment variables::

    PERSISTENCE_MODULE=uno_stores.eventsourcing
    UNO_ACTORS_STORE=lmdb:data/bank        # or sqlite+aiosqlite:///…, postgresql+asyncpg://…, memory:

Both may have the application's name before them, as all variables of that package: ``BANK_UNO_ACTORS_STORE``.

- ``factory``: what ``PERSISTENCE_MODULE`` finds.
- ``recorders``: aggregates, applications and processes on the log. ``snapshots``: snapshots in a view.
- ``stored``: an event of that package as a record of ours, and back.
- ``sharing``: the store of a process, on an event loop of its own thread. ``failures``: our errors as that package's.
"""

try:
    import eventsourcing  # noqa: F401 - imported first, so that one error names the extra
except ModuleNotFoundError as missing:
    raise ModuleNotFoundError(
        f"{missing}: the persistence module needs `pip install 'uno-actors[eventsourcing]'`",
        name=missing.name,
    ) from missing

from uno_stores.eventsourcing.factory import STORE_URL, UnoFactory
from uno_stores.eventsourcing.recorders import (
    UnoAggregateRecorder,
    UnoApplicationRecorder,
    UnoProcessRecorder,
    UnoSubscription,
    UnoTrackingRecorder,
)
from uno_stores.eventsourcing.snapshots import UnoSnapshotRecorder
from uno_stores.eventsourcing.stored import StoredEventRecorded

__all__ = [
    "STORE_URL",
    "StoredEventRecorded",
    "UnoAggregateRecorder",
    "UnoApplicationRecorder",
    "UnoFactory",
    "UnoProcessRecorder",
    "UnoSnapshotRecorder",
    "UnoSubscription",
    "UnoTrackingRecorder",
]
