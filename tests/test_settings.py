"""An option of a system is the same wherever it is written: in `Settings`, in `ActorSystem`, and as a key of a file."""

import inspect
from dataclasses import MISSING, Field, fields
from pathlib import Path
from types import UnionType
from typing import Any, Union, get_args, get_origin, get_type_hints

import pytest
from configured import Shop
from test_config import written

from uno_actors import ActorSystem, EventPriority, InvalidNumber
from uno_actors.clock import SystemClock
from uno_actors.config.reader import load
from uno_actors.config.tables import (
    AggregatesTable,
    BackoffTable,
    BaseTable,
    ChildTable,
    HandlerTable,
    SupervisorTable,
    SystemTable,
    kind_of,
    value_in_file,
)
from uno_actors.config.values import as_it_is
from uno_actors.settings import Settings
from uno_actors.testing import ManualClock
from uno_actors.testing.inspection import inspect as parts_of
from uno_actors.topics import TopicPattern

SIGNATURE = inspect.signature(ActorSystem).parameters
OPTIONS = {option.name: option for option in fields(Settings)}

KEYS: dict[str, type[BaseTable] | None] = {
    "name": SystemTable,
    "ask_timeout": SystemTable,
    "stop_timeout": SystemTable,
    "passivate_after": AggregatesTable,
    "max_active": AggregatesTable,
    "snapshot_every": AggregatesTable,
    "remember_commands": AggregatesTable,
    "scheduler": SystemTable,
    "recorder": SystemTable,
    "recordings": SystemTable,
    "record_timeouts": SystemTable,
    "clock": None,  # an object, which a file cannot express
}
"""In which table of a file an option is a key."""

NO_OPTIONS = {
    "tenant",
    "store",
    "aggregates",
    "handlers",
    "supervisors",
    "cluster",
    "observers",
    "event_registry",
    "dependency_overrides",
}
"""What a system is made of, rather than how it runs."""

OTHERS = {
    "name": "bank",
    "ask_timeout": 1.5,
    "stop_timeout": 0.25,
    "passivate_after": 60.0,
    "max_active": 7,
    "snapshot_every": 3,
    "remember_commands": 0,
    "scheduler": False,
    "recorder": 500,
    "recordings": "/var/lib/bank/recordings",
    "record_timeouts": True,
    "clock": ManualClock(),
}
"""A value of each option that is not its default."""


def parts(annotation: Any) -> set[Any]:
    return set(get_args(annotation)) if get_origin(annotation) in (Union, UnionType) else {annotation}


def is_created_anew(option: Field[Any]) -> bool:
    return option.default_factory is not MISSING


def test_every_argument_of_a_system_is_an_option_or_a_part() -> None:
    assert set(SIGNATURE) == set(OPTIONS) | NO_OPTIONS
    assert set(OPTIONS) == set(KEYS) == set(OTHERS)


@pytest.mark.parametrize("name", OPTIONS)
def test_signature_has_the_default_of_the_option(name: str) -> None:
    option, default = OPTIONS[name], SIGNATURE[name].default
    if is_created_anew(option):
        assert default is None
    else:
        assert default == option.default
        assert type(default) is type(option.default)


@pytest.mark.parametrize("name", OPTIONS)
def test_signature_has_the_type_of_the_option(name: str) -> None:
    allowed = parts(get_type_hints(Settings)[name]) | (
        {type(None)} if is_created_anew(OPTIONS[name]) else set()
    )
    assert parts(get_type_hints(ActorSystem.__init__)[name]) == allowed


@pytest.mark.parametrize("name", OPTIONS)
def test_docstring_of_the_system_explains_the_option(name: str) -> None:
    assert f"\n        {name}: " in f"\n{ActorSystem.__doc__}"


@pytest.mark.parametrize("name", [name for name in OPTIONS if KEYS[name] is not None])
def test_key_of_a_file_has_the_default_of_the_option(name: str) -> None:
    for table in (SystemTable, AggregatesTable):
        if table is KEYS[name]:
            assert table.model_fields[name].default == OPTIONS[name].default
        else:
            assert name not in table.model_fields


@pytest.mark.parametrize("name", OPTIONS)
def test_option_that_is_given_reaches_the_parts_of_the_system(name: str) -> None:
    system = ActorSystem(handlers=[], **{name: OTHERS[name]})
    settings = parts_of(system).settings
    assert getattr(settings, name) == OTHERS[name]
    for other in OPTIONS.keys() - {name, "clock"}:
        assert getattr(settings, other) == OPTIONS[other].default


@pytest.mark.parametrize("name", [name for name in OPTIONS if KEYS[name] is not None])
def test_option_survives_being_written_to_a_file(name: str, tmp_path: Path) -> None:
    system = ActorSystem(aggregates=[Shop], handlers=[], **{name: OTHERS[name]})
    assert load(written(tmp_path, system.to_config())).arguments()[name] == OTHERS[name]


def test_a_system_without_a_clock_has_the_machine_s() -> None:
    assert isinstance(Settings().clock, SystemClock)
    assert isinstance(parts_of(ActorSystem(handlers=[], clock=None)).settings.clock, SystemClock)


def test_no_snapshots_is_said_in_one_way() -> None:
    clock = ManualClock()
    assert Settings(snapshot_every=None, clock=clock) == Settings(snapshot_every=0, clock=clock)


NO_NUMBERS = {"name", "clock", "scheduler", "recordings", "record_timeouts"}


@pytest.mark.parametrize("name", [name for name in OPTIONS if name not in NO_NUMBERS])
def test_every_number_is_checked_under_its_name(name: str) -> None:
    with pytest.raises(InvalidNumber, match=name):
        Settings(**{name: float("nan")})


# --- what a file holds for a value -------------------------------------------------------------------------

HELD: list[tuple[type[BaseTable], str, Any, object]] = [
    # table, key, value, what a file holds for it
    (SystemTable, "name", "bank", "bank"),
    (SystemTable, "ask_timeout", 90.0, "90s"),
    (SystemTable, "stop_timeout", 0.0, "0s"),
    (AggregatesTable, "max_active", 7, 7),
    (HandlerTable, "topic", TopicPattern("accounts.*"), "accounts.*"),
    (HandlerTable, "priority", EventPriority.HIGH, "high"),
    (HandlerTable, "timeout", 0.5, "500ms"),
    (HandlerTable, "batch", 3, 3),
    (ChildTable, "shutdown", "kill", "kill"),
    (ChildTable, "shutdown", 60.0, "1m"),
    (ChildTable, "significant", True, True),
    (BackoffTable, "initial", 0.1, "100ms"),
    (BackoffTable, "factor", 2.5, 2.5),
    (BackoffTable, "reset_after", 3600.0, "1h"),
    (SupervisorTable, "max_restarts", None, "unlimited"),
    (SupervisorTable, "max_restarts", 5, 5),
    (SupervisorTable, "within", 30.0, "30s"),
]


@pytest.mark.parametrize(
    ("table", "key", "value", "held"), HELD, ids=lambda part: getattr(part, "__name__", None)
)
def test_value_is_written_as_it_is_read(table: type[BaseTable], key: str, value: Any, held: object) -> None:
    required = {"handler": "configured:mail", "name": "x"}
    others = {name: required[name] for name, field in table.model_fields.items() if field.is_required()}
    assert value_in_file(table, key, value) == held
    assert getattr(table.model_validate(others | {key: held}), key) == value


def test_every_kind_of_value_that_a_file_holds_otherwise_is_tried() -> None:
    tried = {kind_of(table, key) for table, key, *_ in HELD}
    for table in {table for table, *_ in HELD}:
        for key in table.model_fields:
            kind = kind_of(table, key)
            assert kind is None or kind.write is as_it_is or kind in tried, f"{table.__name__}.{key}"
