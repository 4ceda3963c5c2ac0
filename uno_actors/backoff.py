"""Back-off: how long to wait before each restart or retry."""

import random
from collections.abc import Callable
from dataclasses import dataclass

from uno_actors.errors import InvalidNumber
from uno_actors.quantities import check_duration, check_number


@dataclass(frozen=True, slots=True)
class Backoff:
    """How long to wait before restart k (from 0): ``min(max, initial * factor ** k)``, then jitter.

    Jitter shortens the delay by up to its share, so that ``max`` remains the limit and children that failed
    together do not restart together.

    Args:
        initial: Seconds before the first restart.
        max: Maximum number of seconds.
        factor: Growth from one restart to the next.
        jitter: Share of the delay that is random, from 0 to 1.
        reset_after: Seconds without a failure after which k is 0 again; default is ``max``, or the
            supervisor's ``within`` if that is longer. When a handler fails at an event, k is the number of its
            earlier failures at this event.

    Raises:
        ValueError: A value is out of range.
    """

    initial: float = 0.1
    max: float = 10.0
    factor: float = 2.0
    jitter: float = 0.2
    reset_after: float | None = None

    def __post_init__(self) -> None:
        check_duration("back-off's initial", self.initial, zero=True)
        check_duration("back-off's max", self.max, zero=True)
        if self.initial > self.max:
            raise InvalidNumber("back-off's initial", f"at most its max, {self.max}", self.initial)
        check_number("back-off's factor", self.factor, 1)
        check_number("back-off's jitter", self.jitter, 0, 1)
        check_duration("back-off's reset_after", self.reset_after, zero=True, none=True)

    def delay(self, restart: int, chance: float) -> float:
        """Seconds before restart number ``restart`` (from 0); ``chance`` in [0, 1) decides the jitter."""
        try:
            delay = min(self.max, self.initial * self.factor**restart)
        except OverflowError:
            delay = self.max if self.initial else 0.0
        return delay * (1 - self.jitter * chance)


chance: Callable[[], float] = random.random
"""The source of jitter."""
