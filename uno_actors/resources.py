"""What must be closed: systems that run and stores that are open, for tests that check that nothing is left over.

`opened` and `closed` are called where such a thing begins and ends. Without a watcher they do nothing.
"""

from typing import Protocol


class Watcher(Protocol):
    """Learns what is opened and what is closed, on any thread."""

    def opened(self, thing: object, what: str, remedy: str) -> None:
        """``thing`` must be closed from now on.

        Args:
            thing: The system or store.
            what: A description, such as ``system 'bank'``.
            remedy: How a program closes it.
        """

    def closed(self, thing: object) -> None:
        """``thing`` is closed."""


watchers: list[Watcher] = []


def opened(thing: object, what: str, remedy: str) -> None:
    """Tell the watchers that ``thing`` must be closed from now on; see `Watcher.opened`."""
    for watcher in watchers:
        watcher.opened(thing, what, remedy)


def closed(thing: object) -> None:
    """Tell the watchers that ``thing`` is closed."""
    for watcher in watchers:
        watcher.closed(thing)
