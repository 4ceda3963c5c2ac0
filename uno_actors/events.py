"""Domain events: what happened, for good.

An event is a frozen pydantic model. Some of its fields are metadata, the same for all events; every other
field is payload. Event types are found again by name in an `EventRegistry`; older payloads are brought up to
today's schema by the steps registered with `upcasts`.
"""

import weakref
from collections.abc import Callable, Iterable, Mapping
from datetime import UTC, datetime
from typing import Any, ClassVar, Self, TypeVar, overload

from pydantic import BaseModel, ConfigDict, Field, field_validator

from uno_actors.causality import Cause, new_id
from uno_actors.errors import AmbiguousEventType, EventNotReadable, UnknownEventType
from uno_actors.topics import check_topic


def _now() -> datetime:
    return datetime.now(UTC)


def _aware(moment: datetime) -> datetime:
    """A naive time is read as UTC; an aware one is brought to UTC."""
    if moment.tzinfo is UTC:
        return moment
    return moment.replace(tzinfo=UTC) if moment.tzinfo is None else moment.astimezone(UTC)


def _checked(topic: str | None) -> str | None:
    return topic if topic is None else check_topic(topic)


class DomainEvent(BaseModel):
    """Something that happened in the domain; subclass it and add fields.

    A subclass registers itself under its ``event_type``. Fields:

    Attributes:
        event_id: 32 hexadecimal digits, unique.
        timestamp: When it happened, aware, in UTC. Naive times are read as UTC.
        event_type: The class name, unless the class gives another default.
        version: Schema version of the type; give a class a higher default when its payload changes, and
            register the step with `upcasts`.
        aggregate_id: The aggregate whose stream it belongs to; set when an aggregate registers it.
        aggregate_type: The class name of that aggregate; set with it.
        aggregate_version: Its place in that stream, from 1; set with it.
        correlation_id: Common to all that follows from one first message.
        causation_id: The id of the message that caused this event.
        topic: Dotted name for routing, such as ``accounts.deposited``.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", validate_by_name=True, validate_by_alias=True)

    event_id: str = Field(default_factory=new_id)
    timestamp: datetime = Field(default_factory=_now)
    event_type: str = "DomainEvent"
    version: int = 1
    aggregate_id: str | None = None
    aggregate_type: str | None = None
    aggregate_version: int | None = None
    correlation_id: str | None = None
    causation_id: str | None = None
    topic: str | None = None

    _schema_version: ClassVar[int] = 1

    # Validators by name, for they hold where a subclass declares the field again: `topic: str = "a.b"`.
    _aware = field_validator("timestamp")(_aware)
    _checked = field_validator("topic")(_checked)

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        if "event_type" not in cls.__dict__:  # before pydantic collects the fields of the class
            cls.__annotations__["event_type"] = str
            cls.event_type = cls.__name__
        if isinstance(topic := cls.__dict__.get("topic"), str):
            check_topic(topic)

    @classmethod
    def __pydantic_init_subclass__(cls, **kwargs: Any) -> None:
        super().__pydantic_init_subclass__(**kwargs)
        cls._schema_version = int(cls.model_fields["version"].default)
        event_registry.register(cls)

    @classmethod
    def type_name(cls) -> str:
        """The name under which events of this class are recorded."""
        return str(cls.model_fields["event_type"].default)

    @classmethod
    def schema_version(cls) -> int:
        """The schema version of events that this class makes today."""
        return cls._schema_version

    @property
    def cause(self) -> Cause:
        """How messages that follow from this event name it."""
        return Cause(self.correlation_id or self.event_id, self.event_id)

    def stamped(self, **metadata: object) -> Self:
        """A copy with other metadata; values are taken as they are."""
        # What `model_copy(update=...)` does for fields, in a fifth of its time.
        copy = self.__class__.__new__(self.__class__)
        private, extra = self.__pydantic_private__, self.__pydantic_extra__
        object.__setattr__(copy, "__dict__", self.__dict__ | metadata)
        object.__setattr__(copy, "__pydantic_fields_set__", self.__pydantic_fields_set__ | metadata.keys())
        object.__setattr__(copy, "__pydantic_extra__", None if extra is None else dict(extra))
        object.__setattr__(copy, "__pydantic_private__", None if private is None else dict(private))
        return copy

    def __str__(self) -> str:
        stream = (
            ""
            if self.aggregate_id is None
            else f" {self.aggregate_type}<{self.aggregate_id}@{self.aggregate_version}>"
        )
        return f"{self.event_type}{stream}"


METADATA = frozenset(DomainEvent.model_fields)

E = TypeVar("E", bound=DomainEvent)
Payload = dict[str, Any]
Upcast = Callable[[Payload], Payload]


class EventRegistry:
    """Event classes by the name under which their events are recorded, and the steps between their schemas.

    Args:
        event_types: Classes, or a mapping of recorded names to classes.

    Two classes may share a name, as those of two bounded contexts do; only who would have to choose between
    them is refused. A class defined again (same module and qualified name, as in a notebook) replaces itself.

    Attributes:
        generation: Grows with each registration, for those who cache what they looked up.
    """

    def __init__(
        self, event_types: Iterable[type[DomainEvent]] | Mapping[str, type[DomainEvent]] = ()
    ) -> None:
        self._classes: dict[str, list[weakref.ref[type[DomainEvent]]]] = {}
        self._upcasts: dict[tuple[str, int], Upcast] = {}
        self._names_of: weakref.WeakKeyDictionary[type[DomainEvent], frozenset[str]] = (
            weakref.WeakKeyDictionary()
        )
        self.generation = 0
        if isinstance(event_types, Mapping):
            for name, event_type in event_types.items():
                self.register(event_type, name)
        else:
            for event_type in event_types:
                self.register(event_type)

    def register(self, event_type: type[DomainEvent], name: str | None = None) -> None:
        """Let events recorded as ``name`` (default: the type's own name) be read as ``event_type``."""
        classes = self._classes.setdefault(name or event_type.type_name(), [])
        classes[:] = [
            ref for ref in classes if (known := ref()) and _qualified(known) != _qualified(event_type)
        ]
        classes.append(weakref.ref(event_type))
        self.generation += 1
        self._names_of.clear()

    def resolve(self, name: str) -> type[DomainEvent]:
        """The class whose events are recorded as ``name``.

        Raises:
            UnknownEventType: There is none.
            AmbiguousEventType: There are several.
        """
        classes = [known for ref in self._classes.get(name, ()) if (known := ref())]
        if len(classes) == 1:
            return classes[0]
        if classes:
            raise AmbiguousEventType(name, map(_qualified, classes))
        raise UnknownEventType(name, self.names())

    def names_of(self, event_type: type[DomainEvent]) -> frozenset[str]:
        """The names under which events of ``event_type`` and its subclasses are recorded."""
        names = self._names_of.get(event_type)
        if names is None:
            names = self._names_of[event_type] = frozenset(
                name
                for name, refs in self._classes.items()
                if any((known := ref()) and issubclass(known, event_type) for ref in refs)
            )
        return names

    def names(self) -> list[str]:
        """The names of all registered event types, sorted."""
        return sorted(name for name, refs in self._classes.items() if any(ref() for ref in refs))

    def add_upcast(self, name: str, from_version: int, step: Upcast) -> None:
        """Register one step of schema evolution; see `upcasts`.

        Raises:
            ValueError: ``from_version`` is no version.
        """
        if from_version < 1:
            raise ValueError(f"schema versions start at 1; found from_version={from_version}")
        self._upcasts[name, from_version] = step

    def upcast(self, name: str, recorded: int, current: int, payload: Payload) -> Payload:
        """Bring a payload of schema version ``recorded`` to version ``current``, step by step.

        Raises:
            EventNotReadable: A step is missing, or the event is newer than the class.
        """
        if recorded > current:
            raise EventNotReadable(name, recorded, current, "it was recorded by a newer program")
        for version in range(recorded, current):
            step = self._upcasts.get((name, version))
            if step is None:
                remedy = f"register the step with @upcasts({name!r}, from_version={version})"
                raise EventNotReadable(name, recorded, current, remedy)
            payload = step(payload)
        return payload


def _qualified(event_type: type[DomainEvent]) -> str:
    return f"{event_type.__module__}.{event_type.__qualname__}"


event_registry = EventRegistry()
"""The process-wide registry, in which every subclass of `DomainEvent` enters itself."""


@overload
def register_event(event_type: type[E]) -> type[E]: ...
@overload
def register_event(*, name: str) -> Callable[[type[E]], type[E]]: ...


def register_event(
    event_type: type[E] | None = None, *, name: str | None = None
) -> type[E] | Callable[[type[E]], type[E]]:
    """Class decorator that names an event type to the process-wide registry.

    Subclasses of `DomainEvent` register by themselves under their own name; with ``name=`` events recorded
    under another name, say that of the class before it was renamed, are read as this class too.
    """

    def register(event_type: type[E]) -> type[E]:
        event_registry.register(event_type, name)
        return event_type

    return register if event_type is None else register(event_type)


def upcasts(event_type: type[DomainEvent] | str, from_version: int) -> Callable[[Upcast], Upcast]:
    """Register a function that turns a payload of one schema version into one of the next.

    Args:
        event_type: The class or the recorded name of the event type.
        from_version: The schema version that the function reads; it returns ``from_version + 1``.

    The function takes the payload (a ``dict`` without metadata) and returns the new one. Steps chain: an
    event of version 1 passes 1 to 2 and 2 to 3 when today's class has ``version: int = 3``.

    Raises:
        ValueError: ``from_version`` is no version.
    """
    name = event_type if isinstance(event_type, str) else event_type.type_name()

    def register(step: Upcast) -> Upcast:
        event_registry.add_upcast(name, from_version, step)
        return step

    return register
