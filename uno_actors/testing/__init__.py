"""Tools for tests of programs that use `uno_actors`, with any test runner; importing them starts nothing.

- ``scenario``: given some events, when a command arrives, then these events follow; ``process_scenario``: given what a
  process has reacted to, when an event arrives, then it sends these commands.
- ``probe``: records the events and messages that reach it, and waits for them.
- ``clock``: a clock that the test moves; ``faults``: stores that fail on demand.
- ``MemoryNetwork``: a cluster's nodes in one process, on a network that loses, delays and cuts on demand.
- ``simulation``: whole systems in virtual time, with crashes and faults that follow from a seed.
- ``inspection``: `inspect` shows the parts of a running system.
- ``contract``: what every event store promises, as checks for your own stores.
- ``plugin``: fixtures and checks for pytest, loaded automatically when this package is installed; with ``postgres``,
  a server for tests, ``leftovers``, what a test has not closed, and ``blocking``, calls that hold the event loop.

Importing the package alone loads none of these, so that test runs which do not use them start as fast as before.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from uno_actors.testing._public import *  # noqa: F403
    from uno_actors.testing._public import __all__ as __all__
else:  # type checkers would take every name for granted

    def __getattr__(name: str) -> Any:
        if name.startswith("__") and name != "__all__":
            raise AttributeError(name)
        public = import_module("uno_actors.testing._public")
        globals().update({each: getattr(public, each) for each in public.__all__})
        if name == "__all__":
            return public.__all__
        try:
            return globals()[name]
        except KeyError:
            raise AttributeError(
                f"module 'uno_actors.testing' has no attribute {name!r}", name=name
            ) from None

    def __dir__() -> list[str]:
        return sorted({*globals(), *import_module("uno_actors.testing._public").__all__})
