"""Settings of the tests as a whole."""

import faulthandler
import gc
import os
import signal
from collections.abc import Generator

import pytest
from hypothesis import HealthCheck, settings

from tests.machine import cores, deadline, measure
from uno_actors.domain.events import event_registry

# A busy machine must not fail a test that is right; what hangs is ended by the deadline of each test.
settings.register_profile("uno", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("uno")

TERMINAL = pytest.StashKey[int]()
"""The file descriptor of the standard error of the run, of which nothing is captured."""

# A shell has what it runs in the background ignore Ctrl-C, and so would the programs that tests start and interrupt.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)


def pytest_xdist_auto_num_workers() -> int | None:
    """Two processes for each core: tests wait for disks, servers and other processes half of their time."""
    if "PYTEST_XDIST_AUTO_NUM_WORKERS" in os.environ:
        return None
    return 2 * cores()


def pytest_configure(config: pytest.Config) -> None:
    measure(workers=config.getoption("numprocesses", None) or 1)
    config.stash[TERMINAL] = os.dup(2)


def pytest_unconfigure(config: pytest.Config) -> None:
    os.close(config.stash[TERMINAL])


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Scale the deadline of each test, its own or the common one, by how slow the machine is."""
    of_all = config.getoption("timeout")
    if of_all is None:
        of_all = config.getini("timeout")
    for item in items:
        own = item.get_closest_marker("timeout")
        limit = float(own.args[0] if own else of_all)
        item.add_marker(pytest.mark.timeout(deadline(limit)), append=False)


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_runtest_setup(item: pytest.Item) -> Generator[None, object, object]:
    _end_with_process(item)
    return (yield)


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_runtest_teardown(item: pytest.Item) -> Generator[None, object, object]:
    _end_with_process(item)
    try:
        return (yield)
    finally:
        faulthandler.cancel_dump_traceback_later()


def _end_with_process(item: pytest.Item) -> None:
    """End the process, with the stacks of its threads on the terminal, where the deadline does not end the test.

    At its deadline pytest-timeout raises an error in the code that the main thread happens to run. A task that nobody
    awaits may swallow it, and after a failure there is no deadline any more: closing the loop, or a fixture, can then
    hang for as long as the run may take.
    """
    marker = item.get_closest_marker("timeout")
    if marker and marker.args[0] and not item.config.getoption("usepdb"):
        faulthandler.dump_traceback_later(
            marker.args[0] + deadline(60), exit=True, file=item.config.stash[TERMINAL]
        )


def pytest_runtest_logreport(report: pytest.TestReport) -> None:
    """Name a test that failed at once: who ends a run that takes too long shall know it, too."""
    if report.failed and "PYTEST_XDIST_WORKER" not in os.environ:
        print(f"\n{report.nodeid} failed ({report.when})", flush=True)


def pytest_collection_finish() -> None:
    """Leave half a million objects of modules and tests out of garbage collections, which would take 0.3 s each."""
    gc.collect()
    gc.freeze()


@pytest.hookimpl(wrapper=True)
def pytest_runtest_protocol(item: pytest.Item) -> Generator[None, object, object]:
    """Forget the event classes that a test has defined in its functions, so that the next may use their names.

    They would be forgotten with their last reference, which caches and cycles keep for an unknown time.
    """
    before = event_registry.classes()
    try:
        return (yield)
    finally:
        for new in event_registry.classes() - before:
            if "<locals>" in new.__qualname__:
                event_registry.forget(new)
