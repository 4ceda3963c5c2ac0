"""Views built in memory: the projections of a program count events as they would in production, and write nothing."""

from bisect import bisect_left, insort
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, cast

from uno_actors.domain.events import DomainEvent, EventRegistry
from uno_actors.domain.values import classes_in, unpack_value
from uno_actors.errors import describe
from uno_actors.handlers.projection import Projection
from uno_actors.handlers.spec import HandlerContext, HandlerSpec
from uno_actors.logs import get_logger
from uno_actors.rehearsal.program import FAILURES, NotAProgram
from uno_actors.rehearsal.states import Form, digest, form_of, text_of
from uno_actors.store.codec import Record
from uno_actors.store.port import EventStore
from uno_actors.store.view_keys import unpack_key

FEW = 64
"""New keys that are put into their places one by one."""


class Rows:
    """The entries of one view, in place of those of a store."""

    def __init__(self) -> None:
        self.values: dict[bytes, bytes] = {}
        self._sorted: list[bytes] = []
        self._new: list[bytes] = []
        self._listed: set[bytes] = set()

    def put(self, key: bytes, value: bytes | None) -> None:
        """Set a value, or remove it."""
        if value is None:
            self.values.pop(key, None)
            return
        self.values[key] = value
        if key not in self._listed:
            self._listed.add(key)
            self._new.append(key)

    async def read_view(
        self, view: str, start: bytes = b"", end: bytes | None = None, limit: int | None = None
    ) -> list[tuple[bytes, bytes]]:
        """See `uno_actors.store.port.EventStore.read_view`."""
        if end == start + b"\0":
            return [(start, self.values[start])] if start in self.values else []
        found: list[tuple[bytes, bytes]] = []
        keys = self._in_order()
        for index in range(bisect_left(keys, start), len(keys)):
            key = keys[index]
            if (end is not None and key >= end) or len(found) == limit:
                break
            if (value := self.values.get(key)) is not None:
                found.append((key, value))
        return found

    def _in_order(self) -> list[bytes]:
        if len(self._new) <= FEW:
            for key in self._new:
                insort(self._sorted, key)
        else:
            self._sorted += self._new
            self._sorted.sort()
        self._new.clear()
        return self._sorted


class NoSystem:
    """In place of the system in the context of a projection: a rehearsal sends no commands."""

    name = "rehearsal"

    def __getattr__(self, name: str) -> Any:
        raise RuntimeError(f"a rehearsal has no system, so system.{name} cannot be used")


@dataclass(slots=True)
class Unhandled:
    """Events that a projection could not handle.

    Attributes:
        count: How many.
        position: Of the first.
        reason: The error of the first.
    """

    count: int
    position: int
    reason: str


class FoldedView:
    """A projection with its view in memory.

    Args:
        spec: Of a projection that `why_not_folded` has nothing against.

    Raises:
        NotAProgram: It cannot be made.

    Attributes:
        name: Of the projection.
        failures: The first error of each class that ``handle`` has raised, by the name of the class.
    """

    def __init__(self, spec: HandlerSpec) -> None:
        self.name = spec.name
        self.failures: dict[str, Unhandled] = {}
        self._rows = Rows()
        try:
            self._handler = spec.instantiate()
        except Exception as error:
            raise NotAProgram(f"projection {spec.name!r} cannot be made ({describe(error)})") from error
        projection = cast("Projection[Any, Any]", self._handler.owner)
        projection.begin(cast("EventStore", self._rows), spec.name)  # all that a view needs of a store
        self._view = projection.view
        self._classes = classes_in(*projection.classes)
        self._logger = get_logger().bind(handler=spec.name)

    async def count(self, event: DomainEvent, position: int) -> None:
        """Let the projection handle an event; if that fails, the view does not count it."""
        context = None
        if self._handler.takes_context:
            context = HandlerContext(position, 1, self.name, self._logger, NoSystem())  # type: ignore[arg-type]
        try:
            await self._handler(event, context)
        except FAILURES as error:  # a projection may raise anything
            self._view.forget()
            name = type(error).__name__
            self.failures.setdefault(name, Unhandled(0, position, describe(error))).count += 1
            return
        self._view.keep()
        for _, key, value in self._view.take_changes():
            self._rows.put(key, value)

    def rows(self) -> Iterator[tuple[bytes, bytes]]:
        """The keys, and a digest of each value."""
        for key, value in self._rows.values.items():
            yield key, digest(form_of(unpack_value(value, self._classes)))

    def value(self, key: bytes) -> Form:
        """The value of a key that the view has."""
        return form_of(unpack_value(self._rows.values[key], self._classes))


def key_text(key: bytes) -> str:
    """A key of a view as Python writes it."""
    return text_of(form_of(unpack_key(key)))


def why_not_folded(spec: HandlerSpec) -> str | None:
    """Why a handler's view cannot be built in memory; ``None`` if it can, or if the handler keeps none."""
    if spec.keeps_progress:
        return "it fills tables of your own database"
    if spec.keeps_a_view and spec.has_dependencies:
        return "it depends on what a system gives it"
    if spec.keeps_a_view and _kind_of(spec)._strategy_of is not Projection._strategy_of:
        return "it is built in a way of its own"
    return None


def folded(specs: Sequence[HandlerSpec]) -> list[HandlerSpec]:
    """The projections among some handlers whose views can be built in memory."""
    return [spec for spec in specs if spec.keeps_a_view and why_not_folded(spec) is None]


class Wanted:
    """Which views count an event, looked up once per kind of event.

    Args:
        specs: The handlers of the program, as `uno_actors.handlers.subscribe.gather` gives them.
        registry: Knows the recorded names.
    """

    def __init__(self, specs: Sequence[HandlerSpec], registry: EventRegistry) -> None:
        self._pairs = [(FoldedView(spec), spec) for spec in folded(specs)]
        self.views = [view for view, _ in self._pairs]
        self._registry = registry
        self._known: dict[tuple[str, str | None, str | None], tuple[FoldedView, ...]] = {}

    def by(self, record: Record) -> tuple[FoldedView, ...]:
        """The views that count this event."""
        kind = record.event_type, record.aggregate_type, record.topic
        found = self._known.get(kind)
        if found is None:
            found = tuple(view for view, spec in self._pairs if self._wants(spec, *kind))
            if len(self._known) < 100_000:  # there may be a topic for each aggregate
                self._known[kind] = found
        return found

    def _wants(self, spec: HandlerSpec, name: str, aggregate_type: str | None, topic: str | None) -> bool:
        if spec.aggregate_type is not None and spec.aggregate_type != aggregate_type:
            return False
        if spec.topic_pattern is not None and (topic is None or not spec.topic_pattern.matches(topic)):
            return False
        kinds = spec.event_type if isinstance(spec.event_type, tuple) else (spec.event_type,)
        return any(kind is None or self._registry.covers(kind, name, aggregate_type) for kind in kinds)


def _kind_of(spec: HandlerSpec) -> type[Projection[Any, Any]]:
    return spec.target if isinstance(spec.target, type) else type(spec.target)
