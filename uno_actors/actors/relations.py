"""An actor's relations to others: its parent, its children, and those that want to know when it ends."""

from collections.abc import Sequence
from typing import Any, Protocol

from uno_actors.actors.future import Future
from uno_actors.actors.pykka import PykkaActorRef
from uno_actors.actors.signals import Terminated
from uno_actors.actors.stop_flag import once


class RelatedCell(Protocol):
    """A cell, as its relatives see it."""

    @property
    def relations(self) -> "Relations":
        """Its relations."""

    def stop(self) -> Future[None]:
        """Stop after the messages that wait."""


class Relations:
    """The relations of one actor; any thread may add to them.

    Args:
        has_ended: Whether the actor has ended.

    Attributes:
        has_ended: Whether the actor has ended, so that nothing is added any more.
        children: Its children, in the order of their start; ``None`` if it never had any.
    """

    # Class attributes are the defaults.
    children: "dict[RelatedCell, None] | None" = None
    _parent: "Relations | None" = None
    _watchers: Sequence[PykkaActorRef[Any]] = ()
    _stops: Sequence[Future[None]] = ()

    def __init__(self, *, has_ended: bool) -> None:
        self.has_ended = has_ended

    @property
    def awaits_stop(self) -> bool:
        """Whether a caller has stopped the actor and waits for its end."""
        return bool(self._stops)

    def add_child(self, child: RelatedCell) -> None:
        """Make ``child`` stop before this actor does; immediately if this one has ended."""
        child.relations._parent = self
        with once:
            if not self.has_ended:
                if self.children is None:
                    self.children = {}
                self.children[child] = None
                return
        child.stop()

    def add_watcher(self, watcher: PykkaActorRef[Any], watched: PykkaActorRef[Any]) -> None:
        """Send `Terminated` to ``watcher`` when the actor behind ``watched``, which is this one, ends."""
        with once:
            if not self.has_ended:
                self._watchers = (*self._watchers, watcher)
                return
        _send_terminated(watcher, watched)

    def add_stop(self, stopped: Future[None]) -> None:
        """Set ``stopped`` when the actor ends."""
        with once:
            if not self.has_ended:
                self._stops = (*self._stops, stopped)
                return
        stopped.set(None)

    async def stop_children(self) -> None:
        """Stop the children, the last started first, each after the messages that wait for it."""
        for child in self.children_last_first():
            await child.stop()

    def children_last_first(self) -> list[RelatedCell]:
        """The children, the last started first."""
        with once:
            return list(reversed(self.children or {}))

    def leave(self, cell: RelatedCell) -> None:
        """Stop the children of an actor that did not stop in order, and leave the parent."""
        for child in self.children_last_first():
            child.stop()
        if self._parent is not None and self._parent.children is not None:
            self._parent.children.pop(cell, None)

    def announce_end(self, ref: PykkaActorRef[Any]) -> None:
        """Tell those that wait for the end of the actor behind ``ref``, which is this one."""
        watchers, self._watchers = self._watchers, ()
        stops, self._stops = self._stops, ()
        for watcher in watchers:
            _send_terminated(watcher, ref)
        for stopped in stops:
            stopped.offer(None)


def _send_terminated(watcher: PykkaActorRef[Any], ended: PykkaActorRef[Any]) -> None:
    """Send `Terminated` to ``watcher``, if it is alive, even if its mailbox is full."""
    if watcher.is_alive():
        inbox: Any = watcher.actor_inbox  # ours: only actors of this runtime watch others
        inbox.add_signal(Terminated(ended))
