"""Code that the simulation cannot control is named at its line: it would make runs with one seed differ."""

import sys
from collections.abc import Callable
from contextlib import contextmanager
from types import FrameType
from typing import Any

from uno_actors.actors.watchdog import line_of, own_frame
from uno_actors.errors import UnoError

BY_EVENT = {
    "socket.__new__": "a real socket: give the system a stand-in for the service that it calls",
    "subprocess.Popen": "a real process",
    "os.fork": "a real process",
    "os.posix_spawn": "a real process",
    "os.system": "a real process",
}
"""What escapes, by the audit event of Python that tells of it."""

THREAD = "a thread of its own: use a plain function as handler, or asyncio.to_thread"
SLEEP = "time.sleep: await asyncio.sleep"
BLOCKS = "a plain function that waits for a reply: use async def, and await it"
CLOCK = "the machine's clock, under a name that the simulation does not replace: read it by its module"


class EscapesSimulation(UnoError):
    """A scenario, or a system in it, does what the simulation does not control.

    Attributes:
        lines: What, and where: ``what, at file:line in function``.
    """

    def __init__(self, lines: list[str]) -> None:
        self.lines = lines
        super().__init__("; ".join(["not all of this code can be simulated", *lines]))


class Guard:
    """Notes what escapes from a run.

    Attributes:
        lines: What has escaped, in its order.
    """

    def __init__(self) -> None:
        self.lines: dict[str, None] = {}

    def escapes(self, what: str, frame: FrameType | None) -> EscapesSimulation:
        """Note that the code of ``frame`` escapes; the error for it."""
        own = own_frame(frame) or frame
        line = what if own is None else f"{what}, at {line_of(own)}"
        self.lines[line] = None
        return EscapesSimulation([line])


_current: Callable[[], Guard | None] = lambda: None  # noqa: E731 - replaced below
_is_installed = False


def install(current: Callable[[], Guard | None]) -> None:
    """Have Python report what escapes to the guard of the run on the thread that does it.

    Args:
        current: The guard of the run on this thread, if there is one.
    """
    global _current, _is_installed  # noqa: PLW0603 - Python has one list of audit hooks, and forgets none
    _current = current
    if not _is_installed:
        sys.addaudithook(_audit)
        _is_installed = True


def _audit(event: str, arguments: tuple[Any, ...]) -> None:
    if event in BY_EVENT and (guard := _current()) is not None:
        raise guard.escapes(BY_EVENT[event], sys._getframe(1))


@contextmanager
def watching(guard: Guard, clocks: frozenset[int], datetimes: type) -> Any:
    """Inside the block notice also calls of the machine's clocks, by whatever name; it takes three times as long.

    Args:
        guard: Of the run.
        clocks: Ids of the real functions.
        datetimes: The real class of datetimes, whose ``now`` is such a function too.
    """

    def called(frame: FrameType, event: str, function: Any) -> None:
        if event != "c_call":
            return
        is_now = getattr(function, "__self__", None) is datetimes and function.__name__ in (
            "now",
            "utcnow",
            "today",
        )
        if (id(function) in clocks or is_now) and (own := own_frame(frame)) is frame:
            guard.escapes(CLOCK, own)

    before = sys.getprofile()
    sys.setprofile(called)
    try:
        yield
    finally:
        sys.setprofile(before)
