"""``uno-actors deadletters``: events that handlers could not handle."""

import asyncio
import time
from typing import Annotated

import typer

from uno_actors.cli.opening import Json, handler_names, with_store
from uno_actors.cli.record_lines import readable_fields
from uno_actors.cli.terminal import (
    FOLDED,
    NUMBERS,
    bar,
    in_utf8,
    new_table,
    say,
    say_json,
    say_tables,
    seconds_of,
)
from uno_actors.errors import CallerError
from uno_actors.handlers.control import HandlerControl
from uno_actors.ops.api.dead_letters import chosen, drop_letters, letter_fields
from uno_actors.printable import as_json, bounded, counted, printable
from uno_actors.store.port import EventStore

app = typer.Typer(help="List dead letters, retry and drop them.", no_args_is_help=True)

LOOK_AGAIN = 0.1
"""Seconds between two looks at whether retries are done."""
LONGEST_ROW = 200
"""Characters of an error's text in a table; `show` prints more."""

Handler = Annotated[
    str,
    typer.Argument(
        metavar="HANDLER", help="Name of the handler.", callback=in_utf8, autocompletion=handler_names
    ),
]
Positions = Annotated[
    list[int] | None, typer.Argument(metavar="POSITION", help="Positions in the log; or --all.")
]
All = Annotated[bool, typer.Option("--all", help="All dead letters of the handler.")]


class NotRetried(CallerError):
    """A retry has failed, or was not made in time."""


@app.command("list")
@with_store
async def list_letters(
    store: EventStore,
    handler: Annotated[
        str | None, typer.Option("--handler", help="Only those of this handler.", callback=in_utf8)
    ] = None,
    as_json: Json = False,
) -> None:
    """List dead letters: handler, position, event, attempts, error."""
    letters = await (store.dead_letters() if handler is None else HandlerControl(store).dead_letters(handler))
    if as_json:
        for letter in letters:
            say_json(letter_fields(letter))
        return
    table = new_table(
        {
            "HANDLER": FOLDED,
            "POSITION": NUMBERS,
            "EVENT": FOLDED,
            "ATTEMPTS": NUMBERS,
            "LAST FAILED (UTC)": FOLDED,
            "ERROR": FOLDED,
        }
    )
    for letter in letters:
        last = seconds_of(letter.last_failed)
        error = bounded(letter.error, LONGEST_ROW)
        name, event_type, error = map(printable, (letter.handler, letter.event_type, error))
        table.add_row(name, str(letter.position), event_type, str(letter.attempts), last, error)
    say_tables(table)


@app.command()
@with_store
async def show(
    store: EventStore,
    handler: Handler,
    position: Annotated[int, typer.Argument(metavar="POSITION", help="Position in the log.")],
    json_wanted: Json = False,
) -> None:
    """Show one dead letter: its event, and the traceback of the last attempt."""
    letter = (await chosen(store, handler, [position]))[0]
    stored = await store.record_at(position)
    event = readable_fields(stored)
    if json_wanted:
        say_json({**letter_fields(letter), "traceback": letter.traceback, "event": event})
        return
    for name, value in letter_fields(letter).items():
        say(f"{name.replace('_', ' ')}: {value}")
    say(f"event: {as_json(event)}")
    say("traceback:")
    for line in letter.traceback.rstrip().split("\n"):
        say(f"  | {line}")


@app.command()
@with_store
async def retry(
    store: EventStore,
    handler: Handler,
    positions: Positions = None,
    every: All = False,
    wait: Annotated[
        float,
        typer.Option(
            min=0,
            metavar="SECONDS",
            help="Wait so long for the outcome; the exit code is 1 if a retry fails.",
        ),
    ] = 0,
    as_json: Json = False,
) -> None:
    """Give dead letters to their handler once more, each between two other events of the log.

    A letter that is handled is removed. One that fails again stays, with one more attempt.
    """
    wanted = _wanted(positions, every)
    control = HandlerControl(store)
    before = {letter.position: letter for letter in await control.dead_letters(handler)}
    count = await control.retry(handler, wanted)
    if as_json:
        say_json({"handler": handler, "retries": count})
    else:
        say(f"{handler}: will retry {counted(count, 'dead letter')}")
    if wait and count:
        handled = await _outcome(control, handler, list(before) if wanted is None else wanted, wait)
        if as_json:
            say_json({"handler": handler, "handled": handled})
        else:
            say(f"{handler}: {counted(handled, 'dead letter')} handled")


async def _outcome(control: HandlerControl, handler: str, wanted: list[int], wait: float) -> int:
    """Wait until the dead letters are retried, and return their number.

    Raises:
        NotRetried: A retry has failed, or was not made in time.
    """
    deadline = time.monotonic() + wait
    with bar("retry") as progress:
        while left := set(wanted).intersection(await control.retries(handler)):
            if time.monotonic() > deadline:
                raise NotRetried(
                    f"{counted(len(left), 'dead letter')} not retried within {wait:g} s: the handler does not run,"
                    " is paused or is busy; see `uno-actors handlers list`"
                )
            progress(len(wanted) - len(left), len(wanted))
            await asyncio.sleep(LOOK_AGAIN)
    failed = [letter for letter in await control.dead_letters(handler) if letter.position in wanted]
    if failed:
        shown = "; ".join(
            f"position {letter.position}: {bounded(letter.error, LONGEST_ROW)}" for letter in failed
        )
        raise NotRetried(f"{counted(len(failed), 'dead letter')} of {len(wanted)} failed again: {shown}")
    return len(wanted)


@app.command()
@with_store
async def drop(
    store: EventStore,
    handler: Handler,
    positions: Positions = None,
    every: All = False,
    as_json: Json = False,
) -> None:
    """Remove dead letters; the handler never handles their events."""
    count = await drop_letters(store, handler, _wanted(positions, every))
    if as_json:
        say_json({"handler": handler, "dropped": count})
    else:
        say(f"{handler}: {counted(count, 'dead letter')} dropped")


def _wanted(positions: list[int] | None, every: bool) -> list[int] | None:
    if bool(positions) == every:
        raise typer.BadParameter("name the positions of the letters, or --all")
    return None if every else positions
