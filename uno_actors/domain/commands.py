"""Commands: what somebody wants an aggregate to do."""

from typing import Any, Generic

from pydantic import BaseModel, ConfigDict, Field, field_validator
from typing_extensions import TypeVar

from uno_actors.causality import new_id
from uno_actors.frozen_models import FrozenModel

R_co = TypeVar("R_co", default=Any, covariant=True)


class Command(BaseModel, Generic[R_co], metaclass=FrozenModel):
    """A wish that an aggregate grants or rejects; subclass it and add fields.

    ``class Deposit(Command[int])`` says that the reply is an ``int``; a bare ``Command`` leaves it open. A command
    whose reply is a ``bool`` may stand where the reply is to be an ``int``.

    Attributes:
        command_id: 32 hexadecimal digits, unique; or what you give, say the key of a request. ``None`` means a new
            one. An aggregate handles one id once: sent again it gets the recorded reply (see `ActorSystem`). An
            id that comes again with another type of command or other contents is refused; what counts as
            contents says `uno_actors.aggregates.fingerprint`.
        correlation_id: Common to all that follows from one first message; taken from the event during whose
            handling the command is sent, if not given. Where there is none the events of the command get one of
            their own, so that commands of one id that are sent to two aggregates are two beginnings.
        causation_id: The id of the message that caused this command; taken likewise.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    command_id: str = Field(default_factory=new_id, min_length=1)
    correlation_id: str | None = None
    causation_id: str | None = None

    @field_validator("command_id", mode="before")
    @classmethod
    def _new_if_none(cls, command_id: object) -> object:
        return new_id() if command_id is None else command_id
