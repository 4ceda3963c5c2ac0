"""Deterministic simulation of a whole system: a failure in production is a seed on a laptop.

`simulate` runs a scenario, which is ordinary code of clients, once for each seed: in virtual time, on disks and links
that fail, with nodes that are killed at any await. The same seed gives the same run to its last step.

- ``running``: `simulate`, and how a failing run is made smaller; ``marking``: scenarios as tests;
  ``replaying``: recorded commands as a scenario; ``repeating``: the command that repeats a run.
- ``world``: what a scenario works with; ``nodes``: its processes.
- ``faults``: what goes wrong, and when; ``striking``: what that does; ``invariants``: what must be so all the same.
- ``core``, ``loop``, ``workers``: the one order of all steps; ``control``: clocks and chance;
  ``escapes``: what they cannot control.
- ``disk``, ``store``, ``network``: what systems stand on.
- ``witness``, ``audit``: what was seen of commands and handlers, and the views that follow from the log.
"""

from uno_actors.testing.simulation.escapes import EscapesSimulation
from uno_actors.testing.simulation.faults import KINDS, Fault
from uno_actors.testing.simulation.invariants import (
    ALWAYS,
    handlers_miss_nothing,
    nothing_acknowledged_is_lost,
    nothing_is_doubled,
    streams_have_no_gaps,
    views_follow_from_the_log,
)
from uno_actors.testing.simulation.loop import NodeCrashed
from uno_actors.testing.simulation.marking import simulated
from uno_actors.testing.simulation.nodes import InvariantBroken, Node, NotSimulated
from uno_actors.testing.simulation.replaying import RecordedCommand, replayed
from uno_actors.testing.simulation.running import (
    NotRepeatable,
    Scenario,
    Simulated,
    Simulation,
    SimulationFailed,
    simulate,
)
from uno_actors.testing.simulation.runs import Run
from uno_actors.testing.simulation.world import Invariant, World

__all__ = [
    "ALWAYS",
    "KINDS",
    "EscapesSimulation",
    "Fault",
    "Invariant",
    "InvariantBroken",
    "Node",
    "NodeCrashed",
    "NotRepeatable",
    "NotSimulated",
    "RecordedCommand",
    "Run",
    "Scenario",
    "Simulated",
    "Simulation",
    "SimulationFailed",
    "World",
    "handlers_miss_nothing",
    "nothing_acknowledged_is_lost",
    "nothing_is_doubled",
    "replayed",
    "simulate",
    "simulated",
    "streams_have_no_gaps",
    "views_follow_from_the_log",
]
