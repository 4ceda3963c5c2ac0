"""What a rehearsal finds: plain values, for tables and JSON."""

from dataclasses import dataclass, replace
from typing import Literal, NamedTuple

Weight = Literal["grave", "difference", "note"]
"""``grave``: the new program would fail or be wrong in production. ``difference``: it decides or shows otherwise, which
may be meant. ``note``: nothing to do with the upgrade, or accepted."""

WEIGHTS: tuple[Weight, ...] = ("grave", "difference", "note")


@dataclass(frozen=True, slots=True)
class Finding:
    """A difference of two programs on the same log, with all its occurrences together.

    Attributes:
        weight: How much it matters.
        what: What was found, in a few words.
        of: What it was found in: an event type with its version, ``Type.field``, a view, a command. Names the finding
            where it is accepted.
        count: Number of events, aggregates, rows, commands or fields.
        example: One of them, with its place and the two values.
        remedy: What to do; empty for a note without one.
    """

    weight: Weight
    what: str
    of: str
    count: int
    example: str
    remedy: str = ""

    def accepted(self) -> "Finding":
        """The finding as one that is meant."""
        return replace(self, weight="note", what=f"{self.what} (accepted)", remedy="")


class Numbers(NamedTuple):
    """What was compared.

    Attributes:
        events: Events of the log that were read.
        streams: Aggregates that were loaded by both programs.
        types: Kinds of events: pairs of a type and a version.
        views: Views that were built by both.
        rows: Their rows, as the new program has them.
        snapshots: Snapshots that were judged.
        commands: Commands that were decided again.
        seconds: The time it took.
    """

    events: int = 0
    streams: int = 0
    types: int = 0
    views: int = 0
    rows: int = 0
    snapshots: int = 0
    commands: int = 0
    seconds: float = 0.0


class Report(NamedTuple):
    """The result of a rehearsal.

    Attributes:
        old: The old program, for people.
        new: The new one.
        numbers: What was compared.
        findings: The gravest first.
    """

    old: str
    new: str
    numbers: Numbers
    findings: tuple[Finding, ...]

    @property
    def is_equal(self) -> bool:
        """Whether the new program does as the old one, but for what is accepted."""
        return all(finding.weight == "note" for finding in self.findings)


def in_order(findings: list[Finding], accepted: frozenset[str]) -> tuple[Finding, ...]:
    """Findings, the gravest and most frequent first; those of ``accepted`` names as notes."""
    found = [each.accepted() if each.of in accepted and each.weight != "note" else each for each in findings]
    return tuple(sorted(found, key=lambda each: (WEIGHTS.index(each.weight), -each.count, each.of)))
