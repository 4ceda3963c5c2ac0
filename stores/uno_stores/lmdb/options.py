"""The options of an `LmdbEventStore`, their defaults and limits."""

from typing import Literal, NamedTuple, get_args

from uno_actors.quantities import check_count, check_duration
from uno_stores.file_leases import LEASE_TIME

MAP_SIZE = 64 << 30
"""Bytes of address space reserved for the file at first; the file itself is as large as its contents."""
MIN_SIZE = 1 << 20
"""Bytes of the smallest map, so that there is room for the databases themselves."""
MAX_EVENT_SIZE = 16 << 20
"""Default limit of a record, in bytes."""

Durability = Literal["fsync", "relaxed"]


class Options(NamedTuple):
    """How the environment is opened, and how large it may become."""

    durability: Durability
    map_size: int
    max_size: int | None
    read_only: bool = False


def check_options(
    durability: str = "fsync",
    map_size: int = MAP_SIZE,
    max_size: int | None = None,
    max_event_size: int = MAX_EVENT_SIZE,
    lease_time: float = LEASE_TIME,
) -> None:
    """Refuse options out of range.

    Raises:
        ValueError: One is.
    """
    if durability not in get_args(Durability):
        allowed = " or ".join(map(repr, get_args(Durability)))
        raise ValueError(f"durability must be {allowed}; found {durability!r}")
    for name, given in (("map_size", map_size), ("max_size", max_size)):
        check_count(name, given, none=True)
        if given is not None and given < MIN_SIZE:
            raise ValueError(f"{name} must be at least {MIN_SIZE:,} bytes; found {given:,}")
    check_count("max_event_size", max_event_size, 1)
    check_duration("lease_time", lease_time)
