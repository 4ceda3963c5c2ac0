"""What a person sees in terminals of any width: tables, and the progress of what takes long."""

import os
import pty
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest

from tests.test_handlers_cli import path as path  # noqa: PLC0414 - the fixture
from uno_actors.cli.terminal import FOLDED, NUMBERS, WHOLE, least_width, new_table

COMMAND = Path(sys.executable).with_name("uno-actors")


def in_terminal(command: Sequence[object], columns: int) -> str:
    """What a command writes to a terminal of this width, both outputs together."""
    ours, theirs = pty.openpty()
    environment = os.environ | {"COLUMNS": str(columns), "TERM": "xterm", "NO_COLOR": "1"}
    process = subprocess.Popen(
        [str(word) for word in command], stdin=theirs, stdout=theirs, stderr=theirs, env=environment
    )
    os.close(theirs)
    said = b""
    while True:
        try:
            read = os.read(ours, 65_536)
        except OSError:  # the other end is closed
            break
        if not read:
            break
        said += read
    os.close(ours)
    assert process.wait() == 0, said
    return said.decode()


@pytest.mark.parametrize("columns", [20, 40, 56])
def test_a_terminal_that_is_too_narrow_for_a_table_gets_its_rows_one_below_the_other(
    path: Path, columns: int
) -> None:
    said = in_terminal([COMMAND, "deadletters", "list", "--store", f"lmdb:{path}"], columns)
    lines = [line.rstrip() for line in said.replace("\r", "").split("\n")]
    assert "HANDLER            mail" in lines
    assert "POSITION           2" in lines
    assert "ERROR              ValueError: not 2" in lines


@pytest.mark.parametrize("columns", [80, 200])
def test_a_wide_terminal_gets_a_table(path: Path, columns: int) -> None:
    said = in_terminal([COMMAND, "handlers", "list", "--store", f"lmdb:{path}"], columns)
    first = next(line for line in said.replace("\r", "").split("\n") if "HANDLER" in line)
    assert "STATE" in first


def test_the_least_width_counts_cells_whole_texts_and_gaps() -> None:
    table = new_table({"NAME": FOLDED, "STATE": WHOLE, "LAG": NUMBERS})
    assert least_width(table) == 4 + 2 + 5 + 2 + 3
    table.add_row("日本", "not running", "1,000")
    assert least_width(table) == 4 + 2 + 11 + 2 + 5
    table.add_row("a" * 100, "live", "0")
    assert least_width(table) == 12 + 2 + 11 + 2 + 5


PROGRAM = """
import time
from uno_actors.cli.terminal import bar
with bar("rebuilding") as progress:
    progress(1, 2)
    time.sleep({seconds})
"""


@pytest.mark.parametrize(("seconds", "is_shown"), [(0, False), (1.5, True)])
def test_progress_is_shown_of_what_takes_longer_than_a_moment(seconds: float, is_shown: bool) -> None:
    said = in_terminal([sys.executable, "-c", PROGRAM.format(seconds=seconds)], 80)
    assert ("rebuilding" in said) is is_shown
    assert ("50%" in said) is is_shown


def test_progress_is_not_shown_in_a_pipe() -> None:
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM.format(seconds=1)], capture_output=True, text=True, check=True
    )
    assert (done.stdout, done.stderr) == ("", "")
