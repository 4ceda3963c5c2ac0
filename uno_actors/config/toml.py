"""TOML with the line of each key, which `tomllib` does not report.

`tomllib` alone decides whether a document is valid and what it says. `_Scanner` walks over the same text and only notes
where the keys are, so the two cannot disagree about a value.
"""

import re
import tomllib
from ast import literal_eval
from bisect import bisect_right
from dataclasses import dataclass, field
from typing import Any

from uno_actors.config.errors import key_path
from uno_actors.store_urls import HIDDEN, is_secret_name, without_password

Path = tuple[str | int, ...]
"""Keys and, below arrays, indices from 0."""

MOST_SYNTAX_ERRORS = 20
LONGEST_SHOWN = 60
DEEPEST = 60
"""Levels of nested tables, arrays and keys: more than any file needs, and well within Python's stack."""

_SPACE = re.compile(r"(?:[ \t\r\n]|#[^\n]*)*")
_BLANK = re.compile(r"[ \t]*")
_BARE_KEY = re.compile(r"[A-Za-z0-9_-]+")
_STRING = re.compile(
    r'"""(?:[^\\]|\\.)*?"{3,5}'
    r"|'''.*?'{3,5}"
    r'|"(?:[^"\\\n]|\\.)*"'
    r"|'[^'\n]*'",
    re.DOTALL,
)
_SCALAR = re.compile(r"[^,\]}#\n]*")
_PLACE = re.compile(r" \(at (?:line (\d+), column \d+|end of document)\)")
_KEYS = re.compile(r"\((?:'[^']*',? ?)+\)")
"""How `tomllib` names a key, as a tuple of Python."""
_TWICE = ("Cannot overwrite a value", "Cannot declare", "Cannot mutate immutable", "Duplicate inline")


@dataclass(frozen=True, slots=True)
class SyntaxFault:
    """A syntax error, or a key that is given twice.

    Attributes:
        line: From 1.
        reason: What is wrong, without the line.
    """

    line: int
    reason: str


@dataclass(frozen=True, slots=True)
class Document:
    """The readable part of a document.

    Attributes:
        data: As `tomllib` reads it, without faulty parts.
        lines: The line of each key and array element, from 1.
        faults: In the order of their lines.
        is_whole: Whether only second values of keys are missing from ``data``.
    """

    data: dict[str, Any]
    lines: dict[Path, int]
    faults: tuple[SyntaxFault, ...] = ()
    is_whole: bool = True


def read_toml(text: str) -> Document:
    """Read ``text`` and find as many faults at once as possible. Never raises."""
    text = text.replace("\r\n", "\n")
    faults: list[SyntaxFault] = []
    is_whole = True
    while True:
        try:
            data = tomllib.loads(text)
            lines = scan(text).lines
            break
        except tomllib.TOMLDecodeError as error:
            fault = _fault(text, error)
            if any(str(error).startswith(word) for word in _TWICE) and (found := _twice(text)) is not None:
                more, text = found
                faults += more
                continue
            is_whole = False
            faults.append(fault)
            is_last = "end of document" in str(error) or len(faults) >= MOST_SYNTAX_ERRORS
            rest = None if is_last else _without_line(text, fault.line)
            if rest is None:
                data, lines = {}, {}
                break
            text = rest
        except (RecursionError, _LostError) as error:
            line = error.line if isinstance(error, _DeepKeyError) else _deepest_line(text)
            faults.append(SyntaxFault(line, f"nested more than {DEEPEST} levels deep"))
            return Document({}, {}, tuple(faults), is_whole=False)
        except ValueError as error:  # a number of more digits than Python reads
            faults.append(SyntaxFault(_longest_number_line(text), str(error)))
            return Document({}, {}, tuple(faults), is_whole=False)
    lines = {path: line for path, line in lines.items() if not any(map(_is_stand_in, path))}
    return Document(
        _without_stand_ins(data), lines, tuple(sorted(set(faults), key=lambda f: f.line)), is_whole
    )


def scan(text: str) -> "_Scanner":
    """Find the places of the keys in a document that `tomllib` accepts.

    Raises:
        _LostError: The document is nested too deeply, or is not TOML.
    """
    scanner = _Scanner(text)
    scanner.document()
    return scanner


def _fault(text: str, error: tomllib.TOMLDecodeError) -> SyntaxFault:
    message = str(error)
    place = _PLACE.search(message)
    last = text.rstrip("\n").count("\n") + 1
    try:
        begun = scan(text).line_at(len(text))
    except _LostError as lost:
        begun = lost.line
    line = int(place[1]) if place and place[1] else min(begun, last)
    reason = _KEYS.sub(lambda keys: key_path(literal_eval(keys[0])), _PLACE.sub("", message))
    shown = _without_secret(text.split("\n")[line - 1].strip()) if line <= last else ""
    shown = shown if len(shown) <= LONGEST_SHOWN else shown[: LONGEST_SHOWN - 3] + "..."
    reason = f"{reason}, in {shown!r}" if shown else reason
    if begun < line:
        reason += f"; what it belongs to begins in line {begun}"
    return SyntaxFault(min(line, last), reason)


def _without_secret(line: str) -> str:
    """A line as errors show it, without a value that may be a secret or a URL with a password."""
    key, equals, _ = line.partition("=")
    if equals and is_secret_name(key):
        return f"{key.strip()} = {HIDDEN}"
    if "@" in line or "//" in line or without_password(line) != line:
        return f"{key.strip()} = {HIDDEN}" if _PLAIN_KEY.fullmatch(key) else ""
    return line


_PLAIN_KEY = re.compile(r"[\w. -]+", re.ASCII)


def _twice(text: str) -> tuple[list[SyntaxFault], str] | None:
    """The keys and tables that are given twice, and the text without the second ones; ``None`` if there are none."""
    try:
        scanner = scan(text)
    except _LostError:
        return None
    if not scanner.twice:
        return None
    faults = []
    outer = [a for a in scanner.twice if not any(b[1] < a[1] and a[2] <= b[2] for b in scanner.twice)]
    for path, start, end in reversed(outer):
        line, first = scanner.line_at(start), scanner.lines[path]
        faults.append(
            SyntaxFault(
                line, f"{key_path(path)} is given twice, first in line {first}: leave one of them out"
            )
        )
        name = f"{_STAND_IN}{line}-{start}-{end}"
        lines = "\n" * text.count("\n", start, end)
        stand_in = f"[{name}]{lines}" if text[start] == "[" else f"{name} = [{lines}]"
        text = text[:start] + stand_in + text[end:]
    return faults, text


_STAND_IN = "given-twice-"


def _without_stand_ins(value: Any) -> Any:
    if isinstance(value, list):
        return [_without_stand_ins(element) for element in value]
    if isinstance(value, dict):
        return {key: _without_stand_ins(kept) for key, kept in value.items() if not _is_stand_in(key)}
    return value


def _is_stand_in(key: object) -> bool:
    return isinstance(key, str) and key.startswith(_STAND_IN)


def _without_line(text: str, line: int) -> str | None:
    """``text`` without a line that is faulty by itself, so that the rest can be read; else ``None``."""
    lines = text.split("\n")
    wrong = lines[line - 1]
    if wrong.lstrip().startswith("[") or not _fails(wrong) or _fails("\n".join(lines[: line - 1])):
        return None
    lines[line - 1] = ""
    return "\n".join(lines)


def _fails(text: str) -> bool:
    try:
        tomllib.loads(text)
    except (ValueError, RecursionError):
        return True
    return False


def _deepest_line(text: str) -> int:
    depth = deepest = 0
    where = 1
    for number, line in enumerate(text.split("\n"), start=1):
        for letter in line:
            depth += (letter in "[{") - (letter in "]}")
            if depth > deepest:
                deepest, where = depth, number
    return where


def _longest_number_line(text: str) -> int:
    lengths = [max(map(len, re.findall(r"[0-9_]+", line)), default=0) for line in text.split("\n")]
    return lengths.index(max(lengths)) + 1


class _LostError(Exception):
    """The scanner cannot follow the text.

    Attributes:
        line: Where the statement that it cannot follow begins.
    """

    line = 1


class _DeepKeyError(_LostError):
    """A key is nested in too many tables."""


@dataclass
class _Scanner:
    """Walks over TOML and notes the place of each key. Of a value it only finds the end."""

    text: str
    lines: dict[Path, int] = field(default_factory=dict)
    twice: list[tuple[Path, int, int]] = field(default_factory=list)
    """Keys that are given twice: the path, and the start and end of the second one."""

    def __post_init__(self) -> None:
        self._at = 0
        self._ends = [match.start() for match in re.finditer("\n", self.text)]
        self._lengths: dict[Path, int] = {}  # of the arrays of tables
        self._given: set[Path] = set()  # keys with a value, and tables with a header

    def line_at(self, position: int) -> int:
        return bisect_right(self._ends, position - 1) + 1

    def document(self) -> None:
        table: Path = ()
        while True:
            self._skip(_SPACE)
            if self._at >= len(self.text):
                return
            start = self._at
            try:
                table = self._top_level(table)
            except _LostError as lost:
                lost.line = self.line_at(start)
                raise

    def _top_level(self, table: Path) -> Path:
        """Read a header or a statement, and return the table that the next statement is in."""
        if self._next("[["):
            return self._array_header()
        if self._next("["):
            return self._header()
        self._statement(table, 0)
        return table

    # --- headers and statements ---

    def _header(self) -> Path:
        start = self._at
        self._take("[")
        table = self._inside((), self._key(), start)
        self._take("]")
        if table in self._given:
            self.twice.append((table, start, self._at))
        self._given.add(table)
        return table

    def _array_header(self) -> Path:
        start = self._at
        self._take("[[")
        *above, last = self._key()
        array = (*self._inside((), above, start), last)
        self._take("]]")
        index = self._lengths.get(array, 0)
        self._lengths[array] = index + 1
        self._note(array, start)
        self._note((*array, index), start)
        return (*array, index)

    def _inside(self, table: Path, keys: list[str], start: int) -> Path:
        """The path of ``keys``; a key of an array of tables stands for its last element."""
        for key in keys:
            table = (*table, key)
            self._note(table, start)
            if table in self._lengths:
                table = (*table, self._lengths[table] - 1)
        return table

    def _statement(self, table: Path, depth: int) -> None:
        start = self._at
        keys = self._key()
        path = (*table, *keys)
        is_new = path not in self._given
        for length in range(len(table) + 1, len(path) + 1):
            self._note(path[:length], start)
        self._given.add(path)
        self._take("=")
        self._value(path, depth)
        if not is_new:
            self.twice.append((path, start, self._at))

    # --- keys and values ---

    def _key(self) -> list[str]:
        parts = []
        while True:
            self._skip(_BLANK)
            parts.append(self._key_part())
            self._skip(_BLANK)
            if not self._next("."):
                return parts
            self._take(".")

    def _key_part(self) -> str:
        if bare := _BARE_KEY.match(self.text, self._at):
            self._at = bare.end()
            return bare[0]
        quoted = self._string()
        try:
            found: str = tomllib.loads(f"a = {quoted}")["a"]
        except ValueError:
            raise _LostError from None
        return found

    def _string(self) -> str:
        found = _STRING.match(self.text, self._at)
        if found is None:
            raise _LostError
        self._at = found.end()
        return found[0]

    def _value(self, path: Path, depth: int) -> None:
        self._skip(_BLANK)
        if depth > DEEPEST:
            raise _LostError
        if self._next("["):
            self._array(path, depth)
        elif self._next("{"):
            self._inline_table(path, depth)
        elif self._next('"') or self._next("'"):
            self._string()
        elif not self._skip(_SCALAR):
            raise _LostError

    def _array(self, path: Path, depth: int) -> None:
        self._take("[")
        for index in range(len(self.text)):
            self._skip(_SPACE)
            if self._next("]"):
                break
            self._note((*path, index), self._at)
            self._value((*path, index), depth + 1)
            self._skip(_SPACE)
            if not self._next("]"):
                self._take(",")
        self._take("]")

    def _inline_table(self, path: Path, depth: int) -> None:
        self._take("{")
        self._skip(_SPACE)
        while not self._next("}"):
            self._statement(path, depth + 1)
            self._skip(_SPACE)
            if not self._next("}"):
                self._take(",")
                self._skip(_SPACE)
        self._take("}")

    # --- moving on ---

    def _note(self, path: Path, position: int) -> None:
        if len(path) > 2 * DEEPEST:  # each array of tables has its indices, too
            raise _DeepKeyError
        self.lines.setdefault(path, self.line_at(position))

    def _next(self, mark: str) -> bool:
        return self.text.startswith(mark, self._at)

    def _take(self, mark: str) -> None:
        self._skip(_BLANK)
        if not self._next(mark):
            raise _LostError
        self._at += len(mark)

    def _skip(self, pattern: re.Pattern[str]) -> bool:
        """Whether anything was skipped."""
        found = pattern.match(self.text, self._at)
        before, self._at = self._at, found.end() if found else self._at
        return self._at > before
