"""Analyses the rules of supervision before anything runs, by plain functions of supervisors and their children.

The worst case is a child that fails again as soon as it is started. Back-off is counted without jitter, which can only
shorten it.
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
"""Restarts that are computed one by one. Beyond them, almost every wait is the longest one."""


@dataclass(frozen=True, slots=True)
class Node:
    """A part of the tree.

    Attributes:
        name: Name of the supervisor, handler or actor.
        kind: Which of these it is.
        spec: Its specification as a child; ``None`` directly under the system.
        supervisor: Its rules, if it is a supervisor.
        handler: Its subscription, if it is a handler.
        children: Its children, in the order of their start.
    """

    name: str
    kind: Kind
    spec: ChildSpec | None = None
    supervisor: Supervisor | None = None
    handler: HandlerSpec | None = None
    children: tuple["Node", ...] = ()

    @property
    def shutdown(self) -> float | None:
        """Maximum seconds to stop it and its children; ``None`` for no limit."""
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
    """How the failures of one child escalate until the system ends.

    Attributes:
        path: The names from the outermost supervisor to the child.
        failures: Number of failures in a row; the last one ends the system. It is the product of the budgets above.
        restarts: Number of restarts before: of the child, and of the supervisors between it and the system.
        outage: Seconds from the first failure to the end of the system.
    """

    path: tuple[str, ...]
    failures: int
    restarts: int
    outage: float


@dataclass(frozen=True, slots=True)
class Finding:
    """A contradiction between rules, or a rule to check.

    Attributes:
        severity: ``contradiction`` if the rules cannot all hold, else ``warning``.
        path: The names from the outermost supervisor to the part with the rule; empty for the system.
        option: Name of the option.
        reason: What is wrong, and the remedy.
    """

    severity: Severity
    path: tuple[str, ...]
    option: str
    reason: str


@dataclass(frozen=True, slots=True)
class Analysis:
    """The consequences of a system's rules.

    Attributes:
        tree: The parts directly under the system.
        shortest: The child that ends the system with the fewest failures; ``None`` if no child can.
        longest: The child that needs the most failures.
        longest_outage: The longest time that a child that cannot start is restarted before the system ends, in seconds.
        endless: Children that are restarted without end: their failures never end the system.
        shutdown: Maximum seconds to stop, by the children's own deadlines; ``None`` for no limit.
        stop_timeout: Seconds after which parts that still run are abandoned.
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
    """Analyse the supervisors of a system.

    Args:
        supervisors: Those directly under the system.
        stop_timeout: The system's, in seconds.
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
    """The path to each handler and actor, from the outermost supervisor."""
    for node in tree:
        if node.kind == "supervisor":
            yield from _lines(node.children, (*above, node))
        else:
            yield (*above, node)


def _names(line: Sequence[Node]) -> tuple[str, ...]:
    return tuple(node.name for node in line)


# --- worst cases -------------------------------------------------------------------------------------------


def escalation(line: Sequence[Node]) -> Escalation | None:
    """How failures of the last of ``line`` escalate; ``None`` if they never end the system.

    Args:
        line: The path from the outermost supervisor to a handler or actor.
    """
    if any(node.spec is not None and node.spec.restart == "temporary" for node in line):
        return None  # the child is forgotten, or its supervisor
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
        supervisor: Its rules.
        lasting: Seconds from a start to the next failure.

    Returns:
        ``None`` if it never gives up: it has no limit, or back-off spreads the failures too far
            apart for its window.
    """
    most, longest = supervisor.max_restarts, supervisor.backoff.max + lasting
    if most is None:
        return None
    if most >= MOST_STEPS:  # almost every wait is the longest one
        return most * longest if most * longest <= supervisor.within else None
    steps = islice(_failures(supervisor, lasting), 2 * MOST_STEPS)
    return next((moment for moment, gives_up in steps if gives_up), None)


def _failures(supervisor: Supervisor, lasting: float) -> Iterator[tuple[float, bool]]:
    """The time of each failure, from 0, and whether the supervisor gives up then; endless if it never does."""
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
    """Attempt counts that handlers cannot reach within the restart budgets, or only if a supervisor gives up."""
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
            severity, giving_up, comes_of_it = "warning", lasting[0], ", which restarts all its children"
        else:
            continue
        remedy = f"raise max_restarts there to {wanted}" + (f", or write {possible} here" if possible else "")
        reason = (
            f"an event should get {wanted} attempts, but {giving_up.name!r} gives up at failure"
            f" {possible + 1}{comes_of_it}: {remedy}"
        )
        yield Finding(severity, _names(line), "max_attempts", reason)


def _until_forgotten(above: Sequence[Node]) -> list[Node]:
    """The supervisors from the innermost to the first that is never restarted."""
    lasting = []
    for node in reversed(above):
        lasting.append(node)
        if node.spec is not None and node.spec.restart == "temporary":
            break
    return lasting


def attempts(above: Sequence[Supervisor], wanted: int) -> int:
    """How often an event may fail before its handler is no longer restarted.

    The count continues when a supervisor gives up and is restarted.

    Args:
        above: The supervisors above the handler, from the innermost.
        wanted: The count stops here; it is also the result if it is in the thousands.
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
                f" {stop_timeout:g} s: raise stop_timeout, or lower shutdown"
            )
            yield Finding("warning", path, "shutdown", reason)
        if supervisor is None:
            continue
        if not node.children:
            yield Finding("warning", path, "name", "it has no children")
        elif supervisor.max_restarts is not None and time_to_give_up(supervisor) is None:
            limit = f"{supervisor.max_restarts} restarts within {supervisor.within:g} s"
            reason = (
                "a child that always fails is restarted without end: with waits of up to"
                f" {supervisor.backoff.max:g} s there are never more than {limit}. Lengthen within, or write"
                ' max_restarts = "unlimited"'
            )
            yield Finding("warning", path, "max_restarts", reason)
        yield from _questionable(node.children, stop_timeout, path)
