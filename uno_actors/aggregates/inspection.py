"""What others see of the aggregates in memory, from any thread: also while a method of one holds the event loop."""

import sys
from collections.abc import Iterator
from time import monotonic
from typing import NamedTuple

from uno_actors.actors.inspection import line_on
from uno_actors.aggregates.actor import AggregateActor
from uno_actors.aggregates.directory import Aggregates
from uno_actors.aggregates.envelope import CommandEnvelope


class Deciding(NamedTuple):
    """A command whose method is running.

    Attributes:
        actor: Of the aggregate.
        envelope: With the command.
        seconds: Since when.
        line: The line of the program that is being executed: ``file:line in function``; ``None`` if none is known.
    """

    actor: AggregateActor
    envelope: CommandEnvelope
    seconds: float
    line: str | None


def deciding_now(aggregates: Aggregates) -> Deciding | None:
    """The command whose method holds the event loop now; ``None`` if none does, or if the caller runs there."""
    thread = aggregates.dispatcher.thread
    if thread is None:
        return None
    frame = sys._current_frames().get(thread)
    while frame is not None:
        if frame.f_code is AggregateActor._execute.__code__:
            given = frame.f_locals
            actor: AggregateActor = given["self"]
            seconds = aggregates.clock.monotonic() - actor.last_used
            return Deciding(actor, given["envelope"], max(0.0, seconds), line_on(thread))
        frame = frame.f_back
    return None


class Unanswered(NamedTuple):
    """A command that an aggregate in memory has not answered.

    Attributes:
        actor: Of the aggregate.
        envelope: With the command.
        place: Its place in the mailbox, from 1; ``None`` if it was decided.
        seconds: Since it was asked; ``None`` if it was told.
    """

    actor: AggregateActor
    envelope: CommandEnvelope
    place: int | None
    seconds: float | None


def unanswered(aggregates: Aggregates, command_id: str) -> Iterator[Unanswered]:
    """The commands of this id that aggregates in memory have not answered, apart from the one that is decided now."""
    for actor in aggregates.active():
        if actor.idle:
            continue
        place = 0
        for envelope, is_decided in actor.commands():
            place += not is_decided
            if envelope.command.command_id == command_id:
                asked = None if envelope.future is None else monotonic() - envelope.future.asked
                yield Unanswered(actor, envelope, None if is_decided else place, asked)
