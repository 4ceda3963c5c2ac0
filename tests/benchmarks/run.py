"""Speed beside peers and beside a hand-written floor, measured in one run: `make bench`.

Ratios are what counts: absolute figures differ from machine to machine. The floor does the same input and
output (pydantic, msgpack, LMDB, fsync in groups) with no framework around it. Each section runs in a process of
its own; what is compared is measured in turn, several times, and the medians are shown. Run a part of it by
naming sections: `python tests/benchmarks/run.py durable replay`.
"""

import asyncio
import multiprocessing
import sys
from concurrent.futures import ProcessPoolExecutor

from rich.console import Console
from rich.table import Table

from tests.benchmarks.actors import actors, many
from tests.benchmarks.bus import bus
from tests.benchmarks.cluster import cluster
from tests.benchmarks.conditions import conditions
from tests.benchmarks.delivery import delivery
from tests.benchmarks.durable import durable, latency
from tests.benchmarks.measuring import Measured
from tests.benchmarks.memory import million
from tests.benchmarks.observed import observed
from tests.benchmarks.reading import replay
from tests.benchmarks.simulated import simulated
from tests.benchmarks.sql import sql
from tests.benchmarks.topics import topics
from tests.benchmarks.traced import traced
from tests.benchmarks.waited import waited

SECTIONS = {
    "durable": durable,
    "latency": latency,
    "waited": waited,
    "observed": observed,
    "traced": traced,
    "replay": replay,
    "sql": sql,
    "delivery": delivery,
    "actors": actors,
    "many": many,
    "million": million,
    "bus": bus,
    "topics": topics,
    "cluster": cluster,
    "conditions": conditions,
    "simulated": simulated,
}


def section(name: str) -> list[Measured]:
    return asyncio.run(SECTIONS[name]())


def main(names: list[str]) -> None:
    if unknown := [name for name in names if name not in SECTIONS]:
        sys.exit(f"unknown sections: {', '.join(unknown)}; there are: {', '.join(SECTIONS)}")
    table = Table(
        "work", "ours", "beside", "theirs", "ratio", "to reach", title="uno_actors beside others, one run"
    )
    for name in names or SECTIONS:
        with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as process:
            figures = process.submit(section, name).result()
        for measured in figures:
            met = measured.wanted is None or measured.ratio >= measured.wanted
            wanted = "" if measured.wanted is None else f"{measured.wanted:.2g} x"
            ratio = f"[{'green' if met else 'red'}]{measured.ratio:.2f} x[/]"
            table.add_row(
                measured.what,
                f"{measured.ours:,.0f}",
                measured.other,
                f"{measured.theirs:,.0f}",
                ratio,
                wanted,
            )
    Console(width=130).print(table)


if __name__ == "__main__":
    main(sys.argv[1:])
