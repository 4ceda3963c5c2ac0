"""Scenarios as tests: the decorator `simulated`, and the marker ``simulated`` of pytest."""

from collections.abc import Awaitable, Callable, Mapping, Sequence
from functools import partial
from types import MethodType
from typing import Any

from uno_actors.domain.events import EventRegistry, event_registry
from uno_actors.testing.simulation.arguments import checked_seeds
from uno_actors.testing.simulation.core import LONGEST_RUN
from uno_actors.testing.simulation.faults import KINDS, MAX_FAULTS
from uno_actors.testing.simulation.invariants import ALWAYS
from uno_actors.testing.simulation.running import Scenario, Seeds, Simulation, simulate
from uno_actors.testing.simulation.world import Invariant

SEEDS = 200
"""Number of seeds of a test that names none."""

MARKER = "simulated"
OPTIONS = ("seeds", "faults", "kinds", "invariants", "event_registry", "within")
"""What the marker takes: ``@pytest.mark.simulated(seeds=200)``."""


class SimulatedTest:
    """A scenario as a test: calling it runs `simulate`.

    Attributes:
        scenario: As it was written.
        options: Of `simulate`, for other runs of it.
    """

    def __init__(self, scenario: Scenario, seeds: Seeds, options: dict[str, Any]) -> None:
        self.scenario = scenario
        self.seeds = seeds
        self.options = options

    def as_function(self) -> Callable[..., None]:
        """What a test runner calls: with nothing, or with the object whose method the scenario is."""

        def test(*owner: Any) -> None:
            scenario = MethodType(self.scenario, *owner) if owner else self.scenario
            simulate(scenario, self.seeds, **self.options)

        named: Any = self.scenario
        while isinstance(named, partial):
            named = named.func
        for name in ("__name__", "__qualname__", "__module__", "__doc__"):
            setattr(test, name, getattr(named, name, getattr(type(named), name)))
        test.simulated = self  # type: ignore[attr-defined]
        return test


def simulated(
    seeds: Seeds = SEEDS,
    *,
    faults: int = MAX_FAULTS,
    kinds: Sequence[str] = KINDS,
    invariants: Sequence[Invariant] = ALWAYS,
    event_registry: EventRegistry = event_registry,
    within: float = LONGEST_RUN,
) -> Callable[[Callable[..., Awaitable[object]]], Callable[..., None]]:
    """Make a test of a scenario: ``@simulated(seeds=200)`` above ``async def test_transfers(world)``.

    The test is a plain function, for any test runner, or a method of a test class.
    ``uno-actors simulate module:test_transfers`` runs the scenario with the same options.

    Args:
        seeds: One run for each; a number is so many.
        faults: As of `simulate`, like the others.
        kinds: See there.
        invariants: See there.
        event_registry: See there.
        within: See there.

    Raises:
        TypeError, ValueError: ``seeds`` is not a number of seeds from 1 up, or a list of them.
    """
    options = {
        "faults": faults,
        "kinds": kinds,
        "invariants": invariants,
        "event_registry": event_registry,
        "within": within,
    }

    checked_seeds(seeds)

    def mark(scenario: Callable[..., Awaitable[object]]) -> Callable[..., None]:
        return SimulatedTest(scenario, seeds, options).as_function()

    return mark


def options_of_marker(args: Sequence[Any], kwargs: Mapping[str, Any]) -> dict[str, Any]:
    """What a marker ``simulated`` says.

    Raises:
        TypeError: It has an argument that it does not take.
    """
    unknown = [*map(repr, args[1:]), *sorted(set(kwargs) - set(OPTIONS))]
    if unknown or (args and "seeds" in kwargs):
        found = ", ".join(unknown) or "seeds twice"
        raise TypeError(f"the marker simulated takes {', '.join(OPTIONS)}; found {found}")
    return {**({"seeds": args[0]} if args else {}), **kwargs}


def simulation_of(found: Any, **options: Any) -> tuple[Simulation, Scenario, dict[str, Any]]:
    """The simulation of a scenario, or of a test that is one; with the scenario and its options.

    Raises:
        TypeError: It is neither.
        ValueError: An option is not valid.
    """
    made = getattr(found, "simulated", None)
    if isinstance(made, SimulatedTest):
        scenario, own = made.scenario, made.options
    else:
        scenario, own = found, {}
        for mark in getattr(found, "pytestmark", ()):
            if mark.name == MARKER:
                own = options_of_marker(mark.args, mark.kwargs)
        own.pop("seeds", None)
    kept = {**own, **options}
    return Simulation(scenario, **kept), scenario, kept
