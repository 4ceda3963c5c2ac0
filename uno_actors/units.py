"""Sizes, durations and times as people write them, in configuration files, URLs of stores and command lines."""

import re
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

from uno_actors.quantities import LONGEST

UNITS = {"s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}
SIZES = {"B": 1, "KB": 10**3, "MB": 10**6, "GB": 10**9, "TB": 10**12}
SIZES |= {"KiB": 2**10, "MiB": 2**20, "GiB": 2**30, "TiB": 2**40}
DURATION = r"([0-9]+(?:\.[0-9]+)?) ?(ms|s|m|h|d)"
SIZE = re.compile(r"([0-9]+(?:\.[0-9]+)?) ?(B|[KMGT]i?B)")


def duration(found: Any) -> float:
    """Seconds of ``"250ms"``, ``"1.5s"``, ``"1h30m"``.

    Raises:
        ValueError: It is not such a string.
    """
    if isinstance(found, (int, float)) and not isinstance(found, bool):
        raise ValueError(f'a unit is needed: write "{found}s" for seconds')
    if not isinstance(found, str) or not re.fullmatch(f"(?:{DURATION} ?)+", found.strip() + " "):
        raise ValueError
    parts = re.findall(DURATION, found)
    seconds = sum(
        float(number) / 1000 if unit == "ms" else float(number) * UNITS[unit] for number, unit in parts
    )
    if seconds > LONGEST:
        raise ValueError("it is longer than 100 years")
    return seconds


def as_duration(seconds: float) -> str:
    """How a configuration file writes ``seconds``, in the largest unit that needs no fraction."""
    for unit in ("d", "h", "m", "s"):
        if seconds and seconds % UNITS[unit] == 0:
            return f"{seconds / UNITS[unit]:.0f}{unit}"
    milliseconds = round(seconds * 1000)
    if milliseconds / 1000 == seconds:
        return f"{milliseconds}ms" if milliseconds else "0s"
    return f"{Decimal(repr(seconds)):f}s"


def size(found: str) -> int:
    """Bytes of ``"64MiB"``, ``"1.5 GB"``, or of a whole number.

    Raises:
        ValueError: It is neither.
    """
    if re.fullmatch("[0-9]+", found):
        return int(found)
    if not (parts := SIZE.fullmatch(found)):
        raise ValueError(f'a size is a number of bytes, or one with a unit such as "64MiB"; found {found!r}')
    return int(Decimal(parts[1]) * SIZES[parts[2]])


def seconds(found: str) -> float:
    """Seconds of ``"250ms"``, ``"1h30m"``, or of a number.

    Raises:
        ValueError: It is neither.
    """
    try:
        return float(found)
    except ValueError:
        pass
    try:
        return duration(found)
    except ValueError as error:
        reason = f": {error}" if str(error) else ""
        raise ValueError(
            f'a duration is a number of seconds, or such as "250ms" or "1h30m"; found {found!r}{reason}'
        ) from None


def moment(text: str) -> datetime:
    """A time such as ``2026-01-31T12:00Z``; in UTC if it names no zone.

    Raises:
        ValueError: It is not a time in the form of ISO 8601.
    """
    found = datetime.fromisoformat(text)
    return found if found.tzinfo is not None else found.replace(tzinfo=UTC)


def rounded(seconds: float) -> str:
    """A duration for people."""
    if seconds < 60:
        return f"{seconds:.3g} s"
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    parts = [f"{number} {unit}" for number, unit in ((hours, "h"), (minutes, "min"), (rest, "s")) if number]
    return " ".join(parts)
