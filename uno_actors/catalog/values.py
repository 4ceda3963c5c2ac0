"""What a catalog holds: plain values that are written as JSON and read again."""

from typing import Any, Literal

from pydantic import BaseModel, ConfigDict

Shape = dict[str, Any]
"""A type as plain data; see `uno_actors.catalog.shapes`."""


class _Value(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class FieldEntry(_Value):
    """A field.

    Attributes:
        type: Its annotation, for people.
        shape: Its type, for the comparison.
        required: Whether it has no default.
        default: Its default as Python writes it; ``None`` if it is required.
        doc: Its description.
    """

    type: str
    shape: Shape
    required: bool
    default: str | None = None
    doc: str = ""


class ModelEntry(_Value):
    """The fields of an event, of a command, or of a model in one of them.

    Attributes:
        fields: By name; without metadata.
        extra: What happens to fields that the class does not have.
        serializers: Names of its own serializers.
        rules: Names of the validators of the whole model.
    """

    fields: dict[str, FieldEntry]
    extra: Literal["allow", "forbid", "ignore"]
    serializers: tuple[str, ...] = ()
    rules: tuple[str, ...] = ()


class Receiver(_Value):
    """A handler that receives an event.

    Attributes:
        name: The handler's name.
        kind: What it is.
    """

    name: str
    kind: Literal["handler", "projection", "process manager"]


class EventEntry(_Value):
    """An event type.

    Attributes:
        name: Under which its events are recorded.
        names: All names whose events its class reads; older ones come from ``@register_event(name=...)``.
        version: Its schema version.
        upcasts: The older versions from which a step is registered.
        code: Module and qualified name of its class.
        doc: The docstring of the class.
        topic: The default topic.
        registered_by: The types of aggregates that apply it, sorted.
        handled_by: The handlers that receive it, by name.
        model: Its fields.
        json_schema: Its payload as JSON Schema.
    """

    name: str
    names: tuple[str, ...]
    version: int
    upcasts: tuple[int, ...]
    code: str
    doc: str
    topic: str | None
    registered_by: tuple[str, ...]
    handled_by: tuple[Receiver, ...]
    model: ModelEntry
    json_schema: dict[str, Any]


class CommandEntry(_Value):
    """A command.

    Attributes:
        name: Of its class.
        code: Module and qualified name of its class.
        doc: The docstring of the class.
        reply: The type of the reply, for people; ``None`` if the command leaves it open.
        handled_by: The types of aggregates that handle it, sorted.
        model: Its fields.
        json_schema: Its fields as JSON Schema.
    """

    name: str
    code: str
    doc: str
    reply: str | None
    handled_by: tuple[str, ...]
    model: ModelEntry
    json_schema: dict[str, Any]


class Catalog(_Value):
    """The events and commands of a program.

    Attributes:
        format: Of this JSON; a catalog of another format is refused.
        program: Name of the program.
        events: Sorted by name.
        commands: Sorted by name.
        models: The models in their fields, by module and qualified name.
    """

    format: Literal[1] = 1
    program: str
    events: tuple[EventEntry, ...]
    commands: tuple[CommandEntry, ...]
    models: dict[str, ModelEntry]
