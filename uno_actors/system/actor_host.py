"""The host of a system's actors: spawns them, registers their names, and drops them when they end."""

import inspect
import threading
from collections.abc import Callable
from typing import Any, TypeVar, cast

from uno_actors.actors.actor import Actor, ActorRef, StartReply
from uno_actors.actors.ask import time_left
from uno_actors.actors.cell import ActorCell
from uno_actors.actors.dead_messages import DeadMessages
from uno_actors.actors.dispatcher import Dispatcher
from uno_actors.actors.future import Future
from uno_actors.actors.mailbox import DEFAULT, make_mailbox
from uno_actors.actors.pykka import PykkaActor
from uno_actors.actors.signals import Failure
from uno_actors.actors.stop_flag import StopFlag
from uno_actors.errors import NameTaken, SystemNotRunning
from uno_actors.settings import Settings

A = TypeVar("A", bound=PykkaActor)


class ActorHost:
    """The spawned actors of a system, supervised or not. Implements `uno_actors.actors.cell.CellHost`.

    Args:
        settings: The system's options.
        dispatcher: Runs the actors.
        dead_messages: Collects messages that were told but not handled.
    """

    def __init__(self, settings: Settings, dispatcher: Dispatcher, dead_messages: DeadMessages) -> None:
        self.clock = settings.clock
        self.log = dispatcher.log
        self.cells: dict[ActorCell, None] = {}  # in order of their start
        self._settings = settings
        self._dispatcher = dispatcher
        self._dead_messages = dead_messages
        self._names: dict[str, ActorCell] = {}
        self._on_ended: dict[ActorCell, Callable[[ActorCell], None]] = {}
        self._spawning = threading.RLock()  # reentrant: a signal handler may interrupt this thread and spawn
        self._takes_no_more = False  # the existing actors are being stopped

    def spawn(
        self,
        actor: A,
        parent: ActorCell | None = None,
        name: str | None = None,
        *,
        own_thread: bool = False,
    ) -> "Future[ActorRef[A]]":
        """Start an actor without a supervisor; see `ActorSystem.spawn` and `Actor.spawn`."""
        seconds = time_left(self._settings.ask_timeout)
        return self._make_cell(actor, name, parent, own_thread=own_thread, seconds=seconds)[1]

    def spawn_child(
        self,
        factory: Callable[[], PykkaActor],
        name: str | None,
        *,
        own_thread: bool,
        on_failed: Callable[[Failure], None],
        on_ended: Callable[[ActorCell], None],
    ) -> tuple[ActorCell, Future[Any]]:
        """See `uno_actors.supervision.child.ActorHost`."""
        cell, started = self._make_cell(
            factory(), name, own_thread=own_thread, factory=factory, on_failed=on_failed
        )
        self._on_ended[cell] = on_ended
        return cell, started

    def _make_cell(
        self,
        actor: A,
        name: str | None,
        parent: ActorCell | None = None,
        *,
        own_thread: bool,
        seconds: float | None = None,
        factory: Callable[[], PykkaActor] | None = None,
        on_failed: Callable[[Failure], None] | None = None,
    ) -> "tuple[ActorCell, Future[ActorRef[A]]]":
        """Create and start a cell. The future resolves to the actor's reference once the actor has started.

        If the actor has not started within ``seconds``, the system abandons it when the future is read.
        """
        _fit(actor, own_thread=own_thread)
        started: Future[ActorRef[A]] = Future() if seconds is None else StartReply(seconds)
        ref = ActorRef(actor, self._settings.ask_timeout)
        ref.actor_inbox.dead = self._dead_messages
        actor._actor_ref = ref
        cell = ActorCell(
            actor,
            self._dispatcher,
            factory=factory,
            on_failed=on_failed,
            started=started,
            host=self,
            own_thread=own_thread,
        )
        started.target = cell
        with self._spawning:  # a stopping system either sees this cell or refuses it here
            if self._takes_no_more:
                raise SystemNotRunning(self._settings.name, "stopping and takes no more actors")
            if name is not None:
                owner = self._names.setdefault(name, cell)
                if owner is not cell:
                    raise NameTaken(name, str(owner))
                cell.name = name
            self.cells[cell] = None
        if parent is not None:
            parent.relations.add_child(cell)
        cell.start()
        return cell, started

    def named(self, name: str) -> ActorRef[Any] | None:
        """The living actor with this name, if any."""
        cell = self._names.get(name)
        return None if cell is None else cast("ActorRef[Any]", cell.actor.actor_ref)

    def cell(self, name: str) -> ActorCell | None:
        """The cell of the living actor with this name, if any."""
        return self._names.get(name)

    def ended(self, cell: ActorCell) -> None:
        """Drop an actor that has ended, and free its name."""
        self.cells.pop(cell, None)
        if cell.name is not None:
            del self._names[cell.name]
        if (listener := self._on_ended.pop(cell, None)) is not None:
            listener(cell)

    def take_no_more(self) -> None:
        """Refuse new actors from now on."""
        with self._spawning:  # a concurrent spawn either has added its cell or is refused
            self._takes_no_more = True


def _fit(actor: PykkaActor, *, own_thread: bool) -> None:
    """Check that ``actor`` can run on the chosen dispatcher; give a pykka threading actor this runtime's inbox.

    Raises:
        TypeError, ValueError: The actor cannot run there.
    """
    kind = type(actor).__name__
    if not hasattr(actor, "actor_inbox"):
        raise TypeError(f"{kind}.__init__ must begin with super().__init__(), else it has no mailbox")
    if own_thread and inspect.iscoroutinefunction(actor.on_receive):
        raise ValueError(f"{kind} handles its messages in a coroutine, on the event loop: it needs no thread")
    if isinstance(actor, Actor):
        return
    if not own_thread:
        raise TypeError(f"{kind} is an actor of pykka's threads: spawn it with dispatcher='thread'")
    inbox = make_mailbox(getattr(actor, "mailbox", DEFAULT))
    inbox.urn = actor.actor_urn
    actor.actor_inbox, actor.actor_stopped = cast("Any", (inbox, StopFlag()))
