"""What a node has routed and served."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class PeerStatistics:
    """Counters of what this node has to do with another one.

    Attributes:
        sent: Commands sent to it.
        sent_again: Those among them that another node, or this one at an earlier time, may have had before.
        served: Commands served for it.
        seconds: Mean time until its answer, in seconds; ``None`` if it has not answered yet.
    """

    sent: int = 0
    sent_again: int = 0
    served: int = 0
    seconds: float | None = None


@dataclass(frozen=True, slots=True)
class ClusterStatistics:
    """Counters of a node since its start, and its current state.

    Attributes:
        node: Its name.
        local: Commands of this node for aggregates that it owns, or has borrowed.
        sent: Commands sent to other nodes.
        sent_again: Those among them that were sent before: the other node ended, or its answer was lost.
        served: Commands of other nodes handled here.
        waiting: Commands sent to other nodes that are not answered yet.
        homeless: Those among them that wait for a node that serves them.
        peers: The same for each other node, by its name.
        lent: Aggregates of this node that other nodes have on loan now, because they alone ask for them.
        borrowed: Aggregates of other nodes that this one has on loan now.
        recalled: Loans that this node has ended because another node, or its own program, asked too.
    """

    node: str
    local: int
    sent: int
    sent_again: int
    served: int
    waiting: int
    homeless: int
    peers: dict[str, PeerStatistics]
    lent: int = 0
    borrowed: int = 0
    recalled: int = 0
