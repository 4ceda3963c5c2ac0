"""What traces cost: durable commands with them, beside the same without."""

from functools import partial

from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor, SpanExporter, SpanExportResult
from opentelemetry.sdk.trace.sampling import ParentBased, TraceIdRatioBased

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


def tracing() -> Tracing:
    provider = TracerProvider(sampler=ParentBased(TraceIdRatioBased(SAMPLE)))
    provider.add_span_processor(BatchSpanProcessor(NoExporter()))
    return Tracing(provider)


async def commands(*observers: Observer) -> float:
    with directory() as path:
        async with ActorSystem(f"lmdb:{path / 'store'}", handlers=[], observers=observers) as system:
            refs = [system.aggregate(Account, f"account-{number}") for number in range(AGGREGATES)]
            return await in_flight(COMMANDS, IN_FLIGHT, lambda n: refs[n % AGGREGATES].ask(Deposit(amount=1)))


async def traced() -> list[Measured]:
    plain, listening, sampled = await in_turn(
        partial(commands), partial(commands, Observer()), partial(commands, tracing()), rounds=5
    )
    return [
        Measured("durable commands/s with an observer that does nothing", listening, "without", plain, 0.95),
        Measured(f"  with traces, of which {SAMPLE:.0%} are sampled", sampled, "without", plain, 0.85),
    ]
