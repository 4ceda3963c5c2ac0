"""Prints what commands show: the only place that writes to the output of ``uno-actors``.

Lines follow the rules of `uno_actors.printable`. Characters that the terminal's encoding lacks are written as escapes,
and branches of trees as ASCII, so that no command fails because of a locale.
"""

import asyncio
import codecs
import io
import os
import stat
import sys
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from datetime import datetime
from typing import Any, TypeVar

import typer
from rich.cells import cell_len
from rich.console import Console
from rich.filesize import decimal
from rich.progress import Progress as Bar
from rich.table import Table
from typing_extensions import override

from uno_actors.printable import as_json, printable
from uno_actors.store.maintenance import Progress

T = TypeVar("T")

BAR_AFTER = 0.5
"""Seconds after which the progress of a command is shown."""

WIDEST = 10_000
"""Width of a table in a pipe, so that programs find each row on one line."""

GAP = 2
"""Cells between two columns."""
NARROWEST = 12
"""Cells in which a text that is folded can still be read."""

FOLDED: dict[str, Any] = {"overflow": "fold"}
"""A column of texts that a narrow terminal may fold."""
WHOLE: dict[str, Any] = {"overflow": "fold", "no_wrap": True}
"""A column of short texts."""
NUMBERS: dict[str, Any] = {**WHOLE, "justify": "right"}
"""A column of numbers."""

_DRAWN = str.maketrans({"└": "`", "├": "|", "│": "|", "─": "-", "…": "~"})


def _without(error: UnicodeError) -> tuple[str | bytes, int]:
    """What to write for characters that an encoding lacks."""
    if not isinstance(error, UnicodeEncodeError):
        raise error
    drawn = error.object[error.start : error.end].translate(_DRAWN)
    return drawn.encode("ascii", "backslashreplace"), error.end


codecs.register_error("uno_actors.terminal", _without)


def take_any_encoding() -> None:
    """Let this process print any text in any locale."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="uno_actors.terminal")


def in_utf8(given: Any) -> Any:
    """A name or an id from the command line, or a list of them, as UTF-8 in any locale: a callback for typer.

    Not for paths, which are read as the locale says.

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


def say_lines(text: str) -> None:
    """Print several lines, each of which is already `printable`."""
    for line in text.split("\n"):
        print(line)


def say_json(value: object, *, indent: int | None = None) -> None:
    """Print ``value`` as JSON, on one line without ``indent``; a reader in a pipe gets it at once."""
    print(as_json(value, indent=indent), flush=True)


def complain(text: object) -> None:
    """Print an error. Its text may have several lines, each already `printable`."""
    print(f"error: {text}", file=sys.stderr)


def reader_has_gone() -> BrokenPipeError:
    """The error that ends a command with exit code 0 when the reader of its output has gone.

    It has no number: click would take that for a failure.
    """
    return BrokenPipeError("the reader of the output has gone")


class _Console(Console):
    @override
    def on_broken_pipe(self) -> None:
        """Let the command end as after any other output whose reader has gone; rich would end it with exit code 1."""
        raise reader_has_gone()


def new_console() -> Console:
    """A console that takes no text as markup."""
    return _Console(highlight=False, markup=False, emoji=False)


def new_table(columns: Mapping[str, Mapping[str, Any]] | None = None) -> Table:
    """A table with these columns, by title; without a head if there are none.

    Args:
        columns: Each `FOLDED`, `WHOLE` or `NUMBERS`.
    """
    table = Table(box=None, show_header=columns is not None, pad_edge=False)
    for title, column in (columns or {}).items():
        table.add_column(title, **column)
    return table


def say_tables(*tables: Table) -> None:
    """Print tables, a blank line between them: folded to the width of a terminal, one line per row in a pipe.

    A terminal that is too narrow for a table gets each row as lines of their own, one for each column.
    """
    console = new_console()
    if not console.is_terminal:
        console.width = WIDEST
    for index, table in enumerate(tables):
        if index:
            console.print()
        if table.show_header and least_width(table) > console.width:
            for line in _records(table):
                console.print(line, soft_wrap=True)
        else:
            console.print(table)


def least_width(table: Table) -> int:
    """The width in which a table can be read: texts that may be folded have `NARROWEST` cells, others are whole."""
    width = GAP * (len(table.columns) - 1)
    for column in table.columns:
        whole = max(cell_len(str(text)) for text in (column.header, *column.cells))
        width += whole if column.no_wrap else min(whole, max(NARROWEST, cell_len(str(column.header))))
    return width


def _records(table: Table) -> Iterator[str]:
    """The rows of a table, each as a block of lines."""
    titles = [str(column.header) for column in table.columns]
    widest = max(map(cell_len, titles))
    for number, row in enumerate(zip(*(column.cells for column in table.columns), strict=True)):
        if number:
            yield ""
        for title, text in zip(titles, row, strict=True):
            yield f"{title:{widest}}  {text}"


def branches(
    nodes: Sequence[T], text: Callable[[T], str], below: Callable[[T], Sequence[T]], before: str = ""
) -> Iterator[str]:
    """The lines of a drawn tree.

    Args:
        nodes: Those of the uppermost level.
        text: Says what a node's line shows.
        below: Returns the nodes under a node.
        before: Beginning of each line.
    """
    for index, node in enumerate(nodes, start=1):
        is_last = index == len(nodes)
        yield f"{before}{'└─' if is_last else '├─'} {text(node)}"
        yield from branches(below(node), text, below, before + ("   " if is_last else "│  "))


@contextmanager
def bar(what: str, *, shown: bool = True) -> Iterator[Progress]:
    """A progress bar on the error output if that is a terminal; none in a pipe, nor for what is done in a moment."""
    console = Console(stderr=True)
    drawn = Bar(console=console, transient=True, disable=not (shown and console.is_terminal))
    task = drawn.add_task(what, total=None)
    begin = threading.Timer(BAR_AFTER, drawn.start)
    begin.daemon = True
    if not drawn.disable:
        begin.start()
    try:
        yield lambda done, total: drawn.update(task, completed=done, total=total)
    finally:
        begin.cancel()
        if begin.is_alive():  # it is starting right now
            begin.join()
        drawn.stop()


@contextmanager
def ends_with_reader() -> Iterator[None]:
    """Leave the block with `BrokenPipeError` when the reader of the output's pipe has gone, even if nothing is printed.

    Otherwise a command that waits for events would stay until it prints the next one.
    """
    descriptor = _pipe()
    task = asyncio.current_task()
    if descriptor is None or task is None:
        yield
        return
    loop = asyncio.get_running_loop()
    has_gone = False

    def gone() -> None:
        nonlocal has_gone
        has_gone = True
        loop.remove_reader(descriptor)
        task.cancel()

    try:
        loop.add_reader(
            descriptor, gone
        )  # the end that is written to is readable only when the other one is closed
    except (OSError, NotImplementedError):
        yield
        return
    try:
        yield
    except asyncio.CancelledError:
        if not has_gone:
            raise
        task.uncancel()
        raise reader_has_gone() from None
    finally:
        loop.remove_reader(descriptor)


def _pipe() -> int | None:
    """The descriptor of the output if that is a pipe."""
    with suppress(OSError, ValueError, AttributeError):  # such as that of a test
        descriptor = sys.stdout.fileno()
        return descriptor if stat.S_ISFIFO(os.fstat(descriptor).st_mode) else None
    return None


def seconds_of(when: datetime) -> str:
    """A time in a table; the column's title names the time zone."""
    return when.isoformat(sep=" ", timespec="seconds")[:19]


def number(value: int | None) -> str:
    """A number in a table."""
    return "-" if value is None else f"{value:,}"


def size(bytes_: int) -> str:
    """A number of bytes."""
    return f"{decimal(bytes_)} ({bytes_:,} bytes)"
