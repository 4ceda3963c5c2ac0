"""What a supervisor decides, as values: a family is its children's states, an order is what is to be done.

Nothing here waits, starts or stops: `uno_actors.supervision.supervisor` carries out the orders and reports what came
of them. The rules are those of Erlang/OTP's ``supervisor``.
"""

from dataclasses import dataclass, replace
from typing import Literal

from uno_actors.supervision.spec import ChildSpec, RestartType, Supervisor

MemberState = Literal["running", "restarting", "stopped"]


@dataclass(frozen=True, slots=True)
class Member:
    """One child.

    Attributes:
        name: Unique in the family.
        restart: See `uno_actors.supervision.spec.RestartType`.
        significant: Whether its end counts for ``auto_shutdown``.
        state: ``restarting`` from an incident until it has started again; ``stopped`` when it is not to run.
        restarts: When it was restarted on its own account, as far as that still counts.
        streak: Failures in a row, for the back-off.
        since: When it last started or failed.
    """

    name: str
    restart: RestartType = "permanent"
    significant: bool = False
    state: MemberState = "running"
    restarts: tuple[float, ...] = ()
    streak: int = 0
    since: float = 0.0


@dataclass(frozen=True, slots=True)
class Nothing:
    """Nothing is to be done."""


@dataclass(frozen=True, slots=True)
class RestartGroup:
    """Stop ``stop``, one after the other, wait ``delay`` seconds, then start ``start``, one after the other.

    It replaces all that was ordered before for any of these. Those that have ended already are not stopped again.
    """

    stop: tuple[str, ...]
    start: tuple[str, ...]
    delay: float


@dataclass(frozen=True, slots=True)
class Resume:
    """Let the child go on as it is, without what it failed at."""

    name: str


@dataclass(frozen=True, slots=True)
class LetGo:
    """The child is not started again: see that nothing of it is left."""

    name: str


@dataclass(frozen=True, slots=True)
class GiveUp:
    """Stop all children in reverse order, then fail to the parent."""

    name: str
    reason: str


@dataclass(frozen=True, slots=True)
class ShutDown:
    """Stop all children in reverse order, then end as one who has done his work."""

    name: str


Order = Nothing | RestartGroup | Resume | LetGo | GiveUp | ShutDown


@dataclass(frozen=True, slots=True)
class Family:
    """The children of one supervisor, in the order of their start.

    Attributes:
        rules: Of the supervisor.
        members: The children.
        restarts: When children were restarted, as far as that still counts, if they share the budget.
    """

    rules: Supervisor
    members: tuple[Member, ...] = ()
    restarts: tuple[float, ...] = ()

    def __getitem__(self, name: str) -> Member:
        return next(member for member in self.members if member.name == name)

    @property
    def names(self) -> tuple[str, ...]:
        """Of all children, in the order of their start."""
        return tuple(member.name for member in self.members)

    # --- what was done ---

    def added(self, name: str, spec: ChildSpec, now: float) -> "Family":
        """A child was started, as the last."""
        member = Member(name, spec.restart, spec.significant, since=now)
        return replace(self, members=(*self.members, member))

    def started(self, name: str, now: float) -> "Family":
        """A child has started again."""
        return self._with(replace(self[name], state="running", since=now))

    def starting(self, name: str) -> "Family":
        """A stopped child is being started because somebody wants it."""
        return self._with(replace(self[name], state="restarting"))

    def stopped(self, name: str) -> "Family":
        """A child was stopped because somebody wanted it; a temporary one is forgotten."""
        if self[name].restart == "temporary":
            return self.without(name)
        return self._with(replace(self[name], state="stopped"))

    def without(self, name: str) -> "Family":
        """A child is forgotten."""
        return replace(self, members=tuple(member for member in self.members if member.name != name))

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
    ) -> "tuple[Family, Order]":
        """A running child has failed.

        Args:
            name: Which.
            error: With what.
            now: On a monotonic clock.
            chance: In [0, 1), for the jitter.
            streak: How often it has failed at the same thing before, if that is known; else it is counted.
            can_resume: Whether it could go on as it is; a supervisor that has given up cannot.
        """
        member = self[name]
        if member.state != "running":
            return self, Nothing()  # it was to be stopped or restarted anyhow: the same incident
        match self.rules.directive(error):
            case "resume" if can_resume:
                return self, Resume(name)
            case "escalate":
                return self, GiveUp(name, "failed, which escalates")
            case "stop":
                return self._departed(name, by_itself=False)
        if member.restart == "temporary":
            return self._departed(name, by_itself=True)
        return self._restarted(name, now, chance, streak)

    def ended(self, name: str, now: float, chance: float) -> "tuple[Family, Order]":
        """A running child has ended by itself, without a failure."""
        member = self[name]
        if member.state != "running":
            return self, Nothing()
        if member.restart != "permanent":
            return self._departed(name, by_itself=True)
        return self._restarted(name, now, chance, None)

    def start_failed(self, name: str, now: float, chance: float) -> "tuple[Family, Order]":
        """A child that was to be started again could not be; that counts as one more restart."""
        member = self[name]
        if member.state != "restarting":
            return self, Nothing()
        return self._restarted(name, now, chance, None)

    def _departed(self, name: str, *, by_itself: bool) -> "tuple[Family, Order]":
        significant = by_itself and self[name].significant
        after = self.stopped(name)
        others = any(
            member.significant and member.state != "stopped"
            for member in after.members
            if member.name != name
        )
        match self.rules.auto_shutdown:
            case "any_significant" if significant:
                return after, ShutDown(name)
            case "all_significant" if significant and not others:
                return after, ShutDown(name)
        return after, LetGo(name)

    def _restarted(self, name: str, now: float, chance: float, streak: int | None) -> "tuple[Family, Order]":
        rules, member, budget = self.rules, self[name], self.rules.restart_budget
        before = member.restarts if rules.budget == "child" else self.restarts
        if not budget.allows(before, now):
            return self, GiveUp(name, f"failed again after {budget}")
        if streak is None:
            is_quiet = member.state == "running" and now - member.since >= rules.quiet_after
            streak = 0 if is_quiet else member.streak
        restarts = (*budget.recent(before, now), now)
        failed = replace(member, streak=streak + 1, since=now)
        if rules.budget == "child":
            family = self._with(replace(failed, restarts=restarts))
        else:
            family = replace(self._with(failed), restarts=restarts)
        group = family._group(name)
        start = tuple(other.name for other in group if other.restart != "temporary" or other.name == name)
        for other in group:
            if other.name in start:
                family = family._with(replace(family[other.name], state="restarting"))
            else:
                family = family.without(other.name)
        stop = tuple(other.name for other in reversed(group))
        return family, RestartGroup(stop, start, rules.backoff.delay(streak, chance))

    def _group(self, name: str) -> tuple[Member, ...]:
        """Those that are restarted with ``name``, in the order of their start."""
        match self.rules.strategy:
            case "one_for_all":
                return self.members
            case "rest_for_one":
                return self.members[self.names.index(name) :]
        return (self[name],)

    def _with(self, changed: Member) -> "Family":
        return replace(
            self,
            members=tuple(changed if member.name == changed.name else member for member in self.members),
        )
