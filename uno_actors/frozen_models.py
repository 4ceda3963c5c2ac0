"""Frozen pydantic models in a form that type checkers understand.

pydantic freezes a model and its subclasses by ``model_config``, which type checkers do not read. If they know that a
class is frozen, they allow a field to be declared again with a narrower type, as in ``topic: str =
"accounts.deposited"``, and refuse assignments to it.
"""

from typing import TYPE_CHECKING, Any, Generic, Self, TypeVar, dataclass_transform, overload

from pydantic import BaseModel, Field, PrivateAttr

if TYPE_CHECKING:
    from pydantic._internal._model_construction import ModelMetaclass

    Held = TypeVar("Held")
    Given = TypeVar("Given")

    class Accepting(Generic[Held, Given]):
        """A field that holds ``Held`` and accepts ``Given``; at run time a validator converts one to the other.

        To type checkers it is a descriptor: they take the parameter of the constructor from its ``__set__``, and
        the type of the attribute from its ``__get__``.
        """

        @overload
        def __get__(self, instance: None, owner: Any) -> Self: ...
        @overload
        def __get__(self, instance: object, owner: Any) -> Held: ...
        def __get__(self, instance: object, owner: Any) -> Any: ...
        def __set__(self, instance: object, value: Given) -> None: ...

    @dataclass_transform(kw_only_default=True, frozen_default=True, field_specifiers=(Field, PrivateAttr))
    class FrozenModel(ModelMetaclass):
        """The metaclass of frozen classes, whose subclasses are frozen too."""

else:
    FrozenModel = type(BaseModel)
