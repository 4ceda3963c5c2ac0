"""Tasks of the runtime itself, on which others wait: each of them begins, whatever happens to it.

Two things that a program may do would otherwise leave those who wait without an answer. A task that is cancelled
before its first step never runs any of its code. And a task factory of the program may run the first step before
``create_task`` returns, which changes the order of everything (``asyncio.eager_task_factory``). The rule is here:
`begin` makes a task that takes its first step later, on the loop, and takes it also when it was cancelled before.
"""

import asyncio
import contextvars
from collections.abc import Callable, Coroutine
from typing import Any, TypeVar, cast

from uno_actors.errors import as_error

T = TypeVar("T")


def begin(
    loop: asyncio.AbstractEventLoop,
    coroutine: Coroutine[Any, Any, T],
    *,
    name: str | None = None,
    context: contextvars.Context | None = None,
) -> "asyncio.Task[T]":
    """A task for ``coroutine``, to be made on the loop's thread.

    A cancellation that comes before the first step arrives at the first place where the coroutine waits.

    Args:
        loop: On which it runs.
        coroutine: One that has not begun.
        name: Of the task.
        context: In which it runs; default is a copy of the present one.
    """
    # not by the loop's factory: see above
    return asyncio.Task(surely(coroutine), loop=loop, name=name, context=context)


def surely(coroutine: Coroutine[Any, Any, T]) -> Coroutine[Any, Any, T]:
    """``coroutine``, for a task that is made elsewhere: it begins also if that is cancelled before its first step."""
    return cast("Coroutine[Any, Any, T]", _Begins(coroutine))


async def end_of(task: "asyncio.Task[T]", who: str) -> T:
    """The result of a task on which others wait too: a cancelled caller leaves it alone.

    Raises:
        WorkCancelled: The task was cancelled, not the caller.
        Exception: Whatever the task raises.
    """
    await asyncio.wait({task})
    try:
        return task.result()
    except asyncio.CancelledError as error:
        raise as_error(error, who) from error


class _Begins:
    """A coroutine that begins also when an error is thrown into it before its first step.

    ``send`` and ``throw`` are the coroutine's own from the first step on, so that a step costs nothing more.
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
        """``cr_frame`` and the like: what asyncio and debuggers show of a task."""
        return getattr(self._coroutine, name)


Coroutine.register(_Begins)  # so that asyncio takes it for what it is
