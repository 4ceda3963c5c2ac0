"""The options of a system, checked where they enter."""

from dataclasses import dataclass

from typing_extensions import override

from uno_actors.aggregates.settings import AggregateSettings
from uno_actors.quantities import check_duration


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings(AggregateSettings):
    """The options of a system, passed whole to its parts.

    Attributes:
        name: For logs.
        stop_timeout: Seconds that stopping may take.
    """

    name: str
    stop_timeout: float

    @override
    def __post_init__(self) -> None:
        AggregateSettings.__post_init__(self)
        check_duration("stop_timeout", self.stop_timeout, zero=True)
