"""The context of a command, and what observers learn in it, from its sender to its answer.

See `uno_actors.observing`. Without observers only `decide` is called, for commands that have a context.
"""

from collections.abc import Sequence
from contextvars import Context
from time import monotonic
from typing import Any

from uno_actors.actors.ask import copied_context
from uno_actors.aggregates.envelope import CommandEnvelope, Failed
from uno_actors.domain.aggregate import AggregateRoot
from uno_actors.domain.commands import Command
from uno_actors.observing import Observation, Unwatched
from uno_actors.store.codec import StreamId


def send(observed: Observation, stream: StreamId, envelope: CommandEnvelope) -> None:
    """The command is sent from here; it takes its correlation id from an observer if it has none."""
    context = envelope.context
    if context is None:
        context = envelope.context = copied_context()
    command = envelope.command
    found = context.run(observed.command_sent, stream, command, envelope.future is not None)
    if isinstance(found, Unwatched):
        correlation_id = found.correlation_id
    else:
        correlation_id = found
        envelope.told = True
        envelope.sent = monotonic()
    if correlation_id is not None and command.correlation_id is None:
        envelope.command = _correlated(command, correlation_id)


def serve(
    observed: Observation, stream: StreamId, envelope: CommandEnvelope, node: str, carrier: Any
) -> None:
    """The command has come from another node, perhaps of another version: ``carrier`` may be anything."""
    found = carrier.items() if isinstance(carrier, dict) else ()
    carrier = {key: value for key, value in found if type(key) is str and type(value) is str}
    envelope.context = context = Context()
    envelope.told = True
    envelope.sent = 0.0
    context.run(observed.hop_served, stream, envelope.command, node, carrier)


def arrive(observed: Observation, stream: StreamId, envelope: CommandEnvelope) -> None:
    """The command has come to the mailbox of its aggregate."""
    if not (envelope.told or observed.measures):
        return
    envelope.arrived = envelope.queued = monotonic()
    envelope.deciding = None
    if envelope.told:
        asked = envelope.future is not None
        _context(envelope).run(observed.command_arrived, stream, envelope.command, asked)


def take(observed: Observation, stream: StreamId, envelope: CommandEnvelope) -> None:
    """The command was taken from the mailbox, and is answered with an earlier result."""
    if not (envelope.told or observed.measures):
        return
    envelope.waited = waited = monotonic() - envelope.queued
    if envelope.told:
        _context(envelope).run(observed.command_taken, stream, envelope.command, waited)


def queue_again(envelope: CommandEnvelope) -> None:
    """The command is put back into the mailbox."""
    envelope.queued = monotonic()
    envelope.deciding = None


class Load:
    """A load of an aggregate that has begun.

    Args:
        observed: The observers, if there are any.
        stream: Of the aggregate.
        waiting: The commands that wait for it, the first of which has the context.
    """

    __slots__ = ("_began", "_context", "_observed", "_stream")

    def __init__(
        self, observed: Observation | None, stream: StreamId, waiting: Sequence[CommandEnvelope] | None
    ) -> None:
        self._observed = observed
        self._stream = stream
        if observed is not None:
            self._began = monotonic()
            self._context = waiting[0].context if waiting else None

    def end(self, events: int, error: BaseException | None) -> None:
        """It has ended, and has replayed so many ``events``."""
        if self._observed is not None:
            seconds = monotonic() - self._began
            context = self._context or Context()
            context.run(self._observed.aggregate_loaded, self._stream, seconds, events, error)


def decide(
    observed: Observation | None, stream: StreamId, envelope: CommandEnvelope, instance: AggregateRoot
) -> Any:
    """The result of the aggregate's method, called in the context of the command; also if there are no observers."""
    if observed is not None and envelope.told:
        return _context(envelope).run(_decide, observed, stream, envelope, instance)
    if observed is None or not observed.measures:
        return _handle(envelope, instance)
    began = monotonic()
    envelope.waited = began - envelope.queued
    try:
        return _handle(envelope, instance)
    finally:
        envelope.deciding = monotonic() - began


def _handle(envelope: CommandEnvelope, instance: AggregateRoot) -> Any:
    context = envelope.context
    if context is None:
        return instance.handle(envelope.command)
    return context.run(instance.handle, envelope.command)


def _decide(
    observed: Observation, stream: StreamId, envelope: CommandEnvelope, instance: AggregateRoot
) -> Any:
    command = envelope.command
    envelope.waited = waited = monotonic() - envelope.queued
    observed.command_taken(stream, command, waited)
    observed.command_deciding(stream, command)
    began = monotonic()
    try:
        result = instance.handle(command)
    except BaseException as error:
        envelope.deciding = seconds = monotonic() - began
        observed.command_decided(stream, command, seconds, _registered(instance), error)
        raise
    envelope.deciding = seconds = monotonic() - began
    observed.command_decided(stream, command, seconds, _registered(instance), None)
    return result


def _registered(instance: AggregateRoot) -> int:
    return len(instance._pending or ())


def answer(observed: Observation, stream: StreamId, envelope: CommandEnvelope, result: Any) -> None:
    """The command has ended on the node of its aggregate."""
    if not (envelope.told or observed.measures):
        return
    error = result.error if isinstance(result, Failed) else None
    seconds = monotonic() - envelope.arrived
    waited = envelope.waited if envelope.started else seconds
    observed.command_measured(stream, envelope.command, waited, envelope.deciding, seconds, error)
    if envelope.told:
        _context(envelope).run(observed.command_answered, stream, envelope.command, seconds, error)
        end(observed, stream, envelope, error)


def time_out(
    observed: Observation, stream: StreamId, envelope: CommandEnvelope, error: BaseException, *, started: bool
) -> None:
    """The sender's time is over. A command that has ``started`` ends later on the node of its aggregate."""
    if not started:
        answer(observed, stream, envelope, Failed(error))
    else:
        end(observed, stream, envelope, error)


def hop(observed: Observation, stream: StreamId, envelope: CommandEnvelope, node: str) -> dict[str, str]:
    """The command is sent to another node, with this that the observers send along."""
    carrier: dict[str, str] = {}
    _context(envelope).run(observed.hop_sent, stream, envelope.command, node, carrier)
    return carrier


def hop_back(
    observed: Observation,
    stream: StreamId,
    envelope: CommandEnvelope,
    node: str,
    *,
    seconds: float,
    error: BaseException | str | None,
) -> None:
    """The other node has answered, or cannot be reached."""
    if envelope.told:
        _context(envelope).run(observed.hop_returned, stream, envelope.command, node, seconds, error)


def end(
    observed: Observation, stream: StreamId, envelope: CommandEnvelope, error: BaseException | None
) -> None:
    """The sender has its reply or its error; only the first time counts."""
    if envelope.told and envelope.sent:
        seconds, envelope.sent = monotonic() - envelope.sent, 0.0
        _context(envelope).run(observed.command_returned, stream, envelope.command, seconds, error)


def _context(envelope: CommandEnvelope) -> Context:
    context = envelope.context
    assert context is not None  # `send` or `serve` has made it
    return context


def _correlated(command: Command[Any], correlation_id: str) -> Command[Any]:
    """``command`` with a correlation id; as ``model_copy``, in a fifth of the time."""
    copy = _new(command.__class__)
    values = command.__dict__.copy()
    values["correlation_id"] = correlation_id
    _put(copy, "__dict__", values)
    _put(copy, "__pydantic_fields_set__", command.__pydantic_fields_set__ | _CORRELATED)
    _put(copy, "__pydantic_extra__", command.__pydantic_extra__)
    _put(copy, "__pydantic_private__", command.__pydantic_private__)
    return copy


_new, _put = object.__new__, object.__setattr__
_CORRELATED = frozenset({"correlation_id"})
