"""Runs the scenarios of our own promises with many seeds, over the cores: ``python tests/simulation/many_seeds.py``.

In processes of their own, as the examples have packages of their own.
"""

import argparse
import os
import sys
import time
from collections.abc import Iterator
from concurrent.futures import Future, ProcessPoolExecutor, as_completed
from dataclasses import dataclass
from importlib import import_module
from multiprocessing import get_context
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
ROOT = HERE.parents[1]
sys.path[:0] = [str(HERE), str(ROOT), str(ROOT / "examples" / "bank"), str(ROOT / "examples" / "shop")]

# ruff: noqa: E402 - the modules beside this one
from uno_actors.testing.simulation import Scenario, SimulationFailed, simulate

SEEDS = 2_000
"""Of each scenario."""
AT_ONCE = 50
"""Seeds that a process runs at once."""

SCENARIOS = {
    "bank": "bank.scenarios:transfers",
    "purses": "purses:one_node",
    "purses on two nodes": "purses:two_nodes",
    "purses in a cluster": "purses:three_nodes",
    "shop": "shop.scenarios:orders",
    "payments in a cluster": "offices:payments",
}
"""By name; the promises that each holds are in the documentation."""


@dataclass(frozen=True)
class Outcome:
    """What some seeds of a scenario have shown.

    Attributes:
        name: Of the scenario.
        seeds: That were run.
        faults: That have struck.
        seconds: Of virtual time.
        cpu: Seconds of the processor.
        failure: Of the first run that failed.
    """

    name: str
    seeds: int
    faults: int
    seconds: float
    cpu: float
    failure: str = ""


def scenario_of(name: str) -> tuple[Scenario, dict[str, Any]]:
    """A scenario, and the options that it needs."""
    module, _, attribute = SCENARIOS[name].partition(":")
    found = import_module(module)
    registry = {"event_registry": found.REGISTRY} if hasattr(found, "REGISTRY") else {}
    return getattr(found, attribute), registry


def run(name: str, first: int, count: int) -> Outcome:
    """Run some seeds of a scenario."""
    scenario, options = scenario_of(name)
    began = time.process_time()
    try:
        done = simulate(scenario, range(first, first + count), **options)
    except SimulationFailed as failed:
        return Outcome(name, failed.tried, 0, 0.0, time.process_time() - began, str(failed))
    return Outcome(name, done.runs, done.faults, done.seconds, time.process_time() - began)


def run_all(names: list[str], seeds: int, first: int = 0, until: float | None = None) -> Iterator[Outcome]:
    """Run so many seeds of each scenario, those of all in turn; none is begun after ``until``, of `time.time`."""
    parts = [(name, start) for start in range(first, first + seeds, AT_ONCE) for name in names]
    with ProcessPoolExecutor(os.cpu_count(), mp_context=get_context("spawn")) as pool:
        waiting: set[Future[Outcome]] = set()
        for name, start in parts:
            if until is not None and time.time() > until:
                break
            waiting.add(pool.submit(run, name, start, min(AT_ONCE, first + seeds - start)))
            if len(waiting) >= 2 * (os.cpu_count() or 1):
                done = next(as_completed(waiting))
                waiting.discard(done)
                yield done.result()
        for done in as_completed(waiting):
            yield done.result()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("names", nargs="*", default=[*SCENARIOS], help=", ".join(SCENARIOS))
    parser.add_argument("--seeds", type=int, default=SEEDS, help="of each scenario")
    parser.add_argument("--first", type=int, default=0, help="the first seed")
    parser.add_argument("--minutes", type=float, help="begin nothing after so many")
    options = parser.parse_args()
    until = None if options.minutes is None else time.time() + options.minutes * 60
    sums: dict[str, Outcome] = {}
    for each in run_all(options.names, options.seeds, options.first, until):
        before = sums.get(each.name, Outcome(each.name, 0, 0, 0.0, 0.0))
        sums[each.name] = Outcome(
            each.name,
            before.seeds + each.seeds,
            before.faults + each.faults,
            before.seconds + each.seconds,
            before.cpu + each.cpu,
            before.failure or each.failure,
        )
        if each.failure:
            print(f"{each.name}: {each.failure}", flush=True)
        total = sums[each.name]
        print(
            f"{total.name}: {total.seeds:,} seeds, {total.faults:,} faults, {total.cpu:.0f} s of CPU",
            flush=True,
        )
    for name, total in sums.items():
        hours = total.seconds / 3600
        print(f"{name}: {total.seeds:,} seeds, {total.faults:,} faults, {hours:,.1f} h of virtual time")
    if any(total.failure for total in sums.values()):
        sys.exit(1)


if __name__ == "__main__":
    main()
