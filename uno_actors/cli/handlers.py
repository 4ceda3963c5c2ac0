"""``uno-actors handlers``: how handlers are doing, and requests to them.

Requests are kept in the store. A running system carries them out within half a second, any other when it starts.
"""

from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import asdict
from datetime import datetime
from typing import Annotated

import typer

from uno_actors.cli.opening import Json, with_store
from uno_actors.cli.terminal import (
    FOLDED,
    NUMBERS,
    WHOLE,
    in_utf8,
    new_table,
    number,
    say,
    say_json,
    say_tables,
)
from uno_actors.errors import InvalidReset
from uno_actors.handlers.control import HandlerControl, HandlerInfo
from uno_actors.handlers.spec import Start
from uno_actors.printable import counted, printable
from uno_actors.store.port import EventStore

app = typer.Typer(help="List handlers, pause, resume and reset them.", no_args_is_help=True)

Names = Annotated[list[str], typer.Argument(metavar="NAME", help="Names of the handlers.", callback=in_utf8)]
Name = Annotated[str, typer.Argument(metavar="NAME", help="Name of the handler.", callback=in_utf8)]


def _place(text: str) -> Start:
    if text in ("earliest", "latest"):
        return text  # type: ignore[return-value]
    if text.isdecimal():
        return int(text)
    try:
        return datetime.fromisoformat(text)
    except ValueError:
        raise typer.BadParameter(
            f"{text!r} is none of: earliest, latest, a position, a time such as 2024-05-01T12:00"
        ) from None


@app.command("list")
@with_store
async def list_handlers(
    store: EventStore,
    partitions: Annotated[
        bool, typer.Option("--partitions", help="Each partition on a line of its own.")
    ] = False,
    as_json: Json = False,
) -> None:
    """List the handlers that have run on the store: position, lag, state, failures, dead letters.

    If several nodes run them, the name of the node is listed too.
    """
    found = await HandlerControl(store).handlers(partitions=partitions)
    if as_json:
        for info in found:
            say_json(asdict(info))
        return
    requested = [_requested(info) for info in found]
    columns = {"HANDLER": FOLDED, "STATE": WHOLE}
    columns |= dict.fromkeys(("POSITION", "LAG", "FAILURES", "LETTERS"), NUMBERS)
    nodes = {info.node for info in found if info.node is not None}
    more = {"NODE": FOLDED} if len(nodes) > 1 else {}
    more |= {"REQUEST": FOLDED} if any(requested) else {}
    table = new_table(columns | more)
    for info, request in zip(found, requested, strict=True):
        numbers = (info.position, info.lag, info.failures, info.dead_letters)
        added = {"NODE": printable(info.node or "-"), "REQUEST": request}
        table.add_row(
            printable(info.name), info.state, *map(number, numbers), *(added[column] for column in more)
        )
    say_tables(table)


def _requested(info: HandlerInfo) -> str:
    """The requests that are not carried out yet."""
    requests = []
    if info.paused and info.state != "paused":
        requests.append("pause")
    if info.reset_to is not None:
        requests.append(f"reset to {info.reset_to}")
    if info.retries:
        requests.append(f"retry {info.retries}")
    return ", ".join(requests)


@app.command()
@with_store
async def pause(store: EventStore, names: Names) -> None:
    """Pause handlers until they are resumed, even if the system is restarted."""
    await _for_each(store, names, HandlerControl.pause, "paused")


@app.command()
@with_store
async def resume(store: EventStore, names: Names) -> None:
    """Resume paused handlers where they stopped."""
    await _for_each(store, names, HandlerControl.resume, "resumed")


async def _for_each(
    store: EventStore, names: list[str], ask: Callable[[HandlerControl, str], Awaitable[None]], done: str
) -> None:
    control = HandlerControl(store)
    await control.check(*names)
    for name in names:
        await ask(control, name)
        say(f"{name}: {done}")


@app.command()
@with_store
async def reset(
    store: EventStore,
    name: Name,
    to: Annotated[str, typer.Option(metavar="PLACE", help="earliest, latest, a position, or a time.")],
) -> None:
    """Move a handler to another place in the log; a projection is rebuilt from the earliest event."""
    await _reset(store, name, _place(to), back_only=False)


@app.command()
@with_store
async def replay(
    store: EventStore,
    name: Name,
    since: Annotated[
        str, typer.Option("--from", metavar="PLACE", help="earliest, a position, or a time.")
    ] = "earliest",
) -> None:
    """Let a handler handle events again, from the earliest event or another place before its position."""
    await _reset(store, name, _place(since), back_only=True)


async def _reset(store: EventStore, name: str, to: Start, *, back_only: bool) -> None:
    control = HandlerControl(store)
    await control.check(name)
    parts = {info.name: info for info in await control.handlers(partitions=True)}
    known = [*await control.handlers(), *parts.values()]
    before = next(info for info in known if info.name == name)
    places = await control.places(name, to)
    if store.logs == 1:
        moves = [places[min(places)] - before.position]
    else:
        moves = [place - parts[each].position for each, place in places.items() if each in parts]
    if back_only and max(moves, default=0) > 0:
        at = f"at position {before.position}" if len(moves) == 1 else "behind that in some of its logs"
        raise InvalidReset(f"{name} is {at}, and has nothing to replay after {_where(places)}")
    await control.reset(name, to)
    say(f"{name}: continues after {_where(places)}{_difference(before, moves)}")


def _where(places: Mapping[str, int]) -> str:
    """The positions after which a handler or its partitions continue."""
    different = {*places.values()}
    return (
        f"position {min(different)}"
        if len(different) == 1
        else f"a position of each of {len(different)} logs"
    )


def _difference(before: HandlerInfo, moves: Sequence[int]) -> str:
    if before.view is not None:
        return f", in a new view; {before.view} is served until that has caught up"
    skipped, again = sum(each for each in moves if each > 0), -sum(each for each in moves if each < 0)
    counts = {"handled again": again, "skipped": skipped}
    told = [f"{counted(count, 'position')} {what}" for what, count in counts.items() if count]
    return f": {', '.join(told)}" if told else ", where it is"
