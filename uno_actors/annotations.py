"""The messages that a function takes, read from its annotations in one place.

``@handles`` and ``@reacts`` methods, ``@subscribe`` and the type argument of ``EventHandler[...]`` follow the same
rules. Names are looked up where Python would look them up for the undecorated function. ``A | B``, ``Optional``,
``Annotated``, aliases, type variables and strings are resolved. An annotation that cannot be read raises
`UnreadableAnnotation`; it is never taken to mean "anything".
"""

import builtins
import functools
import inspect
import sys
import types
import typing
from collections import ChainMap
from collections.abc import Collection, Iterable, Iterator, Mapping, MutableMapping, Sequence
from typing import Any, ForwardRef, NewType, TypeVar, Union, get_args, get_origin

import typing_extensions

NOT_ANNOTATED = inspect.Parameter.empty

ALIASES: tuple[Any, ...] = tuple(
    {typing_extensions.TypeAliasType, getattr(typing, "TypeAliasType", None)} - {None}
)
_LISTS = (list, tuple, Sequence, Collection, Iterable)
WRAPPERS = (types.MethodType, staticmethod, classmethod)
_PARTIAL = (functools.partial, functools.partialmethod)


class UnreadableAnnotation(ValueError):
    """An annotation that does not show which messages are meant, and why.

    Attributes:
        may_be_defined_later: Whether a name in it is not defined yet.
    """

    def __init__(self, reason: str, *, may_be_defined_later: bool = False) -> None:
        self.may_be_defined_later = may_be_defined_later
        super().__init__(reason)


class OpenTypeParameter(UnreadableAnnotation):
    """The annotation is a type parameter that the class does not define yet."""

    def __init__(self, parameter: TypeVar) -> None:
        self.parameter = parameter
        super().__init__(f"the type parameter {parameter.__name__} stands for no class")


class Scope:
    """The scopes in which names in the annotations of a function, or of a class's bases, are looked up.

    From the inside out: what the function closes over, the body of its class, the functions around it while they run,
    its module.

    Args:
        function: The undecorated function that has the annotations; or ``None``.
        owner: The class in whose body they are written; or ``None``.
        stands_for: The types that type parameters stand for.
        strict: Whether a type parameter that stands for nothing is an error; otherwise it stands for its bound.
    """

    def __init__(
        self,
        function: Any = None,
        owner: type | None = None,
        stands_for: Mapping[Any, Any] | None = None,
        *,
        strict: bool = False,
    ) -> None:
        self._function = function
        self._owner = owner
        self._stands_for = stands_for or {}
        self._strict = strict
        self._names: MutableMapping[str, Any] | None = None

    def evaluate(self, text: str) -> Any:
        """The value of an annotation that is written as a string.

        Raises:
            UnreadableAnnotation: ``text`` is not an expression, or a name in it is not defined.
        """
        if self._names is None:
            self._names = ChainMap(*_namespaces(self._function, self._owner))
        try:
            return eval(text, {"__builtins__": builtins}, self._names)  # noqa: S307 - the program's own source
        except Exception as error:  # noqa: BLE001 - evaluating it may raise anything
            later = isinstance(error, (NameError, AttributeError))
            raise UnreadableAnnotation(f"is not defined ({error})", may_be_defined_later=later) from None

    def alternatives(self, annotation: Any) -> list[Any]:
        """The single types that ``annotation`` allows, each once: ``A`` for ``A | None``.

        Raises:
            UnreadableAnnotation: A name is not defined, or a type parameter stands for nothing.
        """
        found: list[Any] = []
        waiting, seen = [annotation], 0
        while waiting:
            seen += 1
            if seen > 1000:
                raise UnreadableAnnotation("stands for itself")
            part = waiting.pop(0)
            inner = self._inner(part)
            if inner is not None:
                waiting[:0] = inner
            elif part not in (None, types.NoneType) and part not in found:
                found.append(part)
        return found

    def _inner(self, part: Any) -> list[Any] | None:
        """What ``part`` stands for; ``None`` if it stands for itself."""
        origin = get_origin(part)
        inner: list[Any] | None = None
        if isinstance(part, str):
            inner = [self.evaluate(part)]
        elif isinstance(part, ForwardRef):
            inner = [self.evaluate(part.__forward_arg__)]
        elif origin in (Union, types.UnionType):
            inner = list(get_args(part))
        elif origin is typing.Annotated:
            inner = [get_args(part)[0]]
        elif isinstance(part, ALIASES):
            inner = [part.__value__]
        elif isinstance(origin, ALIASES):
            inner = [origin.__value__[get_args(part)]]
        elif isinstance(part, NewType):
            inner = [part.__supertype__]
        elif isinstance(part, TypeVar):
            inner = self._of_parameter(part)
        return inner

    def _of_parameter(self, parameter: TypeVar) -> list[Any]:
        meant = self._stands_for.get(parameter, parameter)
        if meant is not parameter:
            return [meant]
        if self._strict:
            raise OpenTypeParameter(parameter)
        if parameter.__constraints__:
            return list(parameter.__constraints__)
        return [Any if parameter.__bound__ is None else parameter.__bound__]


# --- functions under their decorators ----------------------------------------------------------------------


def layers(member: Any) -> Iterator[Any]:
    """``member`` and the functions under its decorators, outermost first."""
    waiting, seen = [member], set[int]()
    while waiting:
        layer = waiting.pop()
        if id(layer) in seen:
            continue
        seen.add(id(layer))
        yield layer
        if isinstance(layer, WRAPPERS):
            waiting.append(layer.__func__)
        elif isinstance(layer, _PARTIAL):
            waiting.append(layer.func)
        elif isinstance(layer, property):
            waiting.append(layer.fget)
        elif (wrapped := own_attribute(layer, "__wrapped__")) is not None:
            waiting.append(wrapped)


def own_attribute(thing: Any, name: str) -> Any:
    """An attribute of ``thing`` itself; reading it does not make a proxy load the object that it stands for."""
    found = inspect.getattr_static(thing, name, None)
    is_slot = isinstance(found, (types.MemberDescriptorType, types.GetSetDescriptorType))
    return getattr(thing, name, None) if is_slot else found


def runs_later(member: Any) -> bool:
    """Whether calling ``member`` runs nothing yet: an ``async def`` or a generator below its decorators."""
    kinds = (inspect.iscoroutinefunction, inspect.isgeneratorfunction, inspect.isasyncgenfunction)
    return any(kind(layer) for layer in layers(member) for kind in kinds)


def innermost(function: Any) -> Any:
    """The undecorated function."""
    return list(layers(function))[-1]


def parameters(function: Any, skip: int = 0) -> list[inspect.Parameter]:
    """The parameters that ``function`` takes after the first ``skip`` ones.

    Raises:
        UnreadableAnnotation: An annotation is not defined (from Python 3.14 on, where they are evaluated then).
        TypeError, ValueError: It is not a function, or has no signature.
    """
    try:
        return list(inspect.signature(function).parameters.values())[skip:]
    except NameError as error:
        raise UnreadableAnnotation(f"is not defined ({error})", may_be_defined_later=True) from None


def message_annotation(function: Any, skip: int = 0) -> Any:
    """The annotation of the first argument of ``function`` after ``skip`` others, or `NOT_ANNOTATED`.

    Raises:
        UnreadableAnnotation: It is not defined.
    """
    positional = (
        inspect.Parameter.POSITIONAL_ONLY,
        inspect.Parameter.POSITIONAL_OR_KEYWORD,
        inspect.Parameter.VAR_POSITIONAL,
    )
    try:
        taken = [found for found in parameters(function) if found.kind in positional]
    except (TypeError, ValueError):  # some built-in functions have no signature
        return NOT_ANNOTATED
    if taken and taken[-1].kind is inspect.Parameter.VAR_POSITIONAL:
        return taken[min(skip, len(taken) - 1)].annotation
    return taken[skip].annotation if len(taken) > skip else NOT_ANNOTATED


# --- type arguments ----------------------------------------------------------------------------------------


def type_arguments(kind: Any, generic: type) -> dict[Any, Any]:
    """What the type parameters of ``generic`` stand for in ``kind``, a class or ``AClass[...]``.

    Empty if ``kind`` does not define them, or is unrelated to ``generic``.
    """
    origin = get_origin(kind) or kind
    own: dict[Any, Any] = dict(zip(getattr(origin, "__parameters__", ()), get_args(kind), strict=False))
    if origin is generic:
        return own
    for base in vars(origin).get("__orig_bases__", origin.__bases__):
        base_class = get_origin(base) or base
        if not (isinstance(base_class, type) and issubclass(base_class, generic)):
            continue
        if open_parameters := getattr(base, "__parameters__", ()) if base_class is not base else ():
            base = base[tuple(own.get(parameter, parameter) for parameter in open_parameters)]  # noqa: PLW2901
        if found := type_arguments(base, generic):
            return {
                parameter: _evaluated(argument, origin) if isinstance(argument, ForwardRef) else argument
                for parameter, argument in found.items()
            }
    return {}


def open_parameters(kind: type) -> set[Any]:
    """The type parameters that ``kind`` leaves open."""
    bases = vars(kind).get("__orig_bases__", ())
    return {parameter for base in bases for parameter in getattr(base, "__parameters__", ())}


def _evaluated(argument: ForwardRef, writer: type) -> Any:
    """The type that a string means in the bases of ``writer``; ``argument`` itself if the name is unknown there."""
    try:
        return Scope(owner=writer).evaluate(argument.__forward_arg__)
    except UnreadableAnnotation:
        return argument


# --- several alternatives ----------------------------------------------------------------------------------


def classes_among(alternatives: Iterable[Any], base: type) -> tuple[type, ...] | None:
    """The subclasses of ``base`` among the alternatives; ``None`` if any instance of ``base`` is meant.

    Raises:
        UnreadableAnnotation: One of them is not a subclass of ``base``, or there is none.
    """
    classes: list[type] = []
    for part in alternatives:
        if part in (Any, NOT_ANNOTATED) or (isinstance(part, type) and issubclass(base, part)):
            return None
        if not (isinstance(part, type) and issubclass(part, base)):
            is_list = (get_origin(part) or part) in _LISTS
            hint = ": lists come only with batch=..." if is_list else ""
            raise UnreadableAnnotation(f"names {shown(part)}, which is not a {base.__name__}{hint}")
        classes.append(part)
    if not classes:
        raise UnreadableAnnotation(f"names no {base.__name__}")
    return tuple(classes)


def annotated_classes(
    function: Any, base: type, *, skip: int = 0, kind: type | None = None, in_lists: bool = False
) -> tuple[type, ...] | None:
    """The subclasses of ``base`` in the annotation of the first argument of ``function``; ``None`` for any.

    Args:
        function: A function, method or another callable.
        base: The class of its argument.
        skip: Number of parameters before that argument: 1 for an unbound method.
        kind: The class of the method, if it is unbound.
        in_lists: Whether it is called with lists.

    Raises:
        UnreadableAnnotation: The annotation means something else, or cannot be read.
    """
    if not (inspect.isroutine(function) or isinstance(function, _PARTIAL)):
        function = getattr(function, "__call__", function)  # noqa: B004 - the method itself is needed
    whose = getattr(function, "__self__", None)
    if kind is None and whose is not None:
        kind = whose if isinstance(whose, type) else type(whose)
    shown_as = ""
    try:
        annotation = message_annotation(function, skip)
        if annotation is NOT_ANNOTATED:
            return None
        shown_as = f" {annotation!r}" if isinstance(annotation, str) else f" {shown(annotation)}"
        written = innermost(function)
        owner = None if kind is None else _writer(kind, written)
        scope = Scope(written, owner, {} if owner is None or kind is None else type_arguments(kind, owner))
        alternatives = scope.alternatives(annotation)
        if in_lists:
            alternatives = [each for part in alternatives for each in scope.alternatives(_item_of(part))]
        return classes_among(alternatives, base)
    except UnreadableAnnotation as unreadable:
        whose = getattr(innermost(function), "__qualname__", function)
        reason = f"the annotation{shown_as} of {whose} {unreadable}"
        raise UnreadableAnnotation(reason, may_be_defined_later=unreadable.may_be_defined_later) from None


def _item_of(annotation: Any) -> Any:
    """``E`` for ``list[E]``, ``Sequence[E]``, ``tuple[E, ...]`` and the like, and for ``E`` itself."""
    kind = get_origin(annotation) or annotation
    return next(iter(get_args(annotation)), Any) if kind in _LISTS else annotation


def _writer(kind: type, function: Any) -> type | None:
    """The class among the bases of ``kind`` whose body defines ``function``."""
    name = getattr(function, "__name__", "")
    return next((base for base in kind.__mro__ if name in vars(base)), None)


def narrowed(one: tuple[type, ...] | None, other: tuple[type, ...] | None) -> tuple[type, ...] | None:
    """The classes that both allow; empty if there are none."""
    if one is None or other is None:
        return other if one is None else one
    both = [kind for kind in one if issubclass(kind, other)]
    return tuple(dict.fromkeys(both + [kind for kind in other if issubclass(kind, one)]))


def is_subclass(found: Any, base: type) -> bool:
    """Whether ``found``, which may be anything, is ``base`` or one of its subclasses."""
    return isinstance(found, type) and issubclass(found, base)


def shown(annotation: Any) -> str:
    """An annotation as a programmer would write it."""
    return annotation.__qualname__ if isinstance(annotation, type) else str(annotation)


# --- where names are looked up -----------------------------------------------------------------------------


def _namespaces(function: Any, owner: type | None) -> Iterator[MutableMapping[str, Any]]:
    if function is not None:
        yield closure(function)
        yield _type_parameters(function)
    if owner is not None:
        yield dict(vars(owner))
        yield _type_parameters(owner) | {owner.__name__: owner}
    written: Any = owner if function is None else function
    module = sys.modules.get(getattr(written, "__module__", None) or "")
    in_module: dict[str, Any] = getattr(function, "__globals__", None) or getattr(module, "__dict__", {})
    yield from _enclosing(getattr(written, "__qualname__", ""), in_module)
    yield in_module
    for other in (written, owner):
        module = sys.modules.get(getattr(other, "__module__", None) or "")
        yield getattr(module, "__dict__", {})


def closure(function: Any) -> dict[str, Any]:
    """The variables that ``function`` closes over, by name, if they have a value."""
    names = getattr(getattr(function, "__code__", None), "co_freevars", ())
    cells = getattr(function, "__closure__", None) or ()
    return {
        name: cell.cell_contents
        for name, cell in zip(names, cells, strict=False)
        if cell != types.CellType()  # it has no value yet
    }


def _type_parameters(generic: Any) -> dict[str, Any]:
    return {parameter.__name__: parameter for parameter in getattr(generic, "__type_params__", ())}


def _enclosing(qualified_name: str, in_module: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    """The names in the running functions and class bodies around ``outer.<locals>.AClass.method``."""
    frame: types.FrameType | None = sys._getframe(1)
    while frame is not None:
        name = frame.f_code.co_qualname
        if frame.f_globals is in_module and qualified_name.startswith((f"{name}.<locals>.", f"{name}.")):
            yield dict(frame.f_locals)
        frame = frame.f_back
