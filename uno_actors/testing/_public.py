"""Every public name of `uno_actors.testing`, which imports this module when a name is first used."""

from uno_actors.cluster.links.memory import MemoryNetwork
from uno_actors.testing.clock import ManualClock
from uno_actors.testing.contract import CONTRACT, check_event_store
from uno_actors.testing.contract.store_place import Check, MakeStore, StorePlace
from uno_actors.testing.faults import Faults, failing
from uno_actors.testing.fixtures import GivenFixture, SimulatedFixture
from uno_actors.testing.inspection import HandlerInspection, Inspection, inspect
from uno_actors.testing.outcome import Then
from uno_actors.testing.probe import Probe
from uno_actors.testing.process_scenario import GivenProcess, Sent, ThenProcess
from uno_actors.testing.scenario import Given, given
from uno_actors.testing.simulation import simulate, simulated

__all__ = [
    "CONTRACT",
    "Check",
    "Faults",
    "Given",
    "GivenFixture",
    "GivenProcess",
    "HandlerInspection",
    "Inspection",
    "MakeStore",
    "ManualClock",
    "MemoryNetwork",
    "Probe",
    "Sent",
    "SimulatedFixture",
    "StorePlace",
    "Then",
    "ThenProcess",
    "check_event_store",
    "failing",
    "given",
    "inspect",
    "simulate",
    "simulated",
]
