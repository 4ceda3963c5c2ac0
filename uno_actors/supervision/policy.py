"""The decisions of a supervisor as pure functions: from its state and an incident to a new state and a decision.

Nothing here waits, starts or stops: `uno_actors.supervision.supervisor` carries out the decisions and reports the
outcome. The rules are those of Erlang/OTP's ``supervisor``.
"""

from dataclasses import dataclass, replace
from typing import Literal

from uno_actors.errors import RetryLater
from uno_actors.supervision.spec import ChildSpec, RestartType, Supervisor

ChildStatus = Literal["running", "restarting", "stopped"]


@dataclass(frozen=True, slots=True)
class ChildState:
    """One child.

    Attributes:
        name: Unique under the supervisor.
        restart: See `uno_actors.supervision.spec.RestartType`.
        significant: Whether its exit counts for ``auto_shutdown``.
        status: ``restarting`` from an incident until it has started again; ``stopped`` when it must not run.
        restarts: Times of the restarts that its own failures caused and that still count.
        streak: Failures in a row, for the back-off.
        since: When it last started or failed.
    """

    name: str
    restart: RestartType = "permanent"
    significant: bool = False
    status: ChildStatus = "running"
    restarts: tuple[float, ...] = ()
    streak: int = 0
    since: float = 0.0


@dataclass(frozen=True, slots=True)
class Nothing:
    """Do nothing."""


@dataclass(frozen=True, slots=True)
class RestartGroup:
    """Stop ``stop``, one after the other, wait ``delay`` seconds, then start ``start``, one after the other.

    It replaces earlier decisions for any of these children. Children that have ended already are not stopped again.
    """

    stop: tuple[str, ...]
    start: tuple[str, ...]
    delay: float


@dataclass(frozen=True, slots=True)
class Resume:
    """Let the child continue unchanged, without the message or event it failed at."""

    name: str


@dataclass(frozen=True, slots=True)
class Terminate:
    """Do not restart the child; stop it if it still runs."""

    name: str


@dataclass(frozen=True, slots=True)
class GiveUp:
    """Stop all children in reverse order, then fail to the parent."""

    name: str
    reason: str


@dataclass(frozen=True, slots=True)
class ShutDown:
    """Stop all children in reverse order, then exit normally."""

    name: str


Decision = Nothing | RestartGroup | Resume | Terminate | GiveUp | ShutDown


@dataclass(frozen=True, slots=True)
class SupervisorState:
    """The state of one supervisor: its children, in the order of their start.

    Attributes:
        rules: Of the supervisor.
        children: The children.
        restarts: Times of the children's restarts that still count, if they share the budget.
    """

    rules: Supervisor
    children: tuple[ChildState, ...] = ()
    restarts: tuple[float, ...] = ()

    def __getitem__(self, name: str) -> ChildState:
        return next(child for child in self.children if child.name == name)

    @property
    def names(self) -> tuple[str, ...]:
        """Names of the children, in the order of their start."""
        return tuple(child.name for child in self.children)

    # --- what was done ---

    def added(self, name: str, spec: ChildSpec, now: float) -> "SupervisorState":
        """Add a child that was started, as the last one."""
        child = ChildState(name, spec.restart, spec.significant, since=now)
        return replace(self, children=(*self.children, child))

    def started(self, name: str, now: float) -> "SupervisorState":
        """Note that a child has started again."""
        return self._with(replace(self[name], status="running", since=now))

    def starting(self, name: str) -> "SupervisorState":
        """Note that a stopped child is being started on request."""
        return self._with(replace(self[name], status="restarting"))

    def stopped(self, name: str) -> "SupervisorState":
        """Note that a child was stopped on request; forget a temporary one."""
        if self[name].restart == "temporary":
            return self.without(name)
        return self._with(replace(self[name], status="stopped"))

    def without(self, name: str) -> "SupervisorState":
        """Forget a child."""
        return replace(self, children=tuple(child for child in self.children if child.name != name))

    # --- what happened, and what to do about it ---

    def failed(
        self,
        name: str,
        error: BaseException,
        now: float,
        chance: float,
        streak: int | None = None,
        *,
        can_resume: bool = True,
    ) -> "tuple[SupervisorState, Decision]":
        """Decide after a running child has failed.

        Args:
            name: Of the child.
            error: What it raised.
            now: Seconds on a monotonic clock.
            chance: In [0, 1), for the jitter.
            streak: How often the same event has failed before, if known; otherwise failures are counted.
            can_resume: Whether it could continue unchanged; a supervisor that has given up cannot.
        """
        child = self[name]
        if child.status != "running":
            return self, Nothing()  # it is being stopped or restarted already: the same incident
        match self.rules.directive(error):
            case "resume" if can_resume:
                return self, Resume(name)
            case "escalate":
                return self, GiveUp(name, "failed, which escalates")
            case "stop":
                return self._terminated(name, by_itself=False)
        if child.restart == "temporary":
            return self._terminated(name, by_itself=True)
        at_least = error.wait if isinstance(error, RetryLater) else 0.0
        return self._restarted(name, now, chance, streak, at_least)

    def ended(self, name: str, now: float, chance: float) -> "tuple[SupervisorState, Decision]":
        """Decide after a running child has exited by itself, without a failure."""
        child = self[name]
        if child.status != "running":
            return self, Nothing()
        if child.restart != "permanent":
            return self._terminated(name, by_itself=True)
        return self._restarted(name, now, chance, None)

    def start_failed(self, name: str, now: float, chance: float) -> "tuple[SupervisorState, Decision]":
        """Decide after the restart of a child has failed; that counts as one more restart."""
        child = self[name]
        if child.status != "restarting":
            return self, Nothing()
        return self._restarted(name, now, chance, None)

    def _terminated(self, name: str, *, by_itself: bool) -> "tuple[SupervisorState, Decision]":
        significant = by_itself and self[name].significant
        after = self.stopped(name)
        others = any(
            child.significant and child.status != "stopped" for child in after.children if child.name != name
        )
        match self.rules.auto_shutdown:
            case "any_significant" if significant:
                return after, ShutDown(name)
            case "all_significant" if significant and not others:
                return after, ShutDown(name)
        return after, Terminate(name)

    def _restarted(
        self, name: str, now: float, chance: float, streak: int | None, at_least: float = 0.0
    ) -> "tuple[SupervisorState, Decision]":
        rules, child, budget = self.rules, self[name], self.rules.restart_budget
        before = child.restarts if rules.budget == "child" else self.restarts
        if not budget.allows(before, now):
            return self, GiveUp(name, f"failed again after {budget}")
        if streak is None:
            is_quiet = child.status == "running" and now - child.since >= rules.quiet_after
            streak = 0 if is_quiet else child.streak
        restarts = (*budget.recent(before, now), now)
        failed = replace(child, streak=streak + 1, since=now)
        if rules.budget == "child":
            state = self._with(replace(failed, restarts=restarts))
        else:
            state = replace(self._with(failed), restarts=restarts)
        group = state._group(name)
        start = tuple(other.name for other in group if other.restart != "temporary" or other.name == name)
        for other in group:
            if other.name in start:
                state = state._with(replace(state[other.name], status="restarting"))
            else:
                state = state.without(other.name)
        stop = tuple(other.name for other in reversed(group))
        return state, RestartGroup(stop, start, max(at_least, rules.backoff.delay(streak, chance)))

    def _group(self, name: str) -> tuple[ChildState, ...]:
        """The children that are restarted together with ``name``, in the order of their start."""
        match self.rules.strategy:
            case "one_for_all":
                return self.children
            case "rest_for_one":
                return self.children[self.names.index(name) :]
        return (self[name],)

    def _with(self, changed: ChildState) -> "SupervisorState":
        return replace(
            self,
            children=tuple(changed if child.name == changed.name else child for child in self.children),
        )
