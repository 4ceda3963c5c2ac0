"""Programs that are killed at each of their steps, one after the other."""

import signal
from collections.abc import Awaitable, Callable
from pathlib import Path


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
