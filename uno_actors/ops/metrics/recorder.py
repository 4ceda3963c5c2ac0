"""What is counted as it happens: outcomes of commands, events by type, and the histograms of all durations.

The recorder overrides context-free methods of `uno_actors.observing.Observer` alone, so that a system that is only
measured makes no context for each message. It costs about a microsecond for each command.
"""

import threading
from bisect import bisect_right
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import chain
from operator import attrgetter
from typing import Any, Generic, TypeVar

from typing_extensions import override

from uno_actors.errors import AskTimeout, CommandRejected, ConcurrencyConflict
from uno_actors.handlers.partitions import whole_name
from uno_actors.observing import CommitGroup, Observer
from uno_actors.ops.metrics.definitions import COUNTS, MOST_SERIES, OTHER, SECONDS
from uno_actors.ops.metrics.sampling import Labels, Sampler
from uno_actors.store.codec import StreamId
from uno_actors.store.records import Appended

S = TypeVar("S")

OUTCOMES = ("handled", "rejected", "timeout", "conflict", "failed")

_KIND = attrgetter("aggregate_type", "event_type")

KEPT = 1000
"""Appends after which the values of their commands are counted, so that counting holds the loop for a moment only."""


@dataclass(frozen=True, slots=True)
class Distribution:
    """The value of a histogram.

    Attributes:
        limits: Upper limits of the buckets, without the last one, which has no limit.
        counts: Values in each bucket, not added up; one more than ``limits``.
        sum: Of all values.
    """

    limits: Sequence[float]
    counts: Sequence[int]
    sum: float

    @property
    def count(self) -> int:
        """Number of values."""
        return sum(self.counts)


class Histogram:
    """Counts values by size.

    Values are kept as they come and counted many at a time: sorting them and looking for the limits among them takes a
    fraction of the time of looking for each value among the limits.

    Args:
        limits: Upper limits of the buckets.

    Attributes:
        add: Adds a value; one that equals a limit belongs to its bucket. From one thread at a time.
    """

    __slots__ = ("_counts", "_kept", "_limits", "_lock", "_sum", "add")

    def __init__(self, limits: Sequence[float]) -> None:
        self._limits = limits
        self._counts = [0] * (len(limits) + 1)
        self._sum = 0.0
        self._kept: list[float] = []
        self._lock = threading.Lock()
        self.add: Callable[[float], None] = self._kept.append

    @property
    def waiting(self) -> int:
        """Values that are kept and not counted yet."""
        return len(self._kept)

    def fold(self) -> None:
        """Count the values that are kept; from any thread."""
        with self._lock:
            values = self._kept[:]
            del self._kept[: len(values)]
            if not values:
                return
            values.sort()
            below = 0
            for bucket, limit in enumerate(self._limits):
                up_to = bisect_right(values, limit)
                self._counts[bucket] += up_to - below
                below = up_to
            self._counts[-1] += len(values) - below
            self._sum += sum(values)

    def value(self) -> Distribution:
        """The counts now; from any thread."""
        self.fold()
        return Distribution(self._limits, tuple(self._counts), self._sum)


class Family(Generic[S]):
    """The series of one metric by their labels, at most `MOST_SERIES`; all others share one.

    Args:
        make: Makes a new series.
        labels: Number of labels.
        most: Maximum number of series.
    """

    def __init__(self, make: Callable[[], S], labels: int, most: int = MOST_SERIES) -> None:
        self._make = make
        self._most = most
        self._other = (OTHER,) * labels
        self._series: dict[Labels, S] = {}

    def bounded(self, labels: Labels) -> Labels:
        """``labels``, or those of the series that is shared."""
        if labels not in self._series and len(self._series) >= self._most:
            return self._other
        return labels

    def __getitem__(self, labels: Labels) -> S:
        found = self._series.get(labels)
        if found is None:
            found = self._series.setdefault(self.bounded(labels), self._make())
        return found

    def items(self) -> Iterator[tuple[Labels, S]]:
        """All series; safe while others are added."""
        return iter(tuple(self._series.items()))


class Count:
    """A number that grows."""

    __slots__ = ("value",)

    def __init__(self) -> None:
        self.value = 0


class _OfCommand:
    """What is counted for one command of one aggregate type; several of them may share a histogram."""

    __slots__ = ("add_deciding", "add_time", "add_waited", "aggregate", "handled", "labels", "outcomes")

    def __init__(
        self,
        aggregate: str,
        labels: Labels,
        *,
        waited: Histogram,
        deciding: Histogram,
        time: Histogram,
        outcomes: Sequence[Count],
    ) -> None:
        self.aggregate = aggregate
        self.labels = labels
        self.add_waited = waited.add
        self.add_deciding = deciding.add
        self.add_time = time.add
        self.handled, *_ = outcomes
        self.outcomes = dict(zip(OUTCOMES, outcomes, strict=True))


class Recorder(Observer):
    """Counts what a system does.

    Args:
        started: Called when the system has started.

    Attributes:
        sampler: Gets values one by one; ``None`` if no exporter needs them.
    """

    def __init__(self, started: Callable[[], object] = lambda: None) -> None:
        self._started = started
        self.sampler: Sampler | None = None
        self.commands: Family[Count] = Family(Count, 3, MOST_SERIES * len(OUTCOMES))
        self.events: Family[Count] = Family(Count, 2)
        self.waited: Family[Histogram] = Family(_durations, 1)
        self.deciding: Family[Histogram] = Family(_durations, 2)
        self.time: Family[Histogram] = Family(_durations, 1)
        self.loads: Family[Histogram] = Family(_durations, 1)
        self.handlers: Family[Histogram] = Family(_durations, 1)
        self.appends = _durations()
        self.groups = Histogram(COUNTS)
        self.delays = _durations()
        self.hops = _durations()
        self._of_commands: dict[type, _OfCommand] = {}
        self._of_events: dict[tuple[str | None, str], Count] = {}
        self._lock = threading.Lock()  # handlers may be called on worker threads
        self._kept = 0  # appends since the values were counted

    def histograms(self) -> Iterator[tuple[str, Labels, Histogram]]:
        """All histograms: name of the metric, labels, histogram."""
        families = {
            "uno.command.queue.time": self.waited,
            "uno.command.decide.time": self.deciding,
            "uno.command.time": self.time,
            "uno.aggregate.load.time": self.loads,
            "uno.handler.time": self.handlers,
        }
        for name, family in families.items():
            for labels, histogram in family.items():
                yield name, labels, histogram
        alone = {
            "uno.append.time": self.appends,
            "uno.append.group": self.groups,
            "uno.loop.delay": self.delays,
            "uno.hop.time": self.hops,
        }
        for name, histogram in alone.items():
            yield name, (), histogram

    @override
    def system_started(self) -> None:
        self._started()

    # --- commands ---

    @override
    def command_measured(
        self,
        stream: StreamId,
        command: Any,
        waited: float,
        deciding: float | None,
        seconds: float,
        error: BaseException | None,
    ) -> None:
        series = self._of_commands.get(command.__class__)
        if series is None or series.aggregate != stream[0]:  # a command is nearly always one of one type
            series = self._series_of(stream.aggregate_type, command.__class__)
        series.add_waited(waited)
        series.add_time(seconds)
        if deciding is not None:
            series.add_deciding(deciding)
        if error is None:
            series.handled.value += 1
        else:
            series.outcomes[outcome_of(error)].value += 1
        if (sampler := self.sampler) is not None and sampler.wants("commands"):
            sampler.keep("commands", "uno.command.queue.time", series.labels[:1], waited)
            sampler.keep("commands", "uno.command.time", series.labels[:1], seconds)
            if deciding is not None:
                sampler.keep("commands", "uno.command.decide.time", series.labels, deciding)

    def _series_of(self, aggregate: str, command: type) -> _OfCommand:
        labels = self.deciding.bounded((aggregate, command.__name__))
        deciding = self.deciding[labels]
        outcomes = [self.commands[(*labels, outcome)] for outcome in OUTCOMES]
        series = _OfCommand(
            aggregate,
            labels,
            waited=self.waited[labels[:1]],
            deciding=deciding,
            time=self.time[labels[:1]],
            outcomes=outcomes,
        )
        if len(self._of_commands) < MOST_SERIES or command in self._of_commands:
            self._of_commands[command] = series
        return series

    @override
    def aggregate_loaded(
        self, stream: StreamId, seconds: float, events: int, error: BaseException | None
    ) -> None:
        self._add_to("uno.aggregate.load.time", self.loads, stream.aggregate_type, seconds)

    # --- commits ---

    @override
    def append_ended(self, group: CommitGroup, outcomes: Sequence[Any], seconds: float) -> None:
        self._add("uno.append.time", self.appends, (), seconds)
        self._add("uno.append.group", self.groups, (), len(group.appends))
        self._kept += len(group.appends)
        if self._kept > KEPT:
            self._fold()
        recorded = [
            append.records
            for append, outcome in zip(group.appends, outcomes, strict=True)
            if type(outcome) is Appended
        ]
        for kind, count in Counter(map(_KIND, chain.from_iterable(recorded))).items():
            series = self._of_events.get(kind)
            if series is None:
                series = self.events[kind[0] or "", kind[1]]
                if len(self._of_events) < MOST_SERIES:
                    self._of_events[kind] = series
            series.value += count

    # --- handlers, hops and the loop ---

    @override
    def handler_measured(
        self, handler: str, events: int, seconds: float, error: BaseException | None
    ) -> None:
        with self._lock:
            self._add_to("uno.handler.time", self.handlers, whole_name(handler), seconds)

    @override
    def hop_measured(self, node: str, seconds: float, error: BaseException | str | None) -> None:
        self._add("uno.hop.time", self.hops, (), seconds)

    def beat(self, delay: float) -> None:
        """Twice per second, on the loop: note how late it is, and pass on what is sampled."""
        self._add("uno.loop.delay", self.delays, (), delay)
        self._fold()
        if self.sampler is not None:
            self.sampler.beat()

    def _fold(self) -> None:
        self._kept = 0
        for _, _, histogram in self.histograms():
            histogram.fold()

    def _add_to(self, name: str, family: Family[Histogram], label: str, value: float) -> None:
        labels = family.bounded((label,))
        self._add(name, family[labels], labels, value)

    def _add(self, name: str, histogram: Histogram, labels: Labels, value: float) -> None:
        histogram.add(value)
        if self.sampler is not None:
            self.sampler.add(name, labels, value)


def outcome_of(error: BaseException) -> str:
    """The outcome of a command that was answered with ``error``, one of `OUTCOMES`."""
    match error:
        case CommandRejected():
            return "rejected"
        case AskTimeout():
            return "timeout"
        case ConcurrencyConflict():
            return "conflict"
    return "failed"


def _durations() -> Histogram:
    return Histogram(SECONDS)
