"""Settings of the tests as a whole."""

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


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Scale the deadline of each test, its own or the common one, by how slow the machine is."""
    of_all = config.getoption("timeout")
    if of_all is None:
        of_all = config.getini("timeout")
    for item in items:
        own = item.get_closest_marker("timeout")
        limit = float(own.args[0] if own else of_all)
        item.add_marker(pytest.mark.timeout(deadline(limit)), append=False)


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
