"""The supervisor process of ``uno-actors run --workers``: it starts worker processes, restarts and replaces them.

It imports none of the program's modules and opens no store. Its rules are those of all supervisors, in
`uno_actors.supervision.policy`. A worker that it has to stop drains while the others serve on, and take its work over.
"""

import asyncio
import os
import random
import signal
import sys
import time
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal

from uno_actors.cli.service import CANNOT_START, GAVE_UP, STOPPED, LogForm, end_process, on_signal
from uno_actors.cli.worker_process import WorkerProcess
from uno_actors.cluster.settings import Cluster, Role
from uno_actors.cluster.workers import Workers, cores
from uno_actors.config.errors import InvalidConfig
from uno_actors.config.reader import Config, load_tables
from uno_actors.errors import InvalidCluster, UnoError, describe
from uno_actors.local_sockets import missing
from uno_actors.logs import get_logger, write_logs
from uno_actors.supervision.child import TreeNode
from uno_actors.supervision.policy import ChildState, GiveUp, RestartGroup, SupervisorState
from uno_actors.supervision.spec import Supervisor
from uno_actors.system.control_socket import ControlServer, control_directory

RULES = Supervisor("workers", max_restarts=5, within=30.0, budget="child")
"""How often a worker is restarted, and how long it waits: as a supervisor's child does."""


KEPT = 10
"""Replacements that `uno-actors restart` can still ask for."""


class WorkerEnded(Exception):
    """A worker process has ended by itself."""


@dataclass(slots=True, eq=False)
class Place:
    """The place of one worker: the process that has it now is followed by another one.

    Attributes:
        index: From 1.
        roles: Of its next process.
        process: That which runs; ``None`` while it waits for a restart.
        restarts: How often a process was started again after it had ended by itself.
        is_given_up: Whether no other process is to follow.
        replaced: Set by who replaces the process: told whether the next one has started.
        keeping: Runs its processes, one after the other.
        code: With which its last process ended.
    """

    index: int
    roles: tuple[Role, ...]
    process: WorkerProcess | None = None
    restarts: int = 0
    is_given_up: bool = False
    replaced: "asyncio.Future[bool] | None" = None
    keeping: "asyncio.Task[None] | None" = None
    code: int | None = None

    @property
    def name(self) -> str:
        """For logs and the tree."""
        return f"worker {self.index}"

    @property
    def state(self) -> str:
        """For the tree."""
        if self.process is None:
            return "restarting"
        if self.process.is_stopping:
            return "stopping"
        return "running" if self.process.is_ready else "starting"


@dataclass(slots=True)
class Replacement:
    """One replacing of all workers by new processes.

    Attributes:
        number: From 1.
        workers: How many are to be replaced.
        state: ``waiting`` for an earlier one, ``replacing``, ``done`` or ``failed``.
        replaced: The number of each worker replaced so far, and its processes before and after.
        seconds: How long it has taken; ``None`` until it has ended.
        reason: Why it has failed.
    """

    number: int
    workers: int
    state: Literal["waiting", "replacing", "done", "failed"] = "waiting"
    replaced: list[dict[str, int | None]] = field(default_factory=list)
    seconds: float | None = None
    reason: str | None = None


class WorkerSupervisor:
    """Runs the workers of a file until a signal stops it, or until one of them fails too often.

    SIGTERM and SIGINT stop the workers one after the other, within the system's ``stop_timeout``; a second one kills
    them. SIGHUP has each read the file again. SIGUSR2 replaces them one after the other by new processes,
    with the file and the program as they are now.

    Args:
        file: The configuration file.
        given: The workers of the command line, in place of the file's.
        log_form: Log format, in place of the file's.
        node_name: Name of the nodes, in place of the file's.

    Raises:
        InvalidConfig: The file is invalid.
        InvalidCluster: The workers cannot share the store.
    """

    def __init__(
        self, file: Path, given: Workers | None, log_form: LogForm | None, node_name: str | None = None
    ) -> None:
        self._node_name = node_name
        self._replacements: list[Replacement] = []
        self._file = file
        self._given = given
        self._log_form = log_form
        self._places: list[Place] = []
        self._policy = SupervisorState(RULES)
        self._failure: int | None = None
        self._begun = time.monotonic()
        self._over = asyncio.Event()
        self._rolling = asyncio.Lock()
        self._read()
        self._log = get_logger(system=self._config.system.name)

    async def run(self) -> int:
        """Start the workers, wait for the end, stop them, and return the exit code."""
        self._catch_signals()
        async with AsyncExitStack() as stack:
            await self._start_first()
            if not self._over.is_set():
                await self._open_control(stack)
                for place in self._places[1:]:
                    self._keep(place)
                self._log.info("workers started", workers=len(self._places))
            await self._over.wait()
            await self._stop()
        return STOPPED if self._failure is None else self._failure

    # --- the file ---

    def _read(self) -> None:
        """Read the tables that the supervisor process needs.

        Raises:
            InvalidConfig, InvalidCluster: See the class.
        """
        config = load_tables(self._file, "system", "cluster", "logging")
        roles = roles_of_workers(config, self._given)
        self._config = config
        write_logs(sys.stderr, config.logging.level, self._log_form or config.logging.format)
        for index, wanted in enumerate(roles):
            if index < len(self._places):
                self._places[index].roles = wanted
            else:
                self._places.append(Place(index + 1, wanted))
        self._wanted = len(roles)

    # --- starting ---

    async def _start_first(self) -> None:
        """Start the first worker alone: what keeps it from starting keeps all, and it makes the store."""
        first = self._places[0]
        process = await self._begin(first)
        if process is not None:
            await self._first_of(process.until_ready(), self._over.wait())
            if self._over.is_set():
                return
        if process is not None and process.is_ready:
            self._keep(first, process)
            return
        code = CANNOT_START if process is None else await process.wait()
        first.process = None
        self._log.critical("workers cannot start", code=code)
        self._end(code if code > 0 else CANNOT_START)

    async def _first_of(self, *waits: Awaitable[object]) -> None:
        """Wait until one of ``waits`` is over."""
        tasks = [asyncio.ensure_future(wait) for wait in waits]
        await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        for task in tasks:
            task.cancel()

    async def _begin(self, place: Place) -> WorkerProcess | None:
        """Start a process; ``None`` if the system starts none."""
        try:
            place.process = await WorkerProcess.start(
                self._file,
                place.index,
                place.roles,
                log_form=self._log_form,
                stop_timeout=self._config.system.stop_timeout,
                node_name=self._node_name,
            )
        except OSError as error:
            self._log.error("worker cannot be started", worker=place.index, error=describe(error))
            return None
        self._log.info("worker starts", worker=place.index, process=place.process.pid)
        return place.process

    def _keep(self, place: Place, process: WorkerProcess | None = None) -> "asyncio.Task[None]":
        """Let a process run at ``place`` from now on."""
        child = ChildState(place.name, since=time.monotonic())
        self._policy = SupervisorState(RULES, (*self._policy.children, child))
        place.keeping = asyncio.ensure_future(self._run_place(place, process))
        return place.keeping

    async def _run_place(self, place: Place, process: WorkerProcess | None) -> None:
        while True:
            process = process or await self._begin(place)
            code = CANNOT_START
            if process is not None:
                if self._over.is_set():
                    process.kill()
                is_ready = await process.until_ready()
                if is_ready:
                    self._policy = self._policy.started(place.name, time.monotonic())
                else:
                    place.code = await process.wait()
                if place.replaced is not None and not place.replaced.done() and not process.is_stopping:
                    place.replaced.set_result(is_ready)
                code = await process.wait()
            elif place.replaced is not None and not place.replaced.done():
                place.replaced.set_result(False)
            place.code = code
            was_stopped = process is not None and process.is_stopping
            place.process = process = None
            if self._over.is_set() or place.is_given_up:
                return
            if not was_stopped and not await self._may_restart(place, code):
                return

    async def _may_restart(self, place: Place, code: int) -> bool:
        """Wait as long as the rules say after a process has ended by itself. Return whether another is to follow."""
        self._log.error("worker has ended", worker=place.index, code=code)
        now, chance = time.monotonic(), random.random()  # noqa: S311 - jitter
        if self._policy[place.name].status == "running":
            self._policy, decision = self._policy.failed(place.name, WorkerEnded(code), now, chance)
        else:
            self._policy, decision = self._policy.start_failed(place.name, now, chance)
        match decision:
            case RestartGroup(delay=delay):
                place.restarts += 1
                try:
                    await asyncio.wait_for(self._over.wait(), delay)
                except TimeoutError:
                    return not place.is_given_up
            case GiveUp(reason=reason):
                self._log.critical("workers gave up", worker=place.index, reason=reason)
                self._end(GAVE_UP)
        return False

    # --- replacing ---

    def restart(self) -> int:
        """Replace the workers one after the other. The file is read again, and may want more or fewer of them.

        Returns:
            The number of this replacement, under which `uno-actors restart` asks for it.
        """
        number = self._replacements[-1].number + 1 if self._replacements else 1
        replacement = Replacement(number, len(self._places))
        self._replacements = [*self._replacements, replacement][-KEPT:]
        self._restarting = asyncio.ensure_future(self._restart(replacement))
        return number

    async def _restart(self, replacement: "Replacement") -> None:
        async with self._rolling:
            begun = time.monotonic()
            reason = await self._replace_all(replacement)
            replacement.seconds = time.monotonic() - begun
            replacement.reason = reason
            replacement.state = "done" if reason is None else "failed"

    async def _replace_all(self, replacement: "Replacement") -> str | None:
        """Return why not all workers were replaced; ``None`` if they were."""
        try:
            self._read()
        except (InvalidConfig, InvalidCluster) as error:
            self._log.error("no worker is replaced: the configuration is wrong", error=str(error))
            return f"no worker is replaced: {error}"
        replacement.workers = len(self._places)
        replacement.state = "replacing"
        self._log.info("replacing the workers one after the other", workers=self._wanted)
        for place in self._places:
            before = None if place.process is None else place.process.pid
            if self._over.is_set() or not await self._replace(place):
                self._log.error("replacing of the workers has ended", worker=place.index)
                if self._over.is_set():
                    return "the service stops"
                return (
                    f"worker {place.index} has not started, with exit code {place.code}; those after it were not"
                    " replaced; see the log"
                )
            after = None if place.process is None else place.process.pid
            replacement.replaced.append({"worker": place.index, "before": before, "after": after})
        self._places = self._places[: self._wanted]
        self._log.info("workers replaced", workers=self._wanted)
        return None

    async def _replace(self, place: Place) -> bool:
        """Replace the process at ``place``. Return whether the next one has started, or none is to follow."""
        keeping = place.keeping or self._keep(place)
        place.is_given_up = place.index > self._wanted
        started = place.replaced = asyncio.get_running_loop().create_future()
        process = place.process
        if process is not None:
            await process.stop(self._config.system.stop_timeout)
        if place.is_given_up:
            await asyncio.wait([keeping])
            self._policy = self._policy.without(place.name)
            return True
        await self._first_of(asyncio.shield(started), self._over.wait())
        return started.done() and started.result()

    # --- stopping ---

    def _end(self, failure: int | None = None) -> None:
        if self._failure is None:
            self._failure = failure
        self._over.set()

    async def _stop(self) -> None:
        """Stop the workers, the last one first. Time that one does not need is for the others."""
        deadline = time.monotonic() + self._config.system.stop_timeout
        running = [place for place in reversed(self._places) if place.process is not None]
        for index, place in enumerate(running):
            if (process := place.process) is not None:
                left = max(0.0, deadline - time.monotonic())
                await process.stop(left / (len(running) - index))
        keeping = [place.keeping for place in self._places if place.keeping is not None]
        await asyncio.gather(*keeping)
        self._log.info("workers stopped", workers=len(running))

    def _catch_signals(self) -> None:
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            on_signal(loop, number, lambda number=number: self._stop_on(number))  # type: ignore[misc]
        on_signal(loop, signal.SIGHUP, self._reload)
        on_signal(loop, signal.SIGUSR2, self.restart)
        on_signal(loop, signal.SIGUSR1, self._record)

    def _record(self) -> None:
        """Have each worker write its latest steps to a file."""
        for place in self._places:
            if place.process is not None and place.process.is_ready:
                place.process.signal(signal.SIGUSR1)

    def _stop_on(self, number: signal.Signals) -> None:
        if self._over.is_set():
            self._log.critical("second signal: killing the workers", signal=number.name)
            for place in self._places:
                if place.process is not None:
                    place.process.kill()
            end_process(128 + number)
        self._log.info("stopping on signal", signal=number.name)
        self._end()

    def _reload(self) -> None:
        self._log.info("workers read the configuration again", file=str(self._file))
        try:
            roles = roles_of_workers(load_tables(self._file, "system", "cluster"), self._given)
        except (InvalidConfig, InvalidCluster):  # each worker says so
            roles = tuple(place.roles for place in self._places)
        if [*roles] != [place.roles for place in self._places]:
            self._log.warning(
                "changes take effect when the workers are replaced", options=["cluster.workers"]
            )
        for place in self._places:
            if place.process is not None:
                place.process.signal(signal.SIGHUP)

    # --- being asked ---

    async def _open_control(self, stack: AsyncExitStack) -> None:
        try:
            directory = control_directory(self._config.url, self._config.key)
            await stack.enter_async_context(ControlServer(directory, self._answer))
        except (UnoError, OSError) as error:  # the service runs without it
            self._log.warning(
                "other processes cannot ask for the state of the workers", error=describe(error)
            )

    def _answer(self, want: str) -> dict[str, Any]:
        """The answer to another process.

        Raises:
            ValueError: The question is unknown.
        """
        answers: dict[str, Callable[[], Any]] = {
            "tree": self._tree,
            "restart": self.restart,
            "replacements": lambda: [asdict(each) for each in self._replacements],
        }
        if want not in answers:
            raise ValueError(f"{want!r} is not known here")
        return {
            "system": self._config.system.name,
            "pid": os.getpid(),
            "uptime": time.monotonic() - self._begun,
            want: answers[want](),
            "workers": {
                place.name: None if place.process is None else place.process.pid for place in self._places
            },
        }

    def _tree(self) -> dict[str, Any]:
        """The workers as the tree of a system, of which each worker answers its own part."""
        children = tuple(
            TreeNode(place.name, "process", place.state, restarts=place.restarts) for place in self._places
        )
        restarts = sum(place.restarts for place in self._places)
        name = self._config.system.name
        return asdict(TreeNode(name, "supervisor", "running", restarts=restarts, children=children))


def roles_of_workers(config: Config, given: Workers | None) -> tuple[tuple[Role, ...], ...]:
    """The roles of each worker of a file.

    Args:
        config: The file.
        given: The workers of the command line, in place of the file's.

    Raises:
        InvalidCluster: The workers cannot share the store.
    """
    if (reason := missing()) is not None:
        raise InvalidCluster(
            "workers", f"need Unix sockets to their supervisor process, and {reason}: run one process"
        )
    workers = given or config.workers or Workers(1)
    if config.url.partition(":")[0] == "memory":
        raise InvalidCluster(
            "workers",
            f"cannot share the store {config.system.store!r}, which is in the memory of one process: name another in"
            " [system], such as store = 'lmdb:data'",
        )
    usual = (config.cluster or Cluster()).roles
    return workers.roles(usual, cores())


def run_workers(
    file: Path, given: Workers | None, log_form: LogForm | None, node_name: str | None = None
) -> int:
    """Run the workers of a file until a signal stops them, and return the exit code.

    Raises:
        InvalidConfig: The file is invalid.
        InvalidCluster: The workers cannot share the store.
    """

    async def run() -> int:
        return await WorkerSupervisor(file, given, log_form, node_name).run()

    return asyncio.run(run())
