"""The options of a `DatabaseEventStore` and their defaults."""

from uno_actors.quantities import check_count, check_duration, check_number
from uno_actors.store.logs import MAX_LOGS
from uno_stores.file_leases import LEASE_TIME

PATIENCE = 10.0
"""Default number of seconds for which a store tries to reach a database that does not answer."""
MAX_EVENT_SIZE = 16 << 20
"""Default limit of the payload of one event, in bytes."""

_ONE_LOG = "logs: SQLite has one writer at a time, so several logs would be no faster; leave the option out"


def check_options(
    max_event_size: int = MAX_EVENT_SIZE,
    patience: float = PATIENCE,
    lease_time: float = LEASE_TIME,
    logs: int | None = None,
    *,
    is_server: bool = True,
) -> None:
    """Refuse options out of range.

    Raises:
        ValueError: A number is not positive, or the database cannot have so many logs.
    """
    check_count("max_event_size", max_event_size, 1)
    check_duration("patience", patience)
    check_duration("lease_time", lease_time)
    if logs is not None:
        check_number("logs", logs, 1, MAX_LOGS)
        check_count("logs", logs, 1)
        if logs > 1 and not is_server:
            raise ValueError(_ONE_LOG)
