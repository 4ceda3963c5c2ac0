"""Writes a system as a configuration file, which `uno_actors.config.reader.load` reads as the same system."""

import re
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, fields
from datetime import date, datetime, time
from pathlib import Path
from types import MethodType
from typing import Any

from uno_actors.backoff import Backoff
from uno_actors.config.errors import key_path, quoted
from uno_actors.config.imports import handler_named, imported
from uno_actors.config.tables import CHILD_OPTIONS, DEFAULT_SUPERVISOR, SUPERVISOR_OPTIONS, SystemTable
from uno_actors.errors import CallerError, describe
from uno_actors.handlers.spec import EventPriority, HandlerSpec
from uno_actors.store_urls import below
from uno_actors.supervision.spec import ChildSpec, Supervisor
from uno_actors.units import as_duration

Table = dict[str, Any]


class NotConfigurable(CallerError):
    """A system that no configuration file can describe.

    Attributes:
        reasons: Everything that a file cannot describe.
    """

    def __init__(self, reasons: Sequence[str]) -> None:
        self.reasons = tuple(reasons)
        super().__init__(f"a configuration file cannot describe this system: {'; '.join(reasons)}")


def write_config(system: Table, aggregates: Table, supervisors: Sequence[Supervisor]) -> str:
    """The text of a configuration file.

    Args:
        system: Options of ``[system]``, with durations in seconds.
        aggregates: Options of ``[aggregates]``, with classes in ``types``.
        supervisors: Those directly under the system, the default one included. Each child has a name.

    Raises:
        NotConfigurable: A file cannot describe a part: a function inside another, a store given as an object, an
            argument that TOML has no value for.
    """
    writer = _Writer()
    writer.block("[system]", writer.system(system))
    writer.block("[aggregates]", writer.aggregates(aggregates))
    for supervisor in supervisors:
        if supervisor.name == DEFAULT_SUPERVISOR:
            for spec in supervisor.specs:
                writer.block("[[handlers]]", writer.handler(spec.run))
        else:
            writer.supervisor(supervisor, ("supervisors",))
    if writer.reasons:
        raise NotConfigurable(writer.reasons)
    return "\n".join(writer.blocks)


@dataclass
class _Writer:
    blocks: list[str] = field(default_factory=list)
    reasons: list[str] = field(default_factory=list)

    def block(self, header: str, table: Table, depth: int = 0) -> None:
        """Write one table, unless it is empty."""
        if not table and not header.startswith("[["):
            return
        indent = "  " * depth
        lines = [header]
        for key, value in table.items():
            try:
                lines.append(f"{key_path((key,))} = {as_toml(value)}")
            except ValueError as error:
                self.reasons.append(str(error))
        self.blocks.append("".join(f"{indent}{line}\n" for line in lines))

    def system(self, options: Table) -> Table:
        table = {
            name: as_duration(value) if name.endswith("timeout") else value
            for name, value in options.items()
            if value != SystemTable.model_fields[name].default
        }
        if "store" in table and table["store"] is None:
            self.reasons.append("its store was given as an object: give it as a URL")
            del table["store"]
        elif "store" in table:
            try:
                table["store"] = below(Path.cwd(), table["store"])  # the file may be in another directory
            except ValueError as error:
                self.reasons.append(str(error))
        return table

    def aggregates(self, options: Table) -> Table:
        table = dict(options)
        table["passivate_after"] = as_duration(table["passivate_after"])
        if table["types"] is None:
            del table["types"]
        else:
            table["types"] = [self.name_of(kind) for kind in table["types"]]
        return table

    def supervisor(
        self, supervisor: Supervisor, header: tuple[str, ...], spec: ChildSpec | None = None
    ) -> None:
        rules: Table = {
            "name": supervisor.name,
            **_differing(supervisor, Supervisor("default"), SUPERVISOR_OPTIONS),
        }
        if "max_restarts" in rules and rules["max_restarts"] is None:
            rules["max_restarts"] = "unlimited"
        if "within" in rules:
            rules["within"] = as_duration(rules["within"])
        if supervisor.backoff != Backoff():
            waits = ("initial", "max", "reset_after")
            backoff = _differing(supervisor.backoff, Backoff(), [one.name for one in fields(Backoff)])
            rules["backoff"] = {
                name: as_duration(value) if name in waits else value for name, value in backoff.items()
            }
        if supervisor.directives:
            rules["directives"] = {
                self.name_of(kind).removeprefix("builtins:"): directive
                for kind, directive in supervisor.directives.items()
            }
        if spec is not None:
            rules |= self.child(spec)
        depth = len(header) - 1
        self.block(f"[[{'.'.join(header)}]]", rules, depth)
        for child in supervisor.specs:
            if isinstance(child.run, Supervisor):
                self.supervisor(child.run, (*header, "supervisors"), child)
            elif isinstance(child.run, HandlerSpec):
                table = self.handler(child.run) | self.child(child)
                self.block(f"[[{'.'.join(header)}.handlers]]", table, depth + 1)
            else:
                self.block(f"[[{'.'.join(header)}.actors]]", self.actor(child) | self.child(child), depth + 1)

    def child(self, spec: ChildSpec) -> Table:
        table = _differing(spec, ChildSpec(_Nothing), CHILD_OPTIONS)
        if isinstance(table.get("shutdown"), (int, float)):
            table["shutdown"] = as_duration(table["shutdown"])
        return table

    def actor(self, spec: ChildSpec) -> Table:
        table: Table = {"name": spec.known_name, "actor": self.name_of(spec.run)}
        table |= _differing(spec, ChildSpec(_Nothing), ("dispatcher", "max_attempts"))
        table |= {"args": list(spec.args)} if spec.args else {}
        return table | ({"kwargs": dict(spec.kwargs)} if spec.kwargs else {})

    def handler(self, spec: HandlerSpec) -> Table:
        name = self.name_of(spec.target)
        table: Table = {"name": spec.name, "handler": name}
        if not name:
            return table
        alone = handler_named(name)
        found = _differing(spec, alone, [one.name for one in fields(HandlerSpec) if one.compare])
        for option in ("name", "target"):
            found.pop(option, None)
        for option, value in found.items():
            match option, value:
                case "topic_pattern", None:
                    self.reasons.append(f"{name} has a topic pattern of its own, but this handler has none")
                case "event_type", None:
                    self.reasons.append(f"{name} has an event type of its own, but this handler has none")
                case (("timeout" | "batch" | "aggregate_type"), None):
                    self.reasons.append(f"{name} has a {option} of its own, but this handler has none")
                case "topic_pattern", pattern:
                    table["topic"] = pattern.text
                case "event_type", kinds:
                    kinds = kinds if isinstance(kinds, tuple) else (kinds,)
                    table["events"] = [self.name_of(kind) for kind in kinds]
                case "priority", EventPriority() as priority:
                    table[option] = priority.name.lower()
                case "timeout", seconds:
                    table[option] = as_duration(seconds)
                case _:
                    table[option] = value
        return table

    def name_of(self, thing: Any) -> str:
        """``package.module:name`` of ``thing``; empty, with a reason, if it has none."""
        found = next(_names_of(thing), None)
        if found is None:
            self.reasons.append(f"{thing!r} is not an attribute of a module, so a file cannot name it")
        return found or ""


class _Nothing:
    """What a child runs, where only its other options matter."""


def _differing(found: object, usual: object, names: Sequence[str]) -> Table:
    pairs = ((name, getattr(found, name)) for name in names)
    return {name: value for name, value in pairs if value != getattr(usual, name)}


# --- names -------------------------------------------------------------------------------------------------


def _names_of(thing: Any) -> Iterator[str]:
    """The names a file can use for ``thing``, the most natural first."""
    if isinstance(thing, MethodType):
        yield from (f"{owner}.{thing.__name__}" for owner in _names_of(thing.__self__))
        return
    module, name = getattr(thing, "__module__", None), getattr(thing, "__qualname__", None)
    if isinstance(module, str) and isinstance(name, str) and "<" not in name:
        found = f"{_importable(module)}:{name}"
        if _is(found, thing):
            yield found
            return
    for module, loaded in sorted(sys.modules.items()):
        for name, value in list(vars(loaded).items()) if hasattr(loaded, "__dict__") else ():
            if value is thing or (isinstance(value, HandlerSpec) and value.target is thing):
                yield f"{_importable(module)}:{name}"


def _is(name: str, thing: Any) -> bool:
    try:
        return imported(name) is thing
    except ValueError:
        return False


def _importable(module: str) -> str:
    """The name under which others import a module; a program's own is ``__main__`` only to itself."""
    if module != "__main__":
        return module
    main = sys.modules[module]
    spec = getattr(main, "__spec__", None)
    return spec.name if spec is not None else Path(getattr(main, "__file__", None) or module).stem


# --- TOML --------------------------------------------------------------------------------------------------


def as_toml(value: object) -> str:
    """A value as TOML writes it, in one line.

    Raises:
        ValueError: TOML has no way to write it.
    """
    match value:
        case bool():
            text = "true" if value else "false"
        case str():
            text = _as_string(value)
        case int() if -(2**63) <= value < 2**63:
            text = str(int(value))
        case float():
            text = repr(float(value))
        case datetime() | date() | time():
            text = value.isoformat()
        case Mapping():
            pairs = ", ".join(f"{_key(key)} = {as_toml(item)}" for key, item in value.items())
            text = f"{{ {pairs} }}" if pairs else "{}"
        case list() | tuple():
            text = f"[{', '.join(map(as_toml, value))}]"
        case _:
            raise ValueError(f"TOML has no way to write {_shown(value)}")
    return text


_BARE_KEY = re.compile(r"[A-Za-z0-9_-]+")


def _key(key: object) -> str:
    if not isinstance(key, str):
        raise ValueError(f"keys of tables are strings, not {key!r}")
    return key if _BARE_KEY.fullmatch(key) else _quoted(key)


def _as_string(text: str) -> str:
    return _quoted(text.replace("${", "$${"))


def _quoted(text: str) -> str:
    try:
        text.encode()
    except UnicodeEncodeError:
        raise ValueError(f"TOML has no way to write {text!r}, which is no valid Unicode") from None
    return quoted(text)


def _shown(value: object) -> str:
    try:
        return repr(value)
    except Exception as error:  # noqa: BLE001 - its __repr__ may raise anything
        return f"a {type(value).__name__} ({describe(error)})"
