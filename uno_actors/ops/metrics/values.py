"""The value of each metric: from what was read, and from what was counted."""

from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any, NamedTuple

from uno_actors.handlers.subscription import HandlerStatistics
from uno_actors.ops.metrics.definitions import DEFINITIONS, MOST_SERIES, OTHER, Definition
from uno_actors.ops.metrics.reading import OfActors, Reading
from uno_actors.ops.metrics.recorder import Distribution, Recorder
from uno_actors.ops.metrics.sampling import Labels
from uno_actors.printable import printable


class Value(NamedTuple):
    """One series of a metric.

    Attributes:
        labels: The values of its labels.
        value: The number, or of a histogram its distribution.
    """

    labels: Labels
    value: float | Distribution


Numbers = Iterable[tuple[Labels, float]]
Source = Callable[[Reading, Recorder], Numbers]


def _of_system(attribute: str) -> Source:
    def source(reading: Reading, _: Recorder) -> Numbers:
        number = None if reading.statistics is None else getattr(reading.statistics, attribute)
        return () if number is None else (((), number),)

    return source


def _by(names: Callable[[Reading], Mapping[str, Any]], number: Callable[[Any], float | None]) -> Source:
    """One series for each name."""

    def source(reading: Reading, _: Recorder) -> Numbers:
        found = ((name, number(each)) for name, each in names(reading).items())
        return [((name,), value) for name, value in found if value is not None]

    return source


def _actors(reading: Reading) -> Mapping[str, OfActors]:
    """The actors by class, the largest classes by themselves."""
    if len(reading.actors) <= MOST_SERIES:
        return reading.actors
    ranked = sorted(reading.actors.items(), key=lambda item: (item[1].waiting, item[1].count), reverse=True)
    rest = [each for _, each in ranked[MOST_SERIES:]]
    other = OfActors(
        sum(each.count for each in rest),
        sum(each.waiting for each in rest),
        max(each.oldest for each in rest),
    )
    return {**dict(ranked[:MOST_SERIES]), OTHER: other}


def _handlers(reading: Reading) -> Mapping[str, HandlerStatistics]:
    return reading.handlers


def _supervisors(reading: Reading) -> Mapping[str, Any]:
    return {} if reading.statistics is None else reading.statistics.supervisors


def _places(reading: Reading) -> Mapping[str, Any]:
    return {} if reading.store is None else reading.store.places


def _attempts(reading: Reading, _: Recorder) -> Numbers:
    for name, each in reading.handlers.items():
        yield (name, "handled"), each.handled
        yield (name, "failed"), each.failures


def _dead_letters(reading: Reading, _: Recorder) -> Numbers:
    """Of the system's handlers, and of others that have some."""
    if reading.store is None:
        return []
    counts = dict.fromkeys(reading.handlers, 0) | dict(reading.store.dead_letters)
    return [((name,), count) for name, count in counts.items()]


def _threads(reading: Reading, _: Recorder) -> Numbers:
    if (statistics := reading.statistics) is None:
        return []
    workers = statistics.dispatcher.workers
    return [(("idle",), workers.idle), (("busy",), workers.busy), (("blocked",), workers.blocked)]


def _functions(reading: Reading, _: Recorder) -> Numbers:
    return [] if reading.statistics is None else [((), reading.statistics.dispatcher.workers.waiting)]


def _ends(reading: Reading, _: Recorder) -> Numbers:
    ends = () if reading.store is None else reading.store.ends
    return [((str(number),), end) for number, end in enumerate(ends)]


def _usage(attribute: str) -> Source:
    def source(reading: Reading, _: Recorder) -> Numbers:
        usage = None if reading.store is None else reading.store.usage
        number = getattr(usage, attribute, None)
        return [] if number is None else [((), number)]

    return source


def _cluster(attribute: str) -> Source:
    def source(reading: Reading, _: Recorder) -> Numbers:
        return [] if reading.cluster is None else [((), getattr(reading.cluster, attribute))]

    return source


def _scheduler(name: str, *, runs: bool = False) -> Source:
    """A figure of the scheduler; with ``runs`` only in the process that keeps the list."""

    def read(reading: Reading, _: Recorder) -> Numbers:
        scheduler = None if reading.statistics is None else reading.statistics.scheduler
        return [] if scheduler is None or (runs and not scheduler.runs) else [((), getattr(scheduler, name))]

    return read


def _ways(reading: Reading, _: Recorder) -> Numbers:
    if (cluster := reading.cluster) is None:
        return []
    ways = {
        "local": cluster.local,
        "sent": cluster.sent,
        "sent again": cluster.sent_again,
        "served": cluster.served,
    }
    return [((way,), count) for way, count in ways.items()]


_AT_WORK = ("live", "catching up", "restarting", "handing over")

SOURCES: dict[str, Source] = {
    "uno.system.running": lambda reading, _: [((), reading.is_running)],
    "uno.commands": lambda _, recorder: [(key, count.value) for key, count in recorder.commands.items()],
    "uno.commands.waiting": _of_system("commands_waiting"),
    "uno.commands.oldest": _of_system("oldest_command"),
    "uno.commands.rerun": _of_system("reruns"),
    "uno.commands.repeated": _of_system("repeated"),
    "uno.events": lambda _, recorder: [(key, count.value) for key, count in recorder.events.items()],
    "uno.events.replayed": _of_system("events_replayed"),
    "uno.aggregates.active": _of_system("active_aggregates"),
    "uno.aggregates.activated": _of_system("activations"),
    "uno.aggregates.passivated": _of_system("passivations"),
    "uno.snapshots": _of_system("snapshots"),
    "uno.actors": _by(_actors, lambda each: each.count),
    "uno.mailbox.waiting": _by(_actors, lambda each: each.waiting),
    "uno.mailbox.oldest": _by(_actors, lambda each: each.oldest),
    "uno.dead.messages": _of_system("dead_messages"),
    "uno.handler.position": _by(_places, lambda place: place.position),
    "uno.handler.lag": _by(_places, lambda place: place.lag.events),
    "uno.handler.lag.time": _by(_places, lambda place: place.lag.seconds),
    "uno.handler.running": _by(_handlers, lambda each: each.state in _AT_WORK),
    "uno.handler.paused": _by(_handlers, lambda each: each.state == "paused"),
    "uno.handler.waiting": _by(_handlers, lambda each: each.waiting),
    "uno.handler.events": _by(_handlers, lambda each: each.handled),
    "uno.handler.attempts": _attempts,
    "uno.handler.restarts": _by(_handlers, lambda each: each.restarts),
    "uno.handler.set_aside": _by(_handlers, lambda each: each.dead_letters),
    "uno.dead.letters": _dead_letters,
    "uno.schedules.waiting": _scheduler("waiting", runs=True),
    "uno.schedules.late.time": _scheduler("late_seconds", runs=True),
    "uno.schedules.fired": _scheduler("fired"),
    "uno.schedules.sent": _scheduler("sent"),
    "uno.schedules.rejected": _scheduler("rejected"),
    "uno.schedules.failed": _scheduler("failed"),
    "uno.supervisor.running": _by(_supervisors, lambda each: each.state == "running"),
    "uno.supervisor.restarts": _by(_supervisors, lambda each: each.restarts),
    "uno.supervisor.budget.left": _by(_supervisors, lambda each: each.left),
    "uno.loop.holds": lambda reading, _: [((), reading.holds)],
    "uno.worker.threads": _threads,
    "uno.worker.waiting": _functions,
    "uno.store.up": lambda reading, _: [((), reading.store is not None)],
    "uno.store.size": _usage("size"),
    "uno.log.position": _ends,
    "uno.store.commits": _usage("commits"),
    "uno.store.commit.time": _usage("commit_seconds"),
    "uno.cluster.members": lambda reading, _: [] if reading.members is None else [((), reading.members)],
    "uno.cluster.commands": _ways,
    "uno.cluster.waiting": _cluster("waiting"),
    "uno.cluster.homeless": _cluster("homeless"),
    "uno.cluster.lent": _cluster("lent"),
    "uno.cluster.borrowed": _cluster("borrowed"),
    "uno.cluster.recalled": _cluster("recalled"),
}
"""Where the values of each metric come from, except those of histograms, which the recorder has by name."""


def values_of(reading: Reading, recorder: Recorder) -> Iterator[tuple[Definition, list[Value]]]:
    """All metrics with their series, in the order of the definitions.

    Label values are made printable, so that no name can break a line of the text; names that become equal by that are
    kept apart by nothing, and the last one counts.
    """
    histograms: dict[str, dict[Labels, Value]] = {}
    for name, labels, histogram in recorder.histograms():
        shown = tuple(map(printable, labels))
        histograms.setdefault(name, {})[shown] = Value(shown, histogram.value())
    for definition in DEFINITIONS:
        if definition.kind == "histogram":
            yield definition, [*histograms.get(definition.name, {}).values()]
            continue
        series: dict[Labels, Value] = {}
        for labels, number in SOURCES[definition.name](reading, recorder):
            shown = tuple(map(printable, labels))
            series[shown] = Value(shown, float(number))
        yield definition, [*series.values()]
