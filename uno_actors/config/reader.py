"""Reads configuration files: a whole system in TOML.

`load` reads a file and the files it includes, fills in environment variables, imports the Python objects it names, and
returns a `Config`. If anything is wrong, `InvalidConfig` reports all faults at once.
"""

import importlib
import inspect
import os
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, TypeVar

from uno_actors.actors.actor import Actor
from uno_actors.backoff import Backoff
from uno_actors.cluster.settings import ROLES, Cluster
from uno_actors.cluster.workers import Workers
from uno_actors.config.errors import ConfigFault, InvalidConfig, key_path, shown
from uno_actors.config.imports import error_named, imported, why_not_made
from uno_actors.config.rules import example_url, faults_of_significance, faults_of_tenants
from uno_actors.config.tables import (
    ACTOR_OPTIONS,
    AGGREGATE_OPTIONS,
    CHILD_OPTIONS,
    CLUSTER_OPTIONS,
    DEFAULT_SUPERVISOR,
    HANDLER_OPTIONS,
    SUPERVISOR_OPTIONS,
    SYSTEM_OPTIONS,
    ActorTable,
    AggregatesTable,
    BackoffTable,
    FileTable,
    HandlerTable,
    LoggingTable,
    SupervisedHandlerTable,
    SupervisorTable,
    SystemTable,
    default_of,
)
from uno_actors.config.text import ConfigText, Place, nearest, read_text, resolved
from uno_actors.config.toml import Path as Keys
from uno_actors.config.validation import (
    StandIn,
    stand_in,
    validated,
)
from uno_actors.config.values import FromEnvironment, plain
from uno_actors.domain.aggregate import check_events
from uno_actors.domain.events import DomainEvent, event_registry
from uno_actors.errors import AmbiguousEventType, CallerError, InvalidCluster, InvalidStoreUrl
from uno_actors.handlers.spec import HandlerSpec
from uno_actors.store.opening import check_store_url
from uno_actors.store_urls import below
from uno_actors.supervision.spec import ChildSpec, Supervisor
from uno_actors.tenants import TenantOptions, url_of_tenant

T = TypeVar("T")


@dataclass(frozen=True)
class Config:
    """A valid configuration file: everything an `ActorSystem` is made of.

    Attributes:
        file: Its path, as given.
        files: All files that were read, included ones first.
        system: See `SystemTable`.
        logging: See `LoggingTable`.
        aggregates: See `AggregatesTable`.
        cluster: What the system is as a node of a cluster; ``None`` if it is none.
        workers: The processes that ``uno-actors run`` starts; ``None`` for one without a supervisor process.
        tenants: How the program serves many tenants; ``None`` if it does not.
        handlers: Those under no supervisor.
        supervisors: Those directly under the system.
        places: Where each key is written.
        keys: Where each supervisor and each child of one is written, by ``supervisor name`` and by
            ``supervisor name/child name``.
        tenant: The tenant whose system it is; ``None`` for none, or if it is that of many.
    """

    file: str
    files: tuple[Path, ...]
    system: SystemTable
    logging: LoggingTable
    aggregates: AggregatesTable
    cluster: Cluster | None
    workers: Workers | None
    tenants: TenantOptions | None
    handlers: tuple[HandlerSpec, ...]
    supervisors: tuple[Supervisor, ...]
    places: Mapping[Keys, Place]
    keys: Mapping[str, Keys]
    tenant: str | None = None

    def place(self, keys: Keys) -> Place:
        """Where ``keys`` are written, or the nearest table above them."""
        return nearest(self.places, keys) or Place(self.file, 1)

    def fault(self, path: Sequence[str], option: str, reason: str) -> ConfigFault:
        """A fault at an option of a part of the tree.

        Args:
            path: The names from the outermost supervisor to the part.
            option: The key.
            reason: What is wrong, and the remedy.
        """
        keys = (*self.keys.get("/".join(path[-2:]), self.keys.get(path[-1], ())), option)
        file, line = self.place(keys)
        return ConfigFault(file, line, key_path(keys), reason)

    @property
    def key(self) -> str:
        """Distinguishes this file's system from others whose store has no directory."""
        return control_key(self.file, self.tenant)

    @property
    def url(self) -> str:
        """The URL of the store, of the tenant if there is one."""
        return self.system.url if self.tenant is None else url_of_tenant(self.system.url, self.tenant)

    def arguments(self) -> dict[str, Any]:
        """The arguments for ``ActorSystem(**arguments)``."""
        system, aggregates = self.system, self.aggregates
        return {
            "store": system.url,
            **({} if self.tenant is None else {"tenant": self.tenant}),
            "aggregates": aggregates.types,
            "handlers": self.handlers,
            "supervisors": self.supervisors,
            "cluster": self.cluster,
            **{option: getattr(system, option) for option in SYSTEM_OPTIONS},
            **{option: getattr(aggregates, option) for option in AGGREGATE_OPTIONS},
        }


def load(path: str | os.PathLike[str], environment: Mapping[str, str] = os.environ) -> Config:
    """Read a configuration file. Its directory is added to ``sys.path``, as Python does for a program.

    Raises:
        InvalidConfig: The file has faults; the error lists all of them.
    """
    path = Path(path)
    text = read_text(path, environment)
    for file in reversed(text.files):
        if (directory := str(file.parent)) not in sys.path:
            sys.path.insert(0, directory)
    importlib.invalidate_caches()
    return _config_in(text, path)


def _config_in(text: ConfigText, path: Path) -> Config:
    reader = _Reader(text)
    config = reader.config()
    if faults := reader.faults_in_order():
        raise InvalidConfig(str(path), faults)
    return config


def control_key(path: str | os.PathLike[str], tenant: str | None = None) -> str:
    """Distinguishes the system of a file, or that of a tenant, from others whose store has no directory."""
    return str(Path(path).resolve()) + (f"#{tenant}" if tenant is not None else "")


def load_system(path: str | os.PathLike[str], environment: Mapping[str, str] = os.environ) -> SystemTable:
    """Read only ``[system]`` of a configuration file, without imports.

    Raises:
        InvalidConfig: The file is not TOML, or this table has faults.
    """
    return load_tables(path, "system", environment=environment).system


def load_tables(
    path: str | os.PathLike[str], *names: str, environment: Mapping[str, str] = os.environ
) -> Config:
    """Read only some tables of a configuration file, without imports; the others are as if they were not written.

    Args:
        path: Path of the file.
        names: ``system``, ``cluster``, ``tenants`` or ``logging``, which name no Python objects.
        environment: Values of variables in the file.

    Raises:
        InvalidConfig: The file is not TOML, or these tables have faults.
    """
    path = Path(path)
    text = read_text(path, environment)
    text.data = {key: value for key, value in text.data.items() if key in names}
    return _config_in(text, path)


@dataclass(frozen=True, slots=True)
class _Entry:
    """A handler, actor or supervisor with the place where it is written."""

    table: Any
    keys: Keys


class _Reader:
    """Validates the values of a text and makes the parts of a system from them."""

    def __init__(self, text: ConfigText) -> None:
        self._text = text
        self._faults = list(text.faults)
        self._reported = {(fault.file, fault.line, fault.key) for fault in text.faults}
        self._order = {keys: number for number, keys in enumerate(text.places)}
        self._keys: dict[str, Keys] = {}
        self._names: dict[tuple[str, str], Keys] = {("supervisors", DEFAULT_SUPERVISOR): ()}

    def config(self) -> Config:
        table = self._table()
        handlers = [
            spec
            for entry in self._entries(table, (), "handlers")
            if (spec := self._handler(entry)) is not None
        ]
        supervisors = [
            supervisor
            for entry in self._entries(table, (), "supervisors")
            if (supervisor := self._supervisor(entry)) is not None
        ]
        self._check_aggregates(table)
        return Config(
            self._text.file,
            tuple(self._text.files),
            self._system(table),
            table.logging,
            table.aggregates,
            self._cluster(table),
            None if table.cluster is None else table.cluster.workers,
            self._tenants(table),
            tuple(handlers),
            tuple(supervisors),
            self._text.places,
            self._keys,
        )

    def faults_in_order(self) -> list[ConfigFault]:
        files = self._text.files

        def place(fault: ConfigFault) -> tuple[int, int]:
            file = resolved(Path(fault.file))
            return files.index(file) if file in files else -1, fault.line or 0

        return sorted(self._faults, key=place)

    # --- values, one by one ---

    def _table(self) -> FileTable:
        """The file as a table. Faulty values are reported, and left out or replaced by stand-ins."""

        def report(keys: Keys, reason: str, found: Any, is_missing: bool) -> None:
            if self._text.is_whole or not is_missing:
                self._report(keys, reason, found)

        return validated(self._text.data, report)

    def _report(self, keys: Keys, reason: str, found: Any = None) -> None:
        if isinstance(found, FromEnvironment):
            is_secret = keys[:1] in (("system",), ("cluster",))  # a store's URL may hold a password
            reason = reason if is_secret else f"which is {shown(str(found))} here; {reason}"
            found = found.written
        fault = self._text.fault(keys, reason, found)
        if (reported := (fault.file, fault.line, fault.key)) not in self._reported or not fault.key:
            self._reported.add(reported)
            self._faults.append(fault)

    # --- rules between values ---

    def _entries(self, table: Any, keys: Keys, *kinds: str) -> list[_Entry]:
        """The entries of these kinds in a table, in the order in which they are written."""
        entries = [
            _Entry(entry, (*keys, kind, index))
            for kind in kinds
            for index, entry in enumerate(getattr(table, kind))
        ]
        return sorted(entries, key=lambda entry: self._order.get(entry.keys, 0))

    def _system(self, table: FileTable) -> SystemTable:
        """``[system]``, with a store that does not depend on the working directory."""
        keys: Keys = ("system", "store")
        if self._is_faulty(keys):
            return table.system
        directory = self._directory(keys)
        recordings = table.system.recordings
        if recordings is not None:
            recordings = str(self._directory(("system", "recordings")) / recordings)
        try:
            system = table.system.model_copy(
                update={"store": below(directory, table.system.store), "recordings": recordings}
            )
        except ValueError as error:
            self._report(keys, str(error), table.system.store)
            return table.system
        if not self._is_faulty(("system", "store_options")):
            try:
                check_store_url(example_url(system.url))
            except InvalidStoreUrl as error:
                self._report(("system", "store_options") if system.store_options else keys, error.reason)
        return system

    def _tenants(self, table: FileTable) -> TenantOptions | None:
        for keys, reason in faults_of_tenants(table.system, table.tenants):
            if not self._is_faulty(("tenants",)) and not self._is_faulty(("system",)):
                self._report(keys, reason)
        return None if table.tenants is None else table.tenants.options

    def _cluster(self, table: FileTable) -> Cluster | None:
        """``[cluster]``, with paths that do not depend on the working directory."""
        if table.cluster is None or self._is_faulty(("cluster",)):
            return None
        options = {name: getattr(table.cluster, name) for name in CLUSTER_OPTIONS}
        workers = table.cluster.workers
        if workers is not None and not workers.count and set(options["roles"]) != {*ROLES}:
            reason = (
                "the roles of each worker are in `workers`: leave `roles` out, or write a number of workers"
            )
            self._report(("cluster", "roles"), reason)
        for name in ("certificate", "key", "authority"):
            if (path := options[name]) is not None:
                options[name] = self._directory(("cluster", name)) / path
        listen = options["listen"]
        if listen is not None and listen.startswith("unix:") and listen != "unix:":
            options["listen"] = (
                f"unix:{self._directory(('cluster', 'listen')) / listen.removeprefix('unix:')}"
            )
        try:
            return Cluster(**options)
        except InvalidCluster as error:
            keys = [key for key in error.key.split(", ") if getattr(table.cluster, key, None) is not None]
            self._report(("cluster", *keys[:1]), str(error).removeprefix("cluster: "))
            return None

    def _directory(self, keys: Keys) -> Path:
        """The directory of the file in which a key is written."""
        return Path(self._text.place(keys).file).absolute().parent

    def _check_aggregates(self, table: FileTable) -> None:
        """Report classes and type names that are listed twice, and event classes that share a name."""
        written = self._text.data.get("aggregates", {})
        names: dict[str, object] = {}
        for index, name in enumerate(written.get("types", ()) if table.aggregates.types else ()):
            keys: Keys = ("aggregates", "types", index)
            if self._is_faulty(keys):
                continue
            type_name = imported(name).aggregate_type
            if type_name in names:
                reason = f"{names[type_name]} with the type name {type_name!r} is in the list already"
                self._report(keys, reason, name)
            names.setdefault(type_name, name)
            try:
                check_events(imported(name), event_registry)
            except AmbiguousEventType as error:
                self._report(keys, str(error), name)

    def _is_faulty(self, keys: Keys) -> bool:
        """Whether a fault was reported at ``keys`` or below."""
        path = key_path(keys)
        return any(
            fault.key == path or fault.key.startswith((f"{path}.", f"{path}[")) for fault in self._faults
        )

    def _handler(self, entry: _Entry) -> HandlerSpec | None:
        table: HandlerTable = entry.table
        options = {
            name: getattr(table, name) for name in table.model_fields_set.intersection(HANDLER_OPTIONS)
        }
        if table.topic is not None:
            options["topic_pattern"] = table.topic
        if table.events is not None:
            events: list[type[DomainEvent]] = table.events
            options["event_type"] = tuple(events) if len(events) > 1 else events[0] if events else None
            if not events and not self._is_faulty((*entry.keys, "events")):
                self._report((*entry.keys, "events"), "it is empty, so no event would be handled: name some")
        if table.batch is not None and table.concurrency > 1:
            reason = "batch and concurrency exclude each other: a batch is handled in log order"
            self._report((*entry.keys, "concurrency"), reason, table.concurrency)
            return None
        if table.handler.target is not stand_in or table.name is not None:
            self._claim("handlers", table.name or table.handler.name, entry.keys)
        if self._is_faulty(entry.keys):
            return None
        return self._made(entry, lambda: replace(table.handler, **options))

    def _supervisor(self, entry: _Entry) -> Supervisor | None:
        table: SupervisorTable = entry.table
        keys, before = entry.keys, len(self._faults)
        self._claim("supervisors", table.name, keys)
        self._keys[table.name] = keys
        self._check_directives(table, keys)
        backoff = table.backoff
        if backoff.initial > backoff.max:
            reason = f"it is more than max, which is {backoff.max:g} s: the first wait would be the longest"
            self._report((*keys, "backoff", "initial"), reason, f"{backoff.initial:g}s")
            backoff = BackoffTable()
        children = self._entries(table, keys, "handlers", "actors", "supervisors")
        self._check_significant(table, keys, children)
        specs = [spec for child in children if (spec := self._child(child, table)) is not None]
        if len(self._faults) > before:
            return None
        return self._made(
            entry,
            lambda: Supervisor(
                name=table.name,
                children=tuple(specs),
                backoff=Backoff(**dict(backoff)),
                directives=dict(table.directives),
                **{option: getattr(table, option) for option in SUPERVISOR_OPTIONS},
            ),
        )

    def _check_directives(self, table: SupervisorTable, keys: Keys) -> None:
        """Report a class that has two names: ``ValueError`` and ``builtins:ValueError``."""
        if self._is_faulty((*keys, "directives")):
            return
        written: Any = self._text.data
        for key in (*keys, "directives"):
            written = written[key] if isinstance(key, int) else written.get(key, {})
        classes: dict[type[BaseException], str] = {}
        for name, kind in zip(written, map(error_named, written), strict=True):
            if kind in classes:
                self._report(
                    (*keys, "directives", name), f"{classes[kind]} is the same class: leave one out", name
                )
            classes.setdefault(kind, name)

    def _check_significant(self, table: SupervisorTable, keys: Keys, children: Sequence[_Entry]) -> None:
        if any(self._is_faulty(child.keys) for child in children) or self._is_faulty(
            (*keys, "auto_shutdown")
        ):
            return  # stand-ins contradict nothing
        significant = [(child.keys, child.table.restart) for child in children if child.table.significant]
        for fault in faults_of_significance(table, keys, significant):
            self._report(*fault)

    def _child(self, entry: _Entry, above: SupervisorTable) -> ChildSpec | HandlerSpec | None:
        table = entry.table
        options = {name: getattr(table, name) for name in CHILD_OPTIONS}
        run: Any
        match table:
            case SupervisedHandlerTable():
                run = self._handler(entry)
                name = table.name or table.handler.name
            case ActorTable():
                run, name = table.actor, table.name or table.actor.__name__
                if run is not StandIn or table.name is not None:
                    self._claim("actors", name, entry.keys)
                for option in ACTOR_OPTIONS:
                    options[option] = plain(getattr(table, option))
                self._check_actor(table, entry.keys)
            case _:
                run, name = self._supervisor(entry), table.name
        if (first := self._keys.setdefault(f"{above.name}/{name}", entry.keys)) is not entry.keys:
            place = self._text.place((*first, "name"))
            reason = (
                f"each child of a supervisor needs a unique name, and this one is taken in line {place.line}"
            )
            self._report((*entry.keys, "name"), reason, name)
        if run is None or self._is_faulty(entry.keys):
            return None
        if isinstance(run, HandlerSpec) and options == _AS_USUAL:
            return run
        return self._made(entry, lambda: ChildSpec(run, name=name, **options))

    def _check_actor(self, table: ActorTable, keys: Keys) -> None:
        """Report arguments that do not fit the constructor, and a dispatcher that cannot run the actor."""
        if self._is_faulty(keys):
            return
        kind = table.actor
        if not issubclass(kind, Actor) and table.dispatcher == "shared":
            reason = f'{kind.__name__} is an actor of pykka\'s threads: write dispatcher = "thread"'
            self._report((*keys, "dispatcher"), reason)
        elif table.dispatcher == "thread" and inspect.iscoroutinefunction(kind.on_receive):
            reason = f"{kind.__name__} handles its messages in a coroutine, on the event loop: leave it out"
            self._report((*keys, "dispatcher"), reason, table.dispatcher)
        if reason := why_not_made(kind, *table.args, **table.kwargs):
            given = "args" if table.args and not table.kwargs else "kwargs" if table.kwargs else "actor"
            self._report((*keys, given), f"{kind.__name__} cannot be made with these arguments: {reason}")

    def _made(self, entry: _Entry, make: Callable[[], T]) -> T | None:
        """The result of ``make``; its error is reported as a fault."""
        try:
            return make()
        except (CallerError, ValueError, TypeError) as error:
            self._report(entry.keys, str(error))
            return None

    def _claim(self, kind: str, name: str, keys: Keys) -> None:
        first = self._names.setdefault((kind, name), keys)
        if first is keys:
            return
        named = (*keys, "name")
        what = f"{kind} need unique names, and this one is taken"
        if first:
            place = self._text.place((*first, "name"))
            self._report(named, f"{what} in {place.file}:{place.line}", name)
        else:
            self._report(named, f"{what} by the supervisor of handlers that have no other", name)


_AS_USUAL = {name: default_of(ChildSpec, name) for name in CHILD_OPTIONS}
