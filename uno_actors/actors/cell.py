"""The execution of one actor: its life from start to end, one message at a time.

An actor whose messages are for a coroutine function has its turns on the event loop; any other has them on a
worker thread, of the dispatcher or of its own. A turn handles what waits, within its slice of time.
"""

import asyncio
import contextlib
import contextvars
import inspect
import sys
import threading
import weakref
from collections.abc import Callable, Coroutine, Generator, Sequence
from dataclasses import dataclass
from functools import lru_cache, partial
from time import monotonic
from types import CoroutineType, FrameType
from typing import Any, Literal, NamedTuple, Protocol

from uno_actors.actors.ask import Envelope, Reply, being_handled
from uno_actors.actors.carrier import Waiting, resumed
from uno_actors.actors.dispatcher import Dispatcher, LaterCall, WorkerPool
from uno_actors.actors.future import Future
from uno_actors.actors.mailbox import Mailbox, Signal
from uno_actors.actors.pykka import (
    ActorDeadError,
    ActorRegistry,
    ActorStop,
    ProxyCall,
    ProxyGetAttr,
    ProxySetAttr,
    PykkaActor,
    PykkaActorRef,
    get_attr_directly,
)
from uno_actors.actors.timers import Timers
from uno_actors.actors.watchdog import LIBRARIES, line_of, own_frame
from uno_actors.clock import Clock, SystemClock
from uno_actors.errors import AskTimeout, MailboxFull, bounded_traceback, shown
from uno_actors.logs import get_logger

SLICE_SECONDS = 0.0005
"""How long one actor handles messages before the next one has its turn."""

Calls = Generator[Callable[[], Any], Any, Any]
"""Yields each function of the actor that is to be called, and is sent its result or its error.

So what an actor goes through is written once for both places where it may run.
"""

State = Literal["starting", "idle", "handling", "failed", "stopped"]


@dataclass(frozen=True, slots=True)
class ActorStatistics:
    """What one actor is at, and what it has done.

    Attributes:
        actor: Its name in logs.
        state: ``starting``, ``idle``, ``handling``, ``failed`` (waiting for its supervisor) or ``stopped``.
        waiting: Messages in its mailbox now.
        peak: The most that ever waited.
        oldest: Seconds since the message was sent that waits for longest; ``None`` if none waits.
        stashed: Messages set aside.
        handled: Messages handled, whatever came of it.
        failed: Those of them that raised.
        restarts: How often a supervisor has restarted it.
        doing: What it is handling, since when and at which line.
    """

    actor: str
    state: State
    waiting: int
    peak: int
    oldest: float | None
    stashed: int
    handled: int
    failed: int
    restarts: int
    doing: str


@dataclass(frozen=True, slots=True)
class MessageStatistics:
    """The messages of all actors that a system has spawned and that live now.

    Attributes:
        waiting: In their mailboxes.
        peak: The most that ever waited in one of them.
        oldest: Seconds since the message was sent that waits for longest; ``None`` if none waits.
        handled: Messages handled, whatever came of it.
        failed: Those of them that raised.
    """

    waiting: int
    peak: int
    oldest: float | None
    handled: int
    failed: int


class CellHost(Protocol):
    """The system in which an actor lives."""

    @property
    def clock(self) -> Clock:
        """Whose time counts."""

    def spawn(self, actor: PykkaActor, parent: "ActorCell | None" = None) -> Future[Any]:
        """Start another actor."""

    def ended(self, cell: "ActorCell") -> None:
        """An actor has ended, and may be forgotten."""


@dataclass(frozen=True, slots=True)
class Terminated:
    """Told to those who `Actor.watch`: the actor behind ``ref`` has ended."""

    ref: PykkaActorRef[Any]


@dataclass(frozen=True, slots=True)
class Failure:
    """What a supervisor is told of a failed actor.

    Attributes:
        error: With what it failed.
        while_starting: Whether it did not come so far as to handle messages.
        message: What it failed at, if it was a message.
    """

    error: BaseException
    while_starting: bool
    message: Envelope | None = None


class Halt:
    """A signal: the instance is to end, its mailbox and its reference stay."""


class StopFlag:
    """What ``Actor.actor_stopped`` is: a ``threading.Event`` for who needs one, and until then a flag."""

    __slots__ = ("_event", "up")

    def __init__(self) -> None:
        self.up = False
        self._event: threading.Event | None = None

    def is_set(self) -> bool:
        """Whether the actor has stopped."""
        return self.up

    def set(self) -> None:
        """The actor has stopped."""
        self.up = True
        if self._event is not None:  # else whoever makes one looks at the flag
            self._event.set()

    def wait(self, timeout: float | None = None) -> bool:
        """Wait on this thread, for ``timeout`` seconds at the most; whether the actor has stopped."""
        with _seldom:
            if self._event is None:
                self._event = threading.Event()
            if self.up:
                self._event.set()
        return self._event.wait(timeout)


_seldom = threading.RLock()
"""Guards moments that come once in an actor's life, so that none needs a lock of its own for them."""


class ActorCell:
    """One actor at work.

    Args:
        actor: The actor, constructed and not started.
        dispatcher: Where it runs.
        factory: Makes a new instance for `restart`; without it the actor cannot be restarted.
        on_failed: Told when ``on_start`` or a message that nobody waits for fails; the supervisor, whose it
            is, then calls `restart`. Without it the actor stops, as in pykka.
        started: Set when ``on_start`` has succeeded, or to its error.
        home: The system in which it lives, if it lives in one.
        stops_all: An error that is no ``Exception`` stops all actors of pykka's registry, as it does for
            those that pykka's own ``start()`` starts; else it is this actor's failure alone.
        own_thread: Its plain functions run on a thread that is nobody else's.

    Attributes:
        handling: What it is handling now.
        name: Under which its home finds it.
        restarts: How often it was restarted.
        task: In whose name it runs on the loop now.
        thread: Ident of the worker thread that runs a function of it now.
        waits: The replies for which the handling stands still.
    """

    # Class attributes are the defaults: most actors never need a value of their own.
    name: str | None = None
    restarts = 0
    handling: Envelope | None = None
    task: "asyncio.Task[None] | None" = None
    thread: int | None = None
    waits: list[Any] | None = None
    _is_open = False  # set up, and neither failed nor stopped: it handles messages
    _is_set_up = False
    _suspended = False  # failed, and waiting for its supervisor
    _killed = False
    _has_ended = False
    _is_posted = False  # its turn on the loop is to come
    _is_running = False  # on the loop
    _handled = 0
    _failed_count = 0
    _restarted: Future[None] | None = None  # who waits for a new instance to have started
    _halted: Future[None] | None = None  # who waits for the instance to have ended
    _carried: Coroutine[Any, Any, Any] | None = None  # what goes on in its task, if it has to wait
    _own_pool: WorkerPool | None = None
    _parent: "ActorCell | None" = None
    _children: "dict[ActorCell, None] | None" = None  # in the order of their start; made when there is one
    _watchers: Sequence[PykkaActorRef[Any]] = ()
    _stops: Sequence[Future[None]] = ()  # who waits for its end
    _stash: Sequence[Envelope] = ()
    _set_aside: Envelope | None = None  # what was stashed last: its asker goes on waiting
    _timers: Timers | None = None

    def __init__(
        self,
        actor: PykkaActor,
        dispatcher: Dispatcher,
        *,
        factory: Callable[[], PykkaActor] | None = None,
        on_failed: "Callable[[Failure], None] | None" = None,
        started: Future[Any] | None = None,
        host: CellHost | None = None,
        stops_all: bool = False,
        own_thread: bool = False,
    ) -> None:
        self.actor: Any = actor  # pykka's hooks return None, ours may be coroutine functions
        own: Any = actor  # its inbox and its flag are ours, which pykka's types do not know
        self._inbox: Mailbox = own.actor_inbox
        self._stopped: StopFlag = own.actor_stopped
        self._dispatcher = dispatcher
        self._factory = factory
        self._on_failed = on_failed
        self._started = started
        self._stops_all = stops_all
        self._host = host
        self._traits = traits = _traits(type(actor))
        self._on_loop = traits.on_loop and not own_thread
        if own_thread:
            self._own_pool = WorkerPool(1, 0, f"uno-{type(actor).__name__}")
        if not self._on_loop:
            self._turn = threading.Lock()  # held by the worker thread whose turn it is
        self._inbox.cell = self

    def __str__(self) -> str:
        """Its class and name, or as pykka tells of one that has none."""
        return shown(self.actor) if self.name is None else f"{type(self.actor).__name__} {self.name!r}"

    def start(self) -> None:
        """Begin: ``on_start`` first, then the messages."""
        if not self._traits.starts:
            self._is_set_up = self._is_open = True
            self._tell_started()
        self._inbox.wake = self._schedule
        self._inbox.woken = True
        if self._is_set_up and self._inbox.empty():
            self._rest()
        else:
            self._schedule()

    @property
    def is_suspended(self) -> bool:
        """Whether its instance has failed or was halted, and it waits for `restart` or `resume`."""
        return self._suspended and not self._has_ended

    def restart(self, retry: Envelope | None = None) -> Future[None]:
        """Replace a failed or halted actor by a new instance behind the same mailbox and reference, and go on.

        Args:
            retry: A message that it is to be given first, again.

        Returns:
            Set when ``on_start`` has succeeded, or to its error; of that ``on_failed`` is told as well.

        Raises:
            RuntimeError: There is no factory.
        """
        if self._factory is None:
            raise RuntimeError(f"{self} has no factory to be restarted from")
        restarted: Future[None] = Future()
        self._restarted = restarted
        old, new = self.actor, self._factory()
        new.actor_inbox, new.actor_stopped = old.actor_inbox, old.actor_stopped
        new._actor_ref = old.actor_ref
        new._actor_ref._actor_weakref = weakref.ref(new)
        self.actor = new
        self.restarts += 1
        self._is_set_up = self._is_open = self._suspended = False
        self._cancel_timers()
        self.unstash_all()  # the new instance knows nothing of them
        if retry is not None:
            self._inbox.put_back([retry])
        self._schedule()
        return restarted

    def resume(self) -> None:
        """Let an actor that has failed go on as it is, with the next message."""
        self._suspended, self._is_open = False, True
        self._schedule()

    def halt(self) -> Future[None]:
        """Have the instance end after the message it is handling, for `restart`; the future is set when it has."""
        halted: Future[None] = Future()
        with _seldom:
            if self._suspended or self._stopped.up:
                halted.offer(None)
                return halted
            if self._halted is not None:
                return self._halted
            self._halted = halted
        self._inbox.put_back([Signal(Halt(), halted)])  # in front of what waits
        return halted

    def stop(self) -> Future[None]:
        """Have the actor stop after the messages it has; the future is set when ``on_stop`` has run."""
        stopped: Future[None] = Future()
        if self._suspended:
            self._retire()
            self._close()
        elif not self._stopped.up:
            self._inbox.add_stop()
        with _seldom:
            if not self._has_ended:
                self._stops = (*self._stops, stopped)
                return stopped
        stopped.set(None)
        return stopped

    def end_if_idle(self) -> bool:
        """On the event loop: end here and now, if that needs no turn; whether it has ended so."""
        if (
            self._is_running
            or not self._is_open
            or not self._on_loop
            or self._children
            or self._traits.stops
            or not self._inbox.empty()
            or not self._dispatcher.is_current()
        ):
            return False
        self._retire()
        self._close()
        return True

    def kill(self) -> None:
        """Abandon an actor that does not stop: its coroutine is cancelled, a worker thread is left to itself.

        On a worker thread the actor may begin or end a message in this very moment. Its asker is answered all the
        same: the thread enters what it handles before it looks whether it was abandoned and takes it out before it
        answers, and here it is the other way round. So one of the two answers, or both, and the first counts.
        """
        self._killed = True
        self._retire()
        if self._started is not None:
            self._started.offer_exception(ActorDeadError(f"{self} was abandoned while it started"))
        self._tell_restarted(ActorDeadError(f"{self} was abandoned while it was restarted"))
        self._close()
        handling, task = self.handling, self.task
        asker = None if handling is None else handling.reply_to
        if asker is not None:
            asker.offer_exception(ActorDeadError(f"{self} was abandoned while it handled the message"))
        if task is not None:
            task.cancel()

    def abandon(self) -> None:
        """As `kill`, from any thread."""
        self._dispatcher.call(self.kill)

    def lose(self, envelope: Envelope, reason: str) -> None:
        """Keep a message among the dead ones."""
        self._inbox.dead.add(str(self), envelope.message, reason)

    def stash(self) -> None:
        """See `Actor.stash`."""
        envelope, stash = self.handling, self._stash
        if envelope is None:
            raise RuntimeError(f"{self} handles no message that could be set aside")
        if len(stash) >= self._inbox.policy.capacity:
            raise MailboxFull(f"{self} (its stash)", self._inbox.policy.capacity)
        if envelope not in stash:
            self._stash = (*stash, envelope)
            self._set_aside = envelope

    def unstash_all(self) -> None:
        """See `Actor.unstash_all`."""
        stash, self._stash = self._stash, ()
        if stash:
            self._inbox.put_back(stash)

    # --- its family ---

    def spawn(self, actor: PykkaActor) -> Future[Any]:
        """See `Actor.spawn`."""
        if self._host is None:
            raise RuntimeError(f"{self} does not run in a system; start others with ActorSystem.spawn")
        return self._host.spawn(actor, self)

    def add_child(self, child: "ActorCell") -> None:
        """Have ``child`` stop before this actor does; at once if this one has ended."""
        child._parent = self
        with _seldom:
            if not self._has_ended:
                if self._children is None:
                    self._children = {}
                self._children[child] = None
                return
        child.stop()

    def add_watcher(self, ref: PykkaActorRef[Any]) -> None:
        """See `Actor.watch`."""
        with _seldom:
            if not self._has_ended:
                self._watchers = (*self._watchers, ref)
                return
        self._tell_end(ref)

    @property
    def timers(self) -> Timers:
        """See `Actor.timers`."""
        if self._timers is None:
            clock = SystemClock() if self._host is None else self._host.clock
            self._timers = Timers(clock, self._dispatcher, self._tell_itself)
        return self._timers

    def _cancel_timers(self) -> None:
        if self._timers is not None:
            self._timers.cancel_all()

    def _close(self) -> None:
        """Answer what waits and what was set aside, and end."""
        self._inbox.close()
        self.unstash_all()
        self._end()

    def _end(self) -> None:
        """Tell whoever should know, once."""
        with _seldom:
            if self._has_ended:
                return
            self._has_ended = True
            watchers, self._watchers = self._watchers, ()
            stops, self._stops = self._stops, ()
        self._cancel_timers()
        for child in self._children_last_first():
            child.stop()  # those of an actor that ended by itself have been stopped already
        if self._parent is not None and self._parent._children is not None:
            self._parent._children.pop(self, None)
        try:
            if self._host is not None:
                self._host.ended(self)
        finally:  # whoever hears of its end may use its name again
            for watcher in watchers:
                self._tell_end(watcher)
            for stopped in stops:
                stopped.offer(None)
            if self._own_pool is not None:
                self._own_pool.close()

    def _tell_end(self, watcher: PykkaActorRef[Any]) -> None:
        if watcher.is_alive():
            inbox: Any = watcher.actor_inbox  # ours: only actors of this runtime watch others
            inbox.add_signal(Terminated(self.actor.actor_ref))

    def _tell_itself(self, message: Any) -> None:
        if self._stopped.up:
            self._cancel_timers()  # one was started by what the actor has left behind
        else:
            with contextlib.suppress(ActorDeadError):
                self.actor.actor_ref.tell(message)

    async def _stop_children(self) -> None:
        """The last started first, each after the messages it has."""
        for child in self._children_last_first():
            await child.stop()

    def _children_last_first(self) -> "list[ActorCell]":
        with _seldom:
            return list(reversed(self._children or {}))

    # --- turns: at most one at any time ---

    def _schedule(self) -> None:
        if not self._on_loop:
            (self._own_pool or self._dispatcher.workers).submit(self._run_on_worker)
        elif not self._is_posted:
            self._is_posted = True
            self._dispatcher.post(self._come_round)

    def _come_round(self) -> None:
        self._is_posted = False
        self._run_on_loop()

    def lend(self) -> None:
        """Have a turn now, inside of whoever is about to wait for this actor, if it runs on that loop."""
        if self._on_loop and not self._is_running and self._dispatcher.lends():
            self._run_on_loop()

    def _run_on_loop(self) -> None:
        if not self._is_running:
            self._is_running = True
            self._dispatcher.run_turn(self._turn_on_loop, self._turn_is_over)

    def _turn_is_over(self) -> None:
        self._is_running = False
        self.task = self._carried = None
        self._rest(self._stopped.up)

    def _rest(self, has_stopped: bool = False) -> None:
        """Come to rest, unless there is something to do."""
        if has_stopped:
            self._close()
            return
        if self._suspended:
            return  # still counted as woken, so that no message wakes it
        self._inbox.woken = False  # first: whoever puts from now on wakes it again
        if not self._is_set_up or not self._inbox.empty():
            self._inbox.woken = True
            self._schedule()

    def _turn_on_loop(self, task: "asyncio.Task[None]") -> Waiting | None:
        """Handle messages until none waits, the slice is over, or one of them has to wait for something."""
        self.task = task
        if not self._is_set_up and not self._killed:
            waiting = self._begin(self._drive(self._set_up()))
            if waiting is not None:
                return waiting
        queue, take = self._inbox.open()
        is_async, waiting, ends = self._traits.is_async, None, 0.0
        while self._is_open and queue:
            envelope = take()
            if envelope is None:
                continue
            envelope.actor = self
            envelope.since = now = monotonic()
            self.handling = envelope  # before the look at the time: an asker that was later finds it begun
            if _withdrawn(envelope):
                self.handling = None
                continue
            being_handled.set(envelope)
            if is_async and type(envelope.message) not in _APART:
                waiting = self._handle_soon(envelope)
            elif not (self._children or self._traits.stops) and type(envelope.message) is ActorStop:
                self._retire()
                self._succeeded(envelope, None)
            else:
                waiting = self._begin(self._drive(self._handle(envelope)))
            if waiting is not None:
                return waiting
            if not ends:
                ends = now + SLICE_SECONDS
            elif now > ends:
                break
        return None

    def _handle_soon(self, envelope: Envelope) -> Waiting | None:
        """What `_handle` does, in the fewer steps that most messages need."""
        try:
            coroutine = self.actor.on_receive(envelope.message)
            if type(coroutine) is not CoroutineType and not hasattr(coroutine, "send"):
                self._succeeded(envelope, coroutine)  # of a plain function in the place of its class's
                return None
        except BaseException as error:  # noqa: BLE001 - one actor's SystemExit is that actor's failure
            return self._begin(self._drive(self._failed(envelope, error)))
        try:
            yielded = coroutine.send(None)
        except StopIteration as end:
            self._succeeded(envelope, end.value)
            return None
        except BaseException as error:  # noqa: BLE001 - as above
            return self._begin(self._drive(self._failed(envelope, error)))
        waiting = self._begin(self._go_on(coroutine, yielded, envelope))
        self._carried = coroutine
        return waiting

    def _begin(self, coroutine: Coroutine[Any, Any, None]) -> Waiting | None:
        """Run a coroutine of ours, which raises no errors, until it ends or has to wait."""
        try:
            yielded = coroutine.send(None)
        except StopIteration:
            return None
        self._carried = coroutine
        return coroutine, yielded

    async def _go_on(self, coroutine: Coroutine[Any, Any, Any], yielded: Any, envelope: Envelope) -> None:
        try:
            response = await resumed(coroutine, yielded)
        except BaseException as error:  # noqa: BLE001 - as above
            await self._drive(self._failed(envelope, error))
        else:
            self._succeeded(envelope, response)

    async def _drive(self, calls: Calls) -> None:
        """On the loop: coroutine functions are awaited, plain ones run on a worker thread."""
        with contextlib.suppress(StopIteration):
            call = next(calls)
            while True:
                try:
                    if inspect.iscoroutinefunction(call):
                        result = await call()
                    else:
                        result = await self._dispatcher.on_worker(self._call_here, call, stays=self._lives)
                        if type(result) is CoroutineType:
                            result = await result
                except BaseException as error:  # noqa: BLE001 - as above
                    call = calls.throw(error)
                else:
                    call = calls.send(result)

    def _lives(self) -> bool:
        """Whether it was not abandoned."""
        return not self._killed

    def _call_here(self, call: Callable[[], Any]) -> Any:
        self.thread = threading.get_ident()
        try:
            return call()
        finally:
            self.thread = None

    def _run_on_worker(self) -> None:
        if self._turn.acquire(blocking=False):
            try:
                contextvars.Context().run(self._turn_on_worker)
            finally:  # no turn raises; one that did must not be the actor's last
                has_stopped = self._stopped.up  # within the turn: in the next it may just be stopping
                self._turn.release()
                self._rest(has_stopped)

    def _turn_on_worker(self) -> None:
        """As `_turn_on_loop`: plain functions are called, coroutine functions run on the loop."""
        if not self._is_set_up and not self._killed:
            self._drive_here(self._set_up())
        queue, take = self._inbox.open()
        ends = 0.0
        while self._is_open and queue:
            envelope = take()
            if envelope is None:
                continue
            envelope.actor = self
            envelope.since = now = monotonic()
            self.handling = envelope  # before the look at the time: an asker that was later finds it begun
            if _withdrawn(envelope):
                self.handling = None
                continue
            if self._killed:  # by who may have looked before it was entered, see `kill`
                self.handling = None
                self._inbox.lose(envelope)
                break
            being_handled.set(envelope)
            if type(envelope.message) in _APART:
                self._drive_here(self._handle(envelope))
            else:
                self._handle_here(envelope)
            if not ends:
                ends = now + SLICE_SECONDS
            elif now > ends:
                break

    def _handle_here(self, envelope: Envelope) -> None:
        """What `_handle` does, in the fewer steps that most messages need."""
        try:
            response = self._call_here(partial(self.actor.on_receive, envelope.message))
            if type(response) is CoroutineType:
                response = self._dispatcher.run_coroutine(response)
        except BaseException as error:  # noqa: BLE001 - as above
            self._drive_here(self._failed(envelope, error))
        else:
            self._succeeded(envelope, response)

    def _drive_here(self, calls: Calls) -> None:
        with contextlib.suppress(StopIteration):
            call = next(calls)
            while True:
                try:
                    result = self._call_here(call)
                    if type(result) is CoroutineType:
                        result = self._dispatcher.run_coroutine(result)
                except BaseException as error:  # noqa: BLE001 - as above
                    call = calls.throw(error)
                else:
                    call = calls.send(result)

    # --- what it goes through ---

    def _set_up(self) -> Calls:
        self._is_set_up = True
        try:
            if self._traits.starts:
                yield self.actor.on_start
        except BaseException as error:  # noqa: BLE001 - as above
            if self._started is None:
                self._begin_failure(error)
                self._tell_restarted(error)
                self._end_failure(error, while_starting=True)
            else:
                self._retire()
                self._started.offer_exception(error)
        else:
            self._is_open = not self._stopped.up
            self._tell_started()
            self._tell_restarted(None)
        self._started = None

    def _tell_started(self) -> None:
        if self._started is not None:
            self._started.offer(self.actor.actor_ref)
            self._started = None

    def _tell_restarted(self, error: BaseException | None) -> None:
        restarted, self._restarted = self._restarted, None
        if restarted is None:
            return
        if error is None:
            restarted.offer(None)
        else:
            restarted.offer_exception(error)

    def _handle(self, envelope: Envelope) -> Calls:
        try:
            response = yield from self._receive(envelope.message)
        except BaseException as error:  # noqa: BLE001 - as above
            yield from self._failed(envelope, error)
        else:
            self._succeeded(envelope, response)

    def _receive(self, message: Any) -> Calls:
        actor = self.actor
        if isinstance(message, ActorStop):
            return (yield from self._stop_now())
        if isinstance(message, Halt):
            self._inbox.signal_taken()
            return (yield from self._halt_now())
        if isinstance(message, ProxyCall):
            callee = get_attr_directly(actor, message.attr_path)
            return (yield partial(callee, *message.args, **message.kwargs))
        if isinstance(message, (ProxyGetAttr, ProxySetAttr)):
            return actor._handle_receive(message)
        if type(self.handling) is Signal:
            self._inbox.signal_taken()
        return (yield partial(actor.on_receive, message))

    def _succeeded(self, envelope: Envelope, response: Any) -> None:
        asker = envelope.reply_to
        self._handled += 1
        self.handling = None  # first: whoever gets the reply may look
        if envelope is self._set_aside:
            self._set_aside = None
        elif asker is not None:
            asker.offer(response)

    def _failed(self, envelope: Envelope, error: BaseException) -> Calls:
        """An asker gets the error and the actor goes on; if nobody asked, the actor has failed."""
        asker = envelope.reply_to
        self._failed_count += 1
        if asker is not None:  # first of all: whatever comes behind it may take its time, or fail
            self._done_with(envelope)
            if envelope not in self._stash:
                envelope.reply_to = (
                    None  # frames of the error's traceback have the envelope: it would be a circle
                )
            asker.offer_exception(error)
        if not self._killed:
            if self._stops_all and not isinstance(error, (Exception, asyncio.CancelledError)):
                yield from self._stop_all(error)
            elif asker is None:
                yield from self._fail(error, envelope)
            else:
                get_logger().info(f"Exception returned from {self} to caller:", exc_info=error)
        if asker is None:
            self._done_with(envelope)

    def _fail(self, error: BaseException, envelope: Envelope) -> Calls:
        """It has failed at what it was told: its supervisor decides what comes next."""
        bounded_traceback(error.__traceback__)
        self._begin_failure(error)
        try:
            yield partial(self.actor.on_failure, type(error), error, error.__traceback__)
        except BaseException as second:  # noqa: BLE001 - as above
            get_logger().error(f"Unhandled exception in {self}:", exc_info=second)
        self._end_failure(error, envelope)

    def _done_with(self, envelope: Envelope) -> None:
        self._handled += 1
        self.handling = None
        if envelope is self._set_aside:
            self._set_aside = None

    def _stop_all(self, error: BaseException) -> Calls:
        """What pykka does on SystemExit and the like; but it waits for nobody, so it cannot hang."""
        get_logger().debug(f"{shown(error, repr)} in {self}. Stopping all actors.")
        yield from self._stop_now()
        ActorRegistry.stop_all(block=False)

    def _stop_now(self) -> Calls:
        self._retire()
        yield from self._end_instance()

    def _halt_now(self) -> Calls:
        yield from self._end_instance()
        self._suspended = True
        self._is_open = False
        self._halted = None

    def _end_instance(self) -> Calls:
        self._cancel_timers()
        if self._children:
            yield self._stop_children
        try:
            if self._traits.stops:
                yield self.actor.on_stop
        except BaseException as error:  # noqa: BLE001 - as above
            if not self._killed:
                get_logger().error(f"Unhandled exception in {self}:", exc_info=error)

    def _begin_failure(self, error: BaseException) -> None:
        """From here on no message is handled, until ``on_failure`` has run and the supervisor has decided."""
        with _seldom:
            is_wanted = self._on_failed is not None and not self._stops  # else it was to end anyhow
            if is_wanted:
                self._suspended = True
            halted, self._halted = self._halted, None
        if is_wanted:
            self._is_open = False
        else:
            get_logger().error(f"Unhandled exception in {self}:", exc_info=error)
            self._retire()
        if halted is not None:
            halted.offer(None)  # which also withdraws the signal, if that still waits

    def _end_failure(
        self, error: BaseException, message: Envelope | None = None, *, while_starting: bool = False
    ) -> None:
        if self._on_failed is not None:
            self._on_failed(Failure(error, while_starting, message))

    def _retire(self) -> None:
        if self._host is None:  # else pykka's registry has never heard of it
            ActorRegistry.unregister(self.actor.actor_ref)
            get_logger().debug(f"Stopped {self}")
        self._is_open = False
        self._stopped.set()

    # --- what others see of it ---

    def late(self, reply: Reply, message: str, seconds: float) -> AskTimeout:
        """The error for whoever has waited ``seconds`` for the reply to a ``message`` of this class."""
        place, doing = self._inbox.place(reply), self.doing()
        if place is not None:
            doing = f"It was at place {place} of {len(self._inbox)} in the mailbox. {doing}"
        handling = self.handling
        started = handling is not None and handling.reply_to is reply
        return AskTimeout(str(self), message, seconds, started=started, doing=doing)

    def call_later(self, seconds: float, callback: Callable[[], object]) -> LaterCall:
        """Call ``callback`` on its event loop in ``seconds``; from any thread."""
        return self._dispatcher.call_later(seconds, callback)

    def statistics(self) -> ActorStatistics:
        """What it is at, and what it has done."""
        inbox = self._inbox
        return ActorStatistics(
            actor=str(self),
            state=self._state(),
            waiting=len(inbox),
            peak=max(inbox.peak, len(inbox)),
            oldest=inbox.oldest(),
            stashed=len(self._stash),
            handled=self._handled,
            failed=self._failed_count,
            restarts=self.restarts,
            doing=self.doing(),
        )

    @staticmethod
    def messages(cells: "tuple[ActorCell, ...]") -> MessageStatistics:
        """The messages of several."""
        waiting = peak = handled = failed = 0
        ages: list[float] = []
        for cell in cells:
            inbox = cell._inbox
            waiting += len(inbox)
            peak = max(peak, inbox.peak)
            if (age := inbox.oldest()) is not None:
                ages.append(age)
            handled += cell._handled
            failed += cell._failed_count
        return MessageStatistics(waiting, peak, max(ages, default=None), handled, failed)

    def _state(self) -> State:
        if self._stopped.up:
            return "stopped"
        if self._suspended:
            return "failed"
        if not self._is_set_up or self._started is not None:
            return "starting"
        return "idle" if self.handling is None else "handling"

    def doing(self) -> str:
        """What it is handling, since when and at which line, for those who wait for it."""
        handling = self.handling
        if handling is None:
            return f"{self} is {self._state()}"
        seconds = monotonic() - handling.since
        message = type(handling.message).__name__
        return f"{self} has been handling {message} for {seconds:.3g} s{self._where()}"

    def _where(self) -> str:
        """The line of the actor's code, or of what it called, that is running or waiting."""
        frame: FrameType | None = None
        if self.thread is not None:
            frame = own_frame(sys._current_frames().get(self.thread))
        elif self._carried is not None:
            coroutine: Any = self._carried
            while isinstance(coroutine, CoroutineType):
                code = coroutine.cr_code
                if coroutine.cr_frame is not None and not code.co_filename.startswith(LIBRARIES):
                    frame = coroutine.cr_frame
                coroutine = coroutine.cr_await
        elif self._dispatcher.thread is not None:
            frame = own_frame(sys._current_frames().get(self._dispatcher.thread))
        return "" if frame is None else f", now at {line_of(frame)}"


_APART = frozenset((ActorStop, Halt, ProxyCall, ProxyGetAttr, ProxySetAttr, Terminated))
"""Classes of messages that are not, or not at once, for the actor's `on_receive`."""


def _withdrawn(envelope: Envelope) -> bool:
    """Whether its asker was told that no reply came in time, and that it will not be handled."""
    asker = envelope.reply_to
    return asker is not None and asker.done() and not isinstance(envelope.message, ActorStop)


class _Traits(NamedTuple):
    """What a class of actors has of its own, and where it runs."""

    is_async: bool  # its messages are for a coroutine function
    on_loop: bool  # they are, or it has no other methods than such
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
