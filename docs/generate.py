"""What the documentation takes from the code: the tables of configuration keys and commands, and ``llms.txt``.

MkDocs calls the functions ``on_...``; the others need nothing but `uno_actors`. A page asks for a table with a comment
of its own, ``<!-- generated: configuration keys -->``.
"""

import ast
import inspect
import json
import re
import runpy
from collections.abc import Callable, Iterator
from dataclasses import is_dataclass
from importlib import import_module
from pathlib import Path
from typing import Any, get_args, get_type_hints

import typer
from typer.testing import CliRunner

from uno_actors import SystemStatistics
from uno_actors.ops.metrics.definitions import as_table

app = import_module("uno_actors.cli.app").app

PLACE = re.compile(r"^<!-- generated: ([\w ]+) -->$", re.MULTILINE)

TABLES = {
    "": ("The file", None),
    "SystemTable": ("`[system]`", None),
    "AggregatesTable": ("`[aggregates]`", None),
    "ClusterTable": ("`[cluster]`", None),
    "TenantsTable": ("`[tenants]`", None),
    "LoggingTable": ("`[logging]`", None),
    "HandlerTable": ("`[[handlers]]`", None),
    "SupervisorTable": ("`[[supervisors]]`", None),
    "BackoffTable": ("`backoff` of a supervisor", None),
    "SupervisedHandlerTable": ("`[[supervisors.handlers]]`", "HandlerTable"),
    "ActorTable": ("`[[supervisors.actors]]`", None),
    "NestedSupervisorTable": ("`[[supervisors.supervisors]]`", "SupervisorTable"),
}
"""Headings by the names in the JSON Schema; a table that only adds to another one names it."""


def configuration_keys() -> str:
    """A section for each table of a configuration file, with its keys, from the JSON Schema that users get."""
    schema = json.loads(CliRunner().invoke(app, ["schema"]).stdout)
    definitions = {"": schema, **schema["$defs"]}
    if unknown := definitions.keys() - TABLES.keys():
        raise ValueError(f"no heading for {unknown}")
    return "\n".join(line for name in TABLES for line in _section(name, definitions))


def _section(name: str, definitions: dict[str, Any]) -> Iterator[str]:
    heading, base = TABLES[name]
    table = definitions[name]
    inherited = definitions[base]["properties"] if base else {}
    yield f"## {heading}\n"
    yield f"{table['description']}\n"
    if base:
        yield f"All keys of {TABLES[base][0]}, and:\n"
    yield "| key | value | default | meaning |\n|---|---|---|---|"
    for key, value in table["properties"].items():
        if key not in inherited:
            default = _default(key, value, table)
            yield f"| `{key}` | {_kind(value)} | {default} | {_cell(value.get('description', ''))} |"
    yield ""


def _default(key: str, value: dict[str, Any], table: dict[str, Any]) -> str:
    if key in table.get("required", ()):
        return "required"
    return f"`{json.dumps(value['default'])}`" if "default" in value else ""


def _kind(value: dict[str, Any]) -> str:
    """What may stand there, in words."""
    parts = [part for part in value.get("anyOf", [value]) if part.get("pattern") != r"\$\{"]
    return " or ".join(dict.fromkeys(_of_one(part) for part in parts))


def _of_one(part: dict[str, Any]) -> str:
    if "$ref" in part:
        return f"table, see {TABLES[part['$ref'].rpartition('/')[2]][0]}"
    if "enum" in part:
        return ", ".join(f"`{json.dumps(word)}`" for word in part["enum"])
    if part.get("type") == "array":
        return "list of tables" if "$ref" in part.get("items", {}) else "list"
    if part.get("type") in ("integer", "number"):
        limits = [f"{part['minimum']} or more"] if "minimum" in part else []
        limits += [f"at most {part['maximum']}"] if "maximum" in part else []
        return ", ".join(["number" if part["type"] == "number" else "whole number", *limits])
    if "examples" in part:
        return f"text such as `{json.dumps(part['examples'][0])}`"
    return {"string": "text", "boolean": "`true`, `false`", "object": "table"}.get(
        part.get("type", ""), "any"
    )


def commands() -> str:
    """A section for each command, with its arguments and options."""
    return "\n".join(_commands(typer.main.get_command(app), "uno-actors"))


def _commands(command: Any, name: str) -> Iterator[str]:
    if hasattr(command, "commands"):
        for each, below in command.commands.items():
            yield from _commands(below, f"{name} {each}")
        return
    arguments = [each for each in command.params if each.param_type_name == "argument"]
    options = [each for each in command.params if each.param_type_name == "option" and each.name != "help"]
    usage = " ".join([name, *(["[OPTIONS]"] if options else []), *map(_usage, arguments)])
    yield f"## {name}\n\n```text\n{usage}\n```\n"
    yield re.sub(r"\s*\n\s*\n\s*", "\n\n", command.help.strip()) + "\n"
    if not command.params:
        return
    yield "| | meaning | default |\n|---|---|---|"
    for each in arguments:
        yield f"| `{_metavar(each)}` | {_cell(each.help or '')} | {_given_default(each)} |"
    for each in options:
        names = ", ".join(f"`{option}`" for option in (*each.opts, *each.secondary_opts))
        value = "" if each.is_flag else f" `{_metavar(each)}`"
        variable = f" Environment variable: `{each.envvar}`." if each.envvar else ""
        yield f"| {names}{value} | {_cell(each.help or '')}{variable} | {_given_default(each)} |"
    yield ""


def _metavar(parameter: Any) -> str:
    return str(parameter.metavar or parameter.opts[0].lstrip("-").upper())


def _usage(argument: Any) -> str:
    name = _metavar(argument) + ("..." if argument.nargs == -1 else "")
    return name if argument.required else f"[{name}]"


def _given_default(parameter: Any) -> str:
    if parameter.required:
        return "required"
    default = parameter.default
    is_given = isinstance(default, (str, int, float)) and not isinstance(default, bool)
    return f"`{default}`" if is_given else ""


def _cell(text: str) -> str:
    return " ".join(text.split()).replace("|", "\\|")


def inner_statistics() -> str:
    """The records inside of `SystemStatistics`, each with its fields, from their docstrings."""
    found: dict[str, type] = {}
    for annotation in get_type_hints(SystemStatistics).values():
        for kind in (annotation, *get_args(annotation)):
            if isinstance(kind, type) and is_dataclass(kind):
                found[kind.__name__] = kind
    return "\n".join(line for name in sorted(found) for line in _record(name, found[name]))


def _record(name: str, kind: type) -> Iterator[str]:
    summary, _, attributes = inspect.cleandoc(kind.__doc__ or "").partition("\n\nAttributes:\n")
    yield f"### {name}\n\n{_linked(summary)}\n\n| field | meaning |\n|---|---|"
    for attribute in re.split(r"\n(?=    \w)", attributes):
        field, _, meaning = attribute.strip().partition(":")
        yield f"| `{field}` | {_cell(_linked(meaning))} |"
    yield ""


def _linked(text: str) -> str:
    """``text`` of a docstring as Markdown."""
    return text.replace("``", "`")


STEPS = (
    ("aggregates", "AggregateRef.ask", "checks the command, makes the future of its reply, names the cause"),
    ("system", "ActorSystem.deliver", "moves the command to the event loop, if it comes from another thread"),
    (
        "aggregates",
        "Aggregates.deliver",
        "finds the actor of the aggregate, or makes one; starts the time of the ask",
    ),
    ("aggregates", "AggregateActor._activate", "loads the newest snapshot and replays the events after it"),
    ("aggregates", "AggregateActor._execute", "lets the aggregate decide, one command after the other"),
    ("domain", "AggregateRoot.handle", "calls your `@handles` method"),
    ("domain", "AggregateRoot.register_event", "stamps the event, applies it, keeps it pending"),
    (
        "aggregates",
        "AggregateActor._flush",
        "makes one append of what was decided while the last one was under way",
    ),
    ("aggregates", "Journal.append", "gathers the appends of all aggregates"),
    ("store", "EventStore.commit", "the port: records each request whole or not at all"),
    (
        "uno_stores",
        "LmdbEventStore.commit",
        "hands the group to the writer thread: one transaction, one fsync",
    ),
    ("aggregates", "AggregateActor._recorded", "adopts the outcome: replies, or runs commands again"),
    ("handlers", "RouterActor._route", "reads what was recorded and finds its handlers"),
    (
        "handlers",
        "Subscription.offer",
        "queues the event for one handler, or lets it read from the log later",
    ),
    ("handlers", "OneByOne._handle", "calls your handler and moves its position"),
    ("supervision", "SupervisorActor.on_receive", "asks the policy what to do about a failure, and does it"),
)
"""The way of one command: packages, functions, and what they do."""


def steps() -> str:
    """The way of one command by file and line."""
    lines = ["| | file and line | function | what it does |", "|---|---|---|---|"]
    for number, (package, name, meaning) in enumerate(STEPS, start=1):
        path, line = _place(package, name)
        lines.append(f"| {number} | `{path}:{line}` | `{name}` | {meaning} |")
    return "\n".join(lines)


def _place(package: str, name: str) -> tuple[str, int]:
    """The file and the line of a method.

    Raises:
        LookupError: The package has none of this name: say in `STEPS` what it is called today.
    """
    root = Path(__file__).parent.parent
    folder = root / "stores" / package if package == "uno_stores" else root / "uno_actors" / package
    owner, method = name.split(".")
    for path in sorted(folder.rglob("*.py")):
        for kind in ast.parse(path.read_text(encoding="utf-8")).body:
            if isinstance(kind, ast.ClassDef) and kind.name == owner:
                for each in kind.body:
                    if isinstance(each, ast.FunctionDef | ast.AsyncFunctionDef) and each.name == method:
                        return path.relative_to(root).as_posix(), each.lineno
    raise LookupError(f"{name} is not in {package}; say in STEPS of docs/generate.py what it is called today")


def packages() -> str:
    """The drawing of the packages, by the program beside this one."""
    drawing: str = runpy.run_path(str(Path(__file__).with_name("packages.py")))["draw"]()
    return f'<div class="drawing">{"".join(drawing.splitlines())}</div>'


def promises() -> str:
    """The table of promises of the README, whose tests are held there."""
    source = (Path(__file__).parent.parent / "README.md").read_text(encoding="utf-8")
    return source[source.index("| | promise | test |") :].partition("\n\n")[0]


GENERATORS: dict[str, Callable[[], str]] = {
    "commands": commands,
    "configuration keys": configuration_keys,
    "inner statistics": inner_statistics,
    "metrics": as_table,
    "packages": packages,
    "promises": promises,
    "steps": steps,
}


def with_tables(markdown: str) -> str:
    """``markdown`` with the generated tables in their places."""
    return PLACE.sub(lambda found: GENERATORS[found[1]](), markdown)


def description(source: str) -> str:
    """What the front matter of a page says the page is about."""
    found = re.search(r"\A---\n(?:.*\n)*?description: (.+)\n(?:.*\n)*?---\n", source)
    return found[1] if found else ""


def llms_txt(nav: list[Any], directory: Path, address: str = "") -> str:
    """The list of pages for language models: a heading for each part, a line for each page.

    Args:
        nav: As in ``mkdocs.yml``.
        directory: Where the pages are.
        address: Of the site.
    """
    lines = ["# uno_actors", "", "> Event-sourced actors for Python services.", ""]

    def add(entries: list[Any], depth: int) -> None:
        for entry in entries:
            ((title, below),) = entry.items() if isinstance(entry, dict) else (("", entry),)
            if isinstance(below, list):
                lines.extend(["", f"## {title}", ""] if depth == 0 else [])
                add(below, depth + 1)
            else:
                source = (directory / below).read_text(encoding="utf-8")
                found = re.search(r"^# (.+)$", source, re.MULTILINE)
                name = title or (found[1] if found else below)
                place = address + below.removesuffix(".md").removesuffix("index") or "."
                lines.append(f"- [{name}]({place.removesuffix('/') + '/'}): {description(source)}")

    add(nav, 0)
    return re.sub(r"\n{3,}", "\n\n", "\n".join(lines)) + "\n"


# --- called by MkDocs --------------------------------------------------------------------------------------


def on_page_markdown(markdown: str, **_: Any) -> str:
    """Put the generated tables in."""
    return with_tables(markdown)


def on_post_build(config: Any) -> None:
    """Write ``llms.txt`` beside the pages."""
    text = llms_txt(config["nav"], Path(config["docs_dir"]), config["site_url"] or "")
    Path(config["site_dir"], "llms.txt").write_text(text, encoding="utf-8")
