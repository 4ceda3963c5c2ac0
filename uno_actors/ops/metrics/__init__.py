"""The metrics of a system: defined once, exported as Prometheus text and through OpenTelemetry.

Read in this order:

- `uno_actors.ops.metrics.definitions`: the one table of what is measured.
- `uno_actors.ops.metrics.reading`: what a system and its store report when they are asked.
- `uno_actors.ops.metrics.recorder`: what is counted as it happens.
- `uno_actors.ops.metrics.values`: the values of all metrics, from both.
- `uno_actors.ops.metrics.exporter`: `Metrics`, which a program makes for a system.
- `uno_actors.ops.metrics.opentelemetry`: the same values as instruments of a meter.
"""
