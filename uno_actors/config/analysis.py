"""What the rules of supervision come to, before anything runs: plain functions of supervisors and their children.

The worst case is a child that fails again as soon as it has been started. Back-off counts in full, for jitter only
makes it shorter.
"""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import islice
from typing import Literal

from uno_actors.handlers.spec import HandlerSpec
from uno_actors.handlers.subscribe import gather
from uno_actors.supervision.spec import ChildSpec, Supervisor

Kind = Literal["supervisor", "handler", "actor"]
Severity = Literal["contradiction", "warning"]

MOST_STEPS = 1000
"""Restarts that are looked at one by one; beyond it back-off is at its longest wait nearly all the time."""


@dataclass(frozen=True, slots=True)
class Node:
    """A part of the tree.

    Attributes:
        name: Of the supervisor, handler or actor.
        kind: Which of these it is.
        spec: How it stands under its supervisor; ``None`` directly under the system.
        supervisor: The rules, if it is one.
        handler: The subscription, if it is one.
        children: In the order of their start.
    """

    name: str
    kind: Kind
    spec: ChildSpec | None = None
    supervisor: Supervisor | None = None
    handler: HandlerSpec | None = None
    children: tuple["Node", ...] = ()

    @property
    def shutdown(self) -> float | None:
        """Seconds that it may take to stop, its children included; ``None`` for any time."""
        patience = math.inf if self.spec is None else self.spec.patience
        if patience == "kill":
            return 0.0
        own = math.inf if patience == "infinity" else float(patience)
        parts = [child.shutdown for child in self.children]
        if self.kind == "supervisor":
            own = min(own, math.inf if None in parts else sum(part for part in parts if part is not None))
        return None if own == math.inf else own


@dataclass(frozen=True, slots=True)
class Escalation:
    """What one child has to do until the system ends.

    Attributes:
        path: Names from the outermost supervisor to the child.
        failures: So many in a row, the last of which ends the system: the product of the budgets above it.
        restarts: So many come before: of the child, and of the supervisors between it and the system.
        outage: Seconds from the first failure to the end.
    """

    path: tuple[str, ...]
    failures: int
    restarts: int
    outage: float


@dataclass(frozen=True, slots=True)
class Finding:
    """Something worth a look.

    Attributes:
        severity: ``contradiction`` if the rules cannot all have their way, else ``warning``.
        path: Names from the outermost supervisor to what it is about; none for the system.
        option: Which option it is about.
        reason: What, with the remedy.
    """

    severity: Severity
    path: tuple[str, ...]
    option: str
    reason: str


@dataclass(frozen=True, slots=True)
class Analysis:
    """What a system's rules come to.

    Attributes:
        tree: The parts directly under the system.
        shortest: The child that ends the system by the fewest failures; ``None`` if none can.
        longest: The one that takes the most failures.
        longest_outage: The longest that a child that cannot start is tried before the system ends, in seconds.
        endless: Children that are tried for ever: no failure of theirs ends the system.
        shutdown: Seconds that stopping may take by the children's own deadlines; ``None`` for any time.
        stop_timeout: Seconds after which what still runs is abandoned.
        findings: Contradictions first.
    """

    tree: tuple[Node, ...]
    shortest: Escalation | None
    longest: Escalation | None
    longest_outage: float | None
    endless: tuple[tuple[str, ...], ...]
    shutdown: float | None
    stop_timeout: float
    findings: tuple[Finding, ...]


def analyse(supervisors: Sequence[Supervisor], stop_timeout: float) -> Analysis:
    """What comes of the supervisors of a system.

    Args:
        supervisors: Those directly under the system.
        stop_timeout: Of the system, in seconds.
    """
    tree = tuple(_node_of(supervisor) for supervisor in supervisors)
    escalations, endless = [], []
    for line in _lines(tree):
        found = escalation(line)
        if found is None:
            endless.append(_names(line))
        else:
            escalations.append(found)
    findings = [*_unreachable(tree), *_questionable(tree, stop_timeout)]
    parts = [node.shutdown for node in tree]
    return Analysis(
        tree,
        min(escalations, key=lambda one: one.failures, default=None),
        max(escalations, key=lambda one: one.failures, default=None),
        max((one.outage for one in escalations), default=None),
        tuple(endless),
        None if None in parts else sum(part for part in parts if part is not None),
        stop_timeout,
        tuple(sorted(findings, key=lambda finding: finding.severity)),
    )


# --- the tree ----------------------------------------------------------------------------------------------


def _node_of(supervisor: Supervisor, spec: ChildSpec | None = None) -> Node:
    children = tuple(_child_of(child) for child in supervisor.specs)
    return Node(supervisor.name, "supervisor", spec, supervisor, children=children)


def _child_of(spec: ChildSpec) -> Node:
    if isinstance(spec.run, Supervisor):
        return _node_of(spec.run, spec)
    if spec.is_actor:
        return Node(spec.known_name or spec.run.__name__, "actor", spec)
    (handler,) = gather([spec.run])
    if spec.max_attempts is not None:
        handler = replace(handler, max_attempts=spec.max_attempts)
    return Node(spec.name or handler.name, "handler", spec, handler=handler)


def _lines(tree: Sequence[Node], above: tuple[Node, ...] = ()) -> Iterator[tuple[Node, ...]]:
    """From the outermost supervisor to each handler and actor."""
    for node in tree:
        if node.kind == "supervisor":
            yield from _lines(node.children, (*above, node))
        else:
            yield (*above, node)


def _names(line: Sequence[Node]) -> tuple[str, ...]:
    return tuple(node.name for node in line)


# --- worst cases -------------------------------------------------------------------------------------------


def escalation(line: Sequence[Node]) -> Escalation | None:
    """What the last of ``line`` has to do until the system ends; ``None`` if nothing that it does ends it.

    Args:
        line: From the outermost supervisor to a handler or actor.
    """
    if any(node.spec is not None and node.spec.restart == "temporary" for node in line):
        return None  # it is forgotten, or the supervisor is in which it failed
    failures, outage = 1, 0.0
    for node in reversed(line[:-1]):
        assert node.supervisor is not None
        lasting = time_to_give_up(node.supervisor, outage)
        if lasting is None or node.supervisor.max_restarts is None:
            return None
        failures *= node.supervisor.max_restarts + 1
        outage += lasting
    return Escalation(_names(line), failures, failures - 1, outage)


def time_to_give_up(supervisor: Supervisor, lasting: float = 0.0) -> float | None:
    """Seconds from the first failure of a child until its supervisor gives up, if each start fails.

    Args:
        supervisor: The rules.
        lasting: Seconds from a start to the next failure.

    Returns:
        ``None`` if it never does: no limit, or back-off spreads the failures so that too few are in its window.
    """
    most, longest = supervisor.max_restarts, supervisor.backoff.max + lasting
    if most is None:
        return None
    if most >= MOST_STEPS:  # back-off is at its longest nearly all the time
        return most * longest if most * longest <= supervisor.within else None
    steps = islice(_failures(supervisor, lasting), 2 * MOST_STEPS)
    return next((moment for moment, gives_up in steps if gives_up), None)


def _failures(supervisor: Supervisor, lasting: float) -> Iterator[tuple[float, bool]]:
    """When the failures are, from 0, and whether the supervisor gives up at each; endless if it never does."""
    budget, backoff = supervisor.restart_budget, supervisor.backoff
    moments: tuple[float, ...] = ()
    now, step, gives_up = 0.0, 0, False
    while not gives_up:
        gives_up = not budget.allows(moments, now)
        yield now, gives_up
        moments = (*budget.recent(moments, now), now)
        delay = backoff.delay(step, 0.0)
        step = 0 if lasting >= supervisor.quiet_after else step + 1
        now += delay + lasting


# --- findings ----------------------------------------------------------------------------------------------


def _unreachable(tree: Sequence[Node]) -> Iterator[Finding]:
    """Attempt counts of handlers that the restart budgets never let them reach, or not without a supervisor's end."""
    for line in _lines(tree):
        *above, node = line
        if node.handler is None or (node.spec is not None and node.spec.restart == "temporary"):
            continue
        lasting = _until_forgotten(above)
        rules = [part.supervisor for part in lasting if part.supervisor is not None]
        wanted = node.handler.max_attempts
        severity: Severity
        if (possible := attempts(rules, wanted)) < wanted:
            severity, giving_up, comes_of_it = "contradiction", lasting[-1], ""
        elif (possible := attempts(rules[:1], wanted)) < wanted:
            severity, giving_up, comes_of_it = "warning", lasting[0], ", which restarts all that is under it"
        else:
            continue
        remedy = f"raise max_restarts there to {wanted}" + (f", or write {possible} here" if possible else "")
        reason = (
            f"an event is to be tried {wanted} times, but {giving_up.name!r} gives up at its failure"
            f" {possible + 1}{comes_of_it}: {remedy}"
        )
        yield Finding(severity, _names(line), "max_attempts", reason)


def _until_forgotten(above: Sequence[Node]) -> list[Node]:
    """The supervisors from the innermost to the one that nobody starts again."""
    lasting = []
    for node in reversed(above):
        lasting.append(node)
        if node.spec is not None and node.spec.restart == "temporary":
            break
    return lasting


def attempts(above: Sequence[Supervisor], wanted: int) -> int:
    """How often an event may fail before its handler is not started again.

    Its attempts are counted on when a supervisor has given up and is started anew.

    Args:
        above: The supervisors above the handler, from the innermost.
        wanted: More are not counted; and if there are thousands, none are missing.
    """
    restarts: list[tuple[float, ...]] = [() for _ in above]
    started, streaks = [0.0] * len(above), [0] * len(above)
    now = 0.0
    for failure in range(min(wanted, 2 * MOST_STEPS)):
        allows = (rules.restart_budget.allows(restarts[level], now) for level, rules in enumerate(above))
        level = next((level for level, is_allowed in enumerate(allows) if is_allowed), None)
        if level is None:
            return failure
        rules = above[level]
        is_quiet = now - started[level] >= rules.quiet_after
        streak = failure if level == 0 else 0 if is_quiet else streaks[level]
        restarts[level] = (*rules.restart_budget.recent(restarts[level], now), now)
        streaks[level] = streak + 1
        now += rules.backoff.delay(streak, 0.0)
        for below in range(level):
            restarts[below], streaks[below] = (), 0
        started[: level + 1] = [now] * (level + 1)
    return wanted


def _questionable(
    tree: Sequence[Node], stop_timeout: float, above: tuple[str, ...] = ()
) -> Iterator[Finding]:
    for node in tree:
        path = (*above, node.name)
        supervisor, spec = node.supervisor, node.spec
        if spec is not None and spec.shutdown is not None and (node.shutdown or 0) > stop_timeout:
            reason = (
                f"it may take {node.shutdown:g} s to stop, but the system stops within stop_timeout, which is"
                f" {stop_timeout:g} s: raise that, or lower this"
            )
            yield Finding("warning", path, "shutdown", reason)
        if supervisor is None:
            continue
        if not node.children:
            yield Finding("warning", path, "name", "it has no children")
        elif supervisor.max_restarts is not None and time_to_give_up(supervisor) is None:
            reason = (
                f"a child that always fails is tried for ever: with waits of up to {supervisor.backoff.max:g} s there"
                f" are never more than {supervisor.max_restarts} restarts within {supervisor.within:g} s. Lengthen"
                ' within, or write max_restarts = "unlimited"'
            )
            yield Finding("warning", path, "max_restarts", reason)
        yield from _questionable(node.children, stop_timeout, path)
