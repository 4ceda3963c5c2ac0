"""How slow this machine is: limits of tests scale by it.

It is measured once, at the start of a run; deadlines of whole tests scale by that. Limits inside of tests scale by the
load at that moment too, since other work may begin later.

A limit ends what hangs. It must not end what is right, on a machine that has other work to do as well.
"""

import hashlib
import os
import time
from functools import cache

MEASURED = "UNO_TESTS_SLOWNESS"
"""The environment variable in which the process that starts a run passes its measurement to the workers."""

ROUNDS = 80
REFERENCE = 0.2
"""Seconds that the rounds of work take on a quiet core of the machine that the limits were written on."""

MOST = 10.0
"""The largest slowness that counts, so that a test that hangs is ended some day."""


def slowness(seconds: float, load: float, workers: int, cores: int) -> float:
    """How many times longer everything may take than on a quiet machine, at least 1.

    Args:
        seconds: What the rounds of work took: tells of slow cores, and of a limit that a container has.
        load: Processes that want a core already.
        workers: Processes of the run that is about to start.
        cores: How many there are for all of them.
    """
    shared = max(1.0, (load + workers) / cores)
    return min(MOST, max(1.0, seconds / REFERENCE) * shared)


def seconds_of_work() -> float:
    began = time.perf_counter()
    for _ in range(ROUNDS):
        hashlib.pbkdf2_hmac("sha256", b"some", b"work", 8_000)
    return time.perf_counter() - began


def measure(workers: int) -> None:
    """Measure for this process and for those that it starts, unless that was done."""
    if MEASURED not in os.environ:
        found = slowness(seconds_of_work(), os.getloadavg()[0], workers, cores())
        os.environ[MEASURED] = f"{found:.2f}"


def cores() -> int:
    """The cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


@cache
def _measured() -> float:
    return float(os.environ.get(MEASURED, "1"))


def deadline(seconds: float) -> float:
    """The deadline of a test that has ``seconds`` on a quiet machine."""
    return seconds * _measured()


def patience(seconds: float) -> float:
    """Seconds to wait here and now for something that takes less than ``seconds`` on a quiet machine, or hangs."""
    return seconds * max(_measured(), min(MOST, os.getloadavg()[0] / cores()))
