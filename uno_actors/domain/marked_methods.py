"""Methods that take one message each and are marked by a decorator: ``@handles`` and ``@reacts``.

They are found in all classes that an aggregate inherits from, and under any decorators. `uno_actors.annotations` reads
which message they take.
"""

import inspect
import sys
import types
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, TypeVar

from uno_actors.annotations import (
    NOT_ANNOTATED,
    WRAPPERS,
    OpenTypeParameter,
    Scope,
    UnreadableAnnotation,
    closure,
    innermost,
    layers,
    open_parameters,
    own_attribute,
    parameters,
    shown,
    type_arguments,
)
from uno_actors.errors import InvalidAggregate

_VARIADIC = {inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD}

M = TypeVar("M", bound=Callable[..., Any])


class Mark:
    """The mark that a decorator such as ``@handles`` leaves on a method.

    Attributes:
        annotation: The annotation of the message, if its names are known only while the method is defined: inside a
            function, whose names are gone after it returns.
        options: What the decorator was given; ``None`` if it stands alone.
    """

    __slots__ = ("annotation", "options")

    def __init__(self, annotation: Any = NOT_ANNOTATED, options: Any = None) -> None:
        self.annotation = annotation
        self.options = options


def set_mark(method: Any, name: str, options: Any = None) -> bool:
    """Leave a `Mark` with ``options`` on ``method`` under ``name``; return whether that was possible."""
    if isinstance(method, type) or not (callable(method) or isinstance(method, WRAPPERS)):
        return False
    mark = Mark(options=options)
    text = _annotation_text(method)
    if text is not None:
        with suppress(UnreadableAnnotation):  # it is read again when the class is known
            mark.annotation = Scope(innermost(method)).evaluate(text)
    try:
        setattr(method, name, mark)
    except AttributeError:
        return False
    return True


def _annotation_text(method: Any) -> str | None:
    """The annotation of the message, if it is a string in a function inside another one."""
    if "<locals>" not in getattr(innermost(method), "__qualname__", ""):
        return None
    try:
        found = next(iter(parameters(method, skip=1)), None)
    except (UnreadableAnnotation, TypeError, ValueError):
        return None
    return found.annotation if found is not None and isinstance(found.annotation, str) else None


def marked(member: Any, method_name: str, mark: str) -> Any | None:
    """The function that carries ``mark``: ``member``, or one below its decorators; ``None`` if there is none.

    A decorator that does not use ``functools.wraps`` still refers to the function that it wraps.
    """
    for layer in layers(member):
        if isinstance(own_attribute(layer, mark), Mark):
            return layer
    return next((held for held in _held(member, method_name) if mark in vars(held)), None)


def _held(member: Any, method_name: str) -> Iterator[types.FunctionType]:
    """The functions of this name that ``member``, or a function that it wraps, refers to in order to call it."""
    waiting, seen = [member], set[int]()
    while waiting:
        for layer in layers(waiting.pop()):
            if id(layer) in seen:
                continue
            seen.add(id(layer))
            for content in _contents(layer):
                if content.__name__ == method_name:
                    yield content
                waiting.append(content)


def _contents(layer: Any) -> Iterator[types.FunctionType]:
    """The functions that a function closes over, or that an object has as attributes."""
    if isinstance(layer, types.FunctionType):
        found = list(closure(layer).values())
    else:
        found = [] if isinstance(layer, type) else list((own_attribute(layer, "__dict__") or {}).values())
    return (content for content in found if isinstance(content, types.FunctionType))


@dataclass(frozen=True, slots=True)
class MarkedMethod:
    """A method that takes one message, and the message it takes.

    Attributes:
        name: The method's name.
        annotation: The annotation of the message.
        alternatives: The single types that the annotation allows.
        scope: Where the names in the annotation are looked up.
        options: What the decorator was given; ``None`` if it stands alone.
    """

    name: str
    annotation: Any
    alternatives: list[Any]
    scope: Scope
    options: Any = None


@dataclass(frozen=True, slots=True)
class Decorator:
    """A decorator that marks methods of aggregates.

    Attributes:
        name: As it is written: ``@handles``.
        mark: The attribute under which it leaves its `Mark`.
        message: The kind of message that the method takes: ``command``.
        verb: What the method does with the message: ``handles``.
    """

    name: str
    mark: str
    message: str
    verb: str

    def check_absent(self, cls: type, reason: str) -> None:
        """Check that no method of ``cls`` is marked, because the mark would have no effect.

        Raises:
            InvalidAggregate: A method is marked.
        """
        for base in cls.__mro__:
            for name, member in vars(base).items():
                if marked(member, name, self.mark) is not None:
                    raise InvalidAggregate(cls.__name__, f"{name} is marked with {self.name}, and {reason}")

    def put_on(self, method: M, options: Any = None) -> M:
        """Mark ``method``, with what the decorator was given, and return it.

        Raises:
            InvalidAggregate: It is not a method.
        """
        if not set_mark(method, self.mark, options):
            body = sys._getframe(2).f_locals.get("__qualname__", "?")
            found = shown(method) if isinstance(method, type) else repr(method)
            reason = (
                f"write {self.name} alone above a method; the {self.message} is read from its annotation. Found"
                f" {self.name}({found})"
            )
            raise InvalidAggregate(body, reason)
        return method

    def methods_of(self, cls: type) -> Iterator[MarkedMethod]:
        """The marked methods of ``cls``, inherited ones included.

        Raises:
            InvalidAggregate: One of them is not a plain method of one annotated message, or an unmarked method
                overrides it.
        """
        members = {
            name: (base, member) for base in reversed(cls.__mro__) for name, member in vars(base).items()
        }
        for name, (owner, member) in members.items():
            function = marked(member, name, self.mark)
            if function is None:
                self._check_override(cls, owner, name)
                continue
            try:
                yield self._read(cls, owner, name, member, function)
            except OpenTypeParameter as unknown:
                if unknown.parameter not in open_parameters(cls):
                    reason = (
                        f"{self.name} method {name} takes {unknown.parameter.__name__}, and {cls.__name__} does not"
                        f" say which type that is: write class {cls.__name__}({owner.__name__}[...])"
                    )
                    raise InvalidAggregate(cls.__name__, reason) from None

    def _check_override(self, cls: type, owner: type, name: str) -> None:
        for base in cls.__mro__[cls.__mro__.index(owner) + 1 :]:
            function = marked(vars(base).get(name), name, self.mark)
            if function is not None:
                whose = name if owner is cls else f"{owner.__name__}.{name}"
                try:
                    message = " or ".join(
                        map(shown, self._read(cls, base, name, function, function).alternatives)
                    )
                except OpenTypeParameter as unknown:
                    message = unknown.parameter.__name__
                reason = (
                    f"{whose} overrides a method that {self.verb} {message}: mark it with {self.name} too"
                )
                raise InvalidAggregate(cls.__name__, reason)

    def _read(self, cls: type, owner: type, name: str, member: Any, function: Any) -> MarkedMethod:
        what = f"{self.name} method {name}"
        if reason := _misuse(name, [*layers(member), *layers(function)]):
            raise InvalidAggregate(cls.__name__, f"{what} {reason}")
        mark: Mark = own_attribute(function, self.mark)
        function = _below_silent(function, name)
        shown_as = ""
        try:
            taken = parameters(function, skip=1)
            is_hidden = mark.annotation is NOT_ANNOTATED and {found.kind for found in taken} & _VARIADIC
            if is_hidden:
                reason = f"is hidden by a decorator, so its {self.message} cannot be read"
                raise InvalidAggregate(cls.__name__, f"{what} {reason}: use functools.wraps in it")
            count = sum(found.kind is not inspect.Parameter.KEYWORD_ONLY for found in taken)
            if len(taken) != 1 or count != 1:
                reason = f"must take one {self.message}, found {count} parameters"
                raise InvalidAggregate(cls.__name__, f"{what} {reason}")
            annotation = taken[0].annotation if mark.annotation is NOT_ANNOTATED else mark.annotation
            if annotation is NOT_ANNOTATED:
                raise InvalidAggregate(cls.__name__, f"{what} {self._not_annotated(name, taken[0])}")
            shown_as = f"{annotation!r} "
            scope = Scope(innermost(function), owner, type_arguments(cls, owner), strict=True)
            if isinstance(annotation, str):
                annotation = scope.evaluate(annotation)
            return MarkedMethod(name, annotation, scope.alternatives(annotation), scope, mark.options)
        except OpenTypeParameter:
            raise
        except UnreadableAnnotation as unreadable:
            reason = f"the annotation {shown_as}of {what} {unreadable}"
            raise InvalidAggregate(cls.__name__, reason) from None
        except (TypeError, ValueError) as error:
            if isinstance(error, InvalidAggregate):
                raise
            raise InvalidAggregate(cls.__name__, f"{what} is not a plain method ({error})") from None

    def _not_annotated(self, name: str, parameter: inspect.Parameter) -> str:
        a_message = f"A{'n' if self.message[0] in 'aeiou' else ''}{self.message.capitalize()}"
        return f"has no annotation: write {name}(self, {parameter.name}: {a_message})"


def _misuse(name: str, found: Iterable[Any]) -> str:
    """Why a method with these `layers` cannot take a message; empty if it can."""
    for layer in found:
        if isinstance(layer, (staticmethod, classmethod, property)):
            return f"is a {type(layer).__name__}, not a plain method: write def {name}(self, ...)"
        if inspect.iscoroutinefunction(layer):
            return "is async; it must decide from the state alone: write a plain def"
        if inspect.isgeneratorfunction(layer) or inspect.isasyncgenfunction(layer):
            return "has a yield in it, so calling it would do nothing: write it without"
    return ""


def _below_silent(function: Any, name: str) -> Any:
    """The method itself if ``function`` takes ``*args`` and passes them on to it."""
    try:
        is_silent = all(parameter.kind in _VARIADIC for parameter in parameters(function, skip=1))
    except (TypeError, ValueError):
        return function
    return next(_held(function, name), function) if is_silent else function


HANDLES = Decorator("@handles", "__handles_command__", "command", "handles")
REACTS = Decorator("@reacts", "__reacts__", "event", "reacts to")
