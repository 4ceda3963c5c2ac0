"""Figures of the last minutes: what the processes of a system report, once a second."""

import asyncio
import time
from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from uno_actors.errors import UnoError, describe
from uno_actors.logs import get_logger
from uno_actors.ops.sources import ProcessState, Source
from uno_actors.store.logs import log_of_position

EVERY = 1.0
"""Seconds between two samples."""
KEPT = 600
"""Samples that are kept: those of the last ten minutes."""
SHARE = 0.02
"""Share of the time that samples may take; `ActorSystem.statistics` takes longer the more actors there are."""
LATELY = 5
"""Samples between which the rate of a handler is measured."""

COUNTED = {
    "commands": "commands",
    "rejected": "rejected",
    "failed": "failed",
    "events": "events_recorded",
    "commits": "commits",
    "loads": "activations",
    "restarts": "restarts",
    "asked": "asked",
    "answering": "asked_seconds",
}
"""Counters of `uno_actors.system.statistics.SystemStatistics` whose growth is shown, by their names here."""


@dataclass(frozen=True, slots=True)
class Sample:
    """What all processes did within about a second, and their state at its end.

    Attributes:
        time: End of the second, in seconds since 1970.
        processes: Number of processes that answered.
        rates: Growth of each counter per second, by the names of `COUNTED`, and ``handled``: events handled; empty
            where it is not known yet.
        waiting: Commands not answered yet.
        oldest: Age in seconds of the oldest of them; 0 if none waits.
        delay: Seconds by which the event loop was late.
        active: Aggregates in memory.
        messages: Messages in the mailboxes of actors.
        queued: Events in the queues of handlers.
        threads: Worker threads at work.
        lags: Positions by which each handler that runs is behind the end of the log, by its name.
        positions: Their positions.
        letters: Events set aside since the start of the processes.
    """

    time: float
    processes: int
    rates: Mapping[str, float]
    waiting: int = 0
    oldest: float = 0.0
    delay: float = 0.0
    active: int = 0
    messages: int = 0
    queued: int = 0
    threads: int = 0
    lags: Mapping[str, int] = field(default_factory=dict)
    positions: Mapping[str, int] = field(default_factory=dict)
    letters: int = 0


class Sampler:
    """Takes a sample each second from the first question on, until the system stops.

    Args:
        source: What is sampled.

    Attributes:
        samples: The latest, the oldest first.
        states: What the processes reported last.
    """

    def __init__(self, source: Source) -> None:
        self._source = source
        self._task: asyncio.Task[Any] | None = None
        self._before: dict[int, tuple[float, dict[str, float]]] = {}  # by process: when, and its counters
        self._cannot = False
        self._log = get_logger()
        self.samples: deque[Sample] = deque(maxlen=KEPT)
        self.states: list[ProcessState] = []

    async def ensure(self) -> None:
        """Take samples from now on; on the loop of the source."""
        if self._task is None or self._task.done():
            await self.take()
            if self._task is None or self._task.done():  # another question may have come meanwhile
                self._task = self._source.start(self._run())

    def close(self) -> None:
        """Take no more samples."""
        if self._task is not None:
            self._task.cancel()

    def rate(self, handler: str) -> float | None:
        """Positions that a handler has passed per second in the last `LATELY` samples; ``None`` if it did not run."""
        found = [(sample.time, sample.positions.get(handler)) for sample in list(self.samples)[-LATELY:]]
        known = [(time, position) for time, position in found if position is not None]
        if len(known) < 2 or found[-1][1] is None:
            return None
        (begun, first), (ended, last) = known[0], known[-1]
        return max(0.0, (last - first) / (ended - begun))

    async def _run(self) -> None:
        pause = EVERY
        while True:
            due = time.monotonic() + pause
            await asyncio.sleep(pause)
            begun = time.monotonic()
            try:
                await self.take(max(0.0, begun - due))
                self._cannot = False
            except UnoError as error:  # the store or a process may be away for a while
                if not self._cannot:
                    self._log.warning("figures cannot be sampled now", error=describe(error))
                self._cannot = True
            pause = pause_after(time.monotonic() - begun)

    async def take(self, late: float = 0.0) -> None:
        """Take one sample.

        Args:
            late: Seconds by which the event loop was late.
        """
        states = await self._source.states()
        self.states = states
        told = [state for state in states if state.statistics is not None]
        ends = await self._source.store.last_positions() if told else []
        self.samples.append(self._sample(told, ends, late))

    def _sample(self, states: Sequence[ProcessState], ends: Sequence[int], late: float) -> Sample:
        now = time.monotonic()
        rates = dict.fromkeys((*COUNTED, "handled"), 0.0) if self._before or not states else {}
        for state in states:
            counters = _counters(state.statistics or {})
            since, before = self._before.get(state.process, (now, counters))
            for name, value in counters.items() if now > since else ():
                # a process that was started again counts from 0
                rates[name] += max(0.0, value - before[name]) / (now - since)
            self._before[state.process] = now, counters
        gone = self._before.keys() - {state.process for state in states}
        for process in gone:
            del self._before[process]
        found = [state.statistics or {} for state in states]
        handlers = [(name, each) for one in found for name, each in one["handlers"].items()]
        positions = {
            name: each["position"]
            for name, each in handlers
            if each["state"] != "standby" and log_of_position(each["position"]) < len(ends)
        }
        delays = [one["dispatcher"]["oldest"] or 0.0 for one in found]
        return Sample(
            time.time(),
            len(states),
            rates,
            sum(one["commands_waiting"] for one in found),
            max((one["oldest_command"] or 0.0 for one in found), default=0.0),
            max([late if self._source.is_live else 0.0, *delays]),
            sum(one["active_aggregates"] for one in found),
            sum(one["messages"]["waiting"] for one in found),
            sum(each["waiting"] for _, each in handlers),
            sum(one["dispatcher"]["workers"]["busy"] for one in found),
            {name: max(0, ends[log_of_position(place)] - place) for name, place in positions.items()},
            positions,
            sum(each["dead_letters"] for _, each in handlers),
        )


def pause_after(cost: float) -> float:
    """Seconds until the next sample after one that took ``cost`` seconds: a large system has fewer samples."""
    return max(EVERY, cost / SHARE)


def _counters(statistics: Mapping[str, Any]) -> dict[str, float]:
    counters = {name: float(statistics[field]) for name, field in COUNTED.items()}
    counters["handled"] = float(sum(each["handled"] for each in statistics["handlers"].values()))
    return counters
