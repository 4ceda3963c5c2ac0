"""`Metrics`: what a program makes to have its system measured, and to export that."""

from collections.abc import Iterator
from importlib.util import find_spec
from itertools import accumulate
from time import monotonic
from typing import TYPE_CHECKING, Any
from weakref import ReferenceType, WeakKeyDictionary, ref

from uno_actors.actors.watchdog import watchdog
from uno_actors.errors import MissingExtra, SystemNotRunning
from uno_actors.ops.asking import Question, Unanswered, from_thread, on_loop_of
from uno_actors.ops.metrics.definitions import DEFINITIONS, SYSTEM, Definition
from uno_actors.ops.metrics.reading import Reading, StoreReading, read_store, read_system
from uno_actors.ops.metrics.recorder import Distribution, Recorder
from uno_actors.ops.metrics.values import Value, values_of
from uno_actors.printable import printable
from uno_actors.quantities import check_duration
from uno_actors.system.system import ActorSystem

if TYPE_CHECKING:
    from prometheus_client.metrics_core import Metric

Exported = tuple[Definition, list[Value]]

FRESH = 0.5
"""Seconds for which what was read is shown again, so that one export reads once, however many metrics it asks for."""


_MADE: "WeakKeyDictionary[ActorSystem, ReferenceType[Metrics]]" = WeakKeyDictionary()
"""The latest metrics that a program has made for each system."""


def metrics_of(system: ActorSystem) -> "Metrics | None":
    """The metrics that the program has made for a system; ``None`` if it has none, or has dropped them."""
    made = _MADE.get(system)
    return None if made is None else made()


def has_prometheus() -> bool:
    """Whether the library for Prometheus text is installed."""
    return find_spec("prometheus_client") is not None


class Metrics:
    """Measures a system; make it before the system starts.

    It is a collector of `prometheus_client`, too: ``REGISTRY.register(metrics)`` adds its metrics to those of a program
    that has others.

    Args:
        system: The system, not started yet.
        store_within: Seconds in which its store must answer; otherwise the metrics of the store, and the lags, are left
            out, and ``uno_store_up`` is 0.

    Raises:
        SystemNotRunning: The system has started: it would be too late to count everything.
        InvalidNumber: ``store_within`` is not a duration.
    """

    def __init__(self, system: ActorSystem, *, store_within: float = 2.0) -> None:
        check_duration("store_within", store_within)
        self._system = system
        self._store_within = store_within
        self._recorder = Recorder(self._listen)
        system.observe(self._recorder)
        self._question: Question[StoreReading | None] = Question(
            lambda: read_store(self._system), "metrics of the store"
        )
        self._last = Reading(is_running=False)
        self._read_at = -FRESH
        self._values: tuple[Reading, list[Exported]] | None = None
        _MADE[system] = ref(self)

    @property
    def system(self) -> ActorSystem:
        """The system that is measured."""
        return self._system

    @property
    def recorder(self) -> Recorder:
        """What is counted as it happens."""
        return self._recorder

    # --- reading ---

    async def read(self) -> Reading:
        """Ask the system and its store; from any event loop."""
        runtime = self._system._runtime
        if runtime is None or self._system._state in ("not started", "stopped"):
            return self._keep(read_system(self._system, None))
        try:
            self._system._running()
        except SystemNotRunning:  # it is starting, or belongs to the parent of this process
            return self._keep(Reading(is_running=False))
        return await on_loop_of(runtime.dispatcher, self._read())

    def _listen(self) -> None:
        runtime = self._system._runtime
        if runtime is not None:
            watchdog.on_pulse(runtime.dispatcher, self._recorder.beat)

    async def _read(self) -> Reading:
        try:
            store = await self._question.answer(self._store_within)
        except Unanswered:
            store = None
        return self._keep(read_system(self._system, store))

    def _keep(self, reading: Reading) -> Reading:
        self._last, self._read_at = reading, monotonic()
        return reading

    def latest(self) -> Reading:
        """What was read just now, or is read now if that is over `FRESH` seconds old; from any thread.

        On the system's own event loop nothing can be awaited here: then the answer of the store is the last one.
        """
        if monotonic() - self._read_at < FRESH:
            return self._last
        runtime = self._system._runtime
        if runtime is None or self._system._state in ("not started", "starting", "stopped"):
            return self._keep(read_system(self._system, None))
        if not runtime.dispatcher.is_current():
            return from_thread(runtime.dispatcher, self.read, self._store_within + 1.0) or self._last
        return self._keep(read_system(self._system, self._last.store))

    def values(self) -> list[Exported]:
        """All metrics with their series, of the `latest` reading; from any thread."""
        reading, known = self.latest(), self._values
        if known is None or known[0] is not reading:
            known = self._values = reading, list(values_of(reading, self._recorder))
        return known[1]

    # --- Prometheus ---

    async def text(self) -> str:
        """The metrics as Prometheus text, read now; from any event loop.

        Raises:
            MissingExtra: prometheus-client is not installed.
        """
        await self.read()
        return self.prometheus_text()

    def prometheus_text(self) -> str:
        """The metrics as Prometheus text; from any thread. See `latest`.

        Raises:
            MissingExtra: prometheus-client is not installed.
        """
        return self.exposition("")[0].decode()

    def exposition(self, accept: str) -> tuple[bytes, str]:
        """The metrics in the format that a scraper accepts, and the media type.

        Args:
            accept: The request's header ``Accept``.

        Raises:
            MissingExtra: prometheus-client is not installed.
        """
        try:
            from prometheus_client.exposition import choose_encoder  # noqa: PLC0415 - of an extra
        except ImportError as missing:
            raise MissingExtra("Prometheus text", "metrics", missing) from missing
        encode, media_type = choose_encoder(accept)
        return encode(self), media_type

    def describe(self) -> "list[Metric]":
        """For `prometheus_client`, which refuses two collectors with metrics of the same name: the names alone."""
        return [_family(definition, self._constant, []) for definition in DEFINITIONS]

    def collect(self) -> "Iterator[Metric]":
        """For `prometheus_client`: the metrics now; from any thread."""
        for definition, values in self.values():
            if values:
                yield _family(definition, self._constant, values)

    @property
    def _constant(self) -> str:
        return printable(self._system.name)

    # --- OpenTelemetry ---

    def opentelemetry(self, meter_provider: Any = None) -> None:
        """Export the metrics through OpenTelemetry too, to the SDK that the program has set up.

        Args:
            meter_provider: Default is the program's global one.

        Raises:
            MissingExtra: opentelemetry-api is not installed.
        """
        try:
            from uno_actors.ops.metrics.opentelemetry import instruments  # noqa: PLC0415 - of an extra
        except ImportError as missing:
            raise MissingExtra("OpenTelemetry", "otel", missing) from missing
        self._recorder.sampler = instruments(self._constant, self.values, meter_provider)


def _family(definition: Definition, system: str, values: list[Value]) -> "Metric":
    from prometheus_client import metrics_core  # noqa: PLC0415 - of an extra

    labels = [SYSTEM, *definition.labels]
    name, says = definition.prometheus_name, definition.help
    match definition.kind:
        case "counter":
            family: Any = metrics_core.CounterMetricFamily(name, says, labels=labels)
        case "gauge":
            family = metrics_core.GaugeMetricFamily(name, says, labels=labels)
        case "histogram":
            family = metrics_core.HistogramMetricFamily(name, says, labels=labels)
    for value in values:
        shown = [system, *value.labels]
        if isinstance(value.value, Distribution):
            family.add_metric(shown, _buckets(value.value), value.value.sum)
        else:
            family.add_metric(shown, value.value)
    return family  # type: ignore[no-any-return]


def _buckets(found: Distribution) -> list[tuple[str, float]]:
    """The buckets as Prometheus has them: each with all values up to its limit."""
    limits = [*map(repr, found.limits), "+Inf"]
    return list(zip(limits, accumulate(found.counts), strict=True))
