"""The ASGI server that runs this process: whether it is stopping, and how to stop it.

ASGI tells an application of the server's end only when all its responses are complete. An endless response has to
know earlier: otherwise the server waits for the response, and the response for the server.

uvicorn, also as a worker of gunicorn, is found as the owner of the process's signal handlers. It has to be looked at,
since it stops for other reasons than signals too, such as ``--limit-max-requests``. Of other servers only the signals
are noticed.
"""

import asyncio
import signal
import threading
from collections.abc import Callable
from contextlib import suppress
from types import FrameType
from typing import Any

from uno_actors.ops.shutdown import uvicorn_here

LOOK_SECONDS = 0.1
"""Seconds between two looks at uvicorn, which looks at its own signals as often."""

SIGNALS = (signal.SIGTERM, signal.SIGINT)


class Server:
    """The server of this process, for the duration of the application.

    In a test without a server, or with one in another thread, nothing is found: it never stops, and cannot be stopped.

    Args:
        on_stop: Called on the loop when the server begins to stop.
    """

    def __init__(self, on_stop: Callable[[], None]) -> None:
        self._loop = asyncio.get_running_loop()
        self._on_stop = on_stop
        self._uvicorn: Any = uvicorn_here()
        self._next_look: asyncio.TimerHandle | None = None
        self._replaced: dict[int, Any] = {}
        if self._uvicorn is not None:
            self._look()
        elif threading.current_thread() is threading.main_thread():
            self._notice_signals()

    @property
    def is_found(self) -> bool:
        """Whether there is a server that can be stopped."""
        return self._uvicorn is not None or bool(self._replaced)

    def stop(self) -> None:
        """Have the server stop, as on SIGTERM: it completes its responses and ends the application."""
        if self._uvicorn is not None:
            self._uvicorn.should_exit = (
                True  # a signal would become the end of the process, in place of a code
            )
        elif self._replaced:
            signal.raise_signal(signal.SIGTERM)

    def close(self) -> None:
        """Look at the server no more."""
        if self._next_look is not None:
            self._next_look.cancel()
        for number, handler in self._replaced.items():
            if signal.getsignal(number) == self._signalled:
                signal.signal(number, handler)

    def _look(self) -> None:
        servers = getattr(self._uvicorn, "servers", ())
        if self._uvicorn.should_exit or not all(server.is_serving() for server in servers):
            self._on_stop()
        else:
            self._next_look = self._loop.call_later(LOOK_SECONDS, self._look)

    def _notice_signals(self) -> None:
        for number in SIGNALS:
            handler = signal.getsignal(number)
            if callable(handler) and handler is not signal.default_int_handler:
                self._replaced[number] = handler
                signal.signal(number, self._signalled)

    def _signalled(self, number: int, frame: FrameType | None) -> None:
        with suppress(RuntimeError):  # the loop is closed
            self._loop.call_soon_threadsafe(self._on_stop)
        self._replaced[number](number, frame)
