"""The options of a system, checked at construction."""

from dataclasses import dataclass

from typing_extensions import override

from uno_actors.aggregates.settings import AggregateSettings
from uno_actors.quantities import check_duration


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings(AggregateSettings):
    """The options of a system; every part of the system receives the whole record.

    Attributes:
        name: Name of the system in logs.
        stop_timeout: Maximum duration of stopping, in seconds.
    """

    name: str
    stop_timeout: float

    @override
    def __post_init__(self) -> None:
        AggregateSettings.__post_init__(self)
        check_duration("stop_timeout", self.stop_timeout, zero=True)
