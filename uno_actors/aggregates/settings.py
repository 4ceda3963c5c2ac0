"""The options of aggregates, checked where they enter."""

from dataclasses import dataclass

from uno_actors.aggregates.snapshots import check_every
from uno_actors.clock import Clock
from uno_actors.quantities import check_count, check_duration


@dataclass(frozen=True, slots=True, kw_only=True)
class AggregateSettings:
    """The options of the aggregates of a system.

    Attributes:
        ask_timeout: Seconds until a command without a reply times out, unless its sender gives a timeout.
        passivate_after: Seconds without a command after which an aggregate is passivated.
        max_active: Aggregates that stay active; beyond it those idle for longest are passivated.
        snapshot_every: Events between two snapshots of an aggregate; 0 or ``None`` to take none.
        remember_commands: For how many of its last events an aggregate remembers the commands; 0 for none.
        clock: For timeouts and passivation.
    """

    ask_timeout: float
    passivate_after: float
    max_active: int
    snapshot_every: int | None
    remember_commands: int
    clock: Clock

    def __post_init__(self) -> None:
        check_duration("ask_timeout", self.ask_timeout)
        check_duration("passivate_after", self.passivate_after)
        check_count("max_active", self.max_active, 1)
        check_count("remember_commands", self.remember_commands)
        check_every(self.snapshot_every)
