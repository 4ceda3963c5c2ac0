"""``uno-actors schedule``: commands that are sent later."""

from typing import Annotated

import typer

from uno_actors.cli.opening import Json, with_store
from uno_actors.cli.terminal import FOLDED, in_utf8, new_table, say, say_json, say_tables, seconds_of
from uno_actors.ops.api.schedules import schedule_fields
from uno_actors.printable import as_json, printable
from uno_actors.scheduling.control import ScheduleControl
from uno_actors.scheduling.entries import ScheduleInfo
from uno_actors.store.port import EventStore

app = typer.Typer(help="List scheduled commands, cancel them, send them now.", no_args_is_help=True)

Id = Annotated[
    str, typer.Argument(metavar="ID", help="Id of the schedule, as `list` shows it.", callback=in_utf8)
]


@app.command("list")
@with_store
async def list_schedules(
    store: EventStore,
    limit: Annotated[int | None, typer.Option("--limit", min=1, help="Maximum number.")] = None,
    as_json: Json = False,
) -> None:
    """List scheduled commands by due time: id, due, command, aggregate, who has scheduled it."""
    found = await ScheduleControl(store).schedules(limit=limit)
    if as_json:
        for entry in found:
            say_json(schedule_fields(entry))
        return
    table = new_table(
        {
            "DUE (UTC)": FOLDED,
            "ID": FOLDED,
            "COMMAND": FOLDED,
            "TO": FOLDED,
            "EVERY": FOLDED,
            "KEY": FOLDED,
            "SCHEDULED BY": FOLDED,
        }
    )
    for entry in found:
        table.add_row(
            seconds_of(entry.due),
            *map(
                printable,
                (entry.id, entry.command.command, _to(entry), _every(entry), entry.key, _owner(entry)),
            ),
        )
    say_tables(table)


@app.command()
@with_store
async def show(store: EventStore, schedule: Id, json_wanted: Json = False) -> None:
    """Show one scheduled command with its fields."""
    fields = schedule_fields(await ScheduleControl(store).get(schedule))
    if json_wanted:
        say_json(fields)
        return
    for name, value in fields.items():
        text = value if isinstance(value, str) else "-" if value is None else as_json(value)
        say(f"{name.replace('_', ' ')}: {printable(text)}")


@app.command()
@with_store
async def cancel(store: EventStore, schedule: Id, as_json: Json = False) -> None:
    """Cancel a scheduled command; one that recurs is not sent again."""
    entry = await ScheduleControl(store).cancel(schedule)
    if as_json:
        say_json({"id": entry.id, "cancelled": True})
    else:
        say(f"{entry.command.command} to {printable(_to(entry))} is cancelled")


@app.command("run-now")
@with_store
async def run_now(store: EventStore, schedule: Id, as_json: Json = False) -> None:
    """Send a command now, by the system that runs the scheduler. One that recurs keeps its next time."""
    entry = await ScheduleControl(store).run_now(schedule)
    if as_json:
        say_json({"id": entry.id, "fired": True})
    else:
        say(f"{entry.command.command} to {printable(_to(entry))} is sent now")


def _to(entry: ScheduleInfo) -> str:
    return f"{entry.command.aggregate_type}<{entry.command.aggregate_id}>"


def _owner(entry: ScheduleInfo) -> str:
    return "-" if entry.owner_type is None else f"{entry.owner_type}<{entry.owner_id}>"


def _every(entry: ScheduleInfo) -> str:
    return "-" if entry.every is None else f"{entry.every} {entry.tz}"
