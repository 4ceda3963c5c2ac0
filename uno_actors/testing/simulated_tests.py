"""Scenarios as tests of pytest: how those with the marker ``simulated`` are collected and run."""

import functools
import inspect
from collections.abc import Awaitable, Callable, Iterable
from types import MethodType
from typing import Any

import pytest
from typing_extensions import override

from uno_actors.testing.fixtures import SimulatedFixture
from uno_actors.testing.simulation.marking import MARKER, SEEDS, options_of_marker
from uno_actors.testing.simulation.running import Scenario, Simulated, SimulationFailed, simulate
from uno_actors.testing.simulation.world import World

STAND_IN = "_stands_in_for_a_scenario"
"""Marks the functions that are collected instead of scenarios."""


class SimulatedItem(pytest.Function):
    """A test that is a scenario: its first argument is the `World`, the others are fixtures and parameters."""

    @override
    def runtest(self) -> None:
        values = {name: self.funcargs[name] for name in self._fixtureinfo.argnames}
        written: Callable[..., Awaitable[object]] = inspect.unwrap(self.obj)
        call = written if self.instance is None else MethodType(written, self.instance)

        async def scenario(world: World) -> None:
            await call(world, **values)

        run(self, call if not values else functools.update_wrapper(scenario, written))


def collect(collector: pytest.Module | pytest.Class, name: str, found: Any) -> list[pytest.Item] | None:
    """The tests that pytest makes of ``found``, which has the marker, as scenarios; ``None`` if it is not a test."""
    if not collector.istestfunction(found, name):
        return None
    stand_in = _without_world(found, is_method=isinstance(collector, pytest.Class))
    made = collector.ihook.pytest_pycollect_makeitem(collector=collector, name=name, obj=stand_in)
    return [_as_scenario(item, stand_in) for item in made or ()]


def check_can_be_scenario(name: str, found: Any) -> None:
    """Refuse the marker of a test that is not a coroutine function, and does not run scenarios by the fixture.

    Raises:
        CollectError: Such a test would not be simulated, though its marker says so.
    """
    function = getattr(found, "__func__", found)
    if hasattr(function, STAND_IN) or MARKER in inspect.signature(function).parameters:
        return
    raise pytest.Collector.CollectError(
        f"{name}: the marker {MARKER} is for async def test(world), in a module or as a method with self. Another test,"
        f" such as one made by @given of Hypothesis, takes the fixture {MARKER}, and calls {MARKER}(scenario)"
    )


def _without_world(scenario: Any, *, is_method: bool) -> Callable[..., None]:
    """A plain function with the fixtures and parameters of ``scenario``, and without its world."""
    function = getattr(scenario, "__func__", scenario)
    first = 1 if is_method else 0
    parameters = [*inspect.signature(function).parameters.values()]
    if len(parameters) <= first:
        raise pytest.Collector.CollectError(
            f"{function.__qualname__}: a scenario takes the world: async def {function.__name__}(world)"
        )
    del parameters[first]

    @functools.wraps(function)
    def stand_in(*_: Any) -> None: ...

    setattr(stand_in, STAND_IN, True)
    stand_in.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
    stand_in.pytestmark = [  # type: ignore[attr-defined]
        mark for mark in getattr(function, "pytestmark", ()) if mark.args != ("anyio_backend",)
    ]  # for which anyio would run a plain test once for each of its event loops
    return stand_in


def _as_scenario(item: pytest.Item, stand_in: Callable[..., None]) -> pytest.Item:
    """``item`` as one that runs the scenario; it may be one that another plugin would run on an event loop."""
    assert isinstance(item, pytest.Function)
    instance = item.instance if isinstance(item.parent, pytest.Class) else None
    made: pytest.Item = SimulatedItem.from_parent(
        item.parent,
        name=item.name,
        callspec=getattr(item, "callspec", None),
        callobj=stand_in if instance is None else MethodType(stand_in, instance),
        fixtureinfo=item._fixtureinfo,
        keywords=item.keywords,
        originalname=item.originalname,
    )
    return made


def runner_for(current: Callable[[], pytest.Item]) -> SimulatedFixture:
    """The function that the fixture ``simulated`` is.

    Args:
        current: The test that runs.
    """

    def simulated(scenario: Scenario, seeds: int | Iterable[int] | None = None, **options: Any) -> Simulated:
        return run(current(), scenario, seeds, **options)

    return simulated


def run(
    item: pytest.Item, scenario: Scenario, seeds: int | Iterable[int] | None = None, **options: Any
) -> Simulated:
    """Run ``scenario`` with the options of the test's marker, and the seeds of the command line if it has some."""
    marker = item.get_closest_marker(MARKER)
    try:
        marked = {} if marker is None else options_of_marker(marker.args, marker.kwargs)
    except TypeError as error:
        pytest.fail(str(error), pytrace=False)
    found = marked.pop("seeds", SEEDS)
    try:
        return simulate(
            scenario, _seeds(item.config, found if seeds is None else seeds), **{**marked, **options}
        )
    except SimulationFailed as failed:
        if isinstance(failed.run.error, pytest.skip.Exception | pytest.xfail.Exception):
            raise failed.run.error from None
        again = f'pytest "{item.nodeid}" --uno-seed {failed.run.seed}'
        item.add_report_section("call", "simulation", f"To repeat it by pytest: {again}\n")
        raise


def _seeds(config: pytest.Config, wanted: int | Iterable[int]) -> int | Iterable[int]:
    one, many = config.getoption("--uno-seed"), config.getoption("--uno-seeds")
    if one is not None:
        return [one]
    return wanted if many is None else many
