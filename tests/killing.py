"""Programs that are killed at each of their steps, one after the other, or stopped between writes."""

import asyncio
import signal
import time
from collections.abc import Awaitable, Callable
from pathlib import Path

from uno_actors import StoreUnavailable


async def kill_at_each_step(tmp_path: Path, attempt: Callable[[Path, int], Awaitable[int]]) -> int:
    """Have a program killed at its first step, at its second, and so on, until it ends before it is killed.

    Args:
        tmp_path: Each attempt gets a new directory in it.
        attempt: Runs the program in a directory, kills it at a step, counted from 1, and checks what is left; returns
            the exit code.

    Returns:
        The step at which it was not killed any more.
    """
    kill_at, code = 0, -signal.SIGKILL
    while code == -signal.SIGKILL:
        kill_at += 1
        directory = tmp_path / str(kill_at)
        directory.mkdir()
        code = await attempt(directory, kill_at)
    assert code == 0
    return kill_at


async def stop_between_writes(
    process: asyncio.subprocess.Process,
    write: Callable[[], Awaitable[object]],
    goes_on: Callable[[], Awaitable[object]],
) -> float:
    """Stop a process by SIGSTOP, but not inside a write to a file: there it would hold up all writers.

    Args:
        process: Is stopped.
        write: Writes to the same store from elsewhere. It raises `TimeoutError` or `StoreUnavailable` if it is held up;
            then the process continues, and is stopped again.
        goes_on: Returns when the process that continues has left its write.

    Returns:
        When it was stopped, by `time.monotonic`.
    """
    while True:
        at = time.monotonic()
        process.send_signal(signal.SIGSTOP)
        try:
            await write()
        except (TimeoutError, StoreUnavailable):
            process.send_signal(signal.SIGCONT)
            await goes_on()
        else:
            return at
