"""What an SQL store reports about itself while it runs."""

from dataclasses import dataclass

from uno_stores.sql.connections import Connections
from uno_stores.sql.reader import Reader
from uno_stores.sql.writer import Writer


@dataclass(frozen=True, slots=True)
class DatabaseStatistics:
    """The current state of a `DatabaseEventStore`. The last five describe the connection kept to PostgreSQL.

    Attributes:
        reading: Reads under way.
        writing: Whether the writer has jobs.
        waiting: Jobs that no transaction has taken yet.
        connects: How often the connection was made.
        listens: Whether it is notified of commits now.
        leases: The names that the store holds.
        locked: Those of them that the session of the connection has locked.
        requested: Names that the store has requested and has no answer for.
    """

    reading: int
    writing: bool
    waiting: int
    connects: int = 0
    listens: bool = False
    leases: frozenset[str] = frozenset()
    locked: frozenset[str] = frozenset()
    requested: frozenset[str] = frozenset()


def statistics(connections: Connections, writer: Writer, reader: Reader) -> DatabaseStatistics:
    """The current state of a store, given its parts."""
    under_way = len(reader.under_way), writer.task is not None, len(writer.waiting)
    if (wire := connections.wire) is None:
        return DatabaseStatistics(*under_way)
    held = wire.leases
    return DatabaseStatistics(
        *under_way,
        wire.connects,
        wire.listens,
        frozenset(held.held),
        frozenset(held.locked),
        frozenset(held.requested),
    )
