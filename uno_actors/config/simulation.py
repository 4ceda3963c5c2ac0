"""Simulates an hour of failures under the rules of supervision: the decisions of a real system, in virtual time.

A `Fault` gives a child its work: messages at a steady rate, some of which fail. Handling takes no time; only the waits
of back-off do.
"""

import heapq
import itertools
import random
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field

from uno_actors.config.analysis import Node
from uno_actors.errors import CallerError, SupervisorGaveUp
from uno_actors.supervision.policy import (
    Decision,
    GiveUp,
    RestartGroup,
    Resume,
    ShutDown,
    SupervisorState,
    Terminate,
)
from uno_actors.supervision.spec import Supervisor
from uno_actors.units import duration

HOUR = 3600.0
MOST_PER_SECOND = 100.0

_FAULT = re.compile(
    r"(?P<child>\S.*?) +(?:fails +(?P<percent>[0-9]+(?:\.[0-9]+)?) ?%(?: +of +(?P<rate>[0-9]+(?:\.[0-9]+)?)/s)?"
    r"|cannot +start)(?: +for +(?P<lasting>\S+))?(?: +after +(?P<after>\S+))?"
)


class InvalidFault(CallerError, ValueError):
    """A fault that cannot be simulated."""

    def __init__(self, text: str, reason: str) -> None:
        self.text = text
        super().__init__(
            f"cannot simulate {text!r}: {reason}. Write 'mail fails 30%', 'mail fails 100% of 5/s for 10m after 1h'"
            " or 'mail cannot start for 2m'"
        )


class SimulatedFailure(Exception):
    """The error of a child that fails."""


@dataclass(frozen=True, slots=True)
class Fault:
    """How a child fails.

    Attributes:
        child: Name of the child.
        share: Probability that an attempt fails, from 0 to 1; ``None`` if the child cannot even start.
        rate: Messages per second.
        begin: Seconds from the start of the simulation to the first failure.
        end: Seconds from the start of the simulation to the end of the failures.
    """

    child: str
    share: float | None
    rate: float = 1.0
    begin: float = 0.0
    end: float = float("inf")

    @classmethod
    def parse(cls, text: str) -> "Fault":
        """``mail fails 30%``, ``mail fails 100% of 5/s for 10m after 1h``, ``mail cannot start for 2m``.

        Raises:
            InvalidFault: It is none of these.
        """
        found = _FAULT.fullmatch(text.strip())
        if found is None:
            raise InvalidFault(text, "it has another form")
        try:
            begin = duration(found["after"]) if found["after"] else 0.0
            lasting = duration(found["lasting"]) if found["lasting"] else float("inf")
        except ValueError:
            raise InvalidFault(text, "durations are written as 10m or 90s") from None
        rate = float(found["rate"] or 1.0)
        if not 0 < rate <= MOST_PER_SECOND:
            raise InvalidFault(text, f"the rate must be above 0 and at most {MOST_PER_SECOND:g} per second")
        share = None if found["percent"] is None else float(found["percent"]) / 100
        if share is not None and share > 1:
            raise InvalidFault(text, "no more than 100% can fail")
        return cls(found["child"], share, rate, begin, begin + lasting)


@dataclass
class SimulatedChild:
    """The results of one child.

    Attributes:
        handled: Messages handled.
        failures: Attempts and starts that failed.
        restarts: Restarts.
        dead: Messages set aside after their last attempt.
        waiting: Messages that wait at the end.
        down: Seconds in which the child did not run.
        longest: Seconds of the longest time in which it did not run.
    """

    handled: int = 0
    failures: int = 0
    restarts: int = 0
    dead: int = 0
    waiting: int = 0
    down: float = 0.0
    longest: float = 0.0


@dataclass
class Simulation:
    """The results of a simulation.

    Attributes:
        seconds: Virtual seconds that it lasted.
        gave_up: When supervisors gave up, and the path of names to each.
        ended: Whether the system ended, after ``seconds``.
        children: The results of each child, by the path of names to it.
    """

    seconds: float = 0.0
    gave_up: list[tuple[float, tuple[str, ...]]] = field(default_factory=list)
    ended: bool = False
    children: dict[tuple[str, ...], SimulatedChild] = field(default_factory=dict)


def simulate(
    tree: Sequence[Node], faults: Sequence[Fault], seconds: float = HOUR, seed: int = 0
) -> Simulation:
    """Simulate the rules for ``seconds``.

    Args:
        tree: The parts directly under the system, from `uno_actors.config.analysis.analyse`.
        faults: How children fail.
        seconds: Of virtual time.
        seed: Random seed; the same seed gives the same results.

    Raises:
        InvalidFault: A fault names no child, or several.
    """
    run = _Run(random.Random(seed))  # noqa: S311 - for variety, not for secrets
    parents = [_Parent(node, (), run, None) for node in tree if node.supervisor is not None]
    workers = [worker for parent in parents for worker in parent.workers()]
    for fault in faults:
        named = [worker for worker in workers if worker.node.name == fault.child]
        if len(named) != 1:
            known = ", ".join(sorted({worker.node.name for worker in workers})) or "none"
            count = "several children have" if named else "no child has"
            raise InvalidFault(fault.child, f"{count} this name; there are {known}")
        named[0].fault = fault
    for parent in parents:
        parent.start(first=True)
    run.advance(seconds)
    for worker in workers:
        worker.finish()
        run.result.children[worker.path] = worker.result
    return run.result


class _Run:
    """A simulation under way: the virtual clock, the random numbers, and the results so far."""

    def __init__(self, chance: random.Random) -> None:
        self.now = 0.0
        self.chance = chance
        self.result = Simulation()
        self._order = itertools.count()
        self._waiting: list[tuple[float, int, Callable[[], None]]] = []

    def later(self, delay: float, callback: Callable[[], None]) -> None:
        heapq.heappush(self._waiting, (self.now + delay, next(self._order), callback))

    def advance(self, seconds: float) -> None:
        while self._waiting and self._waiting[0][0] <= seconds and not self.result.ended:
            self.now, _, callback = heapq.heappop(self._waiting)
            callback()
        if not self.result.ended:
            self.now = seconds
        self.result.seconds = self.now


class _Child:
    """A handler or an actor."""

    def __init__(self, node: Node, path: tuple[str, ...], run: _Run, parent: "_Parent") -> None:
        self.node = node
        self.path = path
        self.fault: Fault | None = None
        self.result = SimulatedChild()
        self._run = run
        self._parent = parent
        self._attempts = 0
        self._done = 0
        self._life = 0  # callbacks of an earlier life have no effect
        self._down_since: float | None = None
        handler = node.handler
        most = handler.max_attempts if handler is not None else node.spec.max_attempts if node.spec else None
        self._most = most or 1

    def can_start(self) -> bool:
        """Whether its start succeeds now."""
        fault = self.fault
        fails = fault is not None and fault.share is None and fault.begin <= self._run.now < fault.end
        self.result.failures += fails
        return not fails

    def start(self, *, first: bool) -> None:
        """Let it run from now on."""
        self._life += 1
        if self._attempts >= self._most:
            self.give_up_message()
        self._count_down_time()
        self._down_since = None
        self.result.restarts += not first
        fault = self.fault
        if fault is not None and fault.share is not None:
            self._next()
        elif fault is not None and self._run.now <= fault.begin:
            self._in(fault.begin - self._run.now, self._fail)

    def stop(self) -> None:
        """Let it run no longer."""
        self._life += 1
        if self._down_since is None:
            self._down_since = self._run.now

    def finish(self) -> None:
        """Count the messages that still wait, and the time since it stopped."""
        self._count_down_time()
        if self.fault is not None and self.fault.share is not None:
            self.result.waiting = max(0, int(self._run.now * self.fault.rate) - self._done)

    def _count_down_time(self) -> None:
        if self._down_since is not None:
            lasted = self._run.now - self._down_since
            self.result.down += lasted
            self.result.longest = max(self.result.longest, lasted)

    def give_up_message(self) -> None:
        """Set aside the message at which it failed."""
        self.result.dead += 1
        self._attempts = 0
        self._done += 1

    def _next(self) -> None:
        assert self.fault is not None
        due = (self._done + 1) / self.fault.rate
        self._in(max(0.0, due - self._run.now), self._handle)

    def _in(self, delay: float, work: Callable[[], None]) -> None:
        life = self._life
        self._run.later(delay, lambda: work() if life == self._life else None)

    def _handle(self) -> None:
        fault, now = self.fault, self._run.now
        assert fault is not None
        is_bad = fault.begin <= now < fault.end and self._run.chance.random() < (fault.share or 0.0)
        if is_bad:
            self._fail()
            return
        self.result.handled += 1
        self._attempts = 0
        self._done += 1
        self._next()

    def _fail(self) -> None:
        self.result.failures += 1
        streak = None
        if self.fault is not None and self.fault.share is not None:
            self._attempts += 1
            streak = self._attempts - 1
            if self.node.handler is None:
                streak = None
            elif self._attempts >= self._most:
                streak = 0
        self.stop()
        self._parent.failed(self.node.name, SimulatedFailure(), streak)

    def resume(self) -> None:
        """Continue after a failure, without the message at which it failed."""
        if self._attempts:
            self.give_up_message()
        self.start(first=True)


class _Parent:
    """A supervisor with its children."""

    def __init__(self, node: Node, above: tuple[str, ...], run: _Run, parent: "_Parent | None") -> None:
        assert node.supervisor is not None
        self.node = node
        self.path = (*above, node.name)
        self._rules: Supervisor = node.supervisor
        self._run = run
        self._parent = parent
        self._state = SupervisorState(self._rules)
        self._is_up = False
        self._life = 0
        self._awaited: dict[str, RestartGroup] = {}  # a decision replaces those before it
        self._members: dict[str, _Parent | _Child] = {
            child.name: _Parent(child, self.path, run, self)
            if child.supervisor is not None
            else _Child(child, (*self.path, child.name), run, self)
            for child in node.children
        }

    def workers(self) -> Iterator[_Child]:
        """Its handlers and actors, and those below."""
        for member in self._members.values():
            if isinstance(member, _Child):
                yield member
            else:
                yield from member.workers()

    def can_start(self) -> bool:
        """Whether all of its children can start now."""
        return all(member.can_start() for member in self._members.values())

    def start(self, *, first: bool) -> None:
        """Start the children in order."""
        self._life += 1
        self._is_up = True
        self._state = SupervisorState(self._rules)
        for child in self.node.children:
            assert child.spec is not None
            self._state = self._state.added(child.name, child.spec, self._run.now)
            self._members[child.name].start(first=first)

    def stop(self) -> None:
        """Stop the children in reverse order."""
        self._life += 1
        self._is_up = False
        for member in reversed(self._members.values()):
            member.stop()

    def resume(self) -> None:
        """A supervisor that has given up cannot continue; `SupervisorState` never asks for that."""

    def failed(self, name: str, error: BaseException, streak: int | None) -> None:
        """A child has failed."""
        if not self._is_up or name not in self._state.names:
            return
        can_resume = isinstance(self._members[name], _Child)
        chance = self._run.chance.random()
        self._state, decision = self._state.failed(
            name, error, self._run.now, chance, streak, can_resume=can_resume
        )
        self._carry_out(decision, name, error)

    def _carry_out(self, decision: Decision, name: str, error: BaseException) -> None:
        match decision:
            case Resume():
                self._members[name].resume()
            case RestartGroup():
                for member in decision.stop:
                    self._members[member].stop()
                self._awaited |= dict.fromkeys(decision.start, decision)
                life = self._life
                self._run.later(
                    decision.delay, lambda: self._restart(decision) if life == self._life else None
                )
            case GiveUp(reason=reason):
                self._give_up(SupervisorGaveUp(self.node.name, name, reason, error))
            case ShutDown():
                self.stop()
                if self._parent is not None:
                    self._parent.child_ended(self.node.name)
            case Terminate():
                self._members[name].stop()

    def _restart(self, decision: RestartGroup) -> None:
        for name in decision.start:
            if self._awaited.get(name) is not decision or self._state[name].status != "restarting":
                continue
            member = self._members[name]
            if not member.can_start():
                chance, error = self._run.chance.random(), SimulatedFailure()
                self._state, again = self._state.start_failed(name, self._run.now, chance)
                self._carry_out(again, name, error)
                return
            self._state = self._state.started(name, self._run.now)
            member.start(first=False)

    def child_ended(self, name: str) -> None:
        """A child has exited by itself."""
        chance = self._run.chance.random()
        self._state, decision = self._state.ended(name, self._run.now, chance)
        self._carry_out(decision, name, SimulatedFailure())

    def _give_up(self, error: SupervisorGaveUp) -> None:
        self.stop()
        self._run.result.gave_up.append((self._run.now, self.path))
        if self._parent is None:
            self._run.result.ended = True
        else:
            self._parent.failed(self.node.name, error, None)
