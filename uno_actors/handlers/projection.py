"""Projections: handlers that keep their views in the store, so that each event counts exactly once.

The store records a projection's writes and its checkpoint in one transaction. After any crash, the view has counted
every event up to the checkpoint exactly once, and no other event.

Each version of a view has its own name (``totals@2``). A new version begins at the first event of the log. Until it
has caught up, readers get the previous view, which no longer changes. Then one write publishes the new view, and
the old one is removed.
"""

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, Generic, TypeVar, overload

from uno_actors.domain.events import DomainEvent
from uno_actors.domain.values import classes_in
from uno_actors.errors import InvalidHandler
from uno_actors.handlers.partitions import names_of, other_layouts, partitions_of
from uno_actors.handlers.spec import EventHandler, HandlerSpec
from uno_actors.handlers.subscribe import gather
from uno_actors.handlers.view import (
    Entry,
    KeepsView,
    PartitionedView,
    PublishedView,
    View,
    built_by_all,
    entries,
    entry_of,
)
from uno_actors.store.handler_names import DIRECTORY
from uno_actors.store.port import EventStore
from uno_actors.store.records import ViewChange
from uno_actors.store.view_keys import K, pack_key

E = TypeVar("E", bound=DomainEvent)

PROJECTION_BATCH = 256
"""Maximum number of events that a projection counts in one transaction."""


class Projection(EventHandler[E], KeepsView[K], Generic[E, K]):
    """A handler that keeps a view: ``async def handle(self, event)``, optionally with the context.

    A projection begins at the first event of the log. It accepts the options of
    `uno_actors.handlers.spec.HandlerSpec` except ``start`` and ``concurrency``. ``batch`` is the maximum number of
    events counted in one transaction; each event is still handled by itself. If handling an event fails, none of
    its changes is written.

    With ``partitioned``, each partition writes its part of the view and reads no other: a key may be written because of
    events of one aggregate only, such as a key that begins with its id.

    ``Projection[Deposited, tuple[str, int]]`` states the type of the view's keys as well, for type checkers.

    Attributes:
        version: Version of the view. Change it to build a new view beside the old one.
        classes: The enums, dataclasses, named tuples and models among the view's values.
        view: The view that the projection reads and writes.
    """

    keeps_a_view = True
    version: ClassVar[int] = 1
    classes: ClassVar[tuple[type, ...]] = ()
    view: View[K]

    def begin(self, store: EventStore, view: str) -> None:
        """Continue with the last recorded state of the view named ``view``. The runtime calls this."""
        self.view = View(store, view, classes_in(*self.classes))

    def _strategy_of(self, *parts: Any) -> Any:
        """A strategy of its own, for one run of its actor; ``None`` for `ViewBuilding`, whose ``parts`` these are."""
        return None


@overload
def published_view(store: EventStore, projection: KeepsView[K] | type[KeepsView[K]]) -> PublishedView[K]: ...
@overload
def published_view(store: EventStore, projection: object) -> PublishedView: ...


def published_view(store: EventStore, projection: object) -> PublishedView[Any]:
    """Return the view of a projection, for reading.

    Args:
        store: The store that holds the view.
        projection: The projection as given to the system: an instance or a subclass of `Projection`, or a
            `HandlerSpec`.

    Raises:
        InvalidHandler: ``projection`` is none of these.
    """
    (spec,) = gather([projection])
    kind = spec.target if isinstance(spec.target, type) else type(spec.target)
    if not issubclass(kind, Projection):
        raise InvalidHandler(f"{projection!r} keeps no view: only a Projection does")
    classes = classes_in(*kind.classes)
    if spec.partitions:
        return PartitionedView(
            store, spec.name, lambda logs: [part.name for part in partitions_of(spec, logs)], classes
        )
    return PublishedView(store, spec.name, classes)


async def publish(store: EventStore, spec: HandlerSpec, view: str) -> None:
    """Make ``view``, which has caught up, the one that readers get, and remove the projection's other views."""
    name = spec.name
    entry = await entry_of(store, name)
    if entry.current != view:
        entry = entry._replace(current=view)
        await store.save_progress({}, views=[entry.of(name)])
    others = [other for other in entry.views if other != view]
    for other in others:
        await store.drop_view(other)
    if others:
        await store.save_progress({}, views=[entry._replace(views=(view,)).of(name)])
    await _remove_layouts(store, spec, await entries(store))


async def publish_part(store: EventStore, spec: HandlerSpec, view: str) -> None:
    """Note that a partition's ``view`` has caught up, and remove its views that readers do not need any more.

    Readers get a view when all partitions have built it: see `PartitionedView`.
    """
    name, parts = spec.name, names_of(spec)
    entry = await entry_of(store, name)
    if entry.current != view or view not in entry.built:
        built = (*(other for other in entry.built if other != view), view)
        entry = entry._replace(current=view, built=built)
        await store.save_progress({}, views=[entry.of(name)])
    found = await entries(store)
    suffix = built_by_all(parts, found)
    if suffix is None:
        return
    needed = {f"{name}{suffix}", view}
    others = [other for other in entry.views if other not in needed]
    for other in others:
        await store.drop_view(other)
    if others:
        kept = entry._replace(
            views=tuple(other for other in entry.views if other in needed),
            built=tuple(other for other in entry.built if other in needed),
        )
        await store.save_progress({}, views=[kept.of(name)])
    await _remove_layouts(store, spec, found)


async def is_shown_by_all(store: EventStore, parts: Sequence[str]) -> bool:
    """Whether readers get the view that the partitions of these names write now: all of them have built it."""
    found = await entries(store)
    suffix = built_by_all(parts, found)
    return suffix is not None and all(found[part].writing == f"{part}{suffix}" for part in parts)


async def _remove_layouts(store: EventStore, spec: HandlerSpec, found: Mapping[str, Entry]) -> None:
    """Remove what is kept of a projection under other numbers of partitions; its new view has counted every event."""
    for name in other_layouts(spec, found):
        if await store.is_leased(name):
            continue
        for view in found[name].views:
            await store.drop_view(view)
        letters = [(name, letter.position) for letter in await store.dead_letters(name)]
        await store.save_progress({}, views=[ViewChange(DIRECTORY, pack_key(name), None)], dropped=letters)
