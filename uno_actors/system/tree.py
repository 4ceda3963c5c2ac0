"""The configured supervision tree: resolves the children of each supervisor and names them."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from typing import Any

from uno_actors.config.tables import DEFAULT_SUPERVISOR
from uno_actors.errors import (
    InvalidHandler,
    InvalidSupervisor,
)
from uno_actors.handlers.partitions import partitions_of, whole_name
from uno_actors.handlers.spec import HandlerSpec
from uno_actors.handlers.subscribe import gather, handler_registry, is_same_target
from uno_actors.supervision.spec import ChildSpec, Supervisor, to_child_spec


def resolve(supervisor: Supervisor) -> Supervisor:
    """Resolve the children of ``supervisor``: name each one, and turn handlers and modules into specifications.

    Raises:
        InvalidHandler, InvalidSupervisor: An object cannot be a child.
    """
    return replace(
        supervisor, children=tuple(spec for child in supervisor.children for spec in resolve_child(child))
    )


def resolve_child(child: Any) -> list[ChildSpec]:
    """Resolve ``child``: to one child, or to all handlers of a module.

    Raises:
        InvalidHandler, InvalidSupervisor: See `resolve`.
    """
    spec = to_child_spec(child)
    if isinstance(spec.run, Supervisor):
        rules = resolve(spec.run)
        return [replace(spec, run=rules if spec.name is None else replace(rules, name=spec.name))]
    if spec.is_actor:
        return [spec]
    handlers = list(gather([spec.run]))
    check_dependencies(handlers)
    if spec.name is not None and len(handlers) != 1:
        whose = f"child {spec.name!r}"
        raise InvalidSupervisor(whose, f"one name is for one handler, and {spec.run!r} has {len(handlers)}")
    specs = []
    for handler in handlers:
        attempts = spec.max_attempts or handler.max_attempts
        named = replace(handler, name=spec.name or handler.name, max_attempts=attempts)
        specs += [replace(spec, run=part, name=part.name) for part in partitions_of(named)]
    return specs


def on_logs(supervisor: Supervisor, logs: int) -> Supervisor:
    """A resolved ``supervisor`` with the partitions that a store with so many logs needs."""
    if logs == 1:
        return supervisor
    children = [each for child in supervisor.specs for each in child_on_logs(child, logs)]
    return replace(supervisor, children=tuple(children))


def child_on_logs(child: ChildSpec, logs: int) -> list[ChildSpec]:
    """A resolved child, as `on_logs`: the first partition of a handler stands for all, the others for none."""
    if isinstance(child.run, Supervisor):
        return [replace(child, run=on_logs(child.run, logs))]
    if logs == 1 or not isinstance(child.run, HandlerSpec) or child.run.partition is None:
        return [child]
    if child.run.partition > 1:
        return []
    return [replace(child, run=part, name=part.name) for part in partitions_of(child.run.whole(), logs)]


def handlers_in(supervisor: Supervisor) -> Iterator[HandlerSpec]:
    """All handlers in a resolved tree."""
    for spec in supervisor.specs:
        if isinstance(spec.run, Supervisor):
            yield from handlers_in(spec.run)
        elif isinstance(spec.run, HandlerSpec):
            yield spec.run


def supervisors_in(supervisor: Supervisor) -> Iterator[Supervisor]:
    """``supervisor`` and all supervisors below it."""
    yield supervisor
    for spec in supervisor.specs:
        if isinstance(spec.run, Supervisor):
            yield from supervisors_in(spec.run)


def assign(handlers: Iterable[object] | None, supervisors: Sequence[Supervisor]) -> list[Supervisor]:
    """Resolve all supervisors. The default supervisor comes first and takes every handler without a supervisor."""
    given = [resolve(supervisor) for supervisor in supervisors]
    taken = [spec for supervisor in given for spec in handlers_in(supervisor)]
    others = handlers if handlers is None or isinstance(handlers, str) else list(handlers)
    explicit = {handler.name for handler in others or () if isinstance(handler, HandlerSpec)}
    free = [
        spec
        for spec in gather(handler_registry.values() if others is None else others)
        if spec.name in explicit or not any(is_same_target(spec.target, other.target) for other in taken)
    ]
    check_unique("handlers", handler_names([*taken, *free]))
    check_dependencies(free)
    children = [ChildSpec(part, part.name) for spec in free for part in partitions_of(spec)]
    default = Supervisor(DEFAULT_SUPERVISOR, children, max_restarts=None)
    tree = [default, *given]
    check_unique("supervisors", [below.name for supervisor in tree for below in supervisors_in(supervisor)])
    return tree


def check_dependencies(specs: Iterable[HandlerSpec]) -> None:
    """Check that everything can be provided that handlers depend on.

    Raises:
        InvalidHandler: A parameter is not a dependency; the message names it and says what is allowed.
    """
    for spec in specs:
        _ = spec.needs


def handler_names(specs: Iterable[HandlerSpec]) -> list[str]:
    """The names that users have given, each partitioned handler once."""
    return [whole_name(spec.name) for spec in specs if spec.partition in (None, 1)]


def check_unique(what: str, names: Sequence[str]) -> None:
    """Check that the names are unique.

    Raises:
        InvalidHandler: Names occur twice; the message lists all of them.
    """
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise InvalidHandler(
            f"two {what} are named {', '.join(map(repr, twice))}: give each a name of its own"
        )
