"""``uno-actors rehearse``: let old and new code read one log, and compare what they make of it."""

import os
import tomllib
from collections.abc import Iterator
from dataclasses import asdict
from datetime import datetime
from pathlib import Path
from typing import Annotated

import typer

from uno_actors.cli.opening import Tenant, Url, of_tenant
from uno_actors.cli.terminal import (
    FOLDED,
    NUMBERS,
    WHOLE,
    bar,
    complain,
    new_table,
    say,
    say_json,
    say_tables,
)
from uno_actors.printable import counted, printable, printable_lines
from uno_actors.rehearsal.findings import Finding, Report
from uno_actors.rehearsal.places import NoSuchPlace
from uno_actors.rehearsal.rehearsal import Rehearsed
from uno_actors.rehearsal.rehearsal import rehearse as rehearsed
from uno_actors.rehearsal.sides import CodeFailed
from uno_actors.units import moment

Accepted = Annotated[
    list[str] | None,
    typer.Option(
        "--accept", metavar="NAME", help="A difference that is meant, by the name in column OF; repeatable."
    ),
]


def rehearse(
    sources: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="SOURCE",
            help="The configuration file of the program, or its modules, as both programs find them. Default is the"
            " only configuration file in the directory of --new.",
        ),
    ] = None,
    store: Url = None,
    old: Annotated[
        str,
        typer.Option("--old", metavar="CODE", help="A git revision, a directory or a virtual environment."),
    ] = "HEAD",
    new: Annotated[str, typer.Option("--new", metavar="CODE", help="Likewise.")] = ".",
    paths: Annotated[
        list[str] | None,
        typer.Option(
            "--path",
            metavar="DIR",
            help="Directory of packages below that of the code; repeatable. Default is . and src.",
        ),
    ] = None,
    sample: Annotated[
        int | None, typer.Option(min=1, help="Load only so many aggregates of each type.")
    ] = None,
    since: Annotated[
        str | None, typer.Option(metavar="TIME", help="Load only aggregates with an event since then.")
    ] = None,
    until: Annotated[
        str | None, typer.Option(metavar="TIME", help="Stop before the first later event.")
    ] = None,
    commands: Annotated[
        int, typer.Option(min=0, help="Decide the last commands that the log holds again: how many.")
    ] = 0,
    accept: Accepted = None,
    processes: Annotated[
        int | None, typer.Option(min=1, help="Processes of both programs. Default is the number of cores.")
    ] = None,
    tenant: Tenant = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
) -> None:
    """Compare what old and new code make of a log: events, states, views, snapshots and commands.

    Nothing is written to the store, which may be a backup or in use.

    Exit codes: 0 if the new code does as the old one, 1 if it does not, 2 if they cannot be compared.
    """
    if store is None:
        raise typer.BadParameter("name the store by --store URL or UNO_ACTORS_STORE")
    wanted = Rehearsed(
        of_tenant(store, tenant),
        tuple(sources or _only_file(new)),
        old,
        new,
        tuple(paths or ()),
        sample,
        _time("--since", since),
        _time("--until", until),
        commands,
        frozenset(accept or ()),
        processes or os.cpu_count() or 2,
    )
    try:
        with bar("rehearsed", shown=not as_json) as progress:
            report = rehearsed(wanted, Path.cwd(), progress)
    except (NoSuchPlace, CodeFailed) as error:
        complain(printable_lines(str(error)))
        raise typer.Exit(2) from None
    if as_json:
        say_json(as_data(report))
    else:
        _show(report)
    raise typer.Exit(0 if report.is_equal else 1)


def as_data(report: Report) -> dict[str, object]:
    """A report as JSON has it."""
    return {
        "old": report.old,
        "new": report.new,
        "equal": report.is_equal,
        "compared": report.numbers._asdict(),
        "findings": [asdict(finding) for finding in report.findings],
    }


def say_findings(findings: tuple[Finding, ...]) -> None:
    """Print findings as a table."""
    table = new_table(
        {
            "WEIGHT": WHOLE,
            "FINDING": FOLDED,
            "OF": FOLDED,
            "COUNT": NUMBERS,
            "EXAMPLE": FOLDED,
            "REMEDY": FOLDED,
        }
    )
    for each in findings:
        texts = (each.weight, each.what, each.of, f"{each.count:,}", each.example, each.remedy or "-")
        table.add_row(*map(printable, texts))
    say_tables(table)


def _show(report: Report) -> None:
    if report.findings:
        say_findings(report.findings)
        say()
    for line in _summary(report):
        say(printable(line))


def _summary(report: Report) -> Iterator[str]:
    numbers = report.numbers
    compared = [
        counted(numbers.events, "event"),
        f"{counted(numbers.types, 'kind')} of events",
        counted(numbers.streams, "aggregate"),
        f"{counted(numbers.rows, 'row')} of {counted(numbers.views, 'view')}",
        counted(numbers.snapshots, "snapshot"),
        counted(numbers.commands, "command"),
    ]
    yield f"old {report.old}, new {report.new}: {', '.join(compared)} in {numbers.seconds:.1f} s"
    if report.is_equal:
        yield "the new code does as the old one"
    else:
        grave = sum(each.weight == "grave" for each in report.findings)
        others = sum(each.weight == "difference" for each in report.findings)
        yield f"{grave} grave, {counted(others, 'difference')}"


def _only_file(new: str) -> list[str]:
    """The configuration file of a program that is alone in its directory.

    Raises:
        BadParameter: There is none, or there are several.
    """
    directory = Path(new) if Path(new).is_dir() else Path.cwd()
    found = [path.name for path in sorted(directory.glob("*.toml")) if _is_configuration(path)]
    if len(found) != 1:
        which = f"; here are {', '.join(found)}" if found else ""
        raise typer.BadParameter(f"name the program's configuration file, or its modules{which}")
    return found


def _is_configuration(path: Path) -> bool:
    try:
        return "system" in tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return False


def _time(option: str, text: str | None) -> datetime | None:
    if text is None:
        return None
    try:
        return moment(text)
    except ValueError:
        raise typer.BadParameter(f"{option} is a time such as 2026-01-31T12:00Z; found {text!r}") from None
