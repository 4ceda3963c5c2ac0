"""``uno-actors check`` and ``uno-actors schema``."""

import json
import os
import re
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from importlib.metadata import version
from pathlib import Path
from typing import Any

import jsonschema
import pytest
from test_config import GOOD, WRONG, written
from typer.testing import CliRunner, Result

from uno_actors.cli import app as cli
from uno_actors.cli.check import roles_that_none_has
from uno_actors.config.reader import load
from uno_actors.config.tables import FileTable
from uno_actors.config.writer import as_toml

FILE = """\
[system]
name = "shop"
[aggregates]
types = ["configured:Shop"]
[[handlers]]
handler = "configured:audit"
[[supervisors]]
name = "outer"
max_restarts = 2
within = "1m"
  [[supervisors.supervisors]]
  name = "inner"
  max_restarts = 3
  strategy = "one_for_all"
    [[supervisors.supervisors.handlers]]
    name = "mail"
    handler = "configured:mail"
    topic = "shop.*"
    max_attempts = 3
  [[supervisors.actors]]
  actor = "configured:Clerk"
  restart = "transient"
"""

REPORT = """\
shop  aggregates: Shop
├─ audit  handler, topic shop.*, high, 3 attempts
└─ outer  one_for_one, 2 restarts within 1 min
   ├─ inner  one_for_all, 3 restarts within 30 s
   │  └─ mail  handler, topic shop.*, normal, 3 attempts
   └─ Clerk  actor, Clerk, transient

the system ends at the earliest after 2 restarts, at failure 3 in a row of outer > Clerk
the system ends at the latest after 11 restarts, at failure 12 in a row of outer > inner > mail
a child that cannot start is down for up to 2.4 s before the system ends
stopping the children takes up to 10 s by their own deadlines; what still runs after 10 s is abandoned

{file} is valid
"""


def check(path: Path, *options: str) -> Result:
    return CliRunner().invoke(cli.app, ["check", str(path), *options])


def test_a_valid_file_is_drawn_with_the_consequences_of_its_rules(tmp_path: Path) -> None:
    path = written(tmp_path, FILE)
    result = check(path)
    assert (result.output, result.exit_code) == (REPORT.replace("{file}", str(path)), 0)


def test_an_invalid_file_is_refused_with_every_fault_and_no_traceback(tmp_path: Path) -> None:
    path = written(tmp_path, '[system]\nnam = "x"\nask_timeout = 5\n')
    result = check(path)
    assert result.exit_code == 1
    assert result.stdout == ""
    first, second, third = result.stderr.splitlines()
    assert first == f"error: {path} has 2 faults:"
    assert second.startswith(f"{path}:2: system.nam: ")
    assert third.startswith(f"{path}:3: system.ask_timeout: ")
    assert isinstance(result.exception, SystemExit)


def test_a_missing_file_is_a_wrong_command_line(tmp_path: Path) -> None:
    assert check(tmp_path / "nowhere.toml").exit_code == 2
    including = written(tmp_path, 'include = ["nowhere.toml"]\n')
    assert check(including).exit_code == 1


def test_contradictory_rules_are_reported_with_their_line(tmp_path: Path) -> None:
    text = FILE.replace("max_attempts = 3", "max_attempts = 12").replace('"1m"', '"1h"')
    path = written(tmp_path, text.replace('strategy = "one_for_all"', 'within = "1h"'))
    result = check(path)
    assert result.exit_code == 1
    assert (
        f"contradiction: {path}:19: supervisors[0].supervisors[0].handlers[0].max_attempts: an event should get"
        " 12 attempts, but 'outer' gives up at failure 12: raise max_restarts there to 12, or write 11 here\n"
    ) in result.output
    assert result.output.endswith("has contradictions\n")


def test_a_file_with_a_warning_is_valid(tmp_path: Path) -> None:
    path = written(tmp_path, FILE + '  shutdown = "20s"\n')
    result = check(path)
    assert f"warning: {path}:23: supervisors[0].actors[0].shutdown: it may take 20 s" in result.output
    assert result.exit_code == 0


def test_json_is_printed_for_programs(tmp_path: Path) -> None:
    right = json.loads(check(written(tmp_path, FILE), "--json").output)
    assert right["valid"] is True
    assert right["longest"]["failures"] == 12
    assert right["tree"][0]["children"][0]["name"] == "inner"
    contradicting = check(
        written(
            tmp_path,
            FILE.replace("max_restarts = 2", "max_restarts = 0").replace(
                "max_attempts = 3", "max_attempts = 9"
            ),
        ),
        "--json",
    )
    assert contradicting.exit_code == 1
    assert [finding["line"] for finding in json.loads(contradicting.output)["findings"]] == [19]
    wrong = check(written(tmp_path, "[sytem]\n"), "--json")
    assert wrong.exit_code == 1
    (fault,) = json.loads(wrong.output)["faults"]
    assert (fault["line"], fault["key"]) == (1, "sytem")


# --- the schema --------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def schema() -> jsonschema.Draft202012Validator:
    result = CliRunner().invoke(cli.app, ["schema"])
    assert result.exit_code == 0
    found = json.loads(result.output)
    jsonschema.Draft202012Validator.check_schema(found)
    return jsonschema.Draft202012Validator(found)


def as_json(text: str) -> object:
    return json.loads(json.dumps(tomllib.loads(text), default=str))


@pytest.mark.parametrize("text", ["", FILE, GOOD])
def test_the_schema_accepts_valid_files(schema: jsonschema.Draft202012Validator, text: str) -> None:
    schema.validate(as_json(text))


def test_the_schema_describes_every_table_and_key(schema: jsonschema.Draft202012Validator) -> None:
    tables = {"file": schema.schema, **schema.schema["$defs"]}
    described = {
        f"{table}.{key}": part.get("description", "")
        for table, found in tables.items()
        for key, part in {"itself": found, **found["properties"]}.items()
    }
    assert [key for key, text in described.items() if not text] == []
    assert described["SupervisedHandlerTable.restart"].startswith("When it is restarted")


def test_the_schema_refuses_most_invalid_files(schema: jsonschema.Draft202012Validator) -> None:
    """Faults of single values that can be found without Python, other values or other files."""
    refused = 0
    for text, _ in WRONG:
        try:
            data = as_json(text)
        except ValueError:
            continue
        refused += not schema.is_valid(data)
    assert refused > 40


def test_the_schema_accepts_a_variable_wherever_the_file_may_have_one(
    tmp_path: Path, schema: jsonschema.Draft202012Validator
) -> None:
    places = list(leaves(tomllib.loads(GOOD)))
    assert len(places) > 40
    for keys, value in places:
        data = tomllib.loads(GOOD)
        inner: Any = data
        for key in keys[:-1]:
            inner = inner[key]
        inner[keys[-1]] = "${V}"
        text = "\n".join(f"{key} = {as_toml(table)}" for key, table in data.items()).replace("$${V}", "${V}")
        load(written(tmp_path, text), {"V": value if isinstance(value, str) else as_toml(value)})
        schema.validate(as_json(text))


def leaves(data: Any, keys: tuple[Any, ...] = ()) -> Iterator[tuple[tuple[Any, ...], Any]]:
    """All values in ``data`` that are neither tables nor lists, each with its place."""
    if not isinstance(data, (dict, list)):
        yield keys, data
        return
    for key, value in data.items() if isinstance(data, dict) else enumerate(data):
        yield from leaves(value, (*keys, key))


def test_every_key_of_the_schema_is_described(schema: jsonschema.Draft202012Validator) -> None:
    assert schema.schema["properties"].keys() == FileTable.model_fields.keys()
    tables = [schema.schema, *schema.schema["$defs"].values()]
    undescribed = [
        name
        for table in tables
        for name, option in table["properties"].items()
        if "description" not in option
    ]
    assert undescribed == []


def test_the_schema_shows_defaults_as_they_are_written(schema: jsonschema.Draft202012Validator) -> None:
    definitions = schema.schema["$defs"]
    assert definitions["SystemTable"]["properties"]["ask_timeout"]["default"] == "30s"
    assert definitions["HandlerTable"]["properties"]["priority"]["default"] == "normal"
    assert "default" not in definitions["HandlerTable"]["properties"]["timeout"]
    assert "null" not in json.dumps(schema.schema)


# --- simulation --------------------------------------------------------------------------------------------


def test_an_hour_of_failures_is_simulated_and_reported(tmp_path: Path) -> None:
    result = check(written(tmp_path, FILE), "--simulate", "mail fails 100% of 1/s for 10s", "--for", "5m")
    assert result.exit_code == 0
    told = result.output[result.output.index("simulated: ") :]
    first, *others = told.splitlines()
    assert first.startswith("simulated: the system ")
    assert others[0].startswith("  outer > inner > mail: ")
    again = check(written(tmp_path, FILE), "--simulate", "mail fails 100% of 1/s for 10s", "--for", "5m")
    assert again.output == result.output
    as_data = check(written(tmp_path, FILE), "--simulate", "mail cannot start for 9m", "--json")
    assert json.loads(as_data.output)["simulation"]["ended"] is True


def test_a_handler_under_no_supervisor_is_simulated_too(tmp_path: Path) -> None:
    result = check(written(tmp_path, FILE), "--simulate", "audit fails 50%", "--for", "5m")
    assert "simulated: the system ran for 5 min" in result.output
    assert re.search(r"  handlers > audit: \d+ handled, [1-9]\d* failures", result.output)


@pytest.mark.parametrize(
    "options", [["--simulate", "mail"], ["--simulate", "mail fails 1%", "--for", "long"]]
)
def test_a_fault_that_cannot_be_simulated_is_a_wrong_command_line(tmp_path: Path, options: list[str]) -> None:
    command = [Path(sys.executable).with_name("uno-actors"), "check", written(tmp_path, FILE), *options]
    environment = os.environ | {"PYTHONPATH": str(Path(__file__).parent)}
    run = subprocess.run(command, capture_output=True, text=True, check=False, env=environment)
    assert (run.returncode, run.stdout) == (2, "")
    assert run.stderr.startswith("error: cannot simulate ")


# --- the command ---------------------------------------------------------------------------------------------


def test_the_command_shows_its_version() -> None:
    result = CliRunner().invoke(cli.app, ["--version"])
    assert (result.exit_code, result.output) == (0, f"{version('uno-actors')}\n")


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="this system has no device that is always full")
def test_unwritable_output_is_reported_in_one_line() -> None:
    with Path("/dev/full").open("w") as full:
        result = subprocess.run(
            [Path(sys.executable).with_name("uno-actors"), "schema"],
            stdout=full,
            stderr=subprocess.PIPE,
            text=True,
            check=False,
        )
    assert result.returncode == 1
    assert result.stderr == "error: the output cannot be written: No space left on device\n"


@pytest.mark.parametrize(
    ("workers", "warned"),
    [
        ("{ aggregates = 2, handlers = 1 }", []),
        ("2", []),
        ("{ aggregates = 2 }", ["no worker runs handlers"]),
        ("{ handlers = 1 }", ["no worker serves commands"]),
    ],
)
def test_roles_that_no_worker_has_are_warned_of(tmp_path: Path, workers: str, warned: list[str]) -> None:
    file = tmp_path / "roles.toml"
    file.write_text(
        f'[system]\nstore = "lmdb:data"\n[cluster]\nworkers = {workers}\n'
        '[[handlers]]\nname = "mail"\nhandler = "configured:mail"\n'
    )
    found = [str(fault) for _, fault in roles_that_none_has(load(file))]
    assert len(found) == len(warned)
    for line, reason in zip(found, warned, strict=True):
        assert "roles.toml:4: cluster.workers" in line
        assert reason in line
