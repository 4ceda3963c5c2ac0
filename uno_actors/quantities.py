"""Numbers from a program or a file: the one place that says what a duration, a count or a share may be.

Every number is checked here, where it enters: a ``nan`` in a timer stops all timers of the event loop, ``True``
counts as one, and 2.5 restarts can be compared but not written to a file. Configuration files have the same limits,
so that a file can express whatever code accepts.
"""

import math
from typing import Any, TypeGuard

from uno_actors.errors import InvalidNumber

LONGEST = 100 * 366 * 86400.0
"""The longest duration in seconds: 100 years. No limit is expressed by ``None`` or a word."""
MOST = 2**63 - 1
"""The largest number that every store and every file can hold."""


def is_number(found: object, least: float = -math.inf, most: float = math.inf) -> TypeGuard[float]:
    """Whether ``found`` is a finite number, not a bool, from ``least`` to ``most``."""
    if not isinstance(found, (int, float)) or isinstance(found, bool):
        return False
    return (
        math.isfinite(found) and least <= found <= most
        if isinstance(found, float)
        else least <= found <= most
    )


def is_duration(found: object, *, zero: bool = False) -> bool:
    """Whether ``found`` is a number of seconds: positive, or with ``zero`` also zero, and at most `LONGEST`."""
    return is_number(found, 0, LONGEST) and (zero or found != 0)


def is_count(found: object, least: int = 0) -> TypeGuard[int]:
    """Whether ``found`` is a whole number from ``least`` to `MOST`."""
    return isinstance(found, int) and not isinstance(found, bool) and least <= found <= MOST


def check_duration(what: str, found: Any, *, zero: bool = False, none: bool = False) -> None:
    """Refuse a value that is not a duration; see `is_duration`.

    Args:
        what: Names the number in the error.
        found: The number.
        zero: Whether it may be 0.
        none: Whether it may be ``None``.

    Raises:
        InvalidNumber: The value is refused.
    """
    if not (none and found is None) and not is_duration(found, zero=zero):
        kind = "a number of seconds that is not negative" if zero else "a positive number of seconds"
        raise InvalidNumber(what, f"{kind}, at most 100 years{', or None' if none else ''}", found)


def check_count(what: str, found: Any, least: int = 0, *, none: bool = False) -> None:
    """Refuse a value that is not a whole number from ``least`` on; for the arguments see `check_duration`.

    Raises:
        InvalidNumber: The value is refused.
    """
    if not (none and found is None) and not is_count(found, least):
        raise InvalidNumber(what, f"a whole number, {least} or more{', or None' if none else ''}", found)


def check_number(what: str, found: Any, least: float, most: float | None = None) -> None:
    """Refuse a value that is not a finite number from ``least`` to ``most``.

    Raises:
        InvalidNumber: The value is refused.
    """
    if not is_number(found, least, math.inf if most is None else most):
        allowed = f"{least:g} or more" if most is None else f"from {least:g} to {most:g}"
        raise InvalidNumber(what, f"a finite number, {allowed}", found)
