"""Steps of one or several nodes as rows of a table: when, where, who, and what."""

from collections.abc import Iterable, Iterator, Sequence
from heapq import merge

from uno_actors.flight_recorder.steps import Step
from uno_actors.printable import bounded, counted, printable

LONGEST = 160
"""Characters of what has happened, unless rows are shown whole."""
TROUBLE = frozenset({"failed", "rejected", "timed out", "dead letter", "gave up"})
"""Kinds of steps that stand out."""
TITLES = ("TIME", "NODE", "STEP", "WHO", "TOOK", "WHAT")
"""Of the columns."""


def merged(recordings: Iterable[Sequence[Step]]) -> list[Step]:
    """The steps of several nodes, each ordered by time, as one list ordered by time."""
    return [*merge(*recordings, key=lambda step: step.time)]


def rows(steps: Sequence[Step], begin: float, *, whole: bool = False) -> Iterator[tuple[str, ...]]:
    """A row for each step, with a text for each of `TITLES`.

    Args:
        steps: Ordered by time.
        begin: The time from which times are counted, in seconds since 1970.
        whole: Whether to keep long texts as they are.
    """
    for step in steps:
        yield (
            f"{step.time - begin:+.6f}",
            printable(step.node),
            f"{'>>' if step.kind in TROUBLE else '  '} {printable(step.kind)}",
            printable(step.who),
            duration(step.seconds),
            _text(step) if whole else bounded(_text(step), LONGEST),
        )


def duration(seconds: float | None) -> str:
    """``1.25 s``, ``3.1 ms`` or ``85 us``; empty for ``None``."""
    if seconds is None:
        return ""
    if seconds >= 1:
        return f"{seconds:.2f} s"
    return f"{seconds * 1e3:.1f} ms" if seconds >= 1e-3 else f"{seconds * 1e6:.0f} us"


def _text(step: Step) -> str:
    parts = [step.what, _peer(step), _place(step), f"#{step.command_id}" if step.command_id else ""]
    text = " ".join(filter(None, parts))
    return printable(": ".join(filter(None, (text, step.reason))))


def _peer(step: Step) -> str:
    if step.peer is None:
        return ""
    return f"from {step.peer}" if step.kind in ("hop served", "hop returned") else f"to {step.peer}"


def _place(step: Step) -> str:
    first, last = step.places
    if last:
        return f"@{last}" if first == last else f"@{first}-{last}"
    return "" if step.events is None else counted(step.events, "event")
