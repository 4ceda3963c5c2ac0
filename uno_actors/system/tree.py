"""The tree as it is configured: what stands under which supervisor, each with its name."""

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

from uno_actors.errors import InvalidSupervisor
from uno_actors.handlers.spec import HandlerSpec
from uno_actors.handlers.subscribe import gather
from uno_actors.supervision.spec import ChildSpec, Supervisor, to_child_spec


def resolve(supervisor: Supervisor) -> Supervisor:
    """``supervisor`` with each child named, handlers as their specifications, and modules as their handlers.

    Raises:
        InvalidHandler, InvalidSupervisor: A child cannot be.
    """
    return replace(
        supervisor, children=tuple(spec for child in supervisor.children for spec in resolve_child(child))
    )


def resolve_child(child: Any) -> list[ChildSpec]:
    """The children that ``child`` stands for: one, or all handlers of a module.

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
    if spec.name is not None and len(handlers) != 1:
        whose = f"child {spec.name!r}"
        raise InvalidSupervisor(whose, f"one name is for one handler, and {spec.run!r} has {len(handlers)}")
    specs = []
    for handler in handlers:
        attempts = spec.max_attempts or handler.max_attempts
        named = replace(handler, name=spec.name or handler.name, max_attempts=attempts)
        specs.append(replace(spec, run=named, name=named.name))
    return specs


def handlers_in(supervisor: Supervisor) -> Iterator[HandlerSpec]:
    """The handlers in a resolved tree."""
    for spec in supervisor.specs:
        if isinstance(spec.run, Supervisor):
            yield from handlers_in(spec.run)
        elif isinstance(spec.run, HandlerSpec):
            yield spec.run


def supervisors_in(supervisor: Supervisor) -> Iterator[Supervisor]:
    """``supervisor`` and those below it."""
    yield supervisor
    for spec in supervisor.specs:
        if isinstance(spec.run, Supervisor):
            yield from supervisors_in(spec.run)
