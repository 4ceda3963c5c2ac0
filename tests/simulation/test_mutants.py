"""The simulation finds bugs: each variant of the runtime that is broken on purpose, within 200 seeds."""

import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))

from mutants import MUTANTS, Mutant
from purses import REGISTRY, one_node, two_nodes

from uno_actors.testing.simulation import Run, Scenario, Simulation, simulate
from uno_actors.testing.simulation.control import controlled

SEEDS = 200
QUICK = {
    "replies before the append",
    "has no fence",
    "reruns with a new id",
    "remembers no command",
    "moves the checkpoint before success",
    "gives a lease to two holders",
    "loses a change of a view",
}
"""Those that the usual run of the tests looks for: a seed or two finds each."""


def found(mutant: Mutant, seeds: int) -> tuple[int, Run] | None:
    """The number of seeds until a run fails, and that run."""
    with controlled():
        simulation = Simulation(mutant.scenario, event_registry=REGISTRY, within=200.0, steps=40_000)
        simulation.without_faults()  # as the sound runtime needs them
        with mutant.alive():
            for seed in range(seeds):
                run = simulation.run(seed)
                if run.error is not None:
                    return seed + 1, run
    return None


def test_there_are_enough_mutants_and_each_has_a_name() -> None:
    names = [mutant.name for mutant in MUTANTS]
    assert len(names) >= 25
    assert len({*names}) == len(names)
    assert {*names} >= QUICK


@pytest.mark.parametrize("scenario", [one_node, two_nodes], ids=["one node", "two nodes"])
def test_the_sound_runtime_keeps_its_promises(scenario: Scenario) -> None:
    simulate(scenario, range(15), event_registry=REGISTRY, within=300.0)


@pytest.mark.parametrize(
    "mutant", [each for each in MUTANTS if each.name in QUICK], ids=lambda mutant: mutant.name
)
def test_a_broken_runtime_is_found(mutant: Mutant) -> None:
    assert found(mutant, 20) is not None


@pytest.mark.soak
@pytest.mark.timeout(900)
@pytest.mark.parametrize("mutant", MUTANTS, ids=lambda mutant: mutant.name)
def test_each_broken_runtime_is_found(mutant: Mutant) -> None:
    seen = found(mutant, SEEDS)
    assert seen is not None
    print(f"{mutant.name}: {seen[0]} seeds, {seen[1].error}")


@pytest.mark.soak
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("scenario", [one_node, two_nodes], ids=["one node", "two nodes"])
def test_the_sound_runtime_keeps_its_promises_for_ten_thousand_seeds(scenario: Scenario) -> None:
    simulate(scenario, range(5_000), event_registry=REGISTRY, within=300.0)
