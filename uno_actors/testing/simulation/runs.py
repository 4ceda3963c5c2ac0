"""What one run of a scenario was."""

from dataclasses import dataclass, field

from uno_actors.testing.simulation.core import Told
from uno_actors.testing.simulation.faults import Fault


@dataclass(frozen=True, slots=True)
class Run:
    """One run.

    Attributes:
        seed: Its seed.
        faults: The faults that have happened.
        commands: How many numbers `World.commands` has given.
        steps: Its steps.
        length: The steps until the scenario has ended, or its first `World.settled`, which ends the faults; 0 if it has
            done neither.
        is_linked: Whether nodes were linked, as those of a cluster are.
        seconds: Seconds of virtual time.
        digest: Equal for equal runs.
        error: Why it has failed; ``None`` if it has not.
        story: What happened: second, place, kind and text.
        trace: Each step, if it was kept.
    """

    seed: object
    faults: tuple[Fault, ...]
    commands: int
    steps: int
    length: int
    is_linked: bool
    seconds: float
    digest: str
    error: BaseException | None
    story: tuple[Told, ...]
    trace: tuple[str, ...] = field(repr=False)
