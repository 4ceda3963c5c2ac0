"""Commands that are sent later: the events that say so, in the log like all others.

An aggregate records `Scheduled` and `Unscheduled` in its own stream, in the append of its other events. When a command
is due, the scheduler records `Fired` and sends it. The three together say what is still to be sent, so that a list of
that can be derived from any log; see `uno_actors.scheduling`.
"""

from datetime import UTC, datetime, timedelta
from typing import ClassVar, Literal

from uno_actors.domain.events import DomainEvent
from uno_actors.domain.outgoing_commands import OutgoingCommand
from uno_actors.errors import InvalidSchedule
from uno_actors.quantities import LONGEST, is_duration
from uno_actors.recurrence import Recurrence
from uno_actors.shards import BESIDE

MAX_KEY_BYTES = 255
"""The longest key of a schedule, in bytes of UTF-8: it can be the id of a stream."""

CatchUp = Literal["all", "last", "none"]
"""Which of the times that have passed while no scheduler ran are made up for."""
CATCH_UP = ("all", "last", "none")


class Scheduled(DomainEvent):
    """A command is to be sent later. It replaces what was scheduled under the same key of the same owner.

    The owner is the aggregate in whose stream it is; for `uno_actors.ActorSystem.schedule` a stream of its own.

    Attributes:
        key: Names it among the schedules of its owner.
        command: The command, and the aggregate to send it to.
        due: When it is due, for the first time if it recurs.
        every: The cron expression of one that recurs.
        tz: The time zone of ``every``.
        catch_up: Which times are made up for that have passed while no scheduler ran.
    """

    event_type: str = "uno_actors.Scheduled"
    key: str
    command: OutgoingCommand
    due: datetime
    every: str | None = None
    tz: str = "UTC"
    catch_up: CatchUp = "last"


class Unscheduled(DomainEvent):
    """A scheduled command is not to be sent any more.

    Attributes:
        key: Its key.
        owner_type: The type of its owner, if this event is in another stream.
        owner_id: The id of its owner, if this event is in another stream.
    """

    event_type: str = "uno_actors.Unscheduled"
    key: str
    owner_type: str | None = None
    owner_id: str | None = None


class Fired(DomainEvent):
    """A scheduled command was due, and is sent. Its stream has one for each time of the schedule that was not skipped.

    Attributes:
        schedule: The ``event_id`` of its `Scheduled`; also the id of the stream in which this event is.
        key: The key of the schedule.
        owner_type: The type of its owner.
        owner_id: The id of its owner.
        command: The command, and the aggregate to send it to.
        due: The time that had come.
        next_due: When it is due again; ``None`` if it is not.
    """

    STREAM_TYPE: ClassVar[str] = BESIDE

    event_type: str = "uno_actors.Fired"
    schedule: str
    key: str
    owner_type: str | None
    owner_id: str | None
    command: OutgoingCommand
    due: datetime
    next_due: datetime | None = None

    @property
    def command_id(self) -> str:
        """The id of the command that is sent: the same however often this is handled."""
        return f"{self.schedule}.{self.due.astimezone(UTC):%Y%m%dT%H%M%S%f}"


class Passed(DomainEvent):
    """A time of a schedule has passed, and no command is sent for it; in the stream of its `Fired`.

    Attributes:
        schedule: The ``event_id`` of its `Scheduled`.
        due: The time that has passed.
        next_due: When it is due again; ``None`` if it is not.
    """

    event_type: str = "uno_actors.Passed"
    schedule: str
    due: datetime
    next_due: datetime | None = None


def scheduled(
    command: OutgoingCommand,
    key: str | None,
    now: datetime,
    *,
    after: timedelta | float | None = None,
    at: datetime | None = None,
    every: str | None = None,
    tz: str = "UTC",
    catch_up: CatchUp = "last",
) -> Scheduled:
    """The event for ``command``; for the arguments see `uno_actors.AggregateRoot.schedule`.

    Raises:
        InvalidSchedule: They do not say when it is due.
    """
    if catch_up not in CATCH_UP:
        raise InvalidSchedule(f'catch_up is "all", "last" or "none"; found {catch_up!r}')
    if tz != "UTC" and every is None:
        raise InvalidSchedule(
            f"tz={tz!r} is the time zone of every=, which is not given; at= has one of its own"
        )
    given = {
        name: found for name, found in (("after", after), ("at", at), ("every", every)) if found is not None
    }
    if len(given) != 1:
        found = " and ".join(given) or "none of them"
        raise InvalidSchedule(f"one of after=, at= and every= says when the command is due; found {found}")
    due = _due(now, after, at, every, tz)
    event = Scheduled(key=key or "", command=command, due=due, every=every, tz=tz, catch_up=catch_up)
    return event if key is not None else event.stamped(key=event.event_id)


def _due(
    now: datetime, after: timedelta | float | None, at: datetime | None, every: str | None, tz: str
) -> datetime:
    """When a command is due, in UTC."""
    try:
        if every is not None:
            first = Recurrence(every, tz).first_after(now)
            assert first is not None  # checked there
            return first
        if at is not None:
            if not isinstance(at, datetime):
                raise InvalidSchedule(f"at is a datetime; found {at!r}")
            return at.replace(tzinfo=UTC) if at.tzinfo is None else at.astimezone(UTC)
        seconds = after.total_seconds() if isinstance(after, timedelta) else after
        if not is_duration(seconds, zero=True):
            raise InvalidSchedule(
                f"after is a timedelta or a number of seconds, 0 to {LONGEST:g} (100 years); found {after!r}"
            )
        return now + timedelta(seconds=seconds or 0)
    except OverflowError:
        raise InvalidSchedule(f"{after if at is None else at!r} is beyond the year 9999") from None


def check_key(key: object) -> str:
    """Return ``key`` unchanged if it can name a schedule.

    Raises:
        InvalidSchedule: It cannot.
    """
    if not isinstance(key, str) or not key or "\0" in key or _size(key) > MAX_KEY_BYTES:
        raise InvalidSchedule(
            f"key is a str of 1 to {MAX_KEY_BYTES} bytes of UTF-8 without a NUL character; found {key!r}"
        )
    return key


def _size(text: str) -> int:
    try:
        return len(text.encode())
    except UnicodeEncodeError:
        return MAX_KEY_BYTES + 1
