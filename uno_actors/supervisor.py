"""Supervision: what happens when an actor fails, decided by values and carried out elsewhere.

The rules are Erlang/OTP's (https://www.erlang.org/doc/system/sup_princ.html), with back-off added: a failed
child is restarted; a supervisor that sees more restarts than its budget allows stops its children and fails
to its parent.
"""

import math
import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True, slots=True)
class Backoff:
    """How long to wait before restart k (from 0): ``min(max, initial * factor ** k)``, then jitter.

    Jitter takes away up to its share of the delay, so that ``max`` stays a bound and children that failed
    together do not come back together.

    Args:
        initial: Seconds before the first restart.
        max: Seconds at the most.
        factor: Growth from one restart to the next.
        jitter: Share of the delay that is random, from 0 to 1.

    Raises:
        ValueError: A value is out of its range.
    """

    initial: float = 0.1
    max: float = 10.0
    factor: float = 2.0
    jitter: float = 0.2

    def __post_init__(self) -> None:
        if not 0 <= self.initial <= self.max < math.inf:
            raise ValueError(
                f"back-off needs 0 <= initial <= max; found initial={self.initial}, max={self.max}"
            )
        if self.factor < 1:
            raise ValueError(f"back-off needs factor >= 1; found {self.factor}")
        if not 0 <= self.jitter <= 1:
            raise ValueError(f"back-off needs 0 <= jitter <= 1; found {self.jitter}")

    def delay(self, restart: int, chance: float) -> float:
        """Seconds before restart number ``restart`` (from 0); ``chance`` in [0, 1) decides the jitter."""
        try:
            delay = min(self.max, self.initial * self.factor**restart)
        except OverflowError:
            delay = self.max if self.initial else 0.0
        return delay * (1 - self.jitter * chance)


@dataclass(frozen=True, slots=True)
class RestartBudget:
    """At most ``max_restarts`` restarts within ``within`` seconds, the boundary included.

    Args:
        max_restarts: ``None`` for no limit; 0 gives up at the first failure.
        within: Seconds of the sliding window.
    """

    max_restarts: int | None = None
    within: float = 30.0

    def __post_init__(self) -> None:
        if self.max_restarts is not None and self.max_restarts < 0:
            raise ValueError(f"max_restarts must not be negative; found {self.max_restarts}")
        if self.within <= 0:
            raise ValueError(f"within must be a positive number of seconds; found {self.within}")

    def recent(self, restarts: Sequence[float], now: float) -> tuple[float, ...]:
        """Those of the times ``restarts`` that still count at ``now``."""
        return tuple(moment for moment in restarts if now - moment <= self.within)

    def allows(self, restarts: Sequence[float], now: float) -> bool:
        """Whether one more restart at ``now`` stays within the budget."""
        return self.max_restarts is None or len(self.recent(restarts, now)) < self.max_restarts

    def __str__(self) -> str:
        return (
            "any number of restarts"
            if self.max_restarts is None
            else f"{self.max_restarts} restarts within {self.within:g} s"
        )


@dataclass(frozen=True, slots=True)
class Restart:
    """Start the child again after ``delay`` seconds; it gets the same event again."""

    delay: float


@dataclass(frozen=True, slots=True)
class DeadLetterEvent:
    """The event is poisonous: set it aside, then start the child again after ``delay`` seconds."""

    delay: float


@dataclass(frozen=True, slots=True)
class GiveUp:
    """The budget is used up: stop the children and fail to the parent."""


Decision = Restart | DeadLetterEvent | GiveUp


def decide(
    budget: RestartBudget,
    backoff: Backoff,
    *,
    attempt: int,
    max_attempts: int,
    restarts: Sequence[float],
    now: float,
    chance: float,
) -> Decision:
    """What to do about a failed child.

    Args:
        budget: Of its supervisor.
        backoff: Of its supervisor.
        attempt: How often the same event has failed now, from 1.
        max_attempts: After so many the event is set aside.
        restarts: When the supervisor's children were restarted before, on a monotonic clock.
        now: On that clock.
        chance: In [0, 1), for the jitter.
    """
    if not budget.allows(restarts, now):
        return GiveUp()
    if attempt >= max_attempts:
        return DeadLetterEvent(backoff.delay(0, chance))
    return Restart(backoff.delay(attempt - 1, chance))


@dataclass(frozen=True, slots=True)
class Supervisor:
    """A supervisor of event handlers, given to ``ActorSystem(supervisors=[...])``.

    Args:
        name: Unique in the system.
        children: Handlers as in ``ActorSystem(handlers=[...])``.
        max_restarts: Restarts of all children together within ``within`` seconds before it gives up;
            ``None`` for no limit.
        within: Seconds of the sliding window.
        backoff: Time between a failure and the restart.
    """

    name: str
    children: Sequence[Any] = ()
    max_restarts: int | None = 5
    within: float = 30.0
    backoff: Backoff = field(default_factory=Backoff)

    def __post_init__(self) -> None:
        if not self.name:
            raise ValueError("a supervisor needs a name")
        RestartBudget(self.max_restarts, self.within)  # checks both

    @property
    def budget(self) -> RestartBudget:
        """``max_restarts`` and ``within`` as one value."""
        return RestartBudget(self.max_restarts, self.within)


chance: Callable[[], float] = random.random
"""Where jitter comes from."""
