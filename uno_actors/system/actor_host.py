"""The host of a system's actors: spawns them, keeps their names, and forgets them when they have ended."""

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
from uno_actors.system.settings import Settings

A = TypeVar("A", bound=PykkaActor)


class ActorHost:
    """The spawned actors of a system, supervised or not; also see `uno_actors.actors.cell.CellHost`.

    Args:
        settings: Of the system.
        dispatcher: Where the actors run.
        dead_messages: Where messages go that were told and not handled.
    """

    def __init__(self, settings: Settings, dispatcher: Dispatcher, dead_messages: DeadMessages) -> None:
        self.clock = settings.clock
        self.cells: dict[ActorCell, None] = {}  # in the order of their start
        self._settings = settings
        self._dispatcher = dispatcher
        self._dead_messages = dead_messages
        self._names: dict[str, ActorCell] = {}
        self._on_ended: dict[ActorCell, Callable[[ActorCell], None]] = {}
        self._spawning = threading.RLock()  # a signal handler may spawn on the thread that it interrupts here
        self._takes_no_more = False  # the actors that there are, are being stopped

    def spawn(
        self,
        actor: A,
        parent: ActorCell | None = None,
        name: str | None = None,
        *,
        own_thread: bool = False,
    ) -> "Future[ActorRef[A]]":
        """Start an actor that stands under no supervisor; see `ActorSystem.spawn` and `Actor.spawn`."""
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
        """Make a cell of this system and start it; the future has its reference when it has started.

        It is abandoned if it has not started within ``seconds``, as far as the future is looked at.
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
        with self._spawning:  # at the end of the system either it is seen there, or refused here
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
        """The living actor of this name."""
        cell = self._names.get(name)
        return None if cell is None else cast("ActorRef[Any]", cell.actor.actor_ref)

    def ended(self, cell: ActorCell) -> None:
        """Forget an actor that has ended, and its name."""
        self.cells.pop(cell, None)
        if cell.name is not None:
            del self._names[cell.name]
        if (listener := self._on_ended.pop(cell, None)) is not None:
            listener(cell)

    def take_no_more(self) -> None:
        """Refuse new actors from here on."""
        with self._spawning:  # a spawn under way has entered its actor, or is refused
            self._takes_no_more = True


def _fit(actor: PykkaActor, *, own_thread: bool) -> None:
    """See to it that ``actor`` can run there; one of pykka's threads is given the inbox of our runtime.

    Raises:
        TypeError, ValueError: It cannot.
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
