"""Traces: the tree of a command and all that it causes, over handlers, processes and nodes."""

import asyncio
import re
import subprocess
import sys
from collections import Counter
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from opentelemetry import trace
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.sdk.trace.sampling import ALWAYS_OFF, ALWAYS_ON, ParentBased, Sampler
from opentelemetry.trace import SpanKind, StatusCode, format_trace_id

from tests.bank import BankStore
from tests.cluster.nodes import all_see, id_of, system_on
from tests.waiting import until
from uno_actors import (
    ActorSystem,
    AggregateRoot,
    Backoff,
    Command,
    CommandRejected,
    DomainEvent,
    InvalidNumber,
    Observer,
    ProcessManager,
    Supervisor,
    event_registry,
    handles,
    reacts,
    subscribe,
)
from uno_actors.cluster.links.memory import MemoryNetwork
from uno_actors.handlers.spec import HandlerSpec
from uno_actors.ops import span_attributes, tracing
from uno_actors.ops.tracing import Tracing
from uno_actors.testing import inspect
from uno_stores import InMemoryEventStore

PAGE = Path(__file__).parents[2] / "docs" / "reference" / "telemetry.md"


class PurseFilled(DomainEvent):
    amount: int
    topic: str | None = "purses.filled"


class Fill(Command[int]):
    amount: int


class Purse(AggregateRoot):
    def __init__(self, id: str) -> None:
        super().__init__(id)
        self.content = 0

    @handles
    def fill(self, command: Fill) -> int:
        if command.amount == 0:
            raise CommandRejected("nothing to fill in")
        if command.amount < 0:
            raise ValueError("it is negative")
        self.register_event(PurseFilled(amount=command.amount))
        with trace.get_tracer("program").start_as_current_span("in the method"):
            return self.content

    def apply_pursefilled(self, event: PurseFilled) -> None:
        self.content += event.amount


class HandoverBegun(DomainEvent):
    to: str


class BeginHandover(Command[None]):
    to: str


class Handover(AggregateRoot):
    @handles
    def begin(self, command: BeginHandover) -> None:
        self.register_event(HandoverBegun(to=command.to))

    def apply_handoverbegun(self, event: HandoverBegun) -> None: ...


class HandingOver(ProcessManager):
    sends_to = (Purse,)

    @reacts
    def begun(self, event: HandoverBegun) -> None:
        self.send(Purse, event.to, Fill(amount=1))


class Spans:
    """The spans that were exported, and their tree."""

    def __init__(self, sampler: Sampler = ALWAYS_ON, sample: float = 1.0) -> None:
        self._exporter = InMemorySpanExporter()
        self.provider = TracerProvider(sampler=ParentBased(sampler))
        self.provider.add_span_processor(SimpleSpanProcessor(self._exporter))
        self.tracing = Tracing(self.provider, sample=sample)
        self.tracer = self.provider.get_tracer("program")

    @property
    def all(self) -> Sequence[ReadableSpan]:
        return self._exporter.get_finished_spans()

    @property
    def names(self) -> list[str]:
        return [span.name for span in self.all]

    def named(self, name: str) -> list[ReadableSpan]:
        return [span for span in self.all if span.name == name]

    def only(self, name: str) -> ReadableSpan:
        (found,) = self.named(name)
        return found

    def clear(self) -> None:
        self._exporter.clear()

    def tree(self, *without: str) -> Any:
        """Each span as its name and the spans below it, in order of their beginning; none of some names."""
        children: dict[int | None, list[ReadableSpan]] = {}
        for span in sorted(self.all, key=lambda span: span.start_time or 0):
            children.setdefault(None if span.parent is None else span.parent.span_id, []).append(span)

        def below(parent: int | None) -> list[Any]:
            return [
                (span.name, *below(span.context.span_id)) if below(span.context.span_id) else span.name
                for span in children.get(parent, ())
                if span.name not in without
            ]

        return below(None)


@pytest.fixture
def spans() -> Spans:
    return Spans()


def system_of(spans: Spans, **options: Any) -> ActorSystem:
    chosen: dict[str, Any] = {"aggregates": [Purse], "handlers": []} | options
    return ActorSystem("memory:", observers=[spans.tracing], **chosen)


async def test_spans_of_a_command_are_one_tree(spans: Spans) -> None:
    @subscribe(topic_pattern="purses.*", name="audit")
    async def audit(event: DomainEvent) -> None: ...

    async with system_of(spans, handlers=[audit]) as system:
        with spans.tracer.start_as_current_span("request"):
            assert await system.aggregate(Purse, "mine").ask(Fill(amount=3)) == 3
        await system.settled()
    assert spans.tree("in the method") == [
        (
            "request",
            (
                "ask Purse.Fill",
                (
                    "handle Purse.Fill",
                    "load Purse",
                    "decide Purse.Fill",
                    "append",
                    ("route PurseFilled", "process audit"),
                ),
            ),
        )
    ]


@asynccontextmanager
async def two_nodes(spans: Spans) -> AsyncIterator[tuple[ActorSystem, ActorSystem]]:
    """The first has the handler of the process, the second has none."""
    store, network = InMemoryEventStore(), MemoryNetwork()
    options: dict[str, Any] = {
        "aggregates": [Purse, Handover, HandingOver],
        "observers": [spans.tracing],
    }
    handler = HandingOver.handler("handing over")
    async with (
        system_on(store, network, "a", handlers=[handler], **options) as first,
        system_on(store, network, "b", **options) as second,
    ):
        await all_see([first, second])
        await first.settled()
        yield first, second


def owned_by(system: ActorSystem, kind: type[AggregateRoot]) -> str:
    owners = {name: system.cluster.owner(kind, name) for name in (f"it-{number}" for number in range(200))}
    return next(name for name, owner in owners.items() if owner and owner.id == id_of(system))


def spans_of_command(kind: str, command: str, *more: Any, loads: bool = True, hop: bool = False) -> Any:
    name = f"{kind}.{command}"
    load = [f"load {kind}"] if loads else []
    handled = (f"handle {name}", *load, f"decide {name}", *more)
    return (f"ask {name}", ("hop", handled) if hop else handled)


async def test_one_transfer_over_two_nodes_is_one_tree(spans: Spans) -> None:
    async with two_nodes(spans) as (first, second):
        id_here = owned_by(first, HandingOver)  # of the process, which has the id of the trace
        begin = BeginHandover(to=owned_by(second, Purse), correlation_id=id_here)
        with spans.tracer.start_as_current_span("request"):
            await first.aggregate(Handover, owned_by(first, Handover)).ask(begin)
        await until(lambda: spans.named("react HandingOver"))
        await first.settled()
    process = (
        "process handing over",
        (
            "react HandingOver",
            spans_of_command("HandingOver", "begun", "append"),  # the name of the method
            spans_of_command("Purse", "Fill", "append", hop=True),
        ),
        spans_of_command("HandingOver", "begun", "append", loads=False),
    )
    begun = spans_of_command("Handover", "BeginHandover", "append", ("route HandoverBegun", process))
    unwanted = ["in the method", "route uno_actors.Reacted"]
    assert spans.tree(*unwanted) == [("request", begun)]
    hop, handled = spans.only("hop"), spans.only("handle Purse.Fill")
    assert hop.kind is SpanKind.CLIENT
    assert handled.parent is not None
    assert handled.parent.span_id == hop.context.span_id
    assert handled.parent.is_remote
    assert str(hop.attributes["uno.node"]).startswith("b@")


async def test_handler_on_another_node_than_the_aggregate_is_linked_to_its_trace(spans: Spans) -> None:
    async with two_nodes(spans) as (first, second):
        begin = BeginHandover(to=owned_by(first, Purse), correlation_id=owned_by(first, HandingOver))
        with spans.tracer.start_as_current_span("request"):
            await first.aggregate(Handover, owned_by(second, Handover)).ask(begin)
        await until(lambda: spans.named("react HandingOver"))
        await first.settled()
    process, cause = spans.only("process handing over"), spans.only("handle Handover.BeginHandover")
    assert process.parent is None
    assert [link.context for link in process.links] == [cause.context]
    assert process.attributes["uno.catching_up"] is True
    assert spans.only("handle Purse.Fill").context.trace_id == process.context.trace_id


# --- ids ---


async def test_correlation_id_is_the_trace_id_unless_one_is_given(spans: Spans) -> None:
    async with system_of(spans) as system:
        purse = system.aggregate(Purse, "mine")
        with spans.tracer.start_as_current_span("request") as request:
            await purse.ask(Fill(amount=1))
            await purse.ask(Fill(amount=1, correlation_id="given"))
            await system.publisher.publish(PurseFilled(amount=1))
        await purse.ask(Fill(amount=1))
        recorded = [recorded.event.correlation_id async for recorded in system.store.read_all()]
    ours = format_trace_id(request.get_span_context().trace_id)
    last = spans.named("ask Purse.Fill")[-1]
    assert recorded == [ours, "given", ours, format_trace_id(last.context.trace_id)]
    assert last.parent is None


async def test_trace_that_is_not_sampled_still_gives_the_correlation_id() -> None:
    spans = Spans(ALWAYS_OFF)
    async with system_of(spans) as system:
        with spans.tracer.start_as_current_span("request") as request:
            await system.aggregate(Purse, "mine").ask(Fill(amount=1))
        recorded = [recorded.event.correlation_id async for recorded in system.store.read_all()]
    assert recorded == [format_trace_id(request.get_span_context().trace_id)]


# --- sampling ---


async def test_trace_that_is_not_sampled_has_no_spans_anywhere() -> None:
    spans, seen = Spans(ALWAYS_OFF), []

    @subscribe(topic_pattern="purses.*", name="audit")
    async def audit(event: DomainEvent) -> None:
        seen.append(trace.get_current_span().get_span_context())

    async with system_of(spans, handlers=[audit]) as system:
        await system.aggregate(Purse, "mine").ask(Fill(amount=1))
        await system.publisher.publish(PurseFilled(amount=1))
        system.bus.subscribe(audit, PurseFilled)
        await system.bus.publish(PurseFilled(amount=1))
        await system.settled()
    assert spans.names == []
    # The decision was made once for each message, and its trace is current in the handlers.
    assert len({each.trace_id for each in seen}) == 3
    assert [each.trace_flags.sampled for each in seen] == [False] * 3


async def test_share_of_messages_begins_a_trace_and_the_others_begin_none_anywhere() -> None:
    spans, seen = Spans(sample=0.0), []

    @subscribe(topic_pattern="purses.*", name="audit")
    async def audit(event: DomainEvent) -> None:
        seen.append(event.correlation_id)
        with spans.tracer.start_as_current_span("in the handler"):
            pass

    async with system_of(spans, handlers=[audit]) as system:
        purse = system.aggregate(Purse, "mine")
        await purse.ask(Fill(amount=1))
        await system.publisher.publish(PurseFilled(amount=1))
        system.bus.subscribe(audit, PurseFilled)
        await system.bus.publish(PurseFilled(amount=1))
        await system.settled()
        assert spans.names == []
        ids = [each for each in seen if each is not None]
        assert len(set(ids)) == len(ids) == 1  # the aggregate's; nothing gave one to the published events
        with spans.tracer.start_as_current_span("request") as request:  # decides for what is sent inside
            await purse.ask(Fill(amount=1))
        await system.settled()
    assert seen[-1] == format_trace_id(request.get_span_context().trace_id)
    assert Counter(spans.names)["ask Purse.Fill"] == 1
    assert Counter(spans.names)["in the handler"] == 1


async def test_handler_that_catches_up_begins_traces_for_the_same_share() -> None:
    spans, handled = Spans(sample=0.0), []

    async def late(event: PurseFilled) -> None:
        handled.append(event)
        with spans.tracer.start_as_current_span("in the handler"):
            pass

    async with ActorSystem(aggregates=[Purse], handlers=[]) as system:
        await system.aggregate(Purse, "mine").ask(Fill(amount=1))
        spec = HandlerSpec("late", late, event_type=PurseFilled, start="earliest")
        async with ActorSystem(system.store, handlers=[spec], observers=[spans.tracing]) as other:
            await other.settled()
    assert len(handled) == 1
    assert spans.names == []


@pytest.mark.parametrize("sample", [-0.1, 1.1, float("nan")])
def test_share_is_a_number_from_0_to_1(sample: float) -> None:
    with pytest.raises(InvalidNumber, match="sample must be a number from 0 to 1"):
        Tracing(sample=sample)


async def test_group_has_a_span_with_links_to_those_of_its_commands_that_are_sampled(spans: Spans) -> None:
    store = BankStore()
    store.event_registry = event_registry
    async with ActorSystem(store, aggregates=[Purse], handlers=[], observers=[spans.tracing]) as system:
        purses = [system.aggregate(Purse, f"{number}") for number in range(5)]
        for purse in purses:
            await purse.ask(Fill(amount=1))
        store.gate.clear()
        before = system.aggregate(Purse, "before").ask(Fill(amount=1))
        await until(lambda: store.commits_asked == 6)  # those that follow are committed together
        asked = [purse.ask(Fill(amount=1)) for purse in purses]
        not_sampled = trace.NonRecordingSpan(
            trace.SpanContext(trace_id=1, span_id=1, is_remote=True, trace_flags=trace.TraceFlags(0))
        )
        with trace.use_span(not_sampled):
            asked.append(system.aggregate(Purse, "0").ask(Fill(amount=1)))
        await until(lambda: len(inspect(system).aggregates) == 6 and all_decided(spans))
        spans.clear()
        store.gate.set()
        await asyncio.gather(before, *asked)
    append = spans.named("append")[1]
    handled = spans.named("handle Purse.Fill")[1:]
    assert len(handled) == 5
    assert {link.context.span_id for link in append.links} == {span.context.span_id for span in handled}
    assert append.attributes["messaging.batch.message_count"] == 6
    assert append.attributes["uno.appends"] == 5
    ids = {span.events[0].attributes["uno.append.span_id"] for span in handled}
    assert ids == {trace.format_span_id(append.context.span_id)}


def all_decided(spans: Spans) -> bool:
    return len(spans.named("decide Purse.Fill")) == 5 + 1 + 5


# --- outcomes ---


async def test_rejection_is_an_outcome_and_a_failure_is_an_error(spans: Spans) -> None:
    async with system_of(spans) as system:
        with pytest.raises(CommandRejected):
            await system.aggregate(Purse, "mine").ask(Fill(amount=0))
        for name in ("ask Purse.Fill", "handle Purse.Fill", "decide Purse.Fill"):
            span = spans.only(name)
            assert span.attributes["uno.outcome"] == "rejected"
            assert span.status.status_code is StatusCode.UNSET
        spans.clear()
        with pytest.raises(ValueError, match="negative"):
            await system.aggregate(Purse, "mine").ask(Fill(amount=-1))
        for name in ("ask Purse.Fill", "handle Purse.Fill", "decide Purse.Fill"):
            span = spans.only(name)
            assert span.attributes["error.type"] == "ValueError"
            assert span.status.status_code is StatusCode.ERROR
            assert span.status.description == "ValueError: it is negative"


async def test_program_s_spans_are_below_those_of_the_work_they_are_part_of(
    spans: Spans, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(trace, "get_tracer", lambda *_, **__: spans.tracer)

    @subscribe(topic_pattern="purses.*", name="audit")
    def audit(event: DomainEvent) -> None:
        with spans.tracer.start_as_current_span("in the handler"):
            pass

    async with system_of(spans, handlers=[audit]) as system:
        await system.aggregate(Purse, "mine").ask(Fill(amount=1))
        await system.settled()
    parents = {span.name: span.parent for span in spans.all}
    for inner, outer in (("in the method", "decide Purse.Fill"), ("in the handler", "process audit")):
        parent = parents[inner]
        assert parent is not None
        assert parent.span_id == spans.only(outer).context.span_id


async def test_each_attempt_of_a_handler_has_a_span_below_the_same_event(spans: Spans) -> None:
    attempts = 0

    @subscribe(topic_pattern="purses.*", name="audit", max_attempts=3)
    async def audit(event: DomainEvent) -> None:
        nonlocal attempts
        attempts += 1
        if attempts < 3:
            raise OSError("away")

    supervisor = Supervisor("quick", [audit], backoff=Backoff(initial=0, max=0), max_restarts=None)
    async with system_of(spans, supervisors=[supervisor]) as system:
        await system.aggregate(Purse, "mine").ask(Fill(amount=1))
        await until(lambda: attempts == 3)
        await system.settled()
    calls = spans.named("process audit")
    assert [span.attributes["uno.attempt"] for span in calls] == [1, 2, 3]
    assert [span.status.status_code for span in calls] == [
        StatusCode.ERROR,
        StatusCode.ERROR,
        StatusCode.UNSET,
    ]
    route = spans.only("route PurseFilled").context.span_id
    assert [span.parent and span.parent.span_id for span in calls] == [route] * 3


async def test_handlers_that_take_lists_are_linked_to_all_of_their_events(spans: Spans) -> None:
    sizes = []

    async def total(events: list[PurseFilled]) -> None:
        sizes.append(len(events))

    spec = HandlerSpec("total", total, event_type=PurseFilled, batch=10)
    async with system_of(spans, handlers=[spec]) as system:
        await system.publisher.publish(*(PurseFilled(amount=1) for _ in range(3)))
        await system.settled()
    assert sizes == [3]
    call = spans.only("process total")
    publish = spans.only("publish PurseFilled")
    assert publish.kind is SpanKind.PRODUCER
    assert call.attributes["messaging.batch.message_count"] == 3
    assert [link.context.span_id for link in call.links] == [publish.context.span_id] * 2


async def test_handler_that_catches_up_has_a_trace_of_its_own_with_a_link_by_the_ids_on_disk(
    spans: Spans,
) -> None:
    async with system_of(spans) as system:
        await system.aggregate(Purse, "mine").ask(command := Fill(amount=1))
        caused = spans.only("handle Purse.Fill")
        late = Spans()
        spec = HandlerSpec("late", _ignore, event_type=PurseFilled, start="earliest")
        async with ActorSystem(system.store, handlers=[spec], observers=[late.tracing]) as other:
            await other.settled()
    call = late.only("process late")
    assert call.parent is None
    (link,) = call.links
    assert link.context.trace_id == caused.context.trace_id
    assert trace.format_span_id(link.context.span_id) == command.command_id[:16]
    assert link.attributes == {"uno.causation_id": command.command_id, "uno.link": "trace"}


async def _ignore(event: DomainEvent) -> None: ...


async def test_handlers_of_the_bus_are_below_the_span_that_publishes(spans: Spans) -> None:
    def fail(event: PurseFilled) -> None:
        raise OSError("away")

    async with system_of(spans) as system:
        system.bus.subscribe(_ignore, PurseFilled, name="quiet")
        system.bus.subscribe(fail, PurseFilled, name="fail")
        with spans.tracer.start_as_current_span("request"):
            await system.bus.publish(PurseFilled(amount=1))
    (tree,) = spans.tree()
    assert tree[0] == "request"
    assert sorted(tree[1:]) == ["process fail", "process quiet"]
    assert spans.only("process fail").status.status_code is StatusCode.ERROR


async def test_told_command_has_a_producer(spans: Spans) -> None:
    async with system_of(spans) as system:
        system.aggregate(Purse, "mine").tell(Fill(amount=1))
        await system.settled()
    span = spans.only("tell Purse.Fill")
    assert span.kind is SpanKind.PRODUCER
    assert span.attributes["messaging.operation.name"] == "tell"


async def test_node_that_sends_no_trace_begins_one_where_it_is_served(spans: Spans) -> None:
    store, network = InMemoryEventStore(), MemoryNetwork()
    async with (
        system_on(store, network, "a", aggregates=[Purse]) as first,
        system_on(store, network, "b", aggregates=[Purse], observers=[spans.tracing]) as second,
    ):
        await all_see([first, second])
        await first.aggregate(Purse, owned_by(second, Purse)).ask(Fill(amount=1))
    assert spans.tree("in the method") == [("handle Purse.Fill", "load Purse", "decide Purse.Fill", "append")]


@pytest.mark.parametrize("carrier", [None, 3, {"traceparent": 3}, {"traceparent": "nonsense"}])
async def test_damaged_trace_of_another_node_does_no_harm(spans: Spans, carrier: Any) -> None:
    store, network = InMemoryEventStore(), MemoryNetwork()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("uno_actors.aggregates.observed.hop", lambda *_: carrier)
        async with (
            system_on(store, network, "a", aggregates=[Purse], observers=[Observer()]) as first,
            system_on(store, network, "b", aggregates=[Purse], observers=[spans.tracing]) as second,
        ):
            await all_see([first, second])
            assert await first.aggregate(Purse, owned_by(second, Purse)).ask(Fill(amount=1)) == 1
    assert len(spans.named("handle Purse.Fill")) == 1


# --- what is listed, and what is not installed ---


def test_without_the_library_the_extra_is_named() -> None:
    program = (
        "import sys; sys.modules['opentelemetry'] = None\n"
        "try:\n    import uno_actors.ops.tracing\nexcept ImportError as error:\n    print(error)"
    )
    run = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert "pip install 'uno-actors[otel]'" in run.stdout


ATTRIBUTE = re.compile(r"`((?:messaging|uno|error)\.[a-z_.]+)`")


def test_every_attribute_and_span_is_listed_in_the_documentation() -> None:
    listed = set(ATTRIBUTE.findall(PAGE.read_text(encoding="utf-8")))
    source = "".join(
        Path(module.__file__).read_text(encoding="utf-8") for module in (tracing, span_attributes)
    )
    used = set(re.findall(r'"((?:messaging|uno|error)\.[a-z_.]+)"', source))
    assert used == listed
