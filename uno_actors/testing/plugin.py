"""Fixtures for pytest; this module is found through the entry points of the installed package.

- ``manual_clock``: a `ManualClock`.
- ``probe``: a `Probe`.
- ``own_handlers``: inside the test the process-wide registry of ``@subscribe`` is empty, and what is
  subscribed there is forgotten at its end.
"""

from collections.abc import Iterator

import pytest

from uno_actors.handlers.subscribe import HandlerRegistry, handler_registry
from uno_actors.testing.clock import ManualClock
from uno_actors.testing.probe import Probe


@pytest.fixture
def manual_clock() -> ManualClock:
    """A clock that the test moves."""
    return ManualClock()


@pytest.fixture
def probe() -> Probe:
    """A probe named ``probe``."""
    return Probe()


@pytest.fixture
def own_handlers() -> Iterator[HandlerRegistry]:
    """The process-wide registry of handlers, emptied for the test and restored afterwards."""
    before = dict(handler_registry)
    handler_registry.clear()
    yield handler_registry
    handler_registry.clear()
    handler_registry.update(before)
