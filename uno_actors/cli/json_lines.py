"""``uno-actors store export`` and ``import``: the events of a store as a file of JSON lines."""

import json
import os
import stat
import sys
from collections.abc import Iterable, Iterator
from contextlib import aclosing, contextmanager
from itertools import chain, count, islice
from pathlib import Path
from typing import Annotated, BinaryIO, TextIO

import typer

from uno_actors.cli.opening import Json, Refused, with_store, with_url
from uno_actors.cli.record_lines import UnreadableLine, from_line, to_line
from uno_actors.cli.store_copy import CHUNK
from uno_actors.cli.terminal import bar, say, say_json
from uno_actors.errors import ConcurrencyConflict, UnoError
from uno_actors.printable import counted
from uno_actors.store.codec import Record
from uno_actors.store.logs import log_of_position, starts_of_logs
from uno_actors.store.maintenance import Progress
from uno_actors.store.opening import open_store
from uno_actors.store.port import EventStore
from uno_actors.store.records import Append
from uno_actors.store_urls import without_password

MARK = '{"uno_actors": '
HEAD = {"uno_actors": "events", "format": 1}
"""The first line of an export; the last has the number of events, to tell one that was cut off."""
LONGEST_HEAD = 1000
"""Bytes of the first line. A longer line is not from an export, and may never end."""
LONGEST_LINE = 1 << 30
"""Bytes of each other line."""
OUTPUT = Path("-")
"""Stands for the output or the input in place of a file's name."""


@with_store
async def export_events(
    store: EventStore,
    file: Annotated[Path, typer.Argument(help="File to write; - for the output.")] = OUTPUT,
    as_json: Annotated[
        bool, typer.Option("--json", help="Print what was exported to a file as JSON.")
    ] = False,
) -> None:
    """Write all events as JSON lines, without checkpoints, dead letters and snapshots."""
    is_file = file != OUTPUT
    with _writing(file) as out, bar("export", shown=is_file or not sys.stdout.isatty()) as progress:
        ends, events = await store.last_positions(), 0
        starts = starts_of_logs(len(ends))
        total = sum(ends) - sum(starts)
        print(json.dumps(HEAD), file=out)
        async with aclosing(store.read_records()) as records:
            async for stored in records:
                if stored.position > ends[log_of_position(stored.position)]:
                    if len(ends) == 1:
                        break
                    continue  # recorded since the export began
                print(to_line(stored), file=out)
                events += 1
                if events % CHUNK == 0:
                    progress(events, total)
        print(json.dumps({"uno_actors": "end", "events": events}), file=out)
        progress(total, total)
    if is_file and as_json:
        say_json({"events": events, "file": str(file)})
    elif is_file:
        say(f"{counted(events, 'event')} exported to {file}")


@contextmanager
def _writing(file: Path) -> Iterator[TextIO]:
    """The output or ``file``. A file appears only when it is complete; pipes and devices are written directly."""
    if file == OUTPUT:
        yield sys.stdout
        return
    try:
        if _is_stream(file):
            with file.open("w", encoding="ascii") as out:
                yield out
            return
        if file.exists():
            raise Refused(f"{file} exists, and nothing is overwritten: name another file")
        partial = file.with_name(f".{file.name}.partial")
        try:
            with partial.open("w", encoding="ascii") as out:
                yield out
            partial.replace(file)
        finally:
            partial.unlink(missing_ok=True)
    except (OSError, ValueError) as error:  # ValueError: a NUL in its name
        raise Refused(f"{file} cannot be written: {getattr(error, 'strerror', None) or error}") from error


def _is_stream(file: Path) -> bool:
    """Whether ``file`` is a pipe or a device, such as a shell's ``>(gzip)``."""
    try:
        mode = file.stat().st_mode
    except OSError:
        return False
    return stat.S_ISFIFO(mode) or stat.S_ISCHR(mode)


@with_url
async def import_events(
    url: str,
    file: Annotated[Path, typer.Argument(help="File written by export; - for the input.")] = OUTPUT,
    resume: Annotated[bool, typer.Option("--resume", help="Resume an interrupted import.")] = False,
    as_json: Json = False,
) -> None:
    """Record exported events in a new store, in their order and with their versions."""
    with _reading(file) as lines, bar("import", shown=file != OUTPUT or not sys.stdin.isatty()) as progress:
        total = 0 if file == OUTPUT else os.fstat(lines.fileno()).st_size
        exported = _exported(_lines(lines), total, progress)
        chunk = tuple(islice(exported, CHUNK))  # before the store is made: a wrong file makes none
        async with open_store(url) as store:
            ends = await store.last_positions()
            if resume and len(ends) > 1:
                raise Refused(
                    f"{without_password(url)} has {len(ends)} logs, whose events do not come in the order of the"
                    " export: import into a new store, without --resume"
                )
            if ends != starts_of_logs(len(ends)) and not resume:
                raise Refused(
                    f"{without_password(url)} has events: import into a new store, or add --resume to resume an"
                    " interrupted import"
                )
            exported = chain(chunk, exported)
            known = done = await _skip_known(store, exported, url) if resume else 0
            while chunk := tuple(islice(exported, CHUNK)):
                (outcome,) = await store.commit([Append(chunk)])
                if isinstance(outcome, ConcurrencyConflict):
                    raise Refused(f"after event {done:,} the versions of a stream have a gap: {outcome}")
                if isinstance(outcome, UnoError):
                    raise outcome
                done += len(chunk)
    if as_json:
        say_json({"events": done - known, "known": known})
    else:
        say(f"{counted(done - known, 'event')} imported" + f", {known:,} were there already" * bool(known))


async def _skip_known(store: EventStore, exported: Iterator[Record], url: str) -> int:
    """Skip the events of ``exported`` that ``store`` has, and return their number.

    Raises:
        Refused: The store has another event at some position.
    """
    known = 0
    async with aclosing(store.read_records()) as records:
        async for position, record in records:
            if record != next(exported, None):
                raise Refused(
                    f"{without_password(url)} has another event at position {position} than the export: nothing"
                    " was added"
                )
            known += 1
    return known


@contextmanager
def _reading(file: Path) -> Iterator[BinaryIO]:
    if file == OUTPUT:
        yield sys.stdin.buffer
        return
    try:
        opened = file.open("rb")
    except (OSError, ValueError) as error:  # ValueError: a NUL in its name
        raise Refused(f"{file} cannot be read: {getattr(error, 'strerror', None) or error}") from error
    with opened:
        yield opened


def _lines(file: BinaryIO) -> Iterator[bytes]:
    """The lines of ``file``.

    Raises:
        UnreadableLine: A line is longer than any line of an export.
    """
    most = LONGEST_HEAD
    for place in count(1):
        line = file.readline(most + 1)
        if len(line) > most:
            raise UnreadableLine(place, f"it is longer than {most:,} bytes")
        if not line:
            return
        yield line
        most = LONGEST_LINE


def _exported(lines: Iterable[bytes], size: int, progress: Progress) -> Iterator[Record]:
    """The records of an export.

    Raises:
        UnreadableLine: It is not an export, or its end is missing.
    """
    done = number = 0
    for number, line in enumerate(lines, start=1):
        try:
            text = line.decode()
            mark = json.loads(text) if number == 1 or text.startswith(MARK) else None
        except ValueError as error:
            raise UnreadableLine(number, str(error)) from error
        done += len(line)
        if number == 1:
            if mark != HEAD:
                raise UnreadableLine(1, f"an export begins with {json.dumps(HEAD)}")
        elif mark is not None:
            if mark.get("events") != number - 2:
                raise UnreadableLine(number, f"{number - 2} events came before it")
            return
        else:
            yield from_line(text, number)
        if number % CHUNK == 0:
            progress(done, size)
    raise UnreadableLine(number + 1, "the export was cut off before its end")
