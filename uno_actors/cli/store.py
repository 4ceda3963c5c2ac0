"""``uno-actors store``: look at an event store, check it, copy it.

The commands need no class of an event: they show records from their header and raw payload. A store must exist, and
other processes may be using it.
"""

import asyncio
from collections import Counter
from typing import Annotated

import typer

from uno_actors.cli.json_lines import export_events, import_events
from uno_actors.cli.opening import (
    AggregateId,
    AggregateType,
    Correlation,
    EventTypes,
    Json,
    Limit,
    Refused,
    Topics,
    TypeIfSeveral,
    with_store,
    with_url,
)
from uno_actors.cli.record_lines import readable_fields
from uno_actors.cli.rows import show_records
from uno_actors.cli.state import state, stream_meant
from uno_actors.cli.store_copy import Copied, copy_store
from uno_actors.cli.terminal import (
    FOLDED,
    NUMBERS,
    bar,
    ends_with_reader,
    in_utf8,
    new_table,
    number,
    say,
    say_json,
    say_tables,
    size,
)
from uno_actors.errors import CallerError, InvalidStoreUrl
from uno_actors.handlers.control import HandlerControl
from uno_actors.handlers.lag import events_behind
from uno_actors.handlers.partitions import whole_name
from uno_actors.printable import counted, printable
from uno_actors.store.maintenance import CanBackUp, CanVerify, Fault, HasInfo
from uno_actors.store.opening import open_store
from uno_actors.store.port import EventStore
from uno_actors.store.records import StoredRecord
from uno_actors.store_urls import without_password

app = typer.Typer(help="Look at an event store, check it, copy it.", no_args_is_help=True)
app.command()(state)


class NotOffered(CallerError):
    """A command that this kind of store does not support."""

    def __init__(self, url: str, command: str) -> None:
        kind = url.partition(":")[0]
        super().__init__(
            f"a store of the kind {kind} has no `{command}`: use the tools of its database, or copy it into an lmdb:"
            " store by `uno-actors store copy`"
        )


# --- looking -----------------------------------------------------------------------------------------------


@app.command()
@with_store
async def info(store: EventStore, url: str, as_json: Json = False) -> None:
    """Show the store's size, events, handlers and their dead letters."""
    facts = (await store.info())._asdict() if isinstance(store, HasInfo) else {}
    ends = await store.last_positions()
    facts |= {"last_position": ends[0]} if len(ends) == 1 else {"logs": len(ends), "last_positions": ends}
    checkpoints = await HandlerControl(store).positions()
    letters = Counter(letter.handler for letter in await store.dead_letters())
    if as_json:
        say_json(
            {"store": without_password(url), **facts, "checkpoints": checkpoints, "dead_letters": letters}
        )
        return
    summary = new_table()
    for name, value in facts.items():
        shown = value
        if isinstance(value, int):
            shown = size(value) if name in ("size", "map_used", "map_size") else f"{value:,}"
        summary.add_row(name.replace("_", " "), printable(shown))
    parts: dict[str, list[str]] = {}
    for name in sorted({*checkpoints, *letters}):
        parts.setdefault(whole_name(name), []).append(name)
    summary.add_row("handlers", f"{len(parts):,}")
    summary.add_row("dead letters", f"{letters.total():,}")
    handlers = new_table({"HANDLER": FOLDED} | dict.fromkeys(("POSITION", "LAG", "LETTERS"), NUMBERS))
    for name, names in parts.items():
        lags = {at: events_behind(at, ends) for each in names if (at := checkpoints.get(each)) is not None}
        position = max(lags, key=lambda at: lags[at], default=None)  # of the partition that lags most
        lag = None if position is None else lags[position]
        handlers.add_row(printable(name), *map(number, (position, lag, sum(letters[each] for each in names))))
    say_tables(summary, *[handlers] * bool(handlers.row_count))


@app.command()
@with_store
async def events(
    store: EventStore,
    topic: Topics = None,
    event_type: EventTypes = None,
    aggregate_type: AggregateType = None,
    aggregate_id: Annotated[
        str | None, typer.Option("--id", help="Id of the aggregate.", callback=in_utf8)
    ] = None,
    correlation_id: Correlation = None,
    after: Annotated[int, typer.Option(min=0, help="Only events after this position.")] = 0,
    until: Annotated[int | None, typer.Option(min=0, help="Only events up to this position.")] = None,
    limit: Limit = None,
    follow: Annotated[bool, typer.Option("--follow", "-f", help="Wait for new events until Ctrl-C.")] = False,
    as_json: Json = False,
) -> None:
    """List the events of the log, in order."""
    matching = store.log_filter(
        topic or None, event_type or None, aggregate_type, correlation_id, aggregate_id
    )
    if follow and until is not None:
        raise Refused("--follow waits for new events, and --until ends at a position: leave one of them out")
    read = (
        store.follow_records(after, matching)
        if follow
        else store.read_records(after, limit, matching, until=until)
    )
    with ends_with_reader():
        await show_records(read, limit, as_json=as_json)


@app.command()
@with_store
async def stream(
    store: EventStore,
    url: str,
    aggregate_id: AggregateId,
    aggregate_type: TypeIfSeveral = None,
    after: Annotated[int, typer.Option(min=0, help="Only events after this version.")] = 0,
    until: Annotated[int | None, typer.Option(min=0, help="Only events up to this version.")] = None,
    limit: Limit = None,
    backward: Annotated[bool, typer.Option("--backward", help="Newest first.")] = False,
    as_json: Json = False,
) -> None:
    """List the events of one aggregate, in order."""
    name = await stream_meant(store, url, aggregate_id, aggregate_type)
    records = store.stream_records(name, after, backward=backward, until_version=until)
    await show_records(records, limit, as_json=as_json)


@app.command()
@with_store
async def trace(
    store: EventStore,
    url: str,
    correlation_id: Annotated[
        str, typer.Argument(help="Correlation id that the events share.", callback=in_utf8)
    ],
    as_json: Json = False,
) -> None:
    """Show everything that one message caused, each event below its cause.

    In JSON each event has the position of its cause, as `below`.
    """
    with bar("trace"):  # the whole log is read
        tree = await store.causal_records(correlation_id)
    if not tree.roots:
        raise Refused(f"nothing in {without_password(url)} has the correlation id {correlation_id!r}")
    if as_json:
        above = {child.position: node.position for node in tree for child in node.children}
        for node in tree:
            fields = readable_fields(StoredRecord(node.position, node.event))
            say_json({**fields, "below": above.get(node.position)})
        return
    for line in str(tree).split("\n"):
        say(line)


# --- checking and copying ----------------------------------------------------------------------------------


@app.command()
@with_store
async def verify(store: EventStore, url: str, as_json: Json = False) -> None:
    """Check everything in the store. The first fault ends the check with exit code 1."""
    if not isinstance(store, CanVerify):
        raise NotOffered(url, "verify")
    with bar("verify") as progress:
        found = await store.verify(progress)
    is_whole = not isinstance(found, Fault)
    if as_json:
        say_json({"whole": is_whole, **found._asdict()})
    elif isinstance(found, Fault):
        say(f"fault: {found.reason}")
    else:
        say(f"whole: {counted(found.events, 'event')}, {counted(found.streams, 'stream')}")
    raise typer.Exit(not is_whole)


@app.command()
@with_url
async def backup(
    url: str,
    target: Annotated[str, typer.Argument(help="A new place for the copy.")],
    as_json: Json = False,
) -> None:
    """Copy the store as it is at one moment, while it is in use."""
    await _copy(url, target, "backup")
    if as_json:
        say_json({"store": without_password(url), "backup": target})
    else:
        say(f"copied to {target}")


@app.command()
@with_url
async def restore(
    url: str,
    copy: Annotated[str, typer.Argument(metavar="BACKUP", help="A copy made by backup.")],
    as_json: Json = False,
) -> None:
    """Restore a backup as a new store; nothing is overwritten."""
    scheme, colon, rest = url.partition(":")
    if not colon:
        raise InvalidStoreUrl(url, ["lmdb"])
    await _copy(f"{scheme}:{copy}", rest.partition("?")[0], "restore")
    if as_json:
        say_json({"store": without_password(url), "backup": copy})
    else:
        say(f"restored to {without_password(url)}")


async def _copy(url: str, target: str, command: str) -> None:
    async with open_store(url, create=False) as store:
        if not isinstance(store, CanBackUp):
            raise NotOffered(url, command)
        with bar(command) as progress:
            await store.backup(target, progress)


@app.command("copy")
def copy_all(
    source: Annotated[str, typer.Argument(metavar="SOURCE", help="URL of the store to copy.")],
    target: Annotated[str, typer.Argument(metavar="TARGET", help="URL of a new store, of any kind.")],
    as_json: Json = False,
) -> None:
    """Copy events, checkpoints, dead letters and views to another store, and compare the two.

    If a copy is interrupted, run the same command again: it resumes.
    """

    async def run() -> Copied:
        async with open_store(source, create=False) as from_store, open_store(target) as to_store:
            with bar("copy") as progress:
                return await copy_store(from_store, to_store, progress)

    copied = asyncio.run(run())
    if as_json:
        stores = {"source": without_password(source), "target": without_password(target)}
        say_json({**stores, **copied._asdict()})
        return
    known = f", {copied.known:,} were there already" * bool(copied.known)
    views = counted(copied.views, "view") + f", {copied.rebuilt:,} to be rebuilt" * bool(copied.rebuilt)
    say(f"{counted(copied.events, 'event')} copied{known}; {views}; all are equal")


app.command("export")(export_events)
app.command("import")(import_events)
