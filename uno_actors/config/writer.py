"""Writes a system as a configuration file, which `uno_actors.config.reader.load` reads as the same system."""

import re
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from datetime import date, datetime, time
from pathlib import Path
from types import MethodType
from typing import Any

from uno_actors.backoff import Backoff
from uno_actors.cluster.settings import Cluster
from uno_actors.config.errors import key_path, quoted
from uno_actors.config.imports import handler_named, imported
from uno_actors.config.tables import (
    ACTOR_OPTIONS,
    AGGREGATE_OPTIONS,
    CHILD_OPTIONS,
    CLUSTER_OPTIONS,
    DEFAULT_SUPERVISOR,
    SUPERVISOR_OPTIONS,
    SYSTEM_OPTIONS,
    ActorTable,
    AggregatesTable,
    BackoffTable,
    BaseTable,
    ChildTable,
    ClusterTable,
    HandlerTable,
    SupervisorTable,
    SystemTable,
    value_in_file,
)
from uno_actors.errors import CallerError, describe
from uno_actors.handlers.partitions import whole_name
from uno_actors.handlers.spec import HandlerSpec
from uno_actors.settings import Settings
from uno_actors.store_urls import below
from uno_actors.supervision.spec import ChildSpec, Supervisor

Table = dict[str, Any]


class NotConfigurable(CallerError):
    """A system that no configuration file can describe.

    Attributes:
        reasons: Everything that a file cannot describe.
    """

    def __init__(self, reasons: Sequence[str]) -> None:
        self.reasons = tuple(reasons)
        super().__init__(f"a configuration file cannot describe this system: {'; '.join(reasons)}")


def write_config(
    store: str | None,
    types: Sequence[type] | None,
    settings: Settings,
    supervisors: Sequence[Supervisor],
    cluster: Cluster | None = None,
) -> str:
    """The text of a configuration file.

    Args:
        store: The URL of the store; ``None`` if it was given as an object.
        types: The aggregate classes that the system serves; ``None`` for any class.
        settings: The options of the system. A file cannot express its clock.
        supervisors: Those directly under the system, the default one included. Each child has a name.
        cluster: What the system is as a node of a cluster; ``None`` if it is none.

    Raises:
        NotConfigurable: A file cannot describe a part: a function inside another, a store given as an object, an
            argument that TOML has no value for.
    """
    writer = _Writer()
    writer.block("[system]", writer.system(store, settings))
    writer.block("[aggregates]", writer.aggregates(types, settings))
    if cluster is not None:
        writer.block("[cluster]", writer.cluster(cluster), always=True)
    for supervisor in supervisors:
        if supervisor.name == DEFAULT_SUPERVISOR:
            for spec in supervisor.specs:
                if _is_written(spec):
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

    def block(self, header: str, table: Table, depth: int = 0, *, always: bool = False) -> None:
        """Write one table, unless it is empty."""
        if not table and not header.startswith("[[") and not always:
            return
        indent = "  " * depth
        lines = [header]
        for key, value in table.items():
            try:
                lines.append(f"{key_path((key,))} = {as_toml(value)}")
            except ValueError as error:
                self.reasons.append(str(error))
        self.blocks.append("".join(f"{indent}{line}\n" for line in lines))

    def system(self, store: str | None, settings: Settings) -> Table:
        table = _differing(settings, Settings(), SYSTEM_OPTIONS, SystemTable)
        if store is None:
            self.reasons.append("its store was given as an object: give it as a URL")
        elif store != SystemTable.model_fields["store"].default:
            try:
                table["store"] = below(Path.cwd(), store)  # the file may be in another directory
            except ValueError as error:
                self.reasons.append(str(error))
        return table

    def aggregates(self, types: Sequence[type] | None, settings: Settings) -> Table:
        table: Table = {} if types is None else {"types": [self.name_of(kind) for kind in types]}
        return table | _values(settings, AGGREGATE_OPTIONS, AggregatesTable)

    def cluster(self, cluster: Cluster) -> Table:
        if not isinstance(cluster.listen, str | None):
            self.reasons.append("its nodes are linked by an object: let the cluster listen at an address")
            cluster = replace(cluster, listen=None)
        table = _differing(cluster, Cluster(), CLUSTER_OPTIONS, ClusterTable)
        return {key: str(value) if isinstance(value, Path) else value for key, value in table.items()}

    def supervisor(
        self, supervisor: Supervisor, header: tuple[str, ...], spec: ChildSpec | None = None
    ) -> None:
        rules: Table = {
            "name": supervisor.name,
            **_differing(supervisor, Supervisor("default"), SUPERVISOR_OPTIONS, SupervisorTable),
        }
        if supervisor.backoff != Backoff():
            options = [one.name for one in fields(Backoff)]
            rules["backoff"] = _differing(supervisor.backoff, Backoff(), options, BackoffTable)
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
            elif not _is_written(child):
                continue
            elif isinstance(child.run, HandlerSpec):
                table = self.handler(child.run) | self.child(child)
                self.block(f"[[{'.'.join(header)}.handlers]]", table, depth + 1)
            else:
                self.block(f"[[{'.'.join(header)}.actors]]", self.actor(child) | self.child(child), depth + 1)

    def child(self, spec: ChildSpec) -> Table:
        return _differing(spec, ChildSpec(_Nothing), CHILD_OPTIONS, ChildTable)

    def actor(self, spec: ChildSpec) -> Table:
        table: Table = {"name": spec.known_name, "actor": self.name_of(spec.run)}
        return table | _differing(spec, ChildSpec(_Nothing), ACTOR_OPTIONS, ActorTable)

    def handler(self, spec: HandlerSpec) -> Table:
        name = self.name_of(spec.target)
        table: Table = {"name": whole_name(spec.name), "handler": name}
        if not name:
            return table
        alone = handler_named(name)
        for one in fields(HandlerSpec):
            option, value = one.name, getattr(spec, one.name)
            if (
                not one.compare
                or option in ("name", "target", "_partition", "_count")
                or value == getattr(alone, option)
            ):
                continue
            match option, value:
                case _, None:
                    what = option.replace("_", " ") if option in ("topic_pattern", "event_type") else option
                    article = "an" if what[0] in "aeiou" else "a"
                    self.reasons.append(f"{name} has {article} {what} of its own, but this handler has none")
                case "topic_pattern", pattern:
                    table["topic"] = value_in_file(HandlerTable, "topic", pattern)
                case "event_type", kinds:
                    kinds = kinds if isinstance(kinds, tuple) else (kinds,)
                    table["events"] = [self.name_of(kind) for kind in kinds]
                case _:
                    table[option] = value_in_file(HandlerTable, option, value)
        return table

    def name_of(self, thing: Any) -> str:
        """``package.module:name`` of ``thing``; empty, with a reason, if it has none."""
        found = next(_names_of(thing), None)
        if found is None:
            self.reasons.append(f"{thing!r} is not an attribute of a module, so a file cannot name it")
        return found or ""


def _is_written(child: ChildSpec) -> bool:
    """Whether a child has a table of its own: of the partitions of a handler the first stands for all."""
    return not isinstance(child.run, HandlerSpec) or child.run.partition in (None, 1)


class _Nothing:
    """What a child runs, where only its other options matter."""


def _values(found: object, options: Sequence[str], table: type[BaseTable]) -> Table:
    """Options as the keys of a table."""
    return {option: value_in_file(table, option, getattr(found, option)) for option in options}


def _differing(found: object, usual: object, options: Sequence[str], table: type[BaseTable]) -> Table:
    """Those options that are not the usual ones, as the keys of a table."""
    differing = [option for option in options if getattr(found, option) != getattr(usual, option)]
    return _values(found, differing, table)


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
            if value is thing or (issubclass(type(value), HandlerSpec) and value.target is thing):
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
        raise ValueError(f"TOML has no way to write {text!r}, which is not valid Unicode") from None
    return quoted(text)


def _shown(value: object) -> str:
    try:
        return repr(value)
    except Exception as error:  # noqa: BLE001 - its __repr__ may raise anything
        return f"a {type(value).__name__} ({describe(error)})"
