"""The output of every command on a store full of hostile names and texts, on any terminal."""

import asyncio
import json
import os
import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from uno_actors import DeadLetter, DomainEvent, EventRegistry
from uno_actors.cli import app as cli
from uno_actors.store.codec import to_record
from uno_actors.store.records import Append, ViewChange
from uno_stores import LmdbEventStore

COMMAND = Path(sys.executable).with_name("uno-actors")
MOMENT = datetime(1, 1, 1, 0, 0, 0, tzinfo=UTC)

EVIL = (
    "[red]:warning: \nerror: FORGED\r\x1b[2J\x1b]0;title\x07\x7f\x85\x9b31m"
    "\u200f\u202e\u2066\u2028\u2029\ufeff Zürich-日本 {x} %s"
)
"""Markup, a name of an emoji, line ends, escapes, C0, C1, DEL, marks of direction, separators, letters."""
SHOWN = "[red]:warning: \\nerror: FORGED\\r\\x1b[2J"

VALUES: list[Any] = [
    EVIL,
    {EVIL: EVIL},
    [EVIL, [EVIL]],
    {1: EVIL, (1, 2): b"\xff"},
    b"\xff\0",
    {b"\xff": float("nan")},
    float("nan"),
    float("inf"),
    -float("inf"),
    2**64 - 1,
    "😀",
    datetime(9999, 12, 31, tzinfo=UTC),
]


class Hostile(DomainEvent):
    """An event whose class the command does not know."""

    value: Any = None


async def fill(path: Path) -> None:
    async with LmdbEventStore(path, EventRegistry([Hostile])) as store:
        for value in VALUES:
            event = Hostile(
                value=value,
                aggregate_id=EVIL,
                aggregate_type=f"T{EVIL}",
                correlation_id=EVIL,
                timestamp=MOMENT,
            )
            await store.commit([Append((to_record(event)._replace(event_type=f"E{EVIL}"),))])
        await store.append(Hostile(aggregate_id=EVIL, aggregate_type=f"U{EVIL}"))
        traceback = f"Traceback (most recent call last):\nValueError: {EVIL}"
        letters = [
            DeadLetter(EVIL, place, f"E{EVIL}", 3, f"ValueError: {EVIL}", traceback, MOMENT, MOMENT)
            for place in (1, 2)
        ]
        await store.save_progress({EVIL: 2, "tidy": 1}, letters, [ViewChange(EVIL, b"k", b"v")])


@pytest.fixture(scope="module")
def hostile_store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("hostile") / "store"
    asyncio.run(fill(path))
    return path


def printed(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, *arguments: str
) -> tuple[int, str, str]:
    """The exit code of a command in this process, its output, and its errors."""
    monkeypatch.setattr(sys, "argv", ["uno-actors", *arguments])
    try:
        cli.main()
        code = 0
    except SystemExit as end:
        code = int(end.code or 0)
    out, err = capsys.readouterr()
    return code, out, err


TYPE = ("--type", f"T{EVIL}")
COMMANDS: list[tuple[tuple[str, ...], int]] = [
    (("store", "info"), 0),
    (("store", "events"), 0),
    (("store", "events", "--event", f"E{EVIL}", "--correlation", EVIL), 0),
    (("store", "stream", EVIL, *TYPE), 0),
    (("store", "stream", EVIL), 1),  # names the types
    (("store", "stream", f"{EVIL}!"), 1),
    (("store", "trace", EVIL), 0),
    (("store", "trace", f"{EVIL}!"), 1),
    (("store", "verify"), 0),
    (("store", "export"), 0),
    (("store", "import", EVIL), 1),
    (("store", "events", "--topic", EVIL), 2),
    (("handlers", "list"), 0),
    (("handlers", "pause", "nope"), 1),  # names those that there are
    (("handlers", "pause", EVIL), 0),
    (("handlers", "resume", EVIL), 0),
    (("handlers", "reset", EVIL, "--to", "earliest"), 0),
    (("handlers", "replay", EVIL, "--from", "2"), 0),
    (("handlers", "replay", EVIL, "--from", "4"), 1),
    (("deadletters", "list"), 0),
    (("deadletters", "list", "--handler", "nope"), 1),
    (("deadletters", "show", EVIL, "1"), 0),
    (("deadletters", "show", EVIL, "9"), 1),
    (("deadletters", "retry", EVIL, "1", "--wait", "0.01"), 1),
    (("deadletters", "retry", EVIL, "--all"), 0),
]
AS_JSON = [
    ("store", "info"),
    ("store", "events"),
    ("store", "stream", EVIL, *TYPE),
    ("store", "verify"),
    ("handlers", "list"),
    ("deadletters", "list"),
    ("deadletters", "show", EVIL, "1"),
]


@pytest.mark.parametrize(("arguments", "code"), COMMANDS, ids=[" ".join(a[:2]) for a, _ in COMMANDS])
def test_no_command_prints_terminal_control_characters(
    hostile_store: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    arguments: tuple[str, ...],
    code: int,
) -> None:
    monkeypatch.setenv("UNO_ACTORS_STORE", f"lmdb:{hostile_store}")
    found, out, err = printed(capsys, monkeypatch, *arguments)
    assert found == code, err
    assert out or err
    lines = [*out.split("\n"), *err.split("\n")]
    assert all(map(str.isprintable, lines)), next(line for line in lines if not line.isprintable())
    assert not any(line.strip().startswith("error: FORGED") for line in lines)


@pytest.mark.parametrize("arguments", AS_JSON, ids=[" ".join(a[:2]) for a in AS_JSON])
def test_json_is_ascii_and_valid_whatever_the_store_holds(
    hostile_store: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    arguments: tuple[str, ...],
) -> None:
    monkeypatch.setenv("UNO_ACTORS_STORE", f"lmdb:{hostile_store}")
    code, out, err = printed(capsys, monkeypatch, *arguments, "--json")
    assert (code, err) == (0, "")
    assert out.isascii()
    lines = out.removesuffix("\n").split("\n")
    assert all(map(str.isprintable, lines))
    read = [json.loads(line, parse_constant=lambda name: pytest.fail(f"{name} is no JSON")) for line in lines]
    if arguments != ("store", "verify"):
        assert EVIL in str_values(read)  # and loses nothing


def str_values(value: Any) -> set[str]:
    if isinstance(value, dict):
        return {*value}.union(*map(str_values, value.values()))
    return set().union(*map(str_values, value)) if isinstance(value, list) else {str(value)}


def test_names_are_not_read_as_markup(
    hostile_store: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("UNO_ACTORS_STORE", f"lmdb:{hostile_store}")
    for command in ("store info", "store events", "handlers list", "deadletters list"):
        assert SHOWN in printed(capsys, monkeypatch, *command.split())[1], command
    monkeypatch.setenv("FORCE_COLOR", "1")  # a terminal: folded, and with styles of its own
    monkeypatch.setenv("COLUMNS", "200")
    for command in ("store info", "handlers list", "deadletters list"):
        out = printed(capsys, monkeypatch, *command.split())[1]
        assert "[red]:warning:" in out, command
        assert "\x1b[31m" not in out


def test_the_lines_of_a_traceback_differ_from_the_fields_of_a_letter(
    hostile_store: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Old stores have tracebacks with line ends as they came."""
    monkeypatch.setenv("UNO_ACTORS_STORE", f"lmdb:{hostile_store}")
    out = printed(capsys, monkeypatch, "deadletters", "show", EVIL, "1")[1]
    head, _, below = out.partition("traceback:\n")
    assert [line.partition(":")[0] for line in head.splitlines()] == [
        "handler",
        "position",
        "event type",
        "attempts",
        "error",
        "first failed",
        "last failed",
        "event",
    ]
    assert below.splitlines()[0] == "  | Traceback (most recent call last):"
    assert all(line.startswith("  | ") for line in below.splitlines())


@pytest.mark.parametrize("encoding", ["ascii", "latin-1", "utf-8"])
@pytest.mark.parametrize(
    "arguments",
    [
        "store info",
        "store events",
        "store events --json",
        "store export",
        "handlers list",
        "deadletters list",
        "deadletters list --json",
        "handlers pause nope",
        "store --help",
        "check {file}",
        "check {broken}",
    ],
)
def test_commands_print_in_any_locale(
    hostile_store: Path, tmp_path: Path, encoding: str, arguments: str
) -> None:
    file, broken = tmp_path / "file.toml", tmp_path / "broken.toml"
    file.write_text(
        '[[supervisors]]\nname = "Zürich-日本"\n[[supervisors.supervisors]]\nname = "unten"\n', "utf-8"
    )
    broken.write_text('[system]\nname = "Zürich-日本"\nstore = "日本:x"\n', "utf-8")
    environment = {
        **os.environ,
        "PYTHONIOENCODING": encoding,
        "PYTHONUTF8": "0",
        "LC_ALL": "C",
        "UNO_ACTORS_STORE": f"lmdb:{hostile_store}",
    }
    words = arguments.format(file=file, broken=broken).split()
    done = subprocess.run([COMMAND, *words], env=environment, capture_output=True, check=False)
    assert done.returncode == (
        1 if (words[0] == "handlers" and "nope" in words) or "broken" in arguments else 0
    )
    out = done.stdout.decode(encoding) + done.stderr.decode(encoding)
    assert "Error" not in out.replace("ValueError", "")
    assert out
    if words[0] == "check" and file.name in words[1]:
        assert ("└─ unten" if encoding == "utf-8" else "`- unten") in out


def test_an_id_is_utf_8_in_any_locale(hostile_store: Path) -> None:
    environment = {
        **os.environ,
        "PYTHONIOENCODING": "ascii",
        "PYTHONUTF8": "0",
        "LC_ALL": "C",
        "UNO_ACTORS_STORE": f"lmdb:{hostile_store}",
    }
    for words in (["stream", "Zürich"], ["trace", "Zürich"], ["events", "--correlation", "Zürich"]):
        arguments = [str(COMMAND), "store", *words]
        done = subprocess.run(
            [argument.encode() for argument in arguments], env=environment, capture_output=True, check=False
        )
        assert b"Traceback" not in done.stderr, done.stderr.decode()
        assert b"Z\\xfcrich" in done.stderr or words[0] == "events"
