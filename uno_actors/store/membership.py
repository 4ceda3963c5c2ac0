"""Which nodes work on a store: the port, and the value that a node announces.

The engine that holds the log also holds the membership: rows with an end by the database's clock, or kernel locks and
heartbeats on one machine. Nodes use it to divide work: commands go to the node that has the aggregate in memory, and
handlers are spread over the nodes that can run them. It is only a matter of speed. A wrong or old view of the members
breaks no promise, because the expected version of a stream and the count of a lease are the fences.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True, kw_only=True)
class Member:
    """One node, as it announces itself.

    Attributes:
        id: Unique to this start of this node; a node that starts again has a new one.
        name: Name of the node for people: in logs, errors and lists.
        address: Where its link accepts requests from other nodes; ``None`` if it accepts none.
        commands: For each aggregate type that it serves, the names of the commands, sorted.
        handlers: Names of the handlers that it can run, sorted.
        roles: What it is for, sorted, such as ``aggregates`` and ``handlers``.
        version: Version of uno_actors.
        started: When it started, in seconds since 1970.
        capacity: Its share of the work relative to others.
        leaving: Whether it is about to stop: it finishes what it has and must not be chosen any more.
        host: Name of the machine.
        process: Number of the process on that machine.
    """

    id: str
    name: str
    address: str | None = None
    commands: tuple[tuple[str, tuple[str, ...]], ...] = ()
    handlers: tuple[str, ...] = ()
    roles: tuple[str, ...] = ()
    version: str = ""
    started: float = 0.0
    capacity: float = 1.0
    leaving: bool = False
    host: str = field(default="", compare=False)
    process: int = field(default=0, compare=False)


class Membership(ABC):
    """The announcement of one node in a store, and its view of the others."""

    @abstractmethod
    async def announce(self, member: Member) -> tuple[Member, ...]:
        """Announce, change or renew this node, and return all members that have not ended, sorted by id.

        The announcement ends after the seconds given to `EventStore.membership`, unless it is renewed, and at once
        when the process ends, where the engine can know that. A node renews three times within these seconds.

        Args:
            member: This node; always with the same ``id``.

        Raises:
            StoreUnavailable: The store cannot be reached; the announcement may have ended.
        """

    @abstractmethod
    async def withdraw(self) -> None:
        """End the announcement; idempotent. An error is not raised: the announcement then ends by itself."""

    @abstractmethod
    def when_changed(self, listener: Callable[[], None]) -> None:
        """Have ``listener`` called on the event loop when another node has announced, changed or withdrawn itself.

        It is a hint and may be missed; the next `announce` returns the truth.
        """
