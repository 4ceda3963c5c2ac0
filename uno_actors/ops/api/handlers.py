"""The page Handlers, and requests to handlers; ``uno-actors handlers`` uses the same functions."""

from datetime import datetime

from pydantic import Field

from uno_actors.handlers.spec import Start
from uno_actors.ops.api.endpoint import Answered, Asked, Done, Observed, Refused
from uno_actors.ops.sampling import KEPT


def place(text: str) -> Start:
    """The place in the log that a person has written.

    Raises:
        ValueError: It is not a place.
    """
    if text in ("earliest", "latest"):
        return text  # type: ignore[return-value]
    if text.isdecimal():
        return int(text)
    try:
        return datetime.fromisoformat(text)
    except ValueError:
        raise ValueError(
            f"{text!r} is none of: earliest, latest, a position, a time such as 2024-05-01T12:00"
        ) from None


class AskedHandlers(Asked):
    """Which entries.

    Attributes:
        partitions: Each partition of a handler by itself.
    """

    partitions: bool = False


class HandlerShown(Answered):
    """One handler; see `uno_actors.handlers.control.HandlerInfo` for what is not described here.

    Attributes:
        rate: Positions of the log that it has passed per second, lately; ``None`` if it does not run on this machine.
    """

    name: str
    position: int
    lag: int
    state: str
    failures: int | None
    dead_letters: int
    paused: bool
    reset_to: int | None
    retries: int
    view: str | None
    node: str | None
    partitions: int
    rate: float | None = None


class Handlers(Answered):
    """All handlers that have run on the store.

    Attributes:
        handlers: Sorted by name.
        ends: The last position of each log.
        times: Ends of the seconds of ``lags``, in seconds since 1970.
        lags: The lag of each handler that runs on this machine, one value for each second; ``None`` where it did not
            run.
    """

    handlers: list[HandlerShown]
    ends: list[int]
    times: list[float]
    lags: dict[str, list[int | None]]


async def handlers(observed: Observed, asked: AskedHandlers) -> Handlers:
    """All handlers that have run on the store: position, lag, state, failures, dead letters."""
    await observed.sampler.ensure()
    samples = list(observed.sampler.samples)[-PLOTTED:]
    infos = await observed.source.handlers(partitions=asked.partitions)
    names = {name for sample in samples for name in sample.lags}
    ends = await observed.source.store.last_positions()
    return Handlers(
        handlers=[
            HandlerShown(
                name=info.name,
                position=info.position,
                lag=info.lag,
                state=info.state,
                failures=info.failures,
                dead_letters=info.dead_letters,
                paused=info.paused,
                reset_to=info.reset_to,
                retries=info.retries,
                view=info.view,
                node=info.node,
                partitions=info.partitions,
                rate=observed.sampler.rate(info.name),
            )
            for info in infos
        ],
        ends=ends,
        times=[round(sample.time, 3) for sample in samples],
        lags={name: [sample.lags.get(name) for sample in samples] for name in sorted(names)},
    )


PLOTTED = min(120, KEPT)
"""Samples in the plots of lags."""


class Named(Asked):
    """A handler.

    Attributes:
        name: Its name.
    """

    name: str


async def pause(observed: Observed, asked: Named) -> Done:
    """Pause a handler until it is resumed, even if the system is restarted."""
    await observed.source.pause(asked.name)
    return Done()


async def resume(observed: Observed, asked: Named) -> Done:
    """Let a paused handler continue where it stopped."""
    await observed.source.resume(asked.name)
    return Done()


class AskedReset(Asked):
    """A move of a handler.

    Attributes:
        name: The handler.
        to: ``earliest``, ``latest``, a position, or a time in ISO 8601.
        confirm: The name of the handler once more.
    """

    name: str
    to: str = Field(max_length=100)
    confirm: str


class Moved(Answered):
    """Where a handler continues.

    Attributes:
        position: It continues after this position.
    """

    position: int


async def reset(observed: Observed, asked: AskedReset) -> Moved:
    """Move a handler to another place in the log; a projection is rebuilt from the earliest event."""
    if asked.confirm != asked.name:
        raise Refused(422, f"to confirm, give the name {asked.name!r} once more; found {asked.confirm!r}")
    try:
        to = place(asked.to)
    except ValueError as error:
        raise Refused(422, str(error)) from None
    return Moved(position=await observed.source.reset(asked.name, to))
