"""The examples are programs, not packages: their modules are found as when the program itself is run."""

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from uno_actors.handlers.subscribe import handler_registry

sys.path.insert(0, str(Path(__file__).parents[2] / "examples" / "flights"))


@pytest.fixture(autouse=True)
def _subscriptions_end_with_the_test() -> Iterator[None]:
    before = dict(handler_registry)
    yield
    handler_registry.clear()
    handler_registry.update(before)
