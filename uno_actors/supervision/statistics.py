"""What a supervisor reports about itself: its restart budget, and the back-offs under way."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

from uno_actors.supervision.policy import SupervisorState

SupervisorStatus = Literal["running", "gave up", "stopped"]


@dataclass(frozen=True, slots=True)
class SupervisorStatistics:
    """A supervisor's current state and counters.

    Attributes:
        state: ``running``; ``gave up`` until its parent starts it again or the system stops; ``stopped`` if it has
            ended for another reason.
        children: Number of its children, running or not.
        restarts: How often it has decided to restart children since it was made; siblings restarted with a failed
            child do not count.
        budget: Restarts that its budget allows within ``within`` seconds; ``None`` for no limit.
        within: Seconds of the sliding window of the budget.
        left: Restarts that the budget still allows now, of the child with the fewest if each has its own; ``None``
            for no limit.
        reason: Why it gave up; ``None`` unless it did.
        restarting: Seconds until the back-off of each child ends that waits for its restart, by the child's name.
    """

    state: SupervisorStatus
    children: int
    restarts: int
    budget: int | None
    within: float
    left: int | None
    reason: str | None = None
    restarting: Mapping[str, float] = field(default_factory=dict)


def restarts_left(state: SupervisorState, now: float) -> int | None:
    """The restarts that the budget still allows at ``now``, of the child with the fewest if each has its own."""
    rules, budget = state.rules, state.rules.restart_budget
    if budget.max_restarts is None:
        return None
    counted = [child.restarts for child in state.children] if rules.budget == "child" else [state.restarts]
    return budget.max_restarts - max((len(budget.recent(each, now)) for each in counted), default=0)
