"""Tools for tests of programs that use `uno_actors`, with any test runner; importing them starts nothing.

- ``scenario``: given some events, when a command arrives, then these events follow; ``process_scenario``: given what a
  process has reacted to, when an event arrives, then it sends these commands.
- ``probe``: records the events and messages that reach it, and waits for them.
- ``clock``: a clock that the test moves; ``faults``: stores that fail on demand.
- ``MemoryNetwork``: a cluster's nodes in one process, on a network that loses, delays and cuts on demand.
- ``simulation``: whole systems in virtual time, with crashes and faults that follow from a seed.
- ``inspection``: `inspect` shows the parts of a running system.
- ``contract``: what every event store promises, as checks for your own stores.
- ``plugin``: fixtures for pytest, loaded automatically when this package is installed.
"""

from uno_actors.cluster.links.memory import MemoryNetwork
from uno_actors.testing.clock import ManualClock
from uno_actors.testing.contract import CONTRACT, check_event_store
from uno_actors.testing.contract.store_place import Check, MakeStore, StorePlace
from uno_actors.testing.faults import Faults, failing
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
    "GivenProcess",
    "HandlerInspection",
    "Inspection",
    "MakeStore",
    "ManualClock",
    "MemoryNetwork",
    "Probe",
    "Sent",
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
