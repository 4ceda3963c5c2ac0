"""Runs a scenario of `many_seeds`: ``trace NAME SEEDS KINDS`` prints each step, ``simulate NAME SEEDS`` what was run.

In a process of its own, as the examples have packages of their own, and hashes that differ from process to process.
"""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))


from many_seeds import SCENARIOS, run, scenario_of

from uno_actors.testing.simulation import Simulation
from uno_actors.testing.simulation.control import controlled

what, name, seeds, *kinds = sys.argv[1:]
assert name in SCENARIOS
if what == "simulate":
    done = run(name, 0, int(seeds))
    assert not done.failure, done.failure
    print(done.seeds, done.faults)
else:
    scenario, options = scenario_of(name)
    with controlled():
        simulation = Simulation(scenario, **options, kinds=kinds[0].split(","))
        for seed in range(int(seeds)):
            found = simulation.run(seed, keep_trace=True)
            assert found.error is None, found.error
            print(seed, found.faults)
            print("\n".join(found.trace))
