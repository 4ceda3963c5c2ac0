"""Maintenance of a store by an operator: facts, verification, backup.

These are not part of the port: a store offers what it can, and callers ask with ``isinstance``.
"""

from collections.abc import Callable
from typing import NamedTuple, Protocol, runtime_checkable

Progress = Callable[[int, int], None]
"""Called with ``(done, total)`` from time to time, from any thread."""


class StoreInfo(NamedTuple):
    """Facts about a store.

    Attributes:
        format: The version of its file format.
        events: Number of events in the log.
        streams: Number of streams of aggregates.
        snapshots: Number of snapshots of aggregates.
        size: Bytes on disk.
        map_used: Bytes of its map that are in use.
        map_size: Bytes of address space that are reserved for it.
    """

    format: str
    events: int
    streams: int
    snapshots: int
    size: int
    map_used: int
    map_size: int


class StoreUsage(NamedTuple):
    """What a store takes while it runs, in values that cost little to get.

    Attributes:
        size: Bytes on disk; ``None`` if they are not known.
        commits: Transactions that this process has committed since it opened the store.
        commit_seconds: Seconds that their commits took, most of which is the wait for the disk.
    """

    size: int | None
    commits: int
    commit_seconds: float


class Fault(NamedTuple):
    """Damage in a store.

    Attributes:
        position: The position in the log; ``None`` if the damage concerns no event.
        reason: For people: what is wrong, and where.
    """

    position: int | None
    reason: str


class Verified(NamedTuple):
    """The numbers of things that were checked and found sound."""

    events: int
    streams: int


@runtime_checkable
class HasInfo(Protocol):
    """A store that reports facts about itself."""

    async def info(self) -> StoreInfo:
        """The facts now."""


@runtime_checkable
class HasUsage(Protocol):
    """A store that reports what it takes."""

    async def usage(self) -> StoreUsage:
        """The values now."""


@runtime_checkable
class CanVerify(Protocol):
    """A store that can check itself from its files up."""

    async def verify(self, progress: Progress | None = None) -> Verified | Fault:
        """Check everything and return what was checked, or the first fault."""


@runtime_checkable
class CanBackUp(Protocol):
    """A store that can be copied while it is in use."""

    async def backup(self, target: str, progress: Progress | None = None) -> None:
        """Copy a consistent state of the store to ``target``, a place as in a URL of its kind.

        Raises:
            PlaceTaken: ``target`` is not empty.
            StoreUnavailable, StoreFull: ``target`` cannot be written.
        """
