"""The flight recorder of a system, as a program uses it: read its steps, and write them to a file."""

import asyncio
import os
import time
from pathlib import Path

from uno_actors.errors import RecordingNotWritten, describe
from uno_actors.flight_recorder import files
from uno_actors.flight_recorder.files import Recording
from uno_actors.flight_recorder.ring import FlightRecorder
from uno_actors.flight_recorder.steps import Step
from uno_actors.logs import get_logger

LINKS, DIRECTORY = "links", "recordings"
"""How the name of a store's directory for sockets ends, and that of the one for recordings beside it."""
PAUSE = 60.0
"""Seconds after a recording of a command that has timed out in which no other such recording is written."""


class SystemRecording:
    """The latest steps of a system on this node; `ActorSystem.recording`.

    The recorder itself is in memory. It writes a file when the system gives up, when the service gets SIGUSR1, when a
    command has timed out (option ``record_timeouts``), and when `write` is called. A signal that ends the process at
    once, such as SIGKILL or SIGSEGV, leaves no file.

    Args:
        system: Name of the system.
        node: Name of the node.
        steps: Maximum number of steps; 0 records nothing.
        directory: Where files are written; ``None`` for the directory of the store.
        on_timeout: Whether a command that has timed out has a file written.
    """

    def __init__(
        self, system: str, node: str, steps: int, directory: str | None, *, on_timeout: bool = False
    ) -> None:
        self._system = system
        self._process = os.getpid()
        self._directory = None if directory is None else Path(directory)
        self._loop: asyncio.AbstractEventLoop | None = None
        self._written_at = -PAUSE
        self._log = get_logger(system=system, node=node, actor="flight recorder")
        self._writing: set[asyncio.Future[None]] = set()
        self.recorder = FlightRecorder(steps, node, self._timed_out if on_timeout else None)

    @property
    def is_on(self) -> bool:
        """Whether steps are recorded."""
        return self.recorder.size > 0

    @property
    def directory(self) -> Path | None:
        """Where files are written; ``None`` if there is no such place."""
        return self._directory

    def begin(self, links: Path | None) -> None:
        """Take a directory beside ``links``, that of the store, unless one is given; on the system's event loop."""
        self._loop = asyncio.get_running_loop()
        if self._directory is None and links is not None:
            self._directory = links.with_name(links.name.removesuffix(LINKS) + DIRECTORY)

    def steps(self) -> tuple[Step, ...]:
        """The steps, the latest last; from any thread."""
        return self.recorder.steps()

    def steps_of(self, wanted: str) -> tuple[Step, ...]:
        """The steps that are about an id, the latest last; see `ActorSystem.steps_of`."""
        return self.recorder.steps_of(wanted)

    def now(self, why: str = "asked for") -> Recording:
        """The steps with what is known of the node, as they are written to a file."""
        return Recording.now(self._system, self.recorder.node, why, self.steps())

    def write(self, directory: str | os.PathLike[str] | None = None, *, why: str = "asked for") -> Path:
        """Write the steps to a new file that only its owner may read, and return its path. From any thread.

        It takes about a tenth of a second, in which the calling thread is blocked: on an event loop use
        ``await asyncio.to_thread(system.recording.write)``. The directory keeps the latest 20 files.

        Args:
            directory: Where; default is the option ``recordings``, or the directory ``recordings`` of the store.
            why: The reason, for the header of the file.

        Raises:
            RecordingNotWritten: There is no directory, the recorder is off, the process was forked, or the file cannot
                be written.
        """
        place = self._directory if directory is None else Path(directory)
        if self._process != os.getpid():
            raise RecordingNotWritten(self._system, "this process was forked from that of the system")
        if not self.is_on:
            raise RecordingNotWritten(self._system, "the recorder is off: give the system recorder=True")
        if place is None:
            raise RecordingNotWritten(
                self._system, "its store has no directory: give the system recordings='DIRECTORY'"
            )
        try:
            path = files.write(self.now(why), place)
        except OSError as error:
            raise RecordingNotWritten(self._system, describe(error)) from error
        self._log.warning("recording written", file=str(path), why=why)
        return path

    def write_if_possible(self, why: str) -> None:
        """As `write`; log the reason if it cannot be written. Without effect if the recorder is off."""
        if not self.is_on:
            return
        try:
            self.write(why=why)
        except RecordingNotWritten as error:
            self._log.warning("recording is not written", reason=error.reason, why=why)

    def _timed_out(self) -> None:
        """Write a file from a thread of its own, at most once a minute."""
        now = time.monotonic()
        if self._loop is None or now - self._written_at < PAUSE:
            return
        self._written_at = now
        self._loop.call_soon_threadsafe(self._begin_writing, "a command has timed out")

    def _begin_writing(self, why: str) -> None:
        assert self._loop is not None
        writing = self._loop.run_in_executor(None, self.write_if_possible, why)
        self._writing.add(writing)
        writing.add_done_callback(self._writing.discard)
