"""How many seeds of the bank a simulation runs in a second, on all cores and on one."""

import asyncio
import os
import sys
import time
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path

from tests.benchmarks.measuring import Measured

BANK = Path(__file__).parents[2] / "examples" / "bank"
SEEDS = 200
WITHIN = 60.0
"""Seconds that so many seeds may take on two cores."""


def seconds_for(first: int, count: int) -> float:
    """Seconds of the processor that some seeds take, less the imports."""
    sys.path.insert(0, str(BANK))
    from bank.scenarios import transfers

    from uno_actors.testing.simulation import simulate

    began = time.process_time()
    simulate(transfers, range(first, first + count))
    return time.process_time() - began


async def simulated() -> list[Measured]:
    """Seeds per second beside what is wanted: 200 of them in a minute."""
    cores = min(2, os.cpu_count() or 1)
    share = SEEDS // cores
    loop = asyncio.get_running_loop()
    with ProcessPoolExecutor(cores, mp_context=get_context("spawn")) as pool:
        took = await asyncio.gather(
            *(loop.run_in_executor(pool, seconds_for, core * share, share) for core in range(cores))
        )
    rate = SEEDS / max(took)
    return [Measured("simulated runs of the bank per second", rate, "200 in a minute", SEEDS / WITHIN, 1.0)]
