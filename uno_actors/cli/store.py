"""``uno-actors store``: look at an event store, check it, copy it.

No class of an event is needed: records are shown from their header and raw payload. Stores are opened only
where they exist, and may be in use by other processes.
"""

import asyncio
import json
import os
import stat
import sys
from collections import Counter
from collections.abc import AsyncGenerator, Iterable, Iterator
from contextlib import aclosing, contextmanager
from itertools import chain, count, islice
from pathlib import Path
from typing import Annotated, BinaryIO, TextIO

import typer
from rich.cells import cell_len, set_cell_size
from rich.console import Console
from rich.table import Table

from uno_actors.cli.record_lines import UnreadableLine, from_line, to_line
from uno_actors.cli.store_copy import Copied, copy_store
from uno_actors.cli.terminal import (
    bar,
    in_utf8,
    new_console,
    number,
    say,
    say_json,
    say_line,
    seconds_of,
    size,
    table_console,
)
from uno_actors.errors import CallerError, ConcurrencyConflict, InvalidStoreUrl, UnoError
from uno_actors.handlers.control import HandlerControl
from uno_actors.printable import counted, json_value, printable
from uno_actors.store.codec import Record, StreamId, read_payload
from uno_actors.store.maintenance import CanBackUp, CanVerify, Fault, HasInfo, Progress
from uno_actors.store.opening import open_store
from uno_actors.store.port import EventStore
from uno_actors.store.records import Append, StoredRecord
from uno_actors.store_urls import without_password

app = typer.Typer(help="Look at an event store, check it, copy it.", no_args_is_help=True)

CHUNK = 1000
"""Events that are imported in one commit."""

Url = Annotated[
    str,
    typer.Option(
        "--store", "-s", metavar="URL", envvar="UNO_ACTORS_STORE", help="The store, such as lmdb:PATH."
    ),
]
Json = Annotated[bool, typer.Option("--json", help="One JSON object a line.")]
Limit = Annotated[int | None, typer.Option(min=0, help="At most so many.")]


class NotOffered(CallerError):
    """The store has not got what a command needs."""

    def __init__(self, url: str, command: str) -> None:
        kind = url.partition(":")[0]
        super().__init__(
            f"a store of the kind {kind} has no `{command}`: use the tools of its database; or move what is in it to an"
            " lmdb: store, by `uno-actors store copy`"
        )


class Refused(CallerError):
    """A command that would do harm, or that has nothing to work on."""


def opened(url: str, *, create: bool = False) -> EventStore:
    """The store of ``url``, which is made only if that is wanted."""
    return open_store(url, create=create)


# --- looking -----------------------------------------------------------------------------------------------


@app.command()
def info(url: Url, as_json: Json = False) -> None:
    """How the store is: size, events, handlers and their dead letters."""
    asyncio.run(_info(url, as_json))


async def _info(url: str, as_json: bool) -> None:
    async with opened(url) as store:
        facts = (await store.info())._asdict() if isinstance(store, HasInfo) else {}
        facts["last_position"] = await store.last_position()
        checkpoints = await HandlerControl(store).positions()
        letters = Counter(letter.handler for letter in await store.dead_letters())
    if as_json:
        say_json(
            {"store": without_password(url), **facts, "checkpoints": checkpoints, "dead_letters": letters}
        )
        return
    console = table_console()
    table = Table(box=None, show_header=False, pad_edge=False)
    for name, value in facts.items():
        shown = value
        if isinstance(value, int):
            shown = size(value) if name in ("size", "map_used", "map_size") else f"{value:,}"
        table.add_row(name.replace("_", " "), printable(shown))
    table.add_row("handlers", f"{len(checkpoints):,}")
    table.add_row("dead letters", f"{letters.total():,}")
    console.print(table)
    if checkpoints or letters:
        table = Table(box=None, pad_edge=False)
        for title in ("HANDLER", "CHECKPOINT", "BEHIND", "DEAD LETTERS"):
            is_name = title == "HANDLER"
            table.add_column(
                title, justify="left" if is_name else "right", overflow="fold", no_wrap=not is_name
            )
        for name in sorted({*checkpoints, *letters}):
            position = checkpoints.get(name)
            behind = None if position is None else facts["last_position"] - position
            table.add_row(printable(name), *[number(n) for n in (position, behind, letters[name])])
        console.print()
        console.print(table)


@app.command()
def events(
    url: Url,
    topic: Annotated[str | None, typer.Option(help="Topic pattern: a.*, a.b.>", callback=in_utf8)] = None,
    event_type: Annotated[
        list[str] | None, typer.Option("--event", help="Recorded type; repeatable.", callback=in_utf8)
    ] = None,
    aggregate_type: Annotated[
        str | None, typer.Option("--type", help="Type of the aggregate.", callback=in_utf8)
    ] = None,
    correlation_id: Annotated[
        str | None, typer.Option("--correlation", help="Correlation id.", callback=in_utf8)
    ] = None,
    after: Annotated[int, typer.Option(min=0, help="Only behind this position.")] = 0,
    limit: Limit = None,
    follow: Annotated[bool, typer.Option("--follow", "-f", help="Wait for more; Ctrl-C ends it.")] = False,
    as_json: Json = False,
) -> None:
    """List the events of the log, in order."""

    async def show() -> None:
        async with opened(url) as store:
            matching = store.log_filter(topic, event_type or None, aggregate_type, correlation_id)
            read = (
                store.follow_records(after, matching)
                if follow
                else store.read_records(after, limit, matching)
            )
            await _show(read, limit, as_json)

    asyncio.run(show())


@app.command()
def stream(
    url: Url,
    aggregate_id: Annotated[str, typer.Argument(metavar="ID", help="Id of the aggregate.", callback=in_utf8)],
    aggregate_type: Annotated[
        str | None, typer.Option("--type", help="Its type, if several have it.", callback=in_utf8)
    ] = None,
    after: Annotated[int, typer.Option(min=0, help="Only behind this version.")] = 0,
    limit: Limit = None,
    backward: Annotated[bool, typer.Option("--backward", help="The newest first.")] = False,
    as_json: Json = False,
) -> None:
    """List the events of one aggregate, in order."""

    async def show() -> None:
        async with opened(url) as store:
            types = [aggregate_type] if aggregate_type else await store.aggregate_types(aggregate_id)
            if len(types) > 1:
                raise Refused(
                    f"{aggregate_id!r} is the id of several streams: add --type, {' or '.join(types)}"
                )
            name = StreamId(types[0] if types else "", aggregate_id)
            if not types or not await store.last_version(name):
                raise Refused(
                    f"there is no stream {name if types else repr(aggregate_id)} in {without_password(url)}"
                )
            await _show(store.stream_records(name, after, backward=backward), limit, as_json)

    asyncio.run(show())


@app.command()
def trace(
    url: Url,
    correlation_id: Annotated[
        str, typer.Argument(help="Common to what followed from one message.", callback=in_utf8)
    ],
) -> None:
    """Show what followed from one first message, each event below its cause."""

    async def show() -> None:
        async with opened(url) as store:
            tree = await store.causal_records(correlation_id)
        if not tree.roots:
            raise Refused(f"nothing in {without_password(url)} has the correlation id {correlation_id!r}")
        for line in str(tree).split("\n"):
            say(line)

    asyncio.run(show())


async def _show(records: AsyncGenerator[StoredRecord], limit: int | None, as_json: bool) -> None:
    show = _print_line if as_json else _Rows(new_console()).show
    if limit == 0:
        return
    shown = 0
    async with aclosing(records) as each:
        async for stored in each:
            show(stored)
            shown += 1
            if shown == limit:
                return


def _print_line(stored: StoredRecord) -> None:
    say_line(to_line(stored))  # whoever follows in a pipe waits for it


class _Rows:
    """A table that is printed while it grows, in the width of the terminal; whole in a pipe."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._cut = console.is_terminal
        width = max(console.width, 60)
        self._widths = (8, 19, (width - 36) // 4, (width - 28) // 3)
        self._last = width - sum(self._widths) - 2 * len(self._widths)
        self._began = False

    def show(self, stored: StoredRecord) -> None:
        if not self._began:
            self._began = True
            self._row(["POSITION", "TIME (UTC)", "EVENT", "AGGREGATE", "PAYLOAD"], "bold")
        record = stored.record
        of = (
            "-"
            if record.stream is None
            else f"{record.stream.aggregate_type}<{record.aggregate_id}@{record.aggregate_version}>"
        )
        when = seconds_of(record.timestamp)
        self._row([f"{stored.position:>8}", when, record.event_type, of, _payload(record)], None)

    def _row(self, cells: list[str], style: str | None) -> None:
        *first, last = [printable(cell) for cell in cells]
        line = "  ".join([*map(self._fitted, first, self._widths), self._cut_to(last, self._last)])
        self._console.print(line.rstrip(), style=style, soft_wrap=True)

    def _fitted(self, text: str, width: int) -> str:
        text = self._cut_to(text, width)
        return text + " " * (width - cell_len(text))

    def _cut_to(self, text: str, width: int) -> str:
        if not self._cut or cell_len(text) <= width:
            return text
        return set_cell_size(text, width - 1).rstrip() + "…"


def _payload(record: Record) -> str:
    fields = read_payload(record)
    return " ".join(f"{name}={_shown(value)}" for name, value in fields.items())


def _shown(value: object) -> str:
    return (
        json.dumps(json_value(value), ensure_ascii=False)
        if isinstance(value, (str, dict, list))
        else str(value)
    )


# --- checking and copying ----------------------------------------------------------------------------------


@app.command()
def verify(url: Url, as_json: Json = False) -> None:
    """Check everything in the store; the first fault ends it with exit code 1."""

    async def check() -> bool:
        async with opened(url) as store:
            if not isinstance(store, CanVerify):
                raise NotOffered(url, "verify")
            with bar("verify") as progress:
                found = await store.verify(progress)
        if as_json:
            say_json({"whole": not isinstance(found, Fault), **found._asdict()})
        elif isinstance(found, Fault):
            say(f"fault: {found.reason}")
        else:
            say(f"whole: {counted(found.events, 'event')}, {counted(found.streams, 'stream')}")
        return isinstance(found, Fault)

    raise typer.Exit(asyncio.run(check()))


@app.command()
def backup(url: Url, target: Annotated[str, typer.Argument(help="A new place for the copy.")]) -> None:
    """Copy the store, as it is at one moment, while it is in use."""
    asyncio.run(_copy(url, target, "backup"))
    say(f"copied to {target}")


@app.command()
def restore(
    url: Url, copy: Annotated[str, typer.Argument(metavar="BACKUP", help="A copy made by backup.")]
) -> None:
    """Put a backup where the store is to be; what is there already is never overwritten."""
    scheme, colon, rest = url.partition(":")
    if not colon:
        raise InvalidStoreUrl(url, ["lmdb"])
    asyncio.run(_copy(f"{scheme}:{copy}", rest.partition("?")[0], "restore"))
    say(f"restored to {without_password(url)}")


async def _copy(url: str, target: str, command: str) -> None:
    async with opened(url) as store:
        if not isinstance(store, CanBackUp):
            raise NotOffered(url, command)
        with bar(command) as progress:
            await store.backup(target, progress)


@app.command("copy")
def copy_all(
    source: Annotated[str, typer.Argument(metavar="SOURCE", help="URL of the store to be copied.")],
    target: Annotated[str, typer.Argument(metavar="TARGET", help="URL of a new store, of any kind.")],
) -> None:
    """Move to another store: events, checkpoints, dead letters and views; run again, it goes on and compares."""

    async def run() -> Copied:
        async with opened(source) as from_store, opened(target, create=True) as to_store:
            with bar("copy") as progress:
                return await copy_store(from_store, to_store, progress)

    copied = asyncio.run(run())
    known = f", {copied.known:,} were there already" * bool(copied.known)
    say(f"{counted(copied.events, 'event')} copied{known}; {counted(copied.views, 'view')}; all are equal")


# --- as JSON lines -----------------------------------------------------------------------------------------

MARK = '{"uno_actors": '
HEAD = {"uno_actors": "events", "format": 1}
"""The first line of an export; the last has the number of events, to tell one that was cut off."""
LONGEST_HEAD = 1000
"""Bytes of the first line: what is longer is no export, and may have no end."""
LONGEST_LINE = 1 << 30
"""Bytes of any other line."""
OUTPUT = Path("-")
"""The output or the input, as it is named in place of a file."""


@app.command("export")
def export_events(
    url: Url, file: Annotated[Path, typer.Argument(help="Where to; - is the output.")] = OUTPUT
) -> None:
    """Write all events as JSON lines. Checkpoints, dead letters and snapshots are not among them."""
    asyncio.run(_export(url, None if file == OUTPUT else file))


async def _export(url: str, file: Path | None) -> None:
    async with opened(url) as store:
        with _writing(file) as out, bar("export", shown=file is not None) as progress:
            end, events = await store.last_position(), 0
            print(json.dumps(HEAD), file=out)
            async with aclosing(store.read_records()) as records:
                async for stored in records:
                    if stored.position > end:
                        break
                    print(to_line(stored), file=out)
                    events += 1
                    if events % CHUNK == 0:
                        progress(stored.position, end)
            print(json.dumps({"uno_actors": "end", "events": events}), file=out)
            progress(end, end)
    if file is not None:
        say(f"{counted(events, 'event')} exported to {file}")


@contextmanager
def _writing(file: Path | None) -> Iterator[TextIO]:
    """The output, or ``file``, which is there whole or not at all; into a pipe or a device it is written at once."""
    if file is None:
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
    """Whether ``file`` is there and is a pipe or a device, such as a shell's ``>(gzip)`` is."""
    try:
        mode = file.stat().st_mode
    except OSError:
        return False
    return stat.S_ISFIFO(mode) or stat.S_ISCHR(mode)


@app.command("import")
def import_events(
    url: Url,
    file: Annotated[Path, typer.Argument(help="What export wrote; - is the input.")] = OUTPUT,
    resume: Annotated[
        bool, typer.Option("--resume", help="Go on with an import that was cut short.")
    ] = False,
) -> None:
    """Record exported events in a new store, in their order and with their versions."""
    asyncio.run(_import(url, None if file == OUTPUT else file, resume))


async def _import(url: str, file: Path | None, resume: bool) -> None:
    with _reading(file) as lines, bar("import", shown=file is not None) as progress:
        total = 0 if file is None else os.fstat(lines.fileno()).st_size
        exported = _exported(_lines(lines), total, progress)
        chunk = tuple(islice(exported, CHUNK))  # whoever names a wrong file gets no store
        async with opened(url, create=True) as store:
            if await store.last_position() and not resume:
                raise Refused(
                    f"{without_password(url)} has events: import into a new store, or add --resume to go on with it"
                )
            exported = chain(chunk, exported)
            known = done = await _skip_known(store, exported, url) if resume else 0
            while chunk := tuple(islice(exported, CHUNK)):
                (outcome,) = await store.commit([Append(chunk)])
                if isinstance(outcome, ConcurrencyConflict):
                    raise Refused(f"behind event {done:,} the versions of a stream have a gap: {outcome}")
                if isinstance(outcome, UnoError):
                    raise outcome
                done += len(chunk)
    say(f"{counted(done - known, 'event')} imported" + f", {known:,} were there already" * bool(known))


async def _skip_known(store: EventStore, exported: Iterator[Record], url: str) -> int:
    """Leave out of ``exported`` what ``store`` has, and return how many they were."""
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
def _reading(file: Path | None) -> Iterator[BinaryIO]:
    if file is None:
        yield sys.stdin.buffer
        return
    try:
        opened = file.open("rb")
    except (OSError, ValueError) as error:  # ValueError: a NUL in its name
        raise Refused(f"{file} cannot be read: {getattr(error, 'strerror', None) or error}") from error
    with opened:
        yield opened


def _lines(file: BinaryIO) -> Iterator[bytes]:
    """The lines of ``file``, none of them longer than one of an export can be.

    Raises:
        UnreadableLine: One is.
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
    """The records that an export holds.

    Raises:
        UnreadableLine: It is no export, or was cut off.
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
