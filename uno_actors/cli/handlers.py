"""``uno-actors handlers``: how handlers are doing, and requests to them.

Requests are kept in the store. A running system carries them out within half a second, any other when it starts.
"""

import asyncio
import getpass
import socket
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import asdict
from functools import partial
from typing import Annotated

import typer

from uno_actors.cli.opening import Json, handler_names, with_store
from uno_actors.cli.terminal import (
    FOLDED,
    NUMBERS,
    WHOLE,
    bar,
    in_utf8,
    new_table,
    number,
    say,
    say_json,
    say_tables,
)
from uno_actors.errors import InvalidReset, WorldError
from uno_actors.handlers.control import HandlerControl, HandlerInfo, grouped
from uno_actors.handlers.renaming import Kept
from uno_actors.handlers.spec import Start
from uno_actors.ops.api.handlers import place
from uno_actors.printable import counted, printable
from uno_actors.store.port import EventStore

app = typer.Typer(help="List handlers, pause, resume, reset, rename and forget them.", no_args_is_help=True)

LOOK_AGAIN = 0.2
"""Seconds between two looks at how far a handler has come."""

Names = Annotated[
    list[str],
    typer.Argument(
        metavar="NAME", help="Names of the handlers.", callback=in_utf8, autocompletion=handler_names
    ),
]
Name = Annotated[
    str,
    typer.Argument(
        metavar="NAME", help="Name of the handler.", callback=in_utf8, autocompletion=handler_names
    ),
]
Wait = Annotated[
    float,
    typer.Option(
        min=0,
        metavar="SECONDS",
        help="Wait so long until the handler has caught up; exit code 1 if it has not.",
    ),
]


class NotCaughtUp(WorldError):
    """A handler has not caught up in time."""


def to_place(text: str) -> Start:
    """The place in the log that a user has written.

    Raises:
        BadParameter: It is none.
    """
    try:
        return place(text)
    except ValueError as error:
        raise typer.BadParameter(str(error)) from None


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
async def pause(
    store: EventStore,
    names: Names,
    note: Annotated[
        str, typer.Option(metavar="TEXT", help="Why, for people who find it paused.", callback=in_utf8)
    ] = "",
    as_json: Json = False,
) -> None:
    """Pause handlers until they are resumed, even if the system is restarted.

    `uno-actors why` says who has paused a handler, and when and why.
    """
    paused = partial(HandlerControl.pause, by=_who(), note=note)
    await _for_each(store, names, paused, "paused", as_json=as_json)


def _who() -> str:
    """The user of this machine, for people who find a handler paused."""
    host = socket.gethostname()
    try:
        return f"{getpass.getuser()}@{host}"
    except (OSError, KeyError, ImportError):  # this user has no name
        return host


@app.command()
@with_store
async def resume(store: EventStore, names: Names, as_json: Json = False) -> None:
    """Resume paused handlers where they stopped."""
    await _for_each(store, names, HandlerControl.resume, "resumed", as_json=as_json)


async def _for_each(
    store: EventStore,
    names: list[str],
    ask: Callable[[HandlerControl, str], Awaitable[None]],
    done: str,
    *,
    as_json: bool,
) -> None:
    control = HandlerControl(store)
    await control.check(*names)
    for name in names:
        await ask(control, name)
        if as_json:
            say_json({"handler": name, "paused": done == "paused"})
        else:
            say(f"{name}: {done}")


@app.command()
@with_store
async def reset(
    store: EventStore,
    name: Name,
    to: Annotated[str, typer.Option(metavar="PLACE", help="earliest, latest, a position, or a time.")],
    wait: Wait = 0,
    as_json: Json = False,
) -> None:
    """Move a handler to another place in the log; a projection is rebuilt from the earliest event."""
    await _reset(store, name, to_place(to), wait, back_only=False, as_json=as_json)


@app.command()
@with_store
async def replay(
    store: EventStore,
    name: Name,
    since: Annotated[
        str, typer.Option("--from", metavar="PLACE", help="earliest, a position, or a time.")
    ] = "earliest",
    wait: Wait = 0,
    as_json: Json = False,
) -> None:
    """Let a handler handle events again, from the earliest event or another place before its position."""
    await _reset(store, name, to_place(since), wait, back_only=True, as_json=as_json)


async def _reset(
    store: EventStore, name: str, to: Start, wait: float, *, back_only: bool, as_json: bool
) -> None:
    control = HandlerControl(store)
    await control.check(name)
    parts = {info.name: info for info in await control.handlers(partitions=True)}
    known = [*await control.handlers(), *parts.values()]
    before = next(info for info in known if info.name == name)
    with bar("finding the place"):  # of a time, by reading the log
        places = await control.places(name, to)
    if store.logs == 1:
        moves = [places[min(places)] - before.position]
    else:
        moves = [place - parts[each].position for each, place in places.items() if each in parts]
    if back_only and max(moves, default=0) > 0:
        at = f"at position {before.position}" if len(moves) == 1 else "behind that in some of its logs"
        raise InvalidReset(f"{name} is {at}, and has nothing to replay after {_where(places)}")
    await control.reset(name, to)
    if as_json:
        say_json({"handler": name, "positions": places, "before": before.position, "view": before.view})
    else:
        say(f"{name}: continues after {_where(places)}{_difference(before, moves)}")
    if wait:
        await _caught_up(store, name, wait)
        if as_json:
            say_json({"handler": name, "lag": 0})
        else:
            say(f"{name}: has caught up")


async def _caught_up(store: EventStore, name: str, wait: float) -> None:
    """Wait until a handler that was reset has reached what is now the end of the log.

    Raises:
        NotCaughtUp: It has not within so many seconds.
    """
    control, ends, most = HandlerControl(store), await store.last_positions(), 0
    deadline = time.monotonic() + wait
    with bar(name) as progress:
        while True:
            known = await control.handlers(partitions=True)
            info = next(each for each in (*known, *grouped(known)) if each.name == name)
            if info.reset_to is None:
                most = max(most, info.lag)
                progress(most - info.lag, most)
                if not info.lag or (len(ends) == 1 and info.position >= ends[0]):
                    return
            if time.monotonic() > deadline:
                raise NotCaughtUp(f"{name} is {info.state} after {wait:g} s, with a lag of {info.lag:,}")
            await asyncio.sleep(LOOK_AGAIN)


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


@app.command()
@with_store
async def rename(
    store: EventStore,
    old: Annotated[
        str,
        typer.Argument(
            metavar="OLD", help="Its name in the store.", callback=in_utf8, autocompletion=handler_names
        ),
    ],
    new: Annotated[str, typer.Argument(metavar="NEW", help="Its name from now on.", callback=in_utf8)],
    as_json: Json = False,
) -> None:
    """Let a handler continue under a new name, with its position, dead letters, requests and views.

    Do so between the last run of the program with the old name and the first with the new one. A handler that runs is
    refused. If it is interrupted, run it again.
    """
    with bar("rename"):
        kept = await HandlerControl(store).rename(old, new)
    if as_json:
        say_json({"handler": new, "before": old, **asdict(kept)})
    else:
        say(f"{old}: is named {new}; {_counted(kept)} moved")


@app.command()
@with_store
async def forget(store: EventStore, name: Name, as_json: Json = False) -> None:
    """Remove the positions, dead letters, requests and views of a handler that the program no longer has.

    Events stay. A handler of this name is a new one afterwards. A handler that runs is refused.
    """
    with bar("forget"):
        kept = await HandlerControl(store).forget(name)
    if as_json:
        say_json({"handler": name, **asdict(kept)})
    else:
        say(f"{name}: forgotten; {_counted(kept)} removed")


def _counted(kept: Kept) -> str:
    parts = [counted(kept.checkpoints, "position")]
    parts += [counted(kept.views, "view")] if kept.views else []
    parts += [counted(kept.dead_letters, "dead letter")] if kept.dead_letters else []
    return ", ".join(parts)
