"""``uno-actors why``: why something is not done, or what became of it."""

from dataclasses import asdict
from typing import Annotated

import typer

from uno_actors.cli.opening import Json, with_store
from uno_actors.cli.terminal import bar, in_utf8, say_json, say_lines
from uno_actors.inquiry.gathering import SEARCH
from uno_actors.inquiry.inquiry import inquire
from uno_actors.ops.sources import StoreSource
from uno_actors.store.port import EventStore

Wanted = Annotated[
    str,
    typer.Argument(
        metavar="ID",
        help="Id of a command, event, correlation or aggregate (Type/id), key of a schedule, or a name.",
        callback=in_utf8,
    ),
]


@with_store
async def why(
    store: EventStore,
    wanted: Wanted,
    url: str,
    key: str,
    seconds: Annotated[
        float, typer.Option("--search", min=0, metavar="SECONDS", help="Search the log for so long.")
    ] = SEARCH,
    as_json: Json = False,
) -> None:
    """Say why something is not done, or what became of it, and which command mends it.

    ID is what you have: an id from a log or an error, or the name of a handler, a view, an actor or a supervisor.

    The store is read, and the processes of this machine and user that run a system on it are asked, also one whose
    event loop is held by code of the program. The log is searched from its end. Exit code 1 if nothing is known.
    """
    with bar("searching", shown=not as_json):
        answer = await inquire(StoreSource(store, url, key), wanted, searching=seconds)
    if as_json:
        say_json({**asdict(answer), "state": answer.state})
    else:
        say_lines(str(answer))
    if answer.kind == "unknown":
        raise typer.Exit(1)
