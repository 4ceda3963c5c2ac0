"""How a service ends when the supervisors of its system give up: with a code that tells its service manager."""

import atexit
import logging
import os
import sys
import threading
from contextlib import suppress

GAVE_UP = 70
"""Exit code of a web service whose supervisors gave up: EX_SOFTWARE of sysexits.h.

It is not 3, the code of ``uno-actors run``: uvicorn and gunicorn take 3 from a worker for a program that cannot start,
and end all others with it.
"""

GRACE = 10.0
"""Seconds for requests in progress, after the system has given up and stopped; then the process ends regardless."""


def end_process_with(code: int, within: float = GRACE) -> None:
    """Let this process end with an exit code: when it ends by itself, and at the latest after ``within`` seconds.

    A server returns normally after it was stopped, and the process would end with 0, which means to a service manager
    that all is well.
    """
    atexit.register(_end_now, code)
    limit = threading.Timer(within, _end_now, (code,))
    limit.daemon = True
    limit.start()


def _end_now(code: int) -> None:
    logging.shutdown()
    for stream in (sys.stdout, sys.stderr):
        with suppress(OSError, ValueError):
            stream.flush()
    os._exit(code)
