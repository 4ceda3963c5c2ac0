"""``uno-actors recording``: draw what the flight recorders of nodes have kept."""

import asyncio
import sys
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any

import typer

from uno_actors.cli.opening import Json, Tenant
from uno_actors.cli.recorded_scenario import SentCommand, commands_in, looked_up
from uno_actors.cli.recorded_scenario import scenario as lines_of_scenario
from uno_actors.cli.run import answers_of
from uno_actors.cli.terminal import (
    FOLDED,
    NUMBERS,
    WHOLE,
    complain,
    in_utf8,
    new_table,
    say,
    say_json,
    say_tables,
)
from uno_actors.config.imports import imported
from uno_actors.errors import describe
from uno_actors.flight_recorder.files import Recording, of_lines, read, write
from uno_actors.flight_recorder.steps import KINDS, Step, steps_about
from uno_actors.flight_recorder.timeline import TITLES, merged, of_processes, rows
from uno_actors.ops.processes import Unanswered
from uno_actors.printable import counted, printable
from uno_actors.store.opening import open_store
from uno_actors.units import duration, moment

COLUMNS: dict[str, dict[str, Any]] = {
    **dict.fromkeys(TITLES, FOLDED),
    "TIME": NUMBERS,
    "STEP": WHOLE,
    "TOOK": NUMBERS,
}


def recording(
    files: Annotated[
        list[Path] | None,
        typer.Argument(
            metavar="FILE", help="Recordings, of one or several nodes.", exists=True, dir_okay=False
        ),
    ] = None,
    of: Annotated[
        str | None,
        typer.Option(
            metavar="FILE|URL",
            help="Take them from the running system of a configuration file, or of the URL of a store.",
        ),
    ] = None,
    save: Annotated[
        Path | None,
        typer.Option(
            metavar="DIRECTORY", help="With --of: keep each in a file in this directory.", file_okay=False
        ),
    ] = None,
    about: Annotated[
        str | None,
        typer.Option(
            "--id",
            metavar="ID",
            help="Only what is about a command, event, correlation, aggregate, or handler.",
            callback=in_utf8,
        ),
    ] = None,
    since: Annotated[
        str | None,
        typer.Option(
            metavar="TIME", help="Only steps since a time, or of the last seconds: 2026-01-31T12:00, or 5s."
        ),
    ] = None,
    kind: Annotated[
        list[str] | None,
        typer.Option(metavar="KIND", help=f"Only steps of this kind; repeatable: {', '.join(KINDS)}."),
    ] = None,
    scenario: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE.py",
            help="Write a scenario of the simulation, with the commands found in the log.",
            dir_okay=False,
        ),
    ] = None,
    store: Annotated[
        str | None,
        typer.Option("--store", "-s", metavar="URL", help="With --scenario: the store, or a copy of it."),
    ] = None,
    system: Annotated[
        str | None,
        typer.Option(
            metavar="MODULE:NAME", help="With --scenario: the function that makes the system of a node."
        ),
    ] = None,
    whole: Annotated[bool, typer.Option("--whole", help="Do not shorten long texts.")] = False,
    tenant: Tenant = None,
    as_json: Json = False,
) -> None:
    """Draw the latest steps of nodes as a timeline: from files, or from a running system.

    A system writes a file when it gives up, on SIGUSR1, and when its program asks for it. Times are counted from the
    first step that is shown. Steps of several nodes are ordered by the clocks of their machines.

    Exit code 1 if a file is damaged, if no system runs, or if a process does not answer.
    """
    _check_kinds(kind or ())
    if (of is None) == (not files):
        raise typer.BadParameter("name files, or a running system by --of")
    if save is not None and of is None:
        raise typer.BadParameter("--save keeps what --of takes from a running system", param_hint="--save")
    unanswered: list[Unanswered] = []
    if of is None:
        found = [each for file in files or () for each in read(file)]
    else:
        answers = answers_of(of, "recording", tenant=tenant, otherwise="tree")
        unanswered = [answer for answer in answers if isinstance(answer, Unanswered)]
        # The supervisor process of workers has no steps.
        told = [answer for answer in answers if not isinstance(answer, Unanswered) and "lines" in answer]
        found = [each for answer in told for each in of_lines(answer["lines"], f"process {answer['pid']}")]
    steps = chosen(merged(of_processes(found)), about, since, kind or ())
    if scenario is not None:
        _write_scenario(scenario, store, system, steps, found)
    elif as_json:
        for step in steps:
            say_json(step.to_fields())
    else:
        _show(found, steps, whole=whole)
    for kept in found if save is not None else ():
        try:
            path = write(kept, save or Path())
        except OSError as error:
            raise _cannot_write(save or Path(), error, "--save") from None
        if not as_json:
            say(f"kept in {path}")
    for answer in unanswered:
        complain(printable(str(answer)))
    raise typer.Exit(bool(unanswered))


def _cannot_write(path: Path, error: OSError, option: str) -> typer.BadParameter:
    return typer.BadParameter(printable(f"{path} cannot be written: {describe(error)}"), param_hint=option)


def _check_kinds(kinds: Sequence[str]) -> None:
    for each in kinds:
        if each not in KINDS:
            text = f"expected one of {', '.join(KINDS)}; found {each!r}"
            raise typer.BadParameter(text, param_hint="--kind")


def _write_scenario(
    path: Path, url: str | None, system: str | None, steps: Sequence[Step], found: Sequence[Recording]
) -> None:
    if url is None or system is None or ":" not in system:
        text = "needs --store URL, where the commands are found, and --system MODULE:NAME, which makes the system"
        raise typer.BadParameter(text, param_hint="--scenario")
    sys.path.insert(0, str(Path.cwd()))
    try:
        imported(system)
    except ValueError as error:
        raise typer.BadParameter(printable(str(error)), param_hint="--system") from None

    async def look_up() -> list[SentCommand]:
        async with open_store(url, create=False) as opened:
            return [await looked_up(opened, each) for each in commands_in(steps)]

    commands = asyncio.run(look_up())
    name = f"what {', '.join(each.node for each in found)} had recorded"
    text = "\n".join(lines_of_scenario(commands, system, name)) + "\n"
    try:
        path.write_text(text, encoding="utf-8")
    except OSError as error:
        raise _cannot_write(path, error, "--scenario") from None
    known = [each for each in commands if each.found is not None]
    say(
        f"{path}: {counted(len(known), 'command')} to send, {len(commands) - len(known)} not sent; the file says why"
    )


def chosen(
    steps: Sequence[Step], about: str | None, since: str | None, kinds: Sequence[str]
) -> Sequence[Step]:
    """The steps that a user wants to see.

    Raises:
        BadParameter: ``since`` is neither a time nor a duration.
    """
    if about is not None:
        steps = steps_about(steps, about)
    if since is not None and steps:
        begin = _begin(since, steps[-1].time)
        steps = [step for step in steps if step.time >= begin]
    return [step for step in steps if not kinds or step.kind in kinds]


def _begin(since: str, last: float) -> float:
    try:
        return last - duration(since)
    except ValueError:
        pass
    try:
        return moment(since).timestamp()
    except ValueError:
        text = f'expected a time such as 2026-01-31T12:00, or a duration such as "5s"; found {since!r}'
        raise typer.BadParameter(text, param_hint="--since") from None


def _show(found: Sequence[Recording], steps: Sequence[Step], *, whole: bool) -> None:
    for each in found:
        when = datetime.fromtimestamp(each.written, UTC).isoformat(sep=" ", timespec="seconds")[:19]
        facts = f"uno_actors {each.uno_actors}, Python {each.python}, {counted(len(each.steps), 'step')}"
        say(f"{each.node}, process {each.process}, {when} UTC, {facts}: {each.why}")
    say()
    if not steps:
        say("no step matches")
        return
    begin = datetime.fromtimestamp(steps[0].time, UTC).isoformat(sep=" ", timespec="microseconds")[:26]
    say(f"times from {begin} UTC")
    is_one = len({step.node for step in steps}) == 1
    shown = {title: column for title, column in COLUMNS.items() if not (title == "NODE" and is_one)}
    table = new_table(shown)
    for row in rows(steps, steps[0].time, whole=whole):
        table.add_row(*(text for title, text in zip(TITLES, row, strict=True) if title in shown))
    say_tables(table)
