"""What a system and its store report at one moment."""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from uno_actors.actors.watchdog import watchdog
from uno_actors.cluster.statistics import ClusterStatistics
from uno_actors.handlers.control import HandlerControl
from uno_actors.handlers.lag import Lag, lag_at
from uno_actors.handlers.partitions import whole_name
from uno_actors.handlers.subscription import HandlerStatistics
from uno_actors.logs import get_logger
from uno_actors.store.logs import log_of_position
from uno_actors.store.maintenance import HasUsage, StoreUsage
from uno_actors.system.runtime import Runtime
from uno_actors.system.statistics import SystemStatistics
from uno_actors.system.system import ActorSystem


class Place(NamedTuple):
    """Where a handler is in the log.

    Attributes:
        position: All events up to here are done; of several partitions, of the one with the greatest lag.
        lag: How far that is from the end; of several partitions the greatest, and those of different logs added up.
    """

    position: int
    lag: Lag


@dataclass(frozen=True, slots=True)
class OfActors:
    """The living actors of one class.

    Attributes:
        count: Their number.
        waiting: Messages in their mailboxes.
        oldest: Age in seconds of the oldest of these; 0 if none waits.
    """

    count: int
    waiting: int
    oldest: float


@dataclass(frozen=True, slots=True)
class StoreReading:
    """What a store has answered.

    Attributes:
        ends: The last position of each log.
        places: Where each handler of the system is, by its whole name.
        dead_letters: Number of dead letters, by the whole name of the handler.
        usage: What the store takes; ``None`` if it does not report it.
    """

    ends: Sequence[int]
    places: Mapping[str, Place]
    dead_letters: Mapping[str, int]
    usage: StoreUsage | None


@dataclass(frozen=True, slots=True)
class Reading:
    """What a system reports.

    Attributes:
        is_running: Whether it runs.
        statistics: Its counters; ``None`` before its start.
        actors: The living actors, by the name of their class.
        handlers: The statistics of each handler by its whole name, its partitions added up.
        cluster: Its counters as a node; ``None`` if it is none.
        members: Number of nodes that are up; ``None`` if it is not a node.
        holds: Reports of code that held a loop or a thread.
        store: What its store has answered; ``None`` if it has not.
    """

    is_running: bool
    statistics: SystemStatistics | None = None
    actors: Mapping[str, OfActors] = field(default_factory=dict)
    handlers: Mapping[str, HandlerStatistics] = field(default_factory=dict)
    cluster: ClusterStatistics | None = None
    members: int | None = None
    holds: int = 0
    store: StoreReading | None = None


def read_system(system: ActorSystem, store: StoreReading | None) -> Reading:
    """What ``system`` reports now, without asking its store; on its event loop, or after it has stopped.

    Args:
        system: The system, in any state.
        store: What its store has answered.
    """
    runtime = system._runtime
    if runtime is None:
        return Reading(is_running=False)
    statistics = runtime.statistics()
    node = runtime.node
    return Reading(
        system._state == "running",
        statistics,
        _actors(runtime),
        _whole(statistics.handlers),
        None if node is None else node.statistics(),
        None if node is None else len(node.announcement.members),
        watchdog.holds,
        store,
    )


async def read_store(system: ActorSystem) -> StoreReading | None:
    """What the store of a running system answers; ``None`` if it fails. On the system's event loop."""
    runtime = system._runtime
    if runtime is None or system._state != "running":
        return None
    store = system.store
    try:
        positions = {
            each.name: each.statistics(runtime.handlers.dispatched(each)).position
            for each in runtime.handlers.subscriptions
            if each.leased
        }
        wanted = {each.name: each.wanted for each in runtime.handlers.subscriptions}
        if len(positions) < len(wanted):
            recorded = await HandlerControl(store).positions()
            positions = {name: recorded.get(name, 0) for name in wanted} | positions
        ends = await store.last_positions()  # after the positions, so that no lag is negative
        parts: dict[str, list[Place]] = defaultdict(list)
        for name, position in positions.items():
            lag = await lag_at(store, position, ends, wanted[name])
            parts[whole_name(name)].append(Place(position, lag))
        places = {name: _whole_place(each) for name, each in parts.items()}
        letters: dict[str, int] = defaultdict(int)
        for name, count in (await store.dead_letter_counts()).items():
            letters[whole_name(name)] += count
        usage = await store.usage() if isinstance(store, HasUsage) else None
        return StoreReading(ends, places, letters, usage)
    except Exception as error:  # noqa: BLE001 - a store of another package may raise anything
        get_logger(system=system.name).debug("store does not answer for metrics", exc_info=error)
        return None


def _whole_place(parts: Sequence[Place]) -> Place:
    """The place of a handler with these partitions: of the last one, and the lags of different logs together."""
    behind: dict[int, int] = {}
    for part in parts:
        log = log_of_position(part.position)
        behind[log] = max(behind.get(log, 0), part.lag.events)
    last = max(parts, key=lambda part: (part.lag.events, -part.position))
    return Place(last.position, Lag(sum(behind.values()), max(part.lag.seconds for part in parts)))


def _actors(runtime: Runtime) -> dict[str, OfActors]:
    found: dict[str, OfActors] = {}
    for cell in tuple(runtime.actors.cells):
        name = type(cell.actor).__name__
        known = found.get(name, OfActors(0, 0, 0.0))
        oldest = cell.inbox.oldest() or 0.0
        found[name] = OfActors(known.count + 1, known.waiting + len(cell.inbox), max(known.oldest, oldest))
    return found


_STATES = ("live", "catching up", "restarting", "handing over", "paused", "stopped", "standby")
"""States of handlers; of partitions in different ones the first counts: this process runs a part of the handler."""


def _whole(handlers: Mapping[str, HandlerStatistics]) -> dict[str, HandlerStatistics]:
    found: dict[str, HandlerStatistics] = {}
    for name, part in handlers.items():
        whole = whole_name(name)
        known = found.get(whole)
        if known is None:
            found[whole] = part
            continue
        found[whole] = HandlerStatistics(
            min(known.state, part.state, key=_STATES.index),
            min(known.position, part.position),
            known.waiting + part.waiting,
            known.handled + part.handled,
            known.failures + part.failures,
            known.restarts + part.restarts,
            known.dead_letters + part.dead_letters,
        )
    return found
