"""Traces of a system through OpenTelemetry; ``pip install "uno_actors[otel]"``.

::

    system = ActorSystem("lmdb:bank", observers=[Tracing()])

The program configures OpenTelemetry's SDK, its sampler and its exporters; this module uses the API alone. What each
span is called, and its attributes, is listed in ``docs/reference/telemetry.md``.

A command is one trace with everything that it causes: the spans of the program that is sending it are above, and those
of live handlers and of the commands that they send are below. The context of a trace travels with the message. A
handler that catches up begins a trace of its own, with a link to the trace of its event.

Sampling is decided once, where a trace begins. A message of a trace that is not sampled makes no spans, so it costs
little.
"""

import random
import time
from collections import OrderedDict
from collections.abc import Sequence
from contextvars import ContextVar
from typing import Any

from uno_actors.errors import CommandRejected, InvalidNumber, MissingExtra, describe
from uno_actors.observing import CommitGroup, Delivered, Observer, Unwatched
from uno_actors.ops.span_attributes import SYSTEM, number_of, of_command, of_event

try:
    from opentelemetry import context as contexts
    from opentelemetry import trace
    from opentelemetry.trace import (
        Link,
        NonRecordingSpan,
        Span,
        SpanContext,
        SpanKind,
        Status,
        StatusCode,
        TraceFlags,
    )
    from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator
except ImportError as missing:
    raise MissingExtra("uno_actors.ops.tracing", "otel", missing) from missing

REMEMBERED = 10_000
"""Spans of commands that are remembered, for links to them."""


class _Traced:
    """The spans of one command, or of one call of ``publish``. It is current in the context of the message.

    Attributes:
        sent: The sender's span; ``None`` on another node.
        outer: The context with that span, or with the one of the other node.
        span: The span of the aggregate's work, or the sender's own span for published events.
        inner: The context with that span.
        deciding: The span of the decision under way.
        hop: The span of the hop under way.
        durable: When the events were durable, in nanoseconds since 1970; 0 before.
        routes: The contexts of the spans in which its events were routed, by their positions.
    """

    __slots__ = ("deciding", "durable", "hop", "inner", "outer", "routes", "sent", "span")

    def __init__(self) -> None:
        self.sent: Span | None = None
        self.outer = contexts.get_current()
        self.span: Span | None = None
        self.inner = self.outer
        self.deciding: Span | None = None
        self.hop: Span | None = None
        self.durable = 0
        self.routes: dict[int, contexts.Context] = {}


_traced: ContextVar[_Traced | None] = ContextVar("uno_actors.traced", default=None)
"""The message whose context this is, if its trace is sampled."""
_call: ContextVar[Span | None] = ContextVar("uno_actors.traced_call", default=None)
"""The span of the call of a handler, if its trace is sampled."""
_step: ContextVar["tuple[Span, contexts.Context] | None"] = ContextVar("uno_actors.traced_step", default=None)
"""The span of the step of a process, and the context before it."""


class Tracing(Observer):
    """Makes the spans.

    Over 300 lines: one short method for each thing that happens, which share the spans of one command.

    Args:
        tracer_provider: Default is OpenTelemetry's global one, also if it is set later.
        sample: Share of the messages, sent outside of any trace, that begin one: from 0 to 1. It is decided before the
            SDK's sampler is asked, which costs more than anything else about a trace that is not sampled.

    Raises:
        MissingExtra: At import: OpenTelemetry's API is not installed.
        InvalidNumber: ``sample`` is not a number from 0 to 1.
    """

    def __init__(self, tracer_provider: trace.TracerProvider | None = None, *, sample: float = 1.0) -> None:
        if not 0 <= sample <= 1:
            raise InvalidNumber("sample", "a number from 0 to 1", sample)
        self._sample = sample
        self._tracer = trace.get_tracer(SYSTEM, tracer_provider=tracer_provider)
        self._start = self._tracer.start_span
        self._propagator = TraceContextTextMapPropagator()
        self._names: dict[tuple[str, str, type], str] = {}
        self._recent: OrderedDict[str, SpanContext] = OrderedDict()

    # --- commands, on the sender's node ---

    def command_sent(self, stream: Any, command: Any, asked: bool) -> str | Unwatched | None:
        """See `Observer.command_sent`. The correlation id is the id of the trace."""
        if _traced.get() is not None:
            _traced.set(None)  # that of the message that its sender handles
        context, trace_id = contexts.get_current(), None
        # Most contexts are empty; looking for a span in them takes time.
        parent = trace.get_current_span(context).get_span_context() if context else _NO_SPAN
        if parent.is_valid:
            trace_id = _trace_id(parent)
            if not parent.trace_flags.sampled:
                return Unwatched(trace_id)
        elif self._skips(context):
            return _UNWATCHED
        operation = "ask" if asked else "tell"
        kind = SpanKind.CLIENT if asked else SpanKind.PRODUCER
        # The context is passed on because finding it takes time, and most traces are not sampled.
        span = self._start(self._name(operation, stream[0], command.__class__), context, kind)
        found = span.get_span_context()
        if not found.is_valid:  # there is no SDK
            return Unwatched(trace_id)
        contexts.attach(trace.set_span_in_context(span, context))
        trace_id = trace_id or _trace_id(found)
        if not span.is_recording():
            return Unwatched(trace_id)
        span.set_attributes(
            {
                **of_command(stream, command),
                "messaging.operation.name": operation,
                "messaging.operation.type": "send",
            }
        )
        traced = _Traced()
        traced.sent = span
        _traced.set(traced)
        return trace_id

    def correlation_id(self) -> str | None:
        """The id of the current trace, if there is one."""
        found = trace.get_current_span().get_span_context()
        return _trace_id(found) if found.is_valid else None

    def command_returned(
        self, stream: Any, command: Any, seconds: float, error: BaseException | None
    ) -> None:
        """See `Observer.command_returned`."""
        traced = _traced.get()
        if traced is not None and traced.sent is not None:
            _end(traced.sent, error)
            traced.sent = None

    # --- commands, on the aggregate's node ---

    def command_arrived(self, stream: Any, command: Any, asked: bool) -> None:
        """See `Observer.command_arrived`."""
        traced = _traced.get()
        if traced is None:
            return
        links = () if traced.sent is not None else self._links(command.correlation_id, command.causation_id)
        name = self._name("handle", stream[0], command.__class__)
        span = self._start(name, context=traced.outer, links=links)
        if not _enter(span, traced.outer):
            _traced.set(None)  # no trace came from the other node, and this one is not sampled
            return
        span.set_attributes(
            {
                **of_command(stream, command),
                "messaging.operation.name": "handle",
                "messaging.operation.type": "process",
            }
        )
        traced.span, traced.inner = span, contexts.get_current()
        self._remember(command.command_id, span)

    def command_taken(self, stream: Any, command: Any, waited: float) -> None:
        """See `Observer.command_taken`."""
        traced = _traced.get()
        if traced is not None and traced.span is not None:
            traced.span.set_attribute("uno.queue.seconds", waited)

    def command_deciding(self, stream: Any, command: Any) -> None:
        """See `Observer.command_deciding`."""
        traced = _traced.get()
        if traced is not None:
            name = self._name("decide", stream[0], command.__class__)
            traced.deciding = self._start(name, context=traced.inner)
            _enter(traced.deciding)

    def command_decided(
        self, stream: Any, command: Any, seconds: float, events: int, error: BaseException | None
    ) -> None:
        """See `Observer.command_decided`."""
        traced = _traced.get()
        if traced is not None and traced.deciding is not None:
            traced.deciding.set_attribute("uno.events", events)
            _end(traced.deciding, error)
            traced.deciding = None

    def command_answered(
        self, stream: Any, command: Any, seconds: float, error: BaseException | None
    ) -> None:
        """See `Observer.command_answered`."""
        traced = _traced.get()
        if traced is not None and traced.span is not None:
            _end(traced.span, error)

    # --- aggregates and the log ---

    def aggregate_loaded(self, stream: Any, seconds: float, events: int, error: BaseException | None) -> None:
        """See `Observer.aggregate_loaded`."""
        traced = _traced.get()
        if traced is not None:
            span = self._past(f"load {stream[0]}", traced.inner, seconds)
            whose = {"uno.aggregate.type": stream[0], "uno.aggregate.id": stream[1]}
            span.set_attributes({**whose, "uno.events": events})
            _end(span, error)

    def append_ended(self, group: CommitGroup, outcomes: Sequence[Any], seconds: float) -> None:
        """See `Observer.append_ended`."""
        found = [context.get(_traced) for context in group.contexts]
        commands = [each for each in found if each is not None and each.span is not None]
        if not commands:
            return
        links = [Link(each.span.get_span_context()) for each in commands if each.span is not None]
        span = self._past("append", commands[0].inner, seconds, links=links)
        span.set_attributes(
            {
                "messaging.system": SYSTEM,
                "messaging.batch.message_count": sum(len(append.records) for append in group.appends),
                "uno.appends": len(group.appends),
            }
        )
        span_id = trace.format_span_id(span.get_span_context().span_id)
        for each in commands:
            each.durable = time.time_ns()
            if each.span is not None:
                each.span.add_event("appended", {"uno.append.span_id": span_id})
        errors = [outcome for outcome in outcomes if isinstance(outcome, BaseException)]
        _end(span, errors[0] if errors and len(errors) == len(outcomes) else None)

    # --- handlers ---

    def event_routed(self, event: Delivered, handlers: int) -> None:
        """See `Observer.event_routed`."""
        traced = _traced.get()
        if traced is None or not handlers:
            return
        name = f"route {event.record.event_type}"
        span = self._start(name, context=traced.inner, start_time=traced.durable or None)
        span.set_attributes({**of_event(event), "uno.handlers": handlers})
        traced.routes[event.position] = trace.set_span_in_context(span, traced.inner)
        span.end()

    def handler_called(self, handler: str, events: Sequence[Delivered], attempt: int) -> None:
        """See `Observer.handler_called`."""
        last = events[-1]
        traced = _traced.get()
        if last.context is None:
            parent = contexts.Context()
            if self._skips(parent):
                return
            record = last.record
            links = self._links(record.correlation_id, record.causation_id)
        elif traced is None:
            return
        else:
            parent, links = traced.routes.get(last.position, traced.inner), []
        for each in events[:-1]:
            links += self._links_of(each)
        span = self._start(f"process {handler}", context=parent, kind=SpanKind.CONSUMER, links=links)
        if not _enter(span, parent):
            return
        span.set_attributes(
            {
                **of_event(last),
                "messaging.operation.name": "process",
                "messaging.operation.type": "process",
                "messaging.consumer.group.name": handler,
                "uno.attempt": attempt,
                "uno.catching_up": last.context is None,
            }
        )
        _call.set(span)
        if len(events) > 1:
            span.set_attribute("messaging.batch.message_count", len(events))

    def handler_returned(
        self, handler: str, events: Sequence[Delivered], seconds: float, error: BaseException | None
    ) -> None:
        """See `Observer.handler_returned`."""
        span = _call.get()
        if span is not None:
            _end(span, error)

    def process_step_begun(self, process: str, process_id: str, message: object) -> None:
        """See `Observer.process_step_begun`."""
        if _call.get() is None:
            return
        before = contexts.get_current()
        span = self._start(f"react {process}")
        _enter(span)
        kind = type(message).__name__
        span.set_attributes(
            {"uno.process.type": process, "uno.process.id": process_id, "uno.message.type": kind}
        )
        _step.set((span, before))

    def process_step_ended(
        self, process: str, process_id: str, commands: int, seconds: float, error: BaseException | None
    ) -> None:
        """See `Observer.process_step_ended`."""
        step = _step.get()
        if step is not None:
            span, before = step
            span.set_attribute("uno.commands", commands)
            _end(span, error)
            contexts.attach(before)
            _step.set(None)

    # --- publishing and the bus ---

    def publish_begun(self, events: Sequence[Any]) -> None:
        """See `Observer.publish_begun`."""
        if _traced.get() is not None:
            _traced.set(None)
        if self._is_left_out() or not events:
            return
        span = self._start(f"publish {events[0].event_type}", kind=SpanKind.PRODUCER)
        if not _enter(span):
            return
        span.set_attributes(
            {
                "messaging.system": SYSTEM,
                "messaging.operation.name": "publish",
                "messaging.operation.type": "send",
                "messaging.destination.name": events[0].topic or events[0].event_type,
                "messaging.batch.message_count": len(events),
            }
        )
        traced = _Traced()
        traced.span, traced.inner = span, contexts.get_current()
        _traced.set(traced)

    def publish_ended(self, events: Sequence[Any], seconds: float, error: BaseException | None) -> None:
        """See `Observer.publish_ended`."""
        traced = _traced.get()
        if traced is not None and traced.span is not None:
            traced.durable = time.time_ns()
            _end(traced.span, error)

    def bus_handler_called(self, bus: str, handler: str, event: Any) -> None:
        """See `Observer.bus_handler_called`."""
        _call.set(None)
        if self._is_left_out():
            return
        span = self._start(f"process {handler}", kind=SpanKind.CONSUMER)
        if _enter(span):
            span.set_attributes(
                {
                    "messaging.system": SYSTEM,
                    "messaging.operation.name": "process",
                    "messaging.operation.type": "process",
                    "messaging.destination.name": event.topic or event.event_type,
                    "messaging.consumer.group.name": handler,
                    "messaging.message.id": event.event_id,
                    "uno.event.type": event.event_type,
                    "uno.bus": bus,
                }
            )
            _call.set(span)

    def bus_handler_returned(
        self, bus: str, handler: str, event: Any, seconds: float, error: BaseException | None
    ) -> None:
        """See `Observer.bus_handler_returned`."""
        span = _call.get()
        if span is not None:
            _end(span, error)

    # --- hops ---

    def hop_sent(self, stream: Any, command: Any, node: str, carrier: dict[str, str]) -> None:
        """See `Observer.hop_sent`."""
        traced = _traced.get()
        if traced is not None:
            traced.hop = self._start("hop", context=traced.outer, kind=SpanKind.CLIENT)
            traced.hop.set_attributes({**of_command(stream, command), "uno.node": node})
            _enter(traced.hop)
        self._propagator.inject(carrier)

    def hop_returned(
        self, stream: Any, command: Any, node: str, seconds: float, error: BaseException | str | None
    ) -> None:
        """See `Observer.hop_returned`."""
        traced = _traced.get()
        if traced is not None and traced.hop is not None:
            _end(traced.hop, error)
            traced.hop = None

    def hop_served(self, stream: Any, command: Any, node: str, carrier: dict[str, str]) -> None:
        """See `Observer.hop_served`."""
        contexts.attach(self._propagator.extract(carrier, contexts.Context()))
        if not self._is_left_out():
            _traced.set(_Traced())

    # --- parts ---

    def _name(self, operation: str, aggregate_type: str, command: type) -> str:
        known = operation, aggregate_type, command
        name = self._names.get(known)
        if name is None:
            name = self._names[known] = f"{operation} {aggregate_type}.{command.__name__}"
        return name

    def _skips(self, context: contexts.Context) -> bool:
        """Whether a message that is in no trace begins none; then one that is not sampled is current."""
        if self._sample >= 1 or random.random() < self._sample:  # noqa: S311 - no secret
            return False
        contexts.attach(trace.set_span_in_context(_SKIPPED, context) if context else _SKIPPED_ALONE)
        return True

    def _is_left_out(self) -> bool:
        """Whether the current trace is not sampled; or there is none, and none begins."""
        context = contexts.get_current()
        found = trace.get_current_span(context).get_span_context()
        return not found.trace_flags.sampled if found.is_valid else self._skips(context)

    def _past(self, name: str, parent: contexts.Context, seconds: float, links: Sequence[Link] = ()) -> Span:
        """A span that began so many ``seconds`` ago."""
        began = time.time_ns() - int(seconds * 1e9)
        return self._start(name, context=parent, start_time=began, links=links)

    def _remember(self, command_id: str, span: Span) -> None:
        recent = self._recent
        recent[command_id] = span.get_span_context()
        if len(recent) > REMEMBERED:
            recent.popitem(last=False)

    def _links_of(self, event: Delivered) -> list[Link]:
        traced = None if event.context is None else event.context.get(_traced)
        if traced is not None and traced.span is not None:
            return [Link(traced.span.get_span_context())]
        return self._links(event.record.correlation_id, event.record.causation_id)

    def _links(self, correlation_id: str | None, causation_id: str | None) -> list[Link]:
        """The link to what has caused a message whose context is not known any more.

        The trace is the one that its correlation id names. The span is known if it was made here not long ago.
        Otherwise the link has an id that is made of the causation id, and leads to the trace alone.
        """
        known = self._recent.get(causation_id or "")
        if known is not None:
            return [Link(known, {"uno.causation_id": causation_id or ""})]
        trace_id, span_id = number_of(correlation_id, 32), number_of((causation_id or "")[:16], 16)
        if not (trace_id and span_id):
            return []
        guessed = SpanContext(trace_id, span_id, is_remote=True, trace_flags=TraceFlags(TraceFlags.SAMPLED))
        return [Link(guessed, {"uno.causation_id": causation_id or "", "uno.link": "trace"})]


_SKIPPED = NonRecordingSpan(SpanContext(1, 1, is_remote=False, trace_flags=TraceFlags(0)))
"""Current where no trace begins, so that none begins below either."""
_SKIPPED_ALONE = trace.set_span_in_context(_SKIPPED, contexts.Context())
_UNWATCHED = Unwatched(None)
_NO_SPAN = trace.INVALID_SPAN.get_span_context()


def _trace_id(found: SpanContext) -> str | None:
    """The id of a trace as text; ``None`` if it is only the one that says that no trace begins."""
    return None if found.trace_id == 1 else f"{found.trace_id:032x}"


def _enter(span: Span, context: contexts.Context | None = None) -> bool:
    """Make ``span`` current, also if it is not sampled, so that those below are not either; whether it is recorded."""
    if span.get_span_context().is_valid:
        contexts.attach(trace.set_span_in_context(span, context))
    return span.is_recording()


def _end(span: Span, error: BaseException | str | None) -> None:
    """End a span. A command that a rule of the domain has rejected is not a failure of the system."""
    if isinstance(error, CommandRejected):
        span.set_attributes({"uno.outcome": "rejected", "error.type": type(error).__name__})
    elif error is not None:
        kind, text = (
            ("not served", error) if isinstance(error, str) else (type(error).__name__, describe(error))
        )
        span.set_attributes({"uno.outcome": "failed", "error.type": kind})
        span.set_status(Status(StatusCode.ERROR, text))
    span.end()
