"""The page Now: figures of the last minutes, and who is slow."""

from importlib.metadata import version
from typing import Any

from pydantic import Field

from uno_actors.ops.api.endpoint import Answered, Asked, Nothing, Observed
from uno_actors.ops.sampling import COUNTED, KEPT, Sample
from uno_actors.ops.sources import SystemSource

GAUGES = ("waiting", "oldest", "delay", "active", "messages", "queued", "threads", "letters", "processes")
"""Attributes of `Sample` that are shown as they are."""


class About(Answered):
    """What is shown.

    Attributes:
        name: Of the system or the store.
        store: URL of the store without its password; ``None`` if the program made the store itself.
        is_live: Whether a system of this process is shown; otherwise a store, and what its processes report.
        version: Of uno_actors.
    """

    name: str
    store: str | None
    is_live: bool
    version: str


async def about(observed: Observed, _: Nothing) -> About:
    """What is shown."""
    source = observed.source
    return About(
        name=source.name,
        store=source.place,
        is_live=isinstance(source, SystemSource),
        version=version("uno-actors"),
    )


class AskedNow(Asked):
    """Which samples.

    Attributes:
        last: So many of the latest.
    """

    last: int = Field(KEPT, ge=1, le=KEPT)


class Busy(Answered):
    """An actor or a handler that has worked at one thing for some time.

    Attributes:
        who: Its name.
        what: The class of the message, or the position of the event.
        seconds: Since when.
        line: The line of its code that runs or waits now, if it is known.
        process: Number of the process.
    """

    who: str
    what: str
    seconds: float
    line: str | None
    process: int


class ProcessShown(Answered):
    """A process that runs a system on the store.

    Attributes:
        system: Name of the system.
        process: Its number.
        uptime: Seconds since the system started.
        unanswered: Why it does not answer; ``None`` if it does.
    """

    system: str
    process: int
    uptime: float
    unanswered: str | None


class Now(Answered):
    """Figures of the last minutes, one value for each second.

    Attributes:
        times: Ends of the seconds, in seconds since 1970.
        figures: One list for each figure, as long as ``times``: rates per second ``commands``, ``rejected``,
            ``failed``, ``events``, ``commits``, ``loads``, ``restarts``, ``handled``, ``asked`` (asks answered) and
            ``answering`` (seconds that they took, all together); and states ``waiting``, ``oldest`` (seconds),
            ``delay`` (seconds), ``active``, ``messages``, ``queued``, ``threads``, ``letters``,
            ``processes``. ``None`` where a rate is not known yet.
        busy: Actors and handlers that have worked at one thing for some time, the slowest first.
        processes: The processes.
        totals: Counters since the start of the processes.
    """

    times: list[float]
    figures: dict[str, list[float | None]]
    busy: list[Busy]
    processes: list[ProcessShown]
    totals: dict[str, float]


async def now(observed: Observed, asked: AskedNow) -> Now:
    """Figures of the last minutes, and who is slow."""
    sampler = observed.sampler
    await sampler.ensure()
    samples = list(sampler.samples)[-asked.last :]
    states = sampler.states
    busy = [Busy(**each, process=state.process) for state in states for each in state.busy]
    told = [state.statistics for state in states if state.statistics is not None]
    totals = {name: float(sum(each[field] for each in told)) for name, field in COUNTED.items()}
    totals["dead_messages"] = float(sum(each["dead_messages"] for each in told))
    return Now(
        times=[round(sample.time, 3) for sample in samples],
        figures={
            name: [_figure(sample, name) for sample in samples] for name in (*COUNTED, "handled", *GAUGES)
        },
        busy=sorted(busy, key=lambda each: -each.seconds)[:50],
        processes=[
            ProcessShown(
                system=state.system,
                process=state.process,
                uptime=state.uptime,
                unanswered=state.unanswered,
            )
            for state in states
        ],
        totals=totals,
    )


def _figure(sample: Sample, name: str) -> float | None:
    found: Any = getattr(sample, name) if name in GAUGES else sample.rates.get(name)
    return None if found is None else round(float(found), 4)
