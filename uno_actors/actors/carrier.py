"""Pooled tasks that carry on coroutines that must wait.

Most messages are handled without waiting, and a task for each would cost more than the handling. The dispatcher
therefore runs a coroutine in the name of a pooled task (its *carrier*), with the functions that asyncio documents for
custom task implementations. Only a coroutine that must wait is handed to its carrier, which runs it to its end and then
returns to the pool. To the coroutine it is the same task from its first step to its last, so ``asyncio.timeout`` and
cancellation work as usual.
"""

import asyncio
import contextvars
from collections.abc import Callable, Coroutine, Generator
from functools import partial
from types import CoroutineType, GeneratorType, coroutine
from typing import Any, TypeVar, cast

from uno_actors.tasks import begin

T = TypeVar("T")

MAX_READY = 64
"""Carriers kept in the pool; further ones end with their work."""

Waiting = tuple[Coroutine[Any, Any, object], Any]
"""A coroutine, and what it has yielded to the event loop to wait for. It raises no errors."""


class Carrier:
    """One pooled task.

    Args:
        loop: The event loop, on whose thread it is made and used.
        ready: The pool to which it returns.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop, ready: "list[Carrier]") -> None:
        self._loop = loop
        self._ready = ready
        self._work: tuple[contextvars.Context, Waiting, Callable[[], object]] | None = None
        self._wake: asyncio.Future[None] | None = None
        self.task = begin(loop, self._run(), name="uno-actors carrier", context=contextvars.Context())
        self._may_vanish(True)

    def carry(self, context: contextvars.Context, waiting: Waiting, done: Callable[[], object]) -> None:
        """Run a coroutine in ``context`` until it ends; then call ``done``."""
        self._work = (context, waiting, done)
        if self._wake is not None and not self._wake.done():
            self._wake.set_result(None)

    async def _run(self) -> None:
        while True:
            cancelled: asyncio.CancelledError | None = None
            if self._work is None:
                self._wake = self._loop.create_future()
                try:
                    await self._wake
                except asyncio.CancelledError as error:
                    cancelled = error
            if self._work is None:
                if self in self._ready:
                    self._ready.remove(self)
                return
            (context, (waiting, yielded), done), self._work = self._work, None
            self._may_vanish(False)
            if cancelled is not None and yielded is not None and yielded.cancel():
                cancelled = None  # the cancellation arrives from there, as in any task
            try:
                await _go_on(context, waiting, yielded, cancelled)
            finally:
                done()
                del context, waiting, yielded, done  # in the pool it keeps no object alive
            self._may_vanish(True)
            if self.task.cancelling() or len(self._ready) >= MAX_READY:
                return
            self._ready.append(self)

    def _may_vanish(self, harmless: bool) -> None:
        """Whether asyncio may stay silent if the task is destroyed before its end: while it is in the pool."""
        # as asyncio does with its own tasks
        self.task._log_destroy_pending = not harmless  # type: ignore[attr-defined]


@coroutine
def _go_on(
    context: contextvars.Context,
    waiting: Coroutine[Any, Any, object],
    yielded: Any,
    error: BaseException | None,
) -> Generator[Any, None, None]:
    """Wait for what the coroutine has yielded, run its next step in its context, and so on."""
    try:
        while True:
            if error is None:
                try:
                    yield yielded
                except BaseException as thrown:  # noqa: BLE001 - thrown into the coroutine
                    error = thrown
                    continue
                yielded = context.run(waiting.send, None)
            else:
                step, error = partial(waiting.throw, error), None
                yielded = context.run(step)
    except StopIteration:
        return


@coroutine
def resumed(waiting: Coroutine[Any, Any, Any], yielded: Any) -> Generator[Any, None, Any]:
    """Awaits a coroutine that has already begun and yielded ``yielded``."""
    try:
        while True:
            try:
                yield yielded
            except BaseException as error:  # noqa: BLE001 - as above
                yielded = waiting.throw(error)
            else:
                return (yield from waiting)
    except StopIteration as end:
        return end.value


def run_in(context: contextvars.Context, inner: Coroutine[Any, Any, T]) -> Coroutine[Any, Any, T]:
    """``inner``, each step of which runs in ``context``, inside the task that awaits it."""
    return cast("Coroutine[Any, Any, T]", _in_context(context, inner, partial(inner.send, None)))


def go_on_in(context: contextvars.Context, waiting: Waiting) -> Waiting:
    """As ``waiting``, with all further steps in ``context``."""
    inner, yielded = waiting
    outer = _in_context(context, inner, lambda: yielded)
    return cast("Coroutine[Any, Any, object]", outer), outer.send(None)


@coroutine
def _in_context(
    context: contextvars.Context, inner: Coroutine[Any, Any, T], step: Callable[[], Any]
) -> Generator[Any, Any, T]:
    try:
        while True:
            yielded = context.run(step)
            try:
                sent = yield yielded
            except BaseException as error:  # noqa: BLE001 - as above
                step = partial(inner.throw, error)
            else:
                step = partial(inner.send, sent)
    except StopIteration as end:
        return cast("T", end.value)


def awaited_by(waiting: object) -> object:
    """What a suspended coroutine waits for: the next link of a chain; ``None`` at its end. From any thread.

    The generators above run a coroutine step by step and do not await it, so it is among their variables.
    """
    if isinstance(waiting, CoroutineType):
        return waiting.cr_await
    if not isinstance(waiting, GeneratorType) or waiting.gi_frame is None:
        return None
    if waiting.gi_code is _in_context.__code__:
        return waiting.gi_frame.f_locals.get("inner")
    if waiting.gi_code is resumed.__code__:
        return waiting.gi_frame.f_locals.get("waiting")
    return waiting.gi_yieldfrom
