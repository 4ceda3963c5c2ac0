"""Projections: handlers whose views live in the store, so that each event counts in them exactly once.

What a projection writes and the checkpoint of its progress are one transaction. After a crash, of whatever
kind, its view has counted the events up to the checkpoint, each once, and nothing of any other.

A view is built under a name of its own for each version (``totals@2``). A new version begins at the first event
of the log while readers are still given the view before it, as that was left; when the new one has caught up,
one write makes it the one that is read, and the old one is removed.
"""

from typing import ClassVar, TypeVar

from uno_actors.domain.events import DomainEvent
from uno_actors.domain.values import classes_in
from uno_actors.errors import InvalidHandler
from uno_actors.handlers.spec import EventHandler
from uno_actors.handlers.subscribe import gather
from uno_actors.handlers.view import PublishedView, View, entry_of
from uno_actors.store.port import EventStore

E = TypeVar("E", bound=DomainEvent)

PROJECTION_BATCH = 256
"""Events that a projection counts in one transaction, if so many are there."""


class Projection(EventHandler[E]):
    """A handler that keeps a view: ``async def handle(self, event)``, with the context if it wants it.

    It begins at the first event of the log. Of the options of `uno_actors.handlers.spec.HandlerSpec` ``start`` and
    ``concurrency`` are not for it; ``batch`` is how many events are counted in one transaction, each handled
    by itself. Of an event whose handling fails nothing is written.

    Attributes:
        version: Of what it writes; change it, and the view is built anew beside the old one.
        classes: The enums, dataclasses, named tuples and models among its values.
        view: What it reads and writes.
    """

    keeps_a_view = True
    version: ClassVar[int] = 1
    classes: ClassVar[tuple[type, ...]] = ()
    view: View

    def begin(self, store: EventStore, view: str) -> None:
        """Go on with the view of this name as it was last recorded; called by the runtime."""
        self.view = View(store, view, classes_in(*self.classes))


def published_view(store: EventStore, projection: object) -> PublishedView:
    """The view of a projection, to read it.

    Args:
        store: Where it lives.
        projection: As it was given to the system: a `Projection`, a class of it, or a `HandlerSpec`.

    Raises:
        InvalidHandler: It is none of these.
    """
    (spec,) = gather([projection])
    kind = spec.target if isinstance(spec.target, type) else type(spec.target)
    if not issubclass(kind, Projection):
        raise InvalidHandler(f"{projection!r} keeps no view: only a Projection does")
    return PublishedView(store, spec.name, classes_in(*kind.classes))


async def publish(store: EventStore, name: str, view: str) -> None:
    """Have readers given ``view``, which has caught up, and remove all others."""
    entry = await entry_of(store, name)
    if entry.current != view:
        entry = entry._replace(current=view)
        await store.save_progress({}, views=[entry.of(name)])
    others = [other for other in entry.views if other != view]
    for other in others:
        await store.drop_view(other)
    if others:
        await store.save_progress({}, views=[entry._replace(views=(view,)).of(name)])
