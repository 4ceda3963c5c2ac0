"""A system as a process of its own: started by its configuration file, stopped by signals."""

import asyncio
import contextlib
import os
import signal
import sys
import time
from contextlib import AsyncExitStack
from typing import Any, Literal

from uno_actors.config import Config
from uno_actors.control import ControlServer, control_directory
from uno_actors.errors import SupervisorGaveUp, UnoError, describe
from uno_actors.log import get_logger, write_logs
from uno_actors.plan import plan
from uno_actors.system import ActorSystem

STOPPED = 0
GAVE_UP = 3
"""Exit code when supervisors under the root have given up: whoever runs the service may start it again."""

LogForm = Literal["text", "json"]


class Service:
    """Runs one system until a signal ends it, or it gives up.

    SIGTERM and SIGINT stop it in order, within the system's ``stop_timeout``; the second one ends the process at
    once, by 128 and the number of the signal, as if the signal had killed it.

    Args:
        config: Of the system.
        log_form: In place of what the file says.
    """

    def __init__(self, config: Config, log_form: LogForm | None = None) -> None:
        self.config = config
        self._log_form = log_form
        self._system = ActorSystem(**config.arguments())
        self._told_to_stop = asyncio.Event()
        self._main: asyncio.Task[int] | None = None
        self._begun = time.monotonic()
        self._log = get_logger(system=config.system.name)

    async def run(self) -> int:
        """Start, wait, stop; the exit code.

        Raises:
            Exception: Whatever keeps the system from starting.
        """
        loop = asyncio.get_running_loop()
        self._main = asyncio.current_task()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self._stop, number)
        try:
            await self._system.start()
        except asyncio.CancelledError:
            if not self._told_to_stop.is_set():
                raise
            self._log.info("system stopped before it had started")
            return STOPPED
        self._main = None
        async with AsyncExitStack() as stack:
            try:
                directory = control_directory(self.config.system.url, self.config.key)
                await stack.enter_async_context(ControlServer(directory, self._answer))
            except (UnoError, OSError) as error:  # the service runs all the same
                self._log.warning("the system cannot be asked about", error=describe(error))
            return await self._until_it_ends()

    async def _until_it_ends(self) -> int:
        ended = asyncio.ensure_future(self._system.wait_stopped())
        told = asyncio.ensure_future(self._told_to_stop.wait())
        await asyncio.wait({ended, told}, return_when=asyncio.FIRST_COMPLETED)
        told.cancel()
        await self._system.stop()
        try:
            await ended
        except SupervisorGaveUp as error:
            self._log.critical("system gave up", error=str(error))
            return GAVE_UP
        return STOPPED

    def _answer(self, want: str) -> dict[str, Any]:
        """What another process wants to know.

        Raises:
            ValueError: It is not known here.
        """
        if want != "tree":
            raise ValueError(f"{want!r} is not known here")
        return {
            "system": self.config.system.name,
            "pid": os.getpid(),
            "uptime": time.monotonic() - self._begun,
            "tree": tree_of(self._system),
        }

    def _stop(self, number: int) -> None:
        name = signal.Signals(number).name
        if self._told_to_stop.is_set():
            self._log.critical("told to stop again: ending at once", signal=name)
            end_process(128 + number)
        self._told_to_stop.set()
        self._log.info("told to stop", signal=name)
        if self._main is not None:
            self._main.cancel()  # it is still starting


def serve(config: Config, log_form: LogForm | None = None) -> int:
    """Run the system of ``config`` in this process, which logs to its standard error; the exit code.

    Raises:
        Exception: Whatever keeps the system from starting.
    """
    write_logs(sys.stderr, config.logging.level, log_form or config.logging.format)
    log = get_logger(system=config.system.name)
    for finding in plan(config.supervisors, config.system.stop_timeout).findings:
        log.warning(finding.severity, place=str(config.fault(finding.path, finding.option, finding.reason)))

    async def run() -> int:
        return await Service(config, log_form).run()

    return asyncio.run(run())


def tree_of(system: ActorSystem) -> dict[str, Any]:
    """The living tree, as JSON can say it."""
    children = [
        {
            "name": name,
            "kind": "handler",
            "state": handler.state,
            "restart": "permanent",
            "restarts": handler.restarts,
            "waiting": handler.waiting,
            "children": [],
        }
        for name, handler in system.statistics().handlers.items()
    ]
    return {
        "name": system.name,
        "kind": "supervisor",
        "state": "running",
        "restart": "permanent",
        "restarts": 0,
        "waiting": 0,
        "children": children,
    }


def end_process(code: int) -> None:
    """End it now, with what was logged written; threads that still work are not waited for."""
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(OSError, ValueError):
            stream.flush()
    os._exit(code)
