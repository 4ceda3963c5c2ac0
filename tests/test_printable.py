"""The rule for text from outside, when it is shown, logged and recorded."""

import asyncio
import io
import json
import logging
import math
import unicodedata
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any

import pytest
import structlog
from hypothesis import given
from hypothesis import strategies as st

from uno_actors import ActorSystem, DomainEvent, EventBus
from uno_actors.errors import describe
from uno_actors.handlers.control import HandlerControl
from uno_actors.handlers.spec import HandlerSpec
from uno_actors.logs import get_logger, write_logs
from uno_actors.printable import (
    LONGEST_ERROR,
    LONGEST_TRACEBACK,
    as_json,
    bounded,
    counted,
    printable,
    printable_lines,
    traceback_text,
)

OBEYED = ["\n", "\r", "\x1b", "\x00", "\x07", "\x7f", "\x85", "\x9b", "\u200e", "\u202e", "\u2066", "\u2028"]
OBEYED += ["\u2029", "\ufeff", "\ud800", "\udfff", "\U000e0001", "\xad"]
ANY_TEXT = st.text(st.characters(exclude_categories=[]))
FORGED = "x\nCRITICAL root all is lost\x1b[31m\r\u2028CRITICAL root all is lost"


@pytest.mark.parametrize("character", OBEYED, ids=map(ascii, OBEYED))
def test_control_characters_of_a_terminal_are_escaped(character: str) -> None:
    shown = printable(f"a{character}b")
    assert shown.isascii()
    assert shown.isprintable()
    assert shown.startswith("a\\")
    assert json.loads(as_json(f"a{character}b"))[0] == "a"
    assert all(" " <= c <= "~" for c in as_json(f"a{character}b"))


@given(ANY_TEXT)
def test_letters_of_all_languages_stay_and_other_characters_are_escaped(text: str) -> None:
    shown = printable(text)
    assert shown.isprintable()
    shown.encode()
    for character in text:
        if unicodedata.category(character)[0] in "LMNPS":
            assert character in shown
    assert printable_lines(text).count("\n") == text.count("\n")


@given(ANY_TEXT, st.integers(2, 50))
def test_a_long_text_keeps_its_beginning_and_its_end(text: str, most: int) -> None:
    shown = bounded(text, most)
    if len(text) <= most:
        assert shown == text
    else:
        half = most // 2
        assert shown == f"{text[:half]} [{len(text) - 2 * half} characters left out] {text[-half:]}"


@pytest.mark.parametrize(
    ("number", "text"), [(0, "0 events"), (1, "1 event"), (2, "2 events"), (1000, "1,000 events")]
)
def test_a_count_is_written_with_singular_or_plural(number: int, text: str) -> None:
    assert counted(number, "event") == text


# --- JSON --------------------------------------------------------------------------------------------------

KEYS = ANY_TEXT | st.integers() | st.floats() | st.binary() | st.none() | st.tuples(st.integers())
ANYTHING = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | ANY_TEXT | st.binary() | st.datetimes(),
    lambda inner: st.lists(inner) | st.tuples(inner, inner) | st.dictionaries(KEYS, inner) | st.sets(KEYS),
    max_leaves=10,
)


@given(ANYTHING)
def test_json_is_valid_for_anything(value: Any) -> None:
    text = as_json(value)
    assert all(" " <= c <= "~" for c in text)
    read = json.loads(text, parse_constant=lambda name: pytest.fail(f"{name} is no JSON"))
    as_json(read).encode()
    read_texts = json.dumps(read, ensure_ascii=False)
    read_texts.encode()  # no halves of characters, which other readers refuse


class Unshown:
    def __str__(self) -> str:
        raise ValueError


CIRCLE: list[Any] = []
CIRCLE.append(CIRCLE)


@pytest.mark.parametrize(
    ("value", "wanted"),
    [
        ({"a": math.nan, "b": [math.inf, -math.inf]}, {"a": "NaN", "b": ["Infinity", "-Infinity"]}),
        (b"\xff", "/w=="),
        ({1: "x", None: b""}, {"1": "x", "null": ""}),
        (2**64, 2**64),
        (16**5000, "0x1" + "0" * 5000),
        (datetime(2024, 1, 2, tzinfo=UTC), "2024-01-02T00:00:00+00:00"),
        ("\ud800", "\\ud800"),
        ("😀", "😀"),
        ([Unshown()], ["a Unshown (its text cannot be shown)"]),
    ],
    ids=["not finite", "bytes", "keys", "2**64", "16**5000", "time", "half", "emoji", "unshown"],
)
def test_json_writes_values_without_a_json_type_as_text(value: Any, wanted: Any) -> None:
    assert json.loads(as_json(value)) == wanted


def test_json_of_a_cycle_ends() -> None:
    assert as_json(CIRCLE).count("[") == 100


# --- errors ------------------------------------------------------------------------------------------------


def raised(error: BaseException, cause: BaseException | None = None) -> BaseException:
    try:
        raise error from cause
    except BaseException as caught:  # noqa: BLE001 - whatever it is
        return caught


@given(ANY_TEXT, ANY_TEXT)
def test_no_line_of_an_errors_text_can_be_mistaken_for_another(text: str, note: str) -> None:
    error = ValueError(f"v\n{text}")
    error.add_note(note)
    lines = traceback_text(raised(RuntimeError(f"r\n{text}"), raised(error))).removesuffix("\n").split("\n")
    plain = [line for line in lines if not line.startswith("  ")]
    assert plain == [
        "Traceback (most recent call last):",
        "ValueError: v",
        "",
        "The above exception was the direct cause of the following exception:",
        "",
        "Traceback (most recent call last):",
        "RuntimeError: r",
    ]


def test_a_group_and_a_syntax_error_are_shown_as_python_does() -> None:
    group = traceback_text(raised(ExceptionGroup("g", [ValueError("a\nb"), TypeError("c")])))
    assert "    | ValueError: a\n    | b\n" in group
    assert '  File "<x>", line 1\n    a b\n' in traceback_text(SyntaxError("no", ("<x>", 1, 1, "a b")))


class Wild(Exception):
    @property
    def __notes__(self) -> list[str]:
        raise KeyError("no notes")

    def __str__(self) -> str:
        raise ValueError("no text")


def test_an_error_that_cannot_be_shown_is_described_all_the_same() -> None:
    assert describe(Wild()) == "Wild (its text cannot be shown)"
    assert "Wild" in traceback_text(raised(Wild()))


def test_an_error_of_megabytes_keeps_its_beginning_and_end() -> None:
    error = raised(ValueError("begin" + "x" * 5_000_000 + "end"))
    assert len(describe(error)) < LONGEST_ERROR + 100
    assert describe(error).startswith("ValueError: begin")
    assert describe(error).endswith("xend")
    assert "characters left out" in describe(error)
    assert len(traceback_text(error)) < LONGEST_TRACEBACK + 100
    assert traceback_text(error).startswith("Traceback")
    assert traceback_text(error).endswith("end\n")


class Hit(DomainEvent):
    pass


async def fails(event: Hit) -> None:
    raise ValueError(f"begin {FORGED} {'x' * 1_000_000} end")


async def test_dead_letters_are_bounded_where_they_are_recorded() -> None:
    """By a system at the first failure and at a retry, and by a bus."""
    spec = HandlerSpec("h", fails, start="earliest", max_attempts=1)
    async with ActorSystem("memory:", handlers=[spec]) as system:
        await system.store.append(Hit())
        await system.settled()
        (first,) = await system.store.dead_letters()
        await HandlerControl(system.store).retry("h", None)
        (again,) = await system.store.dead_letters()
        while again.attempts == 1:
            await asyncio.sleep(0.01)
            (again,) = await system.store.dead_letters()
    bus = EventBus()
    bus.subscribe(fails, Hit)
    await bus.publish(Hit())
    (failed,) = bus.dead_letters()
    for letter in (first, again, failed):
        assert letter.error.startswith("ValueError: begin")
        assert len(letter.error) < LONGEST_ERROR + 100
        assert len(letter.traceback) < LONGEST_TRACEBACK + 100
        assert letter.traceback.endswith("end\n")


# --- logs --------------------------------------------------------------------------------------------------


@pytest.fixture
def restored() -> Iterator[None]:
    root = logging.getLogger()
    before = root.handlers[:], root.level
    structlog.reset_defaults()
    yield
    root.handlers[:], root.level = before
    structlog.reset_defaults()


def log_everything() -> None:
    """Each way in which a text can come into a log."""
    try:
        raise ValueError(FORGED)
    except ValueError as error:
        get_logger(handler=FORGED).error(FORGED, value=FORGED, shown=Unshown(), exc_info=error)
        get_logger().exception("failed", values=[FORGED], bytes=b"\x1b", number=math.nan)
        get_logger().warning("bare", escape="\x1b[31m", stack="  a\n  b\x1b[31m")
        get_logger().warning("long", value="x" * 1_000_000)
        logging.getLogger("other").warning("%s", FORGED)


def check_lines(text: str, *, forms: tuple[str, ...] = ("CRITICAL root",)) -> None:
    lines = text.split("\n")
    assert all(map(str.isprintable, lines)), next(line for line in lines if not line.isprintable())
    assert not any(line.strip().startswith(forms) for line in lines)
    assert "all is lost" in text
    assert len(text) < 100_000


@pytest.mark.usefixtures("restored")
def test_the_standard_librarys_log_has_no_forged_lines() -> None:
    stream = io.StringIO()
    handler = logging.StreamHandler(stream)
    handler.setFormatter(logging.Formatter("%(levelname)s %(name)s %(message)s"))
    handler.addFilter(lambda record: record.name == "uno_actors")  # the rest is its program's
    logging.getLogger().addHandler(handler)
    log_everything()
    check_lines(stream.getvalue())
    assert stream.getvalue().count("\n  | CRITICAL root all is lost") == 2


@pytest.mark.usefixtures("restored")
@pytest.mark.parametrize("encoding", ["utf-8", "ascii"])
def test_the_log_for_people_has_no_forged_lines(encoding: str) -> None:
    raw = io.BytesIO()
    stream = io.TextIOWrapper(raw, encoding=encoding, write_through=True)
    write_logs(stream, "debug", "text")
    log_everything()
    get_logger().warning("Zürich")
    text = raw.getvalue().decode(encoding)
    check_lines(text)
    assert text.count("\n  | CRITICAL root all is lost") == 2
    assert ("Zürich" if encoding == "utf-8" else "Z\\xfcrich") in text


@pytest.mark.usefixtures("restored")
def test_the_log_for_programs_is_valid_json() -> None:
    stream = io.StringIO()
    write_logs(stream, "debug", "json")
    log_everything()
    lines = stream.getvalue().splitlines()
    assert stream.getvalue().isascii()
    read = [json.loads(line, parse_constant=pytest.fail) for line in lines]
    assert [line["event"] for line in read] == [FORGED, "failed", "bare", "long", FORGED]
    assert read[0]["value"] == FORGED
    assert read[1]["number"] == "NaN"
    assert read[0]["exception"].endswith("ValueError: x\n  | " + FORGED[2:])
