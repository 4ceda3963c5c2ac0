"""Errors of another node: they arrive as the same class with their data, if this process knows the class.

An error is its class, its ``args`` and its attributes. The class is found by module and name among the modules that
are imported already, and must be an exception; nothing is imported, and no code of the class runs. The attributes
may be whatever `uno_actors.domain.values` can write, classes of those modules included, and further errors, paths and
classes. An error that cannot be rebuilt so arrives as `RemoteError`.
"""

import sys
import traceback
from collections.abc import Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any, get_args

import msgpack
from pydantic import ValidationError
from pydantic_core import InitErrorDetails, PydanticCustomError
from pydantic_core.core_schema import ErrorType
from typing_extensions import override

from uno_actors.domain.values import ValueWriter, is_restorable, tag_reader, tagged
from uno_actors.errors import CommandRejected, RemoteError, describe
from uno_actors.printable import LONGEST_TRACEBACK, bounded, readable

_ERROR, _PATH, _CLASS, _INVALID = 40, 41, 42, 43
_DEEPEST = 16
"""Causes of causes that are written."""


def pack_error(error: BaseException, node: str) -> bytes:
    """The bytes of ``error``, raised on the node of this name.

    They hold its traceback as a note, except for a `CommandRejected`, which is not a fault, and for errors that were
    raised nowhere.
    """
    note = ""
    if error.__traceback__ is not None and not isinstance(error, CommandRejected):
        note = f"On node {node}:\n{_traceback(error)}"
    return msgpack.packb([_written(error), note])  # type: ignore[no-any-return]


def unpack_error(data: bytes, node: str) -> Exception:
    """The error whose bytes the node of this name has sent."""
    try:
        error, note = msgpack.unpackb(data, ext_hook=_read, strict_map_key=False)
    except Exception as damage:  # noqa: BLE001 - whatever another version of uno_actors or of the program has written
        return RemoteError("an error that cannot be read", describe(damage), node)
    if isinstance(error, RemoteError) and not error.node:  # made here, in place of one that cannot be rebuilt
        error = RemoteError(error.kind, error.text, node)
    if note:
        error.add_note(note)
    return error if isinstance(error, Exception) else RemoteError(type(error).__name__, describe(error), node)


def _traceback(error: BaseException) -> str:
    try:
        return bounded(readable("".join(traceback.format_exception(error))), LONGEST_TRACEBACK)
    except BaseException:  # noqa: BLE001 - its own __str__ may raise anything
        return describe(error)


# --- writing ---


class _ErrorWriter(ValueWriter):
    """Writes the data of errors: beside values of all classes that a reader may know, errors, paths and classes."""

    def __init__(self, depth: int) -> None:
        super().__init__({}, may_share=True)
        self._depth = depth

    @override
    def plain(self, value: Any) -> object:
        if isinstance(value, BaseException):
            return _written(value, self._depth + 1)
        if isinstance(value, Path):
            return tagged(_PATH, str(value))
        if isinstance(value, type):
            return tagged(_CLASS, *_place(value))
        kind = type(value)
        if kind.__module__ != "builtins" and kind not in self._names and is_restorable(kind):
            self._names[kind] = ":".join(_place(kind))
        return super().plain(value)


def _written(error: BaseException, depth: int = 0) -> object:
    kind = type(error)
    try:
        if depth > _DEEPEST:
            raise ValueError("too many causes")  # noqa: TRY301 - as all else that cannot be written
        write = _ErrorWriter(depth).plain
        if isinstance(error, ValidationError):
            return tagged(_INVALID, error.title, [write(each) for each in error.errors(include_url=False)])
        cause = error.__cause__
        return tagged(
            _ERROR,
            *_place(kind),
            [*map(write, error.args)],
            {name: write(value) for name, value in _attributes(error).items()},
            dict(_members(error, write)),
            None if cause is None else _written(cause, depth + 1),
            describe(error),
        )
    except Exception:  # noqa: BLE001 - a value cannot be written: its class and text can
        return tagged(_ERROR, *_place(kind), None, None, None, None, describe(error))


def _read_invalid(title: str, found: list[dict[str, Any]]) -> ValidationError:
    """The `ValidationError` of these parts. Its class has no constructor, but a function that makes one of them."""
    return ValidationError.from_exception_data(title, [_line_error(each) for each in found])


def _line_error(found: dict[str, Any]) -> InitErrorDetails:
    kind: str | PydanticCustomError = found["type"]
    if kind not in _KINDS:
        kind = PydanticCustomError(found["type"], found["msg"], found.get("ctx"))
    details = InitErrorDetails(type=kind, loc=found["loc"], input=found["input"])
    if "ctx" in found and isinstance(kind, str):
        details["ctx"] = found["ctx"]
    return details


_KINDS = frozenset(get_args(ErrorType))
"""The kinds of errors whose text pydantic writes itself."""


def _place(kind: type) -> tuple[str, str]:
    return kind.__module__, kind.__qualname__


def _attributes(error: BaseException) -> dict[str, object]:
    """What the error's instance holds, in slots too."""
    slots = {
        name: getattr(error, name)
        for base in type(error).__mro__
        for name in base.__dict__.get("__slots__", ())
        if hasattr(error, name)
    }
    return slots | error.__dict__


def _members(error: BaseException, write: Any) -> Iterator[tuple[str, object]]:
    """The data of Python's own exceptions that ``args`` does not hold, such as ``OSError.filename``."""
    for name in _member_names(type(error)):
        try:
            value = getattr(error, name)
            if value is not None:
                yield name, write(value)
        except Exception:  # noqa: BLE001, S112 - it has none, or not one that can be written, such as `AttributeError.obj`
            continue


def _member_names(kind: type[BaseException]) -> list[str]:
    return [
        name
        for base in kind.__mro__
        if base.__module__ == "builtins" and base not in (BaseException, object)
        for name, found in vars(base).items()
        if hasattr(found, "__set__") and not name.startswith("_")
    ]


# --- reading ---


def _read_error(*parts: Any) -> BaseException:
    """The error of the parts that `_written` gave."""
    module, name, args, attributes, members, cause, text = parts
    try:
        kind = _imported(module, name)
        if args is None or not issubclass(kind, BaseException):
            raise TypeError(name)  # noqa: TRY301 - as a class that is unknown
        error = _rebuilt(kind, tuple(args), attributes, members)
    except Exception:  # noqa: BLE001 - whatever the class does
        return RemoteError(f"{module}.{name}", text.removeprefix(f"{name.rpartition('.')[2]}: "), "")
    if cause is not None:
        error.__cause__ = cause
    return error


def _rebuilt(
    kind: type[BaseException],
    args: tuple[object, ...],
    attributes: Mapping[str, object],
    members: Mapping[str, object],
) -> BaseException:
    """An instance with this data, made by Python's own base class of ``kind``; no code of ``kind`` runs."""
    base: Any = next(each for each in kind.__mro__ if each.__module__ == "builtins")
    error: BaseException = base.__new__(kind, *args)
    base.__init__(error, *args)
    error.args = args
    for name, value in members.items():
        with suppress(AttributeError, TypeError):  # some cannot be set and come from ``args``
            setattr(error, name, value)
    for name, value in attributes.items():
        object.__setattr__(error, name, value)
    return error


def _imported(module: str, name: str) -> Any:
    """What has this qualified name in a module that is imported already.

    Raises:
        LookupError: There is none.
    """
    found: Any = sys.modules[module]
    for part in name.split("."):
        try:
            found = vars(found)[part]
        except (KeyError, TypeError):
            raise LookupError(f"{module} has no {name}") from None
    return found


class _ImportedClasses(Mapping[str, type]):
    """The classes of values in the modules that are imported already, by ``module:name``."""

    @override
    def __contains__(self, place: object) -> bool:
        try:
            return isinstance(self[str(place)], type)
        except LookupError:
            return False

    @override
    def __getitem__(self, place: str) -> type:
        found = _imported(*place.split(":"))
        if not (isinstance(found, type) and is_restorable(found)):
            raise LookupError(f"{place} is not a class of values")
        return found

    @override
    def __iter__(self) -> Iterator[str]:
        return iter(())

    @override
    def __len__(self) -> int:
        return 0


def _read_class(module: str, name: str) -> type:
    found = _imported(module, name)
    if not isinstance(found, type):
        raise TypeError(f"{module}.{name} is not a class")
    return found


_read = tag_reader(
    _ImportedClasses(), {_ERROR: _read_error, _PATH: Path, _CLASS: _read_class, _INVALID: _read_invalid}
)
