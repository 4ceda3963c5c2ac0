"""``@subscribe``, and how a system or a bus turns the handlers it is given into specifications."""

import importlib
import inspect
import sys
from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from pathlib import Path
from types import FunctionType, MethodType, ModuleType
from typing import Any

from uno_actors.annotations import (
    NOT_ANNOTATED,
    Scope,
    UnreadableAnnotation,
    annotated_classes,
    classes_among,
    narrowed,
    type_arguments,
)
from uno_actors.domain.aggregate import AggregateRoot
from uno_actors.domain.events import DomainEvent
from uno_actors.errors import InvalidHandler
from uno_actors.handlers.spec import E, EventHandler, EventPriority, H, HandlerSpec, Start, remedy_for
from uno_actors.topics import TopicPattern


class HandlerRegistry(dict[tuple[str, str], HandlerSpec]):
    """Specifications by handler name and by the place where the target is defined."""

    _entered = 0

    def __setitem__(self, key: tuple[str, str], spec: HandlerSpec) -> None:
        self._entered += 1
        super().__setitem__(key, spec)

    @property
    def state(self) -> tuple[int, int]:
        """A value that changes whenever an entry is added or removed, so that callers can cache look-ups."""
        return self._entered, len(self)


handler_registry = HandlerRegistry()
"""The process-wide registry. ``@subscribe`` adds each handler under its name and the place of its definition.

Two functions may share a name, but one system cannot serve both and refuses. A function that is defined again, as
in a notebook, replaces its earlier definition.
"""


def subscribe(
    event_type: type[DomainEvent] | tuple[type[DomainEvent], ...] | None = None,
    topic_pattern: str | None = None,
    priority: EventPriority = EventPriority.NORMAL,
    *,
    name: str | None = None,
    start: Start = "latest",
    max_attempts: int = 5,
    timeout: float | None = None,
    concurrency: int = 1,
    batch: int | None = None,
    aggregate_type: type[AggregateRoot] | str | None = None,
    partitioned: bool | int = False,
) -> Callable[[H], H]:
    """Decorator that subscribes a function or an `EventHandler` class to recorded events. It also subscribes an
    `EventHandler` instance or a bound method: ``subscribe(topic_pattern="users.*")(Audit(file))``.

    To use a method that is decorated in its class, give the system the bound method, as in
    ``ActorSystem(handlers=[mailer.send_receipt])``.

    An event must match all of ``event_type`` (one class, or several in a tuple), ``topic_pattern`` and
    ``aggregate_type`` that are given. Without ``event_type``, the annotation of the event selects the events:
    ``event: Deposited | Withdrawn``; with ``batch``, the annotation of the list. No annotation, ``Any`` and
    ``DomainEvent`` mean all events. For the other arguments see `HandlerSpec`. The default name is the function's
    qualified name, and the store keeps the checkpoint under it. Give a ``name``, so that the handler keeps its
    checkpoint when the function is renamed or moved.

    Raises:
        InvalidTopic: The pattern is malformed.
        InvalidHandler: Another argument is invalid, or the annotation names no events.
    """
    misplaced: object = event_type
    if topic_pattern is not None and not isinstance(topic_pattern, str):
        raise InvalidHandler(
            f"topic_pattern must be a str, not {topic_pattern!r}: for several events give a tuple, as in"
            " @subscribe((Deposited, Withdrawn)), or annotate the event with Deposited | Withdrawn"
        )
    if inspect.isfunction(misplaced) or (inspect.isclass(misplaced) and issubclass(misplaced, EventHandler)):
        raise InvalidHandler(f"write @subscribe(...) with parentheses before {misplaced.__name__}")
    pattern = None if topic_pattern is None else TopicPattern(topic_pattern)

    if priority not in tuple(EventPriority):
        raise InvalidHandler(
            f"priority must be one of {', '.join(EventPriority.__members__)}, not {priority!r}"
        )

    def register(target: H) -> H:
        if isinstance(target, FunctionType) and (earlier := subscription_of(target)) is not None:
            raise InvalidHandler(
                f"{earlier.name} is subscribed already, and would lose that: subscribe another function that"
                " calls it"
            )
        spec = HandlerSpec(
            name or default_name(target),
            _Unbound(target) if _is_unbound(target) else target,
            event_type,
            pattern,
            EventPriority(priority),
            start,
            max_attempts,
            timeout,
            concurrency,
            batch,
            aggregate_type,  # type: ignore[arg-type]  # the spec replaces a class with its name
            partitioned,
        )
        spec = _with_annotated_events(spec, may_wait=True)
        if not isinstance(target, MethodType):
            try:
                target.__subscription__ = spec  # type: ignore[union-attr]
            except AttributeError:  # for example a built-in function
                reason = "cannot carry its subscription: subscribe a function that calls it"
                raise InvalidHandler(f"{target!r} {reason}") from None
        if not isinstance(spec.target, _Unbound):  # a method in its class has no object yet
            handler_registry[spec.name, _place(target)] = spec
        return target

    return register


def gather(handlers: Iterable[object]) -> Iterator[HandlerSpec]:
    """Yield the specifications of ``handlers``: decorated functions, bound methods and classes, `EventHandler`
    classes and instances, modules or their names, and specs.

    Raises:
        InvalidHandler: An item is none of these, or a module cannot be imported.
    """
    if isinstance(handlers, str):
        raise InvalidHandler(f"handlers must be a list of handlers: write [{handlers!r}], not {handlers!r}")
    for handler in handlers:
        if isinstance(handler, HandlerSpec):
            yield complete(handler)
        elif isinstance(handler, str):
            yield from gather([_imported(handler)])
        elif isinstance(handler, ModuleType):
            yield from gather(_subscribed_members(handler))
        elif isinstance(handler, MethodType):
            yield complete(_of_method(handler))
        elif (decorated := subscription_of(handler)) is not None:
            if isinstance(decorated.target, _Unbound):
                decorated.target(None)
            yield complete(decorated)
        elif isinstance(handler, EventHandler):
            spec = subscription_of(type(handler)) or HandlerSpec(default_name(type(handler)), handler)
            yield complete(replace(spec, target=handler))
        elif isinstance(handler, type) and issubclass(handler, EventHandler):
            yield complete(HandlerSpec(default_name(handler), handler))
        else:
            raise InvalidHandler(
                f"{handler!r} is not an event handler: {remedy_for(handler)}decorate a function with @subscribe(...),"
                " or give an EventHandler or a module that has some"
            )


def is_same_target(one: object, other: object) -> bool:
    """Whether two targets are the same callable. Each look-up of a bound method returns a new object."""
    return one is other or (isinstance(one, MethodType) and one == other)


def _imported(module: str) -> ModuleType:
    try:
        return importlib.import_module(module)
    except Exception as error:  # importing a module may raise anything
        raise InvalidHandler(
            f"handlers of module {module!r}: it cannot be imported ({type(error).__name__}: {error}); name it"
            " in full, as in an import statement"
        ) from error


def _of_method(method: MethodType) -> HandlerSpec:
    """Return the spec of a method that ``@subscribe`` decorated in its class or received as a bound method."""
    decorated = subscription_of(method.__func__)
    if decorated is not None:
        return replace(decorated, target=method)
    for spec in handler_registry.values():
        if is_same_target(spec.target, method):
            return spec
    if isinstance(method.__self__, type) and issubclass(method.__self__, AggregateRoot):
        raise InvalidHandler(
            f"{method!r} is not an event handler: {remedy_for(method.__self__).removesuffix(' Else ')}"
        )
    raise InvalidHandler(
        f"{method!r} is not subscribed: decorate the method with @subscribe(...), or give"
        " HandlerSpec(name, method)"
    )


class _Unbound:
    """Stands for a method decorated in its class until the method is bound to an object."""

    def __init__(self, method: Any) -> None:
        self.method = method

    def __call__(self, event: object) -> None:
        reason = "is a method: give the system the one of an object, as in handlers=[mailer.send_receipt]"
        raise InvalidHandler(f"{self.method.__qualname__} {reason}")


def _is_unbound(target: object) -> bool:
    """Whether ``target`` is a function in a class body whose first parameter is ``self``."""
    if not isinstance(target, FunctionType):
        return False
    outer = target.__qualname__.rpartition(".")[0]
    in_class = bool(outer) and not outer.endswith("<locals>")
    return in_class and next(iter(inspect.signature(target).parameters), None) == "self"


def subscription_of(member: object) -> HandlerSpec | None:
    """Return the spec that ``@subscribe`` stored on ``member`` itself, not on a base class; ``None`` if none."""
    found = getattr(member, "__dict__", {}).get("__subscription__")
    return found if isinstance(found, HandlerSpec) else None


def _subscribed_members(module: ModuleType) -> list[object]:
    """Return the subscribed functions and classes that ``module`` itself defines, without imported ones."""
    members = [
        member
        for member in vars(module).values()
        if subscription_of(member) and member.__module__ == module.__name__
    ]
    return list({id(member): member for member in members}.values())  # one member may have several names


def complete(spec: HandlerSpec) -> HandlerSpec:
    """Return ``spec`` with the events that its target names, if the subscription itself names none.

    A target names its events in an annotation, in ``EventHandler[AnEvent]`` or in ``super().__init__(AnEvent)``.

    Raises:
        InvalidHandler: The annotation names no events or cannot be read.
    """
    target = spec.target
    if spec.event_type is not None and spec.event_type != spec._annotated:
        return spec
    if isinstance(target, EventHandler) and target.event_type is not None:
        return replace(spec, event_type=target.event_type)
    spec = _with_annotated_events(spec, may_wait=False)
    if (
        isinstance(target, type)
        and issubclass(target, EventHandler)
        and _type_argument(target) is None
        and not (spec.has_dependencies and spec.needs.constructor)  # made only when it runs
    ):
        return replace(spec, event_type=_made(target).event_type or spec.event_type)
    return spec


def _with_annotated_events(spec: HandlerSpec, *, may_wait: bool) -> HandlerSpec:
    """Return ``spec`` with the events annotated in its target; unchanged if it names its events itself.

    Args:
        spec: The subscription.
        may_wait: Whether the annotation will be read again, when names that are undefined now may be defined.
    """
    if spec.event_type is not None or spec._annotated is not NOT_ANNOTATED:
        return spec
    try:
        found = _annotated_events(spec)
    except UnreadableAnnotation as unreadable:
        if may_wait and unreadable.may_be_defined_later:
            return spec
        raise InvalidHandler(
            f"handler {spec.name}: {unreadable}. Annotate the event with the classes that it handles, as in event:"
            " Deposited | Withdrawn, or with DomainEvent for all; or give event_type=..."
        ) from None
    if found == ():
        raise InvalidHandler(
            f"handler {spec.name}: no event is of the class in EventHandler[...] and of that which handle() is"
            " annotated with: write the same in both"
        )
    wanted = found[0] if found and len(found) == 1 else found
    return replace(spec, event_type=wanted, _annotated=wanted)


def _annotated_events(spec: HandlerSpec) -> tuple[type[DomainEvent], ...] | None:
    """Return the events in the annotation of the target of ``spec``; ``None`` for all events."""
    target, in_lists = spec.target, spec.takes_lists
    kind = target if isinstance(target, type) else type(target)
    if issubclass(kind, EventHandler):
        method = target.handle if isinstance(target, EventHandler) else kind.handle
        skip = 0 if isinstance(target, EventHandler) else 1
        annotated = annotated_classes(method, DomainEvent, skip=skip, kind=kind, in_lists=in_lists)
        return narrowed(_type_argument(kind), annotated)
    skip = 0
    if isinstance(target, _Unbound):
        target, skip = target.method, 1
    elif isinstance(target, type):
        return annotated_classes(target.__call__, DomainEvent, skip=1, kind=target, in_lists=in_lists)
    return annotated_classes(target, DomainEvent, skip=skip, in_lists=in_lists)


def _type_argument(kind: type[EventHandler[Any]]) -> tuple[type[DomainEvent], ...] | None:
    """Return the events of a class declared as ``AHandler(EventHandler[AnEvent])``; ``None`` for all events."""
    argument = type_arguments(kind, EventHandler).get(E, Any)
    return classes_among(Scope(owner=kind).alternatives(argument), DomainEvent)


def _made(kind: type[EventHandler[Any]]) -> EventHandler[Any]:
    try:
        return kind()
    except TypeError as error:
        reason = f"cannot be made without arguments ({error}): give the system an instance of it"
        raise InvalidHandler(f"{kind.__qualname__} {reason}") from error


class DefaultName(str):
    """The default name of a handler, taken from its code. It changes when the code is renamed or moved."""

    __slots__ = ()


def name_in_main(target: Any) -> str:
    """Return the default name of a handler whose module is run as a program instead of imported."""
    return f"__main__.{_code_of(target).__qualname__}"


def _place(target: Any) -> str:
    code = _code_of(target)
    return f"{_module_name(code.__module__)}.{code.__qualname__}"


def _code_of(target: Any) -> Any:
    return target if hasattr(target, "__qualname__") else type(target)


def _module_name(name: str) -> str:
    """Return the name under which a module is imported, even while it is run as a program, if it is known.

    ``python -m package.module`` gives the name. For ``python module.py`` the file gives it, because Python puts its
    directory on the path. Code from a prompt or a pipe has no such name: the result is ``__main__``.
    """
    if name not in _RUN:
        return name
    main = sys.modules.get("__main__")
    spec = getattr(main, "__spec__", None)
    found = spec.name if spec is not None else Path(getattr(main, "__file__", None) or "").stem
    return found if found.rpartition(".")[2].isidentifier() else "__main__"


_RUN = ("__main__", "__mp_main__")
"""Names of the module run as a program, in the first process and in processes that `multiprocessing` spawns."""


def default_name(target: Any) -> DefaultName:
    """Return the default name of a handler.

    Raises:
        InvalidHandler: ``target`` has no name of its own.
    """
    if isinstance(target, EventHandler):
        target = type(target)
    if not hasattr(target, "__qualname__"):
        raise InvalidHandler(f"{target!r} has no name of its own: subscribe it with name=...")
    return DefaultName(_place(target))
