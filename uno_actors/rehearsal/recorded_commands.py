"""The commands that a log holds: those that processes have sent, and those that a schedule has fired.

Commands of other senders are not recorded. Of a command that recorded no event the version before it is not known.
"""

from collections.abc import Iterator, Sequence

from uno_actors.domain.outgoing_commands import OutgoingCommand
from uno_actors.domain.schedules import Fired
from uno_actors.processes.messages import Reacted
from uno_actors.rehearsal.decisions import RecordedCommand
from uno_actors.rehearsal.reading import pages
from uno_actors.store.codec import StreamId, to_event
from uno_actors.store.port import EventStore
from uno_actors.store.records import StoredRecord

_HOLDERS = frozenset({Fired.model_fields["event_type"].default, Reacted.model_fields["event_type"].default})


async def recorded_commands(store: EventStore, ends: Sequence[int], most: int) -> list[RecordedCommand]:
    """The last ``most`` commands that are in the log with the events that they led to.

    Args:
        store: Open; the classes of the program are not needed.
        ends: The last position of each log.
        most: Maximum number.
    """
    sent: dict[str, tuple[int, OutgoingCommand]] = {}
    begun: dict[tuple[str, StreamId], int] = {}  # the version of the first event of a command
    async for page in pages(store, ends):
        for stored in page:
            record = stored.record
            if record.event_type in _HOLDERS:
                sent.update((name, (stored.position, command)) for name, command in _commands(store, stored))
            stream = record.stream
            if stream is None or record.aggregate_version is None:
                continue
            for name in {record.causation_id, record.answered}:
                if name is not None and "." in name:  # as the ids of these commands are
                    begun.setdefault((name, stream), record.aggregate_version)
    found = []
    for command_id, (position, command) in sent.items():
        version = begun.get((command_id, StreamId(command.aggregate_type, command.aggregate_id)))
        if version is not None:
            found.append(
                RecordedCommand(
                    position,
                    command.aggregate_type,
                    command.aggregate_id,
                    command.command,
                    command.fields,
                    command_id,
                    version - 1,
                )
            )
    found.sort()
    return found[-most:]


def _commands(store: EventStore, stored: StoredRecord) -> Iterator[tuple[str, OutgoingCommand]]:
    event = to_event(stored.record, store.event_registry, stored.position)
    if isinstance(event, Fired):
        yield event.command_id, event.command
    elif isinstance(event, Reacted):
        for place, command in enumerate(event.sent):
            yield command.id_or(f"{event.to}.{place}"), command
