"""Types of the fixtures that are functions, for annotations: ``def test_rules(given: GivenFixture)``.

The others have those of what they are: `ManualClock`, `Probe`, and ``str`` for the URL ``postgres_store``.
"""

from collections.abc import Iterable, Sequence
from typing import Any, Protocol, TypeVar, overload

from uno_actors.domain.aggregate import AggregateRoot
from uno_actors.domain.events import DomainEvent, EventRegistry
from uno_actors.processes.manager import ProcessManager
from uno_actors.testing.process_scenario import GivenProcess
from uno_actors.testing.scenario import Given
from uno_actors.testing.simulation.running import Scenario, Simulated
from uno_actors.testing.simulation.world import Invariant

A = TypeVar("A", bound=AggregateRoot)
P = TypeVar("P", bound=ProcessManager)


class GivenFixture(Protocol):
    """The fixture ``given``: the function `uno_actors.testing.given`."""

    @overload
    def __call__(  # type: ignore[overload-overlap]
        self, aggregate_type: type[P], *events: DomainEvent, id: str | None = None
    ) -> GivenProcess[P]: ...
    @overload
    def __call__(self, aggregate_type: type[A], *events: DomainEvent, id: str | None = None) -> Given[A]: ...
    def __call__(self, aggregate_type: type[Any], *events: DomainEvent, id: str | None = None) -> Any:
        """An aggregate or a process with these events in its past."""


class SimulatedFixture(Protocol):
    """The fixture ``simulated``: runs a scenario once for each seed, as `uno_actors.testing.simulation.simulate`."""

    def __call__(
        self,
        scenario: Scenario,
        seeds: int | Iterable[int] | None = None,
        *,
        faults: int = ...,
        kinds: Sequence[str] = ...,
        invariants: Sequence[Invariant] = ...,
        event_registry: EventRegistry = ...,
        within: float = ...,
    ) -> Simulated:
        """Run ``scenario``.

        Args:
            scenario: ``async def scenario(world)``.
            seeds: Their number, or the seeds. Default is that of the test's marker ``simulated``, or 200.
            faults: As of `simulate`, like the others; the defaults are those of the marker, if the test has one.
            kinds: See there.
            invariants: See there.
            event_registry: See there.
            within: See there.

        Returns:
            What the runs have done.

        Raises:
            SimulationFailed, EscapesSimulation, NotRepeatable: As `simulate`.
        """
