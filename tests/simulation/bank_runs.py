"""Runs the bank of the examples: ``trace N`` prints each step of some runs, ``simulate N`` only how many there were.

In a process of its own, as its package has the name of a module of the tests.
"""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[2] / "examples" / "bank"))

from bank.scenarios import transfers

from uno_actors.testing.simulation import Simulation, simulate
from uno_actors.testing.simulation.control import controlled

if sys.argv[1] == "simulate":
    done = simulate(transfers, range(int(sys.argv[2])))
    print(done.runs, done.faults)
else:
    with controlled():
        simulation = Simulation(transfers)
        for seed in range(int(sys.argv[2])):
            run = simulation.run(seed, keep_trace=True)
            assert run.error is None, run.error
            print(seed, run.faults)
            print("\n".join(run.trace))
