"""Steps of one or several nodes as rows of a table: when, where, who, and what."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import fields
from heapq import merge
from operator import attrgetter

from uno_actors.flight_recorder.files import Recording
from uno_actors.flight_recorder.steps import Step
from uno_actors.printable import bounded, counted, printable

LONGEST = 160
"""Characters of what has happened, unless rows are shown whole."""
SAME_WITHIN = 1.0
"""Seconds by which the times of one step may differ in two recordings."""
TROUBLE = frozenset({"failed", "rejected", "timed out", "dead letter", "gave up"})
"""Kinds of steps that stand out."""
TITLES = ("TIME", "NODE", "STEP", "WHO", "TOOK", "WHAT")
"""Of the columns."""


def merged(recordings: Iterable[Sequence[Step]]) -> list[Step]:
    """The steps of several nodes, each ordered by time, as one list ordered by time."""
    return [*merge(*recordings, key=lambda step: step.time)]


def of_processes(recordings: Iterable[Recording]) -> list[list[Step]]:
    """The steps of each process, ordered by time, each step once even if several recordings of the process have it."""
    found: dict[tuple[str, str, int], list[Recording]] = {}
    for recording in recordings:
        found.setdefault((recording.node, recording.host, recording.process), []).append(recording)
    return [_once(sorted(each, key=lambda recording: recording.written)) for each in found.values()]


def _once(recordings: Sequence[Recording]) -> list[Step]:
    """The steps of one process from several recordings, the oldest first.

    Each recording reckons times of the day anew, so those of the same step differ a little.
    """
    known: dict[tuple[object, ...], list[float]] = {}
    steps: list[Step] = []
    for recording in recordings:
        new: list[Step] = []
        seen: dict[tuple[object, ...], int] = {}
        for step in recording.steps:
            facts = _facts(step)
            times, at = known.get(facts, ()), seen.get(facts, 0)
            while at < len(times) and times[at] < step.time - SAME_WITHIN:
                at += 1
            is_known = at < len(times) and times[at] <= step.time + SAME_WITHIN
            seen[facts] = at + is_known
            if not is_known:
                new.append(step)
        for step in new:
            known.setdefault(_facts(step), []).append(step.time)
        steps += new
    return sorted(steps, key=lambda step: step.time)


_facts = attrgetter(*(field.name for field in fields(Step) if field.name != "time"))


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
