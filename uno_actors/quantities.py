"""Numbers that a program or a file gives: the one place for what a duration, a count or a share may be.

Everything that takes a number checks it here, where it enters: a ``nan`` that comes to a timer stops all timers of
the event loop, ``True`` counts as one, and 2.5 restarts compare well and cannot be written to a file. The limits
are those of configuration files too, so that what code accepts a file can say.
"""

import math
from typing import Any, TypeGuard

from uno_actors.errors import InvalidNumber

LONGEST = 100 * 366 * 86400.0
"""Seconds that a duration has at the most: 100 years. What is to take any time says so, by ``None`` or a word."""
MOST = 2**63 - 1
"""The largest number that every store and every file can hold."""


def is_number(found: object, least: float = -math.inf, most: float = math.inf) -> TypeGuard[float]:
    """Whether ``found`` is a finite number, and no truth value, from ``least`` to ``most``."""
    if not isinstance(found, (int, float)) or isinstance(found, bool):
        return False
    return (
        math.isfinite(found) and least <= found <= most
        if isinstance(found, float)
        else least <= found <= most
    )


def is_duration(found: object, *, zero: bool = False) -> bool:
    """Whether ``found`` is a number of seconds: more than zero, or with ``zero`` zero too, and at most `LONGEST`."""
    return is_number(found, 0, LONGEST) and (zero or found != 0)


def is_count(found: object, least: int = 0) -> TypeGuard[int]:
    """Whether ``found`` is a whole number from ``least`` to `MOST`."""
    return isinstance(found, int) and not isinstance(found, bool) and least <= found <= MOST


def check_duration(what: str, found: Any, *, zero: bool = False, none: bool = False) -> None:
    """Refuse what is no duration; see `is_duration`.

    Args:
        what: Whose number it is, for the error.
        found: The number.
        zero: Whether it may be 0.
        none: Whether it may be ``None``.

    Raises:
        InvalidNumber: It is none.
    """
    if not (none and found is None) and not is_duration(found, zero=zero):
        kind = "a number of seconds that is not negative" if zero else "a positive number of seconds"
        raise InvalidNumber(what, f"{kind}, at most 100 years{', or None' if none else ''}", found)


def check_count(what: str, found: Any, least: int = 0, *, none: bool = False) -> None:
    """Refuse what is no whole number from ``least`` on; see `is_count`, and `check_duration` for the arguments.

    Raises:
        InvalidNumber: It is none.
    """
    if not (none and found is None) and not is_count(found, least):
        raise InvalidNumber(what, f"a whole number, {least} or more{', or None' if none else ''}", found)


def check_number(what: str, found: Any, least: float, most: float | None = None) -> None:
    """Refuse what is no finite number from ``least`` to ``most``.

    Raises:
        InvalidNumber: It is none.
    """
    if not is_number(found, least, math.inf if most is None else most):
        allowed = f"{least:g} or more" if most is None else f"from {least:g} to {most:g}"
        raise InvalidNumber(what, f"a finite number, {allowed}", found)
