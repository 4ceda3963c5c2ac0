"""An actor's life behind its reference, from start to end.

The cell handles one message at a time. Its parts own one concern each: `turns` when and where it runs, `faults` what
happens when it fails, `relations` its children and those that watch it.
"""

import contextlib
import inspect
import weakref
from collections.abc import Callable
from functools import lru_cache
from typing import Any, NamedTuple, Protocol

from uno_actors.actors import steps
from uno_actors.actors.ask import Envelope, PendingReply
from uno_actors.actors.dispatcher import Dispatcher, LaterCall
from uno_actors.actors.faults import Faults
from uno_actors.actors.future import Future
from uno_actors.actors.inspection import ActorStatistics, late, statistics_of
from uno_actors.actors.mailbox import Mailbox
from uno_actors.actors.pykka import (
    ActorDeadError,
    ActorRegistry,
    ActorStop,
    PykkaActor,
)
from uno_actors.actors.relations import Relations
from uno_actors.actors.signals import Calls, Failure
from uno_actors.actors.stash import Stash
from uno_actors.actors.stop_flag import StopFlag, once
from uno_actors.actors.timers import Timers
from uno_actors.actors.turns import LoopTurns, Turns, WorkerTurns
from uno_actors.actors.worker_pool import WorkerPool
from uno_actors.clock import Clock, SystemClock
from uno_actors.errors import AskTimeout, shown
from uno_actors.logs import Logger


class CellHost(Protocol):
    """The system in which an actor lives."""

    @property
    def clock(self) -> Clock:
        """For timers."""

    def spawn(self, actor: PykkaActor, parent: "ActorCell | None" = None) -> Future[Any]:
        """Start another actor."""

    def ended(self, cell: "ActorCell") -> None:
        """Forget an actor that has ended."""


class ActorCell:
    """One actor at work.

    Over 300 lines, because it is the one interface that host, supervisor, mailbox and askers know; the parts hold the
    state that concerns them alone.

    Args:
        actor: The actor, constructed and not started.
        dispatcher: Where it runs.
        factory: Makes a new instance for `restart`; without it the actor cannot be restarted.
        on_failed: Called when ``on_start`` fails, or a message for which no asker waits. The supervisor passes it,
            and then calls `restart` or `resume`. Without it the actor stops, as in pykka.
        started: Set when ``on_start`` has succeeded, or to its error.
        host: The system in which it lives, if any.
        stops_all: Whether an error that is not an ``Exception`` stops all actors of pykka's registry, as it does for
            those that pykka's own ``start()`` starts; otherwise it is a failure of this actor alone.
        own_thread: Whether its plain functions run on a thread of their own.

    Attributes:
        actor: The instance.
        name: The name under which its host finds it.
        handling: The message that it is handling now.
        handled: Messages handled, whatever the outcome.
        waits: The replies that the handling is waiting for.
        is_set_up: Whether the instance has begun ``on_start``, if it has one.
        is_open: Whether it handles messages: it is set up, and neither failed nor stopped.
        was_killed: Whether it was abandoned.
        started: Set when ``on_start`` has succeeded, or to its error; ``None`` from then on.
        turns: When and where it runs.
        faults: What happens when it fails.
    """

    __slots__ = (
        "_faults",
        "_has_ended",
        "_host",
        "_relations",
        "_stash",
        "_timers",
        "actor",
        "dispatcher",
        "handled",
        "handling",
        "has_on_start",
        "has_on_stop",
        "inbox",
        "is_open",
        "is_set_up",
        "name",
        "started",
        "stopped",
        "turns",
        "waits",
        "was_killed",
    )

    def __init__(
        self,
        actor: PykkaActor,
        dispatcher: Dispatcher,
        *,
        factory: Callable[[], PykkaActor] | None = None,
        on_failed: Callable[[Failure], None] | None = None,
        started: Future[Any] | None = None,
        host: CellHost | None = None,
        stops_all: bool = False,
        own_thread: bool = False,
    ) -> None:
        self.actor: Any = actor  # pykka's hooks return None, ours may be coroutine functions
        own: Any = actor  # its inbox and its flag are ours, which pykka's types do not know
        self.inbox: Mailbox = own.actor_inbox
        self.stopped: StopFlag = own.actor_stopped
        self.dispatcher = dispatcher
        self.started = started
        self.name: str | None = None
        self.handling: Envelope | None = None
        self.handled = 0
        self.waits: list[PendingReply] | None = None
        self.is_set_up = self.is_open = self.was_killed = self._has_ended = False
        self._host = host
        # Made when first needed: most actors have none of them, and a system may have a million actors.
        self._faults: Faults | None = None
        self._relations: Relations | None = None
        self._stash: Stash | None = None
        self._timers: Timers | None = None
        if stops_all or on_failed is not None or factory is not None:
            self._faults = Faults(self, factory, on_failed, stops_all=stops_all)
        traits = _traits(type(actor))
        self.has_on_start, self.has_on_stop = traits.starts, traits.stops
        self.turns: Turns
        if traits.on_loop and not own_thread:
            self.turns = LoopTurns(self, is_async=traits.is_async)
        else:
            pool = WorkerPool(1, 0, f"uno-{type(actor).__name__}", log=dispatcher.log) if own_thread else None
            self.turns = WorkerTurns(self, pool)
        self.inbox.cell = self

    def __str__(self) -> str:
        """Its class and name; without a name, pykka's text."""
        return shown(self.actor) if self.name is None else f"{type(self.actor).__name__} {self.name!r}"

    @property
    def log(self) -> Logger:
        """With its name bound. Outside a system the texts are pykka's, and name the actor."""
        log = self.dispatcher.log
        return log.bind(actor=str(self)) if log.has_names else log

    # --- its life ---

    def start(self) -> None:
        """Begin: ``on_start`` first, then the messages."""
        if not self.has_on_start:
            self.is_set_up = True
            self.has_begun()
        self.inbox.turns = self.turns
        self.inbox.woken = True
        if self.is_set_up and self.inbox.empty():
            self.turn_ended(False)
        else:
            self.turns.schedule()

    def stop(self) -> Future[None]:
        """Stop the actor after the messages that wait; the future is set when ``on_stop`` has run."""
        stopped: Future[None] = Future()
        if self._has_failed:
            self.retire()
            self._close()
        elif not self.stopped.up:
            self.inbox.add_stop()
        self.relations.add_stop(stopped)
        return stopped

    def end_if_idle(self) -> bool:
        """On the event loop: end immediately if that needs no turn; return whether it ended."""
        if (
            not self.is_open
            or self.has_children
            or self.has_on_stop
            or not self.inbox.empty()
            or not self.turns.is_idle_here()
        ):
            return False
        self.retire()
        self._close()
        return True

    def kill(self) -> None:
        """Abandon an actor that does not stop: its coroutine is cancelled, a worker thread is left alone.

        On a worker thread the actor may begin or end a message at this very moment. Its asker still gets a reply: the
        thread enters the message as `handling` before it checks `was_killed`, and removes it before it replies; here
        the order is reversed. So at least one of the two replies, and the first reply counts.
        """
        self.was_killed = True
        self.retire()
        if self.started is not None:
            self.started.offer_exception(ActorDeadError(f"{self} was abandoned while it started"))
        if self._faults is not None:
            self._faults.end_restart(ActorDeadError(f"{self} was abandoned while it was restarted"))
        self._close()
        handling, task = self.handling, self.turns.task
        asker = None if handling is None else handling.reply_to
        if asker is not None:
            asker.offer_exception(ActorDeadError(f"{self} was abandoned while it handled the message"))
        if task is not None:
            task.cancel()

    def abandon(self) -> None:
        """As `kill`, from any thread."""
        self.dispatcher.call(self.kill)

    def has_begun(self) -> None:
        """``on_start`` has succeeded, or there is none."""
        self.is_open = not self.stopped.up
        if self.started is not None:
            self.started.offer(self.actor.actor_ref)
            self.started = None
        if self._faults is not None:
            self._faults.end_restart()

    def stop_plainly(self, envelope: Envelope) -> bool:
        """Stop at this message if that calls none of the actor's functions; return whether it stopped."""
        if self.has_children or self.has_on_stop or type(envelope.message) is not ActorStop:
            return False
        self.retire()
        self.succeeded(envelope, None)
        return True

    def stop_now(self) -> Calls:
        """Stop in this turn."""
        return steps.stop_now(self)

    def retire(self) -> None:
        """Handle nothing more."""
        if self._host is None:  # otherwise pykka's registry does not know it
            ActorRegistry.unregister(self.actor.actor_ref)
            text = f"Stopped {self}"  # pykka's
            self.log.debug(text)
        self.is_open = False
        self.stopped.set()

    def turn_ended(self, has_stopped: bool) -> None:
        """Become idle, unless there is something to do."""
        if has_stopped:
            self._close()
            return
        if self._has_failed:
            return  # it still counts as woken, so that no message wakes it
        self.inbox.woken = False  # first: a message that arrives from now on wakes it again
        if not self.is_set_up or not self.inbox.empty():
            self.inbox.woken = True
            self.turns.schedule()

    def _close(self) -> None:
        """Answer the messages that wait or were set aside, and end."""
        self.inbox.close()
        self.unstash_all()
        self._end()

    def _end(self) -> None:
        """Inform everything that waits for the end, once."""
        with once:
            if self._has_ended:
                return
            self._has_ended = True
            relations = self._relations
            if relations is not None:
                relations.has_ended = True
        self.cancel_timers()
        if relations is not None:
            relations.leave(self)
        try:
            if self._host is not None:
                self._host.ended(self)
        finally:  # from here on its name is free again
            if relations is not None:
                relations.announce_end(self.actor.actor_ref)
            self.turns.close()

    # --- for its supervisor ---

    @property
    def faults(self) -> Faults:
        """What happens when it fails."""
        if self._faults is None:
            with once:
                if self._faults is None:
                    self._faults = Faults(self, None, None, stops_all=False)
        return self._faults

    @property
    def _has_failed(self) -> bool:
        return self._faults is not None and self._faults.is_suspended

    @property
    def is_suspended(self) -> bool:
        """Whether its instance has failed or was halted, so that it waits for `restart` or `resume`."""
        return self._has_failed and not self._has_ended

    @property
    def restarts(self) -> int:
        """How often it was restarted."""
        return 0 if self._faults is None else self._faults.restarts

    @property
    def failed(self) -> int:
        """Messages whose handling raised."""
        return 0 if self._faults is None else self._faults.count

    def restart(self, retry: Envelope | None = None) -> Future[None]:
        """See `Faults.restart`."""
        return self.faults.restart(retry)

    def resume(self) -> None:
        """See `Faults.resume`."""
        self.faults.resume()

    def halt(self) -> Future[None]:
        """See `Faults.halt`."""
        return self.faults.halt()

    def replace_instance(self, new: PykkaActor) -> None:
        """Put a new instance, which has not started, behind the mailbox and the reference."""
        old = self.actor
        new.actor_inbox, new.actor_stopped = old.actor_inbox, old.actor_stopped
        new._actor_ref = old.actor_ref
        new._actor_ref._actor_weakref = weakref.ref(new)
        self.actor = new
        self.is_set_up = self.is_open = False

    def begin_again(self, retry: Envelope | None) -> None:
        """Start the new instance; it handles ``retry`` first, if there is one."""
        self.cancel_timers()
        self.unstash_all()  # the new instance does not know of them
        if retry is not None:
            self.inbox.put_back([retry])
        self.turns.schedule()

    def schedule(self) -> None:
        """Have a turn soon; from any thread."""
        self.turns.schedule()

    # --- one message ---

    def succeeded(self, envelope: Envelope, response: Any) -> None:
        """Reply, unless the message was set aside."""
        asker = envelope.reply_to
        self.handled += 1
        self.handling = None  # first: the asker may look at it when it has the reply
        if (self._stash is None or not self._stash.handled(envelope)) and asker is not None:
            asker.offer(response)

    def done_with(self, envelope: Envelope) -> None:
        """Note that handling a message has ended, without a reply."""
        self.handled += 1
        self.handling = None
        if self._stash is not None:
            self._stash.handled(envelope)

    def lose(self, envelope: Envelope, reason: str) -> None:
        """Keep a message among the dead ones."""
        self.inbox.dead.add(str(self), envelope.message, reason)

    # --- what the actor asks for ---

    @property
    def relations(self) -> Relations:
        """Its children, its parent and those that want to know when it ends."""
        with once:
            if self._relations is None:
                self._relations = Relations(has_ended=self._has_ended)
            return self._relations

    @property
    def has_children(self) -> bool:
        """Whether it has children now."""
        return self._relations is not None and bool(self._relations.children)

    @property
    def stash(self) -> Stash:
        """Where it sets messages aside."""
        if self._stash is None:
            self._stash = Stash(self)
        return self._stash

    def unstash_all(self) -> None:
        """See `Actor.unstash_all`."""
        if self._stash is not None:
            self._stash.unstash_all()

    def is_stashed(self, envelope: Envelope) -> bool:
        """Whether the message is set aside."""
        return self._stash is not None and envelope in self._stash

    def spawn(self, actor: PykkaActor) -> Future[Any]:
        """See `Actor.spawn`."""
        if self._host is None:
            raise RuntimeError(f"{self} does not run in a system; start others with ActorSystem.spawn")
        return self._host.spawn(actor, self)

    @property
    def timers(self) -> Timers:
        """See `Actor.timers`."""
        if self._timers is None:
            clock = SystemClock() if self._host is None else self._host.clock
            self._timers = Timers(clock, self.dispatcher, self._tell_itself)
        return self._timers

    def _tell_itself(self, message: Any) -> None:
        if self.stopped.up:
            self.cancel_timers()  # one was started by what the actor has left behind
        else:
            with contextlib.suppress(ActorDeadError):
                self.actor.actor_ref.tell(message)

    def cancel_timers(self) -> None:
        """Cancel the actor's timers."""
        if self._timers is not None:
            self._timers.cancel_all()

    # --- for askers ---

    def run_inline(self) -> None:
        """Have a turn now, inside the task that is about to wait for this actor, if that is possible."""
        self.turns.run_inline()

    def runs_here(self) -> bool:
        """Whether the caller is the handling itself."""
        return self.turns.runs_here()

    def call_later(self, seconds: float, callback: Callable[[], object]) -> LaterCall:
        """Call ``callback`` on its event loop in ``seconds``; from any thread."""
        return self.dispatcher.call_later(seconds, callback)

    def late(self, reply: PendingReply, message: str, seconds: float) -> AskTimeout:
        """The error for an asker that has waited ``seconds`` for the reply to a ``message`` of this class."""
        return late(self, reply, message, seconds)

    def statistics(self) -> ActorStatistics:
        """Its current state and counters."""
        return statistics_of(self)

    @property
    def has_started(self) -> bool:
        """Whether ``on_start`` has succeeded."""
        return self.is_set_up and self.started is None

    @property
    def has_stopped(self) -> bool:
        """Whether it has stopped, or is running ``on_stop``."""
        return self.stopped.up

    @property
    def stashed(self) -> int:
        """Messages set aside."""
        return 0 if self._stash is None else len(self._stash)


class _Traits(NamedTuple):
    """What a class of actors defines, and where it runs."""

    is_async: bool  # its `on_receive` is a coroutine function
    on_loop: bool  # that, or it has the default `on_receive` and coroutine functions
    starts: bool  # it has an `on_start`
    stops: bool  # it has an `on_stop`


@lru_cache(maxsize=4096)
def _traits(actor_class: type[PykkaActor]) -> _Traits:
    is_async = inspect.iscoroutinefunction(actor_class.on_receive)
    on_loop = is_async
    if actor_class.on_receive is PykkaActor.on_receive:
        members = inspect.getmembers_static(actor_class)
        on_loop = any(inspect.iscoroutinefunction(member) for _, member in members)
    starts = actor_class.on_start is not PykkaActor.on_start
    return _Traits(is_async, on_loop, starts, actor_class.on_stop is not PykkaActor.on_stop)
