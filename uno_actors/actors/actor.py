"""Actors: pykka's programming model on a runtime that needs no thread per actor.

`Actor` is a real ``pykka.Actor``: inbox, futures, refs, proxies and messages are pykka's. Its coroutine
functions run on the dispatcher's event loop; its plain functions run on worker threads and may block. One
message is handled at a time.
"""

import weakref
from time import monotonic
from types import TracebackType
from typing import TYPE_CHECKING, Any, ClassVar, Generic, Literal, Self, TypeVar, cast, overload

from typing_extensions import override

from uno_actors.actors.ask import Envelope, time_left
from uno_actors.actors.cell import ActorCell
from uno_actors.actors.dispatcher import default_dispatcher
from uno_actors.actors.future import Future, Reply
from uno_actors.actors.inspection import ActorStatistics, doing
from uno_actors.actors.mailbox import Mailbox, MailboxPolicy, make_mailbox
from uno_actors.actors.pykka import ActorDeadError, ActorStop, PykkaActor, PykkaActorRef
from uno_actors.actors.stop_flag import StopFlag
from uno_actors.actors.timers import Timers
from uno_actors.actors.unseen import Unseen
from uno_actors.actors.watchdog import watchdog
from uno_actors.errors import StartTimeout
from uno_actors.quantities import check_duration

A = TypeVar("A", bound=PykkaActor)


_PykkaActor: Any = (
    PykkaActor  # pykka's hooks return None; ours may be coroutine functions, which its types exclude
)


class Actor(_PykkaActor):  # type: ignore[misc]  # see above
    """An actor on the event loop and worker threads; subclass it as you would ``pykka.ThreadingActor``.

    ``on_start``, ``on_receive``, ``on_stop`` and methods called through a proxy may each be ``async def`` or
    ``def``. `ActorSystem.spawn` starts it in a system; pykka's own ``start()`` starts it on a dispatcher of
    the process.
    """

    mailbox: ClassVar[MailboxPolicy] = MailboxPolicy()
    """How many messages its mailbox holds, what happens when it is full, and in which order messages leave it."""

    actor_inbox: Mailbox
    actor_stopped: StopFlag
    _actor_ref: PykkaActorRef[Any] | None

    if TYPE_CHECKING:  # pykka's own methods, with the types that fit

        @classmethod
        def start(cls, *args: Any, **kwargs: Any) -> PykkaActorRef[Self]:
            """Start it on a dispatcher of the process, outside of any system."""

        def on_start(self) -> Any:
            """Run before the first message; if it raises, the actor has not started."""

        def on_stop(self) -> Any:
            """Run after the last message."""

        def on_failure(
            self,
            exception_type: type[BaseException] | None,
            exception_value: BaseException | None,
            traceback: TracebackType | None,
        ) -> Any:
            """Run when a message for whose reply no caller waits has failed, before the actor stops or is restarted."""

        def on_receive(self, message: Any, /) -> Any:
            """Handle a message and return the reply; the default logs that it was unexpected."""

    def __init__(self, *_args: Any, **_kwargs: Any) -> None:
        self.actor_inbox = make_mailbox(self.mailbox)
        self.actor_stopped = StopFlag()
        self._actor_ref = None

    @property
    def actor_urn(self) -> str:
        """A globally unique name; it survives restarts."""
        return self.actor_inbox.urn

    @property
    def actor_ref(self) -> PykkaActorRef[Self]:
        """The reference to this actor."""
        if self._actor_ref is None:
            self._actor_ref = PykkaActorRef(self)
        return self._actor_ref

    def stop(self) -> None:
        """Stop after the messages that wait."""
        self.actor_inbox.add_stop()

    def spawn(self, actor_class: "type[A]", *args: Any, **kwargs: Any) -> "Future[ActorRef[A]]":
        """Start a child, which stops when this actor does; the future is set to its reference when it has started.

        Args:
            actor_class: Its class.
            *args: For its constructor.
            **kwargs: For its constructor.

        Raises:
            StartTimeout: In the future: ``on_start`` has not returned within the ask timeout.
            RuntimeError: This actor does not run in a system.
            SystemNotRunning: The system is stopping its actors.
        """
        return self._cell().spawn(actor_class(*args, **kwargs))

    def watch(self, ref: PykkaActorRef[Any]) -> None:
        """Receive `Terminated`, even with a full mailbox, when the actor behind ``ref`` ends; at once if it has.

        Raises:
            TypeError: It is an actor of another runtime.
        """
        cell = getattr(ref.actor_inbox, "cell", None)
        if not isinstance(cell, ActorCell):
            raise TypeError(f"{ref} is not an actor of this runtime, so its end cannot be watched")
        cell.relations.add_watcher(self.actor_ref, ref)

    @property
    def timers(self) -> Timers:
        """Messages that it sends to itself later."""
        return self._cell().timers

    def stash(self) -> None:
        """Set the message being handled aside until `unstash_all`; its asker keeps waiting.

        Raises:
            MailboxFull: As many messages as the mailbox holds are set aside already.
            RuntimeError: No message is being handled.
        """
        self._cell().stash.add()

    def unstash_all(self) -> None:
        """Put all messages that were set aside back in front of the mailbox, in their order."""
        self._cell().unstash_all()

    def _cell(self) -> ActorCell:
        if self.actor_inbox.cell is None:
            raise RuntimeError(f"{self} has not been started")
        return cast("ActorCell", self.actor_inbox.cell)

    @staticmethod
    def _create_actor_inbox() -> Mailbox:
        return make_mailbox()

    @staticmethod
    def _create_future() -> Future[Any]:
        return Future()

    def _start_actor_loop(self) -> None:
        dispatcher = default_dispatcher()
        watchdog.watch(dispatcher)
        ActorCell(self, dispatcher, stops_all=True).start()


class ActorRef(PykkaActorRef[A], Generic[A]):
    """A reference to an actor in a system: ``ask`` returns a future that ends within the system's ask timeout.

    Args:
        actor: The actor.
        ask_timeout: Seconds until an ask without a reply ends.
    """

    actor_inbox: Mailbox

    def __init__(self, actor: A, ask_timeout: float) -> None:
        self._actor_weakref = weakref.ref(actor)
        self.actor_class = actor.__class__
        own: Any = actor  # its inbox and its flag are ours, which pykka's types do not know
        self.actor_inbox: Mailbox = own.actor_inbox
        self.actor_stopped: StopFlag = own.actor_stopped  # type: ignore[assignment]  # it replaces pykka's
        self._ask_timeout = ask_timeout

    @property
    def actor_urn(self) -> str:  # type: ignore[override]  # made when first used
        """A globally unique name."""
        return self.actor_inbox.urn

    @override
    def is_alive(self) -> bool:
        return not self.actor_stopped.up

    def __str__(self) -> str:
        return super().__str__() if self.actor_inbox.cell is None else str(self.actor_inbox)

    @override
    def tell(self, message: Any) -> None:
        """Send ``message`` without waiting; a full mailbox raises nothing.

        Raises:
            pykka.ActorDeadError: The actor has stopped.
        """
        if self.actor_stopped.up:
            raise ActorDeadError(f"{self} not found")
        self.actor_inbox.add(Envelope(message))

    @overload  # type: ignore[override]  # only the default of `block` differs from pykka's
    def ask(
        self, message: Any, *, block: Literal[False] = False, timeout: float | None = None
    ) -> Future[Any]: ...
    @overload
    def ask(self, message: Any, *, block: Literal[True], timeout: float | None = None) -> Any: ...

    def ask(self, message: Any, *, block: bool = False, timeout: float | None = None) -> Future[Any] | Any:
        """Send ``message`` and return the future reply, or with ``block=True`` the reply itself.

        Args:
            message: Anything.
            block: Wait for the reply on this thread; an error on the event loop's thread.
            timeout: Seconds; default is the system's. An ask made while an actor handles another ask gets at most
                the remaining time of that one.

        Raises:
            DeadlockError: Where the reply is awaited or got: it can never arrive.
            pykka.ActorDeadError: In the reply: the actor has stopped, or stops before it handles the message.
            AskTimeout, MailboxFull, WorkCancelled, ExitRaised: In the reply, as is whatever the actor raises.
            InvalidNumber: ``timeout`` is not a number of seconds.
        """
        if timeout is not None:
            check_duration("timeout", timeout, zero=True)
        seconds = time_left(self._ask_timeout if timeout is None else timeout)
        cell: Any = self.actor_inbox.cell
        reply: Reply[Any] = Reply(cell, seconds, type(message))
        if self.actor_stopped.up:
            reply.offer_exception(ActorDeadError(f"{self} not found"))
        else:
            self.actor_inbox.add(Envelope(message, reply))
        return reply.get() if block else reply

    @override
    def stop(self, *, block: bool = True, timeout: float | None = None) -> Any:
        """Stop the actor after the messages that wait.

        Args:
            block: Wait for its end on this thread; an error on the event loop's thread.
            timeout: Seconds to wait at most, with ``block=True``.

        Returns:
            Whether it was still alive; with ``block=False`` a future for that.
        """
        cell: Any = self.actor_inbox.cell
        reply = _StopReply(cell, time_left(self._ask_timeout), ActorStop)
        if self.actor_stopped.up:
            reply.offer_exception(ActorDeadError(f"{self} not found"))
        elif cell.end_if_idle():
            reply.offer(True)
        else:
            self.actor_inbox.add_stop(reply)
        return reply.get(timeout=timeout) if block else reply

    def statistics(self) -> ActorStatistics:
        """The actor's current state and counters."""
        return cast("ActorCell", self.actor_inbox.cell).statistics()


class StartReply(Reply[Any]):
    """The reference of a spawned actor, once it has started; an actor that takes longer than ``seconds`` is abandoned.

    Set its ``target`` to the cell of the actor.
    """

    def __init__(self, seconds: float) -> None:
        self.deadline = monotonic() + seconds
        self._seconds = seconds

    @override
    def _unseen(self, error: BaseException) -> Unseen | None:
        return Unseen(error, self.target, "on_start")

    @override
    def _expire(self) -> bool:
        cell = cast("ActorCell", self.target)
        if self._outcome is None:
            late = StartTimeout(str(cell), self._seconds, doing(cell))
            if self.offer_exception(late):  # its reference will never be used
                cell.abandon()
        return True


class _StopReply(Reply[bool]):
    """Whether an actor was alive when it was asked to stop; the reply itself says nothing."""

    @override
    def _unseen(self, error: BaseException) -> None:
        return None

    @override
    def _result(self) -> bool:
        try:
            super()._result()
        except ActorDeadError:
            return False
        return True


__all__ = ["Actor", "ActorDeadError", "ActorRef"]
