"""Code that the simulation cannot control is named at its line: it would make runs with one seed differ."""

import asyncio
import os
import sys
from collections.abc import Callable
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import Any

from uno_actors.actors.watchdog import LIBRARIES, line_of, own_frame
from uno_actors.errors import UnoError, describe

SOCKET = "a real socket: give the system a stand-in for the service that it calls"
PROCESS = "a real process: give the system a stand-in for it"
PIPE = "a real file descriptor: give the system a stand-in for what is behind it"
SIGNAL = "signals of the machine: handle them in the program, not in the system that is simulated"

BY_EVENT = {
    "socket.__new__": SOCKET,
    "socket.getaddrinfo": SOCKET,
    "socket.gethostbyname": SOCKET,
    "subprocess.Popen": PROCESS,
    "os.fork": PROCESS,
    "os.exec": PROCESS,
    "os.posix_spawn": PROCESS,
    "os.spawn": PROCESS,
    "os.system": PROCESS,
}
"""What escapes, by the audit event of Python that tells of it."""

BY_METHOD = {
    **dict.fromkeys(
        (
            "connect_accepted_socket",
            "create_connection",
            "create_datagram_endpoint",
            "create_server",
            "create_unix_connection",
            "create_unix_server",
            "getaddrinfo",
            "getnameinfo",
            "sendfile",
            "sock_accept",
            "sock_connect",
            "sock_recv",
            "sock_recv_into",
            "sock_recvfrom",
            "sock_recvfrom_into",
            "sock_sendall",
            "sock_sendfile",
            "sock_sendto",
            "start_tls",
        ),
        SOCKET,
    ),
    **dict.fromkeys(("subprocess_exec", "subprocess_shell"), PROCESS),
    **dict.fromkeys(
        (
            "add_reader",
            "add_writer",
            "connect_read_pipe",
            "connect_write_pipe",
            "remove_reader",
            "remove_writer",
        ),
        PIPE,
    ),
    **dict.fromkeys(("add_signal_handler", "remove_signal_handler"), SIGNAL),
}
"""What escapes, by the method of an event loop that does it."""

OURS = str(Path(__file__).parents[2]) + os.sep
IMPORTS = "<frozen importlib"
"""Beginning of the file names of Python's code that imports modules."""
PACKAGES = f"{os.sep}site-packages{os.sep}"
"""In the paths of installed packages."""

WAITS = "a wait for another thread, of which a run has none: use asyncio.Event, asyncio.Queue and the like, and await"
THREAD = "a thread of its own: use a plain function as handler, or asyncio.to_thread"
LOOP = "an event loop of its own, as asyncio.run makes one: use async def, and await"
SLEEP = "time.sleep: await asyncio.sleep"
BLOCKS = "a plain function that waits for a reply: use async def, and await it"
CLOCK = (
    "the machine's clock, under a name that the simulation does not replace: read it by its module, as in"
    " lambda: time.time()"
)


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
        own = _users_frame(frame) or frame
        line = what if own is None else f"{what}, at {line_of(own)}"
        self.lines[line] = None
        return EscapesSimulation([line])


def _is_ours(frame: FrameType) -> bool:
    """Whether it is the framework that calls; the standard library may look at the machine's clock."""
    return frame.f_code.co_filename.startswith(OURS)


def _users_frame(frame: FrameType | None) -> FrameType | None:
    """The innermost frame of the user's own code: that of the task, if only packages are on the stack.

    A package may run what it does on a stack of its own, as SQLAlchemy does with drivers.
    """
    innermost = own_frame(frame)
    for start in (innermost, *frames_of_task()):
        own = start
        while own is not None and not is_users(own):
            own = own_frame(own.f_back)
        if own is not None:
            return own
    return innermost


def is_users(frame: FrameType) -> bool:
    """Whether it is the user's own code, in a file: a method that ``@dataclass`` makes has none."""
    file = frame.f_code.co_filename
    return not (file.startswith((*LIBRARIES, "<")) or PACKAGES in file)


def told_with_line(error: BaseException) -> str:
    """Class and text of an error, and the innermost line of the user's code that has raised it; of all in a group."""
    if isinstance(error, BaseExceptionGroup):
        return "; ".join([describe(error), *map(told_with_line, error.exceptions)])
    own, place = None, error.__traceback__
    while place is not None:
        if is_users(place.tb_frame):
            own = f"{place.tb_frame.f_code.co_filename}:{place.tb_lineno} in {place.tb_frame.f_code.co_name}"
        place = place.tb_next
    text = describe(error).removesuffix(": ")
    return text if own is None or isinstance(error, EscapesSimulation) else f"{text}, at {own}"


def is_import(frame: FrameType | None) -> bool:
    """Whether a module is imported by what ``frame`` does: that happens once, and in no run."""
    while frame is not None:
        if frame.f_code.co_filename.startswith(IMPORTS):
            return True
        frame = frame.f_back
    return False


def frames_of_task(task: "asyncio.Task[Any] | None" = None) -> list[FrameType]:
    """Where the coroutines of a task are, the innermost first; default is the task that runs."""
    try:
        task = task or asyncio.current_task()
    except RuntimeError:  # a worker
        return []
    coroutine: Any = None if task is None else task.get_coro()
    frames: list[FrameType] = []
    while coroutine is not None:
        frame = getattr(coroutine, "cr_frame", None) or getattr(coroutine, "gi_frame", None)
        if frame is not None:
            frames.insert(0, frame)
        coroutine = getattr(coroutine, "cr_await", None) or getattr(coroutine, "gi_yieldfrom", None)
    return frames


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
    if event in BY_EVENT and (guard := _current()) is not None and not is_import(sys._getframe(1)):
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
        if (id(function) in clocks or is_now) and (_is_ours(frame) or own_frame(frame) is frame):
            guard.escapes(CLOCK, frame)

    before = sys.getprofile()
    sys.setprofile(called)
    try:
        yield
    finally:
        sys.setprofile(before)
