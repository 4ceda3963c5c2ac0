"""Makes any text safe to show in terminals, logs, JSON and the texts of errors.

A name, a topic, a payload or the text of an error may contain anything: line ends that forge a line of a log, escapes
that a terminal obeys, marks that change the direction of text, halves of characters, megabytes.

- A line shows such characters as escapes: `printable`. A text of several lines keeps its line ends: `printable_lines`.
- A long error is recorded and logged with its beginning and its end: `bounded`, `traceback_text`.
- JSON is ASCII, and valid for any value: `as_json`.
"""

import json
import math
import traceback
from base64 import b64encode
from collections.abc import Mapping
from datetime import date, datetime, time
from typing import Any

LONGEST_ERROR = 4_000
"""Maximum characters of an error's text."""
LONGEST_TRACEBACK = 64_000
"""Maximum characters of a traceback, the error's text included."""
DEEPEST = 100
"""Maximum levels of lists and tables where JSON cannot show a value as it is."""
LONGEST_NUMBER = 4_000
"""Maximum bits of a whole number written in decimal; a larger one is written as hexadecimal text."""

_CAUSES = ("\nThe above exception was the direct cause", "\nDuring handling of the above exception, another")
_MARK = "  | "


def readable(text: str) -> str:
    """``text`` with escapes in place of invalid Unicode."""
    return text.encode("utf-8", "backslashreplace").decode()


def printable(text: str) -> str:
    """``text`` on one line, with escapes in place of characters that a terminal would obey instead of show.

    These are separators (except the space), control characters, format characters (such as marks of direction),
    surrogates, characters for private use, and unassigned ones: see `str.isprintable`.
    """
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


def printable_lines(text: str) -> str:
    """`printable` for each line of a text that may have several, such as a traceback."""
    return "\n".join(map(printable, text.split("\n")))


def bounded(text: str, most: int) -> str:
    """``text``, or its beginning and its end and the number of characters left out between them."""
    if len(text) <= most:
        return text
    half = most // 2
    return f"{text[:half]} [{len(text) - 2 * half:,} characters left out] {text[-half:]}"


def text_of(value: object) -> str:
    """``str(value)``, or a replacement if that raises."""
    try:
        return str(value)
    except BaseException:  # noqa: BLE001 - its __str__ may raise anything, SystemExit too
        return f"a {type(value).__name__} (its text cannot be shown)"


def traceback_text(error: BaseException) -> str:
    """The traceback of ``error`` and its causes, at most `LONGEST_TRACEBACK` characters long.

    Further lines of an error's text are marked, so that they cannot be mistaken for lines of the traceback.
    """
    try:
        chunks = traceback.format_exception(error)
    except BaseException:  # noqa: BLE001 - a foreign error may raise anything, in its __bool__ or its notes
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

    Values that JSON lacks are written as text: ``NaN``, ``Infinity``, ``-Infinity``; bytes in base64; times in ISO
    8601; whole numbers of thousands of digits in hexadecimal; halves of characters as escapes; all others as ``str``
    shows them. The same holds for keys.
    """
    try:
        text = json.dumps(value, allow_nan=False, indent=indent)
        if "\\ud" not in text:  # a surrogate may be half a character
            return text
    except (TypeError, ValueError, RecursionError):
        pass
    return json.dumps(json_value(value), allow_nan=False, indent=indent)


def json_value(value: object, depth: int = 0) -> Any:
    """``value`` as `as_json` writes it if JSON cannot write it as it is."""
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
