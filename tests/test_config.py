"""Configuration files: their meaning, and their faults, all reported at once with their lines."""

import os
import re
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import MISSING, fields
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import configured
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pydantic import BaseModel
from sqlalchemy import make_url

from uno_actors import ActorSystem, Backoff, ConfigFault, EventPriority, InvalidConfig, Supervisor
from uno_actors.config.reader import load
from uno_actors.config.tables import ActorTable, BackoffTable, FileTable, HandlerTable, SupervisorTable
from uno_actors.config.text import MOST_BYTES
from uno_actors.handlers.spec import HandlerSpec
from uno_actors.supervision.spec import ChildSpec
from uno_actors.testing import inspect
from uno_actors.topics import TopicPattern
from uno_actors.units import as_duration, duration

GOOD = """\
[system]
name = "shop"
store = "lmdb:data"
store_options = { max_size = "8GiB", durability = "relaxed" }
ask_timeout = "5s"
stop_timeout = "1m30s"
recorder = 500
recordings = "recordings"
record_timeouts = true

[aggregates]
types = [
  "configured:Shop",
  "configured:Warehouse",
]
passivate_after = "5m"
max_active = 1000
snapshot_every = 50
remember_commands = 16

[logging]
level = "debug"
format = "json"

[[handlers]]
handler = "configured:audit"
max_attempts = 7

[[supervisors]]
name = "notifications"
strategy = "rest_for_one"
max_restarts = 4
within = "1m"
budget = "child"
backoff = { initial = "100ms", max = "10s", factor = 3, jitter = 0.5, reset_after = "2m" }
directives = { ValueError = "stop", "uno_actors:CommandRejected" = "resume" }
auto_shutdown = "any_significant"

  [[supervisors.actors]]
  name = "clerk"
  actor = "configured:Clerk"
  args = ["good day"]
  kwargs = { times = 2 }
  dispatcher = "shared"
  restart = "transient"
  shutdown = "kill"
  significant = true
  max_attempts = 3

  [[supervisors.handlers]]
  name = "mail"
  handler = "configured:mail"
  topic = "shop.>"
  events = ["configured:Sold"]
  priority = "high"
  start = 17
  max_attempts = 2
  timeout = "1s"
  concurrency = 4
  aggregate_type = "Account"
  restart = "permanent"
  shutdown = "2s"

  [[supervisors.supervisors]]
  name = "counting"
  max_restarts = "unlimited"
  restart = "temporary"
  shutdown = "infinity"

    [[supervisors.supervisors.handlers]]
    handler = "configured:counter"
    start = 2026-01-31T00:00:00Z
    batch = 10

  [[supervisors.actors]]
  actor = "configured:Clerk"
"""


def written(directory: Path, text: str, name: str = "shop.toml") -> Path:
    path = directory / name
    path.write_text(text)
    return path


def faults(path: Path, **environment: str) -> list[str]:
    """The faults of the file, each as ``line key: reason``."""
    with pytest.raises(InvalidConfig) as caught:
        load(path, environment)
    assert str(caught.value).count("\n") >= len(caught.value.faults)
    return [str(fault).removeprefix(f"{path.parent}/") for fault in caught.value.faults]


# --- what a file says --------------------------------------------------------------------------------------


def test_every_setting_of_a_file_reaches_the_system(tmp_path: Path) -> None:
    config = load(written(tmp_path, GOOD))
    arguments = config.arguments()
    handlers, supervisors = arguments.pop("handlers"), arguments.pop("supervisors")
    assert arguments == {
        "name": "shop",
        "store": f"lmdb:{tmp_path}/data?max_size={8 << 30}&durability=relaxed",
        "ask_timeout": 5.0,
        "stop_timeout": 90.0,
        "scheduler": None,
        "recorder": 500,
        "recordings": str(tmp_path / "recordings"),
        "record_timeouts": True,
        "aggregates": [configured.Shop, configured.Warehouse],
        "passivate_after": 300.0,
        "max_active": 1000,
        "snapshot_every": 50,
        "remember_commands": 16,
        "cluster": None,
    }
    assert (config.logging.level, config.logging.format) == ("debug", "json")
    (audit,) = handlers
    assert (audit.target, audit.name, audit.max_attempts) == (configured.audit, "audit", 7)
    assert (audit.priority, audit.start) == (EventPriority.HIGH, "earliest")  # as the decorator says
    (notifications,) = supervisors
    assert notifications == Supervisor(
        "notifications",
        notifications.children,
        strategy="rest_for_one",
        max_restarts=4,
        within=60.0,
        budget="child",
        backoff=Backoff(0.1, 10.0, 3, 0.5, 120.0),
        directives=notifications.directives,
        auto_shutdown="any_significant",
    )
    assert {kind.__name__: what for kind, what in notifications.directives.items()} == {
        "ValueError": "stop",
        "CommandRejected": "resume",
    }
    clerk, mail, counting, second_clerk = notifications.children
    assert clerk == ChildSpec(
        configured.Clerk,
        "clerk",
        ["good day"],
        {"times": 2},
        restart="transient",
        shutdown="kill",
        significant=True,
        max_attempts=3,
    )
    assert (mail.name, mail.shutdown, mail.run.target) == ("mail", 2.0, configured.mail)
    assert (mail.run.topic_pattern, mail.run.event_type) == (TopicPattern("shop.>"), configured.Sold)
    assert (mail.run.priority, mail.run.start, mail.run.max_attempts) == (EventPriority.HIGH, 17, 2)
    assert (mail.run.timeout, mail.run.concurrency, mail.run.aggregate_type) == (1.0, 4, "Account")
    assert (counting.restart, counting.shutdown) == ("temporary", "infinity")
    assert counting.run.max_restarts is None
    (counter,) = counting.run.children
    assert (counter.target, counter.batch) == (configured.counter, 10)
    assert counter.event_type is configured.Sold  # as the class says
    assert counter.start == datetime(2026, 1, 31, tzinfo=UTC)
    assert second_clerk.name == "Clerk"


def test_an_empty_file_gives_a_system_with_defaults(tmp_path: Path) -> None:
    assert load(written(tmp_path, "")).arguments() == {
        "store": "memory:",
        "name": "system",
        "ask_timeout": 30.0,
        "stop_timeout": 10.0,
        "scheduler": None,
        "recorder": True,
        "recordings": None,
        "record_timeouts": False,
        "aggregates": None,
        "passivate_after": 300.0,
        "max_active": 100_000,
        "snapshot_every": 200,
        "remember_commands": 256,
        "handlers": (),
        "supervisors": (),
        "cluster": None,
    }


async def test_a_system_runs_as_its_file_says(tmp_path: Path) -> None:
    path = written(tmp_path, GOOD)
    configured.handled.clear()
    async with ActorSystem.from_config(path, store="memory:") as system:
        assert await system.aggregate(configured.Shop, "a").ask(configured.Sell(price=5)) == 5
        await system.settled()
        clerk = system.actor("clerk")
        assert clerk is not None
        assert await clerk.ask("?") == "good day good day"
        tree = [node.name for node in system.tree().walk()]
    assert tree == [
        "shop", "handlers", "audit", "notifications", "clerk", "mail", "counting", "configured.Counter", "Clerk"
    ]  # fmt: skip
    assert ("audit", 1) in configured.handled


async def test_a_system_can_be_printed_as_a_file(tmp_path: Path) -> None:
    system = ActorSystem.from_config(written(tmp_path, GOOD))
    text = system.to_config()
    second = ActorSystem.from_config(written(tmp_path, text, "second.toml"))
    assert second.to_config() == text
    assert inspect(second).supervisors == inspect(system).supervisors
    assert inspect(second).settings.stop_timeout == inspect(system).settings.stop_timeout == 90
    assert 'types = ["configured:Shop", "configured:Warehouse"]' in text


# as written in a file in the directory HERE, and as it is opened
STORES = {
    "memory:": "memory:",
    "lmdb:data": "lmdb:HERE/data",
    "lmdb:./data": "lmdb:HERE/data",
    "lmdb:data?durability=relaxed": "lmdb:HERE/data?durability=relaxed",
    "lmdb:/data": "lmdb:/data",
    "sqlite+aiosqlite:///shop.db": "sqlite+aiosqlite:///HERE/shop.db",
    "sqlite+aiosqlite:////shop.db?patience=3": "sqlite+aiosqlite:////shop.db?patience=3",
    "sqlite+aiosqlite://": "sqlite+aiosqlite://",
    "sqlite+aiosqlite:///:memory:": "sqlite+aiosqlite:///:memory:",
    "sqlite+aiosqlite:///file:shop?mode=memory": "sqlite+aiosqlite:///file:shop?mode=memory",
    "postgresql+asyncpg:///shop": "postgresql+asyncpg:///shop",
    "postgresql+asyncpg://me@there/shop": "postgresql+asyncpg://me@there/shop",
}


@pytest.mark.parametrize(("url", "store"), STORES.items(), ids=STORES)
def test_the_path_of_a_store_is_relative_to_the_file_in_which_it_is_written(
    tmp_path: Path, url: str, store: str
) -> None:
    (tmp_path / "common").mkdir()
    text = f'[system]\nstore = "{url}"\n'
    assert load(written(tmp_path, text)).system.url == store.replace("HERE", str(tmp_path))
    written(tmp_path / "common", text, "common.toml")
    including = written(tmp_path, 'include = ["common/common.toml"]\n')
    assert load(including).system.url == store.replace("HERE", str(tmp_path / "common"))


def test_a_directory_that_no_url_can_name_is_reported(tmp_path: Path) -> None:
    (tmp_path / "what?").mkdir()
    (fault,) = faults(written(tmp_path / "what?", '[system]\nstore = "lmdb:data"\n'))
    assert "has a '?'" in fault


def test_a_system_prints_its_store_with_an_absolute_path(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "elsewhere").mkdir()
    file = written(tmp_path / "elsewhere", ActorSystem("lmdb:data", handlers=[]).to_config())
    assert load(file).system.url == f"lmdb:{tmp_path}/data"


def test_options_of_a_store_may_contain_any_characters(tmp_path: Path) -> None:
    text = '[system]\nstore = "sqlite+aiosqlite:///shop.db"\nstore_options = { "a b" = "1&patience=2", c = "ä+#?" }\n'
    url = make_url(load(written(tmp_path, text)).system.url)
    assert dict(url.query) == {"a b": "1&patience=2", "c": "ä+#?"}


def test_modules_beside_the_file_are_found(tmp_path: Path) -> None:
    (tmp_path / "beside_the_file.py").write_text("def handle(event): pass\n")
    path = written(tmp_path, '[[handlers]]\nhandler = "beside_the_file:handle"\n')
    code = (
        "import sys, os; from uno_actors.config.reader import load; print(load(sys.argv[1]).handlers[0].name)"
    )
    run = subprocess.run(
        [sys.executable, "-c", code, str(path)], cwd="/", capture_output=True, text=True, check=True
    )
    assert run.stdout == "beside_the_file.handle\n"


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("250ms", 0.25),
        ("1.5s", 1.5),
        ("5m", 300),
        ("1h30m", 5400),
        ("1h 30m", 5400),
        ("2d", 172800),
        ("0s", 0),
    ],
)
def test_durations_have_units(text: str, seconds: float) -> None:
    assert duration(text) == seconds
    assert duration(as_duration(seconds)) == seconds


@given(st.floats(0, 1e9) | st.integers(0, 10**6).map(lambda milliseconds: milliseconds / 1000))
def test_a_written_duration_is_read_back(seconds: float) -> None:
    assert duration(as_duration(seconds)) == seconds


async def test_one_function_may_be_several_handlers_with_a_supervisor_and_without(tmp_path: Path) -> None:
    text = (
        '[[handlers]]\nname = "alone"\nhandler = "configured:mail"\n[[supervisors]]\nname = "s"\n'
        '[[supervisors.handlers]]\nname = "supervised"\nhandler = "configured:mail"\n'
    )
    async with ActorSystem.from_config(written(tmp_path, text)) as system:
        assert set(system.statistics().handlers) == {"alone", "supervised"}


# --- variables and included files --------------------------------------------------------------------------


def test_environment_variables_are_filled_in(tmp_path: Path) -> None:
    text = """\
[system]
name = "${NAME}"
store = "lmdb:${DIR:-here}/${NAME}$${x}"
ask_timeout = "${SECONDS}s"
stop_timeout = "${EMPTY:-3s}"
[aggregates]
max_active = "${ACTIVE}"
"""
    environment = {"NAME": "shop", "SECONDS": "7", "EMPTY": "", "ACTIVE": "12"}
    arguments = load(written(tmp_path, text), environment).arguments()
    assert arguments["store"] == f"lmdb:{tmp_path}/here/shop${{x}}"
    assert arguments["name"] == "shop"
    assert (arguments["ask_timeout"], arguments["stop_timeout"]) == (7.0, 3.0)
    assert arguments["max_active"] == 12


def test_actors_are_given_variables_as_plain_strings(tmp_path: Path) -> None:
    text = """\
[[supervisors]]
name = "s"
[[supervisors.actors]]
actor = "configured:Machine"
args = ["${A}", ["${A}"]]
kwargs = { a = "${A}", b = { c = "${A}" } }
"""
    (supervisor,) = load(written(tmp_path, text), {"A": "a"}).supervisors
    (child,) = supervisor.specs
    assert (child.args, child.kwargs) == (["a", ["a"]], {"a": "a", "b": {"c": "a"}})
    given = [*child.args, *child.args[1], *child.kwargs.values(), child.kwargs["b"]["c"]]
    assert {type(value) for value in given} == {str, list, dict}


def test_missing_and_malformed_variables_are_reported(tmp_path: Path) -> None:
    text = '[system]\nname = "${A}"\nstore = "${B"\n[aggregates]\nmax_active = "${C}"\n[logging]\nlevel = "${1}"\n'
    text += 'format = "${A:-${B}}"\n'
    assert faults(written(tmp_path, text), C="many") == [
        'shop.toml:2: system.name: found "${A}"; environment variable A is not set: set it, or write'
        " ${A:-default}",
        'shop.toml:3: system.store: found "${B"; ${ is not a variable: write ${NAME}, ${NAME:-default}, or'
        " $${ for a plain ${",
        'shop.toml:5: aggregates.max_active: found "${C}"; which is "many" here; expected a whole number, 1 or'
        " more",
        'shop.toml:7: logging.level: found "${1}"; ${1} is not a variable: write ${NAME}, ${NAME:-default},'
        " or $${ for a plain ${",
        'shop.toml:8: logging.format: found "${A:-${B}}"; ${A:-${B} is not a variable: write ${NAME},'
        " ${NAME:-default}, or $${ for a plain ${",
    ]


def test_values_that_may_be_secret_are_shown_as_they_are_written(tmp_path: Path) -> None:
    (fault,) = faults(written(tmp_path, '[system]\nstore = "nosuch:${PASSWORD}"\n'), PASSWORD="hunter2")  # noqa: S106 - none
    assert "${PASSWORD}" in fault
    assert "hunter2" not in fault


def test_included_files_come_first_and_the_including_file_wins(tmp_path: Path) -> None:
    (tmp_path / "parts").mkdir()
    written(
        tmp_path / "parts",
        '[system]\nname = "common"\nask_timeout = "1s"\n[aggregates]\ntypes = ["configured:Shop"]\n'
        '[[handlers]]\nhandler = "configured:audit"\n[[supervisors]]\nname = "first"\n',
        "common.toml",
    )
    text = (
        'include = ["parts/common.toml"]\n[system]\nname = "shop"\n[aggregates]\ntypes = ["configured:Warehouse"]\n'
        '[[handlers]]\nhandler = "configured:mail"\n[[supervisors]]\nname = "second"\n'
    )
    config = load(written(tmp_path, text))
    arguments = config.arguments()
    assert (arguments["name"], arguments["ask_timeout"]) == ("shop", 1.0)
    assert arguments["aggregates"] == [configured.Shop, configured.Warehouse]
    assert [handler.target for handler in config.handlers] == [configured.audit, configured.mail]
    assert [supervisor.name for supervisor in config.supervisors] == ["first", "second"]
    assert [file.name for file in config.files] == ["common.toml", "shop.toml"]


def test_each_fault_names_its_file(tmp_path: Path) -> None:
    written(tmp_path, '[[supervisors]]\nname = "a"\n\n[system]\nnam = "x"\n', "common.toml")
    text = 'include = ["common.toml", "nowhere.toml", 3]\n[[supervisors]]\nname = "a"\n[[handlers]]\n'
    assert [fault.partition(": f")[0] for fault in faults(written(tmp_path, text))] == [
        "common.toml:5: system.nam",
        "shop.toml:1: include[1]",
        "shop.toml:1: include[2]",
        "shop.toml:3: supervisors[1].name",
        "shop.toml:4: handlers[0].handler: it is missing",
    ]


def test_files_that_include_each_other_are_refused(tmp_path: Path) -> None:
    written(tmp_path, '\ninclude = ["shop.toml"]\n', "other.toml")
    (fault,) = faults(written(tmp_path, 'include = ["other.toml"]\n'))
    assert fault == (
        'other.toml:2: include[0]: found "shop.toml"; files include each other: shop.toml -> other.toml ->'
        " shop.toml"
    )


def test_an_unreadable_file_is_reported(tmp_path: Path) -> None:
    assert faults(tmp_path / "nowhere.toml") == ["nowhere.toml: it cannot be read: No such file or directory"]
    assert faults(tmp_path) == [f"{tmp_path.name}: it cannot be read: Is a directory"]
    path = tmp_path / "latin.toml"
    path.write_bytes(b'[system]\nname = "caf\xe9"\n')
    assert faults(path) == ["latin.toml:2: it must be UTF-8, and byte 0xe9 is not"]
    circle = tmp_path / "circle.toml"
    circle.symlink_to(circle)
    assert faults(circle) == ["circle.toml: it cannot be read: Too many levels of symbolic links"]
    assert faults(tmp_path / "a\0b") == ["a\\x00b: it cannot be read: embedded null byte"]


# --- faults ------------------------------------------------------------------------------------------------

# Text with <- at the end of faulty lines, and part of the reason of each fault, in order.
WRONG: list[tuple[str, list[str]]] = [
    ("[sytem] # <-", ["sytem: found a table; unknown key; did you mean 'system'?"]),
    ("[system]\nask_timeout = 5 # <-", ['found 5; a unit is needed: write "5s" for seconds. Expected a dur']),
    ('[system]\nask_timeout = "0s" # <-', ["it must be longer than zero"]),
    ('[system]\nask_timeout = "-1s" # <-', ["expected a duration"]),
    ('[system]\nask_timeout = "5 minutes" # <-', ["expected a duration"]),
    ('[system]\nask_timeout = "1000000d" # <-', ["longer than 100 years"]),
    ('[system]\nname = "" # <-', ["a string of 1 to 200"]),
    ("[system]\nname = 3 # <-", ["a string of 1 to 200"]),
    ('[system]\nname = "a\\u0000b" # <-', ["printable"]),
    ('[system]\nstore = "nosuch:x" # <-', ["there are stores for lmdb, memory"]),
    ('[system]\nstore = "data" # <-', ["the URL of a store"]),
    ("[system]\nstore_options = { max_size = 1.5 } # <-", ["system.store_options.max_size: found 1.5; expected"]),
    ("[system]\nstore_options = 3 # <-", ["expected a table"]),
    ('[system]\nstore = "lmdb:data"\nstore_options = { size = 1 } # <-', ["unknown option size; options are"]),
    ('[system]\nstore = "lmdb:data"\nstore_options = { durability = "1&x" } # <-', ["or 'relaxed'; found '1&x'"]),
    ('[system]\nstore = "lmdb:data?map_size=2Gib" # <-', ["'2Gib'"]),
    ('[system]\nstore = "lmdb:data?map_size=2000000"\nstore_options = { map_size = 3000000 } # <-', ["given twice"]),
    ('[system]\nstore = "lmdb:" # <-', ["lmdb:PATH"]),
    ('[system]\nstore = "memory:here" # <-', ["memory:"]),
    ('[system]\nstore = "lmdb:~/data" # <-', ["write ${HOME} in its place"]),
    ("system = 3 # <-", ["system: found 3; expected a table"]),
    ("aggregates = 3 # <-", ["expected a table"]),
    ("handlers = 3 # <-", ["expected tables: write [[handlers]]"]),
    ("[handlers] # <-", ["expected tables: write [[handlers]]"]),
    ("handlers = [1] # <-", ["handlers[0]: found 1; expected a table"]),
    ("[supervisors] # <-", ["expected tables: write [[supervisors]]"]),
    ("include = 3 # <-", ["a list of file names"]),
    ('include = ["a\\u0000b"] # <-', ["embedded null"]),
    ("[aggregates]\ntypes = 3 # <-", ["expected a list, in [ and ]"]),
    ("cluster = true # <-", ["expected a table"]),
    ('[cluster]\nttl = 3 # <-', ['write "3s" for seconds']),
    ('[cluster]\nroles = ["handler"] # <-', ['did you mean "handlers"?']),
    ("[cluster]\nroles = [] # <-", ["must be some of aggregates, handlers"]),
    ("[cluster]\ncapacity = 0 # <-", ["a number from 0.001 to 1000"]),
    ("[cluster]\nloans = 0 # <-", ["true or false"]),
    ('[system]\nscheduler = "off" # <-', ["true or false"]),
    ('[cluster]\nlisten = "here" # <-', ["HOST:PORT"]),
    ("[cluster]\nlisten = 7411 # <-", ["a string"]),
    ('[cluster] # <-\nlisten = "10.0.0.5:7411"', ["it needs `secret`"]),
    ('[cluster] # <-\nlisten = "127.0.0.1:0"\ncertificate = "node.pem"', ["is missing: TLS needs"]),
    ('[cluster]\nadvertise = "10.0.0.5:1" # <-', ["is for TCP alone"]),
    ('[cluster]\nsecret = "" # <-', ["a text that is not empty"]),
    ('[cluster]\nlistens = "x" # <-', ["did you mean"]),
    ('[aggregates]\ntypes = [\n"configured:Shop",\n"configured:Shopp", # <-\n]', ["did you mean 'Shop'?"]),
    ('[aggregates]\ntypes = [\n"configured:Shop",\n"configured:Shop", # <-\n]', ["in the list already"]),
    ('[aggregates]\ntypes = ["no_such_module:Shop"] # <-', ["module 'no_such_module' cannot be imported"]),
    ('[aggregates]\ntypes = ["configured"] # <-', ["it names nothing"]),
    ('[aggregates]\ntypes = ["configured:"] # <-', ["it is malformed"]),
    ('[aggregates]\ntypes = ["configured:mail"] # <-', ["configured:mail is a function. Expected an Agg"]),
    ('[aggregates]\ntypes = ["configured:Clerk"] # <-', ["configured:Clerk is the class Clerk"]),
    ("[aggregates]\nmax_active = 0 # <-", ["a whole number, 1 or more"]),
    ("[aggregates]\nmax_active = true # <-", ["a whole number, 1 or more"]),
    ("[aggregates]\nmax_active = 1.0 # <-", ["a whole number, 1 or more"]),
    ('[aggregates]\nmax_active = "5" # <-', ["a whole number, 1 or more"]),
    ("[aggregates]\nsnapshot_every = -1 # <-", ["a whole number, 0 or more"]),
    ('[logging]\nlevel = "loud" # <-', ['"debug", "info", "warning", "error" or "critical"']),
    ('[logging]\nformat = "jsn" # <-', ['did you mean "json"?']),
    ("[[handlers]] # <-", ["handlers[0].handler: it is missing"]),
    ('[aggregates]\ntypes = ["uno_actors:AggregateRoot"] # <-', ["AggregateRoot is the base class itself"]),
    ('[aggregates]\ntypes = ["configured:Abstract"] # <-', ["Abstract is abstract: it does not define settle"]),
    ('[aggregates]\ntypes = ["configured:Demanding"] # <-', ["cannot be made from its id alone: missing a required"]),
    ('[[handlers]]\nhandler = "uno_actors:EventHandler" # <-', ["EventHandler is the base class itself"]),
    ('[[handlers]]\nhandler = "uno_actors:Projection" # <-', ["Projection is the base class itself"]),
    ('[[handlers]]\nhandler = "configured:Unfinished" # <-', ["cannot be made without arguments (parameter 'server'"]),
    ('[[supervisors]]\nname = "a"\n[[supervisors.actors]]\nactor = "uno_actors:Actor" # <-', ["the base class itself"]),
    ('[[supervisors]]\nname = "a"\n[[supervisors.actors]]\nactor = "pykka:ThreadingActor" # <-\n'
     'dispatcher = "thread"', ["the base class itself"]),
    ('[[handlers]]\nhandler = "configured:number" # <-', ["configured:number is an int"]),
    ('[[handlers]]\nhandler = "configured:Shop" # <-', ["Expected a function or an EventHandler"]),
    ('[[handlers]]\nhandler = "configured:mail"\nrestart = "permanent" # <-', ["unknown key"]),
    ('[[handlers]]\nhandler = "configured:mail"\ntopic = "a..b" # <-', ["empty token"]),
    ('[[handlers]]\nhandler = "configured:mail"\ntopic = "a.>.b" # <-', ["'>' must be the last token"]),
    ('[[handlers]]\nhandler = "configured:mail"\nevents = ["configured:Shop"] # <-', ["a DomainEvent class"]),
    ('[[handlers]]\nhandler = "configured:mail"\nevents = [] # <-', ["it is empty"]),
    ('[[handlers]]\nhandler = "configured:mail"\npriority = "urgent" # <-', ['"high", "normal" or "low"']),
    ('[[handlers]]\nhandler = "configured:mail"\npriority = 1 # <-', ['"high", "normal" or "low"']),
    ('[[handlers]]\nhandler = "configured:mail"\nstart = "lastest" # <-', ['"latest", "earliest", a position']),
    ('[[handlers]]\nhandler = "configured:mail"\nstart = -1 # <-', ['"latest", "earliest", a position']),
    ('[[handlers]]\nhandler = "configured:mail"\nmax_attempts = 0 # <-', ["1 or more"]),
    ('[[handlers]]\nhandler = "configured:mail"\nbatch = 2\nconcurrency = 2 # <-', ["exclude each other"]),
    ('[[handlers]]\nhandler = "configured:mail"\n[[handlers]]\n'
     'name = "configured.mail" # <-\nhandler = "configured:audit"',
     ["handlers need unique names, and this one is taken in"]),
    ('[[handlers]]\nname = "a"\nhandler = "configured:mail"\n[[supervisors]]\nname = "s"\n'
     '[[supervisors.handlers]]\nname = "a" # <-\nhandler = "configured:audit"', ["taken in"]),
    ('[[handlers]]\nhandler = "configured:mail"\nname = "a@b" # <-', ["printable bytes without @"]),
    ('[[handlers]]\nhandler = "configured:mail"\nevents = "configured:Sold" # <-', ["a list, in [ and ]"]),
    ('[[handlers]]\nhandler = "configured:mail"\nstart = 9223372036854775808 # <-', ['"latest", "earliest"']),
    ("[[supervisors]] # <-", ["supervisors[0].name: it is missing"]),
    ('[[supervisors]]\nname = "handlers" # <-', ["by the supervisor of handlers that have no other"]),
    ('[[supervisors]]\nname = "a"\n[[supervisors]]\nname = "b"\n'
     '[[supervisors.supervisors]]\nname = "a" # <-', ["taken"]),
    ('[[supervisors]]\nname = "a"\nstrategy = "one-for-one" # <-', ['did you mean "one_for_one"?']),
    ('[[supervisors]]\nname = "a"\nmax_restarts = "many" # <-', ['0 or more, or "unlimited"']),
    ('[[supervisors]]\nname = "a"\nmax_restarts = -1 # <-', ['0 or more, or "unlimited"']),
    ('[[supervisors]]\nname = "a"\nbackoff = { initial = "20s" } # <-', ["it is more than max, which is 10 s"]),
    ('[[supervisors]]\nname = "a"\nbackoff = { factor = 0.5 } # <-', ["a number, 1 or more"]),
    ('[[supervisors]]\nname = "a"\nbackoff = { jitter = 2 } # <-', ["a number from 0 to 1"]),
    ('[[supervisors]]\nname = "a"\nbackoff = { jitter = nan } # <-', ["a number from 0 to 1"]),
    ('[[supervisors]]\nname = "a"\n[supervisors.directives]\nNoError = "stop" # <-',
     ["there is no 'NoError' in builtins"]),
    ('[[supervisors]]\nname = "a"\n[supervisors.directives]\nint = "stop" # <-', ["int is the class int"]),
    ('[[supervisors]]\nname = "a"\n[supervisors.directives]\nKeyError = "retry" # <-', ["directives.KeyError"]),
    ('[[supervisors]]\nname = "a"\n[supervisors.directives]\nKeyError = "stop"\n"builtins:KeyError" = "resume" # <-',
     ["KeyError is the same class"]),
    ('[[supervisors]]\nname = "a"\nauto_shutdown = "any_significant" # <-', ["no child is significant"]),
    ('[[supervisors]]\nname = "a"\n[[supervisors.actors]]\nactor = "configured:Clerk"\nsignificant = true # <-',
     ["it is permanent and never exits by itself"]),
    ('[[supervisors]]\nname = "a"\n[[supervisors.actors]]\nactor = "configured:Clerk"\nrestart = "transient"\n'
     "significant = true # <-", ["it has no effect while auto_shutdown of 'a' is \"never\""]),
    ('[[supervisors]]\nname = "a"\n[[supervisors.actors]] # <-', ["actors[0].actor: it is missing"]),
    ('[[supervisors]]\nname = "a"\n[[supervisors.actors]]\nactor = "configured:Shop" # <-', ["an Actor class"]),
    ('[[supervisors]]\nname = "a"\n[[supervisors.actors]]\nactor = "configured:Clerk"\ndispatcher = "own" # <-',
     ['"shared" or "thread"']),
    ('[[supervisors]]\nname = "a"\n[[supervisors.actors]]\nactor = "configured:Clerk"\nshutdown = "never" # <-',
     ['or "kill" or "infinity"']),
    ('[[supervisors]]\nname = "a"\n[[supervisors.actors]]\nactor = "configured:Clerk"\n[[supervisors.actors]]\n'
     'name = "Clerk" # <-\nactor = "configured:Clerk"', ["actors need unique names"]),
    ('[[supervisors]]\nname = "a"\n[[supervisors.actors]]\nactor = "configured:Clerk"\n'
     'args = [1]\n\n[[supervisors.handlers]]\nname = "Clerk" # <-\nhandler = "configured:mail"',
     ["each child of a supervisor needs a unique name, and this one is taken in line 3"]),
    ('[[supervisors]]\nname = "a"\n[[supervisors.actors]]\nactor = "configured:Clerk"\nargs = ["a", 1, 2] # <-',
     ["Clerk cannot be made with these arguments: too many positional arguments"]),
    ('[[supervisors]]\nname = "a"\n[[supervisors.actors]]\nactor = "configured:Clerk"\nkwargs = { time = 2 } # <-',
     ["Clerk cannot be made with these arguments: got an unexpected keyword argument 'time'"]),
    ('[[supervisors]]\nname = "a"\n[[supervisors.actors]] # <-\nactor = "configured:Threaded"',
     ['write dispatcher = "thread"']),
    ('[[supervisors]]\nname = "a"\n[[supervisors.actors]]\nactor = "configured:Clerk"\ndispatcher = "thread" # <-',
     ["handles its messages in a coroutine"]),
    # several at once, in the order of the file
    ('[system]\nnam = "x" # <-\nstore = "x" # <-\n[[supervisors]] # <-\nwithin = 3 # <-\n[[supervisors.handlers]]\n'
     'handler = "nowhere:x" # <-\ntopic = "" # <-', ["'name'", "URL", "missing", "unit", "nowhere", "topic"]),
    ("[system]\nname = x # <-\nask_timeout = 5 # <-\n[logging]\nlevel = 3 # <-\n", ["Invalid value", "unit", "debug"]),
    ('[system]\nname = "a"\nname = "b" # <-\nask_timeout = 5 # <-\n', ["given twice, first in line 2", "unit"]),
]  # fmt: skip


@pytest.mark.parametrize(("text", "reasons"), WRONG, ids=[str(n) for n in range(len(WRONG))])
def test_each_fault_is_reported_with_its_line_and_what_is_allowed(
    text: str, reasons: list[str], tmp_path: Path
) -> None:
    wanted = [number for number, line in enumerate(text.split("\n"), start=1) if line.endswith("# <-")]
    found = faults(written(tmp_path, text))
    assert [int(fault.split(":")[1]) for fault in found] == wanted
    for fault, reason in zip(found, reasons, strict=True):
        assert reason in fault


def mutations() -> list[tuple[int, str, str]]:
    """`GOOD` with one fault each: its line, the change, and the text."""
    lines = GOOD.split("\n")
    found = []

    def add(number: int, what: str, *instead: str) -> None:
        text = "\n".join([*lines[:number], *instead, *lines[number + 1 :]])
        found.append((number + len(instead), f"{what} in line {number + 1}", text))

    for number, line in enumerate(lines):
        if not line.strip():
            continue
        key, equals, value = line.partition(" = ")
        header = re.fullmatch(r"\s*\[\[?([\w.]+)\]\]?", line)
        add(number, "broken", line + " ]x")
        if header:
            *above, _ = header[1].split(".")
            brackets = line.strip().count("[")
            wrong = ".".join([*above, "unheard_of"])
            add(number, "misnamed", "[" * brackets + wrong + "]" * brackets)
        elif equals and value != "[":
            add(number, "misspelled", f"{key}x = {value}")
            add(number, "twice", line, line)
            if key.strip() not in ("args", "kwargs"):
                add(number, "a date", f"{key} = 2020-01-01")
                add(number, "a list of lists", f"{key} = [[]]")
            if value.startswith('"'):
                add(number, "unclosed", line[:-1])
                add(number, "unquoted", f"{key} = {value.strip(chr(34))}!")
            if ":" in value and "configured" in value:
                add(number, "not there", line.replace("configured:", "configured:No"))
                add(number, "no module", line.replace("configured", "no_such_module"))
        elif '"configured:' in line:
            add(number, "not there", line.replace("configured:", "configured:No"))
            add(number, "a number", "  7,")
    return found


MUTATIONS = mutations()


def test_there_are_more_than_two_hundred_mutations() -> None:
    assert len(MUTATIONS) + len(WRONG) > 300


def test_every_mutation_of_a_good_file_is_refused_with_its_line(tmp_path: Path) -> None:
    for line, what, text in MUTATIONS:
        path = written(tmp_path, text)
        with pytest.raises(InvalidConfig) as caught:
            load(path)
            pytest.fail(f"{what}: it was accepted:\n{text}")
        lines = [fault.line for fault in caught.value.faults]
        assert line in lines, f"{what}: {caught.value}"
        assert len(lines) <= 6, f"{what}: {caught.value}"


@given(data=st.data())
@settings(max_examples=150, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow])
def test_fuzzed_files_are_read_or_refused(data: Any, tmp_path: Path) -> None:
    raw = GOOD.encode()
    for _ in range(data.draw(st.integers(1, 4))):
        start = data.draw(st.integers(0, len(raw)))
        end = min(len(raw), start + data.draw(st.integers(0, 30)))
        noise = data.draw(st.binary(max_size=4) | st.sampled_from([b"[[", b'"', b"${", b"\n", b"= {", b"\r"]))
        raw = raw[:start] + noise + raw[end:]
    path = tmp_path / "fuzzed.toml"
    path.write_bytes(raw)
    most = raw.count(b"\n") + 1
    for fault in faults_of(path):
        assert fault.line is not None
        assert 1 <= fault.line <= most
        assert str(fault).isprintable()


def faults_of(path: Path) -> Sequence[ConfigFault]:
    """The faults of the file; none if it is valid."""
    try:
        load(path, {})
    except InvalidConfig as error:
        return error.faults
    return ()


values = st.recursive(
    st.booleans() | st.integers() | st.floats() | st.text(max_size=5) | st.datetimes(),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(sorted(FileTable.model_fields)) | st.text(max_size=5), inner, max_size=3
        )
    ),
    max_leaves=8,
)


@given(data=st.data())
@settings(max_examples=150, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow])
def test_values_of_any_kind_anywhere_are_read_or_refused(data: Any, tmp_path: Path) -> None:
    lines = GOOD.split("\n")
    for _ in range(data.draw(st.integers(1, 5))):
        number = data.draw(st.integers(0, len(lines) - 1))
        key, equals, _ = lines[number].partition(" = ")
        if equals:
            lines[number] = f"{key} = {as_toml(data.draw(values))}"
    path = written(tmp_path, "\n".join(lines).encode("utf-8", "replace").decode())
    assert all(fault.key or fault.reason for fault in faults_of(path))


def as_toml(value: Any) -> str:
    match value:
        case bool():
            return str(value).lower()
        case dict():
            inner = ", ".join(f"{as_toml(str(key))} = {as_toml(item)}" for key, item in value.items())
            return f"{{ {inner} }}"
        case list():
            return f"[{', '.join(map(as_toml, value))}]"
        case str():
            return '"' + "".join(f"\\U{ord(c):08x}" for c in value) + '"'
        case datetime():
            return value.isoformat()
    return repr(value)


def test_many_faults_are_found_in_reasonable_time(tmp_path: Path) -> None:
    entry = '[[handlers]]\nhandler = "configured:mail"\nname = "h{}"\ntopik = "a"\n'
    found = faults(written(tmp_path, "".join(entry.format(n) for n in range(500))))
    assert len(found) == 500


# --- files that are none -----------------------------------------------------------------------------------


def test_only_regular_files_of_a_bounded_size_are_read(tmp_path: Path) -> None:
    """At once: a device has no end, and a FIFO waits for a writer."""
    fifo, huge = tmp_path / "fifo", tmp_path / "huge"
    os.mkfifo(fifo)
    with huge.open("wb") as file:
        file.truncate(MOST_BYTES + 1)
    for place, reason in (
        ("/dev/zero", "it is not a regular file"),
        (str(fifo), "it is not a regular file"),
        (str(tmp_path), "Is a directory"),
        (str(huge), f"it has more than {MOST_BYTES:,} bytes"),
        (str(tmp_path / "none"), "No such file"),
    ):
        (alone,) = faults(Path(place))
        assert alone.startswith(f"{Path(place).name}: it cannot be read: {reason}")
        (included,) = faults(written(tmp_path, f'include = ["{place}"]\n'))
        assert ":1: include[0]: found " in included
        assert reason in included


@pytest.mark.parametrize(
    ("specification", "table", "renamed"),
    [
        (HandlerSpec, HandlerTable, {"target": "handler", "topic_pattern": "topic", "event_type": "events"}),
        (ChildSpec, ActorTable, {"run": "actor"}),
        (Backoff, BackoffTable, {}),
        (Supervisor, SupervisorTable, {"children": None}),
    ],
)
def test_a_file_has_a_key_for_each_option_with_the_same_default(
    specification: type, table: type[BaseModel], renamed: dict[str, str | None]
) -> None:
    for option in fields(specification):
        key = renamed.get(option.name, option.name)
        if option.name.startswith("_") or key is None:
            continue
        found = table.model_fields[key]
        if option.default is not MISSING:
            both = (found.default, option.default)
            assert found.default == option.default or both == ([], ()), key
