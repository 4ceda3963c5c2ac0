"""Actors: pykka's programming model on a runtime without a thread for each.

`Actor` is a real ``pykka.Actor``: inbox, futures, refs, proxies and messages are pykka's. Its coroutine
functions run on the dispatcher's event loop; its plain functions run on worker threads and may block. One
message is handled at a time.
"""

import asyncio
import inspect
import threading
import uuid
import weakref
from collections.abc import Callable
from dataclasses import dataclass
from types import CoroutineType
from typing import Any, ClassVar, Generic, Literal, TypeVar, overload

from uno_actors._pykka import (
    ActorDeadError,
    ActorRegistry,
    ActorStop,
    Envelope,
    ProxyCall,
    PykkaActor,
    PykkaActorRef,
    get_attr_directly,
)
from uno_actors.dispatcher import Dispatcher, default_dispatcher
from uno_actors.future import Future
from uno_actors.log import get_logger
from uno_actors.mailbox import CAPACITY, Mailbox

A = TypeVar("A", bound="Actor")

BATCH = 64
"""Messages that one actor handles before the next actor has its turn."""


class Actor(PykkaActor):
    """An actor on the event loop and worker threads; subclass it as you would ``pykka.ThreadingActor``.

    ``on_start``, ``on_receive``, ``on_stop`` and methods called through a proxy may each be ``async def`` or
    ``def``. `ActorSystem.spawn` starts it in a system; pykka's own ``start()`` starts it on a dispatcher of
    the process.
    """

    mailbox_capacity: ClassVar[int] = CAPACITY

    def __init__(self, *_args: Any, **_kwargs: Any) -> None:
        self.actor_urn = uuid.uuid4().urn
        self.actor_inbox = Mailbox(self.mailbox_capacity)
        self.actor_stopped = threading.Event()
        self._actor_ref = PykkaActorRef(self)

    @staticmethod
    def _create_actor_inbox() -> Mailbox:
        return Mailbox()

    @staticmethod
    def _create_future() -> Future[Any]:
        return Future()

    def _start_actor_loop(self) -> None:
        ActorProcess(self, default_dispatcher()).start()


class ActorRef(PykkaActorRef[A], Generic[A]):
    """A reference to an actor in a system: ``ask`` returns a future unless told to block."""

    @overload  # type: ignore[override]  # the default of `block` is the one difference to pykka's
    def ask(self, message: Any, *, block: Literal[False] = False, timeout: float | None = None) -> Future[Any]: ...
    @overload
    def ask(self, message: Any, *, block: Literal[True], timeout: float | None = None) -> Any: ...

    def ask(self, message: Any, *, block: bool = False, timeout: float | None = None) -> Future[Any] | Any:
        """Send ``message`` and return the future reply, or with ``block=True`` the reply itself.

        Args:
            message: Anything.
            block: Wait for the reply on this thread; an error on the event loop's.
            timeout: Seconds to wait when blocking.

        Raises:
            pykka.ActorDeadError: In the reply: the actor has stopped, or stops before it handles the message.
            MailboxFull: In the reply.
        """
        return super().ask(message, block=block, timeout=timeout)


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
    """

    def __init__(
        self,
        actor: Actor,
        dispatcher: Dispatcher,
        *,
        factory: Callable[[], Actor] | None = None,
        on_failed: "Callable[[Failure], None] | None" = None,
        started: Future[Any] | None = None,
    ) -> None:
        self.actor = actor
        self.restarts = 0
        self._dispatcher = dispatcher
        self._factory = factory
        self._on_failed = on_failed
        self._started = started
        self._is_set_up = False
        self._suspended = False  # failed, and waiting for its supervisor
        self._scheduled = False
        self._task: asyncio.Task[None] | None = None
        self._lock = threading.Lock()
        self._runs_on_loop = _runs_on_loop(type(actor))
        self._inbox: Mailbox = actor.actor_inbox
        self._inbox.owner = str(actor)
        self._log = get_logger(actor=type(actor).__name__, urn=actor.actor_urn)

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
        self._schedule()

    def stop(self) -> Future[None]:
        """Have the actor stop after the messages it has; the future is set when ``on_stop`` has run."""
        stopped: Future[None] = Future()
        if self._suspended or self.actor.actor_stopped.is_set():
            self._retire()
            self._inbox.close()
            stopped.set(None)
        else:
            self._inbox.put(Envelope(ActorStop(), reply_to=stopped))
        return stopped

    def kill(self) -> None:
        """Abandon an actor that does not stop: its coroutine is cancelled, a worker thread is left to itself."""
        self._retire()
        self._inbox.close()
        if self._task is not None:
            self._task.cancel()

    # --- scheduling: at most one execution of an actor at any time ---

    def _schedule(self) -> None:
        with self._lock:
            if self._scheduled or self._suspended:
                return
            self._scheduled = True
        self._run()

    def _run(self) -> None:
        if self._runs_on_loop:
            self._dispatcher.post(self._run_on_loop)
        else:
            self._dispatcher.submit(self._run_on_worker)

    def _batch_done(self) -> None:
        with self._lock:
            if self._suspended or self._inbox.empty():
                self._scheduled = False
                return
        self._run()

    # --- plain functions: a batch on a worker thread ---

    def _run_on_worker(self) -> None:
        if not self._is_set_up:
            self._is_set_up = True
            try:
                self._finish(self.actor.on_start())
            except BaseException as error:  # noqa: BLE001 - one actor's SystemExit is that actor's failure
                self._failed_to_start(error)
            else:
                self._has_started()
        for _ in range(BATCH):
            if self._suspended or self.actor.actor_stopped.is_set() or (envelope := self._inbox.take()) is None:
                break
            try:
                response = self._finish(self._receive(envelope.message))
            except BaseException as error:  # noqa: BLE001 - as above
                if self._answered(envelope, error):
                    continue
                self._begin_failure(error)
                try:
                    self._finish(self.actor.on_failure(type(error), error, error.__traceback__))
                except BaseException as second:  # noqa: BLE001 - as above
                    self._log.error("on_failure failed", exc_info=second)
                self._end_failure(error)
            else:
                if envelope.reply_to is not None:
                    envelope.reply_to.set(response)
        self._end_of_batch()

    def _receive(self, message: Any) -> Any:
        if isinstance(message, ActorStop):
            self._retire()
            try:
                self._finish(self.actor.on_stop())
            except BaseException as error:  # noqa: BLE001 - as above
                self._log.error("on_stop failed", exc_info=error)
            return None
        return self.actor._handle_receive(message)

    def _finish(self, result: Any) -> Any:
        """The result of a coroutine function that was called on a worker comes from the loop."""
        return self._dispatcher.run_coroutine(result) if type(result) is CoroutineType else result

    # --- coroutine functions: a batch in a task on the loop ---

    def _run_on_loop(self) -> None:
        self._task = self._dispatcher.loop.create_task(self._batch_on_loop(), name=str(self.actor))

    async def _batch_on_loop(self) -> None:
        if not self._is_set_up:
            self._is_set_up = True
            try:
                await self._call(self.actor.on_start)
            except BaseException as error:  # noqa: BLE001 - as above
                self._failed_to_start(error)
            else:
                self._has_started()
        for _ in range(BATCH):
            if self._suspended or self.actor.actor_stopped.is_set() or (envelope := self._inbox.take()) is None:
                break
            try:
                response = await self._receive_on_loop(envelope.message)
            except BaseException as error:  # noqa: BLE001 - as above
                if self._answered(envelope, error):
                    continue
                self._begin_failure(error)
                try:
                    await self._call(self.actor.on_failure, type(error), error, error.__traceback__)
                except BaseException as second:  # noqa: BLE001 - as above
                    self._log.error("on_failure failed", exc_info=second)
                self._end_failure(error)
            else:
                if envelope.reply_to is not None:
                    envelope.reply_to.set(response)
        self._end_of_batch()

    async def _receive_on_loop(self, message: Any) -> Any:
        if isinstance(message, ActorStop):
            self._retire()
            try:
                await self._call(self.actor.on_stop)
            except BaseException as error:  # noqa: BLE001 - as above
                self._log.error("on_stop failed", exc_info=error)
            return None
        if isinstance(message, ProxyCall):
            callee = get_attr_directly(self.actor, message.attr_path)
            return await self._call(callee, *message.args, **message.kwargs)
        if type(message).__name__.startswith("Proxy"):
            return self.actor._handle_receive(message)
        return await self._call(self.actor.on_receive, message)

    async def _call(self, function: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        if inspect.iscoroutinefunction(function):
            return await function(*args, **kwargs)
        return await self._dispatcher.on_worker(lambda: function(*args, **kwargs))

    # --- common to both ---

    def _has_started(self) -> None:
        started, self._started = self._started, None
        if started is not None:
            started.set(self.actor.actor_ref)

    def _failed_to_start(self, error: BaseException) -> None:
        started, self._started = self._started, None
        if started is not None:
            self._retire()
            started.set_exception(error)
        else:
            self._begin_failure(error)
            self._end_failure(error, while_starting=True)

    def _answered(self, envelope: Envelope[Any], error: BaseException) -> bool:
        """An asker gets the error and the actor goes on; if nobody asked, the actor has failed."""
        if envelope.reply_to is None:
            return False
        self._log.info("exception returned to caller", error=repr(error))
        envelope.reply_to.set_exception((type(error), error, error.__traceback__))
        return True

    def _begin_failure(self, error: BaseException) -> None:
        """From here on no message is handled, until ``on_failure`` has run and the supervisor has decided."""
        if self._on_failed is None:
            self._log.error("unhandled exception, the actor stops", exc_info=error)
            self._retire()
        else:
            self._suspended = True

    def _end_failure(self, error: BaseException, *, while_starting: bool = False) -> None:
        if self._on_failed is not None:
            self._on_failed(Failure(error, while_starting=while_starting))

    def _retire(self) -> None:
        ActorRegistry.unregister(self.actor.actor_ref)
        self.actor.actor_stopped.set()

    def _end_of_batch(self) -> None:
        if self.actor.actor_stopped.is_set():
            self._inbox.close()
        self._batch_done()


def _runs_on_loop(actor_class: type[Actor]) -> bool:
    """An actor whose messages are for a coroutine function, or that has only such methods, runs on the loop."""
    if actor_class.on_receive is not PykkaActor.on_receive:
        return inspect.iscoroutinefunction(actor_class.on_receive)
    return any(inspect.iscoroutinefunction(member) for name, member in inspect.getmembers_static(actor_class))


__all__ = ["Actor", "ActorDeadError", "ActorProcess", "ActorRef"]
