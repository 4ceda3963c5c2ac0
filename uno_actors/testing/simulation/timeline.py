"""The story of a run as lines for people: when, who, and what."""

from collections.abc import Iterator, Sequence

from uno_actors.printable import counted, printable
from uno_actors.testing.simulation.core import Told
from uno_actors.testing.simulation.escapes import told_with_line
from uno_actors.testing.simulation.runs import Run

LONGEST_TEXT = 160
"""Characters of a line of the story, unless all are asked for."""
END = 12
"""Lines of the end of a story."""
STANDS_OUT = ("fault", "broken")
"""Kinds of lines that are marked by ``>>``."""


def timeline(run: Run, longest: int | None = LONGEST_TEXT) -> Iterator[str]:
    """The story of a run; faults stand out.

    Args:
        run: The run.
        longest: Characters of a text; ``None`` for all.
    """
    steps = f"{run.steps:,} steps, {run.seconds:.3f} s of virtual time"
    yield f"seed {run.seed}: {counted(len(run.faults), 'fault')}, {steps}"
    yield ""
    yield from _lines(run.story, longest)
    yield ""
    yield "nothing is broken" if run.error is None else printable(told_with_line(run.error))


def ending(run: Run) -> list[str]:
    """The last lines of the story, after the faults before them."""
    before = [told for told in run.story[:-END] if told[2] in STANDS_OUT]
    return [*_lines([*before, *run.story[-END:]], LONGEST_TEXT)]


def _lines(story: Sequence[Told], longest: int | None) -> Iterator[str]:
    width = max((len(who) for _, who, _, _ in story), default=0)
    for second, who, kind, what in story:
        text = printable(what)
        if longest is not None and len(text) > longest:
            text = f"{text[: longest - 1]}…"
        mark = ">>" if kind in STANDS_OUT else "  "
        yield f"{second:10.4f} s {mark} {who:<{width}}  {kind:<10} {text}"
