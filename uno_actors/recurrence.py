"""Times that recur: a cron expression in a time zone, also around the changes of its clocks.

The rules are those of Debian's cron, by the package ``cronsim``. An expression with a fixed hour and minute runs once a
day: if the clocks skip its time, at the end of the gap; if they repeat its time, at the first of the two. An expression
whose hour or minute begins with a star runs by elapsed time: through both of two repeated hours, and in no skipped one.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo

from cronsim import CronSim, CronSimError

from uno_actors.errors import InvalidSchedule


@dataclass(frozen=True, slots=True)
class Recurrence:
    """Times that recur.

    Attributes:
        every: A cron expression: minute, hour, day of the month, month and day of the week, as in ``0 9 * * mon``; or
            six fields, of which the first is the second.
        tz: The name of a time zone, such as ``Europe/Berlin``.

    Raises:
        InvalidSchedule: The expression or the time zone is not valid, or the expression matches no time.
    """

    every: str
    tz: str = "UTC"

    def __post_init__(self) -> None:
        try:
            ZoneInfo(self.tz)
        except (LookupError, ValueError, OSError, TypeError):
            raise InvalidSchedule(
                f'no time zone is named {self.tz!r}: tz is a name of the IANA database, such as "Europe/Berlin"'
            ) from None
        if not isinstance(self.every, str):
            raise InvalidSchedule(f'every is a cron expression, as in "0 9 * * mon"; found {self.every!r}')
        try:
            CronSim(self.every, datetime.now(UTC))
        except CronSimError as error:
            raise InvalidSchedule(
                f"every={self.every!r} is not a cron expression ({error}): write minute, hour, day of the month, month"
                ' and day of the week, as in "0 9 * * mon"'
            ) from None
        if self.first_after(datetime.now(UTC)) is None:
            raise InvalidSchedule(f"every={self.every!r} matches no time of the next 50 years")

    def first_after(self, moment: datetime) -> datetime | None:
        """The first of the times after ``moment``, in UTC; ``None`` if there is none for 50 years."""
        return next((found for found in self._from(moment) if found > moment), None)

    def last_until(self, moment: datetime) -> datetime | None:
        """The last of the times up to and including ``moment``, in UTC; ``None`` if there was none for 50 years."""
        later = moment + timedelta(days=1)  # beyond any change of the clocks
        return next((found for found in self._from(later, reverse=True) if found <= moment), None)

    def _from(self, moment: datetime, *, reverse: bool = False) -> Iterator[datetime]:
        zone = ZoneInfo(self.tz)
        try:
            for found in CronSim(self.every, moment.astimezone(zone), reverse):
                yield found.astimezone(UTC)
        except (OverflowError, ValueError):  # at the end of the calendar
            return
