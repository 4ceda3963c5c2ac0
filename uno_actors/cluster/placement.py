"""Placement: which node owns an aggregate. A pure function of the members, the same on every node.

An aggregate belongs to one of 1,024 shards by a hash of its type and id, and each shard ranks the nodes by rendezvous
hashing. So when a node joins, only the aggregates move that it wins; when one leaves, only those that it had.
"""

from collections.abc import Iterable, Sequence, Set

from uno_actors.rendezvous import ranked_by_capacity
from uno_actors.shards import SHARDS, shard_of_key
from uno_actors.store.codec import StreamId
from uno_actors.store.membership import Member


def shard_of(stream: StreamId) -> int:
    """The shard of an aggregate, from 0 to `SHARDS` - 1."""
    return shard_of_key(stream.aggregate_type, stream.aggregate_id)


def serves(member: Member, aggregate_type: str, command: str) -> bool:
    """Whether commands of this name may be sent to ``member``, as far as its announcement says.

    An empty name asks whether it serves the type, which may have no commands: a process manager only reacts.
    """
    return (
        member.address is not None
        and not member.leaving
        and "aggregates" in member.roles
        and any(
            name == aggregate_type and (not command or command in commands)
            for name, commands in member.commands
        )
    )


class Placement:
    """Who owns what, for one set of members. A value: a change of the members makes a new one.

    Args:
        members: All members; those that do not serve a command are never chosen for it.
    """

    def __init__(self, members: Iterable[Member] = ()) -> None:
        self.members = {member.id: member for member in members}
        self._tables: dict[tuple[str, str], OwnersOfShards] = {}
        self._shared: dict[frozenset[str], OwnersOfShards] = {}  # nearly always one: all nodes serve the same

    def owner(self, stream: StreamId, command: str, unfit: Set[str] = frozenset()) -> Member | None:
        """The node that is to have an aggregate in memory; ``None`` if no member serves the command.

        Args:
            stream: Of the aggregate.
            command: Name of the command, as nodes announce it.
            unfit: Ids of members that are not chosen.
        """
        table = self.table(stream.aggregate_type, command)
        if unfit:
            table = self._among(table.without(unfit))
        return table.owner(shard_of(stream))

    def table(self, aggregate_type: str, command: str) -> "OwnersOfShards":
        """The owners of all aggregates of a type, for one command."""
        table = self._tables.get((aggregate_type, command))
        if table is None:
            able = [member for member in self.members.values() if serves(member, aggregate_type, command)]
            table = self._tables[aggregate_type, command] = self._among(able)
        return table

    def _among(self, members: Sequence[Member]) -> "OwnersOfShards":
        ids = frozenset(member.id for member in members)
        table = self._shared.get(ids)
        if table is None:
            table = self._shared[ids] = OwnersOfShards(members)
        return table


class OwnersOfShards:
    """The owners of all shards among nodes that serve the same; each is computed when it is first asked for."""

    __slots__ = ("_capacities", "_members", "_owners")

    def __init__(self, members: Sequence[Member]) -> None:
        self._members = {member.id: member for member in members}
        self._capacities = {member.id: member.capacity for member in members}
        self._owners: list[Member | None] = [None] * SHARDS

    def owner(self, shard: int) -> Member | None:
        """The owner of one shard; ``None`` if there are no members."""
        owner = self._owners[shard]
        if owner is None and self._members:
            owner = self._owners[shard] = self._members[ranked_by_capacity(str(shard), self._capacities)[0]]
        return owner

    def without(self, unfit: Set[str]) -> list[Member]:
        """The members except those of these ids."""
        return [member for member_id, member in self._members.items() if member_id not in unfit]
