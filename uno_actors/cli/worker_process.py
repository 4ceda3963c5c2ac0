"""One worker process as its supervisor process sees it: it starts it, hears that it is ready, stops and awaits it."""

import asyncio
import contextlib
import os
import signal
import socket
import sys
import time
from pathlib import Path
from typing import Self

from uno_actors.cli.worker_link import GRACE, READY, stop_line
from uno_actors.cluster.settings import Role
from uno_actors.logs import get_logger


class WorkerProcess:
    """A process that runs `uno_actors.cli.worker`.

    Attributes:
        pid: Its number.
        begun: When it was started, in seconds on the monotonic clock.
        is_ready: Whether its system has started.
        is_stopping: Whether it was told to stop.
    """

    def __init__(
        self, process: asyncio.subprocess.Process, lines: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        self.pid = process.pid
        self.begun = time.monotonic()
        self.is_ready = False
        self.is_stopping = False
        self._process = process
        self._writer = writer
        self._reading = asyncio.ensure_future(self._wait_ready(lines))

    @classmethod
    async def start(
        cls,
        file: Path,
        index: int,
        roles: tuple[Role, ...],
        *,
        log_form: str | None,
        stop_timeout: float,
        node_name: str | None = None,
    ) -> Self:
        """Start a worker: a new program, not a copy of this process, which has threads and an event loop.

        It has a process group of its own, so that Ctrl-C in a terminal reaches the supervisor process alone.

        Raises:
            OSError: The system starts no more processes.
        """
        ours, theirs = socket.socketpair()
        with theirs:
            try:
                process = await asyncio.create_subprocess_exec(
                    sys.executable, "-P", "-m", "uno_actors.cli.worker", str(file),
                    "--worker", str(index), "--roles", ",".join(roles), "--link", str(theirs.fileno()),
                    "--stop-timeout", str(stop_timeout), *(["--log", log_form] if log_form else []),
                    *(["--node-name", node_name] if node_name else []),
                    stdin=asyncio.subprocess.DEVNULL, pass_fds=[theirs.fileno()], process_group=0,
                )  # fmt: skip
            except BaseException:
                ours.close()
                raise
        return cls(process, *await asyncio.open_connection(sock=ours))

    async def _wait_ready(self, lines: asyncio.StreamReader) -> bool:
        with contextlib.suppress(OSError):
            self.is_ready = await lines.readline() == READY
        return self.is_ready

    async def until_ready(self) -> bool:
        """Wait until its system has started. Return ``False`` if the process has ended before."""
        return await asyncio.shield(self._reading)

    async def wait(self) -> int:
        """Wait for its end. Return the exit code; a signal that ended it is a negative number."""
        code = await self._process.wait()
        await self._reading
        self._writer.close()
        return code

    async def stop(self, seconds: float) -> None:
        """Have it drain and stop within so many seconds, and wait for its end. Kill it if it takes much longer."""
        self.is_stopping = True
        with contextlib.suppress(OSError):
            self._writer.write(stop_line(seconds))
        try:
            await asyncio.wait_for(self._process.wait(), seconds + GRACE)
        except TimeoutError:
            get_logger().error("worker does not stop and is killed", process=self.pid)
            self.kill()
            await self._process.wait()

    def signal(self, number: signal.Signals) -> None:
        """Send it a signal, unless it has ended."""
        with contextlib.suppress(ProcessLookupError):
            self._process.send_signal(number)

    def kill(self) -> None:
        """End it now, with all processes of its group."""
        self.is_stopping = True
        if self._process.returncode is None:
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.killpg(self.pid, signal.SIGKILL)
