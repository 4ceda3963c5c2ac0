"""What an inquiry answers: a headline, and findings below it, each with what mends it."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

from uno_actors.printable import printable

Kind = Literal[
    "command", "event", "correlation", "aggregate", "handler", "schedule", "actor", "supervisor", "unknown"
]
"""What an id is the id of."""

State = Literal["done", "waits", "stuck", "failed", "note"]
"""How it stands: it is done; it continues by itself; it does not continue until someone acts; it has failed and is not
tried again; or nothing of these, as for a place in the log."""


@dataclass(frozen=True, slots=True)
class Remedy:
    """What mends something.

    Attributes:
        purpose: What it does, such as ``To resume it``.
        command: The command of a shell, or the call in a program where no command reaches the store.
    """

    purpose: str
    command: str

    def __str__(self) -> str:
        return f"{self.purpose}: {self.command}"


@dataclass(frozen=True, slots=True)
class Finding:
    """Something that was found out.

    Attributes:
        says: In words: one sentence or a few.
        state: See `State`.
        subject: Of what it is: the name of a handler, of an aggregate, of a node; empty if it is of the whole.
        remedies: What mends it.
        below: Findings that explain this one.
    """

    says: str
    state: State = "note"
    subject: str = ""
    remedies: tuple[Remedy, ...] = ()
    below: "tuple[Finding, ...]" = ()


@dataclass(frozen=True, slots=True)
class Explanation:
    """The answer to an inquiry; ``str`` shows it as lines for a terminal.

    Attributes:
        id: What was asked for.
        kind: What it is; the first, if it is several things.
        findings: What was found out of each thing that has this id.
        unasked: The parts that could not be asked, each with the reason. Facts of them may be missing.
    """

    id: str
    kind: Kind
    findings: tuple[Finding, ...]
    unasked: tuple[str, ...] = ()

    @property
    def state(self) -> State:
        """The gravest state of all findings."""
        found = {each.state for each in self.walk()}
        return next((state for state in reversed(GRAVITY) if state in found), "note")

    def walk(self) -> Iterator[Finding]:
        """All findings, each before those below it."""
        waiting = list(reversed(self.findings))
        while waiting:
            finding = waiting.pop()
            yield finding
            waiting += reversed(finding.below)

    def __str__(self) -> str:
        lines = [line for finding in self.findings for line in _lines(finding)]
        return "\n".join([*lines, *(printable(f"Not asked: {each}") for each in self.unasked)])


GRAVITY: Sequence[State] = ("note", "done", "waits", "stuck", "failed")
"""The states, the gravest last."""


def _lines(finding: Finding, first: str = "", rest: str = "") -> Iterator[str]:
    """The lines of a finding: its words, its remedies, and the findings below it."""
    yield first + printable(finding.says)
    bar = "│  " if finding.below else "   "
    for remedy in finding.remedies:
        yield f"{rest}{bar}{printable(str(remedy))}"
    for below in finding.below:
        is_last = below is finding.below[-1]
        yield from _lines(below, rest + ("└─ " if is_last else "├─ "), rest + ("   " if is_last else "│  "))
