"""The turns of an actor: in each of them it handles the messages that wait, for one slice of time.

An actor whose messages are for a coroutine function has its turns on the event loop (`LoopTurns`); any other has them
on a worker thread (`WorkerTurns`). The two differ in how they run one message and one function of the actor; the
turn itself is the same.
"""

import asyncio
import contextlib
import contextvars
import inspect
import threading
from collections.abc import Callable, Coroutine
from functools import partial
from time import monotonic
from types import CoroutineType
from typing import Any, Protocol

from typing_extensions import override

from uno_actors.actors import steps
from uno_actors.actors.ask import Envelope, HandlingActor, being_handled
from uno_actors.actors.carrier import Waiting, go_on_in, resumed
from uno_actors.actors.dispatcher import Dispatcher
from uno_actors.actors.pykka import ActorStop, ProxyCall, ProxyGetAttr, ProxySetAttr
from uno_actors.actors.signals import Calls, Halt, Terminated
from uno_actors.actors.stash import Stash
from uno_actors.actors.steps import Lives
from uno_actors.actors.stop_flag import StopFlag
from uno_actors.actors.worker_pool import WorkerPool

SLICE_SECONDS = 0.0005
"""How long one actor handles messages before the next one has its turn."""

APART = frozenset((ActorStop, Halt, ProxyCall, ProxyGetAttr, ProxySetAttr, Terminated))
"""Classes of messages that are not, or not directly, for the actor's `on_receive`."""


class TurnTaker(HandlingActor, Lives, Protocol):
    """What turns need from the cell whose turns they are."""

    dispatcher: Dispatcher
    stopped: StopFlag
    is_open: bool
    handled: int
    _stash: Stash | None

    def stop_plainly(self, envelope: Envelope) -> bool:
        """Stop at this message if that calls none of the actor's functions; return whether it stopped."""

    def turn_ended(self, has_stopped: bool) -> None:
        """A turn has ended; ``has_stopped`` says whether the actor had stopped by then."""


class Turns:
    """Gives a cell its turns, one at a time.

    Attributes:
        task: The task in whose name the actor runs on the event loop now.
        thread: Ident of the worker thread that runs a function of the actor now.
        suspended: The coroutine of the actor that waits for something now.
    """

    __slots__ = ("_cell", "suspended", "task", "thread")

    def __init__(self, cell: TurnTaker) -> None:
        self._cell = cell
        self.task: asyncio.Task[None] | None = None
        self.thread: int | None = None
        self.suspended: Coroutine[Any, Any, Any] | None = None

    def schedule(self) -> None:
        """Have a turn soon; from any thread."""
        raise NotImplementedError

    def run_inline(self) -> None:
        """Have a turn now, inside the task that is about to wait for this actor, if that is possible."""

    def is_idle_here(self) -> bool:
        """Whether the caller is on the event loop and the turns are too, and none is under way."""
        return False

    def runs_here(self) -> bool:
        """Whether the caller is the handling itself: in its task, or on its worker thread."""
        if asyncio._get_running_loop() is None:
            return threading.get_ident() == self.thread
        return self.task is not None and asyncio.current_task() is self.task

    def close(self) -> None:
        """Release what the turns hold; none follows."""

    def _drive(self, calls: Calls) -> Waiting | None:
        """Call what ``calls`` yields; returns a coroutine that must wait, if there is one."""
        raise NotImplementedError

    def _handle(self, envelope: Envelope) -> Waiting | None:
        """Handle one message; returns a coroutine that must wait, if there is one."""
        raise NotImplementedError

    def _turn(self, task: "asyncio.Task[None] | None" = None) -> Waiting | None:
        """Handle messages until none waits, the slice is over, or the handling of one must wait.

        Args:
            task: In whose name the turn runs; ``None`` on a worker thread.
        """
        self.task = task
        cell = self._cell
        if not cell.is_set_up and not cell.was_killed:
            waiting = self._drive(steps.set_up(cell))
            if waiting is not None:
                return waiting
        queue, take = cell.inbox.open()
        handle, ends = self._handle, 0.0
        while cell.is_open and queue:
            envelope = take()
            if envelope is None:
                continue
            envelope.actor = cell
            envelope.since = now = monotonic()
            cell.handling = envelope  # before `_withdrawn`: an asker whose time ends later finds it begun
            if envelope.reply_to is not None and _withdrawn(envelope):
                cell.handling = None
                continue
            if (
                cell.was_killed
            ):  # by a thread that may have looked before the message was entered, see `ActorCell.kill`
                cell.handling = None
                cell.inbox.lose(envelope)
                break
            context = envelope.context
            if context is None:
                being_handled.set(envelope)
                waiting = handle(envelope)
            else:
                waiting = self._handle_in(context, envelope)
            if waiting is not None:
                return waiting
            if not ends:
                ends = now + SLICE_SECONDS
            elif now > ends:
                break
        return None

    def _handle_in(self, context: contextvars.Context, envelope: Envelope) -> Waiting | None:
        """As `_handle`, in the context of the message."""
        context.run(being_handled.set, envelope)
        waiting = context.run(self._handle, envelope)
        return None if waiting is None else go_on_in(context, waiting)

    def _call(self, function: Callable[[], Any]) -> Any:
        """Call a function of the actor on this worker thread."""
        self.thread = threading.get_ident()
        try:
            return function()
        finally:
            self.thread = None


class LoopTurns(Turns):
    """Turns on the event loop: coroutine functions run there, plain functions on a worker thread.

    Args:
        cell: Whose turns they are.
        is_async: Whether ``on_receive`` is a coroutine function.
    """

    __slots__ = ("_is_async", "_is_posted", "_is_running")

    def __init__(self, cell: TurnTaker, *, is_async: bool) -> None:
        super().__init__(cell)
        self._is_async = is_async
        self._is_posted = False  # a turn will come
        self._is_running = False

    @override
    def schedule(self) -> None:
        if not self._is_posted:
            self._is_posted = True
            self._cell.dispatcher.post(self._run_posted)

    def _run_posted(self) -> None:
        self._is_posted = False
        self._run()

    @override
    def run_inline(self) -> None:
        dispatcher = self._cell.dispatcher
        if not self._is_running and dispatcher.may_run_inline():  # what `_run` does, with a call less
            self._is_running = True
            dispatcher.run_turn(self._turn, self._turn_ended)

    @override
    def is_idle_here(self) -> bool:
        return not self._is_running and self._cell.dispatcher.is_current()

    def _run(self) -> None:
        if not self._is_running:
            self._is_running = True
            self._cell.dispatcher.run_turn(self._turn, self._turn_ended)

    def _turn_ended(self) -> None:
        self._is_running = False
        self.task = self.suspended = None
        cell = self._cell
        cell.turn_ended(cell.stopped.up)

    @override
    def _handle(self, envelope: Envelope) -> Waiting | None:
        cell = self._cell
        if not self._is_async or type(envelope.message) in APART:
            return None if cell.stop_plainly(envelope) else self._drive(steps.handle(cell, envelope))
        # What `steps.handle` does, in the fewer steps that most messages need.
        try:
            coroutine = cell.actor.on_receive(envelope.message)
            if type(coroutine) is not CoroutineType and not hasattr(coroutine, "send"):
                cell.succeeded(envelope, coroutine)  # a plain function has replaced that of the class
                return None
        except BaseException as error:  # noqa: BLE001 - one actor's SystemExit is that actor's failure
            return self._drive(cell.faults.failed_at(envelope, error))
        try:
            yielded = coroutine.send(None)
        except StopIteration as end:
            if envelope.reply_to is None and cell._stash is None:  # likewise
                cell.handled += 1
                cell.handling = None
            else:
                cell.succeeded(envelope, end.value)
            return None
        except BaseException as error:  # noqa: BLE001 - as above
            return self._drive(cell.faults.failed_at(envelope, error))
        waiting = self._begin(self._resume(coroutine, yielded, envelope))
        self.suspended = coroutine
        return waiting

    def _begin(self, coroutine: Coroutine[Any, Any, None]) -> Waiting | None:
        """Run one of our coroutines, which raise no errors, until it ends or must wait."""
        try:
            yielded = coroutine.send(None)
        except StopIteration:
            return None
        self.suspended = coroutine
        return coroutine, yielded

    async def _resume(self, coroutine: Coroutine[Any, Any, Any], yielded: Any, envelope: Envelope) -> None:
        try:
            response = await resumed(coroutine, yielded)
        except BaseException as error:  # noqa: BLE001 - as above
            await self._make(self._cell.faults.failed_at(envelope, error))
        else:
            self._cell.succeeded(envelope, response)

    @override
    def _drive(self, calls: Calls) -> Waiting | None:
        return self._begin(self._make(calls))

    async def _make(self, calls: Calls) -> None:
        """Coroutine functions are awaited, plain functions run on a worker thread."""
        with contextlib.suppress(StopIteration):
            call = next(calls)
            while True:
                try:
                    if inspect.iscoroutinefunction(call):
                        result = await call()
                    else:
                        on_worker = self._cell.dispatcher.on_worker
                        result = await on_worker(self._call, call, stays=self._was_not_killed)
                        if type(result) is CoroutineType:
                            result = await result
                except BaseException as error:  # noqa: BLE001 - as above
                    call = calls.throw(error)
                else:
                    call = calls.send(result)

    def _was_not_killed(self) -> bool:
        return not self._cell.was_killed


class WorkerTurns(Turns):
    """Turns on a worker thread: plain functions run there, coroutine functions on the event loop.

    Args:
        cell: Whose turns they are.
        own_pool: Default is the dispatcher's pool.
    """

    __slots__ = ("_lock", "_own_pool")

    def __init__(self, cell: TurnTaker, own_pool: WorkerPool | None) -> None:
        super().__init__(cell)
        self._own_pool = own_pool
        self._lock = threading.Lock()  # held by the worker thread whose turn it is

    @override
    def schedule(self) -> None:
        (self._own_pool or self._cell.dispatcher.workers).submit(self._run)

    @override
    def close(self) -> None:
        if self._own_pool is not None:
            self._own_pool.close()

    def _run(self) -> None:
        if self._lock.acquire(blocking=False):
            try:
                contextvars.Context().run(self._turn)
            finally:  # no turn raises; if one did, the actor must still get its next turn
                has_stopped = self._cell.stopped.up  # within the turn: the next one may stop it right now
                self._lock.release()
                self._cell.turn_ended(has_stopped)

    @override
    def _handle(self, envelope: Envelope) -> None:
        cell = self._cell
        if type(envelope.message) in APART:
            self._drive(steps.handle(cell, envelope))
            return
        # What `steps.handle` does, in the fewer steps that most messages need.
        try:
            response = self._call(partial(cell.actor.on_receive, envelope.message))
            if type(response) is CoroutineType:
                response = cell.dispatcher.run_coroutine(response)
        except BaseException as error:  # noqa: BLE001 - one actor's SystemExit is that actor's failure
            self._drive(cell.faults.failed_at(envelope, error))
        else:
            cell.succeeded(envelope, response)

    @override
    def _drive(self, calls: Calls) -> None:
        with contextlib.suppress(StopIteration):
            call = next(calls)
            while True:
                try:
                    result = self._call(call)
                    if type(result) is CoroutineType:
                        result = self._cell.dispatcher.run_coroutine(result)
                except BaseException as error:  # noqa: BLE001 - as above
                    call = calls.throw(error)
                else:
                    call = calls.send(result)


def _withdrawn(envelope: Envelope) -> bool:
    """Whether the ask has timed out and its asker knows that the message will not be handled."""
    asker = envelope.reply_to
    return asker is not None and asker.done() and not isinstance(envelope.message, ActorStop)
