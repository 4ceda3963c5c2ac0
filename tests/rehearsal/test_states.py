"""States as two versions of a program compare them."""

import threading
from collections import Counter, OrderedDict, defaultdict, deque
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, timedelta, timezone
from decimal import Decimal
from enum import Enum, Flag, StrEnum
from functools import cached_property
from pathlib import PurePosixPath
from typing import Any, NamedTuple
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import BaseModel

from uno_actors import AggregateRoot
from uno_actors.rehearsal.states import (
    difference,
    digest,
    first_difference,
    form_of,
    form_of_state,
    state_of,
    text_of,
)


@dataclass
class Spot:
    x: int
    tags: set[str] = field(default_factory=set)


class Slotted:
    __slots__ = ("a", "b")

    def __init__(self, a: int) -> None:
        self.a = a


class Pair(NamedTuple):
    x: int
    y: int


class Model(BaseModel):
    x: int


class Hue(Enum):
    RED = 1
    BLUE = 2


class Word(StrEnum):
    RED = "red"


class Bits(Flag):
    A = 1
    B = 2


class Cached:
    def __init__(self) -> None:
        self.x = 1

    @cached_property
    def twice(self) -> int:
        return 2 * self.x


def looked_at(value: Cached) -> Cached:
    assert value.twice == 2
    return value


NAN = float("nan")

EQUAL: list[tuple[Any, Any]] = [
    (NAN, -NAN),
    ({"a": 1, "b": 2}, {"b": 2, "a": 1}),
    ({1: {"x"}, None: ()}, {None: (), 1: {"x"}}),
    ({"c", "a", "b"}, {"b", "c", "a"}),
    (Spot(1, {"a", "b"}), Spot(1, {"b", "a"})),
    (threading.Lock(), threading.Lock()),
    (Cached(), looked_at(Cached())),
    (Hue.RED, Hue["RED"]),
    (Bits.A | Bits.B, Bits.B | Bits.A),
    (Word.RED, Word.RED),
    (2**80, 2**80),
    (defaultdict(list, a=[1]), {"a": [1]}),
    (OrderedDict(a=1), {"a": 1}),
    (Counter("aab"), {"a": 2, "b": 1}),
    (deque([1, 2]), [1, 2]),
    (datetime(2026, 1, 1, tzinfo=UTC), datetime(2026, 1, 1, tzinfo=timezone(timedelta(0)))),
    (Slotted(1), Slotted(1)),
    ("\ud800", "\ud800"),
    (Spot, Spot),
    (len, len),
]

DIFFERENT: list[tuple[Any, Any]] = [
    (1, 1.0),
    (1, True),
    (0, None),
    (0.0, -0.0),
    (1, Decimal(1)),
    (Decimal("1.0"), Decimal("1.00")),
    ([1], (1,)),
    ([1, 2], [2, 1]),
    ({1}, frozenset({1})),
    ({"a": 1}, {"a": 1, "b": None}),
    ("1", 1),
    (b"a", "a"),
    (Hue.RED, Hue.BLUE),
    (Bits.A, Bits.A | Bits.B),
    (2**80, 2**80 + 1),
    (Spot(1), Spot(1, {"a"})),
    (Spot(1), Model(x=1)),
    (Pair(1, 2), (1, 2)),
    (datetime(2026, 1, 1), datetime(2026, 1, 1, tzinfo=UTC)),  # noqa: DTZ001 - a naive one
    (date(2026, 1, 1), datetime(2026, 1, 1, tzinfo=UTC)),
    (UUID(int=1), str(UUID(int=1))),
    (Slotted(1), Slotted(2)),
    (timedelta(seconds=1), 1.0),
    (PurePosixPath("a"), PurePosixPath("b")),
    (["cycle", "list"], [0, "cycle", "list"]),
    (["enum", "RED"], Hue.RED),
]


@pytest.mark.parametrize("number", range(len(EQUAL)))
def test_equal_values_have_one_form(number: int) -> None:
    one, other = EQUAL[number]
    assert difference(form_of(one), form_of(other)) is None
    assert digest(form_of(one)) == digest(form_of(other))


@pytest.mark.parametrize("number", range(len(DIFFERENT)))
def test_different_values_have_different_forms(number: int) -> None:
    one, other = DIFFERENT[number]
    assert difference(form_of(one), form_of(other)) is not None
    assert digest(form_of(one)) != digest(form_of(other))


def test_a_cycle_and_a_deep_value_have_a_form() -> None:
    circle: list[Any] = [1]
    circle.append(circle)
    assert text_of(form_of(circle)) == "[1, cycle('list')]"
    deep: Any = 0
    for _ in range(100_000):
        deep = [deep]
    assert form_of(deep) == ["too deep", "list"]


@pytest.mark.parametrize(
    ("value", "text"),
    [
        ({"a": [1, (2,)], 3: None}, "{3: None, 'a': [1, (2,)]}"),
        (Spot(1, {"b", "a"}), "Spot(x=1, tags={'a', 'b'})"),
        (Hue.RED, "RED"),
        (Decimal("1.50"), "Decimal('1.50')"),
        (datetime(2026, 1, 1, tzinfo=UTC), "2026-01-01T00:00:00+00:00"),
        (set(), "set()"),
        (NAN, "nan"),
        ("x" * 200, "'" + "x" * 118 + "…"),
    ],
)
def test_values_are_shown_as_python_writes_them(value: Any, text: str) -> None:
    assert text_of(form_of(value)) == text


PLACES: list[tuple[Any, Any, tuple[str, str | None, str | None]]] = [
    ([1, [2, 3]], [1, [2, 4]], ("[1][1]", "3", "4")),
    ([1], [1, 2], ("[1]", None, "2")),
    ({"a": Spot(1)}, {"a": Spot(2)}, ("['a'].x", "1", "2")),
    ({"a": 1}, {}, ("['a']", "1", None)),
    (Spot(1), Model(x=1), ("", "Spot(x=1, tags=set())", "Model(x=1)")),
]


@pytest.mark.parametrize("number", range(len(PLACES)))
def test_the_place_of_a_difference_is_named(number: int) -> None:
    old, new, expected = PLACES[number]
    assert difference(form_of(old), form_of(new)) == expected


def test_the_state_is_what_the_program_says_or_all_attributes() -> None:
    class Plain(AggregateRoot):
        def __init__(self, id: str) -> None:
            super().__init__(id)
            self.cents = 1
            self._seen = {2}

    class Own(Plain):
        def to_snapshot(self) -> dict[str, Any]:
            return {"own": self.cents}

    assert state_of(Plain("a")) == {"cents": 1, "_seen": {2}}
    assert state_of(Own("a")) == {"own": 1}
    assert first_difference(form_of_state({"a": [1]}), form_of_state({"a": [2]})) == ("a[0]", "1", "2")


values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text() | st.binary() | st.decimals(),
    lambda inner: (
        st.lists(inner) | st.dictionaries(st.text() | st.integers(), inner) | st.tuples(inner, inner)
    ),
    max_leaves=10,
)


@given(values)
def test_any_value_equals_itself_and_differs_once_it_is_wrapped(value: Any) -> None:
    assert difference(form_of(value), form_of(value)) is None
    assert difference(form_of(value), form_of([value])) is not None


def test_integers_beyond_what_python_writes_in_decimal_have_a_form() -> None:
    huge = 10**5_000
    assert digest(form_of(huge)) == digest(form_of(huge)) != digest(form_of(huge + 1))
    assert text_of(form_of(10**30)) == str(10**30)
    assert text_of(form_of(huge)).startswith("0x")


def test_a_value_without_a_text_equals_all_of_its_class() -> None:
    class Shy:
        __slots__ = ()

        def __repr__(self) -> str:
            raise ValueError("no text")

    class Other(Shy):
        __slots__ = ()

    assert digest(form_of([Shy()])) == digest(form_of([Shy()])) != digest(form_of([Other()]))
