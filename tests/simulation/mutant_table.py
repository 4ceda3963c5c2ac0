"""How many seeds each broken variant of the runtime needs until a run fails, as a table.

``python tests/simulation/mutant_table.py`` prints it; with ``--write`` it goes into the documentation. Each variant is
looked for in several disjoint ranges of seeds, so the median says what to expect of any seed to begin with.
"""

import argparse
import os
import re
import statistics
import sys
from collections import Counter
from collections.abc import Iterable, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path

ROOT = Path(__file__).parents[2]
sys.path[:0] = [str(Path(__file__).parent), str(ROOT)]

# ruff: noqa: E402 - the modules beside this one
from mutants import MUTANTS, Mutant
from purses import REGISTRY

from uno_actors.testing.simulation import InvariantBroken, Simulation
from uno_actors.testing.simulation.control import controlled

SEEDS = 200
"""Seeds of a range, within which a variant must be found."""
RANGES = 5
PAGE = ROOT / "docs" / "explanation" / "simulation.md"
TABLE = re.compile(r"(?<=<!-- mutants -->\n)\| variant \|.*?\n(?=\n)", re.DOTALL)
"""The table on the page."""


@dataclass(frozen=True)
class Found:
    """How one variant was found.

    Attributes:
        name: What it does wrong.
        place: The code that is broken.
        by: What was found to be broken, with how often it was that.
        seeds: Seeds until a run failed, for each range; ``None`` where none did.
    """

    name: str
    place: str
    by: Counter[str]
    seeds: tuple[int | None, ...]

    @property
    def is_found(self) -> bool:
        """Whether it was found in each range."""
        return None not in self.seeds

    def row(self) -> str:
        """A line of the table."""
        needed = [seeds or SEEDS + 1 for seeds in self.seeds]
        by = ", ".join(name for name, _ in self.by.most_common(2))
        least, median, most = min(needed), statistics.median_low(needed), max(needed)
        return f"| {self.name} | `{self.place}` | {by} | {least} | {median} | {most} |"


def found(mutant: Mutant, ranges: Iterable[Sequence[int]]) -> Found:
    """Look for a variant in each of some ranges of seeds."""
    by: Counter[str] = Counter()
    needed: list[int | None] = []
    with controlled():
        simulation = Simulation(mutant.scenario, event_registry=REGISTRY, within=200.0, steps=40_000)
        simulation.without_faults()  # as long as with the sound runtime
        with mutant.alive():
            for seeds in ranges:
                needed.append(None)
                for number, seed in enumerate(seeds, start=1):
                    error = simulation.run(seed).error
                    if error is not None:
                        needed[-1] = number
                        by[
                            error.invariant if isinstance(error, InvariantBroken) else type(error).__name__
                        ] += 1
                        break
    ((place, name, _), *_) = mutant.patches
    return Found(mutant.name, f"{place.__name__.rpartition('.')[2]}.{name}", by, tuple(needed))


def ranges_from(first: int, count: int) -> list[range]:
    """Disjoint ranges of `SEEDS` seeds each."""
    return [range(start, start + SEEDS) for start in range(first, first + count * SEEDS, SEEDS)]


def _found(number: int, count: int) -> Found:
    return found(MUTANTS[number], ranges_from(0, count))


def all_found(count: int = RANGES) -> list[Found]:
    """All variants, spread over the cores."""
    workers = min(len(MUTANTS), os.cpu_count() or 1)
    with ProcessPoolExecutor(workers, mp_context=get_context("spawn")) as pool:
        return [*pool.map(_found, range(len(MUTANTS)), [count] * len(MUTANTS))]


def table(results: Iterable[Found]) -> str:
    """All results as a table of Markdown."""
    head = "| variant | is broken | found by | least | median | most |\n|---|---|---|---|---|---|\n"
    return head + "".join(f"{each.row()}\n" for each in results)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--ranges", type=int, default=RANGES, help="number of ranges of seeds")
    parser.add_argument("--write", action="store_true", help=f"put the table into {PAGE.relative_to(ROOT)}")
    options = parser.parse_args()
    results = all_found(options.ranges)
    print(table(results), end="")
    if options.write:
        page = PAGE.read_text(encoding="utf-8")
        PAGE.write_text(TABLE.sub(lambda _: table(results), page), encoding="utf-8")
    if missed := [each.name for each in results if not each.is_found]:
        sys.exit(f"not found within {SEEDS} seeds: {', '.join(missed)}")


if __name__ == "__main__":
    main()
