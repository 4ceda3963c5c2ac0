"""The faults of a configuration file, each with its place and with what is allowed there."""

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from datetime import date, datetime, time
from typing import Any

from uno_actors.errors import CallerError
from uno_actors.printable import counted, printable
from uno_actors.store_urls import without_password

LONGEST_SHOWN = 80


@dataclass(frozen=True, slots=True)
class ConfigFault:
    """One fault of a configuration file.

    Attributes:
        file: Its path, as given.
        line: From 1; ``None`` if the file cannot be read at all.
        key: Path of the key, such as ``supervisors[0].handlers[1].topic``; empty for a syntax error.
        reason: What is wrong, and what is allowed instead.
        found: The value as it is written; ``None`` if there is none.
    """

    file: str
    line: int | None
    key: str
    reason: str
    found: str | None = None

    def __str__(self) -> str:
        place = self.file if self.line is None else f"{self.file}:{self.line}"
        key = f"{self.key}: " if self.key else ""
        found = "" if self.found is None else f"found {self.found}; "
        return printable(f"{place}: {key}{found}{self.reason}")

    def as_dict(self) -> dict[str, Any]:
        """The fault as ``check --json`` prints it."""
        return asdict(self)


class InvalidConfig(CallerError, ValueError):
    """A configuration file that cannot be used.

    Attributes:
        faults: All faults, in the order of the file.
    """

    def __init__(self, file: str, faults: Sequence[ConfigFault]) -> None:
        self.file = file
        self.faults = tuple(faults)
        super().__init__(
            "\n".join([printable(f"{file} has {counted(len(faults), 'fault')}:"), *map(str, faults)])
        )


def shown(value: object) -> str:
    """A value almost as TOML writes it, on one short line, without the password of a URL."""
    match value:
        case str():
            text = quoted(without_password(value))
        case bool():
            text = str(value).lower()
        case datetime() | date() | time():
            text = value.isoformat()
        case dict():
            text = "a table"
        case list():
            text = f"[{', '.join(map(shown, value))}]"
        case _:
            text = str(value)
    return text if len(text) <= LONGEST_SHOWN else text[: LONGEST_SHOWN - 3] + "..."


def key_path(path: Sequence[str | int]) -> str:
    """``('a', 0, 'b.c')`` as ``a[0]."b.c"``."""
    text = ""
    for part in path:
        if isinstance(part, int):
            text += f"[{part}]"
        else:
            is_bare = part.replace("_", "").replace("-", "").isalnum() and part.isascii()
            text += ("." if text else "") + (part if is_bare else quoted(part))
    return text


def quoted(text: str) -> str:
    """A string as TOML writes it."""
    return json.dumps(text, ensure_ascii=False).replace("\x7f", "\\u007f")
