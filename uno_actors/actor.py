"""Actors: pykka's programming model on a runtime without a thread for each.

`Actor` is a real ``pykka.Actor``: inbox, futures, refs, proxies and messages are pykka's. Its coroutine
functions run on the dispatcher's event loop; its plain functions run on worker threads and may block. One
message is handled at a time.
"""

import asyncio
import contextlib
import inspect
import sys
import sysconfig
import threading
import time
import uuid
import weakref
from collections.abc import Callable, Generator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from types import CoroutineType, FrameType, TracebackType
from typing import TYPE_CHECKING, Any, ClassVar, Generic, Literal, Protocol, Self, TypeVar, cast, overload

from uno_actors._pykka import (
    ActorDeadError,
    ActorRegistry,
    ActorStop,
    Envelope,
    ProxyCall,
    ProxyGetAttr,
    ProxySetAttr,
    PykkaActor,
    PykkaActorRef,
    get_attr_directly,
)
from uno_actors.asks import Handling, current_handling, time_left
from uno_actors.clock import Clock, SystemClock
from uno_actors.dispatcher import Dispatcher, default_dispatcher
from uno_actors.errors import AskTimeout, MailboxFull
from uno_actors.future import Future
from uno_actors.log import get_logger
from uno_actors.mailbox import Mailbox, MailboxPolicy
from uno_actors.timers import Timers

A = TypeVar("A", bound="Actor")

BATCH = 64
"""Messages that one actor handles before the next actor has its turn."""

_LIBRARIES = (sysconfig.get_path("stdlib"), str(Path(__file__).parent))
"""Where the lines are that nobody wants to hear of when an actor stands still."""


if TYPE_CHECKING:
    _PykkaActor: Any  # pykka's hooks return None; ours may be coroutine functions, which its types exclude
else:
    _PykkaActor = PykkaActor


class Actor(_PykkaActor):  # type: ignore[misc]  # see above
    """An actor on the event loop and worker threads; subclass it as you would ``pykka.ThreadingActor``.

    ``on_start``, ``on_receive``, ``on_stop`` and methods called through a proxy may each be ``async def`` or
    ``def``. `ActorSystem.spawn` starts it in a system; pykka's own ``start()`` starts it on a dispatcher of
    the process.
    """

    mailbox: ClassVar[MailboxPolicy] = MailboxPolicy()
    """How much its mailbox holds, what it does when it is full, and in which order it is emptied."""

    actor_urn: str
    actor_inbox: Mailbox
    actor_stopped: threading.Event
    _actor_ref: PykkaActorRef[Any]

    if TYPE_CHECKING:  # pykka's own, as its types would have them

        @classmethod
        def start(cls, *args: Any, **kwargs: Any) -> PykkaActorRef[Self]:
            """Start it on a dispatcher of the process, outside of any system."""

        @property
        def actor_ref(self) -> PykkaActorRef[Self]:
            """Its reference."""

        def stop(self) -> None:
            """Stop it after the messages that wait."""

    def __init__(self, *_args: Any, **_kwargs: Any) -> None:
        self.actor_urn = uuid.uuid4().urn
        self.actor_inbox = Mailbox(self.mailbox)
        self.actor_stopped = threading.Event()
        self._actor_ref = PykkaActorRef(self)

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
        """Run after a message that nobody waits for has failed, before the actor stops or is restarted."""

    def on_receive(self, message: Any) -> Any:
        """Handle a message and return the reply; the default logs that it was unexpected."""
        return super().on_receive(message)

    def spawn(self, actor_class: "type[A]", *args: Any, **kwargs: Any) -> "Future[ActorRef[A]]":
        """Start a child, which stops when this actor does; the future has its reference once it has started.

        Args:
            actor_class: Its class.
            *args: For its constructor.
            **kwargs: For its constructor.

        Raises:
            RuntimeError: This actor does not run in a system.
        """
        return self._process().spawn(actor_class(*args, **kwargs))

    def watch(self, ref: PykkaActorRef[Any]) -> None:
        """Be told `Terminated` when the actor behind ``ref`` has ended; at once if it has.

        Raises:
            TypeError: It is an actor of another runtime.
        """
        process = getattr(ref.actor_inbox, "process", None)
        if not isinstance(process, ActorProcess):
            raise TypeError(f"{ref} is no actor of this runtime, so nobody would tell of its end")
        process.add_watcher(self.actor_ref)

    @property
    def timers(self) -> Timers:
        """Messages that it sends to itself later."""
        return self._process().timers

    def stash(self) -> None:
        """Set the message being handled aside until `unstash_all`; whoever asked goes on waiting.

        Raises:
            MailboxFull: As many as the mailbox holds are set aside already.
            RuntimeError: No message is being handled.
        """
        self._process().stash()

    def unstash_all(self) -> None:
        """Put everything that was set aside in front of the mailbox again, in its order."""
        self._process().unstash_all()

    def _process(self) -> "ActorProcess":
        if self.actor_inbox.process is None:
            raise RuntimeError(f"{self} has not been started")
        return cast("ActorProcess", self.actor_inbox.process)

    @staticmethod
    def _create_actor_inbox() -> Mailbox:
        return Mailbox()

    @staticmethod
    def _create_future() -> Future[Any]:
        return Future()

    def _start_actor_loop(self) -> None:
        ActorProcess(self, default_dispatcher(), stops_all=True).start()


class ActorRef(PykkaActorRef[A], Generic[A]):
    """A reference to an actor in a system: ``ask`` returns a future, which ends within the system's time.

    Args:
        actor: The actor.
        dispatcher: Its dispatcher.
        ask_timeout: Seconds until an ask without a reply ends.
    """

    def __init__(self, actor: A, dispatcher: Dispatcher, ask_timeout: float) -> None:
        super().__init__(actor)
        self._dispatcher = dispatcher
        self._ask_timeout = ask_timeout

    @overload  # type: ignore[override]  # the default of `block` is the one difference to pykka's
    def ask(
        self, message: Any, *, block: Literal[False] = False, timeout: float | None = None
    ) -> Future[Any]: ...
    @overload
    def ask(self, message: Any, *, block: Literal[True], timeout: float | None = None) -> Any: ...

    def ask(self, message: Any, *, block: bool = False, timeout: float | None = None) -> Future[Any] | Any:
        """Send ``message`` and return the future reply, or with ``block=True`` the reply itself.

        Args:
            message: Anything.
            block: Wait for the reply on this thread; an error on the event loop's.
            timeout: Seconds; default is that of the system. An ask made while an actor handles another has at
                most the time that is left for that one.

        Raises:
            DeadlockError: Where the reply is awaited or got: it can never come.
            pykka.ActorDeadError: In the reply: the actor has stopped, or stops before it handles the message.
            AskTimeout, MailboxFull: In the reply; and whatever the actor raises.
        """
        future: Future[Any] = Future()
        envelope = Envelope(message, reply_to=future)
        if self.is_alive():
            seconds = time_left(self._ask_timeout if timeout is None else timeout)
            future.deadline = time.monotonic() + seconds
            self.actor_inbox.put(envelope)
            if not future.done():
                self._end_after(seconds, envelope, future)
        else:
            future.set_exception(ActorDeadError(f"{self} not found"))
        return future.get() if block else future

    def _end_after(self, seconds: float, envelope: Envelope[Any], future: Future[Any]) -> None:
        def expire() -> None:
            if future.done():
                return
            place = self.actor_inbox.place(envelope)
            doing = cast("ActorProcess", self.actor_inbox.process).doing()
            if place is not None:
                doing = f"It was at place {place} of {len(self.actor_inbox)} in the mailbox. {doing}"
            kind = type(envelope.message).__name__
            future.offer_exception(AskTimeout(str(self), kind, seconds, started=place is None, doing=doing))

        def arm() -> None:
            timer = self._dispatcher.loop.call_later(seconds, expire)
            future.add_done_callback(lambda _: self._dispatcher.call(timer.cancel))

        self._dispatcher.call(arm)

    if TYPE_CHECKING:
        actor_inbox: Mailbox


@dataclass(frozen=True, slots=True)
class Terminated:
    """Told to those who `Actor.watch`: the actor behind ``ref`` has ended."""

    ref: PykkaActorRef[Any]


class Home(Protocol):
    """The system in which an actor lives."""

    @property
    def clock(self) -> Clock:
        """Whose time counts."""

    def spawn(self, actor: A, parent: "ActorProcess | None" = None) -> "Future[ActorRef[A]]":
        """Start another actor."""

    def ended(self, process: "ActorProcess") -> None:
        """An actor has ended, and may be forgotten."""


@dataclass(frozen=True, slots=True)
class Failure:
    """What a supervisor is told of a failed actor."""

    error: BaseException
    while_starting: bool


class ActorProcess:
    """The execution of one actor: takes its messages one at a time, in batches, wherever its functions run.

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
    """

    def __init__(
        self,
        actor: Actor,
        dispatcher: Dispatcher,
        *,
        factory: Callable[[], Actor] | None = None,
        on_failed: "Callable[[Failure], None] | None" = None,
        started: Future[Any] | None = None,
        home: Home | None = None,
        stops_all: bool = False,
    ) -> None:
        self.actor = actor
        self.restarts = 0
        self.name: str | None = None  # under which its home finds it
        self._dispatcher = dispatcher
        self._factory = factory
        self._on_failed = on_failed
        self._started = started
        self._stops_all = stops_all
        self._home = home
        self._children: list[ActorProcess] = []
        self._watchers: list[PykkaActorRef[Any]] = []
        self._stops: list[Future[None]] = []  # who waits for its end
        self._has_ended = False
        self.timers = Timers(SystemClock() if home is None else home.clock, dispatcher, self._tell_itself)
        self._is_set_up = False
        self._suspended = False  # failed, and waiting for its supervisor
        self._scheduled = False
        self._killed = False
        self._task: asyncio.Task[None] | None = None
        self._current: Envelope[Any] | None = None  # what is being handled
        self._stash: list[Envelope[Any]] = []
        self._lock = threading.Lock()
        self._runs_on_loop = _runs_on_loop(type(actor))
        self._inbox = actor.actor_inbox
        self._inbox.owner = str(actor)
        self._inbox.process = self
        self.handling: Handling | None = None
        self._thread: int | None = None  # the worker thread that runs a function of the actor now
        self._log = get_logger()

    def start(self) -> None:
        """Begin: ``on_start`` first, then the messages."""
        self._inbox.wake = self._schedule
        self._schedule()

    def restart(self) -> None:
        """Replace a failed actor by a new instance behind the same mailbox and reference, and go on.

        Raises:
            RuntimeError: There is no factory.
        """
        if self._factory is None:
            raise RuntimeError(f"{self.actor} has no factory to be restarted from")
        old, new = self.actor, self._factory()
        new.actor_urn, new.actor_inbox, new.actor_stopped = old.actor_urn, old.actor_inbox, old.actor_stopped
        new._actor_ref = old._actor_ref
        new._actor_ref._actor_weakref = weakref.ref(new)
        self.actor = new
        self.restarts += 1
        self._is_set_up = False
        self._suspended = False
        self.timers.cancel_all()
        self.unstash_all()  # the new instance knows nothing of them
        self._schedule()

    def stop(self) -> Future[None]:
        """Have the actor stop after the messages it has; the future is set when ``on_stop`` has run."""
        stopped: Future[None] = Future()
        if self._suspended:
            self._retire()
            self._inbox.close()
            self._ended()
        elif not self.actor.actor_stopped.is_set():
            self._inbox.put(Envelope(ActorStop()))
        with self._lock:
            if not self._has_ended:
                self._stops.append(stopped)
                return stopped
        stopped.set(None)
        return stopped

    def kill(self) -> None:
        """Abandon an actor that does not stop: its coroutine is cancelled, a worker thread is left to itself."""
        self._killed = True
        self._retire()
        self.unstash_all()
        self._inbox.close()
        if self._started is not None:
            self._started.offer_exception(ActorDeadError(f"{self.actor} was abandoned while it started"))
        self._ended()
        if self._current is not None and (asker := _asker(self._current)) is not None:
            asker.offer_exception(ActorDeadError(f"{self.actor} was abandoned while it handled the message"))
        if self._task is not None:
            self._task.cancel()

    def stash(self) -> None:
        """See `Actor.stash`."""
        envelope = self._current
        if envelope is None:
            raise RuntimeError(f"{self.actor} handles no message that could be set aside")
        if len(self._stash) >= self._inbox.policy.capacity:
            raise MailboxFull(f"{self.actor} (its stash)", self._inbox.policy.capacity)
        if not self._is_stashed(envelope):
            self._stash.append(envelope)

    def unstash_all(self) -> None:
        """See `Actor.unstash_all`."""
        stash, self._stash = self._stash, []
        if stash:
            self._inbox.put_back(stash)

    def _is_stashed(self, envelope: Envelope[Any]) -> bool:
        return any(stashed is envelope for stashed in self._stash)

    # --- its family ---

    def spawn(self, actor: A) -> "Future[ActorRef[A]]":
        """See `Actor.spawn`."""
        if self._home is None:
            raise RuntimeError(f"{self.actor} does not run in a system; start others with ActorSystem.spawn")
        return self._home.spawn(actor, self)

    def add_child(self, child: "ActorProcess") -> None:
        """Have ``child`` stop before this actor does."""
        self._children = [other for other in self._children if not other._has_ended]
        self._children.append(child)

    def add_watcher(self, ref: PykkaActorRef[Any]) -> None:
        """See `Actor.watch`."""
        with self._lock:
            if not self._has_ended:
                self._watchers.append(ref)
                return
        self._tell_end(ref)

    def _ended(self) -> None:
        """Tell whoever should know, once."""
        with self._lock:
            if self._has_ended:
                return
            self._has_ended = True
            watchers, self._watchers = self._watchers, []
            stops, self._stops = self._stops, []
        self.timers.cancel_all()
        for child in reversed(self._children):
            child.stop()  # those of an actor that ended by itself have been stopped already
        for watcher in watchers:
            self._tell_end(watcher)
        for stopped in stops:
            stopped.offer(None)
        if self._home is not None:
            self._home.ended(self)

    def _tell_end(self, watcher: PykkaActorRef[Any]) -> None:
        with contextlib.suppress(ActorDeadError):
            watcher.tell(Terminated(self.actor.actor_ref))

    def _tell_itself(self, message: Any) -> None:
        with contextlib.suppress(ActorDeadError):
            self.actor.actor_ref.tell(message)

    async def _stop_children(self) -> None:
        """The last started first, each after the messages it has."""
        for child in reversed(self._children):
            await child.stop()

    # --- scheduling: at most one execution of an actor at any time ---

    def _schedule(self) -> None:
        with self._lock:
            if self._scheduled or self._suspended:
                return
            self._scheduled = True
        self._run()

    def _run(self) -> None:
        if self._runs_on_loop:
            self._dispatcher.post(self._start_task)
        else:
            self._dispatcher.submit(self._run_on_worker)

    def _batch_done(self) -> None:
        with self._lock:
            if self._suspended or self._killed or (self._is_set_up and self._inbox.empty()):
                self._scheduled = False
                return
        self._run()

    # --- the life of an actor, one batch of it at a time ---

    def _batch(self) -> Generator[Callable[[], Any], Any, None]:
        """Yields each function of the actor that is to be called, and is sent its result or its error.

        Written once for both places where an actor may run; see `_run_on_worker` and `_run_on_loop`.
        """
        if not self._is_set_up and not self._killed:
            yield from self._set_up()
        for _ in range(BATCH):
            if self._suspended or not self._is_set_up or self.actor.actor_stopped.is_set():
                break
            envelope = self._inbox.take()
            if envelope is None:
                break
            asker = _asker(envelope)
            if asker is not None and asker.done() and not isinstance(envelope.message, ActorStop):
                continue  # its asker was told that no reply came in time, and that it will not be handled
            self._current = envelope
            self._begin(envelope.message, asker)
            try:
                response = yield from self._receive(envelope.message)
            except BaseException as error:  # noqa: BLE001 - one actor's SystemExit is that actor's failure
                yield from self._failed(error, asker)
            else:
                if asker is not None and not self._is_stashed(envelope):
                    asker.offer(response)
            self._current = None
            self._finish()
        if self.actor.actor_stopped.is_set():
            self.unstash_all()  # they are answered with the others
            self._inbox.close()
            self._ended()

    def _begin(self, message: Any, asker: Future[Any] | None) -> None:
        """Let asks made from now on know what they are made for."""
        task = self._task if self._runs_on_loop else None
        self.handling = Handling(str(self.actor), message, None if asker is None else asker.deadline, task)
        current_handling.set(self.handling)

    def _finish(self) -> None:
        handling, self.handling = self.handling, None
        if handling is not None:
            handling.over = True
        current_handling.set(None)

    def doing(self) -> str:
        """What it is handling, since when and at which line, for those who wait for it."""
        handling = self.handling
        if handling is None:
            return f"{self.actor} is idle"
        seconds = time.monotonic() - handling.since
        return f"{self.actor} has been handling {handling.message} for {seconds:.3g} s{self._where()}"

    def _where(self) -> str:
        """The line of the actor's code, or of what it called, that is running or waiting."""
        frame: FrameType | None = None
        if self._thread is not None:
            frame = sys._current_frames().get(self._thread)
            while frame is not None and frame.f_code.co_filename.startswith(_LIBRARIES):
                frame = frame.f_back
        elif self._task is not None:
            coroutine: Any = self._task.get_coro()
            while isinstance(coroutine, CoroutineType):
                if coroutine.cr_frame is not None and not coroutine.cr_code.co_filename.startswith(
                    _LIBRARIES
                ):
                    frame = coroutine.cr_frame
                coroutine = coroutine.cr_await
        if frame is None:
            return ""
        return f", now at {frame.f_code.co_filename}:{frame.f_lineno} in {frame.f_code.co_name}"

    def _set_up(self) -> Generator[Callable[[], Any], Any, None]:
        self._is_set_up = True
        started = self._started
        try:
            if type(self.actor).on_start is not Actor.on_start:
                yield self.actor.on_start
        except BaseException as error:  # noqa: BLE001 - as above
            if started is None:
                self._begin_failure(error)
                self._end_failure(error, while_starting=True)
            else:
                self._retire()
                started.offer_exception(error)
        else:
            if started is not None:
                started.offer(self.actor.actor_ref)
        self._started = None

    def _receive(self, message: Any) -> Generator[Callable[[], Any], Any, Any]:
        if isinstance(message, ActorStop):
            yield from self._end()
            return None
        if isinstance(message, ProxyCall):
            return (
                yield partial(
                    get_attr_directly(self.actor, message.attr_path), *message.args, **message.kwargs
                )
            )
        if isinstance(message, (ProxyGetAttr, ProxySetAttr)):
            return self.actor._handle_receive(message)
        return (yield partial(self.actor.on_receive, message))

    def _failed(
        self, error: BaseException, asker: Future[Any] | None
    ) -> Generator[Callable[[], Any], Any, None]:
        """An asker gets the error and the actor goes on; if nobody asked, the actor has failed."""
        if self._killed:
            return
        if self._stops_all and not isinstance(error, Exception):
            yield from self._stop_all(error)
        elif asker is None:
            self._begin_failure(error)
            try:
                yield partial(self.actor.on_failure, type(error), error, error.__traceback__)
            except BaseException as second:  # noqa: BLE001 - as above
                self._log.error(f"Unhandled exception in {self.actor}:", exc_info=second)
            self._end_failure(error)
        if asker is not None:
            self._log.info(f"Exception returned from {self.actor} to caller:", exc_info=error)
            asker.offer_exception(error)

    def _stop_all(self, error: BaseException) -> Generator[Callable[[], Any], Any, None]:
        """What pykka does on SystemExit and the like; but it waits for nobody, so it cannot hang."""
        self._log.debug(f"{error!r} in {self.actor}. Stopping all actors.")
        yield from self._end()
        ActorRegistry.stop_all(block=False)

    def _end(self) -> Generator[Callable[[], Any], Any, None]:
        self._retire()
        self._log.debug(f"Stopped {self.actor}")
        self.timers.cancel_all()
        if self._children:
            yield self._stop_children
        try:
            if type(self.actor).on_stop is not Actor.on_stop:
                yield self.actor.on_stop
        except BaseException as error:  # noqa: BLE001 - as above
            if not self._killed:
                self._log.error(f"Unhandled exception in {self.actor}:", exc_info=error)

    def _run_on_worker(self) -> None:
        """A batch on a worker thread: plain functions are called, coroutine functions run on the loop."""
        batch = self._batch()
        with contextlib.suppress(StopIteration):
            call = next(batch)
            while True:
                try:
                    result = self._call_here(call)
                    if type(result) is CoroutineType:
                        result = self._dispatcher.run_coroutine(result)
                except BaseException as error:  # noqa: BLE001 - as above
                    call = batch.throw(error)
                else:
                    call = batch.send(result)
        self._batch_done()

    async def _run_on_loop(self) -> None:
        """A batch in a task on the loop: coroutine functions are awaited, plain ones run on a worker thread."""
        batch = self._batch()
        with contextlib.suppress(StopIteration):
            call = next(batch)
            while True:
                try:
                    if inspect.iscoroutinefunction(call):
                        result = await call()
                    else:
                        result = await self._dispatcher.on_worker(self._call_here, call)
                        if type(result) is CoroutineType:
                            result = await result
                except BaseException as error:  # noqa: BLE001 - as above
                    call = batch.throw(error)
                else:
                    call = batch.send(result)
        self._batch_done()

    def _call_here(self, call: Callable[[], Any]) -> Any:
        self._thread = threading.get_ident()
        try:
            return call()
        finally:
            self._thread = None

    def _start_task(self) -> None:
        self._task = self._dispatcher.loop.create_task(self._run_on_loop(), name=str(self.actor))

    # --- its turns ---

    def _begin_failure(self, error: BaseException) -> None:
        """From here on no message is handled, until ``on_failure`` has run and the supervisor has decided."""
        if self._on_failed is None:
            self._log.error(f"Unhandled exception in {self.actor}:", exc_info=error)
            self._retire()
        else:
            self._suspended = True

    def _end_failure(self, error: BaseException, *, while_starting: bool = False) -> None:
        if self._on_failed is not None:
            self._on_failed(Failure(error, while_starting=while_starting))

    def _retire(self) -> None:
        if self._home is None:  # else pykka's registry has never heard of it
            ActorRegistry.unregister(self.actor.actor_ref)
        self.actor.actor_stopped.set()


def _asker(envelope: Envelope[Any]) -> Future[Any] | None:
    """The future of who waits for a reply; all that come to an `Actor` are of our class."""
    return cast("Future[Any] | None", envelope.reply_to)


def _runs_on_loop(actor_class: type[Actor]) -> bool:
    """An actor whose messages are for a coroutine function, or that has only such methods, runs on the loop."""
    if actor_class.on_receive is not Actor.on_receive:
        return inspect.iscoroutinefunction(actor_class.on_receive)
    return any(inspect.iscoroutinefunction(member) for name, member in inspect.getmembers_static(actor_class))


__all__ = ["Actor", "ActorDeadError", "ActorProcess", "ActorRef"]
