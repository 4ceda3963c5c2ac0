"""``uno-actors check --store``: whether the program reads each kind of event in a store."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.rehearsal.programs import contents, copied, fill, program

pytestmark = pytest.mark.timeout(120)


@pytest.fixture(scope="module")
def backup(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("check")
    fill(program(directory / "old"), f"lmdb:{directory / 'store'}")
    return copied(directory / "store", directory / "backup")


def check(code: Path, backup: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """In a process of its own, which has the classes of no other program."""
    command = [sys.executable, "-m", "uno_actors", "check", *arguments, "--store", f"lmdb:{backup}"]
    return subprocess.run(
        command, cwd=code, capture_output=True, text=True, check=False, env={**os.environ, "COLUMNS": "500"}
    )


def test_each_kind_is_read_and_nothing_is_written(backup: Path, tmp_path: Path) -> None:
    before = contents(backup)
    ended = check(program(tmp_path / "new"), backup, "till", "--json")
    assert ended.returncode == 0, ended.stderr
    kinds = {(each["event_type"], each["version"]): each for each in json.loads(ended.stdout)["kinds"]}
    assert {name for name, _ in kinds} == {"Paid", "Refunded", "Rewarded", "uno_actors.Reacted"}
    assert kinds["Paid", 1]["count"] == kinds["Paid", 1]["read"] == 30
    assert contents(backup) == before


def test_what_cannot_be_read_is_named_with_an_example_and_a_remedy(backup: Path, tmp_path: Path) -> None:
    changed = "class Paid(DomainEvent):\n    cents: int\n"
    new = program(tmp_path / "new", (changed, f"{changed}    till: str\n"))
    ended = check(new, backup, "till", "--all")
    assert ended.returncode == 1
    line = next(line for line in ended.stdout.splitlines() if line.startswith("Paid"))
    assert line.split()[:5] == ["Paid", "1", "30", "30", "30"]
    assert "till: Field required" in line
    assert "@upcasts('Paid', from_version=1)" in line
    assert "1 of 4 kinds of events" in ended.stdout
    assert check(new, backup, "till", "--accept", "Paid v1").returncode == 0


def test_a_configuration_file_is_validated_and_its_program_reads_the_store(
    backup: Path, tmp_path: Path
) -> None:
    new = program(tmp_path / "new", ("class Refunded(DomainEvent)", "class Repaid(DomainEvent)"),
                  ("Refunded(cents=command.cents)", "Repaid(cents=command.cents)"),
                  ("apply_refunded(self, event: Refunded)", "apply_repaid(self, event: Repaid)"))  # fmt: skip
    (new / "shop.toml").write_text(
        '[system]\nname = "shop"\n[aggregates]\ntypes = ["till:Till", "till:Purse", "till:Bonus"]\n',
        encoding="utf-8",
    )
    ended = check(new, backup, "shop.toml")
    assert ended.returncode == 1
    assert "shop.toml is valid" in ended.stdout
    assert "event type 'Refunded' is not registered" in ended.stdout
    data = json.loads(check(new, backup, "shop.toml", "--json").stdout)
    assert (data["valid"], data["readable"]) == (True, False)
    assert check(new, backup, "shop.toml", "--accept", "Refunded v1").returncode == 0


def test_a_module_that_cannot_be_imported_and_a_store_that_is_not_there(backup: Path, tmp_path: Path) -> None:
    new = program(tmp_path / "new", ("from typing import Any\n", "import nowhere\n"))
    ended = check(new, backup, "till")
    assert ended.returncode == 2
    assert "No module named 'nowhere'" in ended.stderr
    ended = check(program(tmp_path / "other"), tmp_path / "nothing", "till")
    assert ended.returncode == 1
    assert "there is no store" in ended.stderr
