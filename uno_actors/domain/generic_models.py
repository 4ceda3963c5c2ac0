"""Generic models by recorded name: ``Changed[list[int]]`` names a class that the program may not have made yet."""

import ast
import sys
import typing
from collections.abc import Mapping
from datetime import date, datetime, time, timedelta
from decimal import Decimal
from typing import Any, TypeVar
from uuid import UUID

from pydantic import BaseModel

M = TypeVar("M", bound=BaseModel)


def parametrise(generic: type[M], arguments: str) -> type[M] | None:
    """``generic`` with the arguments in a recorded name, such as ``[list[int]]``.

    The text comes from a store: it is read as names and never evaluated. A name stands for a built-in type or for
    the object of that name in the module of ``generic``.

    Returns:
        The class; ``None`` if a name stands for nothing, or ``generic`` takes no such arguments.
    """
    known = {**vars(sys.modules.get(generic.__module__, typing)), **_TYPE_NAMES}
    try:
        tree = ast.parse(f"_{arguments}", mode="eval").body
        if not isinstance(tree, ast.Subscript):
            return None
        parametrised = generic[_type_named(tree.slice, known)]  # type: ignore[index]
    except Exception:  # noqa: BLE001 - the object may refuse to be a type argument with any error
        return None
    return parametrised if isinstance(parametrised, type) and issubclass(parametrised, generic) else None


def _type_named(tree: ast.expr, known: Mapping[str, Any]) -> Any:
    match tree:
        case ast.Name(id=name):
            return known[name]
        case ast.Constant(value=None):
            return None
        case ast.Tuple(elts=parts):
            return tuple(_type_named(part, known) for part in parts)
        case ast.Subscript(value=origin, slice=arguments):
            return _type_named(origin, known)[_type_named(arguments, known)]
        case ast.BinOp(left=left, op=ast.BitOr(), right=right):
            return _type_named(left, known) | _type_named(right, known)
    raise LookupError(ast.dump(tree))


_TYPES = (
    bool,
    int,
    float,
    str,
    bytes,
    list,
    dict,
    set,
    frozenset,
    tuple,
    Decimal,
    UUID,
    date,
    datetime,
    time,
    timedelta,
)

_TYPE_NAMES: dict[str, Any] = {kind.__name__: kind for kind in _TYPES} | {
    "Any": Any,
    "NoneType": None,
    "Optional": typing.Optional,
    "Union": typing.Union,
}
