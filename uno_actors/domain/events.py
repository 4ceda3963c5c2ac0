"""Domain events: immutable facts.

An event is a frozen pydantic model. Some of its fields are metadata, the same for all events; the others are its
payload. An `EventRegistry` finds event types by name; the steps registered with `upcasts` bring older payloads up to
today's schema.
"""

import itertools
import weakref
from collections.abc import Callable, Collection, Iterable, Mapping
from datetime import UTC, datetime
from typing import Any, ClassVar, Self, TypeVar

from pydantic import BaseModel, ConfigDict, Field, field_validator
from pydantic_core import PydanticUndefined

from uno_actors.causality import Cause, new_id
from uno_actors.domain.generic_models import parametrise
from uno_actors.errors import (
    AmbiguousEventType,
    EventNotReadable,
    EventNotSerializable,
    InvalidEvent,
    UnknownEventType,
    describe,
)
from uno_actors.frozen_models import FrozenModel
from uno_actors.quantities import is_count
from uno_actors.topics import check_topic

MAX_VERSION = 2**31
"""Schema versions are smaller than this, so that every store has room for them."""


_set = object.__setattr__  # a frozen model allows this one


def _now() -> datetime:
    return datetime.now(UTC)


def _aware(moment: datetime) -> datetime:
    """``moment`` in UTC; a naive time is read as UTC."""
    if moment.tzinfo is UTC:
        return moment
    if moment.tzinfo is None:
        return moment.replace(tzinfo=UTC)
    try:
        return moment.astimezone(UTC)
    except OverflowError:
        raise ValueError(f"{moment} is not within the years 1 to 9999 in UTC") from None


def _checked(topic: str | None) -> str | None:
    return topic if topic is None else check_topic(topic)


class DomainEvent(BaseModel, metaclass=FrozenModel):
    """Something that happened in the domain; subclass it and add fields.

    A subclass registers itself under its ``event_type``. Fields:

    Attributes:
        event_id: 32 hexadecimal digits, unique.
        timestamp: When the event happened: an aware time in UTC. Naive times are read as UTC.
        event_type: The class name, unless the class gives another default.
        version: Schema version of the type; give a class a higher default when its payload changes, and
            register the step with `upcasts`.
        aggregate_id: The aggregate whose stream the event belongs to; set when the aggregate registers it.
        aggregate_type: The class name of that aggregate; set at the same time.
        aggregate_version: The event's place in that stream, from 1; set at the same time.
        correlation_id: Common to all messages that originate from one first message.
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

    __slots__ = ("_proven_payload",)  # the bytes of an event that is proven to read back unchanged

    _proven_payload: ClassVar[bytes]
    _schema_version: ClassVar[int] = 1
    _type_name: ClassVar[str] = "DomainEvent"
    _exactly: ClassVar[Callable[[dict[str, Any]], bool] | None] = None  # see `payloads`

    # Validators named like this also apply where a subclass declares the field again: `topic: str = "a.b"`.
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
        cls._schema_version = _checked_version(cls)
        cls._type_name = _checked_name(cls)
        cls._exactly = None
        event_registry.register(cls)

    @classmethod
    def type_name(cls) -> str:
        """The name under which events of this class are recorded."""
        return cls._type_name

    @classmethod
    def schema_version(cls) -> int:
        """The schema version of the events that this class makes today."""
        return cls._schema_version

    @property
    def cause(self) -> Cause:
        """The cause that is named by the messages that this event causes."""
        return Cause(self.correlation_id or self.event_id, self.event_id)

    def stamped(self, **metadata: object) -> Self:
        """A copy with other metadata; the values are not validated."""
        # As `model_copy(update=...)` does for fields, in a fifth of its time.
        copy = self.__class__.__new__(self.__class__)
        private, extra = self.__pydantic_private__, self.__pydantic_extra__
        _set(copy, "__dict__", self.__dict__ | metadata)
        _set(copy, "__pydantic_fields_set__", {*self.__pydantic_fields_set__, *metadata})
        _set(copy, "__pydantic_extra__", None if extra is None else dict(extra))
        _set(copy, "__pydantic_private__", None if private is None else dict(private))
        return copy

    def __str__(self) -> str:
        stream = (
            ""
            if self.aggregate_id is None
            else f" {self.aggregate_type}<{self.aggregate_id}@{self.aggregate_version}>"
        )
        return f"{self.event_type}{stream}"


METADATA = frozenset(DomainEvent.model_fields)


def _checked_version(event_type: type[DomainEvent]) -> int:
    version = event_type.model_fields["version"].default
    if type(version) is not int or not 1 <= version < MAX_VERSION:
        raise InvalidEvent(
            event_type.__qualname__,
            "version is the schema version of its payload: give it a whole number, 1 or more, as default"
            f" (`version: int = 2`), or leave it out; found {_default(version)}",
        )
    return version


def _checked_name(event_type: type[DomainEvent]) -> str:
    name = event_type.model_fields["event_type"].default
    if not isinstance(name, str) or not name:
        raise InvalidEvent(
            event_type.__qualname__,
            "event_type is the name under which its events are recorded: give it a str as default"
            f' (`event_type: str = "orders.created"`), or leave it out; found {_default(name)}',
        )
    return str(name)


def _default(value: object) -> str:
    return "no default" if value is PydanticUndefined else repr(value)


def check_metadata(event: DomainEvent) -> None:
    """Refuse metadata that a user gave and with which ``event`` could not be read again.

    An event of an older schema version is imported history: upcasts read it.

    Raises:
        EventNotSerializable: Its class has no such schema version.
    """
    current = event._schema_version
    if type(event.version) is not int or not 1 <= event.version <= current:
        raise EventNotSerializable(
            event.event_type,
            f"version={event.version!r} was given, and the schema version of {type(event).__name__} is {current}."
            " Leave it out; the place in the stream is aggregate_version, which is set for you",
        )


E = TypeVar("E", bound=DomainEvent)

Payload = dict[str, Any]

Upcast = Callable[[Payload], Payload]

Meaning = Callable[[str], "Collection[type[DomainEvent]]"]
"""From the name of an event type to the classes that an aggregate means by that name."""

_OURS = "uno_actors."
"""Names of events of the framework are this and one word; every registry knows them."""

_meanings: dict[str, dict[str, Meaning]] = {}
"""By aggregate type, and by the qualified name of the aggregate's class."""


def register_meaning(aggregate: type, aggregate_type: str, meaning: Meaning) -> None:
    """Register which event classes the class of an aggregate means by a name."""
    _meanings.setdefault(aggregate_type, {})[_qualified(aggregate)] = meaning
    event_registry.generation += 1


class EventRegistry:
    """Event classes by the name under which their events are recorded, and the steps between their schemas.

    Args:
        event_types: Classes, or a mapping of recorded names to classes.

    Two classes may share a name, as those of two bounded contexts do. The aggregate type then shows which one is
    meant: by the annotations of the aggregate's ``apply_`` methods, or by the module in which it is defined. If
    neither does, the event is refused before it is recorded. A class defined again (same module and qualified name,
    as in a notebook) replaces the earlier one.

    Attributes:
        generation: Grows with each registration, so that results of lookups can be cached.
    """

    def __init__(
        self, event_types: Iterable[type[DomainEvent]] | Mapping[str, type[DomainEvent]] = ()
    ) -> None:
        self._classes: dict[str, list[weakref.ref[type[DomainEvent]]]] = {}
        self._upcasts: dict[tuple[str, int], Upcast] = {}
        self._resolved: dict[tuple[type[DomainEvent], str, str | None], int] = {}
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
        self._resolved.clear()

    def classes(self) -> set[type[DomainEvent]]:
        """The registered classes that the program still has."""
        return {known for name in tuple(self._classes) for known in self._known(name)}

    def forget(self, event_type: type[DomainEvent]) -> None:
        """Read no event as ``event_type`` any more: for tests that define classes, whose names others need."""
        for refs in self._classes.values():
            refs[:] = [ref for ref in refs if ref() is not event_type]
        self.generation += 1
        self._names_of.clear()
        self._resolved.clear()

    def resolve(self, name: str, aggregate_type: str | None = None) -> type[DomainEvent]:
        """The class whose events are recorded as ``name``.

        Args:
            name: As it is recorded; ``Changed[int]`` also names a parametrised class that the program has not made yet.
            aggregate_type: The type of the aggregate whose event it is.

        Raises:
            UnknownEventType: There is none.
            AmbiguousEventType: There are several, and the aggregate type does not show which is meant.
        """
        refs = self._classes.get(name)
        if refs is not None and len(refs) == 1 and (known := refs[0]()):
            return known
        classes = self._known(name) or [self._parametrised(name, aggregate_type)]
        return classes[0] if len(classes) == 1 else self._meant(name, aggregate_type, classes)[0]

    def _known(self, name: str) -> list[type[DomainEvent]]:
        found = [known for ref in self._classes.get(name, ()) if (known := ref())]
        if not found and _is_ours(name) and self is not event_registry:
            return event_registry._known(name)
        return found

    def _meant(
        self, name: str, aggregate_type: str | None, classes: list[type[DomainEvent]]
    ) -> list[type[DomainEvent]]:
        """The one of ``classes`` that aggregates of this type mean."""
        meant: list[type[DomainEvent]] = []
        for aggregate, meaning in tuple(_meanings.get(aggregate_type or "", {}).items()):
            named = {_qualified(known) for known in meaning(name)}
            mine = [known for known in classes if _qualified(known) in named] or _nearest(aggregate, classes)
            meant += (known for known in mine if known not in meant)
        if len(meant) != 1:
            raise AmbiguousEventType(name, map(_qualified, meant or classes))
        return meant

    def _parametrised(self, name: str, aggregate_type: str | None) -> type[DomainEvent]:
        generic, bracket, arguments = name.partition("[")
        if bracket and self._known(generic):
            parametrised = parametrise(self.resolve(generic, aggregate_type), f"[{arguments}")
            if parametrised is not None:
                self.register(parametrised, name)
                return parametrised
        raise UnknownEventType(name, self.names())

    def covers(self, event_type: type[DomainEvent], name: str, aggregate_type: str | None) -> bool:
        """Whether an event recorded as ``name``, of such an aggregate, is read as an ``event_type``."""
        if name not in self.names_of(event_type) and "[" not in name:
            return False
        try:
            return issubclass(self.resolve(name, aggregate_type), event_type)
        except LookupError:  # unknown or ambiguous; reading it raises the error
            return name in self.names_of(event_type)

    def check_readable(self, event: DomainEvent) -> None:
        """Check that ``event`` is read as its own class from the metadata that it is recorded with.

        Events of a class that is not registered here are for programs that know it.

        Raises:
            AmbiguousEventType: Another class has the same name, and the aggregate type does not show which is meant.
            EventNotSerializable: It would be read as an event of another class, or its class has no such schema
                version.
        """
        if event.version != event._schema_version:
            check_metadata(event)
        key = type(event), event.event_type, event.aggregate_type
        known = self.generation + event_registry.generation  # which grows when aggregates are defined
        if self._resolved.get(key) == known:
            return
        self._check_found_again(*key)
        self._resolved[key] = known

    def _check_found_again(
        self, event_type: type[DomainEvent], name: str, aggregate_type: str | None
    ) -> None:
        qualified = _qualified(event_type)
        try:
            known = self.resolve(name, aggregate_type)
        except UnknownEventType:
            if name != event_type.type_name():
                raise EventNotSerializable(
                    name,
                    f"{qualified} is recorded as {event_type.type_name()!r}, and event_type={name!r} was given, which"
                    f" names no class: leave it out, or register the name with @register_event(name={name!r})",
                ) from None
            return
        if not _stands_for(known, event_type):
            raise EventNotSerializable(
                name,
                f"it is a {qualified} and would be read as a {_qualified(known)}, which has the same name",
            )
        if "[" in name and parametrise(_generic_of(event_type), name[name.index("[") :]) is not event_type:
            raise EventNotSerializable(
                name,
                "another process cannot tell which class that is: give it its own name"
                f" (`class IntChanged({name}): ...`), or parametrise it with classes of the generic class's module",
            )

    def names_of(self, event_type: type[DomainEvent]) -> frozenset[str]:
        """The names under which events of ``event_type`` and its subclasses are recorded."""
        names = self._names_of.get(event_type)
        if names is None:
            names = self._names_of[event_type] = frozenset(
                name
                for name, refs in self._classes.items()
                if any((known := ref()) and issubclass(known, event_type) for ref in refs)
            )
            if _is_ours(event_type.type_name()):
                names = self._names_of[event_type] = names | {event_type.type_name()}
        return names

    def shared_names(self) -> list[str]:
        """The names that several classes have."""
        return [name for name in tuple(self._classes) if len(self._known(name)) > 1]

    def check_meant(self, event_type: type[DomainEvent], aggregate_type: str) -> None:
        """Check that events of ``event_type`` of such an aggregate are read as their own class.

        Raises:
            AmbiguousEventType: They would be read as events of another class.
        """
        if not (classes := self._known(event_type.type_name())):
            return
        meant = classes if len(classes) == 1 else self._meant(event_type.type_name(), aggregate_type, classes)
        if not _stands_for(meant[0], event_type):
            raise AmbiguousEventType(event_type.type_name(), map(_qualified, {*meant, event_type}))

    def names(self) -> list[str]:
        """The names of all registered event types, sorted."""
        return sorted(name for name, refs in self._classes.items() if any(ref() for ref in refs))

    def add_upcast(self, event_type: type[DomainEvent] | str, from_version: int, step: Upcast) -> None:
        """Register one step of schema evolution; see `upcasts`.

        Raises:
            ValueError: ``from_version`` is not a schema version.
        """
        if not is_count(from_version, 1) or from_version >= MAX_VERSION:
            raise ValueError(f"schema versions start at 1; found from_version={from_version!r}")
        name = event_type if isinstance(event_type, str) else _qualified(event_type)
        self._upcasts[name, from_version] = step

    def upcast(
        self,
        name: str,
        recorded: int,
        current: int,
        payload: Payload,
        *,
        event_type: type[DomainEvent] | None = None,
        where: str | None = None,
    ) -> Payload:
        """Bring a payload of schema version ``recorded`` to version ``current``, step by step.

        Args:
            name: Under which the event is recorded; steps registered for it come before those of the class.
            recorded: The schema version of ``payload``.
            current: The schema version to return.
            payload: The recorded payload; the steps may change it in place.
            event_type: The class that it is read as, for steps that were registered for the class or its bases.
            where: The place of the event, for errors.

        Raises:
            EventNotReadable: A step is missing, raised, or returned no payload, or the event is newer than the class.
        """

        def unreadable(reason: str) -> EventNotReadable:
            return EventNotReadable(name, recorded, current, reason, where)

        if recorded > current:
            raise unreadable("it was recorded by a newer program")
        for version in range(recorded, current):
            step = self._step(name, event_type, version)
            if step is None:
                raise unreadable(f"register the step with @upcasts({name!r}, from_version={version})")
            called = f"the step {getattr(step, '__qualname__', step)!s} from version {version}"
            try:
                returned: object = step(payload)
            except Exception as error:
                raise unreadable(f"{called} raised {describe(error)}") from error
            if not isinstance(returned, dict):
                kind = "None" if returned is None else f"a {type(returned).__name__}"
                raise unreadable(f"{called} returned {kind}; it must return the payload, a dict")
            payload = returned
        return payload

    def _step(self, name: str, event_type: type[DomainEvent] | None, version: int) -> Upcast | None:
        classes = self._known(name) if event_type is None else [event_type]
        names = [name, *(_qualified(base) for known in classes for base in known.__mro__)]
        return next((step for one in names if (step := self._upcasts.get((one, version)))), None)


def _qualified(kind: type) -> str:
    return f"{kind.__module__}.{kind.__qualname__}"


def _stands_for(known: type[DomainEvent], event_type: type[DomainEvent]) -> bool:
    """Whether an ``event_type`` may be read as ``known``: the same class, or one with an older schema."""
    return _qualified(known) == _qualified(event_type) or known.schema_version() > event_type.schema_version()


def _nearest(aggregate: str, classes: list[type[DomainEvent]]) -> list[type[DomainEvent]]:
    """The ``classes`` that share the longest path of packages, modules and scopes with ``aggregate``."""
    way = aggregate.split(".")[:-1]

    def shared(known: type[DomainEvent]) -> int:
        pairs = zip(way, _qualified(known).split(".")[:-1], strict=False)
        return sum(1 for _ in itertools.takewhile(lambda pair: pair[0] == pair[1], pairs))

    longest = max(map(shared, classes))
    return [known for known in classes if longest and shared(known) == longest]


# --- generic events ---


def _generic_of(event_type: type[DomainEvent]) -> type[DomainEvent]:
    origin = event_type.__pydantic_generic_metadata__["origin"]
    return event_type if origin is None or not issubclass(origin, DomainEvent) else origin


event_registry = EventRegistry()
"""The process-wide registry, in which every subclass of `DomainEvent` registers itself."""


def _is_ours(name: str) -> bool:
    """Whether it names an event of the framework; those of its contract for stores are like a user's."""
    return name.startswith(_OURS) and "." not in name.removeprefix(_OURS)
