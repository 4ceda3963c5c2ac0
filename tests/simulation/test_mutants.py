"""The simulation finds bugs: each variant of the runtime that is broken on purpose, within 200 seeds."""

import inspect
import sys
from collections import Counter
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))

from mutant_table import PAGE, SEEDS, Found, all_found, found, table
from mutants import MUTANTS, Mutant
from purses import REGISTRY, one_node, two_nodes

from uno_actors.testing.simulation import Scenario, simulate

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


def test_there_are_enough_mutants_and_each_has_a_name() -> None:
    names = [mutant.name for mutant in MUTANTS]
    assert len(names) >= 25
    assert len({*names}) == len(names)
    assert {*names} >= QUICK


@pytest.mark.parametrize("scenario", [one_node, two_nodes], ids=["one node", "two nodes"])
def test_the_sound_runtime_keeps_its_promises(scenario: Scenario) -> None:
    simulate(scenario, range(15), event_registry=REGISTRY, within=300.0)


@pytest.mark.parametrize("mutant", MUTANTS, ids=lambda mutant: mutant.name)
def test_what_is_broken_is_called_as_the_original(mutant: Mutant) -> None:
    """Else it would be found because it cannot be called."""
    for place, name, make in mutant.patches:
        original = vars(place)[name]
        broken = inspect.signature(make(original)).parameters.values()
        wanted = inspect.signature(original).parameters.values()
        takes_more = any(each.kind is each.VAR_POSITIONAL for each in broken)
        assert takes_more or len(broken) == len(wanted), f"{name}: {[*map(str, wanted)]}"


@pytest.mark.parametrize(
    "mutant", [each for each in MUTANTS if each.name in QUICK], ids=lambda mutant: mutant.name
)
def test_a_broken_runtime_is_found(mutant: Mutant) -> None:
    assert found(mutant, [range(20)]).is_found


def test_the_documentation_has_the_table_of_today() -> None:
    """Each variant with numbers below the limit; `mutant_table.py --write` renews it."""
    rows = [
        line.split(" | ") for line in PAGE.read_text(encoding="utf-8").splitlines() if line.startswith("| ")
    ]
    known = {row[0].removeprefix("| "): row for row in rows}
    for mutant in MUTANTS:
        *_, least, median, most = known[mutant.name]
        assert 1 <= int(least) <= int(median) <= int(most.rstrip(" |")) <= SEEDS
    shown = [row[0].removeprefix("| ") for row in rows]
    assert [name for name in shown if name in {each.name for each in MUTANTS}] == [
        each.name for each in MUTANTS
    ]


def test_a_variant_that_is_not_found_is_named_in_the_table() -> None:
    missed = Found("is sound", "Journal.append", Counter(), (3, None))
    assert not missed.is_found
    assert missed.row() == "| is sound | `Journal.append` |  | 3 | 3 | 201 |"


@pytest.mark.soak
@pytest.mark.timeout(3600)
def test_each_broken_runtime_is_found() -> None:
    results = all_found()
    print(table(results))
    assert [each.name for each in results if not each.is_found] == []
