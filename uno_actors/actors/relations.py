"""An actor's relations to others: its children, and those that want to know of its end."""

from typing import Any, Protocol

from uno_actors.actors.future import Future
from uno_actors.actors.pykka import PykkaActorRef
from uno_actors.actors.signals import Terminated
from uno_actors.actors.stop_flag import once


class Child(Protocol):
    """A child's cell."""

    def stop(self) -> Future[None]:
        """Stop after the messages that wait."""


class Children:
    """The children of one actor, in the order of their start; any thread may add and remove."""

    __slots__ = ("_cells",)

    def __init__(self) -> None:
        self._cells: dict[Child, None] = {}

    def add(self, child: Child) -> None:
        """Add a child that has been started."""
        self._cells[child] = None

    def discard(self, child: Child) -> None:
        """Forget a child that has ended."""
        self._cells.pop(child, None)

    def last_first(self) -> list[Child]:
        """The children, the last started first."""
        with once:
            return list(reversed(self._cells))

    async def stop(self) -> None:
        """Stop them, the last started first, each after the messages that wait for it."""
        for child in self.last_first():
            await child.stop()

    def __len__(self) -> int:
        return len(self._cells)

    def __bool__(self) -> bool:
        return bool(self._cells)


class DeathWatch:
    """Those that want to know when one actor ends: actors that watch it, and callers that stop it."""

    __slots__ = ("_stops", "_watchers")

    def __init__(self) -> None:
        self._watchers: list[PykkaActorRef[Any]] = []
        self._stops: list[Future[None]] = []

    @property
    def awaits_stop(self) -> bool:
        """Whether a caller waits for the end."""
        return bool(self._stops)

    def add_watcher(self, watcher: PykkaActorRef[Any]) -> None:
        """Send `Terminated` to ``watcher`` at the end."""
        self._watchers.append(watcher)

    def add_stop(self, stopped: Future[None]) -> None:
        """Set ``stopped`` at the end."""
        self._stops.append(stopped)

    def ended(self, ref: PykkaActorRef[Any]) -> None:
        """Tell all of them that the actor behind ``ref`` has ended."""
        for watcher in self._watchers:
            send_terminated(watcher, ref)
        for stopped in self._stops:
            stopped.offer(None)


def send_terminated(watcher: PykkaActorRef[Any], ended: PykkaActorRef[Any]) -> None:
    """Send `Terminated` to ``watcher``, if it is alive, even if its mailbox is full."""
    if watcher.is_alive():
        inbox: Any = watcher.actor_inbox  # ours: only actors of this runtime watch others
        inbox.add_signal(Terminated(ended))
