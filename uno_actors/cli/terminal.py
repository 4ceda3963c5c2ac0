"""What the commands print, and how: the only place that writes to the output of ``uno-actors``.

Lines follow the rules of `uno_actors.printable`. What the terminal's encoding has not got is written as an escape,
and branches of trees as ASCII, so that a command never fails because of a locale.
"""

import codecs
import io
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime
from typing import Any

import typer
from rich.console import Console
from rich.filesize import decimal
from rich.progress import Progress as Bar

from uno_actors.printable import as_json, printable
from uno_actors.store.maintenance import Progress

WIDEST = 10_000
"""Of a table in a pipe, so that programs find each row on one line."""

_DRAWN = str.maketrans({"└": "`", "├": "|", "│": "|", "─": "-", "…": "~"})


def _without(error: UnicodeError) -> tuple[str | bytes, int]:
    """What to write for characters that an encoding has not got."""
    if not isinstance(error, UnicodeEncodeError):
        raise error
    drawn = error.object[error.start : error.end].translate(_DRAWN)
    return drawn.encode("ascii", "backslashreplace"), error.end


codecs.register_error("uno_actors.terminal", _without)


def take_any_encoding() -> None:
    """Have this process write whatever it prints, in any locale."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="uno_actors.terminal")


def in_utf8(given: Any) -> Any:
    """A name or an id of the command line, or a list of them, which are UTF-8 in any locale; as typer's callback.

    Paths are left alone: they are read as the locale says.

    Raises:
        BadParameter: It is not UTF-8.
    """
    if not isinstance(given, str):
        return [in_utf8(each) for each in given] if isinstance(given, (list, tuple)) else given
    try:
        return os.fsencode(given).decode() if any("\udc80" <= c <= "\udcff" for c in given) else given
    except UnicodeDecodeError:
        raise typer.BadParameter("it must be UTF-8") from None


def say(text: object = "") -> None:
    """Print one line."""
    print(printable(str(text)))


def say_json(value: object, *, indent: int | None = None) -> None:
    """Print ``value`` as JSON, on a line if no ``indent`` is wanted; a reader in a pipe gets it at once."""
    print(as_json(value, indent=indent), flush=True)


def say_line(line: str) -> None:
    """Print a line of JSON in ASCII."""
    print(line, flush=True)


def complain(text: object) -> None:
    """Print an error, whose text may have several lines if each is `printable` already."""
    print(f"error: {text}", file=sys.stderr)


def new_console() -> Console:
    """For rows and tables, in which no text is markup."""
    return Console(highlight=False, markup=False, emoji=False)


def table_console() -> Console:
    """For tables that are whole before: folded into the width of a terminal, a row a line in a pipe."""
    console = new_console()
    if not console.is_terminal:
        console.width = WIDEST
    return console


@contextmanager
def bar(what: str, *, shown: bool = True) -> Iterator[Progress]:
    """A progress bar on the terminal's error output; none in a pipe."""
    console = Console(stderr=True)
    with Bar(console=console, transient=True, disable=not (shown and console.is_terminal)) as drawn:
        task = drawn.add_task(what, total=None)
        yield lambda done, total: drawn.update(task, completed=done, total=total)


def seconds_of(when: datetime) -> str:
    """A time in a table, whose head names its zone."""
    return when.isoformat(sep=" ", timespec="seconds")[:19]


def number(value: int | None) -> str:
    """A number in a table."""
    return "-" if value is None else f"{value:,}"


def size(bytes_: int) -> str:
    """A number of bytes."""
    return f"{decimal(bytes_)} ({bytes_:,} bytes)"
