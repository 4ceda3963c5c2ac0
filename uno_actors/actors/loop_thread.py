"""Event loops on their own threads, and coroutines that run on the loop of another thread."""

import asyncio
import concurrent.futures
import contextlib
import threading
from collections.abc import Callable, Coroutine
from typing import Any, TypeVar, cast

from uno_actors.errors import BlockingCallOnLoop, InternalError, as_error
from uno_actors.tasks import surely

T = TypeVar("T")

CANCEL_SECONDS = 1.0
"""Seconds for which the end of a loop's thread waits for cancelled tasks."""

LOOK_SECONDS = 1.0
"""Seconds between two checks that the thread of a loop that another thread waits for is still alive."""


class LoopThread:
    """An event loop on its own daemon thread, for programs that have none."""

    def __init__(self, name: str) -> None:
        self.loop = _new_loop()
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)
        self._thread.start()

    def run(self, coroutine: Coroutine[Any, Any, T]) -> T:
        """Run a coroutine on the loop and wait for its result.

        Raises:
            WorkCancelled: It was cancelled.
            BlockingCallOnLoop: This is the thread of that loop.
            InternalError: The thread has ended, so the result would never arrive.
        """
        return run_on(self.loop, coroutine, self.is_alive)

    def is_alive(self) -> bool:
        """Whether the thread runs."""
        return self._thread.is_alive()

    def close(self) -> None:
        """Cancel the remaining tasks, close asynchronous generators, stop the loop and wait for its thread.

        A task that ignores its cancellation is abandoned after `CANCEL_SECONDS`, and so is a generator that does not
        end.
        """
        self.run(_end_others())
        self.loop.call_soon_threadsafe(self.loop.stop)
        self._thread.join()
        self.loop.close()

    def _run(self) -> None:
        asyncio.set_event_loop(self.loop)
        self.loop.run_forever()


async def _end_others() -> None:
    others = asyncio.all_tasks() - {asyncio.current_task()}
    for task in others:
        task.cancel()
    if others:
        await asyncio.wait(others, timeout=CANCEL_SECONDS)
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(CANCEL_SECONDS):
            await asyncio.get_running_loop().shutdown_asyncgens()  # as `asyncio.run` does


def run_on(
    loop: asyncio.AbstractEventLoop, coroutine: Coroutine[Any, Any, T], is_alive: Callable[[], bool]
) -> T:
    """Run a coroutine on the loop of another thread; if it raises SystemExit, the loop continues."""
    if asyncio._get_running_loop() is loop:
        coroutine.close()
        raise BlockingCallOnLoop("run()", "await")
    future, running = _submit(loop, coroutine)
    while True:
        try:
            outcome = future.result(LOOK_SECONDS)
            break
        except TimeoutError:  # never the coroutine's own, which would be in the outcome
            if not is_alive():
                running.close()
                coroutine.close()
                raise InternalError("the thread of an event loop has ended while it was needed") from None
    return _unpacked(outcome)


async def on_other_loop(loop: asyncio.AbstractEventLoop, coroutine: Coroutine[Any, Any, T]) -> T:
    """Await a coroutine that runs on the loop of another thread; cancelling the caller cancels it.

    Raises:
        WorkCancelled: It was cancelled there, and the caller was not.
    """
    return _unpacked(await asyncio.wrap_future(_submit(loop, coroutine)[0]))


Ended = tuple[T | None, BaseException | None]


def _submit(
    loop: asyncio.AbstractEventLoop, coroutine: Coroutine[Any, Any, T]
) -> "tuple[concurrent.futures.Future[Ended[T]], Coroutine[Any, Any, Ended[T]]]":
    async def outcome() -> Ended[T]:
        try:
            return await coroutine, None
        except BaseException as error:  # noqa: BLE001 - raised where the result is awaited
            return None, error

    running = surely(outcome())
    try:
        return asyncio.run_coroutine_threadsafe(running, loop), running
    except RuntimeError:  # the loop is closed
        running.close()
        coroutine.close()
        raise


def _unpacked(outcome: Ended[T]) -> T:
    result, error = outcome
    if isinstance(error, asyncio.CancelledError):
        raise as_error(error, "a coroutine on another event loop") from error
    if error is not None:
        raise error
    return cast("T", result)


def _new_loop() -> asyncio.AbstractEventLoop:
    """A uvloop loop if uvloop is installed, otherwise an asyncio loop."""
    try:
        import uvloop  # type: ignore[import-not-found,unused-ignore]  # noqa: PLC0415 - optional
    except ImportError:
        return asyncio.new_event_loop()
    loop: asyncio.AbstractEventLoop = uvloop.new_event_loop()
    return loop
