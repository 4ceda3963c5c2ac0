"""Frozen pydantic models in a form that type checkers understand.

pydantic freezes a model and its subclasses by ``model_config``, which type checkers do not read. If they know that a
class is frozen, they allow a field to be declared again with a narrower type, as in ``topic: str =
"accounts.deposited"``, and refuse assignments to it.
"""

from typing import TYPE_CHECKING, dataclass_transform

from pydantic import BaseModel, Field, PrivateAttr

if TYPE_CHECKING:
    from pydantic._internal._model_construction import ModelMetaclass

    @dataclass_transform(kw_only_default=True, frozen_default=True, field_specifiers=(Field, PrivateAttr))
    class FrozenModel(ModelMetaclass):
        """The metaclass of frozen classes, whose subclasses are frozen too."""

else:
    FrozenModel = type(BaseModel)
