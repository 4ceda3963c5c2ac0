"""The options of a `DatabaseEventStore` and their defaults."""

from uno_actors.quantities import check_count, check_duration
from uno_stores.file_leases import LEASE_TIME

PATIENCE = 10.0
"""Default number of seconds for which a store tries to reach a database that does not answer."""
MAX_EVENT_SIZE = 16 << 20
"""Default limit of the payload of one event, in bytes."""


def check_options(
    max_event_size: int = MAX_EVENT_SIZE, patience: float = PATIENCE, lease_time: float = LEASE_TIME
) -> None:
    """Refuse options out of range.

    Raises:
        ValueError: A number is not positive.
    """
    check_count("max_event_size", max_event_size, 1)
    check_duration("patience", patience)
    check_duration("lease_time", lease_time)
