"""Calls that block the event loop, found by ``blockbuster`` and named at the line of the project's own code."""

import sys
from collections.abc import Callable
from importlib import import_module
from importlib.util import find_spec
from sys import _getframe
from types import FrameType
from typing import Any

from uno_actors.testing.own_code import LOOP, is_library_of_ours, is_own, line_of

MISSING = "uno_actors_blocking needs the package blockbuster: pip install blockbuster (or remove the setting or marker)"
REMEDY = (
    "Instead, await what does the same without blocking, such as asyncio.sleep,"
    " or call it by: await asyncio.to_thread(...)"
)


def is_possible() -> bool:
    """Whether ``blockbuster`` is installed."""
    return find_spec("blockbuster") is not None


class BlockingCalls:
    """Notes blocking calls between `begin` and `end`; they run as they would without it.

    A call counts if the project's own code, in a coroutine or in what it calls, makes it itself or through a library.
    What `uno_actors` and its stores do for themselves does not.
    """

    def __init__(self) -> None:
        self._lines: dict[str, str] = {}  # the call, by its line
        self._deactivate: Callable[[], None] | None = None

    def begin(self) -> None:
        """Begin to note; only if it `is_possible`."""
        found = import_module("blockbuster").BlockBuster()
        for name, function in found.functions.items():
            function.can_block_predicate = self._noting(name, function.can_block_predicate, function)
        found.activate()
        self._deactivate = found.deactivate

    def end(self) -> list[str]:
        """Note no more.

        Returns:
            ``call, at file:line in function``, each line once.
        """
        if self._deactivate is not None:
            self._deactivate()
            self._deactivate = None
        return [f"{name}, at {where}" for where, name in self._lines.items()]

    def found(self) -> list[str]:
        """Note no more; the lines of a report, none if nothing blocks."""
        lines = self.end()
        if not lines:
            return []
        return ["asynchronous code blocks the event loop:", *(f"  - {each}" for each in lines), REMEDY]

    def _noting(self, name: str, may_block: Callable[..., bool], function: Any) -> Callable[..., bool]:
        def noted(*args: Any, **options: Any) -> bool:
            is_excused = _is_standard_stream(args) or may_block(*args, **options)
            if not is_excused and (where := _blamed(function.can_block_functions)):
                self._lines.setdefault(where, name)
            return True  # the call is made all the same

        return noted


def _is_standard_stream(args: tuple[Any, ...]) -> bool:
    """Whether a call writes to the terminal, or to what pytest puts in its place: ``print`` may be used."""
    return bool(args) and any(
        args[0] is each for each in (sys.stdout, sys.stderr, sys.__stdout__, sys.__stderr__)
    )


def _blamed(allowed: list[tuple[str, Any]]) -> str | None:
    """The line of the project's own code that makes this call, unless it makes none.

    Args:
        allowed: Functions that may block: the ends of their files, and their names.
    """
    frame: FrameType | None = _getframe(2)
    own = None
    while frame is not None:
        file, name = frame.f_code.co_filename, frame.f_code.co_name
        if any(name in names and file.replace("\\", "/").endswith(end) for end, names in allowed):
            return None
        if own is None:
            if is_library_of_ours(file) or (name == "_run" and file.endswith(LOOP)):
                return None
            if is_own(file):
                own = line_of(frame)
        frame = frame.f_back
    return own
