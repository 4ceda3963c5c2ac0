"""``@subscribe``, and what a system or a bus makes of the handlers that it is given."""

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
    """Specifications by name and by where their targets are defined."""

    _entered = 0

    def __setitem__(self, key: tuple[str, str], spec: HandlerSpec) -> None:
        self._entered += 1
        super().__setitem__(key, spec)

    @property
    def state(self) -> tuple[int, int]:
        """Differs from before when something was entered or removed, for those who keep what they looked up."""
        return self._entered, len(self)


handler_registry = HandlerRegistry()
"""The process-wide registry, in which ``@subscribe`` enters what it decorates, by name and by where it is defined.

Two functions may share a name; a system that would have to serve both refuses. One that is defined again, as in
a notebook, replaces itself.
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
) -> Callable[[H], H]:
    """Decorator that subscribes a function or an `EventHandler` class to recorded events; or, called with an
    `EventHandler` instance or a bound method, that: ``subscribe(topic_pattern="users.*")(Audit(file))``.

    A method that is decorated in its class is served when it is given to a system with its object, as in
    ``ActorSystem(handlers=[mailer.send_receipt])``.

    An event must fit all that is given of ``event_type`` (one, or several in a tuple), ``topic_pattern`` and
    ``aggregate_type``. Without ``event_type`` the annotation of the event says which events are meant:
    ``event: Deposited | Withdrawn``; with ``batch`` that of the list. No annotation, ``Any`` and ``DomainEvent`` mean
    all events. For the other arguments see `HandlerSpec`; the default name is the function's qualified name,
    under which its checkpoint is kept: give a ``name``, lest a function that is renamed or moved begins anew.

    Raises:
        InvalidTopic: The pattern is malformed.
        InvalidHandler: Another argument is wrong, or the annotation names no events.
    """
    misplaced: object = event_type
    if topic_pattern is not None and not isinstance(topic_pattern, str):
        raise InvalidHandler(
            f"topic_pattern must be a str, not {topic_pattern!r}: of several events give a tuple, as in"
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
            aggregate_type,  # type: ignore[arg-type]  # a class becomes its name
        )
        spec = _with_annotated_events(spec, may_wait=True)
        if not isinstance(target, MethodType):
            try:
                target.__subscription__ = spec  # type: ignore[union-attr]
            except AttributeError:  # a built-in function, for one
                reason = "cannot carry its subscription: subscribe a function that calls it"
                raise InvalidHandler(f"{target!r} {reason}") from None
        if not isinstance(spec.target, _Unbound):  # which its object is not known of
            handler_registry[spec.name, _place(target)] = spec
        return target

    return register


def gather(handlers: Iterable[object]) -> Iterator[HandlerSpec]:
    """The specifications of ``handlers``: decorated functions, bound methods and classes, `EventHandler` s,
    modules or their names, specs.

    Raises:
        InvalidHandler: One of them is none of these, or a module cannot be imported.
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
                f"{handler!r} is no event handler: {remedy_for(handler)}decorate a function with @subscribe(...), or"
                " give an EventHandler or a module that has some"
            )


def is_same_target(one: object, other: object) -> bool:
    """Whether two specifications call the same; a bound method is another object each time it is looked up."""
    return one is other or (isinstance(one, MethodType) and one == other)


def _imported(module: str) -> ModuleType:
    try:
        return importlib.import_module(module)
    except Exception as error:  # a module may raise anything
        raise InvalidHandler(
            f"handlers of module {module!r}: it cannot be imported ({type(error).__name__}: {error}); name it"
            " in full, as in an import statement"
        ) from error


def _of_method(method: MethodType) -> HandlerSpec:
    """What ``@subscribe`` says of a method: in its class, or when it was called with the bound one."""
    decorated = subscription_of(method.__func__)
    if decorated is not None:
        return replace(decorated, target=method)
    for spec in handler_registry.values():
        if is_same_target(spec.target, method):
            return spec
    if isinstance(method.__self__, type) and issubclass(method.__self__, AggregateRoot):
        raise InvalidHandler(
            f"{method!r} is no event handler: {remedy_for(method.__self__).removesuffix(' Else ')}"
        )
    raise InvalidHandler(
        f"{method!r} is not subscribed: decorate the method with @subscribe(...), or give"
        " HandlerSpec(name, method)"
    )


class _Unbound:
    """Stands for a method in its class, until an object comes with it."""

    def __init__(self, method: Any) -> None:
        self.method = method

    def __call__(self, event: object) -> None:
        reason = "is a method: give the system the one of an object, as in handlers=[mailer.send_receipt]"
        raise InvalidHandler(f"{self.method.__qualname__} {reason}")


def _is_unbound(target: object) -> bool:
    """Whether ``target`` is a function in the body of a class that takes ``self``."""
    if not isinstance(target, FunctionType):
        return False
    outer = target.__qualname__.rpartition(".")[0]
    in_class = bool(outer) and not outer.endswith("<locals>")
    return in_class and next(iter(inspect.signature(target).parameters), None) == "self"


def subscription_of(member: object) -> HandlerSpec | None:
    """What ``@subscribe`` left on ``member`` itself; that of a base class is not its own."""
    found = getattr(member, "__dict__", {}).get("__subscription__")
    return found if isinstance(found, HandlerSpec) else None


def _subscribed_members(module: ModuleType) -> list[object]:
    """The subscribed functions and classes that ``module`` defines; imported ones belong to their own."""
    members = [
        member
        for member in vars(module).values()
        if subscription_of(member) and member.__module__ == module.__name__
    ]
    return list({id(member): member for member in members}.values())  # one may have several names


def complete(spec: HandlerSpec) -> HandlerSpec:
    """``spec`` with the events that its target says it handles, where the subscription itself does not.

    A target says so by an annotation, as ``EventHandler[AnEvent]``, or in ``super().__init__(AnEvent)``.

    Raises:
        InvalidHandler: It names no events, or cannot be read.
    """
    target = spec.target
    if spec.event_type is not None and spec.event_type != spec._annotated:
        return spec
    if isinstance(target, EventHandler) and target.event_type is not None:
        return replace(spec, event_type=target.event_type)
    spec = _with_annotated_events(spec, may_wait=False)
    if isinstance(target, type) and issubclass(target, EventHandler) and _type_argument(target) is None:
        return replace(spec, event_type=_made(target).event_type or spec.event_type)
    return spec


def _with_annotated_events(spec: HandlerSpec, *, may_wait: bool) -> HandlerSpec:
    """``spec`` with the events that are annotated in its target; as it is where it names its events itself.

    Args:
        spec: The subscription.
        may_wait: Whether names that are not defined yet may be so when the annotation is read the next time.
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
    """The events that the target of ``spec`` is annotated for; ``None`` for all."""
    target, in_lists = spec.target, spec.batch is not None and not spec.keeps_a_view
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
    """The events of a class that is written as ``class AHandler(EventHandler[AnEvent])``; ``None`` for all."""
    argument = type_arguments(kind, EventHandler).get(E, Any)
    return classes_among(Scope(owner=kind).alternatives(argument), DomainEvent)


def _made(kind: type[EventHandler[Any]]) -> EventHandler[Any]:
    try:
        return kind()
    except TypeError as error:
        reason = f"cannot be made without arguments ({error}): give the system an instance of it"
        raise InvalidHandler(f"{kind.__qualname__} {reason}") from error


class DefaultName(str):
    """The name of a handler that was given none: that of its code, which does not survive a move."""

    __slots__ = ()


def name_in_main(target: Any) -> str:
    """The default name of a handler as it is where its module is not imported but run."""
    return f"__main__.{_code_of(target).__qualname__}"


def _place(target: Any) -> str:
    code = _code_of(target)
    return f"{_module_name(code.__module__)}.{code.__qualname__}"


def _code_of(target: Any) -> Any:
    return target if hasattr(target, "__qualname__") else type(target)


def _module_name(name: str) -> str:
    """The name under which a module is imported, also while it is run as a program, as far as that is known.

    ``python -m package.module`` tells it; that of ``python module.py`` is the file's, whose directory Python puts
    on its path. What is typed in or read from a pipe has none.
    """
    if name not in _RUN:
        return name
    main = sys.modules.get("__main__")
    spec = getattr(main, "__spec__", None)
    found = spec.name if spec is not None else Path(getattr(main, "__file__", None) or "").stem
    return found if found.rpartition(".")[2].isidentifier() else "__main__"


_RUN = ("__main__", "__mp_main__")
"""Names of the module that is run, in the first process and in those that `multiprocessing` spawns."""


def default_name(target: Any) -> DefaultName:
    """The name of a handler that is given none.

    Raises:
        InvalidHandler: ``target`` has no name of its own.
    """
    if isinstance(target, EventHandler):
        target = type(target)
    if not hasattr(target, "__qualname__"):
        raise InvalidHandler(f"{target!r} has no name of its own: subscribe it with name=...")
    return DefaultName(_place(target))
