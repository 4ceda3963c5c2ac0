"""Recorded commands, decided again on the state before them; nothing of that is recorded."""

from collections.abc import Mapping
from typing import Any, NamedTuple

from uno_actors.domain.aggregate import AggregateRoot
from uno_actors.domain.commands import Command
from uno_actors.domain.events import DomainEvent
from uno_actors.domain.outgoing_commands import OutgoingCommand
from uno_actors.domain.payload_writer import payload_names
from uno_actors.errors import CommandRejected, describe
from uno_actors.rehearsal.program import FAILURES
from uno_actors.rehearsal.states import Form, form_of
from uno_actors.store.codec import StreamId


class RecordedCommand(NamedTuple):
    """A command that is in the log, and the events that it led to.

    Attributes:
        position: Of the event that holds it.
        aggregate_type: The type of the aggregate that it went to.
        aggregate_id: Its id.
        name: Of the command's class.
        fields: The command as JSON.
        command_id: Its id.
        version: Of the aggregate before the command.
    """

    position: int
    aggregate_type: str
    aggregate_id: str
    name: str
    fields: str
    command_id: str
    version: int

    @property
    def stream(self) -> StreamId:
        """The stream of the aggregate."""
        return StreamId(self.aggregate_type, self.aggregate_id)


class Decision(NamedTuple):
    """How code answers a command.

    Attributes:
        outcome: ``accepted``, ``rejected`` or ``failed``.
        reason: Why it is not accepted; empty if it is.
        events: Name and form of each event that it registered.
        reply: The form of the reply.
    """

    outcome: str
    reason: str
    events: list[list[Form]]
    reply: Form


def decided(instance: AggregateRoot, recorded: RecordedCommand) -> Decision:
    """How ``instance``, which has the version before the command, answers it."""
    try:
        command = _command(type(instance), recorded)
        reply = instance.handle(command)
    except CommandRejected as rejection:
        return Decision("rejected", str(rejection), [], None)
    except FAILURES as error:  # the program may raise anything
        return Decision("failed", describe(error), [], None)
    events = [[event.event_type, form_of(_payload(event))] for event in instance.pending_events]
    return Decision("accepted", "", events, form_of(reply))


def _command(kind: type[AggregateRoot], recorded: RecordedCommand) -> Command[Any]:
    command = next((each for each in kind._commands if each.__name__ == recorded.name), None)
    if command is None:
        raise LookupError(f"{kind.__name__} handles no command {recorded.name}")
    outgoing = OutgoingCommand(
        aggregate_type=recorded.aggregate_type,
        aggregate_id=recorded.aggregate_id,
        command=recorded.name,
        fields=recorded.fields,
    )
    return outgoing.read(command, recorded.command_id)


def _payload(event: DomainEvent) -> Mapping[str, Any]:
    return {name: getattr(event, name) for name in payload_names(type(event))}
