"""What traces cost: durable commands with them, beside the same without."""

from functools import partial

from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor, SpanExporter, SpanExportResult
from opentelemetry.sdk.trace.sampling import ALWAYS_ON, ParentBased, Sampler, TraceIdRatioBased

from tests.benchmarks.accounts import Account, Deposit
from tests.benchmarks.measuring import Measured, directory, in_flight, in_turn
from uno_actors import ActorSystem, Observer
from uno_actors.ops.tracing import Tracing

AGGREGATES = IN_FLIGHT = 1000
COMMANDS = 20_000

SAMPLE = 0.01
"""Share of the traces that are sampled."""


class NoExporter(SpanExporter):
    """Takes spans and sends them nowhere: what they cost on the way is the exporter's."""

    def export(self, spans: object) -> SpanExportResult:
        return SpanExportResult.SUCCESS


def tracing(sampler: Sampler | None = None) -> Tracing:
    provider = TracerProvider(sampler=sampler or ALWAYS_ON)
    provider.add_span_processor(BatchSpanProcessor(NoExporter()))
    return Tracing(provider, sample=SAMPLE if sampler is None else 1.0)


async def commands(*observers: Observer) -> float:
    with directory() as path:
        async with ActorSystem(f"lmdb:{path / 'store'}", handlers=[], observers=observers) as system:
            refs = [system.aggregate(Account, f"account-{number}") for number in range(AGGREGATES)]
            return await in_flight(COMMANDS, IN_FLIGHT, lambda n: refs[n % AGGREGATES].ask(Deposit(amount=1)))


async def traced() -> list[Measured]:
    by_sdk = tracing(ParentBased(TraceIdRatioBased(SAMPLE)))
    plain, sampled, by_sampler = await in_turn(
        partial(commands), partial(commands, tracing()), partial(commands, by_sdk), rounds=5
    )
    what = f"durable commands/s with traces, of which {SAMPLE:.0%} are sampled"
    return [
        Measured(what, sampled, "without", plain, 0.85),
        Measured("  the same by the sampler of the SDK", by_sampler, "without", plain),
    ]
