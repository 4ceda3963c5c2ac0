"""``uno-actors events``: the events and commands of a program, their schemas, and what a change of them means."""

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any

import typer
from pydantic import ValidationError

from uno_actors.catalog.async_api import async_api
from uno_actors.catalog.comparison import VERDICTS, compare
from uno_actors.catalog.reading import catalog_of
from uno_actors.catalog.values import Catalog, CommandEntry, EventEntry, ModelEntry
from uno_actors.cli.opening import Json, has_effect, loaded_program
from uno_actors.cli.terminal import FOLDED, NUMBERS, new_table, say, say_json, say_tables
from uno_actors.printable import counted, printable

app = typer.Typer(
    help="List the events and commands of a program, print their schemas, and compare two programs.",
    no_args_is_help=True,
)

Sources = Annotated[
    list[str],
    typer.Argument(
        metavar="SOURCE...", help="A configuration file, modules, or a catalog that `--json` has printed."
    ),
]


@app.command("catalog")
def list_all(sources: Sources, as_json: Json = False) -> None:
    """List events and commands: fields, versions, topics, which aggregates record them and what handles them."""
    found = catalog_from(sources)
    if as_json:
        say_json(found.model_dump(mode="json"))
        return
    events = new_table(
        {
            "EVENT": FOLDED,
            "VERSION": NUMBERS,
            "TOPIC": FOLDED,
            "FIELDS": FOLDED,
            "REGISTERED BY": FOLDED,
            "HANDLED BY": FOLDED,
            "ABOUT": FOLDED,
        }
    )
    for event in found.events:
        receivers = [
            f"{each.name}{'' if each.kind == 'handler' else f' ({each.kind})'}" for each in event.handled_by
        ]
        cells = (
            event.topic or "-",
            _fields(event.model),
            _list(event.registered_by),
            _list(receivers),
            _first(event.doc),
        )
        events.add_row(printable(event.name), str(event.version), *map(printable, cells))
    commands = new_table(
        {"COMMAND": FOLDED, "REPLY": FOLDED, "FIELDS": FOLDED, "HANDLED BY": FOLDED, "ABOUT": FOLDED}
    )
    for command in found.commands:
        texts = (
            command.name,
            command.reply or "-",
            _fields(command.model),
            _list(command.handled_by),
            _first(command.doc),
        )
        commands.add_row(*map(printable, texts))
    say_tables(events, commands)


@app.command()
def schema(
    context: typer.Context,
    sources: Sources,
    asyncapi: Annotated[
        bool, typer.Option("--asyncapi", help="Print an AsyncAPI 3.0 document of the topics instead.")
    ] = False,
    release: Annotated[
        str, typer.Option(metavar="VERSION", help="With --asyncapi: the version of the document.")
    ] = "1.0.0",
) -> None:
    """Print the JSON Schema of each event type and version, and of each command."""
    has_effect(context, asyncapi, "without --asyncapi", "release")
    found = catalog_from(sources)
    if asyncapi:
        say_json(async_api(found, release), indent=2)
        return
    events = _by_key((f"{each.name}@{each.version}", each) for each in found.events)
    commands = _by_key((each.name, each) for each in found.commands)
    say_json({"events": events, "commands": commands}, indent=2)


def _by_key(entries: Iterable[tuple[str, EventEntry | CommandEntry]]) -> dict[str, Any]:
    """The schemas by key; those of classes that share one have their classes in their keys."""
    found = list(entries)
    count = Counter(key for key, _ in found)
    return {key if count[key] == 1 else f"{key} {each.code}": each.json_schema for key, each in found}


@app.command()
def diff(
    old: Annotated[Path, typer.Argument(metavar="OLD", help="A catalog that `--json` has printed.")],
    new: Annotated[Path, typer.Argument(metavar="NEW", help="That of the newer program.")],
    as_json: Json = False,
) -> None:
    """Compare two catalogs: what is compatible, needs an upcast or breaks. Exit code 1 unless all is compatible."""
    changes = compare(_kept(old), _kept(new))
    grave = [change for change in changes if change.verdict != "compatible"]
    if as_json:
        for change in changes:
            say_json(asdict(change))
    elif changes:
        table = new_table({"VERDICT": FOLDED, "OF": FOLDED, "FIELD": FOLDED, "WHY": FOLDED})
        for change in changes:
            of = f"{change.kind} {change.name}"
            table.add_row(change.verdict, *map(printable, (of, change.field or "-", change.reason)))
        say_tables(table)
        say()
        numbers = [(verdict, sum(change.verdict == verdict for change in changes)) for verdict in VERDICTS]
        say(
            f"{counted(len(changes), 'change')}: {', '.join(f'{n} {verdict}' for verdict, n in numbers if n)}"
        )
    else:
        say("nothing has changed")
    raise typer.Exit(1 if grave else 0)


def catalog_from(sources: Sequence[str]) -> Catalog:
    """The catalog of a configuration file, of modules, or that of a file of JSON.

    Raises:
        InvalidConfig: The configuration file has faults.
        BadParameter: Something else is wrong with the sources.
    """
    if len(sources) == 1 and sources[0].endswith(".json"):
        return _kept(Path(sources[0]))
    return catalog_of(*loaded_program(sources))


def _kept(path: Path) -> Catalog:
    try:
        return Catalog.model_validate_json(path.read_bytes())
    except OSError as error:
        raise typer.BadParameter(f"{printable(str(path))} cannot be read: {error.strerror}") from None
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        place = ".".join(map(str, first["loc"]))
        reason = f"{place}: {first['msg']}" if place else first["msg"]
        raise typer.BadParameter(
            printable(f"{path} is not a catalog ({reason}): make one by uno-actors events catalog --json")
        ) from None


def _fields(model: ModelEntry) -> str:
    return _list(
        [
            f"{name}: {field.type}{'' if field.required else f' = {field.default}'}"
            for name, field in model.fields.items()
        ]
    )


def _list(texts: Sequence[str]) -> str:
    return ", ".join(texts) or "-"


def _first(doc: str) -> str:
    return doc.partition("\n")[0] or "-"
