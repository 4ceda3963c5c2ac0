"""The options of a system, checked at construction."""

from collections.abc import Mapping
from dataclasses import MISSING, dataclass, field, fields
from typing import Any, Self

from uno_actors.clock import Clock, SystemClock
from uno_actors.quantities import check_count, check_duration

STEPS = 10_000
"""Steps that a flight recorder keeps unless an option gives another number."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """The options of a system; every part of the system receives the whole record.

    `ActorSystem` documents each option. An option is written in two places: here, with its default and its check, and
    in the signature of `ActorSystem`, where users and editors look for it. Configuration files take the default
    from here. ``tests/test_settings.py`` compares all of them.

    Attributes:
        name: For logs.
        ask_timeout: Seconds until an ask without a reply ends with an error.
        passivate_after: Idle seconds after which an aggregate is passivated.
        max_active: Maximum number of active aggregates.
        snapshot_every: Number of events between two snapshots; 0 for no snapshots.
        remember_commands: Number of its last events for which an aggregate remembers the commands.
        stop_timeout: Maximum seconds to stop.
        scheduler: Whether it sends scheduled commands; ``None`` for as soon as its store has some.
        recorder: Steps that its flight recorder keeps: a number, ``True`` for the usual one, ``False`` for none.
        recordings: Directory for the recordings; ``None`` for one in the store's directory.
        record_timeouts: Whether a recording is written when a command has timed out.
        clock: Measures all times.
    """

    name: str = "system"
    ask_timeout: float = 30.0
    passivate_after: float = 300.0
    max_active: int = 100_000
    snapshot_every: int | None = 200
    remember_commands: int = 256
    stop_timeout: float = 10.0
    scheduler: bool | None = None
    recorder: bool | int = True
    recordings: str | None = None
    record_timeouts: bool = False
    clock: Clock = field(default_factory=SystemClock)

    def __post_init__(self) -> None:
        check_duration("ask_timeout", self.ask_timeout)
        check_duration("passivate_after", self.passivate_after)
        check_count("max_active", self.max_active, 1)
        check_count("snapshot_every", self.snapshot_every, none=True)
        check_count("remember_commands", self.remember_commands)
        check_duration("stop_timeout", self.stop_timeout, zero=True)
        if not isinstance(self.recorder, bool):
            check_count("recorder", self.recorder)
        object.__setattr__(self, "snapshot_every", self.snapshot_every or 0)  # one way to say "no snapshots"

    @property
    def steps(self) -> int:
        """Maximum number of steps that the flight recorder keeps; 0 for no flight recorder."""
        return (STEPS if self.recorder else 0) if isinstance(self.recorder, bool) else self.recorder

    @classmethod
    def of(cls, arguments: Mapping[str, Any]) -> Self:
        """The options among the arguments of a function that has a parameter for each.

        Args:
            arguments: All its arguments by name. ``None`` for an option whose default is created anew for each
                system, such as the clock, stands for that default.

        Raises:
            InvalidNumber: An option is not valid.
        """
        chosen = {option.name: arguments[option.name] for option in fields(cls)}
        created = {option.name for option in fields(cls) if option.default_factory is not MISSING}
        return cls(
            **{name: value for name, value in chosen.items() if value is not None or name not in created}
        )
