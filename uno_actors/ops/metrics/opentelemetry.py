"""The metrics as instruments of an OpenTelemetry meter.

Counters and gauges are observable: an exporter asks for them when it exports. OpenTelemetry takes no ready histograms,
so each value of one is recorded by itself, or a random share of them if there are many; see `Sampler`.
"""

from collections.abc import Callable, Iterable, Iterator
from typing import Any

from opentelemetry.metrics import CallbackOptions, Histogram, MeterProvider, Observation, get_meter_provider

from uno_actors.ops.metrics.definitions import BY_NAME, DEFINITIONS, SYSTEM, Definition
from uno_actors.ops.metrics.sampling import Labels, Sampler
from uno_actors.ops.metrics.values import Value
from uno_actors.printable import printable

Values = Callable[[], Iterable[tuple[Definition, Iterable[Value]]]]

SCOPE = "uno_actors"
"""The name of the meter."""


def instruments(system: str, values: Values, provider: MeterProvider | None = None) -> Sampler:
    """Make the instruments; return what values of histograms are to be given to.

    Args:
        system: Name of the system.
        values: Returns all metrics with their series; called from the threads of exporters.
        provider: Makes the meter; default is the global one.
    """
    meter = (provider or get_meter_provider()).get_meter(SCOPE)
    histograms: dict[str, Histogram] = {}
    for each in DEFINITIONS:
        about = {"unit": each.unit or "1", "description": each.help}
        match each.kind:
            case "counter":
                meter.create_observable_counter(each.name, [_observe(system, values, each)], **about)
            case "gauge":
                meter.create_observable_gauge(each.name, [_observe(system, values, each)], **about)
            case "histogram":
                histograms[each.name] = _histogram(meter, each, about)

    def take(name: str, labels: Labels, value: float) -> None:
        histograms[name].record(value, attributes_of(BY_NAME[name], system, labels))

    return Sampler(take)


def attributes_of(definition: Definition, system: str, labels: Labels) -> dict[str, str]:
    """The labels as attributes, whose names begin with ``uno.``."""
    named = zip((SYSTEM, *definition.labels), (system, *labels), strict=True)
    return {f"uno.{name}": printable(value) for name, value in named}


def _observe(
    system: str, values: Values, definition: Definition
) -> Callable[[CallbackOptions], Iterator[Observation]]:
    def observations(_: CallbackOptions) -> Iterator[Observation]:
        for found, series in values():
            if found is definition:
                for each in series:
                    assert isinstance(each.value, float)
                    yield Observation(each.value, attributes_of(definition, system, each.labels))

    return observations


def _histogram(meter: Any, definition: Definition, about: dict[str, str]) -> Histogram:
    limits = definition.buckets
    try:
        found = meter.create_histogram(definition.name, explicit_bucket_boundaries_advisory=limits, **about)
    except TypeError:  # before version 1.30 of the API, which then has the SDK's own limits
        found = meter.create_histogram(definition.name, **about)
    assert isinstance(found, Histogram)
    return found
