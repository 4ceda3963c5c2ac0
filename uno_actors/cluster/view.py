"""The cluster as a program sees it: its members, who owns what, and what this node has routed."""

from uno_actors.cluster.node import Node
from uno_actors.cluster.statistics import ClusterStatistics
from uno_actors.domain.aggregate import AggregateRoot, known_commands
from uno_actors.store.codec import StreamId
from uno_actors.store.membership import Member


class ClusterView:
    """What one node knows of its cluster. Others may know it otherwise for a moment; that breaks no promise.

    Use it on the event loop of the system.
    """

    def __init__(self, node: Node) -> None:
        self._node = node

    @property
    def name(self) -> str:
        """Name of this node."""
        return self._node.name

    def members(self) -> list[Member]:
        """The nodes that are up, this one included, sorted by name."""
        return sorted(self._node.announcement.members, key=lambda member: (member.name, member.id))

    def owner(self, aggregate_type: type[AggregateRoot], aggregate_id: str) -> Member | None:
        """The node that has an aggregate, as far as this one knows; ``None`` if no node serves its type.

        It is the owner by the members, or the node to which this one has lent the aggregate, or this one if it has
        borrowed it. A third node does not know of a loan.
        """
        stream = StreamId(aggregate_type.aggregate_type, aggregate_id)
        commands = sorted(known_commands(aggregate_type)) or [""]
        owners = (self._node.owner(stream, command) for command in commands)
        return next((owner for owner in owners if owner is not None), None)

    def statistics(self) -> ClusterStatistics:
        """What this node has routed and served since its start."""
        return self._node.statistics()

    def __repr__(self) -> str:
        return f"<cluster of {len(self._node.announcement.members)} nodes, seen by {self.name}>"
