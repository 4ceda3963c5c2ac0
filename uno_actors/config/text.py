"""The text of a configuration file before its values are validated: lines, environment variables, included files."""

import io
import os
import re
import stat
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

from uno_actors.config.errors import ConfigFault, key_path, shown
from uno_actors.config.toml import Document, read_toml
from uno_actors.config.toml import Path as Keys
from uno_actors.config.values import FromEnvironment
from uno_actors.store_urls import HIDDEN, is_secret_name

DEEPEST_INCLUDE = 20
MOST_BYTES = 4 << 20
"""Maximum size of a file. A larger file is not a configuration file: its name was given by mistake."""

_VARIABLE = re.compile(r"(\$\$(?=\{))|\$\{([^}]*)\}|\$\{")
_REFERENCE = re.compile(r"([A-Za-z_][A-Za-z0-9_]*)(?::-((?:(?!\$\{).)*))?", re.DOTALL)


class Place(NamedTuple):
    """Where a key is written."""

    file: str
    line: int | None


@dataclass
class ConfigText:
    """Files as one table.

    Attributes:
        file: The path of the outermost file, as given.
        data: The table, with variables filled in and without faulty values.
        places: Where each key is written, in the order of the files.
        faults: The faults found so far.
        is_whole: Whether no fault has removed a key from ``data``.
        files: All files that were read, included ones first.
    """

    file: str
    data: dict[str, Any] = field(default_factory=dict)
    places: dict[Keys, Place] = field(default_factory=dict)
    faults: list[ConfigFault] = field(default_factory=list)
    is_whole: bool = True
    files: list[Path] = field(default_factory=list)

    def fault(self, keys: Keys, reason: str, found: object = None) -> ConfigFault:
        """A fault at ``keys``, or at the nearest table above them that is written."""
        place = self.place(keys)
        if found is not None and keys and is_secret_name(str(keys[-1])):
            found = HIDDEN
        return ConfigFault(
            place.file, place.line, key_path(keys), reason, None if found is None else shown(found)
        )

    def place(self, keys: Keys) -> Place:
        """Where ``keys`` are written, or the nearest table above them."""
        return nearest(self.places, keys) or Place(self.file, 1)


def nearest(places: Mapping[Keys, Place], keys: Keys) -> Place | None:
    """Where ``keys`` are written, or the nearest table above them."""
    above = (places.get(keys[:length]) for length in range(len(keys), 0, -1))
    return next((place for place in above if place is not None), None)


def read_text(path: str | Path, environment: Mapping[str, str] = os.environ) -> ConfigText:
    """Read a file and the files it includes. Never raises: faults are part of the result."""
    return _read(Path(path), environment, ())


def _read(path: Path, environment: Mapping[str, str], including: tuple[Path, ...]) -> ConfigText:
    text = ConfigText(str(path))
    try:
        raw = _content(path)
    except (OSError, ValueError) as error:  # ValueError: a NUL in its name
        reason = getattr(error, "strerror", None) or str(error)
        text.faults.append(ConfigFault(str(path), None, "", f"it cannot be read: {reason}"))
        text.is_whole = False
        return text
    try:
        written = raw.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = raw.count(b"\n", 0, error.start) + 1
        reason = f"it must be UTF-8, and byte {raw[error.start]:#04x} is not"
        text.faults.append(ConfigFault(str(path), line, "", reason))
        text.is_whole = False
        return text
    document = read_toml(written)
    text.files.append(path.resolve())
    text.is_whole = document.is_whole
    text.places = {keys: Place(str(path), line) for keys, line in document.lines.items()}
    text.faults += [ConfigFault(str(path), fault.line, "", fault.reason) for fault in document.faults]
    text.data = _with_variables(document, text, environment)
    return _with_included(text, path, environment, (*including, path.resolve()))


def _content(path: Path) -> bytes:
    """The bytes of a file, without waiting, whatever ``path`` names.

    Raises:
        OSError, ValueError: The file cannot be read, or is not a configuration file.
    """
    with open(path, "rb", buffering=0, opener=_at_once) as file:
        if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
            raise ValueError("it is not a regular file")
        with io.BufferedReader(file) as reader:
            # Not by its size, which is made up for files such as those in /proc.
            raw = reader.read(MOST_BYTES + 1)
    if len(raw) > MOST_BYTES:
        raise ValueError(f"it has more than {MOST_BYTES:,} bytes")
    return raw


def _at_once(path: str, flags: int) -> int:
    """Open without waiting for the other end of a FIFO, where there are FIFOs."""
    return os.open(path, flags | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_NOCTTY", 0))


# --- variables ---------------------------------------------------------------------------------------------


def _with_variables(document: Document, text: ConfigText, environment: Mapping[str, str]) -> dict[str, Any]:
    def put_in(value: Any, keys: Keys) -> Any:
        if isinstance(value, dict):
            return {key: put_in(inner, (*keys, key)) for key, inner in value.items()}
        if isinstance(value, list):
            return [put_in(inner, (*keys, index)) for index, inner in enumerate(value)]
        if not isinstance(value, str):
            return value
        try:
            return expanded(value, environment)
        except ValueError as error:
            text.faults.append(text.fault(keys, str(error), value))
            return FromEnvironment("0", value)  # a stand-in; a fault at this place is reported once

    data: dict[str, Any] = put_in(document.data, ())
    return data


def expanded(written: str, environment: Mapping[str, str]) -> str:
    """``written`` with the values of ``${NAME}`` and ``${NAME:-default}``; ``$${`` stands for ``${``.

    Raises:
        ValueError: A variable is not set and has no default, or is malformed.
    """
    if "${" not in written:
        return written
    missing, malformed = [], []

    def value(match: re.Match[str]) -> str:
        if match[1]:
            return "$"
        reference = _REFERENCE.fullmatch(match[2] or "")
        if reference is None:
            malformed.append(match[0])
            return ""
        name, default = reference[1], reference[2]
        found = environment.get(name) or default  # as in a shell, `:-` stands for an empty value, too
        if found is None and name in environment:
            found = ""
        if found is None:
            missing.append(name)
        return found or ""

    made = _VARIABLE.sub(value, written)
    if malformed:
        raise ValueError(
            f"{malformed[0]} is not a variable: write ${{NAME}}, ${{NAME:-default}}, or $${{ for a plain ${{"
        )
    if missing:
        names = " and ".join(missing)
        raise ValueError(
            f"environment variable {names} is not set: set it, or write ${{{missing[0]}:-default}}"
        )
    return FromEnvironment(made, written)


# --- included files ----------------------------------------------------------------------------------------


def _with_included(
    text: ConfigText, path: Path, environment: Mapping[str, str], including: tuple[Path, ...]
) -> ConfigText:
    named = text.data.pop("include", [])
    if not isinstance(named, list):
        text.faults.append(text.fault(("include",), "expected a list of file names", named))
        return text
    merged = ConfigText(text.file)
    for index, name in enumerate(named):
        keys: Keys = ("include", index)
        if not isinstance(name, str) or not name:
            text.faults.append(text.fault(keys, "expected the name of a file", name))
            continue
        other = path.parent / name
        if resolved(other) in including or len(including) > DEEPEST_INCLUDE:
            chain = " -> ".join(step.name for step in (*including, other))
            text.faults.append(text.fault(keys, f"files include each other: {chain}", str(name)))
            continue
        included = _read(other, environment, including)
        if not included.files and included.faults and included.faults[0].line is None:
            text.faults.append(text.fault(keys, included.faults[0].reason, str(name)))
            continue
        _merge(merged, included)
    _merge(merged, text)
    return merged


def resolved(path: Path) -> Path | None:
    """``path`` without links; ``None`` if there can be no such file, which is reported when it is read."""
    try:
        return path.resolve()
    except (OSError, RuntimeError, ValueError):  # a cycle of links, a NUL in its name
        return None


def _merge(into: ConfigText, other: ConfigText) -> None:
    """Merge ``other`` into ``into``: its values win, and its lists are appended."""
    into.faults += other.faults
    into.is_whole &= other.is_whole
    into.files += [file for file in other.files if file not in into.files]
    into.data = _merged(into.data, other.data, (), into, other)


def _merged(low: Any, high: Any, keys: Keys, into: ConfigText, other: ConfigText) -> Any:
    if isinstance(low, dict) and isinstance(high, dict):
        result = dict(low)
        for key, value in high.items():
            inner = (*keys, key)
            if key in low:
                result[key] = _merged(low[key], value, inner, into, other)
            else:
                result[key] = value
                _take_places(into, other, inner, inner)
        into.places.setdefault(keys, other.place(keys))
        return result
    if isinstance(low, list) and isinstance(high, list):
        for index in range(len(high)):
            _take_places(into, other, (*keys, index), (*keys, len(low) + index))
        return [*low, *high]
    for stale in [written for written in into.places if written[: len(keys)] == keys]:
        del into.places[stale]
    _take_places(into, other, keys, keys)
    return high


def _take_places(into: ConfigText, other: ConfigText, source: Keys, target: Keys) -> None:
    for keys, place in other.places.items():
        if keys[: len(source)] == source:
            into.places[*target, *keys[len(source) :]] = place
