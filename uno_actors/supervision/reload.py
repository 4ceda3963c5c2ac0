"""What to stop and what to start to turn a running tree into another one; everything else keeps running."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Protocol

from uno_actors.supervision.spec import ChildSpec, Supervisor


@dataclass(frozen=True, slots=True)
class Change:
    """What changes under one supervisor.

    Attributes:
        rules: The supervisor's new rules, with all its children; its ``name`` identifies it.
        stop: Names of the children to stop: their specification has changed, or they are gone.
        start: The children to start: their specification has changed, or they are new.
    """

    rules: Supervisor
    stop: tuple[str, ...] = ()
    start: tuple[ChildSpec, ...] = ()


@dataclass(frozen=True, slots=True)
class Difference:
    """What changes in a tree.

    Attributes:
        stop: Names of the supervisors directly under the system to stop.
        start: The supervisors directly under the system to start.
        changes: What changes under the supervisors that stay, the outer ones first.
    """

    stop: tuple[str, ...] = ()
    start: tuple[Supervisor, ...] = ()
    changes: tuple[Change, ...] = ()

    @property
    def stopped(self) -> list[str]:
        """Names of everything to stop."""
        return [*self.stop, *(name for change in self.changes for name in change.stop)]

    @property
    def started(self) -> list[str]:
        """Names of everything to start."""
        started = [spec.known_name or "" for change in self.changes for spec in change.start]
        return [*(supervisor.name for supervisor in self.start), *started]


@dataclass(frozen=True, slots=True)
class Reloaded:
    """The outcome of a reload.

    Attributes:
        stopped: Children that were stopped, because they are gone or their specification has changed.
        started: Children that were started, because they are new or their specification has changed.
        failed: Children that could not be started, and why; the next reload tries them again.
    """

    stopped: tuple[str, ...]
    started: tuple[str, ...]
    failed: Mapping[str, Exception]


def difference(old: Sequence[Supervisor], new: Sequence[Supervisor]) -> Difference:
    """The changes that turn ``old``, which is running, into ``new``. Children that are the same in both keep running.

    Args:
        old: The supervisors directly under a system; every child in them has a name.
        new: The same after the reload.
    """
    before = {supervisor.name: supervisor for supervisor in old}
    after = {supervisor.name: supervisor for supervisor in new}
    return Difference(
        tuple(name for name in before if name not in after),
        tuple(supervisor for name, supervisor in after.items() if name not in before),
        tuple(
            change
            for name, supervisor in after.items()
            if name in before
            for change in _changes(before[name], supervisor)
        ),
    )


def _changes(old: Supervisor, new: Supervisor) -> Iterator[Change]:
    before, after = _by_name(old), _by_name(new)
    stays = {name for name, spec in after.items() if name in before and _stays(before[name], spec)}
    stop = tuple(name for name in before if name not in stays)
    start = tuple(spec for name, spec in after.items() if name not in stays)
    if old != new:
        yield Change(new, stop, start)
    for name in after:
        was, now = before.get(name), after[name]
        if name in stays and was is not None and isinstance(was.run, Supervisor):
            yield from _changes(was.run, now.run)


def _stays(old: ChildSpec, new: ChildSpec) -> bool:
    """Whether a child keeps running; a supervisor does even if its rules and children change."""
    if isinstance(old.run, Supervisor) and isinstance(new.run, Supervisor):
        return replace(old, run=new.run) == new and old.run.name == new.run.name
    return old == new


def _by_name(supervisor: Supervisor) -> Mapping[str, ChildSpec]:
    return {spec.known_name or "": spec for spec in supervisor.specs}


Below = Mapping[str, "Below"]
"""Names, each with the names below it."""


def as_running(supervisor: Supervisor, names: Below) -> Supervisor:
    """``supervisor`` without the children that have gone or could not be started.

    Args:
        supervisor: As configured.
        names: The children that are running, with those below them.
    """
    children = []
    for spec in supervisor.specs:
        below = names.get(spec.known_name or "")
        if below is not None:
            run = spec.run
            children.append(replace(spec, run=as_running(run, below) if isinstance(run, Supervisor) else run))
    return replace(supervisor, children=tuple(children))


class Named(Protocol):
    """A part of a running tree, such as `uno_actors.supervision.child.TreeNode`."""

    @property
    def name(self) -> str:
        """Its name."""

    @property
    def children(self) -> "Sequence[Named]":
        """The parts below it."""


def names_below(node: Named) -> Below:
    """The names of everything below ``node``."""
    return {child.name: names_below(child) for child in node.children}
