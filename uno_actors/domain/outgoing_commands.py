"""Commands that are recorded before they are sent: by a process in its reaction, or until their time has come."""

from collections.abc import Callable, Iterable
from typing import Any, ClassVar, Self

from pydantic import BaseModel, ConfigDict

from uno_actors.domain.commands import Command
from uno_actors.errors import describe


class OutgoingCommand(BaseModel):
    """A command to an aggregate, in the form in which it is recorded.

    Attributes:
        aggregate_type: The type of the aggregate.
        aggregate_id: Its id.
        command: The name of the command's class.
        fields: The fields of the command as JSON, without ids of messages that it was not given.
    """

    model_config = ConfigDict(frozen=True)

    use: ClassVar[str] = "commands to send later are recorded"
    """What the JSON is for, in words for errors."""

    aggregate_type: str
    aggregate_id: str
    command: str
    fields: str

    @classmethod
    def of(
        cls,
        aggregate_type: str,
        aggregate_id: str,
        command: Command[Any],
        read: Callable[[Self], Command[Any]] | None = None,
        *,
        handled: Iterable[type[Command[Any]]] | None = None,
    ) -> Self:
        """``command`` in this form.

        Args:
            aggregate_type: The type of the aggregate.
            aggregate_id: Its id.
            command: The command.
            read: How it will be read back; default is as the same class.
            handled: The classes of the commands that the aggregate handles; default is that of the command alone.

        Raises:
            ValueError: It has fields that JSON does not preserve, or the aggregate handles another one of its name.
        """
        name = type(command).__name__
        other = type(command) if handled is None else class_named(name, handled)
        if other is not type(command):
            raise ValueError(
                f"{_path(type(command))} cannot be sent later to {aggregate_type}, which also handles {_path(other)}:"
                f" {cls.use} by the name of the class alone, and both are named {name}; rename one of them"
            )
        given = {name for name in ("correlation_id", "causation_id") if getattr(command, name) is not None}
        try:
            fields = command.model_dump_json(
                exclude={"command_id", "correlation_id", "causation_id"} - given,
                by_alias=False,
                round_trip=True,
            )
        except ValueError as error:
            raise ValueError(
                f"{command!r} cannot be written as the JSON in which {cls.use}: {describe(error)}. Bytes are written"
                ' with ConfigDict(ser_json_bytes="base64", val_json_bytes="base64") as the model_config of the command'
            ) from error
        recorded = cls(aggregate_type=aggregate_type, aggregate_id=aggregate_id, command=name, fields=fields)
        try:
            kept = recorded.read(type(command), command.command_id) if read is None else read(recorded)
        except ValueError as error:
            kept, reason = None, describe(error)
        else:
            reason = f"it would be {kept!r}"
        if kept != command:
            raise ValueError(f"{command!r} cannot be read back from the JSON in which {cls.use}: {reason}")
        return recorded

    def read(self, command: type[Command[Any]], command_id: str) -> Command[Any]:
        """The command of this class, with this id, unless one is recorded among its fields.

        Raises:
            ValidationError: The class has other fields now.
        """
        read = command.model_validate_json(self.fields, by_name=True)
        if "command_id" in read.model_fields_set:
            return read
        return read.model_copy(update={"command_id": command_id})


def class_named(name: str, handled: Iterable[type[Command[Any]]]) -> type[Command[Any]] | None:
    """The class of a recorded command among those that its aggregate handles: the first one of its name."""
    return next((kind for kind in handled if kind.__name__ == name), None)


def _path(kind: type | None) -> str:
    return "None" if kind is None else f"{kind.__module__}.{kind.__qualname__}"
