"""The plugin for pytest; pytest finds it through the entry points of the installed package.

A project's own fixture of one of these names takes its place, as is usual in pytest. ``-p no:uno_actors`` leaves the
plugin out. Nothing of `uno_actors` is imported before a test asks for it.
"""

import inspect
import os
from collections.abc import Generator, Iterator
from contextlib import nullcontext
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from uno_actors.handlers.subscribe import HandlerRegistry
    from uno_actors.testing.blocking import BlockingCalls
    from uno_actors.testing.clock import ManualClock
    from uno_actors.testing.fixtures import GivenFixture, SimulatedFixture
    from uno_actors.testing.leftovers import Leftovers
    from uno_actors.testing.postgres import PostgresServer
    from uno_actors.testing.probe import Probe

LEAKS = "uno_actors_leaks"
BLOCKING = "uno_actors_blocking"
SIMULATED = "simulated"

MARKERS = (
    f"{SIMULATED}(seeds=200): this test is a scenario, `async def test(world)`; it runs once for each seed, in virtual"
    " time and with faults. Also takes the other options of uno_actors.testing.simulation.simulate.",
    f"{LEAKS}(on=True): fail this test if systems, stores, tasks or threads that it has started are left over.",
    f"{BLOCKING}(on=True): fail this test if its asynchronous code makes calls that block the event loop.",
)

_leftovers: pytest.StashKey["Leftovers"] = pytest.StashKey()
_calls: pytest.StashKey["BlockingCalls"] = pytest.StashKey()
_item: pytest.StashKey[pytest.Item] = pytest.StashKey()
_failed: pytest.StashKey[bool] = pytest.StashKey()


# --- settings ----------------------------------------------------------------------------------------------


def pytest_addoption(parser: pytest.Parser) -> None:
    """The settings and options of the plugin."""
    parser.addini(
        LEAKS, "fail tests that leave systems, stores, tasks or threads behind", "bool", default=False
    )
    parser.addini(
        BLOCKING, "fail tests whose asynchronous code blocks; needs blockbuster", "bool", default=False
    )
    group = parser.getgroup("uno_actors", "simulations of uno_actors")
    group.addoption(
        "--uno-seeds", type=int, metavar="N", help="run simulated tests with N seeds, whatever they ask for"
    )
    group.addoption("--uno-seed", type=int, metavar="SEED", help="run simulated tests with this seed alone")


def pytest_configure(config: pytest.Config) -> None:
    """Register the markers.

    Raises:
        UsageError: A setting needs a package that is not installed.
    """
    if config.getini(BLOCKING):
        _check_has_blockbuster()
    for marker in MARKERS:
        config.addinivalue_line("markers", marker)


# --- fixtures ----------------------------------------------------------------------------------------------


@pytest.fixture
def manual_clock() -> "ManualClock":
    """A clock that the test moves."""
    from uno_actors.testing.clock import ManualClock  # noqa: PLC0415 - here and below: only if it is used

    return ManualClock()


@pytest.fixture
def probe() -> "Probe":
    """A probe named ``probe``."""
    from uno_actors.testing.probe import Probe  # noqa: PLC0415

    return Probe()


# The two of the session are functions: so tests of Hypothesis can use them, which run many times in one set-up.


@pytest.fixture(scope="session")
def given() -> "GivenFixture":
    """The function `uno_actors.testing.given`."""
    from uno_actors.testing.scenario import given  # noqa: PLC0415

    return given


@pytest.fixture
def own_handlers() -> "Iterator[HandlerRegistry]":
    """The process-wide registry of handlers, emptied for the test and restored afterwards."""
    from uno_actors.handlers.subscribe import handler_registry  # noqa: PLC0415

    before = dict(handler_registry)
    handler_registry.clear()
    yield handler_registry
    handler_registry.clear()
    handler_registry.update(before)


@pytest.fixture(scope="session")
def simulated(request: pytest.FixtureRequest) -> "SimulatedFixture":
    """Runs a scenario once for each seed; see `uno_actors.testing.SimulatedFixture`."""
    from uno_actors.testing.simulated_tests import runner_for  # noqa: PLC0415

    return runner_for(lambda: request.config.stash[_item])


@pytest.fixture(scope="session")
def _uno_postgres(tmp_path_factory: pytest.TempPathFactory) -> "Iterator[PostgresServer]":
    """The server of this run, which the processes of pytest-xdist share."""
    from uno_actors.testing.postgres import missing, shared_server  # noqa: PLC0415

    if reason := missing():
        pytest.skip(reason)
    is_worker = "PYTEST_XDIST_WORKER" in os.environ
    server = shared_server(tmp_path_factory.getbasetemp().parent if is_worker else None)
    yield server
    server.let_go(wait=not is_worker)


@pytest.fixture
def postgres_store(_uno_postgres: "PostgresServer") -> Iterator[str]:
    """The URL of a new, empty database in PostgreSQL; skips the test where the server is not installed."""
    with _uno_postgres.database() as url:
        yield url


# --- scenarios as tests ------------------------------------------------------------------------------------


@pytest.hookimpl(tryfirst=True)
def pytest_pycollect_makeitem(collector: pytest.Module | pytest.Class, name: str, obj: object) -> Any:
    """Collect an ``async def`` with the marker ``simulated`` as a test that runs it as a scenario."""
    marked = getattr(obj, "__func__", obj)  # a static method
    own = any(mark.name == SIMULATED for mark in getattr(marked, "pytestmark", ()))
    if not inspect.iscoroutinefunction(obj):
        if own and not isinstance(obj, type) and collector.istestfunction(obj, name):
            from uno_actors.testing.simulated_tests import check_can_be_scenario  # noqa: PLC0415

            check_can_be_scenario(name, obj)
        return None
    if not own and collector.get_closest_marker(SIMULATED) is None:
        return None
    from uno_actors.testing.simulated_tests import collect  # noqa: PLC0415

    return collect(collector, name, obj)


# --- checks of each test -----------------------------------------------------------------------------------


@pytest.hookimpl(wrapper=True)
def pytest_runtest_setup(item: pytest.Item) -> Iterator[None]:
    """Begin the checks that are on for this test."""
    item.config.stash[_item] = item
    if _is_on(item, LEAKS):
        from uno_actors.testing.leftovers import Leftovers  # noqa: PLC0415

        item.config.stash[_leftovers] = leftovers = Leftovers()
        leftovers.begin()
    if _is_on(item, BLOCKING):
        from uno_actors.testing.blocking import BlockingCalls  # noqa: PLC0415

        _check_has_blockbuster()
        item.config.stash[_calls] = calls = BlockingCalls()
        calls.begin()
    return (yield)


@pytest.hookimpl(wrapper=True)
def pytest_fixture_setup(
    fixturedef: "pytest.FixtureDef[object]", request: pytest.FixtureRequest
) -> Generator[None, object, object]:
    """What a fixture of more than one test starts is not left over by the first test that uses it."""
    leftovers = request.config.stash.get(_leftovers, None)
    with nullcontext() if leftovers is None or fixturedef.scope == "function" else leftovers.of_others():
        return (yield)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item, call: pytest.CallInfo[None]
) -> "Generator[None, pytest.TestReport, pytest.TestReport]":
    """Remember whether the test has failed: then what is left over is a consequence."""
    report = yield
    if report.failed:
        item.stash[_failed] = True
    return report


@pytest.hookimpl(wrapper=True)
def pytest_runtest_teardown(item: pytest.Item) -> Iterator[None]:
    """End the checks, and fail a test that has not failed by itself."""
    stash, found = item.config.stash, list[str]()
    leftovers, calls = stash.get(_leftovers, None), stash.get(_calls, None)
    try:
        result = yield
    finally:
        if calls is not None:
            del stash[_calls]
            found += calls.found()
        if leftovers is not None:
            del stash[_leftovers]
            found += leftovers.found()
    if found and not item.stash.get(_failed, False):
        pytest.fail("\n".join(found), pytrace=False)
    return result


def _check_has_blockbuster() -> None:
    from uno_actors.testing.blocking import MISSING, is_possible  # noqa: PLC0415

    if not is_possible():
        raise pytest.UsageError(MISSING)


def _is_on(item: pytest.Item, name: str) -> bool:
    marker = item.get_closest_marker(name)
    if marker is None:
        return bool(item.config.getini(name))
    found = [*marker.args, *marker.kwargs.values()]
    if len(found) > 1 or set(marker.kwargs) - {"on"} or not all(isinstance(each, bool) for each in found):
        written = ", ".join(
            [*map(repr, marker.args), *(f"{key}={value!r}" for key, value in marker.kwargs.items())]
        )
        pytest.fail(f"the marker {name} takes on=True or on=False; found {written}", pytrace=False)
    return found[0] if found else True
