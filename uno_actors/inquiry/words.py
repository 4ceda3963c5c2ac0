"""Words and phrases that several findings share."""

from datetime import datetime

from uno_actors.printable import bounded, counted
from uno_actors.store.records import StoredRecord
from uno_actors.units import rounded

LONGEST = 200
"""Characters of the text of an error."""


def moment(when: datetime) -> str:
    """A time, in UTC."""
    return f"{when:%Y-%m-%d %H:%M:%S} UTC"


def age(seconds: float) -> str:
    """A duration, without fractions that say nothing; at least 0.1 s."""
    if seconds >= 2 * 86_400:
        return f"{seconds / 86_400:,.0f} days"
    if seconds >= 3600:
        return rounded(seconds // 60 * 60)
    return rounded(max(0.1, round(seconds, 1)) if seconds < 10 else round(seconds))


def error_of(text: str) -> str:
    """The text of an error: its first line, cut."""
    return bounded(text.partition("\n")[0], LONGEST)


def event_of(stored: StoredRecord) -> str:
    """An event: its type, its position, and its place in its stream."""
    position, record = stored
    of = "" if record.stream is None else f", version {record.aggregate_version} of {record.stream}"
    return f"{record.event_type} at position {position}{of}"


def listed(names: list[str], most: int = 5) -> str:
    """Names as a list with commas, and how many more there are."""
    shown = ", ".join(names[:most])
    more = len(names) - most
    return f"{shown} and {counted(more, 'other')}" if more > 0 else shown


def behind(events: int, seconds: float) -> str:
    """How far a handler is behind."""
    return f"{counted(events, 'event')} and {age(seconds)} behind"
