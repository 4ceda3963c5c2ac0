"""Values one by one for exporters that take no whole histograms: all of them, or a random share if there are many."""

from collections.abc import Callable
from random import random

Labels = tuple[str, ...]

SAMPLES = 250
"""Values of one metric that are passed on from one beat to the next, of which there are two per second."""
BURST = 4 * SAMPLES
"""Maximum number of values of one metric between two beats, when there are suddenly many."""


class _Values:
    __slots__ = ("kept", "seen", "share")

    def __init__(self) -> None:
        self.kept: list[tuple[Labels, float]] = []
        self.seen = 0
        self.share = 1.0


class Sampler:
    """Keeps values between two beats, at most `SAMPLES` of each metric.

    Args:
        take: Called at each beat with the name of a metric, its labels and a value.
    """

    def __init__(self, take: Callable[[str, Labels, float], object]) -> None:
        self._take = take
        self._metrics: dict[str, _Values] = {}

    def add(self, name: str, labels: Labels, value: float) -> None:
        """Keep a value, or leave it out."""
        values = self._metrics.get(name)
        if values is None:
            values = self._metrics.setdefault(name, _Values())
        values.seen += 1
        if (values.share >= 1.0 or random() < values.share) and len(values.kept) < BURST:  # noqa: S311
            values.kept.append((labels, value))

    def beat(self) -> None:
        """Pass the values on, and choose the share to keep until the next beat by the number of values until now."""
        for name, values in tuple(self._metrics.items()):
            kept, values.kept = values.kept, []
            values.share = SAMPLES / values.seen if values.seen > SAMPLES else 1.0
            values.seen = 0
            for labels, value in kept:
                self._take(name, labels, value)
