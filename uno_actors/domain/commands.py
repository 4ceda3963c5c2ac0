"""Commands: requests to an aggregate."""

from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Generic

from pydantic import BaseModel, ConfigDict, Field, field_validator
from typing_extensions import TypeVar

from uno_actors.causality import new_id
from uno_actors.frozen_models import FrozenModel

if TYPE_CHECKING:
    from uno_actors.frozen_models import Accepting  # noqa: TC004 - ruff takes the "else" below for code that runs

R_co = TypeVar("R_co", default=Any, covariant=True)


_Id = Annotated[str, Field(min_length=1)]


class Command(BaseModel, Generic[R_co], metaclass=FrozenModel):
    """A request that an aggregate grants or rejects; subclass it and add fields.

    ``class Deposit(Command[int])`` declares an ``int`` as reply; a bare ``Command`` leaves it open. A command whose
    reply is a ``bool`` may be used where the reply must be an ``int``.

    Attributes:
        command_id: 32 hexadecimal digits, unique; or your own id, such as the key of a request. ``None`` means a new
            one. An aggregate handles one id once: a command sent again gets the recorded reply (see `ActorSystem`).
            The same id with another type of command or other contents is refused; see
            `uno_actors.aggregates.fingerprint` for what counts as contents.
        correlation_id: Common to all messages that originate from one first message. Default is that of the event
            being handled when the command is sent. Without either, the events of the command get a new correlation
            id, so a command sent to two aggregates under one id begins two chains.
        causation_id: The id of the message that caused this command; default as for ``correlation_id``.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    _travels: ClassVar[bool] = True
    """Whether the node that owns the aggregate handles it, and not the one that sends it."""

    if not TYPE_CHECKING:  # first, since the documentation shows the first
        command_id: str = Field(default_factory=new_id, min_length=1)
    else:
        command_id: Accepting[str, str | None] = Accepting()
    correlation_id: str | None = None
    causation_id: str | None = None

    @field_validator("command_id", mode="before", json_schema_input_type=_Id | None)
    @classmethod
    def _new_if_none(cls, command_id: object) -> object:
        return new_id() if command_id is None else command_id
