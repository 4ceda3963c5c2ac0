"""What handlers depend on, read from their annotations: parts of their system, and resources that are opened for them.

A parameter names what it needs by its class (``system: ActorSystem``), or by the function that makes it
(``Annotated[Mailer, Depends(mailer)]``). Such a function may have dependencies of its own. Everything is read and
checked when a handler is defined; `uno_actors.handlers.resources` opens it when the handler runs.
"""

import inspect
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Annotated, Any, ForwardRef, Literal, get_args, get_origin

from uno_actors.annotations import (
    ALIASES,
    NOT_ANNOTATED,
    Scope,
    UnreadableAnnotation,
    innermost,
    layers,
    parameters,
    shown,
)
from uno_actors.clock import Clock
from uno_actors.errors import InvalidHandler
from uno_actors.handlers.services import SystemServices
from uno_actors.store.port import EventStore

Lifetime = Literal["event", "handler", "system"]
"""How long a resource stays open: for one call of the handler, while the handler runs, or while any handler of the
system that depends on it runs."""

_LASTS: Mapping[str, int] = {"event": 0, "handler": 1, "system": 2}

Part = Literal["system", "store", "clock", "context"]
"""A part of the system that is provided by its class; ``context`` is that of a call."""

PARTS: dict[type, Part] = {SystemServices: "system", EventStore: "store", Clock: "clock"}
"""The classes by which parameters ask for parts of the system. The modules that define others add them."""

ALLOWED = "HandlerContext, ActorSystem, EventStore, Clock, or Annotated[..., Depends(function)]"


@dataclass(frozen=True, slots=True)
class Depends:
    """Marks a parameter or an attribute of a handler as a dependency: ``Annotated[Mailer, Depends(mailer)]``.

    What ``dependency`` returns is passed to the handler. It is a *resource*, which is closed when it is no longer
    needed, if ``dependency`` is a function with one ``yield``, is decorated with `contextlib.asynccontextmanager` or
    `contextlib.contextmanager`, or is a class with ``__aenter__`` or ``__enter__``. Coroutine functions run on the
    event loop, plain functions on a worker thread. Its own parameters may be dependencies too.

    Args:
        dependency: A function or class. ``None`` stands for the annotated class.
        scope: How long a resource stays open. ``handler``: as long as the handler runs in this process; after a restart
            it is opened anew. ``event``: for one call of the handler; an error of the handler is raised at the
            ``yield``. ``system``: as long as any handler of the system depends on it; all of them share it.

    Raises:
        InvalidHandler: ``dependency`` cannot be called, or ``scope`` is none of these.
    """

    dependency: Callable[..., Any] | None = None
    scope: Lifetime = "handler"

    def __post_init__(self) -> None:
        if self.dependency is not None and not callable(self.dependency):
            raise InvalidHandler(
                f"Depends({self.dependency!r}): a dependency is a function or a class, which is called when a handler"
                " starts"
            )
        if self.scope not in _LASTS:
            raise InvalidHandler(f"scope must be one of {', '.join(map(repr, _LASTS))}, not {self.scope!r}")


@dataclass(frozen=True, slots=True)
class Provided:
    """A part of the system, of this class."""

    part: Part
    kind: type


@dataclass(frozen=True, slots=True)
class Resource:
    """What a function makes.

    Attributes:
        function: The function.
        scope: How long it stays open.
        needs: What its parameters need.
    """

    function: Callable[..., Any]
    scope: Lifetime
    needs: "Needs"

    @property
    def key(self) -> tuple[object, str]:
        """Equal for the same resource: a handler that depends on it twice gets it once."""
        return self.function, self.scope

    def __str__(self) -> str:
        return name_of(self.function)


Source = Provided | Resource

Needs = tuple[tuple[str, Source], ...]
"""What parameters need, by their names."""


@dataclass(frozen=True, slots=True)
class CallNeeds:
    """What a handler is called with besides its events.

    Attributes:
        needs: Its dependencies by the names of its parameters.
        context: Name of the parameter that takes the `HandlerContext`; ``None`` if there is none.
        by_position: Whether it takes the context after its events, by position.
    """

    needs: Needs = ()
    context: str | None = None
    by_position: bool = False


@dataclass(frozen=True, slots=True)
class HandlerNeeds:
    """All dependencies of a handler.

    Attributes:
        constructor: Those of its class's constructor, if the class was given.
        attributes: Those of its class's attributes.
        call: Those of its calls.
    """

    constructor: Needs = ()
    attributes: Needs = ()
    call: CallNeeds = CallNeeds()

    def __bool__(self) -> bool:
        return bool(self.constructor or self.attributes or self.call.needs)

    @property
    def lasting(self) -> Needs:
        """What is needed to make the handler and for all its calls."""
        return (*self.constructor, *self.attributes, *self.call.needs)


# --- reading -----------------------------------------------------------------------------------------------


def call_needs(function: Callable[..., Any], given: tuple[str, ...], *, of: type | None = None) -> CallNeeds:
    """What a handler is called with besides what it is ``given`` by position.

    Args:
        function: The handler.
        given: What it is given, in words for errors.
        of: The class of a method that is not bound.

    Raises:
        InvalidHandler: A parameter is neither a dependency nor the context; the error names it.
        UnreadableAnnotation: An annotation cannot be read.
    """
    is_async = any(inspect.iscoroutinefunction(each) for each in (*layers(function), type(function).__call__))
    reader = _Reader(function, owner=of)
    needs: list[tuple[str, Source]] = []
    context, by_position = None, False
    for index, parameter in enumerate(reader.parameters(len(given) + (of is not None))):
        source = reader.source(parameter, may_be_context=index == 0)
        if source is None:
            continue
        if isinstance(source, str):
            takes = f"must take {' and '.join(given)}, and may take the HandlerContext and dependencies"
            raise InvalidHandler(f"{function!r} {takes}: {source}")
        if isinstance(source, Provided) and source.part == "context":
            if context is not None:
                raise InvalidHandler(f"{name_of(function)} takes the HandlerContext twice")
            context, by_position = parameter.name, index == 0 and parameter.kind in _POSITIONAL
            continue
        if not is_async:
            _check_plain(function, parameter.name, source)
        needs.append((parameter.name, source))
    return CallNeeds(tuple(needs), context, by_position)


def constructor_needs(kind: type, remedy: str = "give the system an instance of it") -> Needs:
    """What the constructor of a handler's class needs.

    Args:
        kind: The class.
        remedy: What else to do with a class that cannot be made, for the error.

    Raises:
        InvalidHandler: A parameter is not a dependency; the error names it.
        UnreadableAnnotation: An annotation cannot be read.
    """
    reason = f"{kind.__qualname__} cannot be made without arguments ({{}}): {remedy}"
    return _needs(kind, "handler", (), reason=reason)


def attribute_needs(kind: type) -> Needs:
    """What the attributes of a handler's class need: those annotated with ``Annotated[..., Depends(...)]``, and those
    annotated otherwise whose default is a `Depends`.

    Raises:
        InvalidHandler: A dependency is not a valid one.
        UnreadableAnnotation: The annotation of one cannot be read.
    """
    found: dict[str, Source] = {}
    for base in reversed(kind.__mro__):
        scope = Scope(owner=base)
        for name, annotation in inspect.get_annotations(base).items():
            found.pop(name, None)
            whose = f"attribute {name!r} of {kind.__qualname__}"
            marker = _default_marker(vars(base).get(name), whose)
            try:
                resolved = _resolved(annotation, scope)
            except UnreadableAnnotation:
                if marker is not None or Depends.__name__ in str(annotation):
                    raise
                continue
            marker = marker or _marker(resolved, whose)
            if marker is not None:
                found[name] = _source_of(marker, resolved, scope, whose, lasts="handler")
    return tuple(found.items())


def resource_of(function: Callable[..., Any], scope: Lifetime, path: tuple[Any, ...] = ()) -> Resource:
    """The resource that ``function`` makes.

    Args:
        function: A function or class.
        scope: How long it stays open.
        path: The functions that depend on it, outermost first.

    Raises:
        InvalidHandler: It depends on itself, on something that is closed earlier, or a parameter is not a dependency.
        UnreadableAnnotation: An annotation cannot be read.
    """
    if function in path:
        circle = " -> ".join(map(name_of, (*path[path.index(function) :], function)))
        raise InvalidHandler(f"dependencies in a circle: {circle}")
    reason = f"{name_of(function)} cannot be a dependency: {{}}"
    return Resource(function, scope, _needs(function, scope, (*path, function), reason=reason))


def checked_overrides(
    overrides: Mapping[Callable[..., Any], Callable[..., Any]] | None,
) -> dict[Callable[..., Any], Callable[..., Any]]:
    """``overrides`` of dependencies, checked.

    Raises:
        InvalidHandler: One cannot stand in for a dependency.
    """
    if overrides is not None and not isinstance(overrides, Mapping):
        raise InvalidHandler(
            f"dependency_overrides is a mapping of functions to functions, not {overrides!r}"
        )
    checked = dict(overrides or {})
    for function, other in checked.items():
        if not callable(other):
            raise InvalidHandler(
                f"dependency_overrides: {name_of(function)} is replaced by {other!r}, which cannot be called: write"
                " lambda: ..."
            )
    return checked


def is_async(function: Callable[..., Any]) -> bool:
    """Whether a resource is opened by a coroutine."""
    kinds = inspect.iscoroutinefunction, inspect.isasyncgenfunction
    if isinstance(function, type):
        return hasattr(function, "__aenter__")
    return any(kind(each) for each in (*layers(function), type(function).__call__) for kind in kinds)


def name_of(function: Callable[..., Any]) -> str:
    """A function as errors name it."""
    name = getattr(function, "__qualname__", None)
    return repr(function) if name is None else f"{function.__module__}.{name}"


_POSITIONAL = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
_VARIABLE = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)


class _Reader:
    """Reads the parameters of one function.

    Args:
        function: A function or class.
        lasts: How long what it makes stays open.
        path: The functions that depend on it, and itself.
        owner: The class of a method that is not bound.
    """

    def __init__(
        self,
        function: Callable[..., Any],
        lasts: Lifetime = "event",
        path: tuple[Any, ...] = (),
        owner: type | None = None,
    ) -> None:
        self._function, self._lasts, self._path = function, lasts, path
        called: Any = function
        if isinstance(function, type):
            called = function.__init__  # type: ignore[misc]  # only its annotations are read
        elif not (inspect.isroutine(function) or hasattr(function, "func")):
            called = getattr(function, "__call__", function)  # noqa: B004 - the method itself is needed
        written = innermost(called)
        owner = function if isinstance(function, type) else owner
        whose = getattr(called, "__self__", None)
        if owner is None and whose is not None:
            owner = whose if isinstance(whose, type) else type(whose)
        self._scope = Scope(written if inspect.isfunction(written) else None, owner)

    def parameters(self, given: int) -> list[inspect.Parameter]:
        """Those that nothing is given to yet; none if the function does not tell."""
        try:
            found = parameters(self._function)
        except (TypeError, ValueError):
            return []
        positional = [each for each in found if each.kind in _POSITIONAL][:given]
        return [each for each in found if each not in positional and each.kind not in _VARIABLE]

    def source(self, parameter: inspect.Parameter, *, may_be_context: bool) -> Source | str | None:
        """What a parameter needs; ``None`` if its default will do, a sentence if it cannot be given anything."""
        whose = f"parameter {parameter.name!r} of {name_of(self._function)}"
        default = _default_marker(parameter.default, whose)
        has_default = parameter.default is not NOT_ANNOTATED and default is None
        try:
            resolved = _resolved(parameter.annotation, self._scope)
        except UnreadableAnnotation:
            text = str(parameter.annotation)
            part = _part_named(text)
            if part is not None or (has_default and Depends.__name__ not in text):
                return None if has_default or part is None else Provided(part, object)
            raise
        marker = default or _marker(resolved, whose)
        if marker is not None:
            if parameter.kind is inspect.Parameter.POSITIONAL_ONLY:
                return f"{whose} is positional-only, and dependencies are passed by keyword"
            return _source_of(marker, resolved, self._scope, whose, lasts=self._lasts, path=self._path)
        return None if has_default else self._of_class(parameter, resolved, may_be_context=may_be_context)

    def _of_class(self, parameter: inspect.Parameter, resolved: Any, *, may_be_context: bool) -> Source | str:
        provided = _provided(resolved, self._scope)
        if provided is not None:
            return provided
        if may_be_context and parameter.kind in _POSITIONAL and _may_be_context(resolved, self._scope):
            return Provided("context", object)
        found = "has no annotation" if resolved is NOT_ANNOTATED else f"is annotated with {shown(resolved)}"
        return f"parameter {parameter.name!r} {found}; expected {ALLOWED}"


def _needs(function: Callable[..., Any], lasts: Lifetime, path: tuple[Any, ...], *, reason: str) -> Needs:
    """What the parameters of a function that is called by keyword need."""
    reader = _Reader(function, lasts, path)
    needs: list[tuple[str, Source]] = []
    for parameter in reader.parameters(0):
        source = reader.source(parameter, may_be_context=False)
        if source is None:
            continue
        if isinstance(source, Provided) and source.part == "context" and lasts != "event":
            source = (
                f"parameter {parameter.name!r} is the context of one call, and what it makes lasts longer: give it"
                " scope='event'"
            )
        if isinstance(source, str):
            raise InvalidHandler(reason.format(source))
        needs.append((parameter.name, source))
    return tuple(needs)


def _source_of(
    marker: Depends, annotation: Any, scope: Scope, whose: str, *, lasts: Lifetime, path: tuple[Any, ...] = ()
) -> Source:
    function = marker.dependency
    if function is None:
        provided = _provided(annotation, scope)
        if provided is not None:
            return provided
        kinds = [] if annotation is NOT_ANNOTATED else scope.alternatives(annotation)
        if len(kinds) != 1 or kinds[0] in (Any, object) or not isinstance(kinds[0], type):
            raise InvalidHandler(f"{whose}: Depends() stands for the annotated class, and there is none")
        function = kinds[0]
    try:
        hash(function)
    except TypeError:
        raise InvalidHandler(f"{whose}: {function!r} is not hashable, so it cannot be a dependency") from None
    if _LASTS[marker.scope] < _LASTS[lasts]:
        raise InvalidHandler(
            f"{whose} lasts for one {lasts}, and depends on {name_of(function)}, which is closed earlier"
            f" (scope={marker.scope!r}): give that scope={lasts!r} or a longer one"
        )
    return resource_of(function, marker.scope, path)


def _resolved(annotation: Any, scope: Scope) -> Any:
    """An annotation without strings and aliases around it; what ``Annotated`` adds stays.

    Raises:
        UnreadableAnnotation: A name is not defined.
    """
    for _ in range(1000):
        if isinstance(annotation, str):
            annotation = scope.evaluate(annotation)
        elif isinstance(annotation, ForwardRef):
            annotation = scope.evaluate(annotation.__forward_arg__)
        elif isinstance(annotation, ALIASES):
            annotation = annotation.__value__
        else:
            return annotation
    raise UnreadableAnnotation("stands for itself")


def _marker(annotation: Any, whose: str) -> Depends | None:
    """The `Depends` in an annotation, if it has one.

    Raises:
        InvalidHandler: It has several, or one of another framework.
    """
    if get_origin(annotation) is not Annotated:
        return None
    markers = [each for each in get_args(annotation)[1:] if isinstance(each, Depends)]
    if len(markers) > 1:
        raise InvalidHandler(f"{whose} has more than one Depends")
    if markers:
        return markers[0]
    for each in get_args(annotation)[1:]:
        _refuse_others(each, f"{whose} is annotated with")
    return None


def _default_marker(default: object, whose: str) -> Depends | None:
    """The `Depends` that is a default, if it is one; one of another framework is an `InvalidHandler`."""
    if isinstance(default, Depends):
        return default
    _refuse_others(default, f"{whose} has as its default a")
    return None


def _refuse_others(marker: object, what: str) -> None:
    """Refuse the marker of another framework, and our class without a function, by an `InvalidHandler`."""
    kind = marker if isinstance(marker, type) else type(marker)
    written = inspect.getattr_static(marker, "dependency", None) is not None  # and not made up by a mock
    if kind is Depends or (written and callable(getattr(marker, "dependency", None))):
        raise InvalidHandler(
            f"{what} {kind.__module__}.{kind.__qualname__}: write uno_actors.Depends(function)"
        )


def _provided(annotation: Any, scope: Scope) -> Provided | None:
    """The part of the system that an annotation names, if it names one."""
    if annotation is NOT_ANNOTATED:
        return None
    found = {
        Provided(part, kind) for kind in _classes(annotation, scope) if (part := _part(kind)) is not None
    }
    return found.pop() if len(found) == 1 else None


def _classes(annotation: Any, scope: Scope) -> Iterator[type]:
    try:
        yield from (each for each in scope.alternatives(annotation) if isinstance(each, type))
    except UnreadableAnnotation:
        return


def _part(kind: type) -> Part | None:
    return next((PARTS[base] for base in kind.__mro__ if base in PARTS), None)


def _part_named(text: str) -> Part | None:
    """The part that a string names which is imported for type checkers alone."""
    names = {kind.__name__: part for kind, part in PARTS.items()}
    return names.get(text.strip().removesuffix("| None").strip().rpartition(".")[2])


def _may_be_context(annotation: Any, scope: Scope) -> bool:
    """Whether a `HandlerContext` fits: no annotation, ``Any``, ``object`` or a protocol."""
    if annotation in (NOT_ANNOTATED, Any, object):
        return True
    return any(getattr(kind, "_is_protocol", False) for kind in _classes(annotation, scope))


def _check_plain(function: Callable[..., Any], name: str, source: Source) -> None:
    """Refuse a resource of one call that a plain handler, on its thread, cannot open."""
    if not isinstance(source, Resource) or source.scope != "event":
        return
    if is_async(source.function):
        raise InvalidHandler(
            f"{name_of(function)} is a plain function, and its parameter {name!r} depends for each event on"
            f" {source}, which is opened by a coroutine: write async def, or another scope"
        )
    for inner, below in source.needs:
        _check_plain(source.function, inner, below)
