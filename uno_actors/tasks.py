"""The runtime's own tasks, whose results callers wait for: each takes its first step, even if it is cancelled before.

Without this, a program could leave callers without an answer in two ways. A task that is cancelled before its first
step never runs any of its code. And a task factory of the program may run the first step before ``create_task``
returns, which changes the order of events (``asyncio.eager_task_factory``). So `begin` makes a task that takes its
first step later, on the loop, and takes it even if it was cancelled before.
"""

import asyncio
import contextvars
from collections.abc import Callable, Coroutine
from functools import partial
from typing import Any, TypeVar, cast

from uno_actors.errors import as_error

T = TypeVar("T")

Task = asyncio.Task
"""The class of the tasks that `begin` makes; a simulation puts its own here."""


def begin(
    loop: asyncio.AbstractEventLoop,
    coroutine: Coroutine[Any, Any, T],
    *,
    name: str | None = None,
    context: contextvars.Context | None = None,
) -> "asyncio.Task[T]":
    """A task for ``coroutine``; call this on the loop's thread.

    A cancellation before the first step arrives where the coroutine first waits.

    Args:
        loop: The event loop on which it runs.
        coroutine: A coroutine that has not started.
        name: The name of the task.
        context: The context in which it runs; default is a copy of the current one.
    """
    # not with the loop's task factory: see the module's docstring
    return Task(surely(coroutine), loop=loop, name=name, context=context)


def surely(coroutine: Coroutine[Any, Any, T]) -> Coroutine[Any, Any, T]:
    """``coroutine``, for a task made elsewhere: it begins even if that task is cancelled before its first step."""
    return cast("Coroutine[Any, Any, T]", _Begins(coroutine))


async def end_of(task: "asyncio.Task[T]", who: str) -> T:
    """The result of a task that several callers wait for: cancelling one caller does not cancel the task.

    Raises:
        WorkCancelled: The task was cancelled, not the caller.
        Exception: The error that the task raised.
    """
    await asyncio.wait({task})
    try:
        return task.result()
    except asyncio.CancelledError as error:
        raise as_error(error, who) from error


async def side_by_side(*coroutines: Coroutine[Any, Any, T]) -> list[T | Exception]:
    """The result or the error of each coroutine, all run at once; each runs to its end.

    If the caller is cancelled, so are they.
    """
    if len(coroutines) == 1:
        try:
            return [await coroutines[0]]
        except Exception as error:  # noqa: BLE001 - the caller decides
            return [error]
    loop = asyncio.get_running_loop()
    tasks = [begin(loop, coroutine) for coroutine in coroutines]
    if tasks:
        try:
            await asyncio.wait(tasks)
        finally:
            for task in tasks:
                task.cancel()
    found: list[T | Exception] = []
    for task in tasks:
        try:
            found.append(task.result())
        except Exception as error:  # noqa: BLE001 - as above
            found.append(error)
    return found


async def on_another_thread(call: Callable[[], T]) -> T:
    """``call()`` on a thread of the loop's pool.

    While the interpreter ends, when programs stop their systems too, threads take no more work: then it runs here.
    """
    try:
        running = asyncio.get_running_loop().run_in_executor(
            None, partial(contextvars.copy_context().run, call)
        )
    except RuntimeError:
        return call()
    return await running


def settle(future: "asyncio.Future[Any]", outcome: Any) -> None:
    """Give a future its result, or its error if ``outcome`` is one, unless its caller was cancelled."""
    if future.done():
        return
    if isinstance(outcome, Exception):
        future.set_exception(outcome)
    else:
        future.set_result(outcome)


class _Begins:
    """A coroutine that begins even when an error is thrown into it before its first step.

    From the first step on, ``send`` and ``throw`` are the coroutine's own, so a step costs nothing extra.
    """

    __slots__ = ("_coroutine", "close", "send", "throw")

    send: Callable[[Any], Any]
    throw: Callable[..., Any]

    def __init__(self, coroutine: Coroutine[Any, Any, Any]) -> None:
        self._coroutine = coroutine
        self.send = self._first
        self.throw = self._thrown_first
        self.close = coroutine.close

    def __await__(self) -> Any:
        return self._coroutine.__await__()

    def _first(self, value: Any) -> Any:
        self.send, self.throw = self._coroutine.send, self._coroutine.throw
        return self.send(value)

    def _thrown_first(self, error: BaseException, *_: Any) -> Any:
        yielded = self._first(None)
        if yielded is not None and yielded.cancel():
            return yielded  # the cancellation arrives from there, as in any task
        return self._coroutine.throw(error)

    def __getattr__(self, name: str) -> Any:
        """``cr_frame`` and the like, which asyncio and debuggers read from a task's coroutine."""
        return getattr(self._coroutine, name)


Coroutine.register(_Begins)  # so that asyncio accepts it as a coroutine
