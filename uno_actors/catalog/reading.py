"""From classes and handlers to a catalog."""

import inspect
from collections.abc import Iterable, Iterator, Mapping, Set
from contextlib import suppress
from enum import Flag
from itertools import chain
from types import ModuleType
from typing import Any, TypeGuard

from pydantic import BaseModel
from pydantic.json_schema import GenerateJsonSchema
from typing_extensions import override

from uno_actors.annotations import UnreadableAnnotation, annotated_classes
from uno_actors.catalog.shapes import Shapes, qualified, shown_type
from uno_actors.catalog.values import Catalog, CommandEntry, EventEntry, Receiver
from uno_actors.domain.aggregate import AggregateRoot
from uno_actors.domain.commands import Command
from uno_actors.domain.events import DomainEvent, EventRegistry, event_registry
from uno_actors.domain.methods import event_key
from uno_actors.domain.payload_writer import metadata_of
from uno_actors.errors import AmbiguousEventType, InvalidHandler
from uno_actors.handlers.spec import EventHandler, HandlerSpec
from uno_actors.handlers.subscribe import gather, subscription_of
from uno_actors.processes.feed import ProcessHandler

DIALECT = "https://json-schema.org/draft/2020-12/schema"


def catalog_of(
    program: str,
    aggregates: Iterable[type[AggregateRoot]],
    handlers: Iterable[HandlerSpec],
    events: Iterable[type[DomainEvent]] | None = None,
    registry: EventRegistry = event_registry,
) -> Catalog:
    """The catalog of a program.

    Args:
        program: Its name.
        aggregates: The classes of its aggregates and process managers; their commands are in the catalog.
        handlers: Its handlers.
        events: The classes of its events; default is all that are registered, without those of the framework.
        registry: Knows the recorded names and the upcasts.
    """
    aggregates, shapes = sorted(aggregates, key=qualified), Shapes()
    found = {kind for kind in registry.classes() if not _is_ours(kind)} if events is None else {*events}
    specs = list({spec.name: spec for spec in gather(handlers)}.values())
    named = _Named(registry)
    return Catalog(
        program=program,
        events=tuple(
            _event(kind, aggregates, specs, named, shapes)
            for kind in sorted(found, key=lambda kind: (kind.type_name(), qualified(kind)))
            if not _is_open(kind)
        ),
        commands=tuple(_commands(aggregates, shapes)),
        models=dict(sorted(shapes.models.items())),
    )


def loaded_aggregates() -> list[type[AggregateRoot]]:
    """The classes of aggregates that the program has defined, without those of the framework."""
    found: dict[str, type[AggregateRoot]] = {}
    waiting = AggregateRoot.__subclasses__()
    while waiting:
        kind = waiting.pop()
        waiting += kind.__subclasses__()
        if not (_is_ours(kind) or inspect.isabstract(kind)):
            found[qualified(kind)] = kind
    return list(found.values())


def handlers_in(module: ModuleType) -> list[HandlerSpec]:
    """The handlers that a module or package defines: specifications, subscribed functions and classes, instances of
    `EventHandler`, and its other classes, which a program names when it makes its system.
    """
    members = list(vars(module).values())
    found = [
        member
        for member in members
        if isinstance(member, (HandlerSpec, EventHandler))
        or (subscription_of(member) is not None and _is_defined_in(module, member))
    ]
    specs = list(gather(found))
    taken = {spec.target if isinstance(spec.target, type) else type(spec.target) for spec in specs}
    classes = {each for each in members if _is_handler_class(each) and _is_defined_in(module, each)} - taken
    for kind in sorted(classes, key=qualified):
        if not any(issubclass(other, kind) for other in (classes | taken) - {kind}):  # else a base class
            with suppress(InvalidHandler):  # it is not ready for use
                specs += gather([kind])
    return specs


def _is_defined_in(module: ModuleType, member: object) -> bool:
    where = str(getattr(member, "__module__", ""))
    return where == module.__name__ or where.startswith(f"{module.__name__}.")


def _is_handler_class(member: object) -> TypeGuard[type[EventHandler[Any]]]:
    """Whether it is a class of handlers that can be made: one that handles, is not generic, and needs no arguments."""
    if not (isinstance(member, type) and issubclass(member, EventHandler)) or inspect.isabstract(member):
        return False
    if getattr(member, "__parameters__", ()) or member.handle is EventHandler.handle:
        return False
    try:
        inspect.signature(member).bind()
    except (TypeError, ValueError):  # it needs arguments that a program has
        return False
    return True


def _is_ours(kind: type) -> bool:
    return kind.__module__.partition(".")[0] in ("uno_actors", "uno_stores")


def _is_open(kind: type[BaseModel]) -> bool:
    """Whether it is generic, so that only its parametrised classes are recorded."""
    return bool(kind.__pydantic_generic_metadata__["parameters"])


def _doc(kind: type) -> str:
    return inspect.cleandoc(vars(kind).get("__doc__") or "")


# --- events ------------------------------------------------------------------------------------------------


class _Named:
    """The names of a registry by class."""

    def __init__(self, registry: EventRegistry) -> None:
        self.registry = registry
        self.shared = frozenset(registry.shared_names())
        self._names: dict[type[DomainEvent], list[str]] = {}
        for name in registry.names():
            for kind in registry._known(name):
                self._names.setdefault(kind, []).append(name)

    def names_of(self, kind: type[DomainEvent]) -> tuple[str, ...]:
        return tuple(sorted({kind.type_name(), *self._names.get(kind, ())}))

    def upcasts_of(self, kind: type[DomainEvent]) -> tuple[int, ...]:
        steps = (
            version
            for version in range(1, kind.schema_version())
            if self.registry._step(kind.type_name(), kind, version) is not None
        )
        return tuple(steps)


def _event(
    kind: type[DomainEvent],
    aggregates: Iterable[type[AggregateRoot]],
    specs: Iterable[HandlerSpec],
    named: _Named,
    shapes: Shapes,
) -> EventEntry:
    topic = kind.model_fields["topic"].default
    topic = topic if isinstance(topic, str) else None
    registered_by = sorted(
        {aggregate.aggregate_type for aggregate in aggregates if _applies(aggregate, kind, named)}
    )
    receivers = [
        Receiver(name=spec.name, kind=_kind_of(spec))
        for spec in specs
        if _takes(spec, kind, topic, registered_by)
    ]
    return EventEntry(
        name=kind.type_name(),
        names=named.names_of(kind),
        version=kind.schema_version(),
        upcasts=named.upcasts_of(kind),
        code=qualified(kind),
        doc=_doc(kind),
        topic=topic,
        registered_by=tuple(registered_by),
        handled_by=tuple(sorted(receivers, key=lambda each: each.name)),
        model=shapes.model(kind, metadata_of(kind)),
        json_schema=_json_schema(kind, kind.type_name(), metadata_of(kind), "serialization"),
    )


def _applies(aggregate: type[AggregateRoot], kind: type[DomainEvent], named: _Named) -> bool:
    """Whether the streams of an aggregate hold such events."""
    keys = (event_key(base.__name__) for base in kind.__mro__)
    method = next((aggregate._applies[key] for key in keys if key in aggregate._applies), None)
    if method is None:
        return False
    if kind.type_name() in named.shared:
        try:
            named.registry.check_meant(kind, aggregate.aggregate_type)
        except AmbiguousEventType:
            return False
    with suppress(UnreadableAnnotation):
        taken = annotated_classes(getattr(aggregate, method), DomainEvent, skip=1, kind=aggregate)
        return taken is None or issubclass(kind, taken)
    return True


def _takes(spec: HandlerSpec, kind: type[DomainEvent], topic: str | None, aggregates: list[str]) -> bool:
    kinds = spec.event_type if isinstance(spec.event_type, tuple) else (spec.event_type or DomainEvent,)
    if not issubclass(kind, kinds):
        return False
    if spec.topic_pattern is not None and (topic is None or not spec.topic_pattern.matches(topic)):
        return False
    return spec.aggregate_type is None or spec.aggregate_type in aggregates


def _kind_of(spec: HandlerSpec) -> Any:
    if isinstance(spec.target, ProcessHandler):
        return "process manager"
    return "projection" if spec.keeps_a_view or spec.keeps_progress else "handler"


# --- commands ----------------------------------------------------------------------------------------------


def _commands(aggregates: Iterable[type[AggregateRoot]], shapes: Shapes) -> Iterator[CommandEntry]:
    handled: dict[type[Command[Any]], set[str]] = {}
    for aggregate in aggregates:
        for command in aggregate._commands:
            if not _is_ours(command):
                handled.setdefault(command, set()).add(aggregate.aggregate_type)
    for command in sorted(handled, key=lambda kind: (kind.__name__, qualified(kind))):
        yield CommandEntry(
            name=command.__name__,
            code=qualified(command),
            doc=_doc(command),
            reply=_reply_of(command),
            handled_by=tuple(sorted(handled[command])),
            model=shapes.model(command, metadata_of(command)),
            json_schema=_json_schema(command, command.__name__, metadata_of(command), "validation"),
        )


def _reply_of(command: type[Command[Any]]) -> str | None:
    for base in command.__mro__:
        found: Mapping[str, Any] = vars(base).get("__pydantic_generic_metadata__") or {}
        if found.get("origin") is Command:
            return shown_type(found["args"][0])
    return None


# --- JSON Schema -------------------------------------------------------------------------------------------


class _Generator(GenerateJsonSchema):
    """JSON Schema of what is sent as JSON: a ``Decimal`` is text, and what JSON Schema cannot describe is any value."""

    ignored_warning_kinds = frozenset({"skipped-choice", "non-serializable-default"})  # type: ignore[assignment]

    @override
    def enum_schema(self, schema: Any) -> dict[str, Any]:
        found = super().enum_schema(schema)
        if issubclass(schema["cls"], Flag):  # whose values are sums of those listed
            return {key: value for key, value in found.items() if key not in ("enum", "const")}
        return found

    @override
    def decimal_schema(self, schema: Any) -> dict[str, Any]:
        return {"type": "string", "format": "decimal"}

    @override
    def handle_invalid_for_json_schema(self, schema: Any, error_info: str) -> dict[str, Any]:
        return {}


def _json_schema(kind: type[BaseModel], title: str, leave_out: Set[str], mode: Any) -> dict[str, Any]:
    """The JSON Schema of the fields of a message without its metadata."""
    schema = kind.model_json_schema(by_alias=False, schema_generator=_Generator, mode=mode)
    schema["properties"] = {
        name: value for name, value in schema.get("properties", {}).items() if name not in leave_out
    }
    schema["required"] = [name for name in schema.get("required", ()) if name not in leave_out]
    if not schema["required"]:
        del schema["required"]
    return {"$schema": DIALECT, **_used(schema), "title": title}


def _used(schema: dict[str, Any]) -> dict[str, Any]:
    """``schema`` without definitions that nothing refers to."""
    definitions, used = schema.pop("$defs", {}), set[str]()
    waiting: list[Any] = [schema]
    while waiting:
        each = waiting.pop()
        if isinstance(each, dict):
            name = str(each.get("$ref", "")).removeprefix("#/$defs/")
            if name in definitions and name not in used:
                used.add(name)
                waiting.append(definitions[name])
        waiting += chain(each.values() if isinstance(each, dict) else each if isinstance(each, list) else ())
    return schema | ({"$defs": {name: definitions[name] for name in sorted(used)}} if used else {})
