"""Validates a file's data against its tables and finds all faults at once.

A faulty value is replaced by a stand-in, so that the rest of the file can be validated.
"""

from collections.abc import Callable, Iterator, Sequence
from difflib import get_close_matches
from typing import Any, get_args

from pydantic import BaseModel, ValidationError

from uno_actors.actors.actor import Actor
from uno_actors.config.errors import key_path, shown
from uno_actors.config.tables import BaseTable, FileTable
from uno_actors.config.toml import Path as Keys
from uno_actors.domain.events import DomainEvent
from uno_actors.errors import InternalError

MOST_PASSES = 20
"""How often a table is validated again after faulty values were replaced."""


def validated(data: dict[str, Any], report: Callable[[Keys, str, Any, bool], None]) -> FileTable:
    """The table of a file, without its faulty values or with stand-ins for them.

    Args:
        data: The file's values, as TOML says them.
        report: Called for each fault with its keys, the reason, the value found, and whether the fault is that a
            key is missing.

    Raises:
        InternalError: The data still has faults after `MOST_PASSES` passes.
    """
    for _ in range(MOST_PASSES):
        try:
            return FileTable.model_validate(data)
        except ValidationError as error:
            for detail in error.errors(include_url=False, include_context=False):
                keys = _without_marks(detail["loc"])
                report(*_what_is_wrong(keys, detail), detail["type"] == "missing")
                data = _mended(data, keys, keys)
            data = _without_gaps(data)
    raise InternalError(f"a configuration file cannot be validated: {shown(data)}")


def _without_marks(loc: Sequence[str | int]) -> Keys:
    """The keys of an error. Pydantic appends ``[key]`` if the error is in a key and not in its value."""
    return tuple(loc[:-1] if loc[-1:] == ("[key]",) else loc)


def _what_is_wrong(keys: Keys, detail: Any) -> tuple[Keys, str, Any]:
    found = detail["input"]
    match detail["type"]:
        case "extra_forbidden":
            allowed = _keys_of(_table_at(keys[:-1]))
            near = get_close_matches(str(keys[-1]), allowed, 1)
            hint = f"did you mean {near[0]!r}? " if near else ""
            return keys, f"unknown key; {hint}Known keys: {', '.join(allowed)}", found
        case "missing":
            return keys, "it is missing", None
        case "model_type" | "dict_type" | "model_attributes_type":
            return keys, "expected a table", found
        case "list_type":
            is_tables = _table_at(keys) is not None
            allowed_list = f"tables: write [[{_header(keys)}]]" if is_tables else "a list, in [ and ]"
            return keys, f"expected {allowed_list}", found
    return keys, detail["msg"], found


def _header(keys: Keys) -> str:
    return ".".join(key for key in keys if isinstance(key, str))


def _table_at(keys: Keys) -> type[BaseModel] | None:
    """The class of the table at ``keys``, or of the tables in the list there."""
    kind: type[BaseModel] | None = FileTable
    for key in keys:
        if isinstance(key, int):
            continue
        field = None if kind is None else kind.model_fields.get(key)
        kind = None if field is None else next(_models_in(field.annotation), None)
    return kind


def _models_in(annotation: Any) -> Iterator[type[BaseModel]]:
    if isinstance(annotation, type) and issubclass(annotation, BaseTable):  # events are models too
        yield annotation
    for inner in get_args(annotation):
        yield from _models_in(inner)


def _keys_of(kind: type[BaseModel] | None) -> list[str]:
    return [] if kind is None else list(kind.model_fields)


def stand_in(event: DomainEvent) -> None:
    """Replaces a handler that cannot be imported while the rest of the file is validated."""


class StandIn(Actor):
    """Replaces an actor that cannot be imported while the rest of the file is validated."""


_STAND_INS = {"handler": f"{__name__}:{stand_in.__name__}", "actor": f"{__name__}:{StandIn.__name__}"}

_GAP = object()


def _mended(data: Any, keys: Keys, whole: Keys) -> Any:
    """``data`` without the value at ``keys``, or with a valid one in its place.

    A removed element of a list leaves a gap, so that the others keep their index.
    """
    if not keys:
        return {}
    key, rest = keys[0], keys[1:]
    if isinstance(data, list):
        mended = list(data)
        index = int(key)
        mended[index] = _mended(data[index], rest, whole) if rest else _stand_in_at(whole)
        return mended
    if not isinstance(data, dict):
        return data
    if rest:
        return {**data, key: _mended(data[key], rest, whole)} if key in data else data
    others = {name: value for name, value in data.items() if name != key}
    found = _stand_in_at(whole)
    return others if found is _GAP else {**others, key: found}


def _stand_in_at(keys: Keys) -> Any:
    """The value to put at ``keys`` if the key is required; else a gap."""
    key = keys[-1]
    table = _table_at(keys if isinstance(key, int) else keys[:-1])
    needed = {name for name, field in table.model_fields.items() if field.is_required()} if table else set()
    made = {**_STAND_INS, "name": f"unnamed {key_path(keys)}"}
    if isinstance(key, int):
        return {name: made[name] for name in needed} if needed else _GAP
    return made[key] if key in needed else _GAP


def _without_gaps(data: Any) -> Any:
    if isinstance(data, list):
        return [_without_gaps(element) for element in data if element is not _GAP]
    if isinstance(data, dict):
        return {key: _without_gaps(value) for key, value in data.items() if value is not _GAP}
    return data
