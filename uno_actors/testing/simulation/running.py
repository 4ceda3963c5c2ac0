"""Runs of a scenario: one for each seed, and the smallest that fails."""

import asyncio
import gc
import inspect
import time
from collections.abc import Awaitable, Callable, Iterable, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from uno_actors.domain.events import EventRegistry, event_registry
from uno_actors.errors import UnoError
from uno_actors.printable import counted
from uno_actors.tasks import begin
from uno_actors.testing.simulation.arguments import (
    NO_SEED,
    check_numbers,
    check_scenario,
    checked_invariants,
    checked_seeds,
    describe_function,
)
from uno_actors.testing.simulation.control import controlled, running
from uno_actors.testing.simulation.core import LONGEST_RUN, MAX_STEPS, START, Core, SimulationStuck
from uno_actors.testing.simulation.escapes import EscapesSimulation, told_with_line
from uno_actors.testing.simulation.faults import KINDS, MAX_FAULTS, OF_LINKS, Fault, plan
from uno_actors.testing.simulation.invariants import ALWAYS
from uno_actors.testing.simulation.nodes import InvariantBroken
from uno_actors.testing.simulation.repeating import Chosen, Repeat, place_of
from uno_actors.testing.simulation.runs import Run
from uno_actors.testing.simulation.timeline import ending
from uno_actors.testing.simulation.world import Invariant, World

Scenario = Callable[[World], Awaitable[object]]
"""What clients do in a run: ``async def scenario(world)``."""
Seeds = int | Iterable[int]
"""The seeds of runs; a number stands for 0, 1, 2, up to so many."""

_clock = time.perf_counter  # the machine's, whatever is simulated
FEWER = 12
"""Maximum number of runs for finding how many commands a failure needs."""


class SimulationFailed(UnoError, AssertionError):
    """A scenario has failed with one of the seeds.

    Attributes:
        run: The smallest run found that fails so.
        repeat: The command line that repeats it.
        tried: How many seeds were run, this one included.
    """

    def __init__(self, run: Run, repeat: Repeat, tried: int) -> None:
        self.run = run
        self.repeat = repeat.line
        self.tried = tried
        assert run.error is not None
        needs = f"{counted(len(run.faults), 'fault')} and {counted(run.commands, 'command')}"
        lines = [
            told_with_line(run.error),
            str(repeat),
            f"It fails with {needs}. The end of its story:",
            *ending(run),
        ]
        super().__init__("\n".join(lines))


class NotRepeatable(UnoError):
    """Two runs with the same seed differ: something that the simulation does not control decides what happens."""

    def __init__(self, seed: object, one: str, other: str) -> None:
        super().__init__(
            f"two runs with seed {seed} differ, first where one has {one!r} and the other {other!r}. Look there for"
            " what differs from run to run: the order of a set, the id of an object, a global that the first run has"
            " changed"
        )


@dataclass(frozen=True, slots=True)
class Simulated:
    """What a simulation without a failure has done.

    Attributes:
        runs: Runs, one for each seed.
        faults: Faults that have happened in them.
        steps: Their steps.
        seconds: Seconds of virtual time of all.
        took: Seconds that it took.
    """

    runs: int
    faults: int
    steps: int
    seconds: float
    took: float


class Simulation:
    """A scenario, and how it is run: inside of ``with uno_actors.testing.simulation.control.controlled():``.

    Args:
        scenario: What clients do: ``async def scenario(world)``.
        faults: Maximum number of faults of a run; each seed has 1 to so many. 0 for none.
        kinds: Kinds of faults.
        invariants: Checked at the end of each run.
        event_registry: Finds the classes of recorded events.
        within: Seconds of virtual time within which a run must end.
        steps: Steps within which it must.

    Raises:
        TypeError: ``scenario`` is not a function of the world, or an option is of another type.
        ValueError: There is no fault of one of the ``kinds``, so runs would not have what they are for, or a number is
            out of range.
    """

    def __init__(
        self,
        scenario: Scenario,
        *,
        faults: int = MAX_FAULTS,
        kinds: Sequence[str] = KINDS,
        invariants: Sequence[Invariant] = ALWAYS,
        event_registry: EventRegistry = event_registry,
        within: float = LONGEST_RUN,
        steps: int = MAX_STEPS,
    ) -> None:
        check_scenario(scenario)
        unknown = {kinds} if isinstance(kinds, str) else set(kinds) - set(KINDS)
        if unknown or not kinds:
            allowed, found = ", ".join(dict.fromkeys(KINDS)), ", ".join(sorted(unknown)) or "none"
            raise ValueError(f"kinds of faults are a list of some of: {allowed}; found {found}")
        check_numbers(faults, within)
        self.scenario = scenario
        self.most = faults
        self.kinds = tuple(kinds)
        self._invariants = checked_invariants(invariants)
        self._registry = event_registry
        self._within = within
        self._steps = steps
        self._without_faults: dict[int | None, Run] = {}

    def without_faults(self, commands: int | None = None) -> Run:
        """A run without faults, whose length is the measure of the moments at which faults happen."""
        if commands not in self._without_faults:
            self._without_faults[commands] = self._run("length", (), 0, commands)
        return self._without_faults[commands]

    def plan(self, seed: object) -> list[Fault]:
        """The faults of the run with this seed. Links fail only if there are some.

        Raises:
            ValueError: All ``kinds`` are of links, and there are none.
        """
        if self.most <= 0:
            return []
        kinds = self.kinds
        if not self.without_faults().is_linked:
            kinds = tuple(kind for kind in kinds if kind not in OF_LINKS)
        if not kinds:
            raise ValueError(
                f"{' and '.join(self.kinds)} hit links between nodes, and the scenario has none: start two nodes of a"
                " cluster, with cluster=Cluster(listen=node.network)"
            )
        return plan(seed, self.most, kinds)

    def run(
        self,
        seed: object,
        faults: Chosen = None,
        commands: int | None = None,
        *,
        keep_trace: bool = False,
        watch: bool = False,
    ) -> Run:
        """Run the scenario once.

        Args:
            seed: All that happens follows from it.
            faults: Which faults of its plan happen.
            commands: Maximum number of numbers that `World.commands` gives.
            keep_trace: Whether to keep each step.
            watch: Whether to look for calls of the machine's clocks under any name, which takes longer.
        """
        planned = self.plan(seed)
        if isinstance(faults, int):
            planned = planned[:faults]
        elif faults is not None:
            planned = [fault for fault in planned if fault.number in faults]
        length = self.without_faults(commands).length if planned else 0
        return self._run(seed, planned, length, commands, keep_trace=keep_trace, watch=watch)

    def _run(
        self,
        seed: object,
        faults: Sequence[Fault],
        length: int,
        commands: int | None,
        *,
        keep_trace: bool = False,
        watch: bool = False,
    ) -> Run:
        core = Core(seed, keep_trace=keep_trace, longest=self._within)
        core.max_steps = self._steps
        error: BaseException | None = None
        with running(core, watch=watch):
            world = World(core, faults, length, commands=commands, registry=self._registry)
            try:
                task = begin(world.loop, self._whole(world))
                core.run(lambda: task.done() or world.strikes.failure is not None)
                error = world.strikes.failure or _error_of(task)
            except SimulationStuck as stuck:
                error = InvariantBroken("nothing hangs", "; ".join([str(stuck), *world.nodes.waiting()]))
            except (Exception, SystemExit) as raised:  # noqa: BLE001 - a disk that cannot be read back, say
                error = raised
            finally:
                world.end()
            if core.guard.lines:
                error = EscapesSimulation([*core.guard.lines])
            if error is not None:
                core.story_line("world", "broken", told_with_line(error))
        return Run(
            seed,
            tuple(world.strikes.happened),
            world.commands_given,
            core.steps,
            world.strikes.ended_at or 0,
            world.network.most_nodes > 1,
            core.now - START,
            core.digest,
            error,
            tuple(core.story),
            tuple(core.trace or ()),
        )

    async def _whole(self, world: World) -> None:
        made = self.scenario(world)
        if not inspect.isawaitable(made):
            raise TypeError(
                f"a scenario is a coroutine function, async def scenario(world); {describe_function(self.scenario)}"
                f" has returned {made!r}"
            )
        await made
        if world.strikes.ended_at is None:
            world.strikes.ended_at = world.core.steps
        await world.finish(self._invariants)

    def repeat(self, seed: object, faults: Chosen, commands: int | None) -> Repeat:
        """How a run is repeated."""
        lost = {
            "invariants": self._invariants != ALWAYS,
            "event_registry": self._registry is not event_registry,
            "within": self._within != LONGEST_RUN,
        }
        return Repeat(
            place_of(self.scenario),
            seed,
            faults,
            commands,
            most=None if self.most == MAX_FAULTS else self.most,
            kinds=() if self.kinds == KINDS else self.kinds,
            lost=tuple(name for name, is_lost in lost.items() if is_lost),
        )

    # --- the smallest run that fails ---

    def smallest(self, failed: Run) -> tuple[Run, Chosen, int | None]:
        """The smallest run found that fails as ``failed``; with its faults and its number of commands."""
        seed, count = failed.seed, len(self.plan(failed.seed))
        faults: Chosen = count
        for fewer in range(count):
            found = self.run(seed, fewer)
            if _alike(found, failed):
                failed, faults, count = found, fewer, fewer
                break
        numbers = [*range(1, count + 1)]
        for number in [*numbers[:-1]]:
            without = [each for each in numbers if each != number]
            found = self.run(seed, without)
            if _alike(found, failed):
                failed, faults, numbers = found, without, without
        commands, most = None, failed.commands
        tries = sorted({most * share // FEWER for share in range(1, FEWER)} | {1, 2})
        for fewer in [each for each in tries if 0 < each < most]:
            found = self.run(seed, faults, fewer)
            if _alike(found, failed):
                return found, faults, fewer
        return failed, faults, commands


def simulate(
    scenario: Scenario,
    seeds: Seeds = range(200),
    *,
    faults: int = MAX_FAULTS,
    kinds: Sequence[str] = KINDS,
    invariants: Sequence[Invariant] = ALWAYS,
    event_registry: EventRegistry = event_registry,
    within: float = LONGEST_RUN,
) -> Simulated:
    """Run ``scenario`` once for each seed, in virtual time, with faults at moments that the seed picks.

    A run with the same seed is the same to its last step. The first seed is run twice to prove it.

    Args:
        scenario: What clients do: ``async def scenario(world)``; see `World`.
        seeds: One run for each; a number is so many, from 0 up.
        faults: Maximum number of faults of a run; each seed has 1 to so many. 0 for none.
        kinds: Kinds of faults; see `uno_actors.testing.simulation.faults.KINDS`.
        invariants: Checked at the end of each run; default are all that come with it.
        event_registry: Finds the classes of recorded events; default is the process-wide registry.
        within: Seconds of virtual time within which a run must end.

    Raises:
        SimulationFailed: A run has failed; with the smallest one found that does, and how to repeat it.
        EscapesSimulation: The code does what cannot be simulated: threads of its own, real sleep, sockets, processes.
        NotRepeatable: Two runs with the same seed differ.
        TypeError, ValueError: An argument is not valid, or there is no seed: then nothing would be tested.
        RuntimeError: A scenario simulates. Another thread that does has to wait.
    """
    seeds = checked_seeds(seeds)
    simulation = Simulation(
        scenario,
        faults=faults,
        kinds=kinds,
        invariants=invariants,
        event_registry=event_registry,
        within=within,
    )
    began = _clock()
    runs = happened = steps = 0
    seconds = 0.0
    with controlled(), _young_garbage():
        for seed in seeds:
            run = simulation.run(seed)
            runs += 1
            happened += len(run.faults)
            steps += run.steps
            seconds += run.seconds
            if isinstance(run.error, EscapesSimulation):
                raise run.error
            if run.error is not None:
                smallest, chosen, commands = simulation.smallest(run)
                raise SimulationFailed(
                    smallest, simulation.repeat(smallest.seed, chosen, commands), runs
                ) from (smallest.error)
            if runs == 1:
                _check_repeats(simulation, run)
    if not runs:
        raise ValueError(NO_SEED)
    return Simulated(runs, happened, steps, seconds, _clock() - began)


def _check_repeats(simulation: Simulation, run: Run) -> None:
    again = simulation.run(run.seed, watch=True)
    if isinstance(again.error, EscapesSimulation):
        raise again.error
    if again.digest == run.digest:
        return
    one = simulation.run(run.seed, keep_trace=True).trace
    other = simulation.run(run.seed, keep_trace=True).trace
    for first, second in zip([*one, "the end"], [*other, "the end"], strict=False):
        if first != second:
            raise NotRepeatable(run.seed, first, second)
    raise NotRepeatable(run.seed, f"{run.steps} steps", f"{again.steps} steps")


def _error_of(task: "asyncio.Task[None]") -> BaseException | None:
    """Why the scenario has failed; a cancellation that leaves it is a failure too."""
    try:
        return task.exception()
    except asyncio.CancelledError as cancelled:
        return cancelled


def _alike(found: Run, failed: Run) -> bool:
    """Whether two runs fail in the same way."""
    if type(found.error) is not type(failed.error):
        return False
    return getattr(found.error, "invariant", None) == getattr(failed.error, "invariant", None)


@contextmanager
def _young_garbage() -> Any:
    """Have the collector look only at what runs leave, and not at the whole program each time."""
    if gc.get_freeze_count():  # the program has done so itself, for as long as it lasts
        yield
        return
    gc.collect()
    gc.freeze()
    try:
        yield
    finally:
        gc.unfreeze()
