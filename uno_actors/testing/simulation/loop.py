"""The event loop of one simulated process."""

import asyncio
import contextvars
import sys
from asyncio import events
from collections.abc import Callable
from functools import partial
from types import FrameType
from typing import Any

from typing_extensions import override

from uno_actors.actors.watchdog import line_of
from uno_actors.errors import InternalError, as_error
from uno_actors.tasks import begin as begin_task
from uno_actors.testing.simulation.core import Call, Core, Place
from uno_actors.testing.simulation.escapes import BY_METHOD, is_users
from uno_actors.testing.simulation.workers import SimulatedWorkers

CLOSES = 5
"""How often a coroutine of a dead process is closed that does not end by it."""


class SimulatedLoop(asyncio.BaseEventLoop, Place):
    """An asyncio loop whose steps a `Core` runs, together with those of the other processes of the run.

    Its tasks take their steps in an order that the seed picks; plain callbacks keep their order.

    Attributes:
        errors: What callbacks and tasks have raised that no one awaits.
        tasks: Tasks that were made and have not ended, in the order in which they were made.
    """

    def __init__(self, core: Core, name: str) -> None:
        Place.__init__(self, core, name)
        self.is_dead = True  # it does not run yet, as asyncio's constructor assumes
        asyncio.BaseEventLoop.__init__(self)
        self.is_dead = False
        self.errors: list[dict[str, Any]] = []
        self.tasks: dict[asyncio.Task[Any], None] = {}
        self.workers: SimulatedWorkers | None = None
        self._clock_resolution = 1e-9
        self.set_task_factory(_new_task)

    # --- as a place ---

    @override
    def enter(self) -> None:
        events._set_running_loop(self)
        # so that the ``finally`` of an abandoned asynchronous generator runs, as on asyncio's loops
        sys.set_asyncgen_hooks(self._asyncgen_firstiter_hook, self._asyncgen_finalizer_hook)  # type: ignore[attr-defined]

    def kill(self) -> None:
        """End it: no step of it runs any more, not even the ``finally`` of a coroutine."""
        self.is_dead = True
        self.callbacks.clear()

    # --- as a loop ---

    @override
    def time(self) -> float:
        return self.monotonic()

    @override
    def is_running(self) -> bool:
        return not self.is_closed()

    @override
    def is_closed(self) -> bool:
        return self.is_dead or super().is_closed()

    @override
    def call_soon(  # type: ignore[override]
        self, callback: Callable[..., object], *args: Any, context: contextvars.Context | None = None
    ) -> events.Handle:
        handle = events.Handle(callback, args, self, context)
        owner = getattr(callback, "__self__", None)
        if isinstance(owner, asyncio.Task):
            if owner not in self.tasks and not owner.done():
                self.tasks[owner] = None
            self.core.ready(self, handle, _name_of_task(owner), in_order=False)
        else:
            self.core.ready(self, handle, name_of(callback), in_order=True)
        return handle

    @override
    def call_soon_threadsafe(  # type: ignore[override]
        self, callback: Callable[..., object], *args: Any, context: contextvars.Context | None = None
    ) -> events.Handle:
        if self.is_closed() and not self.core.closed:
            raise RuntimeError("Event loop is closed")
        return self.call_soon(callback, *args, context=context)

    @override
    def call_at(  # type: ignore[override]
        self,
        when: float,
        callback: Callable[..., object],
        *args: Any,
        context: contextvars.Context | None = None,
    ) -> events.TimerHandle:
        timer = events.TimerHandle(when, callback, args, self, context)
        self.core.at(self.moment(when), self, timer, name_of(callback), in_order=True)
        return timer

    @override
    def call_later(  # type: ignore[override]
        self,
        delay: float,
        callback: Callable[..., object],
        *args: Any,
        context: contextvars.Context | None = None,
    ) -> events.TimerHandle:
        return self.call_at(self.monotonic() + delay, callback, *args, context=context)

    @override
    def create_future(self) -> "asyncio.Future[Any]":
        return SimulatedFuture(self)

    def _timer_handle_cancelled(self, handle: events.TimerHandle) -> None: ...

    @override
    def run_in_executor(self, executor: Any, func: Callable[..., Any], *args: Any) -> "asyncio.Future[Any]":  # type: ignore[override]
        future = self.create_future()
        assert self.workers is not None

        def work() -> None:
            try:
                outcome, error = func(*args), None
            except BaseException as raised:  # noqa: BLE001 - an outcome as any other
                outcome, error = None, raised
            self.call_soon_threadsafe(partial(_settle, future, outcome, error))

        self.workers.submit(work)
        return future

    @override
    def call_exception_handler(self, context: dict[str, Any]) -> None:
        if not self.is_dead and not self.core.closed:
            self.errors.append(context)
            error = context.get("exception")
            self.core.tell(self.name, "error", f"{context.get('message')}: {type(error).__name__}: {error}")

    def open_tasks(self) -> "list[asyncio.Task[Any]]":
        """Tasks that have not ended, less those of the pool that carries actors.

        The error of one that has ended, and that no one has awaited, is noted: as Python does only once it is freed.
        """
        for task in [task for task in self.tasks if task.done()]:
            del self.tasks[task]
            if task._log_traceback:
                task._log_traceback = False
                lost = {
                    "message": f"the error of task {_name_of_task(task)}() was never retrieved",
                    "exception": task.exception(),
                }
                self.call_exception_handler(lost)
        return [task for task in self.tasks if getattr(task, "_log_destroy_pending", True)]

    def end(self) -> None:
        """Free all that is left; nothing runs any more. The code of a killed process may still react to that."""
        self.is_dead = True
        self.enter()
        for task in list(self.tasks):
            if not task.done():
                task._log_destroy_pending = False  # type: ignore[attr-defined]
                _close(task.get_coro())
        self.tasks.clear()
        self.callbacks.clear()
        self._closed = True

    def _write_to_self(self) -> None: ...

    def _process_events(self, event_list: Any) -> None: ...


class SimulatedTask(asyncio.Task[Any]):
    """A task with a number for its hash: a set of tasks has the same order in each run with one seed.

    asyncio keeps tasks in sets itself: those of a group that it cancels, and those that `asyncio.wait` returns. The
    order of a set of plain tasks follows from where they are in memory.

    Attributes:
        started: The line of the user's code that has made it; ``None`` if the runtime has.
    """

    started: str | None = None

    def __init__(self, coro: Any, *, loop: asyncio.AbstractEventLoop, **options: Any) -> None:
        self._number = _number(loop)
        if self._number is not None and options.get("name") is None:
            options["name"] = f"Task-{self._number}"
        super().__init__(coro, loop=loop, **options)

    @override
    def __hash__(self) -> int:
        return super().__hash__() if self._number is None else self._number


class SimulatedFuture(asyncio.Future[Any]):
    """A future with a number for its hash; see `SimulatedTask`."""

    def __init__(self, loop: SimulatedLoop) -> None:
        self._number = _number(loop)
        super().__init__(loop=loop)

    @override
    def __hash__(self) -> int:
        return super().__hash__() if self._number is None else self._number


def _number(loop: asyncio.AbstractEventLoop) -> int | None:
    """The next number of the run, or ``None`` on a loop that is not simulated."""
    return loop.core.next_number() if isinstance(loop, SimulatedLoop) else None


def _new_task(loop: asyncio.AbstractEventLoop, coroutine: Any, **options: Any) -> SimulatedTask:
    task = SimulatedTask(coroutine, loop=loop, **options)
    frame: FrameType | None = sys._getframe(1)
    while frame is not None and not is_users(frame):
        frame = frame.f_back
    task.started = None if frame is None else line_of(frame)
    return task


def _refusing(what: str) -> Callable[..., Any]:
    def escapes(self: SimulatedLoop, *_: Any, **__: Any) -> Any:
        raise self.core.guard.escapes(what, sys._getframe(1))

    return escapes


for _name, _what in BY_METHOD.items():
    setattr(SimulatedLoop, _name, _refusing(_what))


def _close(coroutine: Any) -> None:
    """Close a coroutine, even if it continues when it is closed first."""
    for _ in range(CLOSES):
        try:
            coroutine.close()
        except BaseException:  # noqa: BLE001, S112 - it belongs to a process that is dead
            continue
        return


def _settle(
    future: "asyncio.Future[Any]", outcome: object, error: BaseException | None, who: str = "a worker thread"
) -> None:
    if future.done():
        return
    if error is None:
        future.set_result(outcome)
    elif isinstance(error, StopIteration | SystemExit | KeyboardInterrupt):
        future.set_exception(as_error(error, who))
    else:
        future.set_exception(error)


def name_of(callback: Callable[..., object]) -> str:
    """A name for a callback that is the same in each run."""
    while isinstance(callback, partial):
        callback = callback.func
    name = getattr(callback, "__qualname__", None) or type(callback).__qualname__
    return str(name)


def _name_of_task(task: "asyncio.Task[Any]") -> str:
    return str(getattr(task.get_coro(), "__qualname__", "task"))


class NodeCrashed(InternalError):
    """A simulated process was killed while something of it was awaited."""

    def __init__(self, node: str) -> None:
        self.node = node
        super().__init__(f"node {node!r} was killed")


def across(here: SimulatedLoop, there: SimulatedLoop, coroutine: Any) -> "asyncio.Future[Any]":
    """Run a coroutine in another process of the run; the future is of this one."""
    future: asyncio.Future[Any] = here.create_future()
    tasks: list[asyncio.Task[Any]] = []

    async def outcome() -> tuple[object, BaseException | None]:
        try:
            return await coroutine, None
        except BaseException as error:  # noqa: BLE001 - raised where the result is awaited
            return None, error

    def begin() -> None:
        if future.cancelled():
            coroutine.close()
            return
        task = begin_task(there, outcome())
        tasks.append(task)
        task.add_done_callback(done)

    def done(task: "asyncio.Task[Any]") -> None:
        if not task.cancelled():
            value, error = task.result()
            here.call_soon(partial(_settle, future, value, error, f"node {there.name!r}"))
        else:
            here.call_soon(future.cancel)

    def cancelled(ended: "asyncio.Future[Any]") -> None:
        if ended.cancelled() and tasks:
            there.call_soon(tasks[0].cancel)

    future.add_done_callback(cancelled)
    there.core.ready(there, Call(begin), "begin", in_order=True)
    return future
