"""``uno-actors simulate`` and ``@simulated``: what people do with scenarios."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from tests.bank import EVENTS, Account, Credit
from uno_actors import ActorSystem
from uno_actors.testing.simulation import InvariantBroken, Node, SimulationFailed, World, simulated

BANK = Path(__file__).parents[2] / "examples" / "bank"


def simulate(*options: str, expected: int = 0) -> str:
    command = [sys.executable, "-m", "uno_actors", "simulate", *options]
    done = subprocess.run(command, cwd=BANK, check=False, capture_output=True, text=True, encoding="utf-8")
    assert done.returncode == expected, done.stderr
    return done.stdout + done.stderr


def test_many_seeds_are_run_and_counted() -> None:
    said = simulate("bank.scenarios:transfers", "--seeds", "3")
    assert said.startswith("3 runs with ")
    assert said.endswith("nothing is broken\n")


def test_one_seed_tells_its_story_with_the_faults_at_their_places() -> None:
    said = simulate("bank.scenarios:transfers", "--seed", "1", "--faults", "3")
    lines = said.splitlines()
    assert lines[0].startswith("seed 1: ")
    faults = [line for line in lines if " >> " in line]
    assert faults
    assert all("  fault  " in line for line in faults)
    assert any("RequestTransfer" in line for line in lines)
    assert lines[-1] == "nothing is broken"
    assert lines == simulate("bank.scenarios:transfers", "--seed", "1", "--faults", "3").splitlines()


def test_the_story_is_there_for_programs_too() -> None:
    lines = simulate("bank.scenarios:transfers", "--seed", "1", "--faults", "0", "--json").splitlines()
    assert {"second", "who", "kind", "what"} == set(json.loads(lines[0]))


@pytest.mark.parametrize(
    ("words", "error"),
    [
        (
            ["bank.scenarios:transfers", "--kinds", "crsh"],
            "kinds of faults are a list of some of: crash, power",
        ),
        (["bank.accounts:Account"], "a scenario is a function, async def scenario(world); found"),
        (["transfers"], "name a scenario as MODULE:NAME"),
        (["scenarios.py::transfers"], "name a scenario as MODULE:NAME"),
        (["bank.scenarios:transfers", "--seeds", "0"], "there is no seed to run, so nothing would be tested"),
        (
            ["bank.scenarios:transfers", "--seed", "1", "--only-faults", "1;2"],
            "--only-faults takes numbers of faults, as 1,3; found 1;2",
        ),
        (["bank.scenarios:transfers", "--seed", "1", "--faults", "-1"], "greater than or equal to 0"),
        (
            ["bank.scenarios:transfers", "--kinds", "cut"],
            "cut hit links between nodes, and the scenario has none",
        ),
    ],
)
def test_what_cannot_be_simulated_is_refused_before_it_runs(words: list[str], error: str) -> None:
    assert error in simulate(*words, expected=2)


def test_a_broken_run_ends_with_its_reason_and_code_1(tmp_path: Path) -> None:
    scenario = "async def breaks(world):\n    assert world.seed != 4, 'seed 4 is unlucky'\n"
    (tmp_path / "unlucky.py").write_text(scenario)
    command = [sys.executable, "-m", "uno_actors", "simulate", "unlucky:breaks"]
    done = subprocess.run(command, cwd=tmp_path, check=False, capture_output=True, text=True)
    assert done.returncode == 1
    assert "To repeat it: uno-actors simulate unlucky:breaks --seed 4 --faults 0\n" in done.stderr
    assert ">> world  broken     AssertionError: seed 4 is unlucky" in done.stderr
    again = subprocess.run(
        [*command, "--seed", "4", "--faults", "0"], cwd=tmp_path, check=False, capture_output=True
    )
    assert again.returncode == 1
    assert again.stdout.decode().rstrip().endswith("unlucky.py:2 in breaks")


def test_a_scenario_may_be_named_by_the_path_of_its_file(tmp_path: Path) -> None:
    (tmp_path / "tests" / "unit").mkdir(parents=True)
    (tmp_path / "tests" / "unit" / "__init__.py").touch()
    scenario = (
        "from uno_actors.testing.simulation import simulated\n\n@simulated(seeds=3, faults=0)\n"
        "async def test_breaks(world):\n    assert world.seed != 1, 'no'\n"
    )
    (tmp_path / "tests" / "unit" / "test_it.py").write_text(scenario)
    command = [sys.executable, "-m", "uno_actors", "simulate", "tests/unit/test_it.py:test_breaks"]
    done = subprocess.run(command, cwd=tmp_path, check=False, capture_output=True, text=True)
    assert done.returncode == 1
    place = "tests/unit/test_it.py:test_breaks"
    assert f"To repeat it: uno-actors simulate {place} --seed 1 --faults 0 --most 0\n" in done.stderr


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        (["bank.scenarios:transfer"], "did you mean 'transfers'?"),
        (["bank.scenarios:OPENING"], "a scenario is a function"),
        (["bank.scenarios:transfers", "--seed", "1", "--only-faults", "x"], "takes numbers of faults"),
    ],
)
def test_what_is_no_scenario_is_refused(options: list[str], reason: str) -> None:
    assert reason in simulate(*options, expected=2)


def one_account(node: Node) -> ActorSystem:
    return ActorSystem(node.store, aggregates=[Account], handlers=[])


@simulated(seeds=3, event_registry=EVENTS)
async def test_a_scenario_is_a_test(world: World) -> None:
    """With all its invariants."""
    await world.node("a", one_account)
    assert await world.ask(Account, "x", Credit(amount=1)) == 1


@simulated(seeds=3, faults=0)
async def breaks(world: World) -> None:
    raise InvariantBroken("it holds", "it does not")


def test_a_scenario_that_is_broken_fails_as_a_test() -> None:
    with pytest.raises(SimulationFailed, match="it holds: it does not") as failed:
        breaks()
    assert failed.value.repeat.endswith(":breaks --seed 0 --faults 0 --most 0")
    assert breaks.__name__ == "breaks"
