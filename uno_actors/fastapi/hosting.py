"""The actor system of an application: it starts and stops with it."""

import asyncio
import os
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import Any

from starlette.applications import Starlette
from starlette.requests import HTTPConnection

from uno_actors.errors import NoSystem, SupervisorGaveUp
from uno_actors.fastapi.servers import Server
from uno_actors.giving_up import GAVE_UP, end_process_with
from uno_actors.system.system import ActorSystem
from uno_actors.tasks import begin

KEY = "uno_actors"
"""Name of the `Hosted` in the state of the application."""


class Hosted:
    """The system of an application while it serves.

    Args:
        system: A running system.
        exit_code: See `lifespan`.
    """

    def __init__(self, system: ActorSystem, exit_code: int | None) -> None:
        self.system = system
        self.stopping = asyncio.Event()
        self._exit_code = exit_code
        self._when_stopping: list[Callable[[], object]] = []
        self._server = Server(self.stop_streams)
        self._watching = begin(asyncio.get_running_loop(), self._until_it_gives_up())

    def stop_streams(self) -> None:
        """The server begins to stop, or the application does: end what would not end by itself."""
        self.stopping.set()
        while self._when_stopping:
            self._when_stopping.pop()()

    def call_when_stopping(self, call: Callable[[], object]) -> None:
        """Have ``call`` called when the server begins to stop; it must not raise."""
        self._when_stopping.append(call)

    def close(self) -> None:
        """Watch neither the system nor the server any longer."""
        self._watching.cancel()
        self._server.close()

    async def _until_it_gives_up(self) -> None:
        try:
            await self.system.wait_stopped()
        except SupervisorGaveUp as error:
            log = self.system._log.bind(actor="fastapi")
            if self._exit_code is None or not self._server.is_found:
                log.critical(
                    "supervisors gave up; the application serves on without its system", error=str(error)
                )
                return
            log.critical("supervisors gave up; the server stops", error=str(error), exit_code=self._exit_code)
            end_process_with(self._exit_code)
            self.stop_streams()
            self._server.stop()


def lifespan(
    system: ActorSystem | str | os.PathLike[str] | Callable[[], ActorSystem],
    *,
    exit_code: int | None = GAVE_UP,
    **options: Any,
) -> Callable[[Starlette], AbstractAsyncContextManager[dict[str, Any]]]:
    """The lifespan of an application that starts an actor system and stops it: ``FastAPI(lifespan=lifespan(...))``.

    When the application stops, the system answers the commands that it has accepted, lets handlers finish, and writes
    their checkpoints. Path operations get the system by `System`, those of mounted sub-applications too.

    To do more, call it in a lifespan of your own: ``async with lifespan("bank.toml")(app) as state: ... yield state``.

    Args:
        system: The path of a configuration file; or a function that makes a system, called each time the application
            starts; or a system that has not started, for an application that starts once.
        exit_code: Code with which the process ends when the system's supervisors have given up, so that a service
            manager starts it again. A server that keeps workers replaces the worker. ``None`` to keep serving: commands
            are then answered with 503.
        **options: With a file: options of `ActorSystem` that override those of the file, such as ``cluster=True`` to
            make each worker of the server a node.

    Raises:
        TypeError: ``options`` without a file.
    """
    if options and not isinstance(system, (str, os.PathLike)):
        raise TypeError(
            f"options of lifespan() go with a file; give them to the system: {', '.join(options)}"
        )

    @asynccontextmanager
    async def running(app: Starlette) -> AsyncIterator[dict[str, Any]]:
        async with _made(system, options) as started:
            hosted = Hosted(started, exit_code)
            setattr(app.state, KEY, hosted)
            try:
                yield {KEY: hosted}
            finally:
                hosted.stop_streams()
                hosted.close()

    return running


def _made(
    system: ActorSystem | str | os.PathLike[str] | Callable[[], ActorSystem], options: dict[str, Any]
) -> ActorSystem:
    if isinstance(system, (str, os.PathLike)):
        return ActorSystem.from_config(system, **options)
    return system if isinstance(system, ActorSystem) else system()


def running_system(app: Starlette) -> ActorSystem:
    """The system of an application that runs, for tests and tasks outside of requests.

    Raises:
        NoSystem: Its lifespan is not that of `lifespan`, or has not started.
    """
    hosted: Hosted | None = getattr(app.state, KEY, None)
    if hosted is None:
        raise NoSystem
    return hosted.system


def hosted_of(connection: HTTPConnection) -> Hosted:
    """The system that serves a connection.

    Raises:
        NoSystem: As for `running_system`.
    """
    # The state of the lifespan reaches mounted applications; servers without it leave that of the application.
    found = (connection.scope.get("state") or {}).get(KEY) or getattr(connection.app.state, KEY, None)
    if found is None:
        raise NoSystem
    hosted: Hosted = found
    return hosted
