"""The nodes of one process that share a store in memory, as several systems in a test do."""

from collections.abc import Callable

from typing_extensions import override

from uno_actors.clock import Clock
from uno_actors.store.membership import Member, Membership


class MemoryNodes:
    """The announcements in one store. Each ends by the clock of the node that made it."""

    def __init__(self) -> None:
        self._announced: dict[str, tuple[Member, Clock, float]] = {}  # with the time at which each ends
        self._listeners: dict[str, Callable[[], None]] = {}

    def put(self, member: Member, clock: Clock, ends: float, listener: Callable[[], None] | None) -> None:
        """Add or renew the announcement of ``member`` until ``ends``; call the other nodes' listeners if it is new."""
        before = self._announced.get(member.id)
        self._announced[member.id] = (member, clock, ends)
        if listener is not None:
            self._listeners[member.id] = listener
        if before is None or before[0] != member:
            self._tell_others(member.id)

    def remove(self, member_id: str) -> None:
        """Remove an announcement, if it is there."""
        self._listeners.pop(member_id, None)
        if self._announced.pop(member_id, None) is not None:
            self._tell_others(member_id)

    def members(self) -> tuple[Member, ...]:
        """The members whose announcement has not ended, sorted by id."""
        present = (member for member, clock, ends in self._announced.values() if clock.monotonic() < ends)
        return tuple(sorted(present, key=lambda member: member.id))

    def _tell_others(self, member_id: str) -> None:
        for other, listener in tuple(self._listeners.items()):
            if other != member_id:
                listener()


class MemoryMembership(Membership):
    """The announcement of one node.

    Args:
        nodes: All announcements in the store.
        seconds: Until one ends that is not renewed.
        clock: Of the node.
        check_open: Raises if the store was closed.
    """

    def __init__(
        self, nodes: MemoryNodes, seconds: float, clock: Clock, check_open: Callable[[], None]
    ) -> None:
        self._nodes = nodes
        self._seconds = seconds
        self._clock = clock
        self._check_open = check_open
        self._id: str | None = None
        self._listener: Callable[[], None] | None = None

    @override
    async def announce(self, member: Member) -> tuple[Member, ...]:
        self._check_open()
        self._id = member.id
        self._nodes.put(member, self._clock, self._clock.monotonic() + self._seconds, self._listener)
        return self._nodes.members()

    @override
    async def withdraw(self) -> None:
        if self._id is not None:
            self._nodes.remove(self._id)

    @override
    def when_changed(self, listener: Callable[[], None]) -> None:
        self._listener = listener
