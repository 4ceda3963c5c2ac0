"""What is scheduled: one entry of the list, and what to do with it at a given time. No I/O."""

import hashlib
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from typing import Any, ClassVar, Self

from uno_actors.domain.outgoing_commands import OutgoingCommand
from uno_actors.domain.schedules import CatchUp, Fired, Passed, Scheduled, Unscheduled
from uno_actors.recurrence import Recurrence
from uno_actors.shards import key_beside
from uno_actors.store.codec import StreamId

LATE = timedelta(minutes=1)
"""With ``catch_up="none"`` a command is not sent any more when it is later than this."""

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)

Owner = tuple[str | None, str | None]
"""Type and id of the aggregate that has scheduled it."""


@dataclass(frozen=True, slots=True)
class ScheduleInfo:
    """A command that is to be sent.

    Attributes:
        id: The ``event_id`` of the event that has scheduled it.
        key: Names it among the schedules of its owner.
        owner_type: The type of the aggregate that has scheduled it; ``None`` if it was a program, with
            `uno_actors.ActorSystem.schedule`.
        owner_id: The id of that aggregate, or ``None``.
        command: The command, and the aggregate to send it to.
        due: When it is due, in UTC.
        every: The cron expression of one that recurs.
        tz: The time zone of ``every``.
        catch_up: Which times are made up for that have passed while no scheduler ran.
        scheduled_at: When it was scheduled, in UTC.
        correlation_id: Of the message that has scheduled it.
        version: The number of events in its own stream; see `stream_of`.
    """

    FROM_OUTSIDE: ClassVar[str] = "uno_actors.Schedules"
    """Type of the streams of what programs schedule; their ids are the keys."""

    id: str
    key: str
    owner_type: str | None
    owner_id: str | None
    command: OutgoingCommand
    due: datetime
    every: str | None
    tz: str
    catch_up: CatchUp
    scheduled_at: datetime
    correlation_id: str | None
    version: int = 0

    @classmethod
    def of(cls, event: Scheduled) -> Self:
        """What ``event`` has scheduled."""
        owner_type, owner_id = shown_owner(owner_of(event))
        return cls(
            id=event.event_id,
            key=event.key,
            owner_type=owner_type,
            owner_id=owner_id,
            command=event.command,
            due=event.due,
            every=event.every,
            tz=event.tz,
            catch_up=event.catch_up,
            scheduled_at=event.timestamp,
            correlation_id=event.correlation_id,
        )

    @property
    def owner(self) -> Owner:
        """The stream in which it was scheduled."""
        return (self.FROM_OUTSIDE, self.key) if self.owner_type is None else (self.owner_type, self.owner_id)

    def packed(self) -> list[Any]:
        """For a view: values that every store keeps."""
        return [
            self.id,
            self.key,
            self.owner_type,
            self.owner_id,
            self.command.aggregate_type,
            self.command.aggregate_id,
            self.command.command,
            self.command.fields,
            self.due,
            self.every,
            self.tz,
            self.catch_up,
            self.scheduled_at,
            self.correlation_id,
            self.version,
        ]

    @classmethod
    def unpacked(cls, packed: list[Any]) -> Self:
        """What was `packed`."""
        schedule, key, owner_type, owner_id, to_type, to_id, name, fields, *rest = packed
        command = OutgoingCommand(aggregate_type=to_type, aggregate_id=to_id, command=name, fields=fields)
        return cls(schedule, key, owner_type, owner_id, command, *rest)

    def at(self, due: datetime, version: int) -> Self:
        """The same, due at another time."""
        return replace(self, due=due, version=version)

    def fired(self, due: datetime, next_due: datetime | None) -> Fired:
        """The event that sends it."""
        return Fired(
            schedule=self.id,
            key=self.key,
            owner_type=self.owner[0],
            owner_id=self.owner[1],
            command=self.command,
            due=due,
            next_due=next_due,
            correlation_id=self.correlation_id,
            causation_id=self.id,
            aggregate_type=Fired.STREAM_TYPE,
            aggregate_id=self.id,
        )

    def passed(self, due: datetime, next_due: datetime | None) -> Passed:
        """The event that leaves a time out."""
        return Passed(
            schedule=self.id,
            due=due,
            next_due=next_due,
            correlation_id=self.correlation_id,
            causation_id=self.id,
            aggregate_type=Fired.STREAM_TYPE,
            aggregate_id=self.id,
        )

    def cancelled(self) -> Unscheduled:
        """The event that ends it, recorded beside its `Fired`: the first of them that is recorded holds."""
        return Unscheduled(
            key=self.key,
            owner_type=self.owner[0],
            owner_id=self.owner[1],
            aggregate_type=Fired.STREAM_TYPE,
            aggregate_id=self.id,
        )


def due_step(entry: ScheduleInfo, now: datetime) -> Fired | Passed:
    """What happens to ``entry``, which is due, at ``now``.

    ============  ====================================================  ===============================
    ``catch_up``  several times of one that recurs have passed          it is later than `LATE`
    ============  ====================================================  ===============================
    ``all``       they are made up for one after the other              it is sent
    ``last``      the last of them is made up for                       it is sent
    ``none``      as for ``last``, if that is not later than `LATE`     it is left out
    ============  ====================================================  ===============================

    Raises:
        InvalidSchedule: This machine does not know its time zone.
    """
    due, following = entry.due, None
    if entry.every is not None:
        recurrence = Recurrence(entry.every, entry.tz)
        if entry.catch_up == "all":
            following = recurrence.first_after(due)
        else:
            due = max(due, recurrence.last_until(now) or due)
            following = recurrence.first_after(max(now, due))
    if entry.catch_up == "none" and now - due > LATE:
        return entry.passed(due, following)
    return entry.fired(due, following)


def stream_of(schedule: str, owner: Owner, logs: int) -> StreamId:
    """The stream of what happens to a schedule, beside that of its owner.

    In a store with several logs it is in the log and the shard of its owner, so that one partition of the list sees all
    that happens to a schedule, in order. It has another name then: a store may have been copied from one with one log.

    Args:
        schedule: The id of the schedule.
        owner: The stream in which it was scheduled.
        logs: The number of logs of the store.
    """
    if logs == 1:
        return StreamId(Fired.STREAM_TYPE, schedule)
    return StreamId(Fired.STREAM_TYPE, key_beside(owner[0] or "", owner[1] or "", schedule))


def owner_of(event: Scheduled | Unscheduled) -> Owner:
    """The stream of the schedule that ``event`` is about."""
    if isinstance(event, Unscheduled) and event.owner_id is not None:
        return event.owner_type, event.owner_id
    return event.aggregate_type, event.aggregate_id


def shown_owner(owner: Owner) -> Owner:
    """As in `ScheduleInfo`: nothing for what programs schedule."""
    return (None, None) if owner[0] == ScheduleInfo.FROM_OUTSIDE else owner


def digest(owner: Owner, key: str) -> str:
    """What names a key of an owner in a view, whose keys are short."""
    text = "\0".join((owner[0] or "", owner[1] or "", key))
    return hashlib.blake2b(text.encode(), digest_size=16).hexdigest()


def micros(moment: datetime) -> int:
    """Microseconds since 1970, in whose order a view has its entries."""
    return (moment - _EPOCH) // timedelta(microseconds=1)
