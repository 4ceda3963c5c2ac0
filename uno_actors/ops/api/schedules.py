"""The page Scheduled, and what is done with it; ``uno-actors schedule`` uses the same functions."""

import json
from datetime import UTC, datetime
from typing import Any

from pydantic import Field

from uno_actors.ops.api.endpoint import Answered, Asked, Done, Observed
from uno_actors.printable import as_json
from uno_actors.scheduling.control import ScheduleControl
from uno_actors.scheduling.entries import ScheduleInfo

LISTED = 500
"""Commands of a list."""


def schedule_fields(entry: ScheduleInfo) -> dict[str, Any]:
    """What is scheduled, for JSON."""
    return {
        "id": entry.id,
        "key": entry.key,
        "owner_type": entry.owner_type,
        "owner_id": entry.owner_id,
        "command": entry.command.command,
        "to_type": entry.command.aggregate_type,
        "to_id": entry.command.aggregate_id,
        "fields": json.loads(entry.command.fields),
        "due": entry.due.isoformat(),
        "every": entry.every,
        "tz": entry.tz,
        "catch_up": entry.catch_up,
        "scheduled_at": entry.scheduled_at.isoformat(),
        "correlation_id": entry.correlation_id,
    }


class ScheduleShown(Answered):
    """A command that is to be sent.

    Attributes:
        id: Its id.
        key: Names it among the schedules of its owner.
        owner_type: The type of the aggregate that has scheduled it; ``None`` if it was a program.
        owner_id: The id of that aggregate.
        command: The name of the command.
        to_type: The type of the aggregate that it is sent to.
        to_id: The id of that aggregate.
        fields: The command's fields as JSON.
        due: When it is due.
        late: By how many seconds it is late; 0 if it is not.
        every: The cron expression of one that recurs.
        tz: The time zone of ``every``.
        catch_up: Which missed times are made up for.
    """

    id: str
    key: str
    owner_type: str | None
    owner_id: str | None
    command: str
    to_type: str
    to_id: str
    fields: str
    due: datetime
    late: float
    every: str | None
    tz: str
    catch_up: str


class SchedulesShown(Answered):
    """Commands that are to be sent, by due time.

    Attributes:
        schedules: The first of them.
        more: Whether there are more.
    """

    schedules: list[ScheduleShown]
    more: bool


class AskedSchedules(Asked):
    """How many are listed.

    Attributes:
        limit: At most so many.
    """

    limit: int = Field(default=100, ge=1, le=LISTED)


class AskedSchedule(Asked):
    """One of them.

    Attributes:
        id: Its id.
    """

    id: str


async def schedules(observed: Observed, asked: AskedSchedules) -> SchedulesShown:
    """Commands that are to be sent."""
    found = await ScheduleControl(observed.source.store).schedules(limit=asked.limit + 1)
    now = datetime.now(UTC)
    shown = [
        ScheduleShown(
            id=entry.id,
            key=entry.key,
            owner_type=entry.owner_type,
            owner_id=entry.owner_id,
            command=entry.command.command,
            to_type=entry.command.aggregate_type,
            to_id=entry.command.aggregate_id,
            fields=as_json(json.loads(entry.command.fields)),
            due=entry.due,
            late=max(0.0, (now - entry.due).total_seconds()),
            every=entry.every,
            tz=entry.tz,
            catch_up=entry.catch_up,
        )
        for entry in found[: asked.limit]
    ]
    return SchedulesShown(schedules=shown, more=len(found) > asked.limit)


async def cancel(observed: Observed, asked: AskedSchedule) -> Done:
    """Have a command not sent."""
    await ScheduleControl(observed.source.store).cancel(asked.id)
    return Done()


async def run_now(observed: Observed, asked: AskedSchedule) -> Done:
    """Have a command sent now."""
    await ScheduleControl(observed.source.store).run_now(asked.id)
    return Done()
