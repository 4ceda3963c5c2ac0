"""The format of a configuration file: a class for each table, a field for each key.

An unknown key is an error. Defaults come from the classes that the tables configure, so that a file and Python code
that leave out an option mean the same.
"""

import ast
import inspect
import sys
from collections.abc import Iterator
from dataclasses import fields
from functools import cache
from itertools import pairwise
from typing import Any, get_args

from pydantic import BaseModel, ConfigDict
from typing_extensions import override

from uno_actors.backoff import Backoff
from uno_actors.cluster.settings import Cluster
from uno_actors.config.imports import ActorType, AggregateType, ErrorType, EventType, Handler
from uno_actors.config.values import (
    Allowed,
    AtLeastOne,
    AtLeastZero,
    AutoShutdownWord,
    BudgetWord,
    Capacity,
    DirectiveWord,
    DispatcherWord,
    FormatWord,
    Growth,
    HandlerName,
    LevelWord,
    MaxRestarts,
    Name,
    Partitions,
    PriorityWord,
    RecorderSteps,
    RestartWord,
    RoleWord,
    Seconds,
    SecondsOrZero,
    Share,
    ShutdownValue,
    StartValue,
    StoreOption,
    StoreUrl,
    StrategyWord,
    TenantName,
    TenantsKept,
    Text,
    Topic,
    Truth,
    WorkersValue,
)
from uno_actors.handlers.spec import EventPriority, HandlerSpec
from uno_actors.settings import Settings
from uno_actors.store_urls import HIDDEN, is_secret_name, with_options, without_password
from uno_actors.supervision.spec import ChildSpec, Supervisor
from uno_actors.tenants import TenantOptions
from uno_actors.units import as_duration

DEFAULT_SUPERVISOR = "handlers"
"""Supervisor of the handlers that have no other. Its restarts are unlimited: attempts are counted per event."""


class BaseTable(BaseModel):
    """What all tables have in common: an unknown key is an error."""

    model_config = ConfigDict(extra="forbid", frozen=True, defer_build=True)  # most programs read no file


def default_of(specification: type, option: str) -> Any:
    """The default of an option in the class that a table configures: the only place where the default is written."""
    return next(field.default for field in fields(specification) if field.name == option)


def options_of(specification: type, table: type[BaseTable], *others: str) -> tuple[str, ...]:
    """The keys of a table that have the name and the meaning of an option of a class, without ``others``."""
    options = {field.name for field in fields(specification)} - set(others)
    return tuple(key for key in table.model_fields if key in options)


def kind_of(table: type[BaseTable], key: str) -> Allowed | None:
    """How the value of a key is read and written; ``None`` for a list or a table."""
    field = table.model_fields[key]
    kinds = [*field.metadata]
    for part in get_args(field.annotation):  # of ``Seconds | None`` it is in the first part
        kinds += getattr(part, "__metadata__", ())
    return next((kind for kind in kinds if isinstance(kind, Allowed)), None)


def value_in_file(table: type[BaseTable], key: str, value: Any) -> Any:
    """What a file holds for the value of a key, such as ``"30s"`` for 30.0 seconds."""
    kind = kind_of(table, key)
    return value if kind is None else kind.write(value)


class SystemTable(BaseTable):
    """The system as a whole; see `ActorSystem`."""

    name: Name = default_of(Settings, "name")
    """For logs."""
    store: StoreUrl = "memory:"
    """URL of the store. A path in it is relative to the file."""
    store_options: dict[str, StoreOption] = {}
    """Options of the store, as in its URL. Sizes may be written as "64GiB"."""
    ask_timeout: Seconds = default_of(Settings, "ask_timeout")
    """Time after which an ask without a reply ends with an error."""
    stop_timeout: SecondsOrZero = default_of(Settings, "stop_timeout")
    """Maximum time to stop: to drain, and to stop children in reverse order of their start."""
    scheduler: Truth | None = default_of(Settings, "scheduler")
    """Whether it sends the commands that are scheduled on its store. Default: as soon as there are some."""
    recorder: RecorderSteps = default_of(Settings, "recorder")
    """Number of steps that the flight recorder keeps in memory; true for 10000, false for none."""
    recordings: Text | None = default_of(Settings, "recordings")
    """Directory for recordings, relative to the file. Default: "recordings" in the directory of the store."""
    record_timeouts: Truth = default_of(Settings, "record_timeouts")
    """Whether a recording is written, at most once a minute, when a command has timed out."""

    @property
    def url(self) -> str:
        """The store's URL with its options."""
        return with_options(self.store, self.store_options)

    @override
    def __repr_args__(self) -> Iterator[tuple[str | None, Any]]:
        for name, value in super().__repr_args__():
            shown = value
            if name == "store":
                shown = without_password(value)
            elif name == "store_options":
                shown = {key: HIDDEN if is_secret_name(key) else item for key, item in value.items()}
            yield name, shown


class AggregatesTable(BaseTable):
    """The aggregates that the system serves."""

    types: list[AggregateType] | None = None
    """Their classes. Default: any class that is asked for."""
    passivate_after: Seconds = default_of(Settings, "passivate_after")
    """Idle time after which an aggregate is passivated."""
    max_active: AtLeastOne = default_of(Settings, "max_active")
    """Maximum number of active aggregates. Beyond it, those idle for longest are passivated."""
    snapshot_every: AtLeastZero = default_of(Settings, "snapshot_every")
    """Number of events between two snapshots; 0 for no snapshots."""
    remember_commands: AtLeastZero = default_of(Settings, "remember_commands")
    """Number of its last events for which an aggregate remembers the commands that recorded them."""


class ClusterTable(BaseTable):
    """The system as one node of several on its store; see `Cluster`. An empty table: the processes of one machine."""

    listen: Text | None = default_of(Cluster, "listen")
    """Where it accepts requests of other nodes: "HOST:PORT", "unix:DIRECTORY" or "nats://HOST:PORT"."""
    advertise: Text | None = default_of(Cluster, "advertise")
    """The "HOST:PORT" that other nodes use, if it is another one."""
    secret: Text | None = default_of(Cluster, "secret")
    """Known to all nodes. Best from the environment: "${SECRET}"."""
    certificate: Text | None = default_of(Cluster, "certificate")
    """PEM file with the certificate of this node. A path is relative to the file."""
    key: Text | None = default_of(Cluster, "key")
    """PEM file with its key."""
    authority: Text | None = default_of(Cluster, "authority")
    """PEM file with the certificate that signed those of all nodes."""
    ttl: Seconds = default_of(Cluster, "ttl")
    """Time after which a node that hangs is no longer a member."""
    roles: list[RoleWord] = [*default_of(Cluster, "roles")]
    """What it is for: to serve commands of aggregates, to run handlers, or both."""
    capacity: Capacity = default_of(Cluster, "capacity")
    """Its share of aggregates relative to the other nodes."""
    loans: Truth = default_of(Cluster, "loans")
    """Whether it lends aggregates that one other node alone asks for, and borrows such of others."""
    name: Text | None = default_of(Cluster, "name")
    """Names it in logs and reports: "web-1" for "bank@web-1". Default: host and process."""
    workers: WorkersValue | None = None
    """How many processes `uno-actors run` starts, each a node by itself: a number, "cores", or numbers by role, as in
    { aggregates = 2, handlers = 1 }. Without this key it is one."""

    @override
    def __repr_args__(self) -> Iterator[tuple[str | None, Any]]:
        for name, value in super().__repr_args__():
            yield name, HIDDEN if name == "secret" and value is not None else value


class TenantsTable(BaseTable):
    """Many tenants in one program, each with a store of its own; see `Tenants`. The URL of the store has {tenant}."""

    names: list[TenantName] | None = default_of(TenantOptions, "names")
    """The tenants that exist. Default: those that have a store on disk."""
    keep: TenantsKept = default_of(TenantOptions, "keep")
    """The tenants that always run, or "all". Others run while they are used and their handlers have work."""
    max_open: AtLeastOne = default_of(TenantOptions, "max_open")
    """Maximum number of tenants that run at once."""
    idle_after: Seconds = default_of(TenantOptions, "idle_after")
    """Time without use after which a tenant stops, once its handlers have handled every event."""

    @property
    def options(self) -> TenantOptions:
        """As one value."""
        names = None if self.names is None else tuple(self.names)
        return TenantOptions(names, self.keep, self.max_open, self.idle_after)


class LoggingTable(BaseTable):
    """What `uno-actors run` logs, and in which format."""

    level: LevelWord = "info"
    """Least severe level that is logged."""
    format: FormatWord = "text"
    """Text for people, or one JSON object per line."""


class HandlerTable(BaseTable):
    """An event handler. Keys left out are as `@subscribe` says, else the default."""

    handler: Handler
    """The function or class to call."""
    name: HandlerName | None = None
    """Unique name. The checkpoint is stored under it."""
    topic: Topic | None = None
    """Handle only events whose topic matches."""
    events: list[EventType] | None = None
    """Handle only events of these classes."""
    aggregate_type: Name | None = default_of(HandlerSpec, "aggregate_type")
    """Handle only events of aggregates of this type."""
    priority: PriorityWord = default_of(HandlerSpec, "priority")
    """For each event, every high handler finishes before a normal one starts."""
    start: StartValue = default_of(HandlerSpec, "start")
    """Where a handler without a checkpoint starts."""
    max_attempts: AtLeastOne = default_of(HandlerSpec, "max_attempts")
    """Number of failures after which an event goes to the dead letters."""
    timeout: Seconds | None = default_of(HandlerSpec, "timeout")
    """Maximum time of one call."""
    concurrency: AtLeastOne = default_of(HandlerSpec, "concurrency")
    """Number of events handled at once, each of another aggregate."""
    batch: AtLeastOne | None = default_of(HandlerSpec, "batch")
    """Maximum number of events given to the handler in one list, instead of one at a time."""
    partitioned: Partitions = default_of(HandlerSpec, "partitioned")
    """Whether several nodes share its events, by aggregate; a number says into how many partitions."""


class ChildTable(BaseTable):
    """What all children of supervisors have in common."""

    restart: RestartWord = default_of(ChildSpec, "restart")
    """When it is restarted: always, only after a failure, or never."""
    shutdown: ShutdownValue | None = default_of(ChildSpec, "shutdown")
    """Maximum time to stop before it is abandoned; "kill" for no time, "infinity" for no limit."""
    significant: Truth = default_of(ChildSpec, "significant")
    """Whether its exit counts for auto_shutdown."""


class SupervisedHandlerTable(HandlerTable, ChildTable):
    """An event handler under a supervisor."""


class ActorTable(ChildTable):
    """A plain actor under a supervisor."""

    actor: ActorType
    """Its class."""
    name: Name | None = None
    """Name under which `ActorSystem.actor` finds it. Default: the name of the class."""
    args: list[Any] = []
    """Arguments of its constructor."""
    kwargs: dict[str, Any] = {}
    """Keyword arguments of its constructor."""
    dispatcher: DispatcherWord = default_of(ChildSpec, "dispatcher")
    """Whether it has a thread of its own."""
    max_attempts: AtLeastOne | None = default_of(ChildSpec, "max_attempts")
    """Number of attempts at a told message before it is a dead message."""


class BackoffTable(BaseTable):
    """Time between a failure and the restart: min(max, initial * factor ** k), less jitter."""

    initial: SecondsOrZero = default_of(Backoff, "initial")
    """Time before the first restart."""
    max: SecondsOrZero = default_of(Backoff, "max")
    """Longest time."""
    factor: Growth = default_of(Backoff, "factor")
    """Growth from one restart to the next."""
    jitter: Share = default_of(Backoff, "jitter")
    """Share of the time that is random."""
    reset_after: Seconds | None = default_of(Backoff, "reset_after")
    """Time without a failure after which back-off starts again at `initial`."""


class SupervisorTable(BaseTable):
    """A supervisor. Its children start in the order in which they are written, whatever their kind."""

    name: Name
    """Unique name."""
    strategy: StrategyWord = default_of(Supervisor, "strategy")
    """Which children are restarted with a failed one: none, all, or those started after it."""
    max_restarts: MaxRestarts = default_of(Supervisor, "max_restarts")
    """Maximum number of restarts within `within`. At one more, the supervisor gives up."""
    within: Seconds = default_of(Supervisor, "within")
    """Length of the sliding window."""
    budget: BudgetWord = default_of(Supervisor, "budget")
    """Whether the children share max_restarts, or each child has its own."""
    backoff: BackoffTable = BackoffTable()
    """Time between a failure and the restart."""
    directives: dict[ErrorType, DirectiveWord] = {}
    """What to do with a failed child, by the class of its error. The most specific class wins."""
    auto_shutdown: AutoShutdownWord = default_of(Supervisor, "auto_shutdown")
    """Whether it shuts down when a significant child exits by itself, or when the last of them does."""
    handlers: list[SupervisedHandlerTable] = []
    """Event handlers."""
    actors: list[ActorTable] = []
    """Plain actors."""
    supervisors: list["NestedSupervisorTable"] = []
    """Supervisors under this one."""


class NestedSupervisorTable(SupervisorTable, ChildTable):
    """A supervisor under another."""


NestedSupervisorTable.model_rebuild()  # SupervisorTable names it before it is defined
SupervisorTable.model_rebuild()


class FileTable(BaseTable):
    """The configuration of a uno_actors system."""

    include: list[Text] = []
    """Files to read first, relative to this one. Values of this file win; its lists are appended to theirs."""
    system: SystemTable = SystemTable()
    """The system as a whole."""
    aggregates: AggregatesTable = AggregatesTable()
    """Which aggregates the system serves, and how."""
    cluster: ClusterTable | None = None
    """That the system is one node of several. Without this table it is none."""
    tenants: TenantsTable | None = None
    """That the program serves many tenants. Without this table it serves one, or none is named."""
    logging: LoggingTable = LoggingTable()
    """What is logged, and in which format."""
    handlers: list[HandlerTable] = []
    """Event handlers under no supervisor. They are restarted without limit."""
    supervisors: list[SupervisorTable] = []
    """Supervisors directly under the system."""


SYSTEM_OPTIONS = options_of(Settings, SystemTable)
AGGREGATE_OPTIONS = options_of(Settings, AggregatesTable)
CLUSTER_OPTIONS = options_of(Cluster, ClusterTable)
HANDLER_OPTIONS = options_of(HandlerSpec, HandlerTable)
CHILD_OPTIONS = options_of(ChildSpec, ChildTable)
ACTOR_OPTIONS = options_of(ChildSpec, ActorTable, "name", *CHILD_OPTIONS)
SUPERVISOR_OPTIONS = options_of(Supervisor, SupervisorTable, "name", "backoff", "directives")


def json_schema() -> dict[str, Any]:
    """The JSON Schema of the format, for completion and checks in editors."""
    found = FileTable.model_json_schema(mode="validation")
    for name, table in ((FileTable.__name__, found), *found["$defs"].items()):
        for key, described in _descriptions(globals()[name]).items():
            table["properties"][key]["description"] = described
    schema = _as_written(found)
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        **schema,
        "title": "uno_actors configuration file",
    }


def _descriptions(table: type[BaseTable]) -> dict[str, str]:
    """The docstrings of the keys of a table. Pydantic would find them too, whenever a command starts: that is slow."""
    classes = {each.name: each for each in _syntax().body if isinstance(each, ast.ClassDef)}
    found = {}
    for base in reversed(table.__mro__):
        if (written := classes.get(base.__name__)) is not None:
            for key, text in pairwise(written.body):
                match key, text:
                    case ast.AnnAssign(target=ast.Name(id=name)), ast.Expr(
                        value=ast.Constant(value=str(described))
                    ):
                        found[name] = inspect.cleandoc(described)
    return found


@cache
def _syntax() -> ast.Module:
    return ast.parse(inspect.getsource(sys.modules[__name__]))


def _as_written(schema: Any) -> Any:
    """The schema of values that TOML has: without null, and with defaults as TOML writes them."""
    if isinstance(schema, list):
        return [_as_written(part) for part in schema if part != {"type": "null"}]
    if not isinstance(schema, dict):
        return schema
    written = {key: _as_written(part) for key, part in schema.items() if key != "default"}
    if len(written.get("anyOf", ())) == 1:
        written |= written.pop("anyOf")[0]
    if isinstance(written.get("title"), str):
        del written["title"]
    main = written.get("anyOf", [written])[0]
    match default := schema.get("default"):
        case int() if "enum" in main and not isinstance(default, bool):
            written["default"] = EventPriority(default).name.lower()
        case float() if "pattern" in main:
            written["default"] = as_duration(default)
        case bool() | int() | float() | str():
            written["default"] = default
    return written
