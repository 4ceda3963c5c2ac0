"""Which frames are the project's own code: neither a library's, nor Python's, nor ours."""

import os
import sysconfig
from pathlib import Path
from types import FrameType

_HERE = Path(__file__).parents[1]
_PACKAGES = ("site-packages", "dist-packages")
_PYTHON = sysconfig.get_path("stdlib") + os.sep

OURS = (
    str(_HERE) + os.sep,
    str(_HERE.with_name("uno_stores")) + os.sep,
    str(_HERE.parent / "stores" / "uno_stores") + os.sep,  # of a clone
)
TOOLS = str(_HERE / "testing") + os.sep

WORKING = Path.cwd()

LIBRARIES = tuple(
    sorted(
        {
            *(sysconfig.get_path(name) + os.sep for name in ("stdlib", "platstdlib", "purelib", "platlib")),
            *OURS,
            "<frozen",
        }
    )
)
"""Beginnings of the files of code that is not the project's own."""

LOOP = os.path.join("asyncio", "events.py")  # noqa: PTH118 - the end of a path


def is_own(file: str) -> bool:
    """Whether the code of ``file`` is the project's own."""
    return not file.startswith(LIBRARIES) and not _is_installed(file)


def own_caller(frame: FrameType | None) -> FrameType | None:
    """The innermost frame of the project's own code, from ``frame`` outwards.

    It ends where an event loop runs a step: what is outside of that has only started the loop.
    """
    while frame is not None:
        code = frame.f_code
        if code.co_name == "_run" and code.co_filename.endswith(LOOP):
            return None
        if is_own(code.co_filename):
            return frame
        frame = frame.f_back
    return None


def is_library_of_ours(file: str) -> bool:
    """Whether ``file`` is one of this package or its stores, and no tool for tests."""
    return file.startswith(OURS) and not file.startswith(TOOLS)


def is_ours(frame: FrameType | None) -> bool:
    """Whether this package or its stores have made a call, through Python's own library at most."""
    while frame is not None and _is_of_python(frame.f_code.co_filename):
        frame = frame.f_back
    return frame is not None and is_library_of_ours(frame.f_code.co_filename)


def line_of(frame: FrameType) -> str:
    """``file:line in function``; the file as seen from the working directory."""
    file = Path(frame.f_code.co_filename)
    if file.is_relative_to(WORKING):
        file = file.relative_to(WORKING)
    return f"{file}:{frame.f_lineno} in {frame.f_code.co_name}"


def _is_of_python(file: str) -> bool:
    return file.startswith((_PYTHON, "<frozen")) and not _is_installed(file)


def _is_installed(file: str) -> bool:
    return any(each in file for each in _PACKAGES)
