"""Types as plain data: a `Shape` is what a catalog keeps of an annotation, and can be compared without the code.

``is`` names the kind: a scalar (``int``, ``Decimal``...), ``any``, ``union``, ``literal``, ``enum``, ``list``, ``set``,
``frozenset``, ``tuple``, ``dict``, ``model``, ``record`` (a dataclass, named tuple, typed dict or root model), or
``other``. ``of`` holds the types in it. ``rules`` are constraints and validators, which may only refuse a value;
``forms`` is everything else that an annotation says, such as serializers and discriminators.
"""

import dataclasses
import re
from collections.abc import Iterable, Iterator
from datetime import date, datetime, time, timedelta
from decimal import Decimal
from enum import Enum, Flag
from types import NoneType, UnionType
from typing import Annotated, Any, Literal, Union, get_args, get_origin, get_type_hints, is_typeddict
from uuid import UUID

import annotated_types
from pydantic import AfterValidator, BaseModel, RootModel, StringConstraints
from pydantic.fields import FieldInfo

from uno_actors.annotations import shown
from uno_actors.catalog.values import FieldEntry, ModelEntry, Shape
from uno_actors.domain.tags import Tag

_SCALARS = (bool, int, float, str, bytes, Decimal, date, datetime, time, timedelta, UUID)
SCALARS = frozenset(kind.__name__ for kind in _SCALARS)
NATIVE = frozenset({"bool", "int", "float", "str"})
"""Scalars that can be distinguished in any form in which they are written."""
NONE: Shape = {"is": "None"}
ANY: Shape = {"is": "any"}

_CONTAINERS: tuple[Any, ...] = (list, set, frozenset, tuple, dict)
_RULES = (annotated_types.BaseMetadata, StringConstraints, AfterValidator, Tag)
_PLAIN_VALUES = (str, int, bool, NoneType)
_ADDRESS = re.compile(r" at 0x[0-9a-fA-F]+")


def qualified(kind: type) -> str:
    """Module and qualified name of a class."""
    return f"{kind.__module__}.{kind.__qualname__}"


def steady(value: object) -> str:
    """``repr(value)`` without addresses, so that it is the same in every process."""
    if isinstance(value, (set, frozenset)):  # whose order is another in each process
        return f"{{{', '.join(sorted(map(steady, value)))}}}"
    return _ADDRESS.sub("", repr(value))


def parts_of(shape: Shape) -> list[Shape]:
    """The types directly in a type."""
    return [*shape.get("of", ()), *shape.get("fields", {}).values()]


def alternatives(shape: Shape) -> list[Shape]:
    """The types of which a value has one; without ``None``."""
    return [part for part in (shape["of"] if shape["is"] == "union" else [shape]) if part["is"] != "None"]


def allows_none(shape: Shape) -> bool:
    """Whether ``None`` is among the values."""
    return any(
        part["is"] in ("None", "any") for part in (shape.get("of", ()) if shape["is"] == "union" else [shape])
    )


def text_of(shape: Shape) -> str:
    """A type as a programmer would write it."""
    inner = [text_of(part) for part in shape.get("of", ())]
    match shape["is"]:
        case "union":
            return " | ".join(inner)
        case "any":
            return "Any"
        case "literal":
            return f"Literal[{', '.join(shape['values'])}]"
        case "enum" | "model" | "record" | "other":
            name, bracket, rest = str(shape["name"]).partition("[")
            return name.rpartition(".")[2] + (
                f"[{', '.join(inner)}]" if bracket and inner else bracket + rest
            )
        case "tuple" if shape["open"]:
            return f"tuple[{inner[0]}, ...]"
        case kind:
            return f"{kind}[{', '.join(inner)}]" if inner else str(kind)


class Shapes:
    """Makes shapes of annotations, and collects the models in them.

    Attributes:
        models: By module and qualified name.
    """

    def __init__(self) -> None:
        self.models: dict[str, ModelEntry] = {}
        self._open: set[str] = set()

    def model(self, model: type[BaseModel], leave_out: Iterable[str] = ()) -> ModelEntry:
        """The entry of a model.

        Args:
            model: Its class.
            leave_out: Fields to leave out of the entry.
        """
        decorators = model.__pydantic_decorators__
        validators: dict[str, list[str]] = {}
        for name, decorator in decorators.field_validators.items():
            for field in decorator.info.fields:
                validators.setdefault(field, []).append(f"validator {name}")
        left_out = frozenset(leave_out)
        return ModelEntry(
            fields={
                name: self._field(field, validators.get(name, []) + validators.get("*", []))
                for name, field in model.model_fields.items()
                if name not in left_out
            },
            extra=model.model_config.get("extra") or "ignore",
            serializers=tuple(sorted([*decorators.field_serializers, *decorators.model_serializers])),
            rules=tuple(sorted(decorators.model_validators)),
        )

    def _field(self, field: FieldInfo, validators: list[str]) -> FieldEntry:
        default = None
        if not field.is_required():
            default = "computed" if field.default_factory is not None else steady(field.default)
        shape = _with(self.of(field.annotation), [field], validators)
        doc = field.description or ""
        return FieldEntry(
            type=text_of(shape), shape=shape, required=field.is_required(), default=default, doc=doc
        )

    def of(self, annotation: Any) -> Shape:
        """The shape of an annotation."""
        origin, args = get_origin(annotation), get_args(annotation)
        if origin is Annotated:
            return _with(self.of(args[0]), args[1:])
        if annotation is Any or annotation is object:
            return ANY
        if annotation is None or annotation is NoneType:
            return NONE
        if origin is Union or origin is UnionType:
            return {"is": "union", "of": [self.of(each) for each in args]}
        return self._of_kind(annotation, origin, args)

    def _of_kind(self, annotation: Any, origin: Any, args: tuple[Any, ...]) -> Shape:
        if origin is Literal:
            is_plain = all(type(value) in _PLAIN_VALUES for value in args)
            return {"is": "literal", "values": [steady(value) for value in args], "plain": is_plain}
        container = next((kind for kind in _CONTAINERS if kind is (origin or annotation)), None)
        if container is not None:  # by identity, since some annotations cannot be hashed
            return self._container(container.__name__, args)
        if (aliased := getattr(annotation, "__supertype__", None)) is not None:
            return self.of(aliased)
        if isinstance(annotation, type) and origin is None:
            return self._class(annotation)
        inner = [self.of(each) for each in (annotation if isinstance(annotation, list) else args)]
        return {"is": "other", "name": steady(annotation), "of": [*inner, *self._alias(annotation)]}

    def _alias(self, annotation: Any) -> Iterator[Shape]:
        """What ``type X = ...`` stands for; an alias within itself is not read again."""
        value, name = getattr(annotation, "__value__", None), steady(annotation)
        if value is not None and name not in self._open:
            self._open.add(name)
            yield self.of(value)
            self._open.discard(name)

    def _container(self, kind: str, args: tuple[Any, ...]) -> Shape:
        if kind == "tuple":
            is_open = not args or args[-1] is ...
            inner = [self.of(each) for each in args if each is not ...] or [ANY] * is_open
            return {"is": kind, "of": inner, "open": is_open}
        inner = [self.of(each) for each in args]
        return {"is": kind, "of": inner or [ANY] * (2 if kind == "dict" else 1)}

    def _class(self, kind: type) -> Shape:
        name = qualified(kind)
        if kind in _SCALARS:
            return {"is": kind.__name__}
        if issubclass(kind, Enum):
            members = [f"{member.name}={steady(member.value)}" for member in kind]
            is_plain = not issubclass(kind, Flag) and all(type(each.value) in (str, int) for each in kind)
            return {"is": "enum", "name": name, "values": members, "plain": is_plain}
        if issubclass(kind, BaseModel) and not issubclass(kind, RootModel):
            if name not in self.models and name not in self._open:
                self._open.add(name)
                self.models[name] = self.model(kind)
                self._open.discard(name)
            return {"is": "model", "name": name}
        if (
            dataclasses.is_dataclass(kind)
            or hasattr(kind, "_fields")
            or is_typeddict(kind)
            or issubclass(kind, RootModel)
        ):
            return self._record(kind, name)
        return {"is": "other", "name": name}

    def _record(self, kind: type, name: str) -> Shape:
        if name in self._open:
            return {"is": "record", "name": name}
        self._open.add(name)
        try:
            hints = get_type_hints(kind, include_extras=True)
        except Exception:  # noqa: BLE001 - resolving a name may raise anything
            hints = {}
        if issubclass(kind, RootModel):
            hints = {"root": kind.model_fields["root"].annotation}
        fields = {field: self.of(hint) for field, hint in hints.items()}
        self._open.discard(name)
        return {"is": "record", "name": name, "fields": fields}


def _with(shape: Shape, metadata: Iterable[object], rules: Iterable[str] = ()) -> Shape:
    """``shape`` with what an annotation says besides the type."""
    found = {*shape.get("rules", ()), *rules}
    forms = set(shape.get("forms", ()))
    for each in _flat(metadata):
        text = each if isinstance(each, str) else steady(each)
        is_rule = isinstance(each, _RULES) and "union_mode" not in text
        (found if is_rule else forms).add(text)
    return {
        **shape,
        **({"rules": sorted(found)} if found else {}),
        **({"forms": sorted(forms)} if forms else {}),
    }


def _flat(metadata: Iterable[object]) -> Iterator[object]:
    for each in metadata:
        if isinstance(each, FieldInfo):
            yield from _flat(each.metadata)
            if each.discriminator is not None:
                yield f"discriminator={steady(each.discriminator)}"
        else:
            yield each


def shown_type(annotation: Any) -> str:
    """An annotation in a catalog, for people."""
    return _ADDRESS.sub("", shown(annotation))
