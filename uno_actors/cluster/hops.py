"""A command on its way to the node that owns its aggregate."""

from collections.abc import Set

from uno_actors.aggregates.envelope import CommandEnvelope
from uno_actors.domain.command_payloads import pack_command
from uno_actors.store.codec import StreamId

TOLD_FOR = 86_400.0
"""Seconds after which another node is not waited for any more that was told a command."""
SHARED = 0.001
"""Seconds by which the time of a command may be rounded up to that of all asks, whose deadlines share one timer."""


def time_left(seconds: float, deadline: float, now: float) -> float:
    """How long the sender of a command still waits, of the ``seconds`` that end at the ``deadline``."""
    left = max(0.0, deadline - now)
    return seconds if abs(seconds - left) < SHARED else left


class Hop:
    """A command that another node is to handle, until its answer has come.

    Attributes:
        stream: Of the aggregate.
        envelope: With the command, and the reply that waits.
        name: Announced name of the command.
        seconds: How long its sender waits; for one that was told, how long it waits for a node that serves it.
        deadline: Until when an answer is waited for, by the system's clock.
        since: Position of the log after which its events are recorded if they are.
        payload: Of the command, as it travels.
        may_be_handled: Whether a node may have had it whose answer was lost.
        refused: Why nodes do not serve it, by their ids.
        late: How often a link that can lose messages brought no answer in time.
        node: Name of the node that it was sent to last; ``None`` while no node serves it.
        sent: When, by the system's clock.
    """

    __slots__ = (
        "deadline",
        "envelope",
        "late",
        "may_be_handled",
        "name",
        "node",
        "payload",
        "refused",
        "seconds",
        "sent",
        "since",
        "stream",
    )

    def __init__(
        self,
        stream: StreamId,
        envelope: CommandEnvelope,
        name: str,
        *,
        seconds: float,
        deadline: float,
        since: int,
    ) -> None:
        self.stream = stream
        self.envelope = envelope
        self.name = name
        self.seconds = seconds
        self.deadline = deadline
        self.since = since
        self.payload = pack_command(envelope.command)
        self.may_be_handled = False
        self.refused: dict[str, str] = {}
        self.late = 0
        self.node: str | None = None
        self.sent = 0.0

    @property
    def told(self) -> bool:
        """Whether no reply waits."""
        return self.envelope.future is None

    @property
    def unfit(self) -> Set[str]:
        """Ids of the nodes that have refused it."""
        return self.refused.keys()
