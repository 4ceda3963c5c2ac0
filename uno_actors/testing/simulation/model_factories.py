"""Default factories of models that read the machine's clock: pydantic keeps and calls them itself, under no name.

``at: float = Field(default_factory=time.time)`` is such a field.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, get_args

from pydantic import BaseModel

BUILT = ("__pydantic_core_schema__", "__pydantic_validator__", "__pydantic_serializer__")
"""What pydantic makes of the fields of a model."""


@contextmanager
def replaced_factories(stand_in: Callable[[Any], Any]) -> Iterator[None]:
    """Inside of the block, models use other default factories, also where they are fields of other models.

    Args:
        stand_in: What is to be used instead of a factory, or ``None`` if it can stay.
    """
    models = [*_below(BaseModel)]
    factories: list[tuple[Any, Any]] = []
    changed: dict[type[BaseModel], dict[str, Any]] = {}
    for model in models:
        for field in vars(model).get("__pydantic_fields__", {}).values():
            other = stand_in(field.default_factory)
            if other is not None:
                factories.append((field, field.default_factory))
                field.default_factory = other
                changed[model] = {}
    _with_those_that_mention(changed, models)
    for model, built in changed.items():
        built.update({name: vars(model)[name] for name in BUILT if name in vars(model)})
        model.model_rebuild(force=True, raise_errors=False)
    try:
        yield
    finally:
        for field, factory in factories:
            field.default_factory = factory
        for model, built in changed.items():
            for name, value in built.items():
                setattr(model, name, value)


def _below(model: type[BaseModel]) -> Iterator[type[BaseModel]]:
    for each in model.__subclasses__():
        yield each
        yield from _below(each)


def _with_those_that_mention(
    changed: dict[type[BaseModel], dict[str, Any]], models: list[type[BaseModel]]
) -> None:
    """Add the models that have a changed one as a field, which pydantic has copied into them."""
    count = 0
    while changed and count != len(changed):
        count = len(changed)
        for model in models:
            fields = vars(model).get("__pydantic_fields__", {}).values()
            if model not in changed and any(_mentions(field.annotation, changed) for field in fields):
                changed[model] = {}


def _mentions(annotation: Any, changed: dict[type[BaseModel], dict[str, Any]]) -> bool:
    is_changed = isinstance(annotation, type) and annotation in changed
    return is_changed or any(_mentions(each, changed) for each in get_args(annotation))
