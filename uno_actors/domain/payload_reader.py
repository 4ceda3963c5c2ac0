"""Reading payloads: recorded values are not validated again."""

from collections.abc import Collection, Mapping, Set
from functools import lru_cache, partial
from types import UnionType
from typing import Annotated, Any, TypeVar, Union, get_args, get_origin

import msgpack
from pydantic import BaseModel, PlainValidator, RootModel, TypeAdapter, ValidationError

from uno_actors.domain.events import Payload
from uno_actors.domain.payload_writer import payload_names
from uno_actors.domain.values import Classes, TagReader, classes_in, tag_reader
from uno_actors.errors import describe

E = TypeVar("E", bound=BaseModel)
M = TypeVar("M", bound=BaseModel)


class Unreadable(ValueError):
    """A payload does not fit the class of its event; the text says where.

    Attributes:
        fields: The fields that do not fit, if they are known.
    """

    def __init__(self, reason: str, fields: Set[str] = frozenset()) -> None:
        self.fields = fields
        super().__init__(reason)


@lru_cache(maxsize=1024)
def classes_of(event_type: type[BaseModel]) -> Classes:
    """The enums, dataclasses, named tuples and models in the annotations of the payload, by name."""
    return classes_in(*(event_type.model_fields[name].annotation for name in payload_names(event_type)))


@lru_cache(maxsize=1024)
def tags_of(event_type: type[BaseModel]) -> TagReader:
    """Reads the tagged values of an event type."""
    return tag_reader(classes_of(event_type))


def unpack_fields(payload: bytes, tags: TagReader) -> Payload:
    """The fields in ``payload``.

    Args:
        payload: From `pack_payload` of this version or of an earlier one.
        tags: Reads the tagged values in it.

    Raises:
        UnknownClass: ``tags`` does not know the class of a value.
        Exception: The bytes are damaged.
    """
    try:
        fields = msgpack.unpackb(payload, timestamp=3, strict_map_key=False, ext_hook=tags)
    except TypeError:  # a list cannot be a key: read the tuples that were written
        fields = msgpack.unpackb(payload, timestamp=3, strict_map_key=False, use_list=False, ext_hook=tags)
    if not isinstance(fields, dict):
        raise TypeError(f"{type(fields).__name__}, not a map")
    return fields


def read_fields(event_type: type[E], fields: Payload) -> E:
    """The event with ``fields``, metadata included.

    Recorded values are not validated again: a value that today's constraints or validators would refuse is taken as
    it was written. (``model_post_init`` does not count as a rule: pydantic runs it for every instance.)

    Raises:
        Unreadable: The types do not fit, even without constraints and validators.
    """
    try:
        return event_type.model_validate(fields, by_name=True)
    except Exception as judgement:  # noqa: BLE001 - a validator may raise anything
        try:
            return _unjudged(event_type, fields)
        except ValueError as misfit:
            if not isinstance(judgement, ValidationError):
                raise Unreadable(describe(misfit)) from judgement
            errors = judgement.errors(include_url=False, include_input=False)
            reason = "; ".join(f"{'.'.join(map(str, e['loc']))}: {e['msg']}" for e in errors)
            fields_of = frozenset(str(e["loc"][0]) for e in errors if e["loc"])
            raise Unreadable(reason, fields_of) from judgement


def _unjudged(model: type[M], fields: object) -> M:
    """Build a model whose recorded values today's rules would refuse: convert by bare types only.

    Raises:
        ValueError: The values do not fit the bare types.
    """
    if isinstance(fields, model):
        return fields
    if not isinstance(fields, Mapping):
        raise ValueError(f"no fields of {model.__name__}")  # noqa: TRY004 - pydantic takes ValueError alone
    values: Payload = {}
    for name, field in model.model_fields.items():
        if name in fields:
            values[name] = _bare(model, name).validate_python(fields[name])
        elif field.is_required():
            raise ValueError(f"{name} is missing")
        else:
            values[name] = field.get_default(call_default_factory=True, validated_data=values)
    others = {name: fields[name] for name in fields if name not in values}
    extra = model.model_config.get("extra")
    if others and extra == "forbid":
        raise ValueError(f"{model.__name__} has no {', '.join(map(str, others))}")
    return model.model_construct(**values, **(others if extra == "allow" else {}))


@lru_cache(maxsize=4096)
def _bare(model: type[BaseModel], name: str) -> TypeAdapter[Any]:
    """A validator of the field's type that converts without judging."""
    return TypeAdapter(_bare_type(model.model_fields[name].annotation))


def _bare_type(annotation: Any) -> Any:
    """The type without its constraints and validators, and without those of the models in it."""
    origin, args = get_origin(annotation), get_args(annotation)
    if origin is Annotated:
        return _bare_type(args[0])
    if origin in (Union, UnionType):
        return Union[tuple(map(_bare_type, args))]  # noqa: UP007 - built at run time
    if isinstance(origin, type) and issubclass(origin, Collection):
        return origin[tuple(arg if arg is ... else _bare_type(arg) for arg in args)]  # type: ignore[index]
    if not (isinstance(annotation, type) and issubclass(annotation, BaseModel)):
        return annotation
    if issubclass(annotation, RootModel):
        return annotation  # its value is not a map of fields
    return Annotated[Any, PlainValidator(partial(_unjudged, annotation))]
