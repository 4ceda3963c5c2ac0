"""The options of a system, checked where they enter."""

from dataclasses import dataclass

from uno_actors.aggregates.snapshots import check_every
from uno_actors.clock import Clock
from uno_actors.quantities import check_count, check_duration


@dataclass(frozen=True, slots=True)
class Settings:
    """What a system was told; see `ActorSystem`."""

    name: str
    ask_timeout: float
    passivate_after: float
    max_active: int
    snapshot_every: int | None
    remember_commands: int
    stop_timeout: float
    clock: Clock

    def __post_init__(self) -> None:
        check_duration("ask_timeout", self.ask_timeout)
        check_duration("passivate_after", self.passivate_after)
        check_duration("stop_timeout", self.stop_timeout, zero=True)
        check_count("max_active", self.max_active, 1)
        check_count("remember_commands", self.remember_commands)
        check_every(self.snapshot_every)
