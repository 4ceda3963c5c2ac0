"""What goes wrong in a run, and when: a plan that follows from the seed."""

import random
from collections.abc import Sequence
from dataclasses import dataclass

KINDS = (
    "crash",
    "crash",
    "power failure",
    "disk full",
    "slow disk",
    "failed sync",
    "freeze",
    "clock",
    "cut",
    "lossy links",
    "slow links",
)
"""Kinds of faults, those that are more likely more than once."""

OF_LINKS = frozenset({"cut", "lossy links", "slow links"})
"""Kinds that hit only nodes that are linked, as those of a cluster are."""

MAX_FAULTS = 4
"""Maximum number of faults of a run."""


@dataclass(frozen=True, slots=True)
class Fault:
    """One fault.

    Attributes:
        number: Its place in the plan, counted from 1.
        kind: One of `KINDS`.
        moment: When it happens, as a share of the length of the run: from 0 to 1.
        target: Which of the nodes it hits, as a share of their number.
        size: How long or how bad it is, from 0 to 1.
    """

    number: int
    kind: str
    moment: float
    target: float
    size: float


def plan(seed: object, most: int = MAX_FAULTS, kinds: Sequence[str] = KINDS) -> list[Fault]:
    """The faults of the run with this seed: 1 to ``most``.

    Each follows from the seed and its number alone, so that a run without some of them keeps the others.
    """
    if most <= 0:
        return []
    count = random.Random(f"{seed}/faults").randint(1, most)  # noqa: S311 - repeatable
    faults = []
    for number in range(1, count + 1):
        chance = random.Random(f"{seed}/fault {number}")  # noqa: S311 - as above
        kind = chance.choice(list(kinds))
        faults.append(Fault(number, kind, chance.random(), chance.random(), chance.random()))
    return faults
