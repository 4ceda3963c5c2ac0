"""Runs the system of a configuration file as a service, until a signal stops it."""

import asyncio
import contextlib
import os
import signal
import sys
import threading
import warnings
from collections.abc import Callable, Iterable
from contextlib import AsyncExitStack
from dataclasses import replace
from functools import partial
from typing import Literal, Protocol, TextIO

from uno_actors.config.analysis import analyse
from uno_actors.config.errors import InvalidConfig
from uno_actors.config.reader import Config, load
from uno_actors.errors import InvalidCluster, SupervisorGaveUp, SystemNotRunning, UnoError, describe
from uno_actors.logs import Logger, get_logger, write_logs
from uno_actors.ops.access import TOKEN
from uno_actors.ops.metrics.exporter import Metrics, has_prometheus
from uno_actors.ops.serving import Address, Served, has_page
from uno_actors.ops.sources import SystemSource
from uno_actors.system.announcement import node_name
from uno_actors.system.control_socket import control_directory
from uno_actors.system.system import ActorSystem
from uno_actors.tasks import begin

STOPPED = 0
CANNOT_START = 1
GAVE_UP = 3
"""Exit code when supervisors directly under the system have given up: the service may be started again."""

SWITCH_EVERY = 0.001
"""Seconds after which a thread that runs Python code gives way to one that waits to; Python's default is 5 ms.

The thread that writes to LMDB has the turn to write in the whole store, also while it waits to run again after a
commit. Beside a busy event loop it would keep the turn from other processes several times as long as the commit takes.
"""

LogForm = Literal["text", "json"]

RELOAD: signal.Signals | None = getattr(signal, "SIGHUP", None)
"""The signal on which a service reads its file again. Windows has none: restart the service there."""

RECORD: signal.Signals | None = getattr(signal, "SIGUSR1", None)
"""The signal on which a service writes the steps of its flight recorder to a file. Windows has none."""


class AboveService(Protocol):
    """What started this process to run a service, if it is more than a service manager."""

    def attach(self, stop: Callable[[float | None], object]) -> None:
        """Have ``stop`` called, from any thread, with the seconds that stopping may take; ``None`` for the usual."""

    def ready(self) -> None:
        """The system has started."""

    def adapted(self, config: Config) -> Config:
        """The configuration of this process, from that of the file."""


class EarlySignals:
    """Signals that arrive while the file is read and its modules are imported, before there is an event loop.

    A signal to stop ends the process at once, because nothing runs yet. A signal to reload is kept for later, and one
    to write a recording does nothing, because there are no steps.
    """

    def __init__(self) -> None:
        self.must_reload = False

    def catch(self) -> None:
        """Handle signals from now on, until a `Service` takes over."""
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, lambda _number, _frame: end_process(STOPPED))
        if RELOAD is not None:
            signal.signal(RELOAD, self._keep)
        if RECORD is not None:
            signal.signal(RECORD, lambda _number, _frame: None)

    def _keep(self, _number: int, _frame: object) -> None:
        self.must_reload = True


class Service:
    """Runs one system until a signal stops it, or until its supervisors give up.

    SIGTERM and SIGINT stop it in order, within the system's ``stop_timeout``. A second one ends the process at once,
    with exit code 128 plus the number of the signal, as if the signal had killed it. SIGHUP reads the file again and
    applies the changes: children with an unchanged specification keep running, and an invalid file changes nothing.
    SIGUSR1 writes the latest steps to a file; see `uno_actors.system.recording`.

    Args:
        config: Configuration of the system.
        log_form: Log format, in place of the file's.
        early: Signals that arrived before.
        above: What started this process, if it is to be told of the start, and may stop the service.
        page: A port for the live page, which is always at a Unix socket of this user where its libraries are installed.
        node_name: Name of this node, in place of the file's.
    """

    def __init__(
        self,
        config: Config,
        log_form: LogForm | None,
        early: EarlySignals,
        above: AboveService | None = None,
        page: Address | None = None,
        *,
        node_name: str | None = None,
    ) -> None:
        self.config = config
        self._node_name = node_name
        self._log_form = log_form
        self._early = early
        self._above = above
        self._page = page
        self._stop_within: float | None = None
        self._system = ActorSystem._of(config)
        self._metrics = Metrics(self._system) if has_prometheus() else None  # beside the page, at /metrics
        self._must_stop = asyncio.Event()
        self._must_reload = asyncio.Event()
        self._main: asyncio.Task[int] | None = None
        self._log = log_of(config)

    async def run(self) -> int:
        """Start the system, wait for its end, stop it, and return the exit code.

        Raises:
            Exception: The system cannot start.
        """
        loop = asyncio.get_running_loop()
        self._main = asyncio.current_task()
        for number in (signal.SIGTERM, signal.SIGINT):
            on_signal(loop, number, partial(self._stop, number))
        if RELOAD is not None:
            on_signal(loop, RELOAD, self._must_reload.set)
        on_record(lambda: [self._system])
        if self._above is not None:
            self._above.attach(lambda seconds: loop.call_soon_threadsafe(self._stop_for_above, seconds))
        if self._early.must_reload:
            self._must_reload.set()
        try:
            await self._system.start()
        except asyncio.CancelledError:
            if not self._must_stop.is_set():
                raise
            self._log.info("system stopped before it had started")
            return STOPPED
        self._main = None
        async with AsyncExitStack() as stack:
            await self._open_page(stack)
            if self._above is not None:
                self._above.ready()
            return await self._until_it_ends()

    async def _open_page(self, stack: AsyncExitStack) -> None:
        """Serve the live page.

        Raises:
            InvalidAddress: The port cannot be used.
            MissingExtra: A port was asked for, and the libraries of the page are not installed.
        """
        if self._page is None and not has_page():
            return
        source, config = SystemSource(self._system), self.config
        served = await stack.enter_async_context(Served(source, os.environ.get(TOKEN)))
        try:
            await served.at_socket(control_directory(config.url, config.key))
        except (UnoError, OSError) as error:  # the service runs without it
            self._log.warning("live page has no socket", error=describe(error))
        if self._page is not None:
            address = await served.at_port(self._page)
            self._log.info(
                "live page", address=f"http://{address}", log_in=f"uno-actors dashboard {config.file} --link"
            )

    async def _until_it_ends(self) -> int:
        loop = asyncio.get_running_loop()
        ended = begin(loop, self._system.wait_stopped())
        told = begin(loop, self._must_stop.wait())
        reloading = begin(loop, self._keep_reloading())
        await asyncio.wait({ended, told}, return_when=asyncio.FIRST_COMPLETED)
        told.cancel()
        reloading.cancel()
        await self._system.stop(self._stop_within)
        try:
            await ended
        except SupervisorGaveUp as error:
            self._log.critical("system gave up", error=str(error))
            return GAVE_UP
        return STOPPED

    async def _keep_reloading(self) -> None:
        while True:
            await self._must_reload.wait()
            self._must_reload.clear()
            self._log.info("reading the configuration again", file=self.config.file)
            try:
                await self._reload()
            except InvalidConfig as error:
                for fault in error.faults:
                    self._log.error("configuration is wrong and nothing changes", fault=str(fault))
            except Exception as error:  # noqa: BLE001 - the service keeps running with the present configuration
                self._log.error("configuration cannot be applied", exc_info=error)

    async def _reload(self) -> None:
        config = replace(load(self.config.file), tenant=self.config.tenant)
        config = named(config if self._above is None else self._above.adapted(config), self._node_name)
        reloaded = await self._system.reload(config)
        write_logs(sys.stderr, config.logging.level, self._log_form or config.logging.format)
        log_findings(config)
        for table in ("system", "aggregates"):
            before, after = getattr(self.config, table), getattr(config, table)
            options = [f"{table}.{name}" for name, value in after if value != getattr(before, name)]
            if options:
                self._log.warning("changes take effect at the next start", options=options)
        if config.cluster != self.config.cluster:
            self._log.warning("changes take effect at the next start", options=["cluster"])
        for name, error in reloaded.failed.items():
            self._log.error("child cannot be started", child=name, exc_info=error)
        self._log.info("configuration applied", stopped=reloaded.stopped, started=reloaded.started)

    def _stop(self, number: int) -> None:
        name = signal.Signals(number).name
        if self._must_stop.is_set():
            self._log.critical("second signal: ending at once", signal=name)
            end_process(128 + number)
        self._log.info("stopping on signal", signal=name)
        self._stop_now()

    def _stop_for_above(self, seconds: float | None) -> None:
        """Stop as the process above wants it; one that has also sent a signal, or repeats itself, wants it once."""
        if not self._must_stop.is_set():
            self._stop_within = seconds
            self._stop_now()

    def _stop_now(self) -> None:
        self._must_stop.set()
        if self._main is not None:
            self._main.cancel()  # while it is starting


def run_service(
    config: Config,
    log_form: LogForm | None,
    early: EarlySignals,
    above: AboveService | None = None,
    page: Address | None = None,
    *,
    node_name: str | None = None,
) -> int:
    """Run the system of ``config`` in this process until it ends, and return the exit code. See `serve`."""
    try:
        return serve(config, log_form, early, above, page, node_name=node_name)
    except UnoError as error:
        log_of(config).critical("system cannot start", error=describe(error))
    except Exception as error:  # noqa: BLE001 - the constructor of a handler or an actor may raise anything
        log_of(config).critical("system cannot start", exc_info=error)
    return CANNOT_START


def serve(
    config: Config,
    log_form: LogForm | None,
    early: EarlySignals,
    above: AboveService | None = None,
    page: Address | None = None,
    *,
    node_name: str | None = None,
) -> int:
    """Run the system of ``config`` in this process, which logs to its standard error, and return the exit code.

    Args:
        config: Configuration of the system.
        log_form: Log format, in place of the file's.
        early: Signals that arrived while the file was read.
        above: See `Service`.
        page: See `Service`.
        node_name: See `Service`.

    Raises:
        Exception: The system cannot start.
    """
    sys.setswitchinterval(SWITCH_EVERY)
    write_logs(sys.stderr, config.logging.level, log_form or config.logging.format)
    log_warnings(log_of(config))
    log_findings(config)

    async def run() -> int:
        return await Service(config, log_form, early, above, page, node_name=node_name).run()

    return asyncio.run(run())


def named(config: Config, node_name: str | None) -> Config:
    """``config`` with another name of its node; ``None`` leaves that of the file.

    Raises:
        InvalidCluster: It is not a node of a cluster, or cannot have this name.
    """
    if node_name is None:
        return config
    if config.cluster is None:
        raise InvalidCluster(
            "name", f"--node-name names a node of a cluster: add [cluster] to {config.file}, or --workers"
        )
    return replace(config, cluster=replace(config.cluster, name=node_name))


def log_of(config: Config) -> Logger:
    """The log of the process that runs the system of a file."""
    name = config.system.name
    return get_logger(system=name, node=node_name(name, config.cluster), actor="service")


def log_findings(config: Config) -> None:
    """Warn of rules that contradict each other."""
    log = log_of(config)
    for finding in analyse(config.supervisors, config.system.stop_timeout).findings:
        is_contradiction = finding.severity == "contradiction"
        log.warning(
            "rules contradict each other" if is_contradiction else "rules should be checked",
            finding=str(config.fault(finding.path, finding.option, finding.reason)),
        )


def log_warnings(log: Logger) -> None:
    """Log what Python's `warnings` would print between the lines of the log."""

    def show(
        message: Warning | str,
        category: type[Warning],
        filename: str,
        lineno: int,
        file: TextIO | None = None,
        line: str | None = None,
    ) -> None:
        log.warning(str(message), category=category.__name__, at=f"{filename}:{lineno}")

    warnings.showwarning = show


def on_record(systems: Callable[[], Iterable[ActorSystem]]) -> None:
    """Write the latest steps of ``systems()`` to files on each SIGUSR1, even while code holds their event loop.

    So it is a signal handler of Python, which runs between two steps of that code, and writes on a thread of its own.
    """
    if RECORD is None:
        return

    def write() -> None:
        for system in systems():
            with contextlib.suppress(SystemNotRunning):  # it has not begun to start
                system.recording.write_if_possible("SIGUSR1")

    signal.signal(
        RECORD, lambda _number, _frame: threading.Thread(target=write, name="uno-recording").start()
    )


def on_signal(loop: asyncio.AbstractEventLoop, number: int, call: Callable[[], object]) -> None:
    """Call ``call`` on ``loop`` on each signal of this number."""
    try:
        loop.add_signal_handler(number, call)
    except NotImplementedError:  # on Windows, whose event loops handle no signals
        signal.signal(number, lambda _number, _frame: loop.call_soon_threadsafe(call))


def end_process(code: int) -> None:
    """End the process now, after its output is written, without waiting for threads."""
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(OSError, ValueError):
            stream.flush()
    os._exit(code)
