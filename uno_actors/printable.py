"""The rule for text that people and programs read from us: terminals, logs, JSON, and the texts of errors.

A name, a topic, a payload or the text of an error may hold anything: line ends that forge a line of a log,
escapes that a terminal obeys, marks that turn the direction of writing, halves of characters, megabytes.

- A line shows such characters as escapes: `printable`. A text of several lines keeps its own: `printable_lines`.
- An error is recorded and logged up to a length, with its beginning and its end: `bounded`, `traceback_text`.
- JSON is ASCII, and valid whatever the values are: `as_json`.
"""

import json
import math
import traceback
from base64 import b64encode
from collections.abc import Mapping
from datetime import date, datetime, time
from typing import Any

LONGEST_ERROR = 4_000
"""Characters that are kept of an error's text."""
LONGEST_TRACEBACK = 64_000
"""Characters that are kept of a traceback, the error's text included."""
DEEPEST = 100
"""Levels of lists and tables that JSON shows where it cannot show a value as it is."""
LONGEST_NUMBER = 4_000
"""Bits of a whole number that are written as decimal digits; a longer one is written as a hexadecimal text."""

_CAUSES = ("\nThe above exception was the direct cause", "\nDuring handling of the above exception, another")
_MARK = "  | "


def readable(text: str) -> str:
    """``text`` with what is no valid Unicode written as escapes."""
    return text.encode("utf-8", "backslashreplace").decode()


def printable(text: str) -> str:
    """``text`` on one line, with what a terminal would obey instead of show written as escapes.

    These are all characters of Unicode that are separators (but for the space), control characters, formats (marks
    of direction among them), surrogates, for private use or not assigned: see `str.isprintable`.
    """
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


def printable_lines(text: str) -> str:
    """The same for a text whose line feeds are meant as such, as those of a traceback are."""
    return "\n".join(map(printable, text.split("\n")))


def bounded(text: str, most: int) -> str:
    """``text``, or its beginning and its end with the number of characters that were left out between them."""
    if len(text) <= most:
        return text
    half = most // 2
    return f"{text[:half]} [{len(text) - 2 * half:,} characters left out] {text[-half:]}"


def text_of(value: object) -> str:
    """``str(value)``, also of what cannot be shown."""
    try:
        return str(value)
    except BaseException:  # noqa: BLE001 - whatever its own __str__ raises, SystemExit too
        return f"a {type(value).__name__} (its text cannot be shown)"


def traceback_text(error: BaseException) -> str:
    """The traceback of ``error`` and its causes, at most `LONGEST_TRACEBACK` characters long.

    Further lines of an error's text are marked, so that none can be taken for a line of another origin.
    """
    try:
        chunks = traceback.format_exception(error)
    except BaseException:  # noqa: BLE001 - whatever an error of others does when it is looked at: its __bool__, its notes
        chunks = [*traceback.format_tb(error.__traceback__), f"{type(error).__name__} (it cannot be shown)"]
    lines: list[str] = []
    in_text = False
    for chunk in chunks:
        in_text &= not chunk.startswith(_CAUSES)
        for number, line in enumerate(chunk.removesuffix("\n").split("\n")):
            lines.append(f"{_MARK}{line}" if in_text else line)
            is_text = line[:1].strip() != "" and not line.startswith("Traceback (most recent call last):")
            in_text |= is_text and (number == 0 or not chunk.startswith("\n"))
    return bounded(readable("\n".join(lines)) + "\n", LONGEST_TRACEBACK)


def as_json(value: object, *, indent: int | None = None) -> str:
    """``value`` as JSON, in ASCII.

    What JSON has not got is written as a text: ``NaN``, ``Infinity``, ``-Infinity``; bytes in base64; times in ISO
    8601; whole numbers of thousands of digits in hexadecimal; halves of characters as escapes; all else as ``str``
    shows it. So are keys.
    """
    try:
        text = json.dumps(value, allow_nan=False, indent=indent)
        if "\\ud" not in text:  # no surrogates, and if there are, they may be halves
            return text
    except (TypeError, ValueError, RecursionError):
        pass
    return json.dumps(json_value(value), allow_nan=False, indent=indent)


def json_value(value: object, depth: int = 0) -> Any:
    """``value`` as `as_json` writes it where JSON cannot say all of it."""
    said: Any
    match value:
        case None | bool():
            said = value
        case str():
            said = readable(value)
        case int():
            said = int(value) if value.bit_length() <= LONGEST_NUMBER else hex(value)
        case float():
            said = float(value) if math.isfinite(value) else _not_finite(value)
        case bytes() | bytearray() | memoryview():
            said = b64encode(value).decode()
        case datetime() | date() | time():
            said = value.isoformat()
        case Mapping() | list() | tuple() | set() | frozenset() if depth >= DEEPEST:
            said = "..."
        case Mapping():
            said = {_key(key): json_value(item, depth + 1) for key, item in value.items()}
        case list() | tuple() | set() | frozenset():
            said = [json_value(item, depth + 1) for item in value]
        case _:
            said = readable(text_of(value))
    return said


def _key(key: object) -> str:
    plain = json_value(key)
    return plain if isinstance(plain, str) else json.dumps(plain)


def _not_finite(value: float) -> str:
    return "NaN" if math.isnan(value) else "Infinity" if value > 0 else "-Infinity"


def counted(number: int, what: str) -> str:
    """``1 event`` or ``2,000 events``."""
    return f"{number:,} {what}{'' if number == 1 else 's'}"
