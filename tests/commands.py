"""The command ``uno-actors`` in this process: as users start it, with its exit code, without the time of a start."""

import contextlib
import io
import os
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple
from unittest.mock import patch

from uno_actors.cli.app import main


class Ended(NamedTuple):
    """How a command has ended."""

    returncode: int
    stdout: str
    stderr: str


def run_command(
    *arguments: str, environment: Mapping[str, str] | None = None, directory: Path | None = None
) -> Ended:
    """Run ``uno-actors`` with ``arguments``, and return when it has ended; nothing else may print meanwhile.

    Args:
        arguments: Of the command line.
        environment: All its variables; default is those of this process.
        directory: Its working directory; default is that of this process.
    """
    out, error = (io.TextIOWrapper(io.BytesIO(), "utf-8", write_through=True) for _ in range(2))
    code: object = 0
    with (
        patch.dict(os.environ, environment or {}, clear=environment is not None),
        patch.object(tempfile, "tempdir", None),  # what was found in another environment
        contextlib.chdir(directory or Path.cwd()),
        patch.object(sys, "argv", ["uno-actors", *arguments]),
        contextlib.redirect_stdout(out),
        contextlib.redirect_stderr(error),
    ):
        try:
            main()
        except SystemExit as end:
            code = end.code
    assert code is None or isinstance(code, int), code
    return Ended(code or 0, *(stream.buffer.getvalue().decode() for stream in (out, error)))  # type: ignore[attr-defined]
