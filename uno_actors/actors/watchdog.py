"""The watchdog: reports code that holds an event loop or a worker thread for too long.

An event loop that runs one function cannot run any other; for worker threads that are held, spare ones are started. The
watchdog runs on its own thread, so that it sees both while they are held.
"""

import sys
import sysconfig
import threading
import traceback
from collections.abc import Callable
from pathlib import Path
from time import monotonic
from types import FrameType
from typing import NamedTuple

from uno_actors.actors.dispatcher import Dispatcher
from uno_actors.forks import on_fork
from uno_actors.logs import Logger

HELD_SECONDS = 1.0
"""How long code may hold a loop or a worker thread before it is reported; again after twice the time, and so on."""
LOOK_SECONDS = 0.5
"""Seconds between two checks; each checks that the loop responds."""

LIBRARIES = (sysconfig.get_path("stdlib"), str(Path(__file__).parent.parent))
"""Folders of code that is not reported: the innermost line outside them is."""


class Watchdog:
    """Watches dispatchers; its thread lives while there are any.

    Attributes:
        holds: How often code was reported.
        looks: How often it has checked what it watches.
    """

    def __init__(self) -> None:
        self.forget_all()

    def forget_all(self) -> None:
        """Start over, without dispatchers."""
        self.holds = 0
        self.looks = 0
        self._watched: dict[Dispatcher, _Pulse] = {}
        self._reported: dict[
            tuple[int, float], float
        ] = {}  # by thread and start: after how many seconds it was reported
        self._lock = threading.RLock()
        self._changed = threading.Event()

    def watch(self, dispatcher: Dispatcher) -> None:
        """Watch ``dispatcher`` until `forget`, unless its loop brings workers of its own, as in a simulation."""
        if getattr(dispatcher.loop, "workers", None) is not None:
            return
        with self._lock:
            if not self._watched:
                self._changed = threading.Event()
                run = threading.Thread(
                    target=self._run, args=[self._changed], name="uno-watchdog", daemon=True
                )
                run.start()
            self._watched.setdefault(dispatcher, _Pulse(dispatcher))

    def forget(self, dispatcher: Dispatcher) -> None:
        """Stop watching ``dispatcher``."""
        with self._lock:
            self._watched.pop(dispatcher, None)
            if not self._watched:
                self._changed.set()

    def on_pulse(self, dispatcher: Dispatcher, listener: Callable[[float], object]) -> None:
        """Have ``listener`` called on a watched loop with how late it ran each check's callback, in seconds."""
        with self._lock:
            if (pulse := self._watched.get(dispatcher)) is not None:
                pulse.listeners.append(listener)

    def when_held(self, dispatcher: Dispatcher, listener: Callable[[], object]) -> Callable[[], object]:
        """Have ``listener`` called on the watchdog's thread at each check that finds the loop of a dispatcher held.

        Returns:
            What ends that.
        """
        with self._lock:
            pulse = self._watched.get(dispatcher)
            if pulse is None:
                return lambda: None
            pulse.while_held.append(listener)
            return lambda: pulse.while_held.remove(listener)

    def held(self, dispatcher: Dispatcher) -> "Held | None":
        """What holds the loop of a dispatcher for longer than a check; ``None`` if it responds."""
        pulse = self._watched.get(dispatcher)
        since = None if pulse is None else pulse.asked
        if since is None or monotonic() - since < LOOK_SECONDS or dispatcher.thread is None:
            return None
        frame = sys._current_frames().get(dispatcher.thread)
        own = own_frame(frame) or frame
        return Held(monotonic() - since, None if own is None else line_of(own))

    def watches(self, dispatcher: Dispatcher) -> bool:
        """Whether ``dispatcher`` is watched."""
        return dispatcher in self._watched

    def _run(self, stopped: threading.Event) -> None:
        while not stopped.wait(LOOK_SECONDS):
            with self._lock:
                watched = list(self._watched.items())
            held: dict[tuple[int, float], tuple[str, Logger]] = {}
            for dispatcher, pulse in watched:
                busy = tuple(dispatcher.workers.busy.items())
                held.update(dict.fromkeys(busy, ("a worker thread", dispatcher.log)))
                long_ago = monotonic() - HELD_SECONDS
                dispatcher.workers.relieve(sum(since <= long_ago for _, since in busy))
                asked = pulse.unanswered()
                if asked is not None and dispatcher.thread is not None and dispatcher.loop.is_running():
                    held[dispatcher.thread, asked] = "the event loop", dispatcher.log
                    if monotonic() - asked >= HELD_SECONDS:
                        pulse.is_held()
            self._reported = {hold: after for hold, after in self._reported.items() if hold in held}
            for hold, (what, log) in held.items():
                self._report(hold, what, log)
            self.looks += 1

    def _report(self, hold: tuple[int, float], what: str, log: Logger) -> None:
        thread, since = hold
        seconds = monotonic() - since
        frame = sys._current_frames().get(thread)
        if frame is None or seconds < max(HELD_SECONDS, 2 * self._reported.get(hold, 0.0)):
            return
        self._reported[hold] = seconds
        self.holds += 1
        stack = "".join(traceback.format_stack(frame)).rstrip()
        event = f"code holds {what}"
        log.warning(
            event,
            actor="watchdog",
            seconds=round(seconds, 3),
            at=line_of(own_frame(frame) or frame),
            stack=stack,
        )


class Held(NamedTuple):
    """What holds an event loop.

    Attributes:
        seconds: Since it was found not to respond.
        line: The line of the program's code that is being executed, or else of ours; ``None`` if it has just ended.
    """

    seconds: float
    line: str | None


class _Pulse:
    """Checks that a loop responds."""

    def __init__(self, dispatcher: Dispatcher) -> None:
        self.listeners: list[Callable[[float], object]] = []
        self.while_held: list[Callable[[], object]] = []
        self._dispatcher = dispatcher
        self._asked: float | None = None

    def unanswered(self) -> float | None:
        """Since when a response is pending, on ``time.monotonic``'s clock; if none is, request one."""
        asked = self._asked
        if asked is None:
            self._asked = monotonic()
            self._dispatcher.post(self._answer)
        return asked

    @property
    def asked(self) -> float | None:
        """Since when a response is pending; ``None`` if none is."""
        return self._asked

    def is_held(self) -> None:
        """Call what is to be called while the loop is held."""
        for listener in tuple(self.while_held):
            try:
                listener()
            except Exception:  # the watchdog must continue
                self._dispatcher.log.exception("a question to a held loop failed")

    def _answer(self) -> None:
        asked, self._asked = self._asked, None
        if asked is not None:
            seconds = monotonic() - asked
            for listener in self.listeners:
                listener(seconds)


def own_frame(frame: FrameType | None) -> FrameType | None:
    """The innermost frame, from here outwards, that is neither the standard library's nor ours."""
    while frame is not None and frame.f_code.co_filename.startswith(LIBRARIES):
        frame = frame.f_back
    return frame


def line_of(frame: FrameType) -> str:
    """``file:line in function``."""
    return f"{frame.f_code.co_filename}:{frame.f_lineno} in {frame.f_code.co_name}"


watchdog = Watchdog()
"""The watchdog of this process."""

# A forked child has neither its thread nor the loops that it watched.
on_fork(after_in_child=watchdog.forget_all)
