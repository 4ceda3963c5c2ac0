"""The lines of the keys of a TOML document, and its syntax errors."""

import json
import re
import tomllib
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from uno_actors.config.toml import read_toml

DOCUMENT = '''\
a = 1
"b c".d = "two" # not = this

[table]
text = """
x = 1
"quoted" ""twice""
"""
literal = \'\'\'
[no]\'\'\'\'\'
list = [ # [[not this]]
  1, "]",
  { x = 1, y = [2,
    3] },
]
when = 1979-05-27 07:32:00 # a space in it

[[many]]
x = 1
[[many.inner]]
y = 2
[many.inner.table]
z = 3
[[many]]
x = "\\"]"
[[many.inner]]
y = 4
[[other]]
[[many.inner]]
y = 5
'''


def test_each_key_and_element_has_its_line() -> None:
    document = read_toml(DOCUMENT)
    assert document.data == tomllib.loads(DOCUMENT)
    assert document.faults == ()
    assert document.lines == {
        ("a",): 1,
        ("b c",): 2,
        ("b c", "d"): 2,
        ("table",): 4,
        ("table", "text"): 5,
        ("table", "literal"): 9,
        ("table", "list"): 11,
        ("table", "list", 0): 12,
        ("table", "list", 1): 12,
        ("table", "list", 2): 13,
        ("table", "list", 2, "x"): 13,
        ("table", "list", 2, "y"): 13,
        ("table", "list", 2, "y", 0): 13,
        ("table", "list", 2, "y", 1): 14,
        ("table", "when"): 16,
        ("many",): 18,
        ("many", 0): 18,
        ("many", 0, "x"): 19,
        ("many", 0, "inner"): 20,
        ("many", 0, "inner", 0): 20,
        ("many", 0, "inner", 0, "y"): 21,
        ("many", 0, "inner", 0, "table"): 22,
        ("many", 0, "inner", 0, "table", "z"): 23,
        ("many", 1): 24,
        ("many", 1, "x"): 25,
        ("many", 1, "inner"): 26,
        ("many", 1, "inner", 0): 26,
        ("many", 1, "inner", 0, "y"): 27,
        ("other",): 28,
        ("other", 0): 28,
        ("many", 1, "inner", 1): 29,
        ("many", 1, "inner", 1, "y"): 30,
    }


FAULTS = [
    # text, lines of the faults, part of the first reason, what can still be read
    ("a = 1\nb = 2\na = 3\n", [3], "a is given twice, first in line 1", {"a": 1, "b": 2}),
    ("[s]\nx = 1\n[s]\nx = 2\n[s]\n", [3, 4, 5], "s is given twice, first in line 1", {"s": {"x": 1}}),
    ("t = { x = 1, x = 2 }\n", [1], "t.x is given twice", {"t": {"x": 1}}),
    ("a = 1\na = { b = 1, b = 2 }\n", [2], "a is given twice", {"a": 1}),
    ("a = [\n1]\na = [\n2,\n3]\nb = x\n", [3, 6], "a is given twice", {"a": [1]}),
    ("a = b\nc = 1\nd = e\n", [1, 3], "Invalid value, in 'a = b'", {"c": 1}),
    ('a = "x\nb = 1\n', [1], "Illegal character", {"b": 1}),
    ("[a\nb = 1\n", [1], "Expected ']'", {}),
    ("x = 1\na = [1,\nb = 2\n", [3], "what it belongs to begins in line 2", {}),
    ('x = 1\na = """\nb = 2\n\nc = 3\n', [2], "Unterminated string", {}),
    ("x = [1, 2\n\n\n", [1], "Unclosed array", {}),
    ("x = " + "[" * 3000, [1], "nested more than 60 levels deep", {}),
    ("y = 1\nx = " + "[\n" * 100 + "]" * 100, [101], "nested more than 60 levels deep", {}),
    ("y = 1\n" + ".".join("a" * 3000) + " = 1\n", [2], "nested more than 60 levels deep", {}),
    ("y = 1\n[" + ".".join("a" * 3000) + "]\n", [2], "nested more than 60 levels deep", {}),
    (
        "".join(f"[[{'.'.join('a' * n)}]]\n" for n in range(1, 99)),
        [61],
        "nested more than 60 levels deep",
        {},
    ),
    ("[[a]]\n[a.b]\n[a.b]\n", [3], "a[0].b is given twice", {"a": [{"b": {}}]}),
    ("y = 1\nx = " + "9" * 5000, [2], "4300 digits", {}),
    ("a.b = 1\n[a]\nc = 1\n", [2], "Cannot declare a twice", {}),
    ("[a.'b c']\n[a]\n'b c'.d = 1\n", [3], 'Cannot redefine namespace a."b c"', {}),
    ("[a]\nb = 1\n[[a]]\n", [3], "Cannot overwrite a value", {}),
    ("a = 1\r\nb = x\r\n", [2], "Invalid value", {"a": 1}),
    ("\0", [1], "Invalid statement", {}),
    ('a = "\\ud800"\n', [1], "Unicode scalar", {}),
]


@pytest.mark.parametrize(("text", "lines", "reason", "data"), FAULTS, ids=[f[0][:20] for f in FAULTS])
def test_a_syntax_error_is_reported_with_its_line(
    text: str, lines: list[int], reason: str, data: dict[str, Any]
) -> None:
    document = read_toml(text)
    assert [fault.line for fault in document.faults] == lines
    assert reason in document.faults[0].reason
    assert document.data == data
    assert document.is_whole == all("given twice" in fault.reason for fault in document.faults)


def test_no_more_than_twenty_lines_are_reported() -> None:
    assert len(read_toml("a = b\n" * 500).faults) == 20


# --- that the scanner and tomllib never disagree -----------------------------------------------------------

names = st.text(min_size=1, max_size=3) | st.sampled_from(["a", "b", "c", "a.b", "x y", '"', "'"])
texts = st.text(max_size=5).map(lambda text: json.dumps(text).replace("\x7f", "\\u007f"))


class Written:
    """Draws documents in which every value is a number of its own, to be found in the text."""

    def __init__(self, draw: Any) -> None:
        self.draw = draw
        self.count = 0
        self.text = ""

    def key(self, name: str) -> str:
        style = self.draw(st.sampled_from(["bare", "quoted"]))
        is_bare = style == "bare" and re.fullmatch("[A-Za-z0-9_-]+", name)
        return name if is_bare else json.dumps(name).replace("\x7f", "\\u007f")

    def break_line(self) -> str:
        return self.draw(st.sampled_from([" ", "\n", "  # ] } a = 1\n", "\n\n", "\r\n"]))

    def value(self, depth: int) -> str:
        kind = self.draw(st.sampled_from(["number"] if depth > 2 else ["number", "number", "list", "table"]))
        if kind == "list":
            items = [self.value(depth + 1) for _ in range(self.draw(st.integers(0, 3)))]
            return "[" + ",".join(self.break_line() + item + self.break_line() for item in items) + "]"
        if kind == "table":
            keys = self.draw(st.lists(names, max_size=3, unique=True))
            pairs = [f"{self.key(key)} = {self.table_value(depth + 1)}" for key in keys]
            return "{ " + ", ".join(pairs) + " }"
        self.count += 1
        return f"{1_000_000 + self.count}"

    def table_value(self, depth: int) -> str:
        return self.value(depth).replace("\r\n", " ").replace("  # ] } a = 1\n", " ").replace("\n", " ")

    def statements(self, level: int) -> None:
        for key in self.draw(st.lists(names, max_size=4, unique=True)):
            noise = self.draw(st.sampled_from(["", "# x = 1\n", "\n", "\t "]))
            self.text += (
                f"{noise}{self.key(key)} = {self.value(0)}{self.draw(st.sampled_from(['', ' # [a]']))}\n"
            )

    def document(self) -> str:
        self.statements(0)
        for name in self.draw(st.lists(names, max_size=3, unique=True)):
            header = f"top-{name}"
            is_array = self.draw(st.booleans())
            for _ in range(self.draw(st.integers(1, 3)) if is_array else 1):
                key = json.dumps(header).replace("\x7f", "\\u007f")
                self.text += f"[[{key}]]\n" if is_array else f"[ {key} ]\n"
                self.statements(1)
                if self.draw(st.booleans()):
                    self.text += f"[{key}.sub-table]\n"
                    self.statements(2)
        return self.text


@st.composite
def documents(draw: Any) -> str:
    return Written(draw).document()


def leaves(data: Any, path: tuple[Any, ...] = ()) -> Any:
    inner = data.items() if isinstance(data, dict) else enumerate(data) if isinstance(data, list) else ()
    if path:
        yield path, data
    for key, value in inner:
        yield from leaves(value, (*path, key))


@given(documents())
def test_every_value_is_in_the_reported_line(text: str) -> None:
    document = read_toml(text)
    try:
        data = tomllib.loads(text)
    except tomllib.TOMLDecodeError:  # a key came in two ways of writing, or a table after its dotted keys
        assert document.faults
        return
    assert document.data == data
    found = dict(leaves(data))
    assert document.lines.keys() == found.keys()
    lines = text.replace("\r\n", "\n").split("\n")
    for path, value in found.items():
        if isinstance(value, int) and isinstance(path[-1], int):
            assert str(value) in lines[document.lines[path] - 1]
        elif isinstance(value, int):
            # the key stands where the value begins, which has no line break before it
            assert str(value) in lines[document.lines[path] - 1]


@given(st.text(alphabet=st.sampled_from("a=b\n[]{}\"'.,#1 \\\t-:"), max_size=40))
@example('a="""b"""""\nb=1')
@example("[[a]]\n[a]\n")
@example("a={b=1,\nb=2}")
def test_any_text_is_read_or_has_faults(text: str) -> None:
    document = read_toml(text)
    try:
        data = tomllib.loads(text)
    except tomllib.TOMLDecodeError:
        assert document.faults
        assert all(1 <= fault.line <= text.count("\n") + 1 for fault in document.faults)
        return
    assert document.data == data
    assert document.lines.keys() == dict(leaves(data)).keys()
