"""Values one by one for exporters that take no whole histograms: all of them, or a random share if there are many."""

from collections.abc import Callable
from random import random

Labels = tuple[str, ...]

SAMPLES = 250
"""Commands, or other values, that are passed on from one beat to the next, of which there are two per second."""
BURST = 4 * SAMPLES
"""Maximum number of them between two beats, when there are suddenly many."""


class _Group:
    __slots__ = ("chosen", "kept", "seen", "share")

    def __init__(self) -> None:
        self.kept: list[tuple[str, Labels, float]] = []
        self.seen = self.chosen = 0
        self.share = 1.0


class Sampler:
    """Keeps values between two beats: of each group of them, at most about `SAMPLES`.

    Args:
        take: Called at each beat with the name of a metric, its labels and a value.
    """

    def __init__(self, take: Callable[[str, Labels, float], object]) -> None:
        self._take = take
        self._groups: dict[str, _Group] = {}

    def wants(self, group: str) -> bool:
        """Whether the next values of a group are to be kept, such as all those of one command."""
        found = self._groups.get(group)
        if found is None:
            found = self._groups.setdefault(group, _Group())
        found.seen += 1
        if (found.share < 1.0 and random() > found.share) or found.chosen >= BURST:  # noqa: S311
            return False
        found.chosen += 1
        return True

    def keep(self, group: str, name: str, labels: Labels, value: float) -> None:
        """Keep a value that is wanted."""
        self._groups[group].kept.append((name, labels, value))

    def add(self, name: str, labels: Labels, value: float) -> None:
        """Keep the value of a metric that is a group by itself, or leave it out."""
        if self.wants(name):
            self.keep(name, name, labels, value)

    def beat(self) -> None:
        """Pass the values on, and choose the share to keep until the next beat by the number of values until now."""
        for group in tuple(self._groups.values()):
            kept, group.kept = group.kept, []
            group.share = SAMPLES / group.seen if group.seen > SAMPLES else 1.0
            group.seen = group.chosen = 0
            for name, labels, value in kept:
                self._take(name, labels, value)
