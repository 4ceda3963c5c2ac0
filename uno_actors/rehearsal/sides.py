"""The worker processes of one version of a program, as the rehearsal sees them."""

import contextlib
import os
import subprocess
import tempfile
import threading
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from types import TracebackType
from typing import Any, Self

from uno_actors.rehearsal.channel import Channel, Ended
from uno_actors.rehearsal.places import Place
from uno_actors.rehearsal.worker import PROTOCOL

END_WITHIN = 2.0
"""Seconds in which a worker may end by itself."""
MOST_ERROR = 4_000
"""Characters of the error output of a worker that has died."""

Heard = Callable[[str, Any], object]
"""Called with the name of a message and its contents."""


class CodeFailed(Exception):
    """A version of the program could not do what was asked; the text says which and why."""


class WorkerProcess:
    """One process that runs a version of a program.

    Args:
        side: ``old`` or ``new``, for errors.
        place: The version.
    """

    def __init__(self, side: str, place: Place) -> None:
        self._side = side
        self._place = place
        self._errors = tempfile.TemporaryFile()  # noqa: SIM115 - closed by `end`
        self._turn = threading.Lock()
        self._process = subprocess.Popen(  # noqa: S603 - the user's own interpreter
            [place.python, "-P", "-m", "uno_actors.rehearsal.worker"],
            cwd=place.root,
            env=dict(place.environment),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._errors,
        )
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._channel = Channel(self._process.stdout, self._process.stdin)

    def greet(self) -> None:
        """Wait until it has started.

        Raises:
            CodeFailed: It cannot, or it is of a version that speaks otherwise.
        """
        try:
            hello = self._channel.receive()
        except Ended:
            said = self._said()
            if "uno_actors" in said and "No module named" in said:
                raise CodeFailed(
                    f"{self._place.given} has no uno_actors that can rehearse: install this release there, or name a"
                    " revision or a directory instead of a virtual environment"
                ) from None
            raise CodeFailed(f"{self._side} code: its process has ended: {said}") from None
        if hello != ["hello", PROTOCOL]:
            raise CodeFailed(
                f"{self._place.given} has a uno_actors of another release: install this one there"
            )

    def ask(self, name: str, heard: Heard | None = None, **given: Any) -> Any:
        """The answer to a request; what comes before it is passed to ``heard``.

        Raises:
            CodeFailed: The request failed, or the process has died.
        """
        with self._turn:
            try:
                self._channel.send([name, given])
                while True:
                    what, contents = self._channel.receive()
                    if what == "done":
                        return contents
                    if what == "error":
                        raise CodeFailed(f"{self._side} code: {contents}")
                    if heard is not None:
                        heard(what, contents)
            except Ended:
                raise CodeFailed(f"{self._side} code: its process has ended: {self._said()}") from None

    def end(self) -> None:
        """End the process, gently at first."""
        process = self._process
        if process.poll() is None:
            process.terminate()
            try:
                process.wait(END_WITHIN)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
        for pipe in (process.stdin, process.stdout):
            if pipe is not None:
                with contextlib.suppress(OSError):
                    pipe.close()
        self._errors.close()

    def _said(self) -> str:
        """The end of its error output, and how it has ended."""
        code = self._process.wait()
        self._errors.seek(0)
        text = self._errors.read().decode(errors="replace").strip()
        return f"exit code {code}. {text[-MOST_ERROR:]}".strip()


class Side:
    """The workers of one version.

    Args:
        name: ``old`` or ``new``.
        place: The version.
        workers: Number of processes.
        url: Of the store.
        sources: A configuration file, or modules.
    """

    def __init__(self, name: str, place: Place, workers: int, url: str, sources: list[str]) -> None:
        self.name = name
        self.place = place
        self._given: dict[str, Any] = {
            "paths": list(place.paths),
            "sources": [place.source(source) for source in sources],
            "url": url,
        }
        self._workers: list[WorkerProcess] = []
        self._count = workers
        self._pool = ThreadPoolExecutor(workers, thread_name_prefix=f"rehearsal-{name}")
        self._free: list[WorkerProcess] = []
        self._lock = threading.Lock()
        self.program: dict[str, Any] = {}

    def start(self) -> None:
        """Start the processes."""
        for _ in range(self._count):
            self._workers.append(WorkerProcess(self.name, self.place))

    def load(self) -> "list[Future[None]]":
        """Load the program in each process; the results raise `CodeFailed` if it cannot be loaded."""
        self._free = list(self._workers)
        return [self._pool.submit(self._load, worker) for worker in self._workers]

    def _load(self, worker: WorkerProcess) -> None:
        worker.greet()
        try:
            self.program = worker.ask("load", **self._given)
        except CodeFailed as error:
            if "No module named" not in str(error) or not self.place.paths:
                raise
            looked = " and ".join(os.path.relpath(path, self.place.root) for path in self.place.paths)
            raise CodeFailed(
                f"{error}\nIts packages are looked for in {looked}, or where --path says, in {self.place.given}"
            ) from None

    def read(self, heard: Heard, **given: Any) -> "Future[dict[str, Any]]":
        """Read a part of the log in the next worker that is free; ``heard`` is called in a thread."""
        return self._pool.submit(self._read, heard, given)

    def _read(self, heard: Heard, given: dict[str, Any]) -> dict[str, Any]:
        with self._lock:
            worker = self._free.pop()
        try:
            answer: dict[str, Any] = worker.ask("read", heard, **given)
            if given["views"]:
                self._with_views = worker
            return answer
        finally:
            with self._lock:
                self._free.append(worker)

    def ask(self, name: str, **given: Any) -> Any:
        """The answer of the first worker."""
        return self._workers[0].ask(name, **given)

    def ask_views(self, name: str, **given: Any) -> Any:
        """The answer of the worker that has built the views."""
        return self._with_views.ask(name, **given)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        for worker in self._workers:
            worker.end()
        self._pool.shutdown(wait=True, cancel_futures=True)
