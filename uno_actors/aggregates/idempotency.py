"""Whether a command was handled before, and with which result.

A repeated command finds its result among the commands in flight, whose events are not recorded yet, or in the last
record of the first command. A hit in the memory is only a hint: the record decides.
"""

from collections.abc import Iterable
from typing import Any

from uno_actors.aggregates.command_memory import CommandMemory, Landmarks, version_at
from uno_actors.aggregates.envelope import CommandEnvelope, EarlierResult, Failed
from uno_actors.aggregates.fingerprint import are_same
from uno_actors.aggregates.recording import recorded_reply
from uno_actors.domain.commands import Command
from uno_actors.errors import CommandIdReused
from uno_actors.store.codec import StreamId
from uno_actors.store.port import EventStore


def result_under_way(
    command: Command[Any], stream: StreamId, under_way: Iterable[tuple[CommandEnvelope, Any]]
) -> EarlierResult | None:
    """The result of a command of the same id whose events are not recorded yet.

    Args:
        command: A command that may be a repetition.
        stream: The stream of its aggregate, for errors.
        under_way: Commands with their results, the latest first.
    """
    for envelope, result in under_way:
        first = envelope.command
        if first.command_id != command.command_id or isinstance(result, Failed):
            continue  # a command that failed has no events
        if are_same(first, command):
            return EarlierResult(result, first=envelope)
        recorded = f"is under way: {type(first).__name__}"
        reused = CommandIdReused(type(command).__name__, command.command_id, str(stream), recorded)
        return EarlierResult(Failed(reused))
    return None


async def look_up(store: EventStore, stream: StreamId, envelope: CommandEnvelope, version: int) -> None:
    """Find out whether the event of ``version`` is the last of this very command; note that in ``envelope``."""
    page = await store.read_stream(stream, version - 1, 1)
    if not page or page[0].record.answered != envelope.command.command_id:
        envelope.unrelated += (version,)
    else:
        position, record = page[0]
        envelope.earlier = EarlierResult(
            recorded_reply(record, envelope.command), (position, record.event_id)
        )


async def reach_back(
    store: EventStore,
    stream: StreamId,
    envelope: CommandEnvelope,
    head: int,
    known: tuple[CommandMemory, Landmarks],
) -> tuple[CommandMemory, Landmarks]:
    """Memory and landmarks of a stream that reach back to the first event that may be one of the command's.

    Args:
        store: Where the stream is recorded.
        stream: Its name.
        envelope: A command that looks back. The version after which it may have been recorded is noted in it.
        head: The last version of the stream, all recorded.
        known: Its memory and landmarks so far.
    """
    memory, landmarks = known
    after = envelope.after
    if after is None:
        after, position = await version_at(store, stream, envelope.since, head)
        landmarks = landmarks.with_one(after, position, memory.reach // 4)
    memory = await memory.extended(store, stream, head, after)
    envelope.after = after
    return memory, landmarks
