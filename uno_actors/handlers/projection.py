"""Projections: handlers that keep their views in the store, so that each event counts exactly once.

The store records a projection's writes and its checkpoint in one transaction. After any crash, the view has counted
every event up to the checkpoint exactly once, and no other event.

Each version of a view has its own name (``totals@2``). A new version begins at the first event of the log. Until it
has caught up, readers get the previous view, which no longer changes. Then one write publishes the new view, and
the old one is removed.
"""

from typing import Any, ClassVar, Generic, TypeVar, overload

from uno_actors.domain.events import DomainEvent
from uno_actors.domain.values import classes_in
from uno_actors.errors import InvalidHandler
from uno_actors.handlers.spec import EventHandler
from uno_actors.handlers.subscribe import gather
from uno_actors.handlers.view import KeepsView, PublishedView, View, entry_of
from uno_actors.store.port import EventStore
from uno_actors.store.view_keys import K

E = TypeVar("E", bound=DomainEvent)

PROJECTION_BATCH = 256
"""Maximum number of events that a projection counts in one transaction."""


class Projection(EventHandler[E], KeepsView[K], Generic[E, K]):
    """A handler that keeps a view: ``async def handle(self, event)``, optionally with the context.

    A projection begins at the first event of the log. It accepts the options of
    `uno_actors.handlers.spec.HandlerSpec` except ``start`` and ``concurrency``. ``batch`` is the maximum number of
    events counted in one transaction; each event is still handled by itself. If handling an event fails, none of
    its changes is written.

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
    return PublishedView(store, spec.name, classes_in(*kind.classes))


async def publish(store: EventStore, name: str, view: str) -> None:
    """Make ``view``, which has caught up, the one that readers get, and remove the projection's other views."""
    entry = await entry_of(store, name)
    if entry.current != view:
        entry = entry._replace(current=view)
        await store.save_progress({}, views=[entry.of(name)])
    others = [other for other in entry.views if other != view]
    for other in others:
        await store.drop_view(other)
    if others:
        await store.save_progress({}, views=[entry._replace(views=(view,)).of(name)])
