"""Values that name Python objects, as ``package.module:name``: classes, handlers, errors."""

import importlib
import inspect
import re
import traceback
from collections.abc import Callable
from difflib import get_close_matches
from types import ModuleType
from typing import Annotated, Any

from uno_actors.actors.actor import Actor
from uno_actors.actors.pykka import PykkaActor
from uno_actors.annotations import UnreadableAnnotation
from uno_actors.config.values import Allowed, a_string
from uno_actors.domain.aggregate import AggregateRoot
from uno_actors.domain.events import DomainEvent
from uno_actors.errors import InvalidHandler, describe
from uno_actors.handlers.dependencies import constructor_needs
from uno_actors.handlers.projection import Projection
from uno_actors.handlers.spec import EventHandler, HandlerSpec
from uno_actors.handlers.subscribe import default_name, gather

_IMPORT_STRING = re.compile(r"[^\W\d]\w*(?:\.[^\W\d]\w*)*:[^\W\d]\w*(?:\.[^\W\d]\w*)*")


def imported(found: Any) -> Any:
    """The object that ``"package.module:name"`` names.

    Raises:
        ValueError: It is not such a string, or cannot be imported. The error gives the reason.
    """
    text = a_string(found)
    if not _IMPORT_STRING.fullmatch(text):
        raise ValueError("it names nothing" if ":" not in text else "it is malformed")
    module, _, path = text.partition(":")
    thing = _module(module)
    for name in path.split("."):
        try:
            thing = getattr(thing, name)
        except AttributeError:
            near = get_close_matches(name, dir(thing), 1)
            hint = f"; did you mean {near[0]!r}?" if near else ""
            raise ValueError(f"there is no {name!r} in {module}{hint}") from None
    return thing


def _module(name: str) -> Any:
    try:
        return importlib.import_module(name)
    except (Exception, SystemExit) as error:  # noqa: BLE001 - a module may raise anything
        frames = [
            frame for frame in traceback.extract_tb(error.__traceback__) if "importlib" not in frame.filename
        ]
        last = frames[-1]
        place = f" at {last.filename}:{last.lineno}" if last.filename != __file__ else ""
        raise ValueError(f"module {name!r} cannot be imported ({describe(error)}{place})") from None


def _class_of(base: type, kind: str, check: Callable[[type], None] | None = None) -> Allowed:
    def parse(found: Any) -> Any:
        thing = imported(found)
        if not (isinstance(thing, type) and issubclass(thing, base)):
            raise ValueError(f"{found} is {_described(thing)}")
        if check is not None:
            check(thing)
        return thing

    return _import_string(f"{kind}", parse)


_BASES = (Actor, AggregateRoot, EventHandler, Projection)


def _check_is_concrete(kind: type) -> None:
    if kind in _BASES or kind.__module__.partition(".")[0] == "pykka":
        raise ValueError(f"{kind.__qualname__} is the base class itself: name one of your own")
    if inspect.isabstract(kind):
        missing = ", ".join(sorted(getattr(kind, "__abstractmethods__", ())))
        raise ValueError(f"{kind.__qualname__} is abstract: it does not define {missing}")


def _check_aggregate(kind: type) -> None:
    _check_is_concrete(kind)
    if reason := why_not_made(kind, "id"):
        raise ValueError(f"{kind.__qualname__} cannot be made from its id alone: {reason}")


def _check_handler(kind: type) -> None:
    _check_is_concrete(kind)
    try:
        constructor_needs(kind, "make an instance in its module and name that")
    except (InvalidHandler, UnreadableAnnotation) as error:
        raise ValueError(str(error)) from None


def why_not_made(kind: Any, *args: Any, **kwargs: Any) -> str:
    """Why ``kind`` cannot be called with these arguments; empty if it can, or if its signature is unknown."""
    try:
        inspect.signature(kind.__init__).bind(None, *args, **kwargs)
    except TypeError as error:
        return str(error)
    except ValueError:  # some built-in classes have no signature
        pass
    return ""


def _described(thing: object) -> str:
    if isinstance(thing, type):
        return f"the class {thing.__qualname__}"
    kind = type(thing).__name__
    return f"{'an' if kind[0].lower() in 'aeiou' else 'a'} {kind}"


def _import_string(kind: str, parse: Callable[[Any], Any]) -> Allowed:
    return Allowed(
        f'{kind}, named as "package.module:name"',
        parse,
        {"type": "string", "pattern": r"^[\w.]+:[\w.]+$", "examples": ["package.module:name"]},
    )


def handler_named(found: Any) -> HandlerSpec:
    """The subscription of the handler that ``"package.module:name"`` names.

    Raises:
        ValueError, InvalidHandler: It names none.
    """
    thing = imported(found)
    if isinstance(thing, ModuleType) or not (
        callable(thing) or isinstance(thing, (HandlerSpec, EventHandler))
    ):
        raise ValueError(f"{found} is {_described(thing)}")
    if isinstance(thing, type) and issubclass(thing, EventHandler):
        _check_handler(thing)
    try:
        (spec,) = gather([thing])
    except InvalidHandler:  # no code subscribes it: the file does
        if isinstance(thing, type):
            raise
        return HandlerSpec(default_name(thing), thing)
    return spec


def error_named(found: Any) -> type[BaseException]:
    """The exception class that ``"ValueError"`` or ``"package.module:name"`` names.

    Raises:
        ValueError: It names none.
    """
    thing = imported(found if not isinstance(found, str) or ":" in found else f"builtins:{found}")
    if not (isinstance(thing, type) and issubclass(thing, BaseException)):
        raise ValueError(f"{found} is {_described(thing)}")
    return thing


Handler = Annotated[HandlerSpec, _import_string("a function or an EventHandler", handler_named)]

AggregateType = Annotated[
    type[AggregateRoot], _class_of(AggregateRoot, "an AggregateRoot class", _check_aggregate)
]

EventType = Annotated[type[DomainEvent], _class_of(DomainEvent, "a DomainEvent class")]

ActorType = Annotated[type[PykkaActor], _class_of(PykkaActor, "an Actor class", _check_is_concrete)]

ErrorType = Annotated[
    type[BaseException],
    Allowed(
        'an exception class, named as "ValueError" or "package.module:name"', error_named, {"type": "string"}
    ),
]
