"""Fingerprints: a command sent again has the same one, in every process; another command has another."""

import os
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, time, timedelta, timezone
from decimal import Decimal
from enum import Enum, IntEnum, StrEnum
from pathlib import Path
from typing import Any, NamedTuple
from uuid import UUID, uuid4

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import BaseModel, ConfigDict, Field, SecretStr, create_model, field_serializer

from uno_actors import Command
from uno_actors.aggregates.fingerprint import SIZE, are_same, fingerprint, is_same


class Colour(Enum):
    RED = (1, 2)
    BLUE = (2, 1)


class Size(StrEnum):
    SMALL = "s"


class Level(IntEnum):
    LOW = 1


class Line(BaseModel):
    model_config = ConfigDict(arbitrary_types_allowed=True)
    item: str
    count: int = 1
    tags: set[str] = set()


class RareLine(Line):
    rarity: int = 0


class Cash(BaseModel):
    amount: int


class Card(BaseModel):
    amount: int


@dataclass
class Place:
    street: str
    number: int = 0
    notes: list[str] = field(default_factory=list)


class Point(NamedTuple):
    x: int
    y: int


class Holds(Command[Any]):
    """Anything."""

    model_config = ConfigDict(arbitrary_types_allowed=True)
    value: Any


def holding(value: object, **more: Any) -> Holds:
    return Holds(value=value, command_id="one", **more)


EAST = timezone(timedelta(hours=5, minutes=30))

SAME: list[tuple[object, object]] = [
    (1, 1.0),
    (1, Decimal("1.00")),
    (0.0, -0.0),
    (2**80, 2.0**80),
    (Decimal("1.5"), Decimal("1.50")),
    (Decimal("1E+400"), Decimal("10E+399")),
    (float("inf"), Decimal("Infinity")),
    (float("nan"), float("nan")),
    ({1, 2, 10**30}, {10**30, 2, 1}),
    ({"a": 1, "b": {2: 3, 4: 5}}, {"b": {4: 5, 2: 3}, "a": 1}),
    ((1, 2), [1, 2]),
    (Point(1, 2), (1, 2)),
    (Size.SMALL, "s"),
    (Level.LOW, 1),
    (datetime(2026, 3, 1, 5, 30, tzinfo=EAST), datetime(2026, 3, 1, tzinfo=UTC)),
    (Line(item="x"), Line(item="x", count=1, tags=set())),
    (Place("x"), Place("x", 0, [])),
]  # fmt: skip


def in_order(value: object) -> str:
    """As text, the same in every process: the order of a set depends on how the set was made."""
    return f"set of {sorted(value)}" if isinstance(value, set) else repr(value)


@pytest.mark.parametrize(("one", "other"), SAME, ids=in_order)
def test_values_that_mean_the_same_have_one_fingerprint(one: object, other: object) -> None:
    assert fingerprint(holding(one)) == fingerprint(holding(other))
    assert fingerprint(holding([{"x": one}])) == fingerprint(holding([{"x": other}]))


MOMENT = datetime(2026, 1, 1, tzinfo=UTC)

DIFFERENT: list[object] = [
    None, True, False, 0, 1, -1, 2**63, -(2**63) - 1, 1.5, Decimal("1.25"), Decimal("1E+400"), float("inf"),
    float("-inf"), float("nan"), "", "1", "None", "\ud800", "e\u0301", "\xe9", b"", b"1", [], [1], [[1]], [1, 2],
    [2, 1], {}, {1: 2}, {"1": 2}, {2: 1}, {1}, {1, 2}, Colour.RED, Colour.BLUE, Line(item="x"),
    Line(item="x", count=2), RareLine(item="x"), Line(item="x", tags={"a"}), Cash(amount=1), Card(amount=1),
    Place("x"), Place("y"), Place("x", 1), MOMENT, MOMENT.replace(tzinfo=None), MOMENT.replace(tzinfo=EAST),
    datetime.max.replace(tzinfo=timezone(-timedelta(hours=1))), date(2026, 1, 1), time(1), timedelta(1),
    timedelta(0, 1), UUID(int=1), Path("a"), Path("b"), object(),
]  # fmt: skip


def test_values_that_differ_have_different_fingerprints() -> None:
    found = {fingerprint(holding(value)): value for value in DIFFERENT}
    assert len(found) == len(DIFFERENT)
    assert {len(each) for each in found} == {SIZE}


def test_the_type_and_the_id_count_and_the_cause_does_not() -> None:
    class Other(Holds):
        pass

    class Renamed(Holds):
        pass

    Renamed.__name__ = "Holds"  # as in another module
    first = fingerprint(holding(1))
    assert fingerprint(Other(value=1, command_id="one")) != first
    assert fingerprint(Holds(value=1, command_id="two")) != first
    assert fingerprint(holding(1, correlation_id="c", causation_id="k")) == first
    assert fingerprint(Renamed(value=1, command_id="one")) == first


def test_a_class_may_gain_fields_with_defaults_and_change_their_order() -> None:
    older = create_model("Pay", __base__=Command[None], amount=(int, ...), to=(str, ...))
    newer = create_model(
        "Pay",
        __base__=Command[None],
        currency=(str, "EUR"),
        to=(str, ...),
        notes=(list[str], Field(default_factory=list)),
        line=(Line, Line(item="none")),
        amount=(int, ...),
    )
    given = {"amount": 1, "to": "bob", "command_id": "x"}
    recorded = fingerprint(older(**given))
    assert is_same(newer(**given), recorded)
    assert is_same(newer(**given, currency="EUR", notes=[]), recorded)
    assert not is_same(newer(**given, currency="USD"), recorded)
    assert not is_same(newer(**given, notes=["!"]), recorded)
    assert not is_same(newer(**given, line=Line(item="none", count=2)), recorded)


class Order(Command[None]):
    item: str
    number: str = Field(default_factory=lambda: uuid4().hex)
    line: Line = Field(default_factory=lambda: Line(item=uuid4().hex))


def test_a_value_made_by_a_default_factory_does_not_count_unless_it_was_given() -> None:
    """A repeated request is built again; or it was kept as JSON, in which every field is given."""
    first = Order(item="a", command_id="x")
    assert are_same(first, Order(item="a", command_id="x"))
    assert are_same(first, Order.model_validate_json(first.model_dump_json()))
    assert are_same(Order.model_validate_json(first.model_dump_json()), first)
    assert not are_same(first, Order(item="b", command_id="x"))
    numbered = Order(item="a", number="7", command_id="x")
    assert are_same(numbered, Order(item="a", number="7", command_id="x"))
    assert not are_same(numbered, Order(item="a", number="8", command_id="x"))


class Shy:
    def __eq__(self, other: object) -> bool:
        raise RuntimeError("shy")

    __hash__ = None  # type: ignore[assignment]


def endless() -> list[Any]:
    inner: list[Any] = []
    inner.append(inner)
    return inner


@pytest.mark.parametrize("value", [Shy(), endless(), SecretStr("1234")], ids=["shy", "endless", "secret"])
def test_an_opaque_value_counts_by_its_class(value: object) -> None:
    command = holding(value)
    assert fingerprint(command) == fingerprint(command)
    assert fingerprint(holding(SecretStr("1234"))) == fingerprint(holding(SecretStr("4321")))


def test_a_value_that_can_be_read_only_once_is_not_read() -> None:
    def numbers() -> Iterator[int]:
        yield from (1, 2, 3)

    command = holding(numbers())
    fingerprint(command)
    assert list(command.value) == [1, 2, 3]


def test_serializers_of_a_field_do_not_count() -> None:
    class Masked(Command[None]):
        card: str
        pin: str = Field(exclude=True)

        @field_serializer("card")
        def mask(self, card: str) -> str:
            return "****"

    masked = Masked(card="1234", pin="1", command_id="x")
    assert not are_same(masked, Masked(card="4321", pin="1", command_id="x"))
    assert not are_same(masked, Masked(card="1234", pin="2", command_id="x"))


PROGRAM = """
from tests.test_fingerprint import DIFFERENT, holding
from uno_actors.aggregates.fingerprint import fingerprint
values = [{"rhubarb", "plum", "fig", b"x", 3, None}, {"b": {1, 2}, "a": frozenset("xyz")}]
print([fingerprint(holding(value)).hex() for value in values + DIFFERENT])
"""


def test_a_fingerprint_is_the_same_in_every_process() -> None:
    """Hashes of strings, and so the order of sets, differ between two processes."""
    found = {
        subprocess.run(
            [sys.executable, "-c", PROGRAM],
            env=os.environ | {"PYTHONHASHSEED": seed},
            cwd=Path(__file__).parent.parent,
            capture_output=True,
            text=True,
            check=True,
        ).stdout
        for seed in ("1", "2", "77")
    }
    assert len(found) == 1


def test_recorded_fingerprints_stay_valid() -> None:
    """It is on disk: a different one for the same command would refuse repetitions of commands recorded earlier."""
    found = [
        fingerprint(holding(value)).hex()
        for value in (1, 1.5, "a", None, [1], {"a": 1}, {1}, Decimal("1.5"), Line(item="x"), Colour.RED, date.min)
    ]  # fmt: skip
    assert found == RECORDED


RECORDED = [
    "c4b100c29e2f3653",
    "ce3b62126b4d6bc5",
    "a3c75047f6986155",
    "cbf2dab2cc75965e",
    "020e6b686fdafabd",
    "70557a88ca5a48bc",
    "96af97fbeaab6cbf",
    "1f2d1ea2bfe241ff",
    "1b7773dd8ae0161e",
    "145070026e8e6b29",
    "f9ea6c96ceae1e57",
]

SCALARS = (
    st.none() | st.booleans() | st.integers() | st.floats() | st.text() | st.binary() | st.decimals()
    | st.datetimes() | st.datetimes(timezones=st.sampled_from([UTC, EAST])) | st.dates() | st.times()
    | st.timedeltas() | st.uuids() | st.sampled_from([*Colour, *Size, *Level])
)  # fmt: skip
VALUES = st.recursive(
    SCALARS,
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.text(max_size=3) | st.integers(), inner, max_size=3)
        | st.frozensets(st.text(max_size=3) | st.integers() | st.none(), max_size=3)
        | st.builds(Line, item=st.text(max_size=3), tags=st.sets(st.text(max_size=2), max_size=3))
        | st.builds(Place, st.text(max_size=3), st.integers(), st.lists(st.text(max_size=2), max_size=2))
    ),
    max_leaves=6,
)


@given(VALUES, VALUES)
def test_equal_values_have_equal_fingerprints_and_different_ones_do_not(one: Any, other: Any) -> None:
    same = fingerprint(holding(one)) == fingerprint(holding(other))
    if repr(one) == repr(other):
        assert same
    elif same:
        assert one == other or "nan" in f"{one!r}{other!r}".lower()


@given(VALUES)
def test_a_copy_has_the_same_fingerprint(value: Any) -> None:
    command = holding(value)
    assert are_same(command, command.model_copy(deep=True, update={"correlation_id": "c"}))
