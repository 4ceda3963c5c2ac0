"""Exactness: which events and commands need no proof, because by construction they read back unchanged.

The annotations of a class are compiled into a check of its instances. A value that is immutable and of exactly the
type in its annotation reads back equal: an int, a str, an aware time in UTC, a frozen model of such fields.
"""

from collections.abc import Callable, Iterable
from datetime import UTC, date, datetime, time, timedelta
from decimal import Decimal
from enum import Enum
from functools import lru_cache
from types import NoneType, UnionType
from typing import Annotated, Any, Literal, Union, get_args, get_origin
from uuid import UUID

import annotated_types
from pydantic import AwareDatetime, BaseModel, NaiveDatetime, RootModel, StringConstraints, TypeAdapter
from pydantic.fields import FieldInfo

from uno_actors.domain.commands import Command
from uno_actors.domain.events import DomainEvent
from uno_actors.domain.payload_writer import payload_names
from uno_actors.domain.tags import Tag

Exact = Callable[[Any], bool]
"""Whether a value is immutable and reads back unchanged."""


def is_exact(event: DomainEvent) -> bool:
    """Whether the whole payload of ``event`` is immutable and reads back unchanged."""
    kind = event.__class__
    exactly = kind._exactly
    if exactly is None:
        exactly = kind._exactly = _exact_fields(kind, payload_names(kind)) or _never
    return exactly(event.__dict__)


@lru_cache(maxsize=1024)
def exactness_of(command_type: type[Command[Any]]) -> Exact:
    """Whether the payload of a command of this type, whose ``__dict__`` is given, reads back as it is."""
    return _exact_fields(command_type, payload_names(command_type)) or _never


def _never(_: dict[str, Any]) -> bool:
    return False


_OF_METADATA = frozenset(DomainEvent.__pydantic_decorators__.field_validators) | frozenset(
    Command.__pydantic_decorators__.field_validators
)

_NATIVE = frozenset({NoneType, bool, int, float, str, bytes})
"""Types that msgpack distinguishes without tags."""

_JUDGEMENTS = (annotated_types.BaseMetadata, StringConstraints, Tag)
"""Metadata of an annotation that may refuse a value but never changes it when it is read."""


def _exact_fields(
    model: type[BaseModel], names: Iterable[str], holders: tuple[type[BaseModel], ...] = ()
) -> Callable[[dict[str, Any]], bool] | None:
    """A check of an instance's ``__dict__``; ``None`` if every instance of ``model`` needs the proof."""
    if not _is_bare(model):
        return None
    kinds: dict[str, frozenset[type]] = {}
    checks: list[tuple[str, Exact]] = []
    for name in names:
        field = model.model_fields[name]
        if field.exclude or not all(map(_only_judges, field.metadata)):
            return None
        if native := _native_types(field.annotation):
            kinds[name] = native
        elif (check := _exactly(field.annotation, (*holders, model))) is None or _is_strict(field.metadata):
            return None
        else:
            checks.append((name, check))
    natives = tuple(kinds.items())

    def are_exact(values: dict[str, Any]) -> bool:
        for name, among in natives:
            if type(values[name]) not in among:
                return False
        return all(check(values[name]) for name, check in checks) if checks else True

    return are_exact


_CODE = frozenset({"__init__", "__new__", "__get_pydantic_core_schema__", "model_post_init"})
"""Methods of a class that pydantic runs when it reads an instance."""


def _is_bare(model: type[BaseModel]) -> bool:
    """Whether an instance consists of its frozen fields alone, and reading it runs no code of the class."""
    decorators, config = model.__pydantic_decorators__, model.model_config
    validators = {name: one for name, one in decorators.field_validators.items() if name not in _OF_METADATA}
    return (
        bool(config.get("frozen"))
        and config.get("extra") != "allow"
        and not (config.get("use_enum_values") or config.get("strict"))
        and not (
            validators or decorators.validators or decorators.root_validators or decorators.model_validators
        )
        and not (decorators.field_serializers or decorators.model_serializers)
        and not model.__private_attributes__
        and _CODE.isdisjoint(name for base in _bases(model) for name in vars(base))
    )


def _bases(model: type[BaseModel]) -> tuple[type, ...]:
    """The user's classes among the bases of ``model``, itself included."""
    return model.__mro__[: model.__mro__.index(BaseModel)]


def _only_judges(metadata: object) -> bool:
    if isinstance(metadata, FieldInfo):  # Annotated[int, Field(gt=0)] inside another type
        return metadata.discriminator is None and all(map(_only_judges, metadata.metadata))
    return isinstance(metadata, _JUDGEMENTS) or type(metadata).__name__ == "PydanticGeneralMetadata"


def _is_strict(metadata: Iterable[object]) -> bool:
    """Whether reading requires exactly the type, or a union is tried in another order."""
    return any(
        getattr(one, "strict", None) is not None or getattr(one, "union_mode", None) is not None
        for one in metadata
    )


def _native_types(annotation: Any) -> frozenset[type] | None:
    """The types that values of ``annotation`` may have, if msgpack distinguishes them all; otherwise ``None``."""
    annotation = _aliased(annotation)
    if annotation is Any or annotation is object:
        return _NATIVE
    if annotation is None:
        return frozenset({NoneType})
    origin, args = get_origin(annotation), get_args(annotation)
    if origin is Annotated:
        return _native_types(args[0]) if all(map(_only_judges, args[1:])) else None
    if origin in (Union, UnionType):
        found = [_native_types(arg) for arg in args]
        return frozenset[type]().union(*found) if all(found) else None  # type: ignore[arg-type]
    if origin is Literal:
        types = frozenset(map(type, args))
        return types if len(types) == 1 and types <= {str, int} else None
    return frozenset({annotation}) if annotation in _NATIVE else None


def _aliased(annotation: Any) -> Any:
    """What a ``type`` alias or a ``NewType`` stands for."""
    while (
        other := getattr(annotation, "__value__", None) or getattr(annotation, "__supertype__", None)
    ) is not None:
        annotation = other
    return annotation


def _exactly(annotation: Any, holders: tuple[type[BaseModel], ...]) -> Exact | None:
    """The check of values of ``annotation``; ``None`` if every value needs the proof."""
    native = _native_types(annotation)
    if native is not None:
        return lambda value: type(value) in native
    annotation = _aliased(annotation)
    origin, args = get_origin(annotation), get_args(annotation)
    if origin is None:
        return _exactly_class(annotation, holders)
    if origin is Annotated and all(map(_only_judges, args[1:])) and not _is_strict(args[1:]):
        return _exactly(args[0], holders)
    if origin in (Union, UnionType):
        return _exactly_or_none(args, holders)
    return _exactly_tuple(args, holders) if origin is tuple else None


def _exactly_class(kind: Any, holders: tuple[type[BaseModel], ...]) -> Exact | None:
    scalar = _EXACT_SCALARS.get(kind)
    if scalar is not None or not isinstance(kind, type):
        return scalar
    if issubclass(kind, Enum):
        return _exactly_enum(kind)
    if issubclass(kind, BaseModel) and not issubclass(kind, RootModel):
        return _exactly_model(kind, holders)
    return None


def _exactly_or_none(args: tuple[Any, ...], holders: tuple[type[BaseModel], ...]) -> Exact | None:
    others = [arg for arg in args if arg is not NoneType]
    check = _exactly(others[0], holders) if len(others) == 1 else None
    return check and (lambda value: value is None or check(value))


def _exactly_tuple(args: tuple[Any, ...], holders: tuple[type[BaseModel], ...]) -> Exact | None:
    if len(args) == 2 and args[1] is ...:
        check = _exactly(args[0], holders)
        return check and (lambda value: type(value) is tuple and all(map(check, value)))
    checks = [_exactly(arg, holders) for arg in args]
    if not args or None in checks:
        return None
    return lambda value: (
        type(value) is tuple
        and len(value) == len(checks)
        and all(check(item) for check, item in zip(checks, value, strict=True))  # type: ignore[misc]
    )


def _exactly_enum(kind: type[Enum]) -> Exact | None:
    """The check of an enum, after trying all of its members."""
    if not {type(member.value) for member in kind} <= {str, int}:
        return None
    reader = TypeAdapter(kind)
    for member in kind:
        try:
            if reader.validate_python(member.value) is not member:
                return None
        except ValueError:
            return None
    members = frozenset(map(id, kind))
    return lambda value: type(value) is kind and id(value) in members


def _exactly_model(model: type[BaseModel], holders: tuple[type[BaseModel], ...]) -> Exact | None:
    if model in holders:
        return None  # it holds models of its own class
    check = _exact_fields(model, model.model_fields, holders)
    if check is None:
        return None
    return lambda value: type(value) is model and check(value.__dict__)


def _is_moment(value: Any) -> bool:
    return type(value) is datetime and (value.tzinfo is UTC or value.tzinfo is None) and not value.fold


_EXACT_SCALARS: dict[Any, Exact] = {
    Decimal: lambda value: type(value) is Decimal and value.is_finite(),
    UUID: lambda value: type(value) is UUID,
    date: lambda value: type(value) is date,
    datetime: _is_moment,
    AwareDatetime: lambda value: type(value) is datetime and value.tzinfo is UTC and not value.fold,
    NaiveDatetime: lambda value: type(value) is datetime and value.tzinfo is None and not value.fold,
    time: lambda value: type(value) is time and value.tzinfo is None and not value.fold,
    timedelta: lambda value: type(value) is timedelta,
}
