"""What two runs of one program have in common: only this can be compared with another program.

An answer may hold a new id, a state the time at which it was loaded. Such a part differs between two runs of the same
code, and says nothing about another code. All other parts do, so a value is compared without its random parts, and
not left out because of them.
"""

from collections.abc import Sequence
from typing import Any, TypeAlias

from uno_actors.rehearsal.states import DICT, Form, is_same

CHANCE: Form = ["chance"]
"""In place of a part that differs between two runs. No form of a value is like it."""

Twice: TypeAlias = Sequence[Any]
"""What a program has answered in two runs."""

_UNORDERED = ("set", "frozenset")


def steady(first: Form, second: Form) -> Form:
    """The form of a value in two runs of one program, with `CHANCE` in place of what differs."""
    if is_same(first, second):
        return first
    pairs = _parts(first, second)
    if pairs is None:
        return CHANCE
    return _like(first, [steady(one, other) for one, other in pairs])


def without_chance(form: Form, other: Form) -> Form:
    """``form`` without the parts that are `CHANCE` in ``other``, which is that of another program."""
    if other == CHANCE:
        return CHANCE
    pairs = _parts(form, other)
    return form if pairs is None else _like(form, [without_chance(one, another) for one, another in pairs])


def comparable(old: Twice, new: Twice) -> tuple[Form, Form]:
    """The forms of a value in two programs, each of which has run twice: equal if they differ by chance alone."""
    before, after = steady(*old), steady(*new)
    return without_chance(before, after), without_chance(after, before)


def comparable_decisions(old: Twice, new: Twice) -> tuple[Form, Form]:
    """As `comparable`, of decisions: lists of an outcome, a reason, events and a reply."""
    return comparable(*([_as_form(decision) for decision in twice] for twice in (old, new)))


def _as_form(decision: Sequence[Any]) -> Form:
    """A decision as a form whose events have their names at their places, so that another event is not chance."""
    outcome, reason, events, reply = decision
    return [outcome, reason, [[name for name, _ in events], *(form for _, form in events)], reply]


def _parts(one: Form, other: Form) -> list[tuple[Form, Form]] | None:
    """The parts of two forms side by side; ``None`` if they do not have the same parts."""
    if not (isinstance(one, list) and isinstance(other, list) and one and other):
        return None
    if one[0] != other[0] or len(one) != len(other) or one[0] in _UNORDERED:
        return None
    if one[0] == DICT:
        same = all(is_same(before[0], after[0]) for before, after in zip(one[1:], other[1:], strict=True))
        values = [(before[1], after[1]) for before, after in zip(one[1:], other[1:], strict=True)]
        return values if same else None
    return list(zip(one[1:], other[1:], strict=True))


def _like(form: Form, parts: list[Form]) -> Form:
    """A form with other parts."""
    if form[0] == DICT:
        return [DICT, *([key, part] for (key, _), part in zip(form[1:], parts, strict=True))]
    return [form[0], *parts]
