"""An aggregate as it was: at an earlier version of its stream, or at a time.

Only its ``apply_`` methods run, as in every replay. What is read so is for looking at: an aggregate that is not at the
end of its stream cannot be saved, since its expected version is over.
"""

import asyncio
from datetime import UTC, datetime
from typing import TypeVar

from uno_actors.aggregates.snapshots import Snapshots
from uno_actors.domain.aggregate import AggregateRoot
from uno_actors.errors import AggregateNotFound, InvalidMoment, NoSuchVersion
from uno_actors.quantities import is_count
from uno_actors.store.codec import StreamId
from uno_actors.store.port import EventStore
from uno_actors.store.records import PAGE

A = TypeVar("A", bound=AggregateRoot)

Moment = int | datetime
"""A version of a stream, counted from 1, or a time; a time without a zone is one in UTC."""


def check_moment(moment: object) -> Moment:
    """``moment``, if it is one.

    Raises:
        InvalidMoment: It is not.
    """
    if isinstance(moment, datetime):
        return moment if moment.tzinfo is not None else moment.replace(tzinfo=UTC)
    if not is_count(moment, 1):
        raise InvalidMoment(moment)
    return moment


async def version_at(store: EventStore, stream: StreamId, moment: datetime) -> int:
    """The last version before the first event with a later timestamp than ``moment``; 0 if that is the first event.

    Timestamps are those of the machines that recorded, and need not increase. What follows an event that is too late
    is left out, whatever its own timestamp: it was decided knowing that event.
    """
    version = 0
    while page := await store.read_stream(stream, version, PAGE):
        for _, record in page:
            if record.timestamp > moment:
                return version
            version += 1
        await asyncio.sleep(0)  # a long stream must not block the event loop
    return version


async def as_it_was(store: EventStore, kind: type[A], stream: StreamId, moment: Moment) -> A:
    """An aggregate with the events up to a version or time applied.

    Args:
        store: Has its events.
        kind: Its class.
        stream: Its stream.
        moment: As `check_moment` returns it.

    Raises:
        AggregateNotFound: It has no events, or had none by then.
        NoSuchVersion: Its stream is shorter.
        MissingApply, EventNotReadable, UnknownEventType, CorruptRecord: An event cannot be replayed.
        StoreUnavailable: The store cannot be read.
    """
    version = moment if isinstance(moment, int) else await version_at(store, stream, moment)
    last = await store.last_version(stream)
    if not last or not version:
        raise AggregateNotFound(str(stream), moment if last and isinstance(moment, datetime) else None)
    if version > last:
        raise NoSuchVersion(str(stream), version, last)
    instance, _ = await Snapshots(store, None).load(kind, stream, version=version)
    return instance
