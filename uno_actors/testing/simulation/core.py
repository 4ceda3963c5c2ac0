"""The one order of everything in a simulated run: what runs next, and what time it is, follow from the seed.

All nodes of a run share one thread, and a `Core` that decides which of them does its next step. Time passes only here:
a step costs a few microseconds, and when nothing is ready the time moves to the next timer.
"""

import heapq
import random
import sys
from asyncio.events import _set_running_loop
from collections import deque
from collections.abc import Callable
from hashlib import blake2b
from typing import Any, Protocol

from uno_actors.errors import UnoError
from uno_actors.testing.simulation.escapes import Guard

LONGEST_STEP = 0.000_02
"""Maximum seconds that one step takes."""
EPOCH = 1_900_000_000.0
"""The time of day at which each run begins, in seconds since 1970."""
START = 1000.0
"""Where the virtual time of each run begins."""
MAX_STEPS = 1_000_000
"""Steps after which a run is taken for one that never ends."""
LONGEST_RUN = 3_600.0
"""Seconds of virtual time after which a run is taken for one that never ends."""
STORY = 200_000
"""Maximum number of lines of a story."""


Told = tuple[float, str, str, str]
"""A line of a story: second of the run, place, kind and text."""


class SimulationStuck(UnoError):
    """A simulated run can do nothing more, or never ends.

    Attributes:
        waiting: What waits, a line each.
    """

    def __init__(self, reason: str, waiting: list[str]) -> None:
        self.waiting = waiting
        super().__init__("; ".join([reason, *waiting]))


class Step(Protocol):
    """A callback that is ready to run, as asyncio's handles."""

    def cancelled(self) -> bool:
        """Whether it must not run."""

    def _run(self) -> None:
        """Run it."""


class Place:
    """Where steps run: one process of a run, with clocks of its own.

    Args:
        core: Runs its steps.
        name: Names it in the story.

    Attributes:
        is_dead: Whether it was killed or has ended: none of its steps runs any more.
        rate: Seconds that its clocks count in one second.
        offset: Seconds by which its time of day is ahead.
        frozen_until: Until when none of its steps runs.
        callbacks: Plain callbacks that are ready; they keep their order, as asyncio promises.
    """

    def __init__(self, core: "Core", name: str) -> None:
        self.core = core
        self.name = name
        self.is_dead = False
        self.rate = 1.0
        self.offset = 0.0
        self.frozen_until = 0.0
        self.callbacks: deque[tuple[Step, str]] = deque()
        self._base = (core.now, core.now)

    def monotonic(self) -> float:
        """Seconds on its own clock."""
        began, counted = self._base
        return counted + (self.core.now - began) * self.rate

    def time_of_day(self) -> float:
        """Seconds since 1970, as it believes."""
        return EPOCH + self.monotonic() + self.offset

    def drift(self, rate: float) -> None:
        """Have its clocks count ``rate`` seconds in one second from now on."""
        self._base = (self.core.now, self.monotonic())
        self.rate = rate

    def moment(self, when: float) -> float:
        """When its own clock shows ``when``, in the time of the run."""
        began, counted = self._base
        return began + (when - counted) / self.rate

    def enter(self) -> None:
        """Become the process that runs."""
        _set_running_loop(None)
        sys.set_asyncgen_hooks(firstiter=None, finalizer=None)

    def __repr__(self) -> str:
        return f"<{self.name}>"


class Core:
    """Runs the steps of all places of a run.

    Args:
        seed: All that happens by chance follows from it.
        keep_trace: Whether to keep each step, for comparing runs.
        longest: Seconds of virtual time after which it is taken for a run that never ends.

    Attributes:
        now: Seconds of virtual time.
        steps: Number of steps that have run.
        place: Whose step runs now.
        chance: Decides the order of steps and how long they take.
        max_steps: Steps after which it is taken for a run that never ends.
        guard: Notes what escapes.
        closed: Whether nothing runs any more.
        entropy: What stands in for the operating system's chance.
        story: What happened, for people: moment, place, kind and text.
        before_step: Called with the core before each step, for faults.
    """

    def __init__(self, seed: object, *, keep_trace: bool = False, longest: float = LONGEST_RUN) -> None:
        self.seed = seed
        self.now = START
        self.steps = 0
        self.chance = random.Random(f"{seed}/order")  # noqa: S311 - repeatable
        self.entropy = random.Random(f"{seed}/entropy")  # noqa: S311 - as above
        self.story: list[Told] = []
        self.trace: list[str] | None = [] if keep_trace else None
        self.before_step: Callable[[], None] | None = None
        self._digest = blake2b(digest_size=16)
        self._ready: list[tuple[Place, Step | None, str]] = []
        self._timers: list[tuple[float, int, Place, Step, str, bool]] = []
        self._count = 0
        self.max_steps = MAX_STEPS
        self.longest = longest
        self.closed = False
        self.guard = Guard()
        self.place = self.outside = Place(self, "outside")

    def next_number(self) -> int:
        """A number that nothing else of the run has."""
        self._count += 1
        return self._count

    def source(self, name: str) -> random.Random:
        """Chance for one purpose: what else happens in the run does not change it."""
        return random.Random(f"{self.seed}/{name}")  # noqa: S311 - repeatable

    # --- what is to run ---

    def ready(self, place: Place, step: Step, label: str, *, in_order: bool) -> None:
        """Have ``step`` run soon: ``in_order`` after the others of its place, or in an order that the seed picks."""
        if place.is_dead or self.closed:
            return
        if not in_order:
            self._ready.append((place, step, label))
            return
        place.callbacks.append((step, label))
        if len(place.callbacks) == 1:
            self._ready.append((place, None, ""))

    def at(self, when: float, place: Place, step: Step, label: str, *, in_order: bool = False) -> None:
        """Have ``step`` become ready at ``when``, in the time of the run."""
        if place.is_dead or self.closed:
            return
        heapq.heappush(self._timers, (when, self.next_number(), place, step, label, in_order))

    def run(self, is_done: Callable[[], bool]) -> None:
        """Run steps until ``is_done()``.

        Raises:
            SimulationStuck: Nothing is left to run, or there is no end.
        """
        try:
            while not is_done():
                self._wake_due()
                if not self._ready:
                    if not self._timers:
                        raise SimulationStuck("nothing can run any more", [])
                    self.now = max(self.now, self._timers[0][0])
                    continue
                if self.steps > self.max_steps or self.now > START + self.longest:
                    raise SimulationStuck(
                        f"no end after {self.steps:,} steps and {self.now - START:,.0f} s", []
                    )
                if self.before_step is not None:
                    self.before_step()
                self._run_one()
        finally:
            self.place = self.outside
            self.outside.enter()

    def _wake_due(self) -> None:
        timers = self._timers
        while timers and timers[0][0] <= self.now:
            _, _, place, step, label, in_order = heapq.heappop(timers)
            if not step.cancelled():
                self.ready(place, step, label, in_order=in_order)

    def _run_one(self) -> None:
        ready = self._ready
        chosen = int(self.chance.random() * len(ready))
        place, step, label = ready[chosen]
        ready[chosen] = ready[-1]
        ready.pop()
        if place.is_dead:
            return
        if place.frozen_until > self.now:
            thaw = Call(self._ready.append, (place, None, "")) if step is None else step
            self.at(place.frozen_until, place, thaw, label)
            return
        if step is None:
            if not place.callbacks:
                return
            step, label = place.callbacks.popleft()
            if place.callbacks:
                ready.append((place, None, ""))
        if step.cancelled():
            return
        self.now += self.chance.random() * LONGEST_STEP
        self.steps += 1
        self.note(place.name, label)
        self.place = place
        place.enter()
        step._run()

    # --- what has happened ---

    def note(self, who: str, what: str) -> None:
        """Add to the trace, by which runs are compared."""
        line = f"{self.steps} {self.now:.9f} {who} {what}"
        self._digest.update(line.encode("utf-8", "replace"))
        if self.trace is not None:
            self.trace.append(line)

    def tell(self, who: str, kind: str, what: str) -> None:
        """Add to the story and to the trace."""
        self.note(who, f"{kind}: {what}")
        self.story_line(who, kind, what)

    def story_line(self, who: str, kind: str, what: str) -> None:
        """Add to the story alone: what names processes of the machine differs from run to run."""
        if len(self.story) < STORY:
            self.story.append((self.now - START, who, kind, what))

    @property
    def digest(self) -> str:
        """Differs if the trace differs."""
        return self._digest.hexdigest()

    def close(self) -> None:
        """Run nothing more."""
        self.closed = True
        self._ready.clear()
        self._timers.clear()


class Call:
    """A plain function as a step."""

    def __init__(self, function: Callable[..., Any], *args: Any) -> None:
        self._function: Callable[..., Any] | None = function
        self._args = args

    def cancelled(self) -> bool:
        """Whether `cancel` was called."""
        return self._function is None

    def cancel(self) -> None:
        """Do not run it."""
        self._function = None

    def _run(self) -> None:
        if self._function is not None:
            self._function(*self._args)
