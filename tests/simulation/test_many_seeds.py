"""Our own promises under simulation: the bank, the purses, the shop, and clusters of three nodes."""

import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))

from many_seeds import SCENARIOS, SEEDS, run_all

PAGE = Path(__file__).parents[2] / "docs" / "explanation" / "simulation.md"


def test_a_few_seeds_of_each_scenario_keep_every_promise() -> None:
    outcomes = [*run_all([*SCENARIOS], 3)]
    assert [f"{outcome.name}: {outcome.failure}" for outcome in outcomes if outcome.failure] == []
    assert {outcome.name for outcome in outcomes if outcome.faults} == {*SCENARIOS}


def test_the_documentation_says_how_many_seeds_the_soak_has() -> None:
    assert f"{SEEDS:,} seeds each, {SEEDS * len(SCENARIOS):,} in all" in PAGE.read_text(encoding="utf-8")
    assert SEEDS * len(SCENARIOS) >= 10_000


@pytest.mark.soak
@pytest.mark.timeout(3 * 3600)
def test_thousands_of_seeds_keep_every_promise() -> None:
    failures, seeds = [], dict.fromkeys(SCENARIOS, 0)
    for outcome in run_all([*SCENARIOS], SEEDS):
        seeds[outcome.name] += outcome.seeds
        failures += [f"{outcome.name}: {outcome.failure}"] if outcome.failure else []
    assert failures == []
    assert {*seeds.values()} == {SEEDS}
