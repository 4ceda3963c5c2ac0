"""What the supervisor process and a worker process tell each other, over a pair of sockets.

The worker writes ``ready``. The supervisor writes ``stop SECONDS``. Each sees the end of the other as the end of the
connection, even if it was killed: a worker whose supervisor has gone stops in order.
"""

import contextlib
import socket
import threading
import time
from collections.abc import Callable

from uno_actors.cli.service import GAVE_UP, STOPPED, end_process
from uno_actors.logs import get_logger

READY = b"ready\n"
GRACE = 5.0
"""Seconds that a worker may take longer to stop than it was given, before it is ended."""

Stop = Callable[[float | None], object]
"""Stops the system of a worker within so many seconds, or within its own time; safe to call from any thread."""


def stop_line(seconds: float) -> bytes:
    """The line that has a worker stop within so many seconds."""
    return f"stop {seconds:.3f}\n".encode()


class SupervisorLink:
    """A worker's end of the connection. A thread reads it, so that a busy event loop does not delay the end.

    Args:
        descriptor: Of the socket.
        stop_timeout: Seconds that the system takes to stop if its supervisor process has gone.
    """

    def __init__(self, descriptor: int, stop_timeout: float) -> None:
        self._socket = socket.socket(fileno=descriptor)
        self._stop_timeout = stop_timeout
        self._stop: Stop | None = None
        self._lock = threading.Lock()
        self._log = get_logger()

    def listen(self) -> None:
        """Obey the supervisor from now on: while nothing runs yet, a stop ends the process at once."""
        threading.Thread(target=self._read, name="uno-supervisor-link", daemon=True).start()

    def attach(self, stop: Stop) -> None:
        """Have ``stop`` called from now on."""
        with self._lock:
            self._stop = stop

    def ready(self) -> None:
        """Tell the supervisor that the system runs."""
        with contextlib.suppress(OSError):  # it has gone, and the thread sees that, too
            self._socket.sendall(READY)

    def _read(self) -> None:
        with self._socket.makefile("rb") as lines:
            while True:
                try:
                    line = lines.readline()
                except OSError:
                    line = b""
                match line.split():
                    case [b"stop", seconds]:
                        self._obey(float(seconds))
                    case []:
                        break
        self._log.warning("the supervisor process has gone")
        self._obey(None)
        time.sleep(self._stop_timeout + GRACE)
        end_process(GAVE_UP)

    def _obey(self, seconds: float | None) -> None:
        with self._lock:
            stop = self._stop
        if stop is None:
            end_process(STOPPED)
            return
        with contextlib.suppress(RuntimeError):  # the loop has ended: so does the process
            stop(seconds)
