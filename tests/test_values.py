"""Values as bytes and back: the same, type for type, or refused."""

import enum
import math
from collections import OrderedDict, defaultdict, namedtuple
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, time, timedelta, timezone
from decimal import Decimal
from functools import cached_property
from typing import Any, NamedTuple
from uuid import UUID
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import BaseModel, ConfigDict, PrivateAttr, TypeAdapter, field_validator

from uno_actors.domain.values import classes_in, pack_value, unpack_value


class Colour(enum.Enum):
    RED = "r"
    GREEN = object()


class Rights(enum.Flag):
    READ = 1
    WRITE = 2


class Place(NamedTuple):
    x: int
    y: Decimal


@dataclass(frozen=True, slots=True)
class Money:
    amount: Decimal
    currency: str = "EUR"


@dataclass
class Line:
    item: str
    prices: list[Money] = field(default_factory=list)
    at: Place | None = None


class Item(BaseModel):
    model_config = ConfigDict(frozen=True, extra="allow")
    colour: Colour = Colour.RED
    lines: tuple[Line, ...] = ()
    parent: "Item | None" = None
    _unshown: set[int] = PrivateAttr(default_factory=set)

    @field_validator("colour")
    @classmethod
    def _judge(cls, colour: Colour) -> Colour:
        if colour is Colour.GREEN:
            raise ValueError("green is out of fashion")
        return colour


CLASSES = classes_in(list[Item] | dict[str, Rights])


def through_bytes(value: object) -> Any:
    return unpack_value(pack_value(value, CLASSES), CLASSES)


def same(one: object, other: object) -> bool:  # noqa: PLR0911 - one for each kind
    """Equal, of the same types all the way down, and distinguished where == does not."""
    if type(one) is not type(other):
        return False
    match one:
        case float():
            return repr(one) == repr(other)
        case dict():
            return [*one] == [*other] and all(same(one[key], other[key]) for key in one)  # type: ignore[index]
        case list() | tuple():
            return len(one) == len(other) and all(map(same, one, other))  # type: ignore[arg-type]
        case Decimal():
            return str(one) == str(other)
        case datetime() | time():
            return (repr(one), one.fold) == (repr(other), other.fold)  # type: ignore[attr-defined]
        case _:
            return one == other


ZONES = st.one_of(
    st.none(),
    st.just(UTC),
    st.sampled_from(
        [ZoneInfo("Europe/Vienna"), timezone(timedelta(hours=-8), "PST"), timezone(timedelta(minutes=90))]
    ),
)
HASHABLE = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text() | st.binary() | st.uuids()
    | st.decimals(allow_nan=False) | st.dates() | st.times(timezones=ZONES) | st.datetimes(timezones=ZONES)
    | st.timedeltas() | st.sampled_from(Colour) | st.builds(Money, st.decimals(allow_nan=False), st.text())
    | st.builds(Place, st.integers(), st.decimals(allow_nan=False)),
    lambda inner: st.lists(inner, max_size=3).map(tuple) | st.frozensets(inner, max_size=3),
    max_leaves=8,
)  # fmt: skip
VALUES = st.recursive(
    HASHABLE | st.just(math.nan),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(HASHABLE, inner, max_size=4)
    | st.sets(HASHABLE, max_size=4) | st.lists(inner, max_size=4).map(tuple),
    max_leaves=20,
)  # fmt: skip


@given(VALUES)
def test_value_comes_back_type_for_type(value: object) -> None:
    assert same(through_bytes(value), value)


@pytest.mark.parametrize(
    "value",
    [
        2**64 - 1,
        2**64,
        -(2**63) - 1,
        10**5000,
        Decimal("sNaN"),
        Decimal("1.500"),
        (),
        [[]],
        {(): []},
        Rights.READ,
    ],
    ids=lambda value: str(type(value).__name__),
)
def test_unusual_value_comes_back(value: object) -> None:
    assert same(through_bytes(value), value) or str(through_bytes(value)) == str(value)


def test_the_repeated_hour_of_a_time_change_is_distinguished() -> None:
    zone = ZoneInfo("Europe/Vienna")
    second = datetime(2024, 10, 27, 2, 30, fold=1, tzinfo=zone)
    assert through_bytes(second).utcoffset() == second.utcoffset() == timedelta(hours=1)


def test_a_time_that_pydantic_has_read_comes_back() -> None:
    moment = TypeAdapter(datetime).validate_python("2024-06-01T12:00:00+02:00")
    assert same(through_bytes(moment), moment)


def test_models_and_dataclasses_come_back_complete() -> None:
    item = Item(lines=(Line("a", [Money(Decimal("1.50"))], Place(1, Decimal(2))),), unheard=[Decimal(3)])  # type: ignore[call-arg]
    item._unshown.add(7)
    found = through_bytes({"key": [item, Item()]})["key"]
    assert found == [item, Item()]
    assert found[0]._unshown == {7}
    assert found[0].model_fields_set == item.model_fields_set == {"lines", "unheard"}
    assert type(found[0].lines[0].at) is Place
    assert type(found[0].unheard[0]) is Decimal


def test_a_value_that_a_validator_would_refuse_today_comes_back() -> None:
    item = Item.model_construct(colour=Colour.GREEN)
    assert through_bytes(item).colour is Colour.GREEN


class Text(str):
    __slots__ = ()


class Mixed(int, enum.Enum):
    ONE = 1


class Stranger(BaseModel):
    pass


@dataclass
class Cached:
    number: int

    @cached_property
    def double(self) -> int:
        return 2 * self.number


@pytest.mark.parametrize(
    "value",
    [Text("a"), Mixed.ONE, defaultdict(int), OrderedDict(), Stranger(), bytearray(), object(), print, Rights(3), 1j,
     datetime.now, range(3), Money, namedtuple("Other", "x")(1), "\ud800"],
    ids=lambda value: type(value).__name__,
)  # fmt: skip
def test_a_value_that_would_not_come_back_the_same_is_refused_at_any_depth(value: object) -> None:
    for wrapped in (value, [value], {"key": (value,)}, Line(item=value)):  # type: ignore[arg-type]
        with pytest.raises((TypeError, ValueError)):
            pack_value(wrapped, CLASSES)


def test_an_object_with_more_than_its_fields_is_refused() -> None:
    cached = Cached(2)
    classes = classes_in(Cached)
    assert unpack_value(pack_value(cached, classes), classes) == cached
    assert cached.double == 4
    with pytest.raises(ValueError, match="Cached has other fields: double"):
        pack_value(cached, classes)


@pytest.mark.parametrize("shared", [[1], {1: 2}, {1}, Line("a")], ids=lambda value: type(value).__name__)
def test_one_mutable_object_in_two_places_is_refused_because_it_would_become_two(shared: object) -> None:
    for value in ([shared, shared], {"a": shared, "b": (shared,)}, (shared, [shared])):
        with pytest.raises(ValueError, match="occurs in two places"):
            pack_value(value, CLASSES)
        assert unpack_value(pack_value(value, CLASSES, may_share=True), CLASSES) == value


def test_one_immutable_object_may_occur_in_two_places() -> None:
    money = Money(Decimal(1))
    assert through_bytes([money, money, Place(1, Decimal(1)), Place(1, Decimal(1))])[1] == money


def test_a_cycle_is_refused() -> None:
    circle: list[object] = []
    circle.append(circle)
    with pytest.raises(ValueError, match="two places"):
        pack_value(circle, CLASSES)


def test_classes_are_found_in_fields_of_fields_and_two_of_one_name_in_none() -> None:
    assert set(CLASSES) == {"Item", "Colour", "Line", "Money", "Place", "Rights"}
    other = enum.Enum("Colour", ["BLUE"])
    assert set(classes_in(Item, other)) == set(CLASSES) - {"Colour", "Rights"}
    assert classes_in(int, "Unknown", None, list["Item"], Exception) == {}


def test_no_class_is_missed_however_many_annotations_there_are() -> None:
    """The annotations to search are made for this test, and collected after it."""
    for _ in range(300):
        assert len(classes_in(list[Item] | dict[str, Rights])) == 6


@dataclass
class Renamed:
    quantity: int


Renamed.__name__ = "Line"


@pytest.mark.parametrize("classes", [{}, {"Line": Renamed}], ids=["unknown", "changed"])
def test_a_class_that_is_gone_or_has_other_fields_is_an_error(classes: dict[str, type]) -> None:
    data = pack_value(Line("a"), CLASSES)
    with pytest.raises((KeyError, ValueError)):
        unpack_value(data, classes)


@given(st.binary())
def test_damaged_bytes_are_an_exception_and_nothing_else(data: bytes) -> None:
    try:
        unpack_value(data, CLASSES)
    except Exception:  # noqa: BLE001 - any
        return


def test_uuids_and_dates_are_written_compactly() -> None:
    assert len(pack_value(UUID(int=7), {})) < 24
    assert len(pack_value(date(2024, 2, 29), {})) < 16
