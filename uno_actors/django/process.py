"""The actor system of this process: started on first use, and stopped when the process ends.

A server such as gunicorn may import the project before it forks its worker processes, Django's ``runserver`` imports it
in the process that watches the files too, and so does every other command of ``manage.py``. So nothing starts with an
import. A forked process forgets the system of its parent, and starts its own when it needs one.
"""

import asyncio
import atexit
import os
import signal
import threading
from typing import Any

from uno_actors.django.configuration import NAME, Configuration
from uno_actors.errors import SupervisorGaveUp
from uno_actors.forks import on_fork
from uno_actors.giving_up import end_process_with
from uno_actors.logs import get_logger
from uno_actors.system.system import ActorSystem
from uno_actors.tasks import begin


class _OfProcess:
    """What this process has. The lock lets one thread start the system while others wait for it."""

    is_watched: bool

    def __init__(self) -> None:
        self.forget()
        on_fork(after_in_child=self.forget)
        atexit.register(stop)  # where no main thread is seen to end, as in a server that embeds Python

    def stop_at_the_end(self) -> None:
        """Stop the system when the main thread ends, while other threads can still start: handlers may need some."""
        if not self.is_watched:
            self.is_watched = True
            threading.Thread(target=_stop_after_main_thread, name="uno-django-end").start()

    def forget(self) -> None:
        self.is_watched = False
        self.lock = threading.Lock()
        self.system: ActorSystem | None = None
        self.watching: asyncio.Task[None] | None = None


def system() -> ActorSystem:
    """The running system of this process. The first call starts it; that takes as long as opening its store.

    Returns:
        The same system until the process ends, even if its supervisors give up: `SystemNotRunning` is raised then.

    Raises:
        ImproperlyConfigured: The setting ``UNO_ACTORS`` is missing or wrong.
        InvalidConfig: The configuration file is invalid.
        StoreUnavailable: The store cannot be opened. The next call tries again.
    """
    running = _process.system
    if running is None:
        with _process.lock:
            running = _process.system
            if running is None:
                running = _process.system = _started(Configuration.of_settings())
    return running


def is_started() -> bool:
    """Whether this process has a system: it was used, and not stopped."""
    return _process.system is not None


def stop(timeout: float | None = None) -> None:
    """Stop the system of this process, if there is one; the next use starts another. The end of the process calls this.

    Args:
        timeout: Seconds; default is the system's ``stop_timeout``.
    """
    with _process.lock:
        running, _process.system = _process.system, None
    if running is not None:
        running.stop_sync(timeout)


def _stop_after_main_thread() -> None:
    threading.main_thread().join()
    stop()


def _started(configuration: Configuration) -> ActorSystem:
    made = configuration.new_system().start_sync()
    made.run(_watch(made, configuration.exit_code))
    _process.stop_at_the_end()
    return made


async def _watch(running: ActorSystem, exit_code: int | None) -> None:
    """Begin to wait for the end of a system, on its loop."""
    task = begin(asyncio.get_running_loop(), _until_it_gives_up(running, exit_code))
    _process.watching = task


async def _until_it_gives_up(running: ActorSystem, exit_code: int | None) -> None:
    """Stop the server when the system has given up. A process that is not a server, such as a shell, continues."""
    try:
        await running.wait_stopped()
    except SupervisorGaveUp as error:
        log = get_logger(system=running.name)
        if exit_code is None or not callable(signal.getsignal(signal.SIGTERM)):
            log.critical("supervisors gave up; the process continues without its system", error=str(error))
            return
        log.critical("supervisors gave up; the server stops", error=str(error), exit_code=exit_code)
        end_process_with(exit_code)
        os.kill(os.getpid(), signal.SIGTERM)


def setting_changed(*, setting: str, **_: Any) -> None:
    """Stop the system when a test changes its settings."""
    if setting == NAME:
        stop()


_process = _OfProcess()
