"""House rule: the prose of the code and of the documentation avoids habits that make a native reader stumble."""

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent

HABITS = {
    r"\b(?:who(?:so)?ever|somebody|nobody|those who)\b": "name the subject: the caller, another process, no handler",
    r"\b(?:is|are) told\b": "say what happens: it is reported, logged, shown, notified",
    r"\b(?:go(?:es)?|gone|went) on\b(?! the\b)": "continue, or resume",
    r"\b(?:lest|hitherto|thereby|thereupon)\b": "use the common word: so that, until now, in this way, then",
    r"\b(?:is|are|was|were|be|been) had\b": "use an active verb: get, take, hold",
    r"\bof chance\b": "say random",
    r"\bat each (?:start|restart|signal|call|use)\b|\bever (?:less|more) often\b": "on each; at growing intervals",
    r"\ballowed (?:is|are)\b": "keep the order of English: expected a table, at most 255 bytes are allowed",
    r"(?<!there )\b(?:is|are) no (?!long|more|limit|fewer|less|other|such)\w+": "say is not a, is not an",
    r"\bat the (?:least|most)\b": "at least, at most",
    r"\b(?:begins?|began|begun|starts?|made|built) anew\b": "start over, again",
    r"\bfor ever\b": "forever",
}
"""Each habit as a pattern, with what to write instead."""

FOLDERS = {"uno_actors": "*.py", "stores": "*.py", "examples": "*.py", "docs": "*.md"}

PAGES = [
    ROOT / "README.md",
    *sorted(page for name, kind in FOLDERS.items() for page in (ROOT / name).rglob(kind)),
]


def stumbles(text: str) -> list[str]:
    """The habits in ``text``, each with its line and the remedy; a phrase may run over the end of a line."""
    words = [
        (number, word)
        for number, line in enumerate(text.splitlines(), start=1)
        for word in line.split()
        if word != "#"
    ]
    prose, lines = " ".join(word for _, word in words), [number for number, _ in words]
    found = []
    for habit, remedy in HABITS.items():
        for match in re.finditer(habit, prose, re.IGNORECASE):
            line = lines[prose.count(" ", 0, match.start())]
            found.append(f"line {line}: {match.group()!r}: {remedy}")
    return found


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_prose_avoids_the_habits_that_make_a_reader_stumble(page: Path) -> None:
    assert not stumbles(page.read_text())


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("# Whoever asks is answered.", 1),
        ('"""A handler that\nis told the line."""', 2),
        ('"""A copy that is gone\n    on with."""', 1),
        ("# The name is no\n# string.", 1),
        ("found 0; allowed is a whole number", 1),
        ("as long as can be had", 1),
        ("wait for ever", 1),
    ],
)
def test_each_habit_is_found_with_its_line(text: str, line: int) -> None:
    (found,) = stumbles(text)
    assert found.startswith(f"line {line}: ")


@pytest.mark.parametrize(
    "text",
    [
        "There is no aggregate of this name.",
        "It is no longer needed.",
        "The default is no limit.",
        "It goes on the event loop.",
        "At least one is found.",
    ],
)
def test_common_phrases_are_accepted(text: str) -> None:
    assert not stumbles(text)
